/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_FILTER_H
#define DROPPABLE_TESTS_FILTER_H

/* System calls that fail as on another kernel, or in a sandbox: for the calling process and its children, for good. */

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

/* In the place of an error: whoever has the listener answers (seccomp_unotify(2)). */
#define FILTER_ASK (-1)

/* Argument 1 to 6, of which the lower half is looked at; 0: no condition. */
struct filter_condition {
    unsigned argument;
    uint32_t mask, value;
};

/* Calls of that number that meet both conditions; the first rule that they meet decides. */
struct filter_rule {
    long call;
    int error; /* errno, or FILTER_ASK */
    struct filter_condition when[2];
};

/* mmap(2) with MAP_DROPPABLE | MAP_ANONYMOUS is EINVAL, as before Linux 6.11. */
extern const struct filter_rule filter_no_droppable;

/*
 * Takes no_new_privs along where it has to. ret_listener: where a rule says FILTER_ASK, else NULL; the descriptor is the caller's. 0 or negative
 * errno.
 */
int filter_install(const struct filter_rule *rules, size_t n, int *ret_listener);

#endif
