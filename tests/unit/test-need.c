/* SPDX-License-Identifier: MIT */
/*
 * From whom, when a domain is short: who is over a budget first, whichever budget, wherever others are over by more, and no more than that. The
 * clients' memory is their own, so that how much of it is resident is said here; jobs wait for threads that are not there.
 */

#define _GNU_SOURCE

#include "budget-world.h"
#include "need.h"
#include "suite.h"

#include <check.h>

static struct plan_slice *slices[NEED_SLICES];

static void setup(void) {
    world_setup();
    ck_assert_int_eq(plans_reserve(&manager.pressure.plans, 3), 0);
    for (unsigned i = 0; i < 3; i++) {
        regions[i].native.address = 4096;
        regions[i].chunk_shift = 16;
        regions[i].chunk_count = 1 << 20;
        atomic_store(&regions[i].native.valid, true);
    }
}

static void teardown(void) {
    plans_deinit(&manager.pressure.plans);
    world_teardown();
}

/* Two ticks, so that the older is the colder one. */
static void have(unsigned i, uint64_t bytes, uint32_t used) {
    atomic_store(&regions[i].native.resident, bytes);
    regions[i].hand.round_before = used;
}

static size_t need(struct domain *domain, enum demand_urgency urgency, uint64_t bytes) {
    struct plan_demand demand = {
        .domain = domain, .source = DEMAND_SAMPLER, .urgency = urgency, .bytes = bytes, .total = bytes};

    return need_hand_out(&manager.pressure.plans, &demand, 10000, slices, NEED_SLICES);
}

/* Bytes that are to be dropped of region i. */
static uint64_t gives(unsigned i) {
    const struct drop_job *job;
    uint64_t bytes = 0;

    TAILQ_FOREACH (job, &sessions[i].home.dropper.jobs, link)
        bytes += job->limit;
    return bytes;
}

/* A budget of 10 MiB, of 30: down to a 64th below. */
#define BUDGET (10 * MIB)
#define OVER (20 * MIB + 10 * MIB / 64)

/* Also between two looks; at a stall the next look says what else is needed. */
START_TEST(test_over_first) {
    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    ck_assert_uint_eq(need(&slice, URGENCY_STALL, MIB), 1); /* nobody has looked yet */
    ck_assert_uint_eq(gives(0), MIB);
    TAILQ_INIT(&sessions[0].home.dropper.jobs);
    sessions[0].home.dropper.n_pooled = 0;
    ck_assert_uint_eq(look().id, 101);
    ck_assert_uint_eq(need(&slice, URGENCY_STALL, 64 * MIB), 1);
    ck_assert(slices[0]->needed && slices[0]->over);
    ck_assert_uint_eq(gives(1), OVER);
    ck_assert_uint_eq(slices[0]->request.wanted, OVER);
    ck_assert_uint_eq(gives(0), 0);

    ck_assert_uint_eq(budget_over_in(&manager, &slice), 0); /* it is named already */
    ck_assert_uint_eq(need(&slice, URGENCY_STALL, 64 * MIB), 1);
    ck_assert_uint_eq(gives(0), 64 * MIB);
}
END_TEST

/* Before somebody is killed nobody waits for the dropper of who is over. */
START_TEST(test_life) {
    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    look();
    ck_assert_uint_eq(need(&slice, URGENCY_LIFE, 64 * MIB), 2);
    ck_assert_uint_eq(gives(1), OVER);
    ck_assert_uint_eq(gives(0), 64 * MIB - OVER);
    ck_assert_uint_eq(slices[0]->planned + slices[1]->planned, 64 * MIB);
}
END_TEST

/* What he has is pinned, as was found: what others have that is not comes before that. */
START_TEST(test_over_by_pins) {
    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    regions[1].hand.stayed = true;
    regions[1].hand.stayed_at = 10000;
    regions[1].hand.stuck = UINT64_MAX;
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    look();
    ck_assert_uint_eq(need(&slice, URGENCY_STALL, 64 * MIB), 1);
    ck_assert_uint_eq(gives(0), 64 * MIB);
    ck_assert_uint_eq(gives(1), 0);
}
END_TEST

/* What he is over by is enough; or there is room for one slice. */
START_TEST(test_one_slice) {
    struct plan_demand demand = {.domain = &machine, .urgency = URGENCY_LIFE, .bytes = 64 * MIB, .total = 64 * MIB};

    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    look();
    if (_i == 0) {
        ck_assert_uint_eq(need(&slice, URGENCY_LIFE, 8 * MIB), 1);
        ck_assert_uint_eq(gives(1), 8 * MIB);
    } else {
        ck_assert_uint_eq(need_hand_out(&manager.pressure.plans, &demand, 10000, slices, 1), 1);
        ck_assert_uint_eq(gives(1), OVER);
    }
    ck_assert_uint_eq(gives(0), 0);
}
END_TEST

/* Somebody else is over by more, elsewhere: that is no reason for the others here. */
START_TEST(test_over_elsewhere) {
    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    have(2, 600 * MIB, 1);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 22, LIMIT_BUDGET, BUDGET), 0);
    look();
    ck_assert_uint_eq(need(&slice, URGENCY_STALL, 64 * MIB), 1);
    ck_assert_uint_eq(gives(1), OVER);
    ck_assert_uint_eq(gives(0) + gives(2), 0);
}
END_TEST

/* Of several that are over each gives what he is over by, though one is colder than the other. */
START_TEST(test_no_more_than_over) {
    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20, LIMIT_BUDGET, 99 * MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    look();
    ck_assert_uint_eq(need(&machine, URGENCY_STALL, 64 * MIB), 1);
    ck_assert_uint_eq(gives(0), MIB + 99 * MIB / 64);
    ck_assert_uint_eq(need(&machine, URGENCY_STALL, 64 * MIB), 1);
    ck_assert_uint_eq(gives(0), MIB + 99 * MIB / 64);
    ck_assert_uint_eq(gives(1), OVER);
}
END_TEST

/* Of a group what its members have here, and once: whatever other groups they count for. */
START_TEST(test_groups) {
    have(0, 20 * MIB, 1);
    have(1, 30 * MIB, 9000);
    have(2, 100 * MIB, 1);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, ALICE, LIMIT_BUDGET, 30 * MIB), 0);
    look();
    ck_assert_uint_eq(budget_over_in(&manager, &cache), 20 * MIB + 30 * MIB / 64);
    ck_assert_uint_eq(budget_over_in(&manager, &machine), 20 * MIB + 30 * MIB / 64);
    ck_assert_uint_eq(budget_over(&regions[0]), 20 * MIB + 30 * MIB / 64);
    ck_assert_uint_eq(budget_over(&regions[2]), 0);
    budget_note_planned(&regions[0], 4 * MIB);
    ck_assert_uint_eq(budget_over(&regions[1]), 16 * MIB + 30 * MIB / 64);
    budget_note_planned(&regions[2], 4 * MIB); /* Bob's */
    ck_assert_uint_eq(budget_over(&regions[1]), 16 * MIB + 30 * MIB / 64);

    ck_assert_int_eq(set(ROOT, BUDGET_USER, ALICE, LIMIT_BUDGET, 0), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_BUDGET, BUDGET), 0); /* /jobs, with what is below it */
    look();
    ck_assert_uint_eq(budget_over_in(&manager, &cache), 40 * MIB + BUDGET / 64);
    ck_assert_uint_eq(budget_over(&regions[0]), 40 * MIB + BUDGET / 64);
    ck_assert_uint_eq(budget_over(&regions[2]), 0);
    sessions[2].former = &cache; /* something of it may be there still */
    ck_assert_uint_eq(budget_over(&regions[2]), 40 * MIB + BUDGET / 64);
    sessions[2].former = NULL;
}
END_TEST

/* One who is over and has nothing to give is no reason to wait: the others are asked, and what came of it says nothing of the domain. */
START_TEST(test_nothing_to_give) {
    have(0, 100 * MIB, 1);
    have(1, 30 * MIB, 9000);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 101, LIMIT_BUDGET, BUDGET), 0);
    look();
    atomic_store(&regions[1].native.valid, _i == 0);
    if (_i > 0) {
        ck_assert_uint_eq(need(&slice, URGENCY_STALL, 64 * MIB), 1);
        ck_assert_uint_eq(gives(0), 64 * MIB);
        return;
    }
    ck_assert_uint_eq(need(&slice, URGENCY_STALL, 64 * MIB), 1);
    dropper_give_up(&sessions[1].home);
    ck_assert(plan_finished(slices[0]) && !plan_progressed(slices[0]));
    plan_settle(&manager.pressure.plans);
    ck_assert(!slice.fruitless);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("need");
    TCase *tcase = tcase_create("need");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_over_first);
    tcase_add_test(tcase, test_life);
    tcase_add_test(tcase, test_over_by_pins);
    tcase_add_loop_test(tcase, test_one_slice, 0, 2);
    tcase_add_test(tcase, test_over_elsewhere);
    tcase_add_test(tcase, test_no_more_than_over);
    tcase_add_test(tcase, test_groups);
    tcase_add_loop_test(tcase, test_nothing_to_give, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
