/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_SWEEP_H
#define DROPPABLE_DAEMON_SWEEP_H

/*
 * Sweeps: drops from a region whose faults nobody sees, or which its tables are wrong about. What is there is found by going over the object, with a clock
 * hand: each sweep begins where the one before ended, and passes over what was used lately, until it has what was wanted or was
 * everywhere once. All under the lock of the region's home, but for what takes it itself.
 */

#include <stdbool.h>
#include <stdint.h>

struct drop_job;
struct drop_op;
struct region;

/* What one plan may look at in all its regions: cells of pin pages, and pages of them, 0.3 us each. */
#define SWEEP_CELLS 4096
#define SWEEP_LOOKS 256
struct sweep_budget {
    unsigned cells;
    unsigned looks;
    bool short_of; /* some region was left as it was known before */
};

/* The region is there from now on. */
void sweep_init(struct region *region, uint32_t now);
/* The job begins at the hand. before: what was pinned or touched at this tick or later stays; UINT32_MAX: nothing does. */
void sweep_begin(struct drop_job *job, uint32_t before, uint32_t now);
/* It has come to the end of the region: false: it was everywhere, or need not go on. Takes the lock itself. */
bool sweep_go_round(struct drop_job *job);
/* Takes the lock itself: goes on behind chunks that were used lately, as far as their pins may be read without a look at what is there. */
void sweep_skip(struct drop_job *job);
/* Is a chunk to stay, since it was used lately? */
bool sweep_passes_over(struct drop_job *job, uint64_t chunk);
/* The op's chunks from here on are not dropped, but are what comes next. */
void sweep_stop_at(struct drop_op *op, uint64_t chunk);
/* The job is over: moves the hand. */
void sweep_end(struct drop_job *job);
/* Of so many resident bytes: those that could not be dropped a moment ago, whatever was tried. */
uint64_t sweep_stuck(struct region *region, uint64_t resident, uint32_t now);

/*
 * Looks at some chunks of a region, others each time, unless that was done in this tick, or is done already in this round: there is a new one
 * when all regions have had their turn, so that who has many of them does not keep it from the others.
 */
void sweep_sample(struct region *region, uint64_t round, uint32_t now, struct sweep_budget *budget);

#endif
