/* SPDX-License-Identifier: MIT */
#ifndef BENCH_PACE_H
#define BENCH_PACE_H

/*
 * Faults one by one, at a steady rate, each timed by itself.
 */

#include "memory.h"
#include "sample.h"

#define PACE_PLACE (64 * MIB)

struct pace {
    uint64_t start_ns; /* of the first fault; 0: now */
    uint64_t interval_ns;
    unsigned faults;
};

/* Touches a page of each place and drops it all, so that from now on it is memory that was dropped. @return 0 or a negative errno */
int pace_prepare(struct memory *memory, struct task *task);

/* Touches one place after the other. Whenever none is left all are dropped, untimed. @us gets pace->faults times. */
int pace_faults(struct memory *memory, struct task *task, const struct pace *pace, double *us);

void pace_sleep_until(uint64_t ns);

#endif
