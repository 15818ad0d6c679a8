/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_LANES_H
#define DROPPABLE_DAEMON_POLICY_LANES_H

/*
 * Four chunks at a time: policy's alone. The ages of chunks that were pinned, each by itself, cannot be told run by run, and chunk by chunk
 * a million take 10 ms. Vectors are the compiler's own, so every processor has them; conditions are masks, all ones where true.
 */

#include "pages.h"
#include "policy-age.h"

#define LANES 4

typedef uint32_t lanes __attribute__((vector_size(16)));
/* As it lies in memory: cells are aligned to their own size only, and what a client may write meanwhile is read once. */
typedef uint32_t lanes_shared __attribute__((vector_size(16), aligned(8), may_alias));

static inline lanes lanes_all(uint32_t value) {
    return (lanes){value, value, value, value};
}

static inline lanes lanes_pick(lanes mask, lanes yes, lanes no) {
    return (mask & yes) | (~mask & no);
}

/* Flags of four chunks, as they lie in memory, in each lane; which of the chunks has a flag. */
static inline lanes lanes_has(lanes flags, uint32_t flag) {
    return (lanes)((flags & (lanes){flag, flag << 8, flag << 16, flag << 24}) != 0);
}

static inline lanes lanes_min(lanes a, lanes b) {
    return lanes_pick((lanes)(a < b), a, b);
}

static inline lanes lanes_max(lanes a, lanes b) {
    return lanes_pick((lanes)(a > b), a, b);
}

static inline uint32_t lanes_least(lanes a) {
    uint32_t least = a[0];

    for (unsigned i = 1; i < LANES; i++)
        least = a[i] < least ? a[i] : least;
    return least;
}

static inline uint32_t lanes_or(lanes a) {
    return a[0] | a[1] | a[2] | a[3];
}

static inline uint32_t lanes_and(lanes a) {
    return a[0] & a[1] & a[2] & a[3];
}

/* The ticks of four cells' last pins; UINT32_MAX: it is pinned now. */
static inline lanes lanes_pins(const struct drp_pin_cell *cells) {
    const volatile lanes_shared *shared = (const volatile lanes_shared *)(const volatile void *)cells;
    lanes a = shared[0], b = shared[1];
    lanes counts = __builtin_shufflevector(a, b, 0, 2, 4, 6);
    lanes ticks = __builtin_shufflevector(a, b, 1, 3, 5, 7);

    return lanes_min(ticks, lanes_all(AGE_TICK_MAX)) | (lanes)(counts != 0);
}

/* As age_add(), of ticks that are not 0. */
static inline lanes lanes_add(lanes ticks, uint32_t extra) {
    return lanes_min(ticks, lanes_all(AGE_TICK_MAX - extra)) + extra;
}

/* As age_missed(). */
static inline lanes lanes_missed(lanes ticks, uint32_t now, lanes flags) {
    lanes exempt = (lanes)(ticks == 0) | (lanes)(ticks >= now), age = now - ticks;

    age = lanes_pick(lanes_has(flags, 1 << POLICY_MISSED_SHIFT), age >> MISSED_AGE_SHIFT, age);
    age = lanes_pick(lanes_has(flags, 2 << POLICY_MISSED_SHIFT), age >> 2 * MISSED_AGE_SHIFT, age);
    return lanes_pick(exempt, ticks, now - age);
}

#endif
