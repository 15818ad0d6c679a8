/* SPDX-License-Identifier: MIT */
#ifndef BENCH_WATCH_H
#define BENCH_WATCH_H

/*
 * What it costs to watch a cgroup that is near its limit and does nothing: microseconds of CPU time a second, of the whole service.
 */

#include "rows.h"

int watch_near(struct task *task, struct sample *ret);

#endif
