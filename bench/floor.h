/* SPDX-License-Identifier: MIT */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

/* Rows: what the system calls cost of which the service's work is made. */

#include "sample.h"
#include "task.h"

enum floor_call {
    FLOOR_ZERO, /* UFFDIO_ZEROPAGE, row.size bytes a call; us per page */
    FLOOR_ARM, /* UFFDIO_REGISTER for missing pages of row.size bytes that were registered for write protection; us per call */
    FLOOR_DISARM,  /* the other way round */
    FLOOR_MINCORE, /* mincore(2) of 2 MiB, all resident; us per call */
    FLOOR_COUNT,   /* cachestat(2) of the same */
};

int floor_call(struct task *task, struct sample *ret);

#endif
