/* SPDX-License-Identifier: MIT */
/*
 * What a plan costs where there are a million chunks. In CPU time, and the best of some tries, so that only slowness fails and not the others'
 * load. And that what makes it cheap changes nothing.
 */

#include "policy-fixture.h"
#include "service.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COST_CHUNKS (UINT32_C(1) << 20)
#define COST_TRIES 8
#define COST_MS_MAX 5.0
/* Where pins are read: 2.1 to 4.3 ms where this was written, at a load of 15; other machines may be slower, and are as busy. */
#define COST_PINNED_MS_MAX 15.0
#define NO_BAR 1e9
/* As many as the service has room for. */
#define COST_VICTIMS 1024

static double cpu_ms(void) {
    struct timespec spent;

    ck_assert_int_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent), 0);
    return (double)spent.tv_sec * 1e3 + (double)spent.tv_nsec / 1e6;
}

static void measure(const char *what, struct policy_region *regions, size_t n_regions, uint64_t demand, size_t max,
                    double bar) {
    static uint8_t flags[COST_CHUNKS];
    double best = 1e9, start;
    uint64_t bytes = 0;
    size_t n = 0;

    memcpy(flags, (const void *)regions->chunk_flags, sizeof(flags));
    for (unsigned i = 0; i < COST_TRIES; i++) {
        memcpy((void *)regions->chunk_flags, flags, sizeof(flags));
        for (size_t r = 0; r < n_regions; r++)
            for (uint32_t k = 0; k < regions[r].touched_count; k++) /* what earlier plans found out */
                regions[r].spans[regions[r].touched[k]].coldest = 0;
        start = cpu_ms();
        n = policy_plan(regions, n_regions, demand, NOW, victims, max, &bytes);
        start = cpu_ms() - start;
        best = start < best ? start : best;
    }
    printf("1 Mi chunks, %s: %.2f ms, %zu victims, %llu MiB%s\n", what, best, n, (unsigned long long)(bytes / MIB),
           bar < NO_BAR ? "" : " (information)");
    ck_assert_uint_gt(n, 0);
#ifdef __OPTIMIZE__
    if (!under_sanitizer())
        ck_assert_msg(best < bar, "%s: %.2f ms", what, best);
#endif
}

static void scatter_faults(struct fixture *f) {
    for (uint32_t i = 0; i < f->n_spans; i++)
        f->spans[i].last_fault = random_tick();
}

/* Pins written here and there; one in 16 chunks is pinned now. */
static void scatter_pins(struct fixture *f, unsigned one_in) {
    for (unsigned i = 0; i < COST_CHUNKS; i++) {
        f->region.pins[0][i].tick = random_below(one_in) ? 0 : random_tick();
        f->region.pins[0][i].count = random_below(16) == 0;
    }
}

START_TEST(test_cost_some_pinned) {
    struct fixture f;

    fixture_init(&f, 16, COST_CHUNKS, 1, 2);
    scatter_faults(&f);
    scatter_pins(&f, 4);
    measure("pins written, 16 MiB wanted", &f.region, 1, 16 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    measure("pins written, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    measure("pins written, 1 GiB wanted, more victims", &f.region, 1, 1024 * MIB, MAX_VICTIMS, COST_PINNED_MS_MAX);
    measure("pins written, 30 GiB wanted", &f.region, 1, 30 * 1024 * MIB, COST_VICTIMS, NO_BAR);
    for (uint32_t i = 0; i < f.n_spans; i++)
        f.spans[i].last_fault = 1;
    measure("pins written, all spans alike, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    fixture_deinit(&f);
}
END_TEST

/* Each chunk was pinned by itself, so each span has some of the oldest; and what was dropped and came back, half of it used since. */
START_TEST(test_cost_all_pinned) {
    struct fixture f;

    fixture_init(&f, 16, COST_CHUNKS, 1, 2);
    scatter_faults(&f);
    scatter_pins(&f, 1);
    measure("all pinned, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    measure("all pinned, 1 GiB wanted, more victims", &f.region, 1, 1024 * MIB, MAX_VICTIMS, COST_PINNED_MS_MAX);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.region.pins[0][i].tick = NOW - random_below(NOW);
    measure("all pinned, evenly, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.flags[i] = policy_back_flags(i, i / 32 * 32 + 9, 16);
    measure("all pinned, evenly, dropped once, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS,
            COST_PINNED_MS_MAX);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.flags[i] = random_below(4) ? f.flags[i] : (uint8_t)(1 << POLICY_MISSED_SHIFT);
    measure("all pinned, evenly, dropped and missed, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS,
            COST_PINNED_MS_MAX);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.region.pins[0][i].count = i % 4096 != 0;
    measure("all but a few pinned now, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.region.pins[0][i] = (struct drp_pin_cell){.tick = NOW - 1000};
    measure("all pinned at once, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    fixture_deinit(&f);
}
END_TEST

/* Small chunks: 4 GiB in all. */
START_TEST(test_cost_small_pinned) {
    struct fixture f;

    fixture_init(&f, 12, COST_CHUNKS, 1, 2);
    scatter_faults(&f);
    scatter_pins(&f, 1);
    measure("of 4 KiB, all pinned, 16 MiB wanted", &f.region, 1, 16 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    measure("of 4 KiB, all pinned, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    fixture_deinit(&f);
}
END_TEST

START_TEST(test_cost_dense) {
    struct fixture f;

    fixture_init(&f, 16, COST_CHUNKS, 0, 2);
    scatter_faults(&f);
    measure("no pins, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_MS_MAX);
    measure("no pins, 30 GiB wanted", &f.region, 1, 30 * 1024 * MIB, COST_VICTIMS, NO_BAR);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.flags[i] = policy_back_flags(i, i / 32 * 32 + 9, 16);
    measure("no pins, all of it was dropped once, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_MS_MAX);
    fixture_deinit(&f);
}
END_TEST

/* As many parts of its, each a region. */
static void split(const struct fixture *f, struct policy_region *regions, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        regions[i] = f->region;
        regions[i].chunk_count /= n;
        regions[i].chunk_flags += i * regions[i].chunk_count;
        regions[i].touched_count /= n;
        regions[i].spans += i * regions[i].touched_count;
        if (regions[i].n_pins > 0)
            regions[i].pins[0] += i * regions[i].chunk_count;
    }
}

/* The same chunks in 64 regions: these are asked first how much each gives. */
START_TEST(test_cost_many_regions) {
    static struct policy_region regions[64];
    struct fixture f;

    fixture_init(&f, 16, COST_CHUNKS, 0, 2);
    scatter_faults(&f);
    for (unsigned i = 0; i < COST_CHUNKS; i++)
        f.flags[i] = policy_back_flags(i, i / 32 * 32 + 9, 16);
    split(&f, regions, 64);
    measure("no pins, all of it was dropped once, 64 regions, 1 GiB wanted", regions, 64, 1024 * MIB, COST_VICTIMS,
            COST_MS_MAX);
    fixture_deinit(&f);
    fixture_init(&f, 16, COST_CHUNKS, 1, 2);
    scatter_faults(&f);
    scatter_pins(&f, 4);
    split(&f, regions, 64);
    measure("pins written, 64 regions, 1 GiB wanted", regions, 64, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    scatter_pins(&f, 1);
    measure("all pinned, 64 regions, 1 GiB wanted", regions, 64, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    split(&f, regions, 2);
    measure("all pinned, 2 regions, 1 GiB wanted", regions, 2, 1024 * MIB, COST_VICTIMS, COST_PINNED_MS_MAX);
    fixture_deinit(&f);
}
END_TEST

/* Beside the chunks a thousand regions that nobody sees, each of any age. */
START_TEST(test_cost_opaque) {
    static struct policy_region regions[1001];
    struct fixture f;

    fixture_init(&f, 16, COST_CHUNKS, 0, 2);
    scatter_faults(&f);
    regions[0] = f.region;
    for (unsigned i = 1; i < 1001; i++) {
        struct policy_sample sample = {.n = POLICY_SAMPLES, .n_used = POLICY_SAMPLES - 1, .pinned = 1};

        for (unsigned k = 0; k < POLICY_SAMPLES; k++)
            sample.used[k] = random_tick();
        regions[i] = f.region;
        regions[i].chunk_count = 1024;
        regions[i].touched_count = 0;
        regions[i].opaque = true;
        policy_describe_opaque(&regions[i], &sample, MIB * random_below(64), 0, 0, 0, NOW);
    }
    measure("no pins, and 1000 opaque regions, 1 GiB wanted", regions, 1001, 1024 * MIB, COST_VICTIMS, COST_MS_MAX);
    fixture_deinit(&f);
}
END_TEST

/* A page in each span: so of a million chunks not even 1 GiB is there; and a million spans, of which it is. */
START_TEST(test_cost_sparse) {
    struct fixture f;

    fixture_init(&f, 16, COST_CHUNKS, 0, 2);
    scatter_faults(&f);
    for (uint32_t i = 0; i < f.n_spans; i++)
        f.spans[i].resident = POLICY_SPAN_KNOWN | 1;
    measure("a page in each span, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, COST_MS_MAX);
    fixture_deinit(&f);
    fixture_init(&f, POLICY_SPAN_SHIFT, COST_CHUNKS, 0, 2);
    scatter_faults(&f);
    for (uint32_t i = 0; i < f.n_spans; i++)
        f.spans[i].resident = POLICY_SPAN_KNOWN | 1;
    measure("each of 2 MiB, a page in each, 1 GiB wanted", &f.region, 1, 1024 * MIB, COST_VICTIMS, NO_BAR);
    fixture_deinit(&f);
}
END_TEST

/*
 * So many spans that a plan takes a sample first, by which it guesses how far it has to look. What it takes is exact for all that, and so is what
 * plans behind it take, who know the bounds: also where all that is old lies in a few spans of which the sample has none.
 */
static unsigned cell_rank(const struct drp_pin_cell *cell) {
    return 63 - policy_age_bucket(NOW, cell->tick);
}

static void check_sampled(struct fixture *f, uint64_t demand) {
    static bool taken[1 << 14];
    unsigned highest = 0;
    uint64_t bytes;
    size_t n;

    memset(taken, 0, sizeof(taken));
    n = policy_plan(&f->region, 1, demand, NOW, victims, MAX_VICTIMS, &bytes);
    ck_assert_uint_ge(bytes, demand);
    ck_assert_uint_lt(bytes, demand + (UINT64_C(1) << f->region.chunk_shift));
    for (size_t i = 0; i < n; i++)
        for (uint64_t c = victims[i].first_chunk; c < victims[i].first_chunk + victims[i].chunk_count; c++) {
            unsigned rank = cell_rank(&f->region.pins[0][c]);

            ck_assert(!taken[c] && f->region.pins[0][c].count == 0);
            taken[c] = true;
            highest = rank > highest ? rank : highest;
        }
    for (uint64_t c = 0; c < f->region.chunk_count; c++)
        ck_assert(taken[c] || f->region.pins[0][c].count != 0 || cell_rank(&f->region.pins[0][c]) >= highest);
}

START_TEST(test_sampled) {
    struct fixture f;

    fixture_init(&f, 17, 1 << 14, 1, 2);
    for (uint64_t c = 0; c < f.region.chunk_count; c++)
        f.region.pins[0][c] = (struct drp_pin_cell){.tick = random_tick(), .count = random_below(8) == 0};
    for (unsigned i = 0; i < 8; i++) {
        for (uint32_t s = 0; s < f.n_spans; s++)
            f.spans[s].coldest = i % 2 ? f.spans[s].coldest : 0;
        check_sampled(&f, 1 + random_below(128 * MIB));
    }
    for (uint64_t c = 0; c < f.region.chunk_count; c++)
        f.region.pins[0][c].tick = c / 16 % 16 == 5 ? 100 + random_below(100) : NOW - random_below(100);
    for (uint32_t s = 0; s < f.n_spans; s++)
        f.spans[s].coldest = 0;
    check_sampled(&f, 32 * MIB);
    fixture_deinit(&f);
}
END_TEST

int main(void) {
    const TTest *tests[] = {test_cost_some_pinned,  test_cost_all_pinned, test_cost_small_pinned, test_cost_dense,
                            test_cost_many_regions, test_cost_sparse,     test_cost_opaque,       test_sampled};
    Suite *suite = suite_create("policy-cost");
    TCase *tcase = tcase_create("policy-cost");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tcase, 50);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
