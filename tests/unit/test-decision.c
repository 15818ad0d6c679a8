/* SPDX-License-Identifier: MIT */
/*
 * The memory of decisions: what becomes one episode, who is named, whose mistake a refault was.
 */

#include "decision.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

static struct decisions decisions;

static struct decision *slice(enum demand_source source, uint64_t domain, uint64_t seconds) {
    return decisions_begin(&decisions, source, domain, NULL, false, seconds * SECOND, (uint32_t)seconds * 10);
}

static void clear(void) {
    memset(&decisions, 0, sizeof(decisions));
}

START_TEST(test_episodes) {
    struct decision *first = slice(DEMAND_SAMPLER, 1, 100), *other;

    ck_assert_uint_eq(first->number, 1);
    first->ended = 100 * SECOND + SECOND / 2; /* its slice took half a second */
    ck_assert_ptr_eq(slice(DEMAND_SAMPLER, 1, 101), first);
    other = slice(DEMAND_SAMPLER, 2, 101);
    ck_assert_uint_eq(other->number, 2);
    ck_assert_uint_eq(slice(DEMAND_GATE, 1, 101)->number, 3);
    ck_assert_ptr_eq(slice(DEMAND_SAMPLER, 2, 101), other);
    ck_assert_uint_eq(slice(DEMAND_SAMPLER, 1, 102)->number, 4); /* quiet for a second */
    ck_assert_ptr_eq(decisions_get(&decisions, 2), other);
    ck_assert_ptr_null(decisions_get(&decisions, 0));
    ck_assert_ptr_null(decisions_get(&decisions, 5));
    ck_assert_uint_eq(decisions_begin(&decisions, DEMAND_HAND, 1, NULL, true, 103 * SECOND, 1)->number, 5);
    ck_assert_uint_eq(decisions_begin(&decisions, DEMAND_HAND, 1, NULL, true, 103 * SECOND, 1)->number, 6);
}
END_TEST

static struct decision *for_budget(uint32_t scope, uint64_t id, uint64_t seconds) {
    const struct decision_budget budget = {.scope = scope, .id = id, .budget = 100 * id, .resident = seconds};

    return decisions_begin(&decisions, DEMAND_BUDGET, 1, &budget, false, seconds * SECOND, (uint32_t)seconds * 10);
}

/* Each group that is over has an episode of its own, and knows how much it was; but of thousands at once only some. */
START_TEST(test_budgets) {
    struct decision *first = for_budget(2, 7, 100), *rest;

    ck_assert_ptr_eq(for_budget(2, 7, 100), first);
    ck_assert_uint_eq(for_budget(3, 7, 100)->number, 2);
    ck_assert_uint_eq(for_budget(2, 8, 100)->number, 3);
    ck_assert_ptr_eq(for_budget(2, 7, 100), first);
    ck_assert_uint_eq(first->budget.budget, 700);
    ck_assert_uint_eq(first->budget.resident, 100);
    ck_assert_uint_eq(slice(DEMAND_BUDGET, 1, 100)->number, 4); /* of none */
    for (uint64_t i = 3; i < DECISIONS_OF_BUDGETS; i++)
        ck_assert_uint_eq(for_budget(1, i, 100)->budget.id, i);
    rest = for_budget(1, 1000, 100);
    ck_assert_uint_eq(rest->number, 4);
    ck_assert_uint_eq(rest->budget.scope, 0);
    for (uint64_t i = 1001; i < 3000; i++)
        ck_assert_ptr_eq(for_budget(1, i, 100), rest);
    ck_assert_ptr_eq(for_budget(2, 7, 100), first);
    ck_assert_uint_eq(slice(DEMAND_SAMPLER, 1, 100)->number, DECISIONS_OF_BUDGETS + 2);
    ck_assert_uint_eq(for_budget(1, 1000, 101)->budget.id, 1000); /* the others have been quiet for a second */
}
END_TEST

/* The ring forgets the oldest, and nothing of it is left in what takes its place. */
START_TEST(test_ring) {
    for (uint64_t i = 0; i < 3 * DECISIONS_MAX; i++) {
        struct decision *decision = slice(DEMAND_SAMPLER, 1, 100 + 10 * i);

        ck_assert_uint_eq(decision->number, i + 1);
        ck_assert_uint_eq(decision->n_victims, 0);
        decision_add_victim(decision, i, 1, "name", i, 1);
    }
    ck_assert_ptr_null(decisions_get(&decisions, 2 * DECISIONS_MAX));
    ck_assert_ptr_nonnull(decisions_get(&decisions, 2 * DECISIONS_MAX + 1));
}
END_TEST

START_TEST(test_victims) {
    struct decision *decision = slice(DEMAND_SAMPLER, 1, 100);

    decision_add_victim(decision, 7, 70, "seven", 1, 100);
    decision_add_victim(decision, 7, 70, "seven", 2, 500);
    decision_add_victim(decision, 7, 70, "seven", 2, 50);
    ck_assert_uint_eq(decision->n_victims, 1);
    ck_assert_uint_eq(decision->victims[0].planned, 650);
    ck_assert_uint_eq(decision->victims[0].region, 2);
    ck_assert_str_eq(decision->victims[0].name, "seven");
    for (uint64_t session = 8; session < 8 + 2 * DECISION_VICTIMS; session++)
        decision_add_victim(decision, session, 1, "a name that is longer than the field, which cuts it", session, 10);
    ck_assert_uint_eq(decision->n_victims, DECISION_VICTIMS);
    ck_assert_uint_eq(decision->others, 10 * (DECISION_VICTIMS + 1));
    decision_add_victim(decision, 7, 70, "seven", 2, 1);
    ck_assert_uint_eq(decision->victims[0].planned, 651);
}
END_TEST

START_TEST(test_refaults) {
    struct decision *first = slice(DEMAND_SAMPLER, 1, 100), *second = slice(DEMAND_SAMPLER, 1, 200);
    struct decision *at_once = slice(DEMAND_SAMPLER, 2, 200);

    for (unsigned i = 0; i < 5; i++)
        decisions_note_refault(&decisions, 5, i < 4);
    ck_assert(decisions_regret(&decisions, 1, true, 1000)); /* ticks: 100 s */
    ck_assert(decisions_regret(&decisions, 1, true, 2000));
    ck_assert(decisions_regret(&decisions, 1, true, 2001)); /* the dropper is later than the plan */
    ck_assert(decisions_regret(&decisions, 2, true, 2000)); /* another was short in the same moment */
    ck_assert(!decisions_regret(&decisions, 2, true, 1000));
    ck_assert(!decisions_regret(&decisions, 2, false, 2000)); /* nobody's hand */
    ck_assert(!decisions_regret(&decisions, 1, true, 1500));  /* of one that is forgotten, say */
    ck_assert_uint_eq(decisions_refaults(&decisions, first), 1);
    ck_assert_uint_eq(decisions_refaults(&decisions, second), 2);
    ck_assert_uint_eq(decisions_refaults(&decisions, at_once), 1);
    ck_assert_uint_eq(decisions.refaulted_spans, 4);
    ck_assert_uint_eq(decisions.refault_ms.counts[9], 5); /* 500 ms */
}
END_TEST

START_TEST(test_histogram) {
    struct histogram histogram = {0};

    histogram_add(&histogram, 0);
    histogram_add(&histogram, 1);
    histogram_add(&histogram, 2);
    histogram_add(&histogram, 3);
    histogram_add(&histogram, UINT64_MAX);
    ck_assert_uint_eq(histogram.counts[0], 1);
    ck_assert_uint_eq(histogram.counts[1], 1);
    ck_assert_uint_eq(histogram.counts[2], 2);
    ck_assert_uint_eq(histogram.counts[HISTOGRAM_BUCKETS - 1], 1);
}
END_TEST

static void *note_refaults(void *data) {
    const _Atomic bool *stop = data;

    while (!atomic_load(stop))
        for (uint32_t tick = 1; tick <= 2000; tick++)
            decisions_regret(&decisions, 1, true, tick);
    return NULL;
}

/* A pager looks for the one whose mistake it was while the ring is written over: for ThreadSanitizer, and none counts more than were noted. */
START_TEST(test_written_over) {
    _Atomic bool stop = false;
    uint64_t counted = 0;
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, note_refaults, &stop), 0);
    for (uint32_t i = 1; i <= 20 * DECISIONS_MAX; i++)
        decisions_begin(&decisions, DEMAND_HAND, 1, NULL, true, i * SECOND, i % 2000);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    for (uint64_t number = decisions.newest; number > decisions.newest - DECISIONS_MAX; number--)
        counted += decisions_refaults(&decisions, decisions_get(&decisions, number));
    ck_assert_uint_le(counted, decisions.refaulted_spans);
}
END_TEST

int main(void) {
    const TTest *tests[] = {test_episodes, test_budgets,   test_ring,        test_victims,
                            test_refaults, test_histogram, test_written_over};
    Suite *suite = suite_create("decision");
    TCase *tcase = tcase_create("decision");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tcase, clear, NULL);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
