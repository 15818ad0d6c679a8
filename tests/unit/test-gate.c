/* SPDX-License-Identifier: MIT */
/*
 * The gate: its verdicts and what they take, on a chain of domains made by hand: a cgroup in a cgroup in the machine. Each
 * answer is compared with the credit, the commitment and the wish of every domain, since what one verdict forgets to take (or to give
 * back) is missing, or left over, until the next look.
 */

#include "gate.h"

#include "domain.h"

#include <check.h>
#include <stdlib.h>

#define CHAIN 3
#define MIB (INT64_C(1) << 20)
#define PLENTY (64 * MIB)

/* The innermost first, the machine last. */
static struct domain chain[CHAIN];

static void setup(void) {
    for (int i = 0; i < CHAIN; i++) {
        chain[i] = (struct domain){.parent = i + 1 < CHAIN ? &chain[i + 1] : NULL};
        atomic_store(&chain[i].credit, PLENTY + i * MIB);
    }
}

static int64_t credit(int i) {
    return atomic_load(&chain[i].credit);
}

/* Every domain gave so much of what setup() left it with. */
static void check_taken(int64_t taken) {
    for (int i = 0; i < CHAIN; i++)
        ck_assert_int_eq(credit(i), PLENTY + i * MIB - taken);
}

static void check_nobody_waits(void) {
    for (int i = 0; i < CHAIN; i++)
        ck_assert_uint_eq(atomic_load(&chain[i].wanted), 0);
}

START_TEST(test_free_is_taken_from_all) {
    ck_assert_int_eq(gate_ask(&chain[0], 3 * MIB, true), GATE_FREE);
    check_taken(3 * MIB);
    ck_assert_int_eq(gate_ask(&chain[0], 4096, true), GATE_FREE);
    check_taken(3 * MIB + 4096);
    check_nobody_waits();
    for (int i = 0; i < CHAIN; i++)
        ck_assert_int_eq(atomic_load(&chain[i].commitment), 0);
}
END_TEST

/* Asked from the middle, what lies below it is none of its business. */
START_TEST(test_only_upwards) {
    atomic_store(&chain[0].credit, -5 * MIB);
    ck_assert_int_eq(gate_ask(&chain[1], MIB, true), GATE_FREE);
    ck_assert_int_eq(credit(0), -5 * MIB);
    ck_assert_int_eq(credit(1), PLENTY);
    ck_assert_int_eq(credit(2), PLENTY + MIB);
    check_nobody_waits();
}
END_TEST

/* One domain of the chain is enough, wherever it is; to the byte. */
START_TEST(test_tight_takes_a_step) {
    const int64_t enough = MIB + GATE_SPAN;

    atomic_store(&chain[_i].credit, enough - 1);
    ck_assert_int_eq(gate_ask(&chain[0], MIB, true), GATE_TIGHT);
    for (int i = 0; i < CHAIN; i++)
        ck_assert_int_eq(credit(i), (i == _i ? enough - 1 : PLENTY + i * MIB) - GATE_STEP);
    check_nobody_waits();

    atomic_store(&chain[_i].credit, enough);
    ck_assert_int_eq(gate_ask(&chain[0], MIB, true), GATE_FREE);
    ck_assert_int_eq(credit(_i), enough - MIB);
}
END_TEST

/* Less than a step is wanted: only that is taken. */
START_TEST(test_tight_takes_no_more_than_asked) {
    atomic_store(&chain[2].credit, GATE_SPAN);
    ck_assert_int_eq(gate_ask(&chain[0], 4096, true), GATE_TIGHT);
    ck_assert_int_eq(credit(0), PLENTY - 4096);
    ck_assert_int_eq(credit(2), GATE_SPAN - 4096);
}
END_TEST

START_TEST(test_wait_takes_nothing) {
    atomic_store(&chain[_i].credit, GATE_STEP - 1);
    for (uint64_t asked = 1; asked <= 3; asked++) {
        ck_assert_int_eq(gate_ask(&chain[0], MIB, true), GATE_WAIT);
        for (int i = 0; i < CHAIN; i++) {
            ck_assert_int_eq(credit(i), i == _i ? GATE_STEP - 1 : PLENTY + i * MIB);
            ck_assert_uint_eq(atomic_load(&chain[i].wanted), i == _i ? asked * MIB : 0);
        }
    }
    ck_assert_int_eq(gate_ask(&chain[0], MIB, false), GATE_WAIT); /* who goes ahead all the same leaves no wish */
    ck_assert_uint_eq(atomic_load(&chain[_i].wanted), 3 * MIB);
    atomic_store(&chain[_i].credit, GATE_STEP); /* to the byte */
    ck_assert_int_eq(gate_ask(&chain[0], MIB, true), GATE_TIGHT);
    ck_assert_int_eq(credit(_i), 0);
    ck_assert_int_eq(gate_ask(&chain[0], 1, true), GATE_WAIT);
}
END_TEST

/* All that are short learn of it, not only the first one; a tight one between them does not change that. */
START_TEST(test_wait_is_left_with_each_short_one) {
    atomic_store(&chain[0].credit, -PLENTY);
    atomic_store(&chain[1].credit, GATE_SPAN);
    atomic_store(&chain[2].credit, 0);
    ck_assert_int_eq(gate_ask(&chain[0], 8192, true), GATE_WAIT);
    ck_assert_int_eq(credit(0), -PLENTY);
    ck_assert_int_eq(credit(1), GATE_SPAN);
    ck_assert_int_eq(credit(2), 0);
    for (int i = 0; i < CHAIN; i++)
        ck_assert_uint_eq(atomic_load(&chain[i].wanted), i != 1 ? 8192 : 0);
}
END_TEST

START_TEST(test_commit) {
    const int64_t enough = MIB + GATE_SPAN;

    ck_assert(gate_allows(&chain[0], MIB));
    check_taken(0);
    gate_adjust(&chain[0], MIB);
    check_taken(MIB);
    for (int i = 0; i < CHAIN; i++)
        ck_assert_int_eq(atomic_load(&chain[i].commitment), MIB);
    gate_adjust(&chain[0], -MIB);
    check_taken(0);

    atomic_store(&chain[_i].credit, enough - 1); /* no room for a span beyond it */
    ck_assert(!gate_allows(&chain[0], MIB));
    for (int i = 0; i < CHAIN; i++) {
        ck_assert_int_eq(credit(i), i == _i ? enough - 1 : PLENTY + i * MIB);
        ck_assert_int_eq(atomic_load(&chain[i].commitment), 0);
    }
    check_nobody_waits();
    atomic_store(&chain[_i].credit, enough);
    ck_assert(gate_allows(&chain[0], MIB));
}
END_TEST

/* Always allowed, also below zero, and what is given back is what was taken. */
START_TEST(test_adjust_is_symmetrical) {
    gate_adjust(&chain[0], 2 * PLENTY);
    check_taken(2 * PLENTY);
    ck_assert_int_lt(credit(0), 0);
    gate_adjust(&chain[1], MIB);
    ck_assert_int_eq(atomic_load(&chain[0].commitment), 2 * PLENTY);
    ck_assert_int_eq(atomic_load(&chain[1].commitment), 2 * PLENTY + MIB);
    ck_assert_int_eq(atomic_load(&chain[2].commitment), 2 * PLENTY + MIB);
    gate_adjust(&chain[1], -MIB);
    gate_adjust(&chain[0], -2 * PLENTY);
    check_taken(0);
    for (int i = 0; i < CHAIN; i++)
        ck_assert_int_eq(atomic_load(&chain[i].commitment), 0);
    check_nobody_waits();
}
END_TEST

/* The least of the chain, and none below zero. */
START_TEST(test_room) {
    ck_assert_uint_eq(gate_room(&chain[0]), PLENTY);
    atomic_store(&chain[2].credit, 3 * MIB);
    ck_assert_uint_eq(gate_room(&chain[0]), 3 * MIB);
    atomic_store(&chain[1].credit, -MIB);
    ck_assert_uint_eq(gate_room(&chain[0]), 0);
    ck_assert_uint_eq(gate_room(&chain[2]), 3 * MIB);
}
END_TEST

/* A share of the headroom, which is credit and commitment together; of every domain. */
START_TEST(test_ample) {
    ck_assert(gate_is_ample(&chain[0], 4));
    gate_adjust(&chain[0], 16 * MIB); /* 16 of 64 */
    ck_assert(gate_is_ample(&chain[0], 4));
    gate_adjust(&chain[0], MIB);
    ck_assert(!gate_is_ample(&chain[0], 4)); /* the innermost has the least */
    ck_assert(gate_is_ample(&chain[1], 3));
    ck_assert(gate_is_ample(&chain[0], 2));
    gate_adjust(&chain[1], 48 * MIB);
    ck_assert(!gate_is_ample(&chain[0], 2));
}
END_TEST

/* Nobody waits where nothing can be dropped; but for what one domain lacks another's hopelessness says nothing. */
START_TEST(test_hopeless) {
    const uint64_t now = 1000;

    atomic_store(&chain[1].hopeless_until, now + 1);
    ck_assert(!gate_is_hopeless(&chain[0], now)); /* none is short */
    atomic_store(&chain[1].credit, GATE_STEP - 1);
    ck_assert(gate_is_hopeless(&chain[0], now));
    ck_assert(!gate_is_hopeless(&chain[0], now + 1)); /* that was long ago */
    ck_assert(!gate_is_hopeless(&chain[2], now));
    atomic_store(&chain[2].credit, -MIB);
    ck_assert(!gate_is_hopeless(&chain[0], now));
    atomic_store(&chain[2].hopeless_until, now + 1);
    ck_assert(gate_is_hopeless(&chain[0], now));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gate");
    TCase *gate = tcase_create("gate");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(gate, setup, NULL);
    tcase_add_test(gate, test_free_is_taken_from_all);
    tcase_add_test(gate, test_only_upwards);
    tcase_add_test(gate, test_room);
    tcase_add_test(gate, test_ample);
    tcase_add_loop_test(gate, test_tight_takes_a_step, 0, CHAIN);
    tcase_add_test(gate, test_tight_takes_no_more_than_asked);
    tcase_add_loop_test(gate, test_wait_takes_nothing, 0, CHAIN);
    tcase_add_test(gate, test_wait_is_left_with_each_short_one);
    tcase_add_loop_test(gate, test_commit, 0, CHAIN);
    tcase_add_test(gate, test_adjust_is_symmetrical);
    tcase_add_test(gate, test_hopeless);
    suite_add_tcase(suite, gate);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
