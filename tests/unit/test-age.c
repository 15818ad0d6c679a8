/* SPDX-License-Identifier: MIT */
/* Ages, and refault protection: what a touch after a drop leaves behind, and what the plan makes of it. test-policy has the order as a whole. */

#include "policy.h"

#include <check.h>
#include <stdlib.h>

#define NOW 100000
#define SPANS 3
#define CHUNKS (SPANS * 32)
#define CHUNK_SHIFT 16
#define MAX_VICTIMS 64

static struct policy_span spans[SPANS];
static _Atomic uint8_t flags[CHUNKS];
static struct drp_pin_cell pins[CHUNKS];
static _Atomic uint32_t touched[SPANS];
static struct policy_victim victims[MAX_VICTIMS];

static size_t plan(unsigned n_spans, unsigned n_pins, unsigned chunks) {
    struct policy_region region = {
        .priority = 2,
        .chunk_shift = CHUNK_SHIFT,
        .chunk_count = n_spans * 32,
        .touched = touched,
        .touched_count = n_spans,
        .spans = spans,
        .chunk_flags = flags,
        .n_pins = n_pins,
        .pins = {pins},
    };
    uint64_t bytes;

    for (uint32_t i = 0; i < n_spans; i++)
        touched[i] = i;
    return policy_plan(&region, 1, (uint64_t)chunks << CHUNK_SHIFT, NOW, victims, MAX_VICTIMS, &bytes);
}

static void expect(size_t i, uint64_t first_chunk, uint64_t chunk_count) {
    ck_assert_uint_eq(victims[i].first_chunk, first_chunk);
    ck_assert_uint_eq(victims[i].chunk_count, chunk_count);
}

/* ---- age ---- */

START_TEST(test_age_buckets) {
    static const struct {
        uint32_t age;
        unsigned bucket;
    } rows[] = {
        {0, 0},           {1, 1}, {2, 2},  {3, 3},  {4, 4},  {5, 4},  {6, 5},
        {7, 5},           {8, 6}, {11, 6}, {12, 7}, {15, 7}, {16, 8}, {UINT32_C(1) << 31, 62},
        {UINT32_MAX, 63},
    };
    unsigned before = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_uint_eq(policy_age_bucket(UINT32_MAX, UINT32_MAX - rows[i].age), rows[i].bucket);
    for (uint64_t age = 0; age <= UINT32_MAX; age += 1 + age / 64) {
        unsigned bucket = policy_age_bucket(UINT32_MAX, UINT32_MAX - (uint32_t)age);

        ck_assert_uint_ge(bucket, before);
        ck_assert_uint_le(bucket, before + 1);
        before = bucket;
    }
    ck_assert_uint_eq(before, 63);
    ck_assert_uint_eq(policy_age_bucket(5, 6), 0);
    ck_assert_uint_eq(policy_age_bucket(0, UINT32_MAX), 0);
}
END_TEST

/* ---- protection ---- */

/* The chunk, its span and the spans beside it; the second touch after a drop tells nothing. */
START_TEST(test_mistakes) {
    uint32_t age;

    ck_assert(!policy_note_refault(spans, SPANS, 1, &flags[40], NOW, &age)); /* nothing was dropped */
    for (unsigned i = 1; i <= POLICY_PROTECTION_MAX + 1; i++) {
        policy_note_drop(&spans[1], NOW);
        ck_assert(policy_note_refault(spans, SPANS, 1, &flags[40], NOW + POLICY_REFAULT_WINDOW, &age));
        ck_assert_uint_eq(age, POLICY_REFAULT_WINDOW);
        ck_assert(!policy_note_refault(spans, SPANS, 1, &flags[41], NOW, &age));
        ck_assert_uint_eq(policy_span_level(&spans[1]), i < POLICY_PROTECTION_MAX ? i : POLICY_PROTECTION_MAX);
        ck_assert_uint_eq(flags[40] >> POLICY_MISSED_SHIFT, i < POLICY_MISSED_MAX ? i : POLICY_MISSED_MAX);
    }
    ck_assert_uint_eq(flags[41], 0);
    ck_assert_uint_eq(policy_span_level(&spans[0]), 1);
    ck_assert_uint_eq(policy_span_level(&spans[2]), 1);
}
END_TEST

/* A late touch wears protection down, and leaves alone what else is known. */
START_TEST(test_late_touch) {
    uint32_t age;

    spans[1].gone = 2 << 12 | 3;
    flags[40] = 1 << POLICY_MISSED_SHIFT | POLICY_CHUNK_GONE;
    for (unsigned i = 0; i < 3; i++) {
        policy_note_drop(&spans[1], NOW);
        ck_assert(!policy_note_refault(spans, SPANS, 1, &flags[40], NOW + POLICY_REFAULT_WINDOW + 1, &age));
        ck_assert_uint_eq(policy_span_level(&spans[1]), i == 0 ? 1 : 0);
        ck_assert_uint_eq(flags[40], POLICY_CHUNK_GONE);
    }
    ck_assert_uint_eq(policy_span_gone(&spans[1]), 3);
    ck_assert_uint_eq(policy_span_level(&spans[0]), 0);
}
END_TEST

/* Where all spans are protected the order is still that of use, and who was missed himself goes last. */
START_TEST(test_protected_keep_their_order) {
    for (unsigned i = 0; i < SPANS; i++)
        spans[i].gone = POLICY_PROTECTION_MAX << 12;
    for (unsigned i = 0; i < CHUNKS; i++)
        pins[i].tick = NOW - 100 - i * 100;
    flags[95] = 1 << POLICY_MISSED_SHIFT;
    ck_assert_uint_eq(plan(SPANS, 1, 13), 1);
    expect(0, 82, 13); /* the oldest bucket; not 95, though it was used before all others */
}
END_TEST

/* Of what came back and is never pinned, what is not beside the missed chunk goes before the rest of its span. */
START_TEST(test_back_unasked) {
    spans[0].last_fault = NOW - 2;
    for (unsigned i = 0; i < 32; i++)
        flags[i] = policy_back_flags(i, 9, CHUNK_SHIFT);
    ck_assert_uint_eq(plan(1, 0, 24), 2);
    expect(0, 0, 8);
    expect(1, 16, 16);
}
END_TEST

/* Pinned memory that came back is zeros until it is pinned again, beside what was missed or not; and what a plan finds pinned it forgets. */
START_TEST(test_back_is_zeros) {
    spans[0].last_fault = NOW - 100;
    for (unsigned i = 0; i < 32; i++) {
        pins[i].tick = i == 9 || i == 20 ? NOW - 50 : NOW - 200;
        flags[i] = policy_back_flags(i, 9, CHUNK_SHIFT);
    }
    ck_assert_uint_eq(plan(1, 1, 30), 3);
    expect(0, 0, 9);
    expect(1, 10, 10);
    expect(2, 21, 11);
    ck_assert_uint_eq(flags[20], 0);
    ck_assert_uint_eq(flags[21], POLICY_CHUNK_BACK);
}
END_TEST

int main(void) {
    const TTest *tests[] = {test_age_buckets,  test_mistakes,     test_late_touch, test_protected_keep_their_order,
                            test_back_unasked, test_back_is_zeros};
    Suite *suite = suite_create("age");
    TCase *tcase = tcase_create("age");
    SRunner *runner;
    int failed;

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
