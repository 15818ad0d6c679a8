/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_SPAN_H
#define DROPPABLE_DAEMON_POLICY_SPAN_H

/*
 * A span as a walk over its chunks sees it: policy's alone. Chunks come as runs of the same age, since where nobody pins most of a span has
 * the same flags, and these are compared eight at a time. What is asked for each chunk is inline.
 */

#include "policy-age.h"
#include "policy.h"

/* Of a chunk that cannot be dropped, being pinned or gone. Later than any other. */
#define TICK_NONE UINT32_MAX
/* Chunks of a span at most. */
#define SPAN_CHUNKS (1u << (POLICY_SPAN_SHIFT - 12))
/* So many are looked at together. */
#define SPAN_BLOCK 32

/* What the pins of a block come to. A bit for each chunk. */
struct span_block {
    uint32_t below, older;    /* can be dropped, and was used last before the walk's limits */
    uint32_t other;           /* does not count from its last pin: */
    uint32_t zero, far, near; /* but from 0, or the span's tick of that name; in none of these: what old[] says is all */
    bool alike;               /* whether all are certainly the same */
};

struct span_view {
    struct policy_span *span;
    _Atomic uint8_t *flags; /* of its first chunk */
    unsigned n_pins;        /* mappings whose pins were read */
    bool read;              /* no cell is left out */
    unsigned base;          /* rank of the region's priority */
    uint32_t limit;         /* before this tick lies all that the walk is about */
    uint32_t limit_older;   /* the same without the highest rank of these */
    uint32_t now;
    uint32_t use;    /* tick of the last fault */
    uint32_t seen;   /* ticks by which its pinned chunks are protected */
    uint32_t near;   /* from which tick the age of those counts that are never pinned */
    uint32_t far;    /* the same of those that are not beside what was missed */
    bool within;     /* far counts */
    uint32_t bound;  /* none of its chunks was used last before this tick */
    uint64_t bytes;  /* of all that may be droppable */
    uint64_t weight; /* bytes of a chunk */
    uint64_t first_chunk;
    unsigned count;   /* chunks, 1..SPAN_CHUNKS */
    uint32_t coldest; /* what a walk makes of the bound, for every order */
    /* If pins were read: how old a pin is for age 0, and how old is too young for the walk's limits, and for the last fault. */
    int32_t youngest, old_limit, old_limit_older, old_use;
    struct span_block blocks[SPAN_CHUNKS / SPAN_BLOCK];
    int32_t old[SPAN_CHUNKS]; /* when each was pinned last */
};

/* What is needed to know of it as a whole; limit, base, now and within are there, and the region has that span. False: nothing is in it. */
static inline bool span_look(struct span_view *view, const struct policy_region *region, uint32_t index) {
    unsigned shift = POLICY_SPAN_SHIFT - region->chunk_shift, gone, left;
    uint64_t first = (uint64_t)index << shift, rest = region->chunk_count - first, known;
    struct policy_span *span = &region->spans[index];
    uint16_t resident = atomic_load_explicit(&span->resident, memory_order_relaxed);

    view->count = rest < UINT64_C(1) << shift ? (unsigned)rest : 1u << shift;
    gone = policy_span_gone(span);
    if (gone >= view->count)
        return false;
    left = view->count - gone;
    view->span = span;
    view->first_chunk = first;
    view->flags = region->chunk_flags + first;
    view->bound = atomic_load_explicit(&span->coldest, memory_order_relaxed);
    view->weight = UINT64_C(1) << region->chunk_shift;
    view->bytes = (uint64_t)left << region->chunk_shift;
    known = (uint64_t)(resident & (uint16_t)~POLICY_SPAN_KNOWN) << 12;
    if (resident > 0 && known < view->bytes) {
        if (known == 0)
            return false;
        view->weight = (known + left - 1) / left;
        view->bytes = known;
    }
    return true;
}

/* What a walk over its chunks needs beside that. *cells: how many cells of pin pages may still be read. */
void span_open(struct span_view *view, const struct policy_region *region, uint64_t *cells);

/* Flags of eight chunks, from an address that 8 divides. */
static inline uint64_t span_eight(const _Atomic uint8_t *flags) {
    return __atomic_load_n((const uint64_t *)(const void *)flags, __ATOMIC_RELAXED);
}

/* As many bytes as chunks: what is the same in all of them for chunks that were never pinned and have the same age. */
static inline uint64_t span_keys(uint64_t flags) {
    const uint64_t each = UINT64_C(0x0101010101010101);
    uint64_t far = (flags / POLICY_CHUNK_BACK) & ~(flags / POLICY_CHUNK_NEAR) & each;

    return (flags & each * (POLICY_CHUNK_GONE | POLICY_CHUNK_MISSED)) | far * POLICY_CHUNK_BACK;
}

/* How many chunks from the first one on have its age, if none was ever pinned. */
static inline unsigned span_alike(const _Atomic uint8_t *flags, unsigned count) {
    uint64_t each = UINT64_C(0x0101010101010101);
    uint64_t first = span_keys(atomic_load_explicit(flags, memory_order_relaxed));
    unsigned n = 0;

    while (n < count)
        if ((uintptr_t)(flags + n) % 8 == 0 && n + 8 <= count && span_keys(span_eight(flags + n)) == first * each)
            n += 8;
        else if (n == 0 || span_keys(atomic_load_explicit(flags + n, memory_order_relaxed)) == first)
            n++;
        else
            break;
    return n;
}

static inline bool span_is_far(uint8_t flags) {
    return (flags & (POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR)) == POLICY_CHUNK_BACK;
}

/* Of a chunk that was never pinned. Its far tick is never later than its near one, so a bound for every order. */
static inline uint32_t span_unseen(struct span_view *view, uint8_t flags) {
    uint32_t near = age_missed(view->near, view->now, flags), far;

    if (flags & POLICY_CHUNK_GONE)
        return TICK_NONE;
    far = span_is_far(flags) ? age_missed(view->far, view->now, flags) : near;
    view->coldest = far < view->coldest ? far : view->coldest;
    return view->within ? far : near;
}

/* From which tick the age of a chunk counts that is older than the walk's limit, if pins were read. */
static inline uint32_t span_tick(const struct span_view *view, unsigned chunk) {
    const struct span_block *block = &view->blocks[chunk / SPAN_BLOCK];
    unsigned bit = chunk % SPAN_BLOCK;

    if (!(block->other >> bit & 1))
        return age_add(old_tick(view->old[chunk]), view->seen);
    if (block->zero >> bit & 1)
        return 0;
    if (block->far >> bit & 1)
        return view->far;
    return block->near >> bit & 1 ? view->near : old_tick(view->old[chunk]);
}

/* The age itself; other: of its block. */
static inline uint32_t span_age(const struct span_view *view, unsigned chunk, uint32_t other) {
    int32_t old = view->old[chunk];
    uint32_t tick;

    if (!(other >> chunk % SPAN_BLOCK & 1))
        return old > view->youngest ? (uint32_t)old - (uint32_t)view->youngest : 0;
    tick = span_tick(view, chunk);
    return view->now > tick ? view->now - tick : 0;
}

/* The next chunk from the given one on that is older than the walk's limit; SPAN_CHUNKS or more: none. */
static inline unsigned span_next_below(const struct span_view *view, unsigned chunk) {
    for (unsigned word = chunk / SPAN_BLOCK; word * SPAN_BLOCK < view->count; word++) {
        uint32_t below = view->blocks[word].below;

        if (word == chunk / SPAN_BLOCK)
            below &= UINT32_MAX << chunk % SPAN_BLOCK;
        if (below != 0)
            return word * SPAN_BLOCK + (unsigned)__builtin_ctz(below);
    }
    return SPAN_CHUNKS;
}

/*
 * The next run from *chunk on that is older than the walk's limit: its first chunk, from which tick its age counts, and of how many at
 * least. False: there is none.
 */
static inline bool span_next(struct span_view *view, unsigned *chunk, unsigned *ret_count, uint32_t *ret_tick) {
    unsigned n;

    if (view->n_pins > 0) {
        *chunk = span_next_below(view, *chunk);
        if (*chunk >= view->count)
            return false;
        *ret_tick = span_tick(view, *chunk);
        *ret_count = view->blocks[*chunk / SPAN_BLOCK].alike ? SPAN_BLOCK - *chunk % SPAN_BLOCK : 1;
        return true;
    }
    for (; *chunk < view->count; *chunk += n) {
        *ret_tick = span_unseen(view, atomic_load_explicit(view->flags + *chunk, memory_order_relaxed));
        *ret_count = n = span_alike(view->flags + *chunk, view->count - *chunk);
        if (*ret_tick < view->limit)
            return true;
    }
    return false;
}

#endif
