/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_CHILDREN_H
#define DROPPABLE_PRELOAD_CHILDREN_H

/* Children find zeros where the parent's droppable memory is, however they are made. */

#include <sys/types.h>

/* Before the first mapping, and so before the client library registers its own. Negative errno. */
int children_init(void);
/* fork(2) or clone(2) without the C library's fork(): makes the call, in the child as in the parent. -1 with errno. */
long children_make(long (*call)(void *data), void *data);

#endif
