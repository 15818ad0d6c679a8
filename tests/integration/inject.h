/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_INJECT_H
#define DROPPABLE_TESTS_INJECT_H

/* System calls of the service that fail, one at a time, without being made: its filter asks this process about each (SECCOMP_RET_USER_NOTIF). */

#include <stdbool.h>
#include <stddef.h>

#define INJECT_ERRORS 3

struct inject_kind {
    const char *name;
    int number;
    unsigned long request;     /* of an ioctl(2); 0: any */
    int errors[INJECT_ERRORS]; /* that a kernel may give; up to the first 0 */
};

extern const struct inject_kind inject_kinds[];
size_t inject_n_kinds(void);

/* The next service that is started asks this process, a thread of which answers it until it ends. false: this kernel has not that. */
bool inject_prepare(void);
/* From now on calls are counted anew; the Nth (1 is the first) of the kind fails. kind -1: none does. */
void inject_arm(int kind, unsigned nth, int error);
/* Nothing fails from now on. Has it been made to? */
bool inject_disarm(void);
/* Calls of the kind since the last inject_arm(). */
unsigned inject_count(size_t kind);

#endif
