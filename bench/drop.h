/* SPDX-License-Identifier: MIT */
#ifndef BENCH_DROP_H
#define BENCH_DROP_H

/*
 * Dropping: GB/s. row: size of one drop (0: the largest of this scale), huge; variant: drop_load.
 */

#include "rows.h"

enum drop_load {
    DROP_QUIET,
    DROP_BUSY, /* another thread touches the memory all the time */
};

int drop_throughput(struct task *task, struct sample *ret);

#endif
