/* SPDX-License-Identifier: MIT */
/*
 * poll(2) of a program that has given descriptors up (RLIMIT_NOFILE), of few and of high numbers, and of those that somebody has closed.
 */

#include "client.h"
#include "service.h"
#include "suite.h"

#include <check.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define HIGH (FD_SETSIZE + 900)

static struct rlimit before;
static int ends[2];

static void setup(void) {
    int pair[2];

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    before.rlim_cur = before.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ends[0] = pair[0];
    ends[1] = dup2(pair[1], HIGH);
    ck_assert_int_eq(ends[1], HIGH);
    close(pair[1]);
}

static void teardown(void) {
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    close(ends[0]);
    close(ends[1]);
}

static void allow(rlim_t n) {
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){n, before.rlim_max}), 0);
}

static void check_all(void) {
    struct pollfd polls[] = {
        {.fd = ends[0], .events = POLLIN}, {.fd = ends[1], .events = POLLIN | POLLRDHUP}, {.fd = -1, .events = POLLIN}};
    char byte;

    ck_assert_int_eq(wait_poll(polls, 3, 0), 0);
    ck_assert_int_eq(wait_poll(polls, 3, 10), 0);
    ck_assert_int_eq(send(ends[0], "x", 1, 0), 1);
    ck_assert_int_eq(wait_poll(polls, 3, 10000), 1);
    ck_assert(polls[0].revents == 0 && polls[1].revents == POLLIN && polls[2].revents == 0);
    ck_assert_int_eq(recv(ends[1], &byte, 1, 0), 1);
    polls[1].events = POLLOUT;
    ck_assert_int_eq(wait_poll(polls, 3, 10000), 1);
    ck_assert_int_eq(polls[1].revents, POLLOUT);
    polls[1].fd = HIGH + 1;
    ck_assert_int_eq(wait_poll(polls, 3, 10000), 1);
    ck_assert(polls[0].revents == 0 && polls[1].revents == POLLNVAL);
    polls[1].events = POLLRDHUP;
    ck_assert_int_eq(wait_poll(polls, 3, 10000), 1);
    ck_assert(polls[0].revents == 0 && polls[1].revents == POLLNVAL);
    polls[1].fd = ends[1];
    ck_assert_int_eq(shutdown(ends[0], SHUT_WR), 0);
    ck_assert_int_eq(wait_poll(polls, 3, 10000), 1);
    ck_assert_int_eq(polls[1].revents & POLLRDHUP, POLLRDHUP);
}

START_TEST(test_poll) {
    check_all();
}
END_TEST

START_TEST(test_few) {
    allow(2);
    check_all();
}
END_TEST

START_TEST(test_none) {
    allow(0);
    check_all();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("wait");
    TCase *tcase = tcase_create("wait");
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max <= HIGH + 1)
        skip_all("the hard limit of descriptors (RLIMIT_NOFILE) leaves no high numbers");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_poll);
    tcase_add_test(tcase, test_few);
    tcase_add_test(tcase, test_none);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
