/* SPDX-License-Identifier: MIT */
/* What comes of slices that are finished: which of them say that a domain in need has nothing left to drop. */

#include "plan.h"

#include "domain.h"
#include "manager.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>

#define NOTED_MAX 64
#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)

static struct manager manager;
static struct plans plans;
static struct domain domain;

static void setup(void) {
    plans_init(&plans, &manager);
    domain.refs = 1;
    domain.barren = 1;
    controller_init(&domain.controller, 1024 * MIB);
}

static void teardown(void) {
    plans_deinit(&plans);
}

static struct plan_slice *begin(struct domain *of, bool needed, uint64_t planned) {
    struct plan_slice *slice = calloc(1, sizeof(*slice));

    ck_assert_ptr_nonnull(slice);
    slice->domain = of;
    of->refs++;
    slice->needed = needed;
    slice->planned = planned;
    slice->request.wanted = planned;
    slice->handed_out = 1000 * MS;
    slice->state = PLAN_UNDER_WAY;
    LIST_INSERT_HEAD(&plans.slices, slice, link);
    return slice;
}

static void end(struct plan_slice *slice) {
    slice->state = PLAN_FINISHED;
    ck_assert_uint_eq(plan_settle(&plans), 0);
}

/* One that the domain needed. */
static void finish(uint64_t freed, uint64_t cleared, uint64_t noted) {
    struct plan_slice *slice = begin(&domain, true, 4096);

    slice->request.freed = freed;
    slice->request.cleared = cleared;
    slice->request.noted = noted;
    end(slice);
}

START_TEST(test_fruitless) {
    finish(4096, 0, 0);
    ck_assert(!domain.fruitless && domain.barren == 0);
    finish(0, 0, 0);
    ck_assert(domain.fruitless);
    finish(0, 1, 0);
    ck_assert(!domain.fruitless);
}
END_TEST

/* ---- while they are under way ---- */

/* What a great slice turns out not to need is left; of small ones, of hands and of other domains nothing is. */
START_TEST(test_trim) {
    static struct domain other = {.refs = 1};
    struct plan_slice *great, *of_hand, *of_other;

    domain.fruitless = false;
    great = begin(&domain, true, 1024 * MIB);
    of_hand = begin(&domain, false, 1024 * MIB);
    of_other = begin(&other, true, 1024 * MIB);
    great->request.freed = of_other->request.freed = 100 * MIB;
    plan_trim(&plans, &domain, 924 * MIB);
    ck_assert(great->planned == 1024 * MIB && great->request.wanted == 1024 * MIB);
    plan_trim(&plans, &domain, 20 * MIB);
    ck_assert(great->planned == 120 * MIB && great->request.wanted == 120 * MIB);
    ck_assert_uint_eq(plan_under_way(&plans, &domain, false, 1000 * MS, MS), 20 * MIB);
    plan_trim(&plans, &domain, 30 * MIB); /* what was left does not come back */
    ck_assert_uint_eq(great->request.wanted, 120 * MIB);
    great->request.freed = 130 * MIB; /* what was begun is done */
    plan_trim(&plans, &domain, 0);
    ck_assert_uint_eq(plan_under_way(&plans, &domain, false, 1000 * MS, MS), 0);
    ck_assert(of_hand->request.wanted == 1024 * MIB && of_other->request.wanted == 1024 * MIB);
    of_hand->state = of_other->state = PLAN_FINISHED;
    end(great);

    great = begin(&domain, true, 16 * MIB);
    plan_trim(&plans, &domain, 0);
    ck_assert_uint_eq(great->request.wanted, 16 * MIB);
    end(great);
    domain.fruitless = false;
    great = begin(&domain, true, 17 * MIB);
    plan_trim(&plans, &domain, 0); /* nothing was begun: nobody was found to have nothing */
    ck_assert_uint_eq(great->request.wanted, 0);
    end(great);
    ck_assert(!domain.fruitless);
}
END_TEST

/* Who frees as fast as somebody could fill is in time, however long it takes. */
START_TEST(test_late) {
    struct plan_slice *slice = begin(&domain, true, 1024 * MIB);

    ck_assert_uint_eq(plan_under_way(&plans, &domain, false, 1007 * MS, 8 * MS), 1024 * MIB);
    ck_assert_uint_eq(plan_under_way(&plans, &domain, false, 1008 * MS, 8 * MS), 0);
    slice->request.freed = 512 * MIB; /* half a second, at 1 GiB a second */
    ck_assert_uint_eq(plan_under_way(&plans, &domain, false, 1507 * MS, 8 * MS), 512 * MIB);
    ck_assert_uint_eq(plan_under_way(&plans, &domain, false, 1508 * MS, 8 * MS), 0);
    end(slice);
}
END_TEST

/* That nothing is there has the next plan name others, who may have something; but not without end. */
START_TEST(test_noted) {
    for (unsigned i = 0; i < NOTED_MAX; i++) {
        finish(0, 0, 1);
        ck_assert(!domain.fruitless && domain.barren == 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        finish(0, 0, 1);
        ck_assert(domain.fruitless);
        domain.fruitless = false;
    }
    finish(0, 1, 0);
    finish(0, 0, 1);
    ck_assert(!domain.fruitless);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("plan");
    TCase *tcase = tcase_create("plan");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_fruitless);
    tcase_add_test(tcase, test_noted);
    tcase_add_test(tcase, test_trim);
    tcase_add_test(tcase, test_late);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
