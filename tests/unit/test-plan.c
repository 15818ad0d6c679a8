/* SPDX-License-Identifier: MIT */
/* What comes of slices that are finished: which of them say that a domain in need has nothing left to drop. */

#include "plan.h"

#include "domain.h"
#include "manager.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>

#define NOTED_MAX 64

static struct manager manager;
static struct plans plans;
static struct domain domain;

static void setup(void) {
    plans_init(&plans, &manager);
    domain.refs = 1;
    domain.barren = 1;
}

static void teardown(void) {
    plans_deinit(&plans);
}

/* One that the domain needed. */
static void finish(uint64_t freed, uint64_t cleared, uint64_t noted) {
    struct plan_slice *slice = calloc(1, sizeof(*slice));

    ck_assert_ptr_nonnull(slice);
    slice->domain = &domain;
    domain.refs++;
    slice->needed = true;
    slice->request.freed = freed;
    slice->request.cleared = cleared;
    slice->request.noted = noted;
    slice->state = PLAN_FINISHED;
    LIST_INSERT_HEAD(&plans.slices, slice, link);
    ck_assert_uint_eq(plan_settle(&plans), 0);
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
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
