/* SPDX-License-Identifier: MIT */
#ifndef BENCH_LATENCY_H
#define BENCH_LATENCY_H

/*
 * What a fault on dropped memory takes: us, median. row: count, of other clients that fault as fast as they can.
 */

#include "rows.h"

int latency_fault(struct task *task, struct sample *ret);

#endif
