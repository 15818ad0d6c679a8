/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_SIM_MADE_H
#define DROPPABLE_SIM_MADE_H

/* Traces made by hand: each shows one thing that a policy can do right or wrong. */

#include "trace.h"

struct made {
    const char *name;
    const char *what;
    void (*make)(struct trace *trace);
};

enum {
    MADE_LOOP,
    MADE_ZIPF_SCANS,
    MADE_HOT_COLD,
    MADE_STREAM,
    MADE_SHARES,
    MADE_PHASES,
    MADE_PRIORITIES,
    MADE_IDLE,
    MADE_WHOLE,
    N_MADE,
};

extern const struct made made[N_MADE];

/* Fills an empty trace; the same one each time. */
void made_make(const struct made *of, struct trace *trace);

/* Region 0 of hot/cold: chunks below are hot, the others cold. */
#define MADE_HOT_CHUNKS 256
/* Regions of phases: 0 is of the first phase, 1 of the second. Of priorities: 0 is low and hot, 1 high and cold. Of shares: 0 has 100, 1 has 300. Of
 * idle: 0 is idle, 1 works. */

#endif
