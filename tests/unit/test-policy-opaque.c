/* SPDX-License-Identifier: MIT */
/* Regions whose faults nobody sees, among others: what they give, and when, by what is known of some of their chunks. */

#include "policy-fixture.h"
#include "suite.h"

#include <check.h>

/* Of 32 chunks looked at so many are pinned, and so many were used last at a tick; the others were never. */
static void describe(struct policy_region *region, unsigned pinned, unsigned used, uint32_t last, uint64_t resident) {
    struct policy_sample sample = {.n = POLICY_SAMPLES, .pinned = pinned, .n_used = used};

    for (unsigned i = 0; i < used; i++)
        sample.used[i] = last;
    region->opaque = true;
    region->touched_count = 0;
    policy_describe_opaque(region, &sample, resident, 0, NOW - 50000, 0, NOW);
}

/* What is known of is how old it is at most; what is older goes first. */
START_TEST(test_unseen) {
    struct fixture f;
    struct policy_region regions[2];
    uint64_t bytes;

    fixture_init(&f, 16, 32, 1, 2);
    regions[0] = regions[1] = f.region;
    regions[0].opaque = true;
    policy_describe_opaque(&regions[0], &(struct policy_sample){0}, MIB, 0, NOW - 50, 0, NOW);
    f.spans[0].last_fault = NOW - 500;

    ck_assert_uint_eq(plan(regions, 2, 2 * MIB, 16, &bytes), 1); /* the seen one is older */
    ck_assert_uint_eq(victims[0].region, 1);
    ck_assert_uint_eq(plan(regions, 2, 2 * MIB + 5000, 16, &bytes), 2);
    expect(0, 0, 0, 32);
    ck_assert_uint_eq(victims[0].limit, 5000);
    ck_assert_uint_eq(bytes, 2 * MIB + 5000);
    ck_assert_uint_eq(plan(regions, 2, UINT64_MAX, 16, &bytes), 2);
    ck_assert_uint_eq(victims[0].limit, MIB);
    ck_assert_uint_eq(bytes, 3 * MIB);

    policy_describe_opaque(&regions[0], &(struct policy_sample){0}, MIB, 0, NOW - 5000, 0, NOW);
    ck_assert_uint_eq(plan(regions, 2, MIB, 16, &bytes), 1);
    ck_assert_uint_eq(victims[0].region, 0);
    policy_describe_opaque(&regions[0], &(struct policy_sample){0}, 0, 0, NOW - 5000, 0, NOW);
    ck_assert_uint_eq(plan(regions, 2, MIB, 16, &bytes), 1);
    ck_assert_uint_eq(victims[0].region, 1);
    fixture_deinit(&f);
}
END_TEST

/* Who pins all day is younger than what lies idle, also if nothing of it was ever dropped; and gives what he does not use before that. */
START_TEST(test_pins_count) {
    struct fixture f;
    struct policy_region regions[2];
    uint64_t bytes;

    fixture_init(&f, 16, 64, 1, 2);
    f.spans[0].last_fault = f.spans[1].last_fault = NOW - 5000;
    regions[0] = regions[1] = f.region;
    describe(&regions[0], 0, 32, NOW - 1, 4 * MIB);
    ck_assert_uint_eq(plan(regions, 2, 4 * MIB, 16, &bytes), 2);
    ck_assert(victims[0].region == 1 && victims[1].region == 1);
    ck_assert_uint_eq(plan(regions, 2, 5 * MIB, 16, &bytes), 3);
    ck_assert_uint_eq(victims[0].region, 0);
    ck_assert_uint_eq(victims[0].limit, MIB);
    ck_assert_uint_eq(victims[0].before, NOW);

    describe(&regions[0], 0, 16, NOW - 1, 4 * MIB);
    ck_assert_uint_eq(plan(regions, 2, 2 * MIB, 16, &bytes), 1);
    ck_assert_uint_eq(victims[0].limit, 2 * MIB);
    ck_assert_uint_gt(victims[0].before, NOW - 50000);
    ck_assert_uint_lt(victims[0].before, NOW - 5000);
    ck_assert_uint_eq(plan(regions, 2, 6 * MIB, 16, &bytes), 3); /* the rest after the idle */
    ck_assert_uint_eq(victims[0].limit, 2 * MIB);
    ck_assert_uint_eq(plan(regions, 2, 7 * MIB, 16, &bytes), 3);
    ck_assert_uint_eq(victims[0].limit, 3 * MIB);
    ck_assert_uint_eq(victims[0].before, NOW);
    fixture_deinit(&f);
}
END_TEST

/* What was dropped keeps its tick: of less memory than was ever used it is the youngest that is there. */
START_TEST(test_youngest_are_there) {
    struct fixture f;
    struct policy_region region;
    struct policy_sample sample = {.n = 4, .n_used = 4, .used = {NOW - 5000, NOW - 2, NOW - 9000, NOW - 300}};

    fixture_init(&f, 16, 64, 1, 2);
    region = f.region;
    region.opaque = true;
    policy_describe_opaque(&region, &sample, 2 * MIB + 4096, 0, 0, 0, NOW);
    ck_assert_uint_eq(region.n_parts, 3);
    ck_assert_uint_eq(region.parts[0].last, NOW - 5000);
    ck_assert_uint_eq(region.parts[0].pages, 1);
    ck_assert_uint_eq(region.parts[1].last, NOW - 300);
    ck_assert_uint_eq(region.parts[2].last, NOW - 2);
    ck_assert_uint_eq(region.parts[2].pages, MIB / 4096);
    policy_describe_opaque(&region, &sample, 4 * MIB, 0, 0, NOW - 400, NOW); /* nothing older was found */
    ck_assert_uint_eq(region.n_parts, 3);
    ck_assert_uint_eq(region.parts[0].pages, 2 * MIB / 4096);
    ck_assert_uint_eq(region.parts[0].last, NOW - 400);
    fixture_deinit(&f);
}
END_TEST

/* What is pinned comes after all else of every priority, since nothing of it may be there to be had; but it comes, as it may be unpinned by then. */
START_TEST(test_pinned_is_last) {
    struct fixture f[2];
    struct policy_region regions[2];
    uint64_t bytes;

    fixture_init(&f[0], 16, 64, 1, 1);
    fixture_init(&f[1], 16, 32, 1, 3);
    f[1].spans[0].last_fault = NOW - 10;
    regions[0] = f[0].region;
    regions[1] = f[1].region;
    describe(&regions[0], 32, 0, 0, 4 * MIB);
    ck_assert_uint_eq(plan(regions, 2, 2 * MIB, 16, &bytes), 1);
    ck_assert_uint_eq(victims[0].region, 1);
    ck_assert_uint_eq(plan(regions, 2, 3 * MIB, 16, &bytes), 2);
    ck_assert_uint_eq(victims[0].region, 0);
    ck_assert_uint_eq(victims[0].limit, MIB);
    ck_assert_uint_eq(victims[0].before, UINT32_MAX);
    policy_describe_opaque(&regions[0], &(struct policy_sample){.n = 1, .pinned = 1}, 4 * MIB, 0, 0, NOW, NOW);
    ck_assert_uint_eq(plan(regions, 2, 3 * MIB, 16, &bytes), 2);
    /* Not by what is known of its pins, but since it was tried. */
    policy_describe_opaque(&regions[0], &(struct policy_sample){.n = 1}, 4 * MIB, 3 * MIB, 0, NOW - 1, NOW);
    ck_assert_uint_eq(plan(regions, 2, 3 * MIB, 16, &bytes), 2);
    ck_assert_uint_eq(victims[0].limit, MIB);
    policy_describe_opaque(&regions[0], &(struct policy_sample){.n = 1}, 4 * MIB, 3 * MIB, 0, NOW, NOW);
    ck_assert_uint_eq(plan(regions, 2, MIB, 16, &bytes), 1);
    ck_assert_uint_eq(victims[0].region, 0);
    for (unsigned i = 0; i < 2; i++)
        fixture_deinit(&f[i]);
}
END_TEST

/* A plan that is cut short for want of victims has no region twice. */
START_TEST(test_is_one_victim) {
    struct fixture f[2];
    struct policy_region regions[2];
    uint64_t bytes, last = 0;

    fixture_init(&f[0], 16, 64, 0, 2);
    fixture_init(&f[1], 16, 32 * 64, 0, 2);
    for (uint32_t i = 0; i < f[1].n_spans; i++)
        f[1].spans[i].last_fault = NOW - 300;
    regions[0] = f[0].region;
    regions[1] = f[1].region;
    describe(&regions[0], 0, 16, NOW - 300, 4 * MIB);
    for (size_t max = 1; max < 20; max++) {
        size_t n = plan(regions, 2, UINT64_MAX, max, &bytes);

        ck_assert_uint_le(n, max);
        ck_assert_uint_ge(bytes, last);
        last = bytes;
        for (size_t i = 1; i < n; i++)
            ck_assert_uint_eq(victims[i].region, 1);
        ck_assert_uint_eq(victims[0].region, 0);
        ck_assert_uint_eq(victims[0].limit, 4 * MIB);
    }
    for (unsigned i = 0; i < 2; i++)
        fixture_deinit(&f[i]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("policy-opaque");
    TCase *tcase = tcase_create("policy-opaque");

    tcase_add_test(tcase, test_unseen);
    tcase_add_test(tcase, test_pins_count);
    tcase_add_test(tcase, test_youngest_are_there);
    tcase_add_test(tcase, test_pinned_is_last);
    tcase_add_test(tcase, test_is_one_victim);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
