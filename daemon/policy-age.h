/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_AGE_H
#define DROPPABLE_DAEMON_POLICY_AGE_H

/* From which tick the age of a chunk counts: policy's alone, inline since a plan asks for each of a million chunks. 0: it is the coldest. */

#include "policy.h"

#include <string.h>

/* What is never pinned, and came back though something else was missed, counts as so many ticks older. */
#define UNASKED_EXTRA 50
/* A chunk that was missed counts so many powers of two younger. */
#define MISSED_AGE_SHIFT 3

/* The latest tick. What counts from later ones is as young. */
#define AGE_TICK_MAX (UINT32_MAX - 1)

/* Protection is for what is used. 0: no use is known, nothing to protect. */
static inline uint32_t age_add(uint32_t tick, uint32_t extra) {
    if (tick == 0)
        return 0;
    return tick > AGE_TICK_MAX - extra ? AGE_TICK_MAX : tick + extra;
}

/* As if it had been used later, the more often it was missed. As time goes on that only becomes later. */
static inline uint32_t age_missed(uint32_t tick, uint32_t now, uint8_t flags) {
    unsigned missed = (flags & POLICY_CHUNK_MISSED) >> POLICY_MISSED_SHIFT;

    if (missed == 0 || tick == 0 || tick >= now)
        return tick;
    return now - ((now - tick) >> (missed * MISSED_AGE_SHIFT));
}

/*
 * Of a chunk that was never pinned, but for its own misses; fault is the last one of its span. One fault brings back the memory of all that
 * was dropped of the span, of which only what lies beside it was wanted, as far as can be told; the rest is far.
 */
static inline uint32_t age_unseen(uint32_t fault, bool far, uint32_t protection) {
    if (far)
        return fault > UNASKED_EXTRA ? fault - UNASKED_EXTRA : 0;
    return age_add(fault, protection);
}

/*
 * A tick as how old it is, the larger the older, so that a signed comparison tells: processors have no other for vectors. OLD_NONE is tick 0,
 * which is none, and would be the youngest: callers care for it.
 */
#define OLD_NONE INT32_MIN

static inline int32_t old_of(uint32_t tick) {
    return (int32_t)(UINT32_C(0x80000000) - tick);
}

static inline uint32_t old_tick(int32_t old) {
    return UINT32_C(0x80000000) - (uint32_t)old;
}

/* What all that is older, and not none, lies before a limit, if a use counts as so much later (age_add()). */
static inline int32_t old_limit(uint32_t limit, uint32_t extra) {
    if (limit <= extra)
        return INT32_MAX;
    return limit > AGE_TICK_MAX ? OLD_NONE : old_of(limit - extra);
}

/* Two per power of two: a double's exponent and the first bit behind it. */
static inline unsigned age_bucket(uint32_t age) {
    double number = age;
    uint64_t bits;

    memcpy(&bits, &number, sizeof(bits));
    return age < 2 ? age : (unsigned)(bits >> 51) - 2 * 1023;
}

#endif
