/* SPDX-License-Identifier: MIT */
/*
 * The controller: how much a look at a domain asks for, and when the next one comes. Time and figures are made up.
 */

#include "controller.h"
#include "policy-fixture.h"
#include "suite.h"

#include <check.h>

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define PSI_SOME DEMAND_EDGE(DEMAND_PSI_SOME)
#define PSI_FULL DEMAND_EDGE(DEMAND_PSI_FULL)

static struct controller controller;
static struct controller_view view;

static void start(void) {
    controller_init(&controller, 1024 * MIB);
    controller.limits.reserve = 64 * MIB;
    view = (struct controller_view){
        .now = 100 * SECOND, .headroom = UINT64_MAX, .headroom_high = UINT64_MAX, .credit = INT64_MAX};
}

static struct controller_answer look(void) {
    struct controller_answer answer = controller_look(&controller, &view);

    view.now += MS;
    view.edges = 0;
    view.wanted = 0;
    return answer;
}

/* ---- deficits ---- */

START_TEST(test_demand) {
    view.headroom = 64 * MIB;
    ck_assert_uint_eq(look().demand, 0);
    view.headroom = 64 * MIB - 1;
    ck_assert_uint_eq(look().demand, 1 + 4 * MIB); /* the margin has doubled once */
    view.headroom = 0;
    ck_assert_uint_eq(look().demand, 64 * MIB + 8 * MIB);
    ck_assert_uint_eq(look().source, DEMAND_SAMPLER);
    ck_assert_int_eq(look().urgency, URGENCY_LIFE);
    view.headroom = 32 * MIB;
    ck_assert_int_eq(look().urgency, URGENCY_STALL);
    view.edges = PSI_FULL | DEMAND_EDGE(DEMAND_LEVEL);
    ck_assert_int_eq(look().source, DEMAND_PSI_FULL);
}
END_TEST

/* What misses, between two bounds; and how much of what is under way is needed. */
START_TEST(test_slice) {
    static const uint64_t missing[][2] = {{1, 16}, {64, 64}, {80, 80}, {1024, 1024}, {8192, 1024}};
    struct controller_answer answer;

    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
        ck_assert_uint_eq(controller_slice(&controller.limits, missing[i][0] * MIB), missing[i][1] * MIB);
    controller.limits.reserve = 1024 * MIB;
    view.headroom = 1024 * MIB - 128 * MIB;
    answer = look();
    ck_assert_uint_eq(answer.missing, 128 * MIB);
    ck_assert_uint_eq(answer.demand, 132 * MIB);
    ck_assert_uint_eq(answer.total, 132 * MIB);
    ck_assert_uint_eq(answer.enough, 132 * MIB);
    view.headroom = UINT64_MAX;
    view.headroom_high = 0;
    ck_assert_uint_eq(look().missing, 256 * MIB);
    view.headroom_high = 257 * MIB;
    answer = look();
    ck_assert_uint_eq(answer.demand, 0);
    ck_assert_uint_eq(answer.enough, 7 * MIB);
    view.headroom_high = 300 * MIB;
    ck_assert_uint_eq(look().enough, 0);
}
END_TEST

/* It grows while looks find a deficit, and is small again when they did not for a while. */
START_TEST(test_margin) {
    view.headroom = 64 * MIB - 1;
    for (unsigned i = 1; i < 30; i++)
        ck_assert_uint_eq(look().demand, i < 3 ? 1 + (2 * MIB << i) : 16 * MIB);
    view.headroom = 65 * MIB;
    look();
    view.headroom = 64 * MIB - 1;
    ck_assert_uint_eq(look().demand, 16 * MIB);
    view.headroom = 65 * MIB;
    view.now += 200 * MS;
    look();
    view.headroom = 64 * MIB - 1;
    ck_assert_uint_eq(look().demand, 1 + 4 * MIB);
}
END_TEST

/* memory.high slows down and memory.max kills: a quarter of the reserve before the first, and never in haste. */
START_TEST(test_high) {
    struct controller_answer answer;

    view.headroom = 500 * MIB;
    view.headroom_high = 16 * MIB;
    ck_assert_uint_eq(look().demand, 0);
    view.headroom_high = 15 * MIB;
    answer = look();
    ck_assert_uint_eq(answer.demand, 5 * MIB);
    ck_assert_int_eq(answer.urgency, URGENCY_STALL);
    view.headroom_high = 0;
    ck_assert_int_eq(look().urgency, URGENCY_STALL);
    view.headroom = 30 * MIB;
    ck_assert_int_eq(look().urgency, URGENCY_LIFE);
}
END_TEST

/* Who waits at the gate gets room by promises that are taken back, once; then by a drop. */
START_TEST(test_waiters) {
    struct controller_answer answer;

    view.headroom = 100 * MIB;
    view.credit = -MIB;
    view.commitment = 37 * MIB;
    view.wanted = MIB;
    answer = look();
    ck_assert_uint_eq(answer.demand, 0);
    ck_assert_uint_eq(answer.take_back, 19 * MIB);
    view.wanted = MIB;
    answer = look();
    ck_assert_uint_eq(answer.demand, 4 * MIB);
    ck_assert_int_eq(answer.source, DEMAND_GATE);
    view.credit = 2 * MIB;
    view.wanted = MIB;
    ck_assert_uint_eq(look().demand, 0);
    view.credit = 0;
    view.commitment = 0;
    view.wanted = 100 * MIB;
    ck_assert_uint_eq(look().demand, 16 * MIB);
}
END_TEST

/* ---- stalls ---- */

START_TEST(test_stall_far_from_limit) {
    view.headroom = 300 * MIB;
    view.edges = PSI_SOME | PSI_FULL;
    ck_assert_uint_eq(look().share, 0);
    view.headroom = 200 * MIB;
    view.edges = PSI_SOME;
    ck_assert_uint_eq(look().share, 0);
    view.edges = PSI_FULL;
    ck_assert_uint_eq(look().share, 0);
    view.headroom = 120 * MIB;
    view.edges = PSI_FULL;
    ck_assert_uint_eq(look().share, 16);
    ck_assert_uint_eq(look().share, 0); /* one edge, one share */
}
END_TEST

/* More while it goes on, never more than a twentieth in all, and anew after a pause. */
START_TEST(test_stall_steps) {
    view.headroom = 100 * MIB;
    for (unsigned i = 0; i < 20; i++) {
        view.edges = PSI_SOME;
        ck_assert_uint_eq(look().share, i == 0 ? 16 : i == 1 ? 32 : i == 2 ? 3 : 0);
        view.now += 2 * SECOND;
    }
    view.now += 11 * SECOND;
    view.edges = PSI_SOME;
    ck_assert_uint_eq(look().share, 16);
    ck_assert_uint_le(51 * 20, CONTROLLER_SHARE_WHOLE);
}
END_TEST

/* What is wanted again was dropped for nothing. */
START_TEST(test_stall_backoff) {
    static const unsigned shares[] = {16, 8, 4, 2, 1, 1, 2};

    view.headroom = 100 * MIB;
    for (unsigned i = 0; i < 6; i++) {
        view.edges = PSI_SOME;
        ck_assert_uint_eq(look().share, shares[i]);
        view.now += SECOND;
        view.refaults += 10;
    }
    controller.refaults = view.refaults;
    view.edges = PSI_SOME;
    ck_assert_uint_eq(look().share, 4); /* a step up and half the backoff */
}
END_TEST

/* An edge, and what the policy plans for it of so much in chunks of a size. */
static uint64_t answer_edge(struct fixture *f, uint64_t droppable) {
    uint64_t chunk = UINT64_C(1) << f->region.chunk_shift, bytes = 0, due;
    struct controller_answer answer;

    view.edges = PSI_SOME;
    view.now += SECOND;
    answer = look();
    due = controller_due(&controller, answer.share, droppable, chunk);
    if (due > 0)
        policy_plan(&f->region, 1, due, NOW, victims, MAX_VICTIMS, &bytes);
    controller_note_given(&controller, bytes);
    return bytes;
}

/* Chunks are dropped whole, and never more than a twentieth, at one edge or in all; whether that is many small shares or a few. */
START_TEST(test_share_in_chunks) {
    static const struct {
        unsigned shift;
        uint64_t droppable, least;
        bool refaults;
    } rows[] = {
        {16, 32 * MIB, 3 * MIB / 2, false}, {16, 32 * MIB, 3 * MIB / 2, true},
        {21, 32 * MIB, 0, false},           {21, 32 * MIB, 0, true},
        {21, 128 * MIB, 6 * MIB, false},    {21, 128 * MIB, 6 * MIB, true},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture f;
        uint64_t sum = 0;

        start();
        view.headroom = 100 * MIB;
        fixture_init(&f, rows[i].shift, rows[i].droppable >> rows[i].shift, 0, 2);
        for (unsigned edge = 0; edge < 100; edge++) {
            sum += answer_edge(&f, rows[i].droppable);
            view.refaults += rows[i].refaults;
        }
        ck_assert_uint_le(sum, rows[i].droppable / 20);
        ck_assert_uint_ge(sum, rows[i].least);
        fixture_deinit(&f);
    }
}
END_TEST

/* A plan that took more than was due has the next edges wait, until it is calm. */
START_TEST(test_share_is_accounted) {
    ck_assert_uint_eq(controller_due(&controller, 16, 64 * MIB, 65536), MIB);
    controller_note_given(&controller, 3 * MIB);
    ck_assert_uint_eq(controller_due(&controller, 16, 64 * MIB, 65536), 0);
    ck_assert_uint_eq(controller_due(&controller, 16, 64 * MIB, 65536), 0);
    ck_assert_uint_eq(controller_due(&controller, 16, 64 * MIB, 65536), MIB);
    ck_assert_uint_eq(controller_due(&controller, 16, 64 * 1024 * MIB, 65536), 16 * MIB); /* a slice */
    view.headroom = 100 * MIB;
    view.edges = PSI_SOME;
    controller_note_given(&controller, 100 * MIB);
    ck_assert_uint_eq(look().share, 16);
    ck_assert_uint_eq(controller_due(&controller, 16, 64 * MIB, 65536), MIB);
}
END_TEST

/* ---- when ---- */

START_TEST(test_next_look) {
    view.headroom = 0;
    ck_assert_uint_eq(look().next, MS);
    view.headroom = 64 * MIB;
    ck_assert_uint_eq(look().next, MS);
    view.headroom = 128 * MIB;
    ck_assert_uint_eq(look().next, 62500000 + MS);
    view.commitment = 32 * (int64_t)MIB;
    ck_assert_uint_eq(look().next, 31250000 + MS);
    view.commitment = INT64_MAX;
    ck_assert_uint_eq(look().next, MS);
    view.commitment = -1;
    view.headroom = 100000 * MIB;
    ck_assert_uint_eq(look().next, SECOND);
    view.headroom_high = 16 * MIB + 512 * MIB;
    ck_assert_uint_eq(look().next, SECOND / 2 + MS);
    controller.limits.fill_rate = 0;
    ck_assert_uint_eq(look().next, SECOND);
}
END_TEST

/* Whatever is found, at a look that comes in time all of the reserve is there but what is taken in 1 ms. */
START_TEST(test_next_look_in_time) {
    const double rate = 1e10; /* so half of the reserve takes longer than the shortest look */

    controller.limits.fill_rate = (uint64_t)rate;
    for (uint64_t beyond = 1; beyond < 1024 * MIB; beyond += beyond / 8 + 1) {
        double taken;

        view.headroom = controller.limits.reserve + beyond;
        taken = (double)look().next / SECOND * rate;
        ck_assert_double_le(taken, (double)beyond + rate / 1000 + 1);
        ck_assert_double_ge(taken, (double)beyond + rate / 1000 - 16); /* and it is no sooner, for nothing */
    }
}
END_TEST

START_TEST(test_auto_reserve) {
    ck_assert_uint_eq(controller_auto_reserve(1000 * MIB, UINT64_MAX), 6 * MIB);
    ck_assert_uint_eq(controller_auto_reserve(100 * MIB, UINT64_MAX), 4 * MIB);
    ck_assert_uint_eq(controller_auto_reserve(100000 * MIB, 256 * MIB), 32 * MIB);
    ck_assert_uint_eq(controller_auto_reserve(0, 8 * MIB), MIB); /* of a small limit an eighth, not 4 MiB */
    ck_assert_uint_eq(controller_machine_reserve(1000 * MIB, 512 * MIB), 16 * MIB);
    ck_assert_uint_eq(controller_machine_reserve(1000 * MIB, 1024 * 1024 * MIB), 64 * MIB);
    ck_assert_uint_eq(controller_machine_reserve(50000 * MIB, 1024 * 1024 * MIB), 300 * MIB);
}
END_TEST

int main(void) {
    const TTest *tests[] = {test_demand,          test_slice,
                            test_margin,          test_high,
                            test_waiters,         test_stall_far_from_limit,
                            test_stall_steps,     test_stall_backoff,
                            test_share_in_chunks, test_share_is_accounted,
                            test_next_look,       test_next_look_in_time,
                            test_auto_reserve};
    Suite *suite = suite_create("controller");
    TCase *tcase = tcase_create("controller");

    tcase_add_checked_fixture(tcase, start, NULL);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
