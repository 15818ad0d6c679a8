/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_AGE_H
#define DROPPABLE_DAEMON_POLICY_AGE_H

/* From which tick the age of a chunk counts: policy.c's alone, inline since a plan asks for each of a million chunks. 0: it is the coldest. */

#include "policy.h"

/* What is never pinned, and came back though something else was missed, counts as so many ticks older. */
#define UNASKED_EXTRA 50
/* A chunk that was missed counts so many powers of two younger. */
#define MISSED_AGE_SHIFT 3

/* Protection is for what is used. 0: no use is known, nothing to protect. */
static inline uint32_t age_add(uint32_t tick, uint32_t extra) {
    if (tick == 0)
        return 0;
    return tick > UINT32_MAX - extra ? UINT32_MAX : tick + extra;
}

/* As if it had been used later, the more often it was missed. As time goes on that only becomes later. */
static inline uint32_t age_missed(uint32_t tick, uint32_t now, uint8_t flags) {
    unsigned missed = (flags & POLICY_CHUNK_MISSED) >> POLICY_MISSED_SHIFT;

    if (missed == 0 || tick == 0 || tick >= now)
        return tick;
    return now - ((now - tick) >> (missed * MISSED_AGE_SHIFT));
}

/*
 * Of a chunk that was never pinned; fault is the last one of its span. One fault brings back the memory of all that was dropped of the
 * span, of which only what lies beside it was wanted, as far as can be told.
 */
static inline uint32_t age_unseen(uint32_t fault, uint32_t now, uint8_t flags, uint32_t protection) {
    if ((flags & (POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR)) == POLICY_CHUNK_BACK)
        fault = fault > UNASKED_EXTRA ? fault - UNASKED_EXTRA : 0;
    else
        fault = age_add(fault, protection);
    return age_missed(fault, now, flags);
}

/* Of one that was: a pin tells of the chunk itself, so who pins at all is judged by his pins. What came back and was not pinned is zeros. */
static inline uint32_t age_seen(uint32_t pinned, uint32_t fault, uint32_t now, uint8_t flags, uint32_t protection) {
    if (flags & POLICY_CHUNK_EMPTY)
        pinned = pinned > fault ? pinned : fault;
    else if (flags & POLICY_CHUNK_BACK && pinned < fault)
        return 0;
    return age_missed(age_add(pinned, protection), now, flags);
}

/* How many chunks have the same flags as the first one. Looks at eight at a time where it can. */
static inline unsigned age_alike(const _Atomic uint8_t *flags, unsigned count) {
    uint8_t first = atomic_load_explicit(flags, memory_order_relaxed);
    uint64_t eight = first * UINT64_C(0x0101010101010101);
    unsigned n = 1;

    while (n < count) {
        const void *at = flags + n;

        if ((uintptr_t)at % 8 == 0 && n + 8 <= count && __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED) == eight)
            n += 8;
        else if (atomic_load_explicit(flags + n, memory_order_relaxed) == first)
            n++;
        else
            break;
    }
    return n;
}

#endif
