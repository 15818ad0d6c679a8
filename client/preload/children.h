/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_CHILDREN_H
#define DROPPABLE_PRELOAD_CHILDREN_H

/* Children find zeros where the parent's droppable memory is, however they are made. */

#include <stdbool.h>
#include <sys/types.h>

/* Before the first mapping, and so before the client library registers its own. Negative errno. */
int children_init(void);
/*
 * Around fork(2) or clone(2) without the C library's fork(): true if the tables are whole, and stay so until the end, which the parent and the child
 * both tell.
 */
bool children_begin(void);
void children_end(bool begun, bool is_child);

#endif
