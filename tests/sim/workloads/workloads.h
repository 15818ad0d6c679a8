/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_SIM_WORKLOADS_H
#define DROPPABLE_SIM_WORKLOADS_H

/* Programs that are worth recording. Each runs in a process of its own until the time is up. */

#include <stdint.h>

struct workload {
    const char *name;
    const char *what;
    /* Runs for so many ms. Accesses that nobody else sees go into the log, a line "ns first count" each. */
    void (*run)(uint64_t ms, int log);
};

#define N_WORKLOADS 5
extern const struct workload workloads[N_WORKLOADS];

/* Other random choices than those of seed 0. */
void workloads_seed(uint64_t seed);

#endif
