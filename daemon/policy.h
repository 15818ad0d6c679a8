/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_H
#define DROPPABLE_DAEMON_POLICY_H

/*
 * What to drop: pure. Structs in, a plan out; time is passed in; no system call, no allocation, no lock.
 *
 * The order is: priority (low first), within it the coldest by age bucket, within a bucket the order of the regions given. Age is
 * the time since the last pin or the last fault of the chunk's span, whichever is younger. A chunk that is pinned now is
 * passed over (the dropper decides for good); so is one that is known to be gone.
 */

#include "pages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_SPAN_SHIFT 21
#define POLICY_CHUNK_GONE UINT8_C(1) /* dropped, and its span armed since: certainly nothing resident */

/* What policy knows of a span: written by the pager, read here without a lock, so atomics. */
struct policy_span {
    _Atomic uint32_t last_fault; /* tick */
};

/* One region as policy sees it. The arrays are the daemon's own tables and the client's pin page: any value may be in the latter. */
struct policy_region {
    uint32_t priority;               /* 1..3 */
    uint32_t chunk_shift;            /* 12..21 */
    uint64_t first_chunk;            /* index of the region's first chunk in pins[] */
    uint64_t chunk_count;            /* chunks of the region */
    const _Atomic uint32_t *touched; /* indices of spans that ever had a fault, in order of first touch */
    uint32_t touched_count;
    const struct policy_span *spans;    /* by span index */
    const _Atomic uint8_t *chunk_flags; /* by chunk index of the region: POLICY_CHUNK_* */
    struct drp_pin_cell *pins[4];       /* each mapping's cells, NULL beyond n_pins; never written */
    /* By page of each mapping's pin page, as mincore(2) tells: reading one that no client wrote would fill it. NULL: all are there. */
    const uint8_t *pins_present[4];
    uint64_t pins_offset[4]; /* bytes from the start of the pin page to pins[i] */
    uint32_t n_pins;
    /* A region whose faults nobody sees: resident bytes are known, their places are not. Offered as a whole, age by last_scan. */
    bool opaque;
    uint64_t resident;  /* bytes, of an opaque region */
    uint32_t last_scan; /* tick of the last drop in it, of an opaque region */
};

struct policy_victim {
    uint32_t region;      /* index into the regions given */
    uint64_t first_chunk; /* of the region; whole span at most for regions that are not opaque */
    uint64_t chunk_count;
    uint64_t limit; /* stop after so many bytes (opaque regions); UINT64_MAX otherwise */
};

/* Ages in ticks to 64 buckets, two per power of two: 0, 1, 2, 3, 4-5, 6-7, 8-11, 12-15, ... Time that lies ahead counts as age 0. */
unsigned policy_age_bucket(uint32_t now, uint32_t last);

/*
 * Plans to free demand bytes. Neighbouring chunks of a span become one victim, spans never merge. Whole chunks are taken until their bytes
 * reach demand (so the plan exceeds it by less than a chunk), or max victims are used.
 * Two passes over the touched chunks: a histogram by priority and age, then the harvest.
 * Returns the number of victims; *ret_bytes is what they hold at most.
 */
size_t policy_plan(const struct policy_region *regions, size_t n_regions, uint64_t demand, uint32_t now,
                   struct policy_victim *victims, size_t max, uint64_t *ret_bytes);

/* ---- the controller: how much, when to look again ---- */

struct policy_limits {
    uint64_t reserve;   /* bytes to keep free */
    uint64_t margin;    /* dropped beyond the reserve, so that one page less is no new demand */
    uint64_t slice;     /* at most so much before looking again */
    uint64_t fill_rate; /* bytes per second */
};

/* Bytes to free: reserve + margin - headroom if headroom is under the reserve, at most a slice; else 0. */
uint64_t policy_demand(const struct policy_limits *limits, uint64_t headroom);
/*
 * What to drop beyond the reserve after so many looks in a row under it: twice as much each time, at most a slice. Somebody who takes memory at 2
 * GB/s takes 2 MiB while a drop is handed over: the small margin alone would only just keep up with him.
 */
uint64_t policy_margin(uint64_t least, uint64_t slice, unsigned deficits);
/* Nanoseconds until the next look: (headroom - commitment - reserve) / fill rate, between 1 ms and 1 s. */
uint64_t policy_next_look(const struct policy_limits *limits, uint64_t headroom, uint64_t commitment);
/* The reserve that fits: fill rate x (wake-up + punch of a slice), at least 4 MiB, at most an eighth of the limit. */
uint64_t policy_auto_reserve(uint64_t fill_rate, uint64_t wakeup_ns, uint64_t punch_ns, uint64_t limit);
/* Share of droppable to free on a PSI edge of a domain without deficit: 1/64, only while headroom is under twice the reserve, at most a slice. */
uint64_t policy_stall_share(const struct policy_limits *limits, uint64_t headroom, uint64_t droppable);

#endif
