/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TOUCH_H
#define BENCH_TOUCH_H

/*
 * Touching memory that is not there: us per touched page. row: pattern, threads, huge.
 */

#include "rows.h"

int touch_first(struct task *task, struct sample *ret);  /* of fresh memory */
int touch_refill(struct task *task, struct sample *ret); /* after it was touched so, and dropped as a whole */

#endif
