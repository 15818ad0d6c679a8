/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_POLICY_FIXTURE_H
#define DROPPABLE_TESTS_POLICY_FIXTURE_H

/* A region with tables of its own, as the daemon has them; and random numbers, always the same ones. */

#include "policy.h"

#include <check.h>
#include <stdlib.h>

#define MIB (UINT64_C(1) << 20)
#define MAX_VICTIMS 4096
#define NOW 100000

struct fixture {
    struct policy_region region;
    _Atomic uint32_t *touched;
    struct policy_span *spans;
    _Atomic uint8_t *flags;
    uint32_t n_spans;
};

static struct policy_victim victims[MAX_VICTIMS];

static inline void fixture_init(struct fixture *f, unsigned shift, uint64_t chunks, unsigned n_pins, uint32_t priority) {
    f->n_spans = (uint32_t)(((chunks << shift) + (UINT64_C(1) << POLICY_SPAN_SHIFT) - 1) >> POLICY_SPAN_SHIFT);
    f->touched = calloc(f->n_spans, sizeof(*f->touched));
    f->spans = calloc(f->n_spans, sizeof(*f->spans));
    f->flags = calloc(chunks, sizeof(*f->flags));
    f->region = (struct policy_region){
        .priority = priority,
        .chunk_shift = shift,
        .chunk_count = chunks,
        .touched = f->touched,
        .touched_count = f->n_spans,
        .spans = f->spans,
        .chunk_flags = f->flags,
        .n_pins = n_pins,
    };
    for (unsigned i = 0; i < n_pins; i++)
        f->region.pins[i] = calloc(chunks, sizeof(struct drp_pin_cell));
    for (uint32_t i = 0; i < f->n_spans; i++)
        f->touched[i] = i;
}

static inline void fixture_deinit(struct fixture *f) {
    for (unsigned i = 0; i < f->region.n_pins; i++)
        free(f->region.pins[i]);
    free((void *)f->touched);
    free(f->spans);
    free((void *)f->flags);
}

/* What a plan says of its victim number i. */
static inline void expect(size_t i, uint32_t region, uint64_t first_chunk, uint64_t chunk_count) {
    ck_assert_uint_eq(victims[i].region, region);
    ck_assert_uint_eq(victims[i].first_chunk, first_chunk);
    ck_assert_uint_eq(victims[i].chunk_count, chunk_count);
}

static inline size_t plan(struct policy_region *regions, size_t n, uint64_t demand, size_t max, uint64_t *ret_bytes) {
    return policy_plan(regions, n, demand, NOW, victims, max, ret_bytes);
}

static uint64_t random_state = 88172645463325252;

static inline uint32_t random_below(uint32_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 16) % n);
}

static inline uint32_t random_tick(void) {
    return NOW + 10 - random_below(1u << (1 + random_below(16)));
}

#endif
