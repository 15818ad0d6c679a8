/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_CRASH_KINDS_H
#define DROPPABLE_TESTS_CRASH_KINDS_H

/* Regions of the other kinds for crash-load.c: native ones, those that signal, and those that must not be swapped; as far as the system has them. */

#include <droppable/droppable.h>
#include <stdbool.h>
#include <stdint.h>

void crash_kinds_prepare(struct drp *d);
/* One round: uses one of them, the next in the next, and checks all that it may rely on. */
void crash_kinds_use(struct drp *d, uint64_t round);
/* Has a service those that stay? */
bool crash_kinds_are_connected(void);
void crash_kinds_finish(void);

#endif
