/* SPDX-License-Identifier: MIT */

/*
 * In each round of a row every contender measures once, so that all meet the same noise. Order changes from round to round, so
 * that nobody always comes after the same one, whose freed pages he gets. Owns the workers. Progress goes to stderr.
 */

#include "driver.h"

#include "service.h"
#include "team.h"
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>

struct driver {
    const struct plan *plan;
    struct worker workers[CONTENDER_COUNT];
};

static void measure(struct driver *driver, struct row_result *result, enum contender contender) {
    struct task task = {
        .row = result->row,
        .contender = contender,
        .scale = driver->plan->scale,
        .service = driver->plan->service,
    };
    struct cell *cell = &result->cells[contender];

    if (*cell->missing)
        return;
    if (worker_ask(&driver->workers[contender], &task, &cell->samples[cell->count]) < 0)
        snprintf(cell->missing, sizeof(cell->missing), "%s", task.reason);
    else
        cell->count++;
}

/* Who is next: begins with another one in each round, and goes the other way round in every second. */
static unsigned place(unsigned i, unsigned round, unsigned count) {
    return (round % 2 == 0 ? i + round : round + count - i) % count;
}

static void run_row(struct driver *driver, struct row_result *result) {
    enum contender taking_part[CONTENDER_COUNT];
    unsigned count = 0;

    result->rounds = driver->plan->rounds;
    if (driver->plan->scale != SCALE_TINY && result->row->rounds > result->rounds)
        result->rounds = result->row->rounds;
    if (result->row->rounds_most > 0 && result->row->rounds_most < result->rounds)
        result->rounds = result->row->rounds_most;
    for (unsigned c = 0; c < CONTENDER_COUNT; c++) {
        struct cell *cell = &result->cells[c];

        if (!(result->row->contenders & driver->plan->contenders & CONTENDER_BIT(c)))
            continue;
        taking_part[count++] = (enum contender)c;
        cell->samples = calloc(result->rounds, sizeof(*cell->samples));
        if (!cell->samples)
            snprintf(cell->missing, sizeof(cell->missing), "ENOMEM: samples");
    }
    for (unsigned round = 0; round < result->rounds; round++) {
        fprintf(stderr, " %u", round + 1);
        for (unsigned i = 0; i < count; i++)
            measure(driver, result, taking_part[place(i, round, count)]);
    }
}

void driver_run(struct result *result, const struct plan *plan) {
    struct driver driver = {.plan = plan};
    unsigned selected = 0, done = 0;
    uint64_t start = now_ns();

    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        driver.workers[c] = (struct worker){.contender = (enum contender)c, .fd = -1};
    for (unsigned i = 0; i < row_count; i++)
        selected += result->rows[i].selected;
    for (unsigned i = 0; i < row_count; i++) {
        uint64_t row_start = now_ns();

        if (!result->rows[i].selected)
            continue;
        fprintf(stderr, "[%u/%u] %s: round", ++done, selected, rows[i].name);
        run_row(&driver, &result->rows[i]);
        fprintf(stderr, ", %.1f s\n", (double)(now_ns() - row_start) / 1e9);
    }
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        worker_stop(&driver.workers[c]);
    service_memory(plan->service, &result->service_rss, &result->service_pss);
    result->took_ns = now_ns() - start;
}
