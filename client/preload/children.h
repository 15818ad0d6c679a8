/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_CHILDREN_H
#define DROPPABLE_PRELOAD_CHILDREN_H

/* Children find zeros where the parent's droppable memory is, however they are made. */

#include <stdbool.h>
#include <sys/types.h>

/* Before the first mapping, and so before the client library registers its own. Negative errno. */
int children_init(void);
/* fork(2) or clone(2) without the C library's fork(): makes the call, in the child as in the parent. -1 with errno. */
long children_make(long (*call)(void *data), void *data);
/* clone(3) of a child that has its own memory, and begins in a function: makes the call, which runs what it is given. -1 with errno. */
struct children_start {
    int (*run)(void *data);
    void *data;
    bool held; /* ours */
};
int children_clone(struct children_start *start, int (*call)(int (*run)(void *data), void *data, void *more),
                   void *more);

#endif
