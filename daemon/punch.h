/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PUNCH_H
#define DROPPABLE_DAEMON_PUNCH_H

/* The dropper's punches, and the chunks of an op. In the dropper's thread. */

#include "dropper.h"

#include <sys/types.h>

static inline uint64_t op_first_of_span(const struct drop_op *op) {
    return (uint64_t)op->span << (SPAN_SHIFT - op->region->chunk_shift);
}

static inline bool op_claimed(const struct drop_op *op, uint64_t chunk) {
    uint64_t i = chunk - op_first_of_span(op);

    return op->claimed[i / 64] >> (i % 64) & 1;
}

/* Where a chunk of a region is in its object. */
static inline off_t punch_offset(const struct region *region, uint64_t chunk) {
    return (off_t)(region->object_offset + (chunk << region->chunk_shift));
}

/* One hole, by a call that is announced already and may wait for whoever holds the object. 0, or negative errno. */
int punch_range(const struct region *region, off_t at, off_t size);
/* Punches the claimed chunks of every op; failures are left in op->error. */
void punch_batch(struct home *home, struct drop_op *ops, unsigned n);
/*
 * All that there is of it, as a region can be larger than memory. Before everybody else if somebody needs it, else as anybody, and others are let in
 * in between: there can be much. At last what is no data, as pages that somebody reserved and never wrote, or that came behind us.
 */
void punch_all(struct home *home, const struct region *region);

#endif
