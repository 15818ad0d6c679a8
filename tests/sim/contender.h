/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_SIM_CONTENDER_H
#define DROPPABLE_SIM_CONTENDER_H

/* Who chooses what to drop. All but ours know exactly what is resident, know no priorities, and drop single chunks. */

#include <stdint.h>

struct world;

struct contender {
    const char *name;
    /* Drops bytes of a domain with world_drop(), or all that there is. */
    void (*drop)(struct world *world, uint64_t domain, uint64_t bytes);
    unsigned runs; /* how many to take the mean of */
};

enum {
    CONTENDER_OURS,
    CONTENDER_LRU,        /* longest not accessed, as far as that can be seen without the program's help */
    CONTENDER_FIFO,       /* longest resident */
    CONTENDER_RANDOM,     /* any */
    CONTENDER_ALL_SEEING, /* longest not accessed, also by accesses that nobody can see: not one of the four */
    CONTENDER_MIN,        /* what is missed last, which only who knows the future can do (Belady's MIN) */
    N_CONTENDERS,
};

extern const struct contender contenders[N_CONTENDERS];

void contender_seed(uint64_t seed);

#endif
