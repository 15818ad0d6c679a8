/* SPDX-License-Identifier: MIT */
#ifndef BENCH_REACTION_H
#define BENCH_REACTION_H

/*
 * How long a cgroup has less headroom than the service keeps free there: ms, the median of a few times.
 */

#include "rows.h"

int reaction_time(struct task *task, struct sample *ret);

#endif
