/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_CHILD_H
#define DROPPABLE_TESTS_CHILD_H

/* A client process of a test: runs a function, talks with the test by single bytes, dies with it. */

#include "service.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define CHILD_WAIT_MS 60000 /* with patience */

struct child {
    pid_t pid;
    int socket; /* the other end of the child's */
};

/*
 * In a child that may be killed at any moment, with all that it makes: they write none of Check's messages any more. A part of one, from who was killed in the
 * middle of write(2), would make the test's own unreadable.
 */
void child_leave_check(void);
/* In a child: Check's macros belong to the test's own process. */
#define child_check(condition)                                                                                  \
    do                                                                                                          \
        if (!(condition)) {                                                                                     \
            fprintf(stderr, "%s:%d: in the child: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno)); \
            _exit(1);                                                                                           \
        }                                                                                                       \
    while (0)

/* Before any fork, under a sanitizer: until this process's other threads sleep. */
void child_let_threads_sleep(void);
/* Forks; run() gets its end of the pair and data, and the child ends with status 0 when it returns. */
void child_start(struct child *child, void (*run)(int socket, void *data), void *data);
/* Becomes an ordinary user for good (nobody); a process that is none of root stays what it is. In the child. */
void child_become_nobody(void);
/* Both sides. false: the other side is gone, or (hear) says nothing in CHILD_WAIT_MS. */
bool child_say(int socket, char word);
bool child_hear(int socket, char *ret_word);
/* Waits for the word; fails the test if it is another one. */
void child_expect(const struct child *child, char word);
/* Waits for the child's end and fails the test if its status is not 0. */
void child_end(struct child *child);
/* The same where it may have been killed, by the OOM killer: false. */
bool child_survived(struct child *child);
/* SIGKILL, and waits. */
void child_kill(struct child *child);

#endif
