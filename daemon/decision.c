/* SPDX-License-Identifier: MIT */
/*
 * What was decided. A number's place in the ring is fixed, so that looking one up needs no search.
 */

#include "decision.h"

void histogram_add(struct histogram *histogram, uint64_t value) {
    unsigned bucket = value == 0 ? 0 : 64 - (unsigned)__builtin_clzll(value);

    if (bucket >= HISTOGRAM_BUCKETS)
        bucket = HISTOGRAM_BUCKETS - 1;
    atomic_fetch_add_explicit(&histogram->counts[bucket], 1, memory_order_relaxed);
}

const struct decision *decisions_get(const struct decisions *decisions, uint64_t number) {
    const struct decision *decision = &decisions->ring[number % DECISIONS_MAX];

    return number != 0 && decision->number == number ? decision : NULL;
}
