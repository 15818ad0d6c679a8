/* SPDX-License-Identifier: MIT */
/*
 * The policy: chunks by priority and age. What a plan costs is test-policy-cost's, regions of which only samples are known test-policy-opaque's.
 *
 * The property test builds random regions and compares the plan with a list of all chunks sorted by rank.
 */

#include "policy-fixture.h"

#include <check.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static void set_gone(struct fixture *f, uint64_t chunk) {
    f->flags[chunk] = POLICY_CHUNK_GONE;
    f->spans[chunk >> (POLICY_SPAN_SHIFT - f->region.chunk_shift)].gone++;
}

/* The tick from which a chunk's age counts, before what it is taken off for its own misses. */
static uint32_t unseen_from(const struct policy_span *span, uint8_t flags, bool within) {
    if (within && (flags & (POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR)) == POLICY_CHUNK_BACK)
        return span->last_fault - 50;
    return span->last_fault + policy_protection_unseen(policy_span_level(span));
}

static uint32_t seen_from(const struct policy_span *span, uint8_t flags, uint32_t pinned) {
    uint32_t protection = policy_protection_seen(policy_span_level(span));

    if (flags & POLICY_CHUNK_EMPTY && pinned < span->last_fault)
        pinned = span->last_fault;
    if (flags & POLICY_CHUNK_BACK && pinned < span->last_fault)
        return 0;
    return pinned < UINT32_MAX - protection ? pinned + protection : UINT32_MAX;
}

/* The order that the plan must follow, lowest first: between regions, or within one. */
static unsigned chunk_rank(const struct policy_region *region, uint64_t chunk, uint32_t now, bool within) {
    const struct policy_span *span = &region->spans[chunk >> (POLICY_SPAN_SHIFT - region->chunk_shift)];
    uint8_t flags = region->chunk_flags[chunk];
    uint32_t last = 0;

    for (unsigned i = 0; i < region->n_pins; i++)
        if (region->pins[i][region->first_chunk + chunk].tick > last)
            last = region->pins[i][region->first_chunk + chunk].tick;
    last = last ? seen_from(span, flags, last) : unseen_from(span, flags, within);
    if (last != 0 && last < now)
        last = now - ((now - last) >> (3 * ((flags & POLICY_CHUNK_MISSED) >> POLICY_MISSED_SHIFT)));
    return (region->priority - 1) * 64 + (63 - policy_age_bucket(now, last));
}

static bool chunk_droppable(const struct policy_region *region, uint64_t chunk) {
    uint64_t span = chunk >> (POLICY_SPAN_SHIFT - region->chunk_shift);
    bool touched = false;

    for (uint32_t i = 0; i < region->touched_count; i++)
        touched |= region->touched[i] == span;
    for (unsigned i = 0; i < region->n_pins; i++)
        if (region->pins[i][region->first_chunk + chunk].count)
            return false;
    return touched && !(region->chunk_flags[chunk] & POLICY_CHUNK_GONE);
}

/* ---- order ---- */

START_TEST(test_priority_before_age) {
    struct fixture f[3];
    struct policy_region regions[3];
    uint64_t bytes;

    for (unsigned i = 0; i < 3; i++) {
        fixture_init(&f[i], 16, 32, 1, 3 - i);
        f[i].spans[0].last_fault = NOW - 1000 * (3 - i); /* the higher the older */
        regions[i] = f[i].region;
    }
    ck_assert_uint_eq(plan(regions, 3, 2 * MIB, 16, &bytes), 1);
    ck_assert_uint_eq(victims[0].region, 2);
    ck_assert_uint_eq(plan(regions, 3, 3 * MIB, 16, &bytes), 2);
    expect(0, 1, 0, 16);
    expect(1, 2, 0, 32);
    ck_assert_uint_eq(bytes, 3 * MIB);
    for (unsigned i = 0; i < 3; i++)
        fixture_deinit(&f[i]);
}
END_TEST

START_TEST(test_oldest_first) {
    struct fixture f;
    uint64_t bytes;

    fixture_init(&f, 16, 96, 2, 2);
    f.spans[0].last_fault = NOW - 10;
    f.spans[1].last_fault = NOW - 10000;
    f.spans[2].last_fault = NOW - 100;
    f.region.pins[1][40].tick = NOW - 1; /* one chunk of the oldest span was pinned lately, by the second mapping */

    ck_assert_uint_eq(plan(&f.region, 1, 1, 16, &bytes), 1);
    expect(0, 0, 32, 1);
    ck_assert_uint_eq(victims[0].limit, UINT64_MAX);
    ck_assert_uint_eq(bytes, 65536);

    ck_assert_uint_eq(plan(&f.region, 1, 2 * MIB, 16, &bytes), 3);
    expect(0, 0, 32, 8);
    expect(1, 0, 41, 23);
    expect(2, 0, 64, 1);
    ck_assert_uint_eq(bytes, 2 * MIB);
    fixture_deinit(&f);
}
END_TEST

START_TEST(test_pinned_and_gone_are_skipped) {
    struct fixture f;
    uint64_t bytes;

    fixture_init(&f, 16, 32, 2, 2);
    f.region.pins[0][3].count = 1;
    f.region.pins[1][5].count = UINT32_MAX; /* garbage: a pin all the same */
    set_gone(&f, 6);
    f.flags[7] = (uint8_t)~POLICY_CHUNK_GONE;
    ck_assert_uint_eq(plan(&f.region, 1, UINT64_MAX, 16, &bytes), 3);
    ck_assert_uint_eq(bytes, 29 * 65536);
    ck_assert_uint_eq(victims[0].chunk_count, 3);
    expect(1, 0, 4, 1);
    expect(2, 0, 7, 25);

    for (unsigned i = 0; i < 32; i++)
        f.region.pins[0][i].count = 1;
    ck_assert_uint_eq(plan(&f.region, 1, UINT64_MAX, 16, &bytes), 0);
    ck_assert_uint_eq(bytes, 0);
    fixture_deinit(&f);
}
END_TEST

START_TEST(test_demand_bounds) {
    struct fixture f;
    uint64_t bytes;

    fixture_init(&f, 16, 64, 1, 2);
    for (uint64_t demand = 1; demand <= 4 * MIB; demand += 33333) {
        ck_assert_uint_gt(plan(&f.region, 1, demand, 16, &bytes), 0);
        ck_assert_uint_ge(bytes, demand);
        ck_assert_uint_lt(bytes, demand + 65536);
    }
    ck_assert_uint_eq(plan(&f.region, 1, 0, 16, &bytes), 0);
    ck_assert_uint_eq(bytes, 0);
    ck_assert_uint_eq(plan(&f.region, 1, 1, 0, &bytes), 0);
    ck_assert_uint_eq(plan(&f.region, 1, 100 * MIB, 16, &bytes), 2);
    ck_assert_uint_eq(bytes, 4 * MIB); /* all there is; spans don't merge */
    fixture_deinit(&f);
}
END_TEST

/* A region within a shared object: its cells start at first_chunk, victims count from its own start. */
START_TEST(test_first_chunk_and_tail) {
    struct fixture f;
    struct policy_region region;
    uint64_t bytes;

    fixture_init(&f, 16, 64, 1, 2);
    region = f.region;
    region.first_chunk = 10;
    region.chunk_count = 35; /* a span and 3 chunks */
    region.pins[0][10].count = 1;
    region.pins[0][9].count = 1; /* the neighbours' */
    region.pins[0][45].count = 1;
    ck_assert_uint_eq(plan(&region, 1, UINT64_MAX, 16, &bytes), 2);
    ck_assert_uint_eq(bytes, 34 * 65536);
    expect(0, 0, 1, 31);
    expect(1, 0, 32, 3);
    fixture_deinit(&f);
}
END_TEST

START_TEST(test_max_victims_oldest_win) {
    struct fixture f;
    uint64_t bytes;

    /* Every second chunk of the first span is younger than the rest of it; the second span is older, but for a pin. */
    fixture_init(&f, 16, 64, 1, 2);
    f.spans[0].last_fault = NOW - 100;
    f.spans[1].last_fault = NOW - 5000;
    for (unsigned i = 0; i < 32; i += 2)
        f.region.pins[0][i].tick = NOW - 10;
    f.region.pins[0][50].count = 1;

    ck_assert_uint_eq(plan(&f.region, 1, UINT64_MAX, 4, &bytes), 3); /* one run for the whole of each span: all fits */
    ck_assert_uint_eq(bytes, 63 * 65536);
    ck_assert_uint_eq(plan(&f.region, 1, 3 * MIB - 65536, 4, &bytes), 4); /* without the youngest: 2 runs and 16 */
    ck_assert_uint_eq(victims[0].first_chunk, 32);
    ck_assert_uint_eq(victims[1].first_chunk, 51);
    ck_assert_uint_eq(victims[2].first_chunk, 1);
    ck_assert_uint_eq(victims[3].first_chunk, 3);
    ck_assert_uint_eq(bytes, 33 * 65536);
    ck_assert_uint_eq(plan(&f.region, 1, UINT64_MAX, 1, &bytes), 1);
    expect(0, 0, 32, 18);
    fixture_deinit(&f);
}
END_TEST

/* What came back away from what was missed goes first, of what its own region gives: which is not more for that. */
START_TEST(test_far_is_nobody_elses_concern) {
    struct policy_region regions[2];
    struct fixture f[2];
    uint64_t bytes;

    for (unsigned i = 0; i < 2; i++) {
        fixture_init(&f[i], 16, 64, 0, 2);
        f[i].spans[0].last_fault = f[i].spans[1].last_fault = NOW - 100;
        regions[i] = f[i].region;
    }
    for (unsigned i = 0; i < 64; i++)
        f[1].flags[i] = policy_back_flags(i, i < 32 ? 0 : 32, 16);
    f[1].spans[0].gone = f[1].spans[1].gone = 1 << 12; /* missed it was, so that it is younger than the other */
    ck_assert_uint_eq(plan(regions, 2, 4 * MIB, 16, &bytes), 2);
    expect(0, 0, 0, 32);
    expect(1, 0, 32, 32);
    ck_assert_uint_eq(plan(regions, 2, 5 * MIB, 16, &bytes), 3);
    expect(2, 1, 8, 16);
    f[1].spans[0].gone = f[1].spans[1].gone = 0;
    ck_assert_uint_eq(plan(regions, 2, 4 * MIB, 16, &bytes), 3);
    expect(0, 0, 0, 32);
    expect(1, 1, 8, 24);
    expect(2, 1, 40, 8);
    ck_assert_uint_eq(bytes, 4 * MIB);
    for (unsigned i = 0; i < 2; i++)
        fixture_deinit(&f[i]);
}
END_TEST

/* ---- what clients and broken tables may hold ---- */

START_TEST(test_hostile_values) {
    struct fixture f;
    struct policy_region region;
    uint64_t bytes;

    fixture_init(&f, 16, 96, 1, 2);
    f.touched[0] = 3; /* just outside */
    f.touched[2] = UINT32_MAX;
    f.region.pins[0][33].tick = UINT32_MAX; /* the future: as young as can be, no more */
    ck_assert_uint_eq(plan(&f.region, 1, UINT64_MAX, 16, &bytes), 1);
    ck_assert_uint_eq(bytes, 2 * MIB);
    ck_assert_uint_eq(plan(&f.region, 1, 2 * MIB - 65536, 16, &bytes), 2);
    ck_assert_uint_eq(victims[1].first_chunk, 34);

    region = f.region;
    region.priority = 77; /* counts as the highest */
    region.n_pins = 99;   /* of 4 */
    ck_assert_uint_eq(plan(&region, 1, UINT64_MAX, 16, &bytes), 1);
    region.priority = 0;
    ck_assert_uint_eq(plan(&region, 1, UINT64_MAX, 16, &bytes), 1);
    region.chunk_shift = 22;
    ck_assert_uint_eq(plan(&region, 1, UINT64_MAX, 16, &bytes), 0);
    region.chunk_shift = 11;
    ck_assert_uint_eq(plan(&region, 1, UINT64_MAX, 16, &bytes), 0);
    region.chunk_shift = 16;
    region.chunk_count = 0;
    ck_assert_uint_eq(plan(&region, 1, UINT64_MAX, 16, &bytes), 0);
    fixture_deinit(&f);
}
END_TEST

/* ---- against the naive plan ---- */

#define N_RANDOM 4

static uint8_t random_flags(void) {
    unsigned back = random_below(5) ? 0 : POLICY_CHUNK_BACK | (random_below(2) ? POLICY_CHUNK_NEAR : 0);
    unsigned missed = random_below(5) ? 0 : 1 + random_below(POLICY_MISSED_MAX);

    return (uint8_t)(back | (random_below(16) ? 0 : POLICY_CHUNK_EMPTY) | missed << POLICY_MISSED_SHIFT);
}

static void fixture_randomize(struct fixture *f) {
    unsigned shift = 12 + random_below(10), flagged = random_below(3); /* in none; here and there; everywhere */
    uint64_t chunks = 1 + random_below(200);

    fixture_init(f, shift, chunks, random_below(3), 1 + random_below(3));
    for (uint32_t i = 0; i < f->n_spans; i++)
        f->spans[i].last_fault = random_tick();
    for (uint32_t i = 0; i < f->n_spans; i++)
        f->spans[i].gone = (uint16_t)((random_below(3) ? 0 : random_below(8)) << 12);
    for (uint64_t c = 0; c < chunks; c++) {
        if (flagged == 2 || (flagged == 1 && c / 32 % 2)) {
            f->flags[c] = random_flags();
            if (random_below(5) == 0)
                set_gone(f, c);
        }
        for (unsigned i = 0; i < f->region.n_pins; i++) {
            f->region.pins[i][c].tick = random_below(2) ? 0 : random_below(16) ? random_tick() : UINT32_MAX;
            f->region.pins[i][c].count = random_below(8) == 0;
        }
    }
    for (uint32_t i = 0, start = random_below(f->n_spans); i < f->n_spans; i++)
        f->touched[i] = (start + i) % f->n_spans;
    f->region.touched_count -= f->n_spans > 1; /* one span was never touched */
    if (random_below(5) == 0) {
        struct policy_sample sample = {.n = POLICY_SAMPLES, .pinned = random_below(8)};

        for (sample.n_used = 0; sample.n_used < random_below(POLICY_SAMPLES - 8); sample.n_used++)
            sample.used[sample.n_used] = random_below(16) ? random_tick() : UINT32_MAX;
        f->region.opaque = true;
        policy_describe_opaque(&f->region, &sample, random_below(3) * MIB / 2, random_below(3) * MIB / 4, random_tick(),
                               random_tick() / 2, NOW);
    }
}

static uint64_t part_bytes(const struct policy_region *region, unsigned part) {
    return (uint64_t)region->parts[part].pages << 12;
}

/* The same of parts, the oldest first. */
static void take_parts(const struct policy_region *region, uint64_t bytes, bool taken[256]) {
    for (unsigned part = 0; bytes > 0; part++) {
        ck_assert_uint_lt(part, region->n_parts);
        taken[part] = true;
        bytes -= part_bytes(region, part) < bytes ? part_bytes(region, part) : bytes;
    }
}

/* Marks the chunks of a plan in taken[] and checks each victim by itself. Returns the plan's bytes. */
static uint64_t check_victims(const struct policy_region *regions, size_t n, bool taken[][256]) {
    uint64_t bytes = 0;

    for (size_t v = 0; v < n; v++) {
        const struct policy_victim *victim = &victims[v];
        const struct policy_region *region = &regions[victim->region];
        unsigned shift = POLICY_SPAN_SHIFT - region->chunk_shift;

        ck_assert_uint_gt(victim->chunk_count, 0);
        if (region->opaque) {
            ck_assert(!taken[victim->region][0]);
            take_parts(region, victim->limit, taken[victim->region]);
            bytes += victim->limit;
            continue;
        }
        ck_assert_uint_eq(victim->first_chunk >> shift, (victim->first_chunk + victim->chunk_count - 1) >> shift);
        for (uint64_t c = victim->first_chunk; c < victim->first_chunk + victim->chunk_count; c++) {
            ck_assert_uint_lt(c, region->chunk_count);
            ck_assert(chunk_droppable(region, c));
            ck_assert(!taken[victim->region][c]);
            taken[victim->region][c] = true;
        }
        bytes += victim->chunk_count << region->chunk_shift;
    }
    return bytes;
}

struct unit {
    unsigned rank;   /* between regions */
    unsigned within; /* in its own */
    unsigned region;
    uint64_t bytes;
    bool taken;
};

static int compare_units(const void *a, const void *b) {
    const struct unit *x = a;
    const struct unit *y = b;

    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static unsigned part_rank(const struct policy_region *region, unsigned part, uint32_t now) {
    if (region->parts[part].last == POLICY_PINNED)
        return 3 * 64 - 1;
    return (region->priority - 1) * 64 + 63 - policy_age_bucket(now, region->parts[part].last);
}

/* All that could be dropped, coldest first. */
static size_t list_units(const struct policy_region *regions, uint32_t now, bool taken[][256], struct unit *units) {
    size_t n = 0;

    for (unsigned i = 0; i < N_RANDOM; i++) {
        const struct policy_region *region = &regions[i];

        for (unsigned part = 0; region->opaque && part < region->n_parts; part++) {
            unsigned rank = part_rank(region, part, now);

            units[n++] = (struct unit){rank, rank, i, part_bytes(region, part), taken[i][part]};
        }
        for (uint64_t c = 0; !region->opaque && c < region->chunk_count; c++)
            if (chunk_droppable(region, c))
                units[n++] = (struct unit){chunk_rank(region, c, now, false), chunk_rank(region, c, now, true), i,
                                           UINT64_C(1) << region->chunk_shift, taken[i][c]};
    }
    qsort(units, n, sizeof(*units), compare_units);
    return n;
}

/* Is nothing left of a rank below one that was taken of? */
static bool in_order(const struct unit *units, size_t n) {
    unsigned highest = 0;

    for (size_t i = 0; i < n; i++)
        highest = units[i].taken && units[i].rank > highest ? units[i].rank : highest;
    for (size_t i = 0; i < n; i++)
        if (!units[i].taken && units[i].rank < highest)
            return false;
    return true;
}

/* The same within one region. */
static bool in_own_order(const struct unit *units, size_t n, unsigned region) {
    unsigned highest = 0;

    for (size_t i = 0; i < n; i++)
        if (units[i].region == region && units[i].taken && units[i].within > highest)
            highest = units[i].within;
    for (size_t i = 0; i < n; i++)
        if (units[i].region == region && !units[i].taken && units[i].within < highest)
            return false;
    return true;
}

/*
 * Does each region give what it has below the rank in which the demand is reached, and no more than that and what it has of it? But for the
 * rest of a chunk, by which those before it gave more.
 */
static bool in_parts(const struct policy_region *regions, const struct unit *units, size_t n, uint64_t demand) {
    uint64_t rest = demand, slack = 0;
    unsigned threshold = UINT_MAX;

    for (size_t i = 0; i < n && threshold == UINT_MAX; i++) {
        if (units[i].bytes >= rest)
            threshold = units[i].rank;
        rest -= units[i].bytes < rest ? units[i].bytes : rest;
    }
    for (unsigned region = 0; region < N_RANDOM; region++) {
        uint64_t least = 0, most = UINT64_C(1) << regions[region].chunk_shift, given = 0;

        for (size_t i = 0; i < n; i++)
            if (units[i].region == region && !regions[region].opaque) {
                least += units[i].rank < threshold ? units[i].bytes : 0;
                most += units[i].rank <= threshold ? units[i].bytes : 0;
                given += units[i].taken ? units[i].bytes : 0;
            }
        if (given + slack < least || given > most)
            return false;
        if (slack < UINT64_C(1) << regions[region].chunk_shift)
            slack = UINT64_C(1) << regions[region].chunk_shift;
    }
    return true;
}

static void check_random(struct policy_region *regions, uint32_t now, uint64_t demand, size_t max) {
    static struct unit units[N_RANDOM * 256];
    static bool taken[N_RANDOM][256];
    uint64_t total = 0, bytes;
    size_t n_units, n;
    bool divided;

    memset(taken, 0, sizeof(taken));
    n = policy_plan(regions, N_RANDOM, demand, now, victims, max, &bytes);
    ck_assert_uint_le(n, max);
    ck_assert_uint_eq(check_victims(regions, n, taken), bytes);

    n_units = list_units(regions, now, taken, units);
    for (size_t i = 0; i < n_units; i++)
        total += units[i].bytes;
    divided = in_parts(regions, units, n_units, demand);
    for (unsigned i = 0; i < N_RANDOM; i++)
        divided &= in_own_order(units, n_units, i);
    if (max == MAX_VICTIMS) /* room enough */
        ck_assert(divided);
    else
        ck_assert(divided || in_order(units, n_units));
    if (n < max)
        ck_assert_uint_ge(bytes, demand < total ? demand : total);
    ck_assert(bytes == 0 || bytes < demand + 2 * MIB);
}

/* Somebody uses some of it: that makes chunks younger, never older, on which the bounds rely that plans have left. */
static void use_some(struct fixture *f, uint32_t now) {
    for (uint64_t c = 0; c < f->region.chunk_count; c++)
        for (unsigned i = 0; i < f->region.n_pins; i++)
            if (random_below(4) == 0)
                f->region.pins[i][c].tick = now;
}

START_TEST(test_against_sorting) {
    for (unsigned round = 0; round < 100; round++) {
        struct fixture f[N_RANDOM];
        struct policy_region regions[N_RANDOM];

        for (unsigned i = 0; i < N_RANDOM; i++) {
            fixture_randomize(&f[i]);
            regions[i] = f[i].region;
        }
        for (unsigned i = 0; i < 20; i++)
            check_random(regions, NOW, 1 + random_below(64 * MIB), i < 10 ? MAX_VICTIMS : 1 + random_below(40));
        for (uint32_t i = 0, now = NOW; i < 10; i++) {
            now += random_below(1000);
            for (unsigned k = 0; k < N_RANDOM; k++)
                use_some(&f[k], now);
            check_random(regions, now, 1 + random_below(64 * MIB), MAX_VICTIMS);
        }
        for (unsigned i = 0; i < N_RANDOM; i++)
            fixture_deinit(&f[i]);
    }
}
END_TEST

int main(void) {
    const TTest *tests[] = {
        test_priority_before_age,  test_oldest_first,           test_pinned_and_gone_are_skipped, test_demand_bounds,
        test_first_chunk_and_tail, test_max_victims_oldest_win, test_far_is_nobody_elses_concern, test_hostile_values,
        test_against_sorting};
    Suite *suite = suite_create("policy");
    TCase *tcase = tcase_create("policy");
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
