/* SPDX-License-Identifier: MIT */
/*
 * Which sockets a context tries, in which order, which of their errors it tells, and which path it keeps for the next connections. connect(2) is ours: it says what
 * a test wants, and nobody who may listen on this machine is asked.
 */

#include "client.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define SYSTEM "/run/droppabled.sock"
#define TRIES 4

static struct drp *d;
/* What connect(2) was asked for, and what it answers, one after the other. */
static char asked[TRIES][sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
static int answers[TRIES];
static unsigned n_asked;
static bool forks;

int connect(int fd, const struct sockaddr *address, socklen_t size) {
    const struct sockaddr_un *path = (const void *)address;
    int status;
    pid_t pid;

    (void)fd;
    (void)size;
    ck_assert_uint_lt(n_asked, TRIES);
    memcpy(asked[n_asked], path->sun_path, sizeof(path->sun_path));
    if (forks) {
        pid = fork();
        if (pid == 0) {
            bool same = strcmp(d->socket_path, asked[n_asked]) == 0;

            context_free(d);
            _exit(!same);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
    }
    errno = answers[n_asked++];
    return -1;
}

static void setup(void) {
    ck_assert_int_eq(unsetenv("DROPPABLE_SOCKET") | setenv("XDG_RUNTIME_DIR", "/a", 1), 0);
    for (unsigned i = 0; i < TRIES; i++)
        answers[i] = ENOENT;
    ck_assert_int_eq(context_new(&d, NULL), 0);
}

static void teardown(void) {
    context_free(d);
}

static int try(const char *path) {
    const struct drp_config config = {.struct_size = sizeof(config), .socket_path = path};

    n_asked = 0;
    return context_connect(d, &config);
}

/* The last one asked is kept. */
static void expect_asked(unsigned n, const char *first, const char *second) {
    ck_assert_uint_eq(n_asked, n);
    ck_assert_str_eq(asked[0], first);
    if (n > 1)
        ck_assert_str_eq(asked[1], second);
    ck_assert_str_eq(d->socket_path, n > 1 ? second : first);
}

START_TEST(order) {
    ck_assert_int_eq(try(NULL), -ENOENT);
    expect_asked(2, "/a/droppabled.sock", SYSTEM);
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "", 1), 0); /* none */
    ck_assert_int_eq(try(NULL), -ENOENT);
    expect_asked(2, "/a/droppabled.sock", SYSTEM);
    ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", "a", 1), 0);
    ck_assert_int_eq(try(NULL), -ENOENT);
    expect_asked(1, SYSTEM, NULL);
    ck_assert_int_eq(unsetenv("XDG_RUNTIME_DIR"), 0);
    ck_assert_int_eq(try(NULL), -ENOENT);
    expect_asked(1, SYSTEM, NULL);
}
END_TEST

/* What was named is meant: there is no other instead. The program's word counts before the user's. */
START_TEST(named) {
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "/user", 1), 0);
    ck_assert_int_eq(try(NULL), -ENOENT);
    expect_asked(1, "/user", NULL);
    ck_assert_int_eq(try("/program"), -ENOENT);
    expect_asked(1, "/program", NULL);
}
END_TEST

/* That there is nothing says less than why who is there cannot be had. */
START_TEST(errors) {
    answers[0] = EACCES;
    ck_assert_int_eq(try(NULL), -EACCES);
    expect_asked(2, "/a/droppabled.sock", SYSTEM);
    answers[1] = ECONNREFUSED;
    ck_assert_int_eq(try(NULL), -ECONNREFUSED);
    answers[0] = ENOENT;
    ck_assert_int_eq(try(NULL), -ECONNREFUSED);
    answers[0] = ENOTSOCK;
    answers[1] = ENOENT;
    ck_assert_int_eq(try(NULL), -EPROTO);
}
END_TEST

START_TEST(too_long) {
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1] = "/";

    memset(path + 1, 'x', sizeof(path) - 2);
    ck_assert_int_eq(try(path), -EINVAL);
    ck_assert_uint_eq(n_asked, 0);
    ck_assert_str_eq(d->socket_path, path); /* what is told is about this one */
}
END_TEST

/* A child that is forked while one is tried has that one, and frees it. */
START_TEST(forked) {
    forks = true;
    ck_assert_int_eq(try(NULL), -ENOENT);
    ck_assert_int_eq(try("/program"), -ENOENT);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("connect");
    TCase *tcase = tcase_create("connect");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, order);
    tcase_add_test(tcase, named);
    tcase_add_test(tcase, errors);
    tcase_add_test(tcase, too_long);
    tcase_add_test(tcase, forked);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
