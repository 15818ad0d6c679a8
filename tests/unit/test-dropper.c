/* SPDX-License-Identifier: MIT */
/*
 * The dropper's queue, without its thread, as if a client held that up: what is asked for by hand is bounded, what pressure asks for is not refused for it, and
 * giving all of it up costs each job once.
 */

#include "dropper.h"

#include "home.h"
#include "kernel.h"
#include "manager.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNKS 16
#define FEW 10000
#define MANY (FEW * 10)
#define PATIENCE 5

static struct manager manager;
static struct home home;
static struct region regions[2];
static struct drop_job pool[DROPPER_POOL];
static unsigned finished;

static void setup(void) {
    home_init(&home, &manager, 1, NULL);
    home.dropper.worker.started = true;
    home.dropper.worker.tid = -1; /* nobody's priority is changed */
    home.dropper.pool = pool;
    for (size_t i = 0; i < 2; i++) {
        regions[i] = (struct region){.home = &home, .chunk_shift = 16, .chunk_count = CHUNKS, .data_sent = true};
        regions[i].n_mappings = 1;
    }
    finished = 0;
}

static void teardown(void) {
    struct drop_job *job;

    while ((job = TAILQ_FIRST(&home.dropper.jobs))) {
        TAILQ_REMOVE(&home.dropper.jobs, job, link);
        if (!job->pooled)
            free(job);
    }
    pthread_mutex_destroy(&home.lock);
}

static void request_done(struct drop_request *request) {
    (void)request;
    finished++;
}

static int submit(struct region *region, struct drop_request *request, bool pressure) {
    return dropper_submit(&home, region, 0, CHUNKS, pressure ? URGENCY_LIFE : URGENCY_NONE, request, pressure);
}

/* So many of one region wait, and that is its own matter. */
START_TEST(test_by_hand) {
    struct drop_request request;

    drop_request_init(&request, request_done, NULL);
    for (unsigned i = 0; i < DROPPER_BY_HAND + 1; i++)
        ck_assert_int_eq(submit(&regions[0], &request, false), 0);
    ck_assert_int_eq(submit(&regions[0], &request, false), -EBUSY);
    ck_assert_int_eq(submit(&regions[1], &request, false), 0);
    regions[0].n_mappings++; /* one more who may ask */
    ck_assert_int_eq(submit(&regions[0], &request, false), 0);
    ck_assert_int_eq(submit(&regions[0], &request, false), -EBUSY);
    ck_assert_uint_eq(request.pending, DROPPER_BY_HAND + 4);
    drop_request_seal(&request);
    ck_assert_uint_eq(finished, 0);
    dropper_give_up(&home);
    ck_assert_uint_eq(finished, 1);
    ck_assert_uint_eq(request.failed, (DROPPER_BY_HAND + 3) * CHUNKS * UINT64_C(65536));
    dropper_give_up(&home);
    ck_assert_uint_eq(finished, 1);
}
END_TEST

/* Behind all that was asked for by hand there is room for a whole plan, and it is hurried as soon as it is there. */
START_TEST(test_pressure) {
    struct drop_request by_hand, plan;

    drop_request_init(&by_hand, request_done, NULL);
    drop_request_init(&plan, request_done, NULL);
    plan.needed = true;
    while (submit(&regions[0], &by_hand, false) == 0)
        ;
    ck_assert(!dropper_hurry(&home, URGENCY_LIFE));
    ck_assert_int_eq(home.dropper.urgency_wanted, URGENCY_NONE);
    for (unsigned i = 0; i < DROPPER_POOL - 1; i++)
        ck_assert_int_eq(submit(&regions[0], &plan, true), 0);
    ck_assert_int_eq(dropper_submit_sweep(&home, &regions[0], 4096, UINT32_MAX, 1, URGENCY_LIFE, &plan), 0);
    ck_assert_int_eq(submit(&regions[0], &plan, true), -ENOMEM);
    ck_assert_int_eq(home.dropper.urgency_wanted, URGENCY_LIFE);
    ck_assert(dropper_hurry(&home, URGENCY_LIFE));
    dropper_give_up(&home);
    ck_assert(dropper_hurry(&home, URGENCY_LIFE)); /* they are there until the thread is through */
    ck_assert_uint_eq(by_hand.pending + plan.pending, 2);
    ck_assert(!TAILQ_FIRST(&home.dropper.jobs)->needed && TAILQ_LAST(&home.dropper.jobs, drop_jobs)->needed);
}
END_TEST

/* CPU time of giving up so many. */
static uint64_t give_up(unsigned n) {
    struct drop_request request;
    uint64_t began;

    drop_request_init(&request, request_done, NULL);
    regions[0].n_mappings = n;
    for (unsigned i = 0; i < n; i++)
        ck_assert_int_eq(submit(&regions[0], &request, false), 0);
    began = kernel_thread_time();
    dropper_give_up(&home);
    began = kernel_thread_time() - began;
    ck_assert_uint_eq(request.pending, 1);
    teardown();
    setup();
    return began;
}

/* In the loop, where everybody waits for it. */
START_TEST(test_giving_up) {
    uint64_t few = give_up(FEW), many = give_up(MANY);

    printf("giving up %d jobs: %llu us, %d: %llu us\n", FEW, (unsigned long long)few / 1000, MANY,
           (unsigned long long)many / 1000);
    ck_assert_uint_lt(many, few * (MANY / FEW) * PATIENCE);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dropper");
    TCase *tcase = tcase_create("dropper");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_by_hand);
    tcase_add_test(tcase, test_pressure);
    tcase_add_test(tcase, test_giving_up);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
