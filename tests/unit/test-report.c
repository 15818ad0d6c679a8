/* SPDX-License-Identifier: MIT */
/* What WHY tells of the ring of decisions, page by page. */

#include "manager.h"
#include "report.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct manager *manager;

static void setup(void) {
    manager = calloc(1, sizeof(*manager));
    ck_assert_ptr_nonnull(manager);
    manager_init_lock(&manager->lock);
}

static void teardown(void) {
    pthread_mutex_destroy(&manager->lock);
    free(manager);
}

/* So many, each of another domain, so that none is the continuation of the one before. */
static void decide(unsigned n) {
    for (unsigned i = 1; i <= n; i++) {
        struct decision *decision =
            decisions_begin(&manager->decisions, DEMAND_SAMPLER, i, NULL, false, kernel_now() - UINT64_C(5000000), 1);

        decision->urgency = URGENCY_LIFE;
        decision->freed = i;
        decision->unseen = i + 1;
        decision->ended = kernel_now() - UINT64_C(2000000);
        snprintf(decision->path, sizeof(decision->path), "/a/%u", i);
        for (unsigned k = 1; k <= DECISION_VICTIMS + 2; k++)
            decision_add_victim(decision, k, (pid_t)(1000 + k), "abcdefghijklmnopqrstuvwxyz012345", 10 * k, k);
    }
}

/* All pages from a cursor on: newest first, without a gap. Returns how many there were. */
static unsigned read_pages(uint64_t cursor, uint64_t newest) {
    static struct drp_wire_why_reply reply;
    unsigned n = 0;

    do {
        memset(&reply, 0, sizeof(reply));
        report_why(manager, cursor, &reply);
        ck_assert_uint_le(reply.count, DRP_WIRE_WHY_MAX);
        for (uint32_t i = 0; i < reply.count; i++)
            ck_assert_uint_eq(reply.entries[i].number, newest - n++);
        ck_assert(reply.next == 0 || reply.count == DRP_WIRE_WHY_MAX);
        cursor = reply.next;
    } while (cursor != 0);
    return n;
}

START_TEST(test_pages) {
    ck_assert_uint_eq(read_pages(0, 0), 0);
    decide(1);
    ck_assert_uint_eq(read_pages(0, 1), 1);
}
END_TEST

START_TEST(test_full_pages) {
    decide(12);
    ck_assert_uint_eq(read_pages(0, 12), 12);
    ck_assert_uint_eq(read_pages(13, 12), 12); /* of another life of the daemon, perhaps */
    ck_assert_uint_eq(read_pages(UINT64_MAX, 12), 12);
    ck_assert_uint_eq(read_pages(5, 5), 5);
}
END_TEST

START_TEST(test_overwritten) {
    decide(DECISIONS_MAX + 10);
    ck_assert_uint_eq(read_pages(0, DECISIONS_MAX + 10), DECISIONS_MAX);
    ck_assert_uint_eq(read_pages(3, 3), 0); /* not there any more */
}
END_TEST

START_TEST(test_entry) {
    struct drp_wire_why_reply reply = {0};
    const struct drp_wire_decision *decision = &reply.entries[0];

    decide(3);
    report_why(manager, 0, &reply);
    ck_assert_uint_eq(reply.count, 3);
    ck_assert_uint_gt(reply.now_ms, UINT64_C(1700000000000));
    ck_assert(decision->began_ms >= 5 && decision->began_ms < 5000);
    ck_assert(decision->ended_ms >= 2 && decision->ended_ms < decision->began_ms);
    ck_assert_uint_eq(decision->source, DRP_SOURCE_SAMPLER);
    ck_assert_uint_eq(decision->urgency, DRP_URGENCY_LIFE);
    ck_assert_uint_eq(decision->domain, 3);
    ck_assert_uint_eq(decision->freed, 3);
    ck_assert_uint_eq(decision->unseen, 4);
    ck_assert_str_eq(decision->path, "/a/3");
    ck_assert_uint_eq(decision->n_victims, DRP_WIRE_VICTIMS_MAX);
    ck_assert_uint_eq(decision->others, 7 + 8);
    for (uint32_t i = 0; i < decision->n_victims; i++) {
        ck_assert_uint_eq(decision->victims[i].session, i + 1);
        ck_assert_uint_eq(decision->victims[i].pid, 1001 + i);
        ck_assert_uint_eq(decision->victims[i].region, 10 * (i + 1));
        ck_assert_uint_eq(decision->victims[i].planned, i + 1);
        ck_assert_str_eq(decision->victims[i].name, "abcdefghijklmnopqrstuvwxyz012345");
    }
}
END_TEST

/* Whose budget it was. */
START_TEST(test_budget) {
    const struct decision_budget budget = {.scope = BUDGET_CLIENT, .id = 4711, .budget = 7, .resident = 9};
    struct drp_wire_why_reply reply = {0};

    decisions_begin(&manager->decisions, DEMAND_BUDGET, 1, &budget, false, kernel_now(), 1)->urgency = URGENCY_TRIM;
    report_why(manager, 0, &reply);
    ck_assert_uint_eq(reply.count, 1);
    ck_assert_uint_eq(reply.entries[0].source, DRP_SOURCE_BUDGET);
    ck_assert_uint_eq(reply.entries[0].budget_scope, DRP_LIMIT_CLIENT);
    ck_assert_uint_eq(reply.entries[0].budget_id, 4711);
    ck_assert_uint_eq(reply.entries[0].budget, 7);
    ck_assert_uint_eq(reply.entries[0].budget_resident, 9);
}
END_TEST

START_TEST(test_histograms) {
    struct drp_wire_histograms_reply reply = {0};

    histogram_add(&manager->decisions.reaction_us, 0);
    histogram_add(&manager->decisions.gate_us, 5);
    histogram_add(&manager->decisions.refault_ms, UINT64_MAX);
    manager->decisions.dropped_spans = 7;
    manager->decisions.refaulted_spans = 3;
    report_histograms(manager, &reply);
    for (size_t i = 0; i < DRP_WIRE_BUCKETS; i++) {
        ck_assert_uint_eq(reply.reaction_us[i], i == 0);
        ck_assert_uint_eq(reply.gate_us[i], i == 3); /* 4 to 7 */
        ck_assert_uint_eq(reply.refault_ms[i], i == DRP_WIRE_BUCKETS - 1);
    }
    ck_assert_uint_eq(reply.dropped_spans, 7);
    ck_assert_uint_eq(reply.refaulted_spans, 3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("report");
    TCase *tcase = tcase_create("report");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_pages);
    tcase_add_test(tcase, test_full_pages);
    tcase_add_test(tcase, test_overwritten);
    tcase_add_test(tcase, test_entry);
    tcase_add_test(tcase, test_budget);
    tcase_add_test(tcase, test_histograms);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
