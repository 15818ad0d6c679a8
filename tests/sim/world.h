/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_SIM_WORLD_H
#define DROPPABLE_SIM_WORLD_H

/*
 * The memory of a trace's regions, as the daemon would keep it, with mock time.
 *
 * What the daemon cannot see is not shown to its tables: an access without a pin is seen if the page is missing and the span armed,
 * that is, if something in it was dropped since its last fault, or nothing ever touched. One fault brings back the memory of all that was
 * dropped of the span, though not the data; then the kernel fills. Who drops is the business of a contender (contender.h).
 */

#include "policy.h"
#include "trace.h"

#include <stdbool.h>
#include <stdint.h>

struct world_chunk {
    uint64_t seen;  /* us: last access that could be seen */
    uint64_t used;  /* us: last access */
    uint64_t since; /* us: since when it is resident */
    uint64_t next;  /* its next access, as a number in the order of all; UINT64_MAX: nobody will miss it */
    bool resident;
    bool valid; /* has data */
    bool lost;  /* had data when it was dropped, and nobody has missed it yet */
    bool back;  /* was resident when it was dropped: the next fault in the span brings it back */
};

struct world_region {
    const struct trace_region *shape;
    struct policy_region policy; /* as the daemon describes it */
    struct world_chunk *chunks;
    _Atomic uint32_t *touched;
    bool *was_touched; /* by span */
    bool *armed;       /* by span */
    uint64_t *faulted; /* by span: us of the last fault */
    bool *dropped;     /* by span: since its last refault */
    uint32_t n_spans;
    bool ended;
    uint64_t freed; /* bytes */
};

struct world {
    const struct trace *trace;
    struct world_region *regions;
    uint64_t us;
    uint64_t *next;    /* by access, in their order: the next one of the same chunk */
    uint64_t accesses; /* that were played */
    uint64_t resident; /* bytes */
    uint64_t freed, asked, unmet;
    uint64_t unmet_resident; /* bytes that were still there when a demand was not met, at most */
    uint64_t refaults, refaulted_bytes, span_refaults;
    uint64_t data;      /* bytes freed that had any */
    uint64_t cleared;   /* chunks that are known to be gone by a drop that found nothing */
    uint64_t plans;     /* by the daemon's policy */
    uint64_t plan_ns;   /* of all */
    uint64_t plan_most; /* ns of the longest */
};

struct contender;

/* Plays the whole trace; the world then has the figures. */
void world_run(struct world *world, const struct trace *trace, const struct contender *contender, uint64_t seed);
void world_deinit(struct world *world);

/* For contenders. */
uint32_t world_tick(const struct world *world);
bool world_is_in(const struct world *world, const struct world_region *region, uint64_t domain);
/* Drops a chunk. Returns the bytes that came free. */
uint64_t world_drop(struct world *world, struct world_region *region, uint64_t chunk);

#endif
