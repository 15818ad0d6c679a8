/* SPDX-License-Identifier: MIT */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

/*
 * Many memories in one process. row: count, of those that are there already.
 */

#include "rows.h"

int crowd_new(struct task *task, struct sample *ret);   /* us to make one more */
int crowd_cycle(struct task *task, struct sample *ret); /* us to make one more, touch it, and free it */
int crowd_fault(struct task *task, struct sample *ret); /* us to touch one that was dropped */

#endif
