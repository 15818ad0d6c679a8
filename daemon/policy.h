/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_H
#define DROPPABLE_DAEMON_POLICY_H

/*
 * What to drop: pure. Structs in, a plan out; time is passed in; no system call, no allocation, no lock.
 *
 * The order is: priority (low first); within it the coldest by age bucket; within a bucket each region in proportion to what it has there,
 * divided by its share. Age is the time since the last pin or touch of the chunk; of one that never had any, since the last fault of its
 * span. What came back with its span and was not pinned since is the coldest; of memory that is never pinned all that is not beside the
 * chunk that was missed counts as a little older, in the order within its region, but not in how much each region gives. What was missed soon
 * after a drop counts as younger than it is: the chunk, and for a while its span and the neighbours (refault protection, protection.c). A chunk
 * that is pinned now is passed over (the dropper decides for good); so is one that is known to be gone.
 * Protected is not exempt: it comes after all else of its priority.
 * Of an opaque region, whose faults nobody sees, some chunks are looked at, and what is resident is taken to be as these are: see
 * policy-opaque.c.
 */

#include "pages.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_SPAN_SHIFT 21
/* What is known of a chunk. */
#define POLICY_CHUNK_GONE UINT8_C(1) /* dropped, and its span armed since: certainly nothing resident */
#define POLICY_CHUNK_BACK UINT8_C(2) /* its memory came back with that of its span: zeros, until it is pinned */
#define POLICY_CHUNK_EMPTY \
    UINT8_C(4)                       /* a drop found nothing, and nobody will tell when there is: counts as used then */
#define POLICY_CHUNK_NEAR UINT8_C(8) /* came back, and lies beside what was missed */
#define POLICY_CHUNK_MISSED UINT8_C(48) /* how often it was missed soon after a drop, up to POLICY_MISSED_MAX */
#define POLICY_MISSED_SHIFT 4
#define POLICY_MISSED_MAX 2
/* Beside: in the same 512 KiB. */
#define POLICY_NEAR_SHIFT 19
#define POLICY_SPAN_KNOWN UINT16_C(0x8000)
#define POLICY_SHARE_DEFAULT 100
#define POLICY_PROTECTION_MAX 4
/* Chunks of an opaque region that are looked at, and ages that are told apart. */
#define POLICY_SAMPLES 32
#define POLICY_PARTS 16
/* Of a part that is pinned: nobody knows when it was used last, nor whether it still is. */
#define POLICY_PINNED UINT32_MAX

/*
 * What policy knows of a span. Written by its session's threads under the session's lock but for coldest, read without one, so atomics.
 * 16 bytes: there is one for every span that was ever touched.
 */
struct policy_span {
    _Atomic uint32_t last_fault; /* tick */
    _Atomic uint32_t last_drop;  /* tick of the last drop for pressure; 0: none, or it was touched again since */
    _Atomic uint32_t coldest;    /* policy's own: no droppable chunk of it was used last before this tick */
    _Atomic uint16_t gone;       /* low 12 bits: its chunks with POLICY_CHUNK_GONE; high 4: level of protection */
    /*
     * POLICY_SPAN_KNOWN and the pages that are there, while only the pager can have brought any since; else how many there were when
     * it was last measured or can be expected; 0: nobody knows.
     */
    _Atomic uint16_t resident;
};

/* Chunks of an opaque region, looked at here and there. */
struct policy_sample {
    uint32_t n;                    /* that were looked at */
    uint32_t pinned;               /* of these, pinned now */
    uint32_t n_used;               /* of these, pinned or touched before */
    uint32_t used[POLICY_SAMPLES]; /* when that was, last */
};

struct policy_part {
    uint32_t last; /* tick from which its age counts; POLICY_PINNED */
    uint32_t pages;
};

/* One region as policy sees it. The arrays are the daemon's own tables and the client's pin page: any value may be in the latter. */
struct policy_region {
    uint32_t priority;               /* 1..3 */
    uint32_t share;                  /* 1..; who has more of it loses less within a bucket; 0: the default */
    uint32_t chunk_shift;            /* 12..21 */
    uint64_t first_chunk;            /* index of the region's first chunk in pins[] */
    uint64_t chunk_count;            /* chunks of the region */
    const _Atomic uint32_t *touched; /* indices of spans that ever had a fault, in order of first touch */
    uint32_t touched_count;
    struct policy_span *spans;    /* by span index */
    _Atomic uint8_t *chunk_flags; /* by chunk index of the region: POLICY_CHUNK_* */
    struct drp_pin_cell *pins[4]; /* each mapping's cells, NULL beyond n_pins; never written */
    /* By page of each mapping's pin page, as mincore(2) tells: reading one that no client wrote would fill it. NULL: all are there. */
    const uint8_t *pins_present[4];
    uint64_t pins_offset[4]; /* bytes from the start of the pin page to pins[i] */
    uint32_t n_pins;
    /* A region whose faults nobody sees: resident bytes are known, their places are not. Offered as a whole, in parts by age. */
    bool opaque;
    uint32_t n_parts;                       /* of an opaque region: policy_describe_opaque() */
    struct policy_part parts[POLICY_PARTS]; /* the oldest first */

    /* Of a plan: bytes in the buckets that are taken whole and in that which is taken in part, how many of the latter to take, and taken. */
    uint64_t below, at_threshold, quota, given;
    size_t victim; /* index of an opaque region's only one, if it is one of its */
};

struct policy_victim {
    uint32_t region;      /* index into the regions given */
    uint64_t first_chunk; /* of the region; whole span at most for regions that are not opaque */
    uint64_t chunk_count;
    uint64_t bytes; /* estimate of what it frees */
    uint64_t limit; /* stop after so many bytes (opaque regions); UINT64_MAX otherwise */
    uint32_t before; /* pass over what was pinned or touched at this tick or later (opaque regions); UINT32_MAX: over nothing */
};

/*
 * Of an opaque region: how old so many resident bytes are. stuck: of these, so many cannot be dropped, as pinned ones; unseen: a tick before which nothing that is there and was never pinned came; floor:
 * nothing else that is there was used last before this one, whatever its pins say.
 */
void policy_describe_opaque(struct policy_region *region, const struct policy_sample *sample, uint64_t resident,
                            uint64_t stuck, uint32_t unseen, uint32_t floor, uint32_t now);

/* Of what is pinned nothing is offered. */
void policy_leave_pinned(struct policy_region *region);

/* Ages in ticks to 64 buckets, two per power of two: 0, 1, 2, 3, 4-5, 6-7, 8-11, 12-15, ... Time that lies ahead counts as age 0. */
unsigned policy_age_bucket(uint32_t now, uint32_t last);

/*
 * Plans to free demand bytes. Neighbouring chunks of a span become one victim, spans never merge. Whole chunks are taken until their bytes
 * reach demand (so the plan exceeds it by less than a chunk), or max victims are used. Bytes of a span of which it is not known what is
 * resident count in full.
 * Cost: a look at each touched span, and at each chunk of the coldest ones only (see policy.c).
 * Returns the number of victims; *ret_bytes is what they hold at most.
 */
size_t policy_plan(struct policy_region *regions, size_t n_regions, uint64_t demand, uint32_t now,
                   struct policy_victim *victims, size_t max, uint64_t *ret_bytes);

/* ---- refault protection ---- */

/* A touch within so many ticks after a drop says that the drop was a mistake. */
#define POLICY_REFAULT_WINDOW 300

/* Something of the span was dropped for pressure. */
void policy_note_drop(struct policy_span *span, uint32_t now);
/*
 * A dropped chunk of the span was touched again; flags are the chunk's. Returns whether that was a mistake: then chunk and span are
 * protected, more than the last time, and the neighbours a little; if the touch came later their protection is worn down. The first touch
 * after a drop only. *ret_age: ticks since the drop.
 */
bool policy_note_refault(struct policy_span *spans, uint32_t n_spans, uint32_t span, _Atomic uint8_t *flags,
                         uint32_t now, uint32_t *ret_age);
/* Ticks by which pinned chunks of a span of this level count as younger: 4 s. */
uint32_t policy_protection_seen(unsigned level);
/* The same of chunks that are never pinned, whose use nobody sees: 40 s, 80 s, 160 s, 320 s. */
uint32_t policy_protection_unseen(unsigned level);

/* The flags of a chunk whose memory comes back since one of its span was missed; of that one none. */
static inline uint8_t policy_back_flags(uint64_t chunk, uint64_t missed, unsigned chunk_shift) {
    bool near = chunk << chunk_shift >> POLICY_NEAR_SHIFT == missed << chunk_shift >> POLICY_NEAR_SHIFT;

    if (chunk == missed)
        return 0;
    return near ? POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR : POLICY_CHUNK_BACK;
}

static inline unsigned policy_span_gone(const struct policy_span *span) {
    return atomic_load_explicit(&span->gone, memory_order_relaxed) & 0xfff;
}
static inline unsigned policy_span_level(const struct policy_span *span) {
    return atomic_load_explicit(&span->gone, memory_order_relaxed) >> 12;
}

#endif
