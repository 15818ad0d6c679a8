/* SPDX-License-Identifier: MIT */
/*
 * Is memory given back early enough? Real clients, in a memory cgroup of 256 MiB, of which 128 MiB are droppable.
 *
 * First a run shows that without droppable memory the same load brings the OOM killer: otherwise the rest would prove nothing. Rows
 * that are no bar are there for their figures: the reserve that is enough depends on how fast memory can be taken, and that is
 * four times as fast in huge pages.
 */

#include "bars.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT (256 * MIB)
#define DROPPABLE (128 * MIB)
#define HOG (190 * MIB)
#define HOGS_MAX 2
#define REPEATED_MAX 5 /* so often a bar's runs are made again, all together */
#define FILE_SIZE (1024 * MIB)
#define FILE_BITE (1 * MIB)
#define LOSS_MAX (DROPPABLE / 20)
#define CROWD_SIZE (512 * MIB)
#define CROWD_THREADS 8
#define CROWD_MS 5000
#define GATE_PINNED (208 * MIB)
#define GATE_WAIT_MS_MAX 1000

/* ---- hogs ---- */

struct load {
    uint64_t size;
    uint64_t stride; /* bytes from one page to the next; 0: without gaps */
    bool huge;
};

static void hog(int socket, void *data) {
    const struct load *load = data;
    unsigned char *memory = plain_memory(load->size, load->huge);
    char word;

    child_check(child_say(socket, 'r') && child_hear(socket, &word));
    write_blocks(memory, load->size);
    stay(socket);
}

static void hold_droppable(int socket, void *data) {
    const struct load *load = data;
    uint64_t stride = load->stride ? load->stride : PAGE;
    volatile unsigned char *memory = drp_region_address(droppable_memory(load->size / PAGE * stride, NULL));

    for (uint64_t page = 0; page < load->size / PAGE; page++)
        memory[page * stride] = 1;
    stay(socket);
}

static void hold_pinned(int socket, void *data) {
    const struct load *load = data;
    unsigned char *memory = plain_memory(load->size, false);

    write_blocks(memory, load->size);
    child_check(mlock(memory, load->size) == 0);
    stay(socket);
}

/* One process holds memory, others take more than is left, all at once. */
static struct bars_run run_hogs(void (*hold)(int socket, void *data), struct load held, unsigned hogs, bool huge) {
    struct load load = {.size = HOG / hogs, .huge = huge};
    struct memcg memcg = bars_cgroup(LIMIT);
    struct child holder, taker[HOGS_MAX];
    struct bars_run run;

    bars_begin(&run);
    start_in(&holder, &memcg, hold, &held);
    ck_assert_msg(bars_wait(&holder, &memcg, &run), "the memory to be taken could not be filled");
    for (unsigned i = 0; i < hogs; i++) {
        start_in(&taker[i], &memcg, hog, &load);
        child_expect(&taker[i], 'r');
    }
    run.began = now_ms();
    for (unsigned i = 0; i < hogs; i++)
        child_say(taker[i].socket, 'g');
    for (unsigned i = 0; i < hogs; i++)
        bars_wait(&taker[i], &memcg, &run);
    bars_end(&run, &memcg);
    for (unsigned i = 0; i < hogs; i++) {
        child_say(taker[i].socket, 'q');
        run.ended_well &= child_survived(&taker[i]);
    }
    child_say(holder.socket, 'q');
    run.ended_well &= child_survived(&holder);
    memcg_remove(&memcg);
    return run;
}

START_TEST(oom_killer_comes_without) {
    unsigned hogs = (unsigned)_i + 1;
    struct bars_run run = run_hogs(hold_pinned, (struct load){.size = DROPPABLE}, hogs, false);

    printf("%u of ", hogs);
    bars_print("128 MiB of plain memory and hogs", 1, &run);
    ck_assert_msg(run.kills > 0 && !run.ended_well, "190 MiB beside 128 MiB fit into 256 MiB: is there swap?");
}
END_TEST

struct hog_row {
    const char *what;
    const char *reserve;
    struct load held;
    unsigned hogs;
    unsigned runs;
    bool huge;
    bool bar;
};

#define DENSE \
    { .size = DROPPABLE }
/* A page in each chunk; a page in each span, which takes as much again in page tables. */
#define CHUNKY \
    { .size = DROPPABLE, .stride = 64 * 1024 }
#define SPARSE \
    { .size = DROPPABLE / 2, .stride = SPAN }

static const struct hog_row hog_rows[] = {
    {"a hog", "64M", DENSE, 1, 10, false, true},
    {"a hog", "32M", DENSE, 1, 10, false, true},
    {"2 hogs", "64M", DENSE, 2, 10, false, true},
    {"2 hogs", "32M", DENSE, 2, 10, false, true},
    {"a hog", "auto", DENSE, 1, 3, false, false},
    {"a hog", "16M", DENSE, 1, 3, false, false},
    {"2 hogs", "16M", DENSE, 2, 3, false, false},
    {"a hog in huge pages", "64M", DENSE, 1, 3, true, false},
    {"a hog in huge pages", "32M", DENSE, 1, 3, true, false},
    {"a hog in huge pages", "16M", DENSE, 1, 3, true, false},
    {"2 hogs in huge pages", "64M", DENSE, 2, 3, true, false},
    {"2 hogs in huge pages", "32M", DENSE, 2, 3, true, false},
    {"a hog, a page of each 64 KiB is there,", "64M", CHUNKY, 1, 3, false, false},
    {"a hog, a page of each 2 MiB is there,", "64M", SPARSE, 1, 3, false, false},
};

/* A killed run says nothing if the host held back CPUs meanwhile: it is to be made again, as long as that does not happen all the time. */
static bool says_nothing(const struct bars_run *run, const char *what, unsigned *repeated) {
    if (bars_good(run) || run->stolen == 0 || *repeated == REPEATED_MAX)
        return false;
    printf("%s: %" PRIu64 " ms were stolen, it is made again\n", what, run->stolen);
    (*repeated)++;
    return true;
}

START_TEST(pages_go_before_oom_killer) {
    const struct hog_row *row = &hog_rows[_i];
    unsigned good = 0, repeated = 0, runs = bars_runs(row->runs);
    char what[64];

    snprintf(what, sizeof(what), "%s reserve %s", row->what, row->reserve);
    bars_service(row->reserve);
    for (unsigned i = 1; i <= runs; i++) {
        struct bars_run run = run_hogs(hold_droppable, row->held, row->hogs, row->huge);

        bars_print(what, i, &run);
        good += bars_good(&run);
        if (!bars_good(&run))
            print_why();
        i -= row->bar && says_nothing(&run, what, &repeated);
    }
    printf("%s: %u of %u without OOM kill%s\n", what, good, runs, row->bar ? "" : " (information)");
    service_stop(&service);
    if (row->bar)
        ck_assert_uint_eq(good, runs);
}
END_TEST

/* ---- who only reads ---- */

static void read_file(int socket, void *data) {
    static unsigned char buffer[FILE_BITE];
    const int *file = data;
    char word;

    write_blocks(drp_region_address(droppable_memory(DROPPABLE, NULL)), DROPPABLE);
    child_check(child_say(socket, 'r') && child_hear(socket, &word));
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t at = 0; at < FILE_SIZE; at += FILE_BITE)
            child_check(pread(*file, buffer, FILE_BITE, (off_t)at) == FILE_BITE);
    stay(socket);
}

static const char *const reader_reserves[] = {"auto", "64M"};

START_TEST(reading_costs_little) {
    const char *reserve = reader_reserves[_i];
    struct bars_run run;
    struct memcg memcg;
    struct child reader;
    uint64_t usage;
    char what[64];
    int file = bars_file(FILE_SIZE);

    if (file < 0) {
        printf("reading a file: skipped: the build directory is in memory\n");
        return;
    }
    snprintf(what, sizeof(what), "reading 1 GiB twice, reserve %s", reserve);
    bars_service(reserve);
    memcg = bars_cgroup(LIMIT);
    start_in(&reader, &memcg, read_file, &file);
    bars_begin(&run);
    ck_assert_msg(bars_wait(&reader, &memcg, &run), "the memory to be kept could not be filled");
    ck_assert_uint_eq(service_status(&service, "dropped_bytes"), run.dropped);
    run.began = now_ms();
    child_say(reader.socket, 'g');
    bars_wait(&reader, &memcg, &run);
    usage = memcg_usage(&memcg);
    bars_end(&run, &memcg);
    child_say(reader.socket, 'q');
    run.ended_well &= child_survived(&reader);
    bars_print(what, 1, &run);
    memcg_remove(&memcg);
    service_stop(&service);
    close(file);
    ck_assert(run.ended_well);
    ck_assert_msg(usage > LIMIT * 3 / 4, "the page cache was not charged to the reader: usage %" PRIu64, usage);
    ck_assert_uint_le(run.dropped, LOSS_MAX);
}
END_TEST

/* ---- the client's own threads ---- */

struct toucher {
    pthread_t thread;
    volatile unsigned char *memory;
    uint64_t pages;
    uint64_t stride; /* pages; odd, so that it meets every page of a power of two */
    uint64_t touched;
};

/* Each page of its part once, as far as the time goes. */
static void *touch_part(void *data) {
    struct toucher *toucher = data;
    uint64_t deadline = now_ms() + CROWD_MS, page = 0;

    for (; toucher->touched < toucher->pages && now_ms() < deadline; toucher->touched++) {
        toucher->memory[page * PAGE] = 1;
        page = (page + toucher->stride) % toucher->pages;
    }
    return NULL;
}

static void crowd(int socket, void *data) {
    struct toucher touchers[CROWD_THREADS];
    unsigned char *memory = drp_region_address(droppable_memory(CROWD_SIZE, NULL));
    uint64_t touched = 0;

    for (unsigned i = 0; i < CROWD_THREADS; i++) {
        touchers[i] = (struct toucher){.memory = memory + i * (CROWD_SIZE / CROWD_THREADS),
                                       .pages = CROWD_SIZE / CROWD_THREADS / PAGE,
                                       .stride = *(const uint64_t *)data};
        child_check(pthread_create(&touchers[i].thread, NULL, touch_part, &touchers[i]) == 0);
    }
    for (unsigned i = 0; i < CROWD_THREADS; i++) {
        pthread_join(touchers[i].thread, NULL);
        touched += touchers[i].touched;
    }
    printf("8 threads touched %" PRIu64 " MiB in all\n", touched * PAGE / MIB);
    stay(socket);
}

struct crowd_row {
    const char *what;
    const char *reserve;
    uint64_t stride; /* scattered: never two pages of a span in a row */
};

static const struct crowd_row crowds[] = {
    {"in order", "32M", 1},
    {"in order", "auto", 1},
    {"scattered", "32M", 7919},
    {"scattered", "auto", 7919},
};

START_TEST(crowd_of_own_threads) {
    const struct crowd_row *row = &crowds[_i];
    unsigned good = 0, repeated = 0, runs = bars_runs(1);
    uint64_t stride = row->stride;
    char what[80];

    snprintf(what, sizeof(what), "8 threads touch 512 MiB %s, reserve %s", row->what, row->reserve);
    bars_service(row->reserve);
    for (unsigned i = 1; i <= runs; i++) {
        struct memcg memcg = bars_cgroup(LIMIT);
        struct bars_run run;
        struct child child;

        bars_begin(&run);
        start_in(&child, &memcg, crowd, &stride);
        bars_wait(&child, &memcg, &run);
        bars_end(&run, &memcg);
        child_say(child.socket, 'q');
        run.ended_well &= child_survived(&child);
        bars_print(what, i, &run);
        good += bars_good(&run);
        memcg_remove(&memcg);
        i -= says_nothing(&run, what, &repeated);
    }
    printf("%s: %u of %u not killed\n", what, good, runs);
    service_stop(&service);
    ck_assert_uint_eq(good, runs);
}
END_TEST

/* ---- the gate, where nothing can be dropped ---- */

/* All of it pinned, then written: the longest that one page took goes to the test, in us. */
static void fill_pinned(int socket, void *data) {
    struct drp_region *region = droppable_memory(GATE_PINNED, NULL);
    volatile unsigned char *memory = drp_region_address(region);
    uint64_t *longest = data;

    child_check(drp_pin(region, 0, GATE_PINNED, NULL) == 0);
    for (uint64_t at = 0; at < GATE_PINNED; at += PAGE) {
        uint64_t start = now_ns(), took;

        memory[at] = 1;
        took = (now_ns() - start) / 1000;
        *longest = took > *longest ? took : *longest;
    }
    stay(socket);
}

START_TEST(gate_gives_up) {
    uint64_t *longest = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t timeouts, waits;
    struct memcg memcg;
    struct child child;
    struct bars_run run;

    ck_assert_ptr_ne(longest, MAP_FAILED);
    bars_service("64M");
    memcg = bars_cgroup(LIMIT);
    bars_begin(&run);
    start_in(&child, &memcg, fill_pinned, longest);
    bars_wait(&child, &memcg, &run);
    bars_end(&run, &memcg);
    timeouts = service_status(&service, "gate_timeouts");
    waits = service_status(&service, "gate_waits");
    child_say(child.socket, 'q');
    run.ended_well &= child_survived(&child);
    bars_print("208 MiB pinned and filled, reserve 64M", 1, &run);
    printf("gate: %" PRIu64 " fills waited, %" PRIu64 " went ahead without room, the longest touch took %.1f ms\n",
           waits, timeouts, (double)*longest / 1000);
    memcg_remove(&memcg);
    service_stop(&service);
    ck_assert(bars_good(&run));
    ck_assert_uint_gt(timeouts, 0);
    ck_assert_uint_le(*longest, GATE_WAIT_MS_MAX * 1000);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bars-pressure");

    bars_case(suite, "control", oom_killer_comes_without, HOGS_MAX, 60);
    bars_case(suite, "hog", pages_go_before_oom_killer, bars_count(hog_rows), 60);
    bars_case(suite, "reading", reading_costs_little, bars_count(reader_reserves), 150);
    bars_case(suite, "crowd", crowd_of_own_threads, bars_count(crowds), 30);
    bars_case(suite, "gate", gate_gives_up, 1, 60);
    return bars_main(suite);
}
