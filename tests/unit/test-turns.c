/* SPDX-License-Identifier: MIT */
/* Whose turn it is: who floods takes a tenth of the loop, on however many connections, and nobody else waits for him. */

#include "suite.h"
#include "turns.h"

#include <check.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)
#define CHEAP 1
#define COSTLY 2
#define FLOODERS 8

static struct turns turns;
static struct turn a, b, other;
static uint64_t now;

static void setup(void) {
    now = 1000 * MS;
    ck_assert_int_eq(turns_join(&turns, &a, 1000, now), 0);
    ck_assert_int_eq(turns_join(&turns, &b, 1000, now), 0);
    ck_assert_int_eq(turns_join(&turns, &other, 1001, now), 0);
    ck_assert_ptr_eq(a.user, b.user);
    ck_assert_ptr_ne(a.user, other.user);
}

static void teardown(void) {
    turns_deinit(&turns);
}

/* Served, if it may be, in a round of its own. */
static enum turn_answer serve(struct turn *turn, uint16_t type, bool for_all, uint64_t cost) {
    enum turn_answer answer;

    turns.round++;
    answer = turns_ask(&turns, turn, type, for_all, now);
    if (answer == TURN_NOW) {
        now += cost;
        turns_charge(&turns, turn, cost, now);
    }
    return answer;
}

START_TEST(test_cheap_never_waits) {
    for (unsigned i = 0; i < 1000; i++)
        ck_assert_int_eq(serve(&a, CHEAP, i % 2, MS - 1), TURN_NOW);
}
END_TEST

START_TEST(test_rest) {
    ck_assert_int_eq(serve(&a, COSTLY, false, 5 * MS), TURN_NOW);
    ck_assert_int_eq(serve(&a, COSTLY, false, 5 * MS), TURN_LATER);
    ck_assert_uint_eq(a.at, now + 50 * MS);
    now += 50 * MS - 1;
    ck_assert_int_eq(serve(&a, COSTLY, false, 5 * MS), TURN_LATER);
    now++;
    ck_assert_int_eq(serve(&a, COSTLY, false, 5 * MS), TURN_NOW);
    ck_assert_int_eq(serve(&a, COSTLY, false, 5 * MS), TURN_LATER);
    now += 50 * MS;
    ck_assert_int_eq(serve(&a, COSTLY, false, MS / 2), TURN_NOW); /* it is no longer */
    ck_assert_int_eq(serve(&a, COSTLY, false, MS / 2), TURN_NOW);
}
END_TEST

START_TEST(test_rest_has_an_end) {
    serve(&a, COSTLY, false, 700 * MS);
    ck_assert_int_eq(serve(&a, COSTLY, false, MS), TURN_LATER);
    ck_assert_uint_eq(a.at, now + TURNS_REST_MOST_NS);
}
END_TEST

/* The others of the same user who ask for little, the flooder's own little requests, and other users. */
START_TEST(test_others_go_on) {
    ck_assert_int_eq(serve(&a, COSTLY, true, 5 * MS), TURN_NOW);
    ck_assert_int_eq(serve(&a, CHEAP, false, 1000), TURN_NOW);
    ck_assert_int_eq(serve(&b, CHEAP, false, 1000), TURN_NOW);
    ck_assert_int_eq(serve(&b, COSTLY, false, 1000), TURN_NOW); /* for him it is not */
    ck_assert_int_eq(serve(&other, COSTLY, true, 1000), TURN_NOW);
    ck_assert_int_eq(serve(&a, COSTLY, true, 5 * MS), TURN_LATER);
    ck_assert_int_eq(serve(&b, COSTLY, true, 5 * MS), TURN_LATER);
    ck_assert_uint_eq(b.at, a.at + 50 * MS); /* in line */
}
END_TEST

/* What a type costs where it is about all says nothing about what it costs for its own. */
START_TEST(test_own) {
    ck_assert_int_eq(serve(&a, COSTLY, true, 5 * MS), TURN_NOW);
    ck_assert_int_eq(serve(&a, COSTLY, false, 1000), TURN_NOW);
    ck_assert_int_eq(serve(&a, COSTLY, true, 5 * MS), TURN_LATER);
    now = a.at;
    ck_assert_int_eq(serve(&a, COSTLY, true, 5 * MS), TURN_NOW);
    ck_assert_int_eq(serve(&b, COSTLY, false, 5 * MS), TURN_NOW);
    ck_assert_int_eq(serve(&b, COSTLY, false, 5 * MS), TURN_LATER);
}
END_TEST

/* What was booked is given back: by who goes, and by who turns out to be cheap. */
START_TEST(test_bookings) {
    uint64_t until;

    serve(&a, COSTLY, true, 5 * MS);
    until = a.user->until;
    ck_assert_int_eq(serve(&b, COSTLY, true, 5 * MS), TURN_LATER);
    ck_assert_int_eq(serve(&b, COSTLY, true, 5 * MS), TURN_LATER); /* once */
    ck_assert_uint_eq(a.user->until, until + 50 * MS);
    turns_leave(&turns, &b, now);
    ck_assert_uint_eq(a.user->until, until);
    ck_assert_int_eq(serve(&a, COSTLY, true, 5 * MS), TURN_LATER);
    now = a.at;
    ck_assert_int_eq(serve(&a, COSTLY, true, 1), TURN_NOW);
    ck_assert_int_eq(serve(&a, COSTLY, true, 1), TURN_NOW);
}
END_TEST

/* Neither more connections nor new ones get more than a tenth; each gets its part of it. */
START_TEST(test_many) {
    struct turn flooders[FLOODERS];
    unsigned served[FLOODERS] = {0};
    uint64_t spent = 0, start = now;

    for (unsigned i = 0; i < FLOODERS; i++)
        turns_join(&turns, &flooders[i], 7, now);
    while (now < start + 20000 * MS) {
        for (unsigned i = 0; i < FLOODERS; i++)
            if (serve(&flooders[i], COSTLY, true, 4 * MS) == TURN_NOW) {
                served[i]++;
                spent += 4 * MS;
                if (_i) {
                    turns_leave(&turns, &flooders[i], now);
                    turns_join(&turns, &flooders[i], 7, now);
                }
            }
        now += MS / 4;
    }
    ck_assert_uint_le(spent, (now - start) / 10);
    ck_assert_uint_ge(spent, (now - start) / 12);
    for (unsigned i = 1; i < FLOODERS; i++)
        ck_assert_uint_le(served[i] > served[0] ? served[i] - served[0] : served[0] - served[i], 1);
}
END_TEST

/* A user with a lot of connections, all of them cheap: the others have their turn in between. */
START_TEST(test_round) {
    turns.round++;
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_int_eq(turns_ask(&turns, &a, CHEAP, false, now), TURN_NOW);
        turns_charge(&turns, &a, MS / 10, now);
    }
    ck_assert_int_eq(turns_ask(&turns, &b, CHEAP, false, now), TURN_NEXT_ROUND);
    ck_assert_int_eq(turns_ask(&turns, &other, CHEAP, false, now), TURN_NOW);
    turns.round++;
    ck_assert_int_eq(turns_ask(&turns, &b, CHEAP, false, now), TURN_NOW);
}
END_TEST

/* Who went is forgotten, but for what he owes. */
START_TEST(test_forgotten) {
    serve(&other, COSTLY, false, 5 * MS);
    turns_leave(&turns, &a, now);
    turns_leave(&turns, &b, now);
    turns_leave(&turns, &other, now);
    ck_assert_ptr_nonnull(LIST_FIRST(&turns.users));
    ck_assert_uint_eq(LIST_FIRST(&turns.users)->uid, 1001);
    ck_assert_ptr_null(LIST_NEXT(LIST_FIRST(&turns.users), link));
    turns_join(&turns, &other, 1001, now);
    ck_assert_int_eq(serve(&other, COSTLY, true, 5 * MS), TURN_LATER);
    turns_leave(&turns, &other, now + 50 * MS);
    ck_assert_ptr_null(LIST_FIRST(&turns.users));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("turns");
    TCase *tcase = tcase_create("turns");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_cheap_never_waits);
    tcase_add_test(tcase, test_rest);
    tcase_add_test(tcase, test_rest_has_an_end);
    tcase_add_test(tcase, test_others_go_on);
    tcase_add_test(tcase, test_own);
    tcase_add_test(tcase, test_bookings);
    tcase_add_loop_test(tcase, test_many, 0, 2);
    tcase_add_test(tcase, test_round);
    tcase_add_test(tcase, test_forgotten);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
