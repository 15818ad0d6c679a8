/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_LANES_H
#define DROPPABLE_DAEMON_POLICY_LANES_H

/*
 * Four chunks at a time: policy's alone. The ages of chunks that were pinned, each by itself, cannot be told run by run, and chunk by chunk
 * a million take 10 ms. Vectors are the compiler's own, so every processor has them; conditions are masks, all ones where true. What is
 * found of a block's chunks is a number with a bit for each; only how masks become that is the processor's, as it else takes a third of the time.
 */

#include "pages.h"
#include "policy-age.h"

#define LANES 4
/* So many chunks make a block, of which a number has a bit for each. */
#define LANES_BLOCK 32
#define LANES_EACH _Pragma("GCC unroll 8") for (unsigned i = 0; i < LANES_BLOCK; i += LANES)

typedef uint32_t lanes __attribute__((vector_size(16)));
typedef int32_t lanes_signed __attribute__((vector_size(16)));
typedef short lanes_halves __attribute__((vector_size(16)));
typedef char lanes_chars __attribute__((vector_size(16)));
/* As it lies in memory: cells are aligned to their own size only, and what a client may write meanwhile is read once. */
typedef uint32_t lanes_shared __attribute__((vector_size(16), aligned(8), may_alias));

static inline lanes lanes_all(uint32_t value) {
    return (lanes){value, value, value, value};
}

static inline lanes_signed lanes_all_signed(int32_t value) {
    return (lanes_signed){value, value, value, value};
}

static inline lanes_signed lanes_load(const int32_t *from) {
    lanes_signed value;

    memcpy(&value, from, sizeof(value));
    return value;
}

static inline void lanes_store(int32_t *to, lanes_signed value) {
    memcpy(to, &value, sizeof(value));
}

static inline lanes_signed lanes_max(lanes_signed a, lanes_signed b) {
    lanes_signed mask = a > b;

    return (mask & a) | (~mask & b);
}

static inline int32_t lanes_most(lanes_signed a) {
    a = lanes_max(a, __builtin_shufflevector(a, a, 2, 3, 0, 1));
    return a[0] > a[1] ? a[0] : a[1];
}

/* A bit for each of a block's chunks from masks of four, found one after the other: so what is on its way fits into registers. */
struct lanes_found {
#ifdef __SSE2__
    lanes_signed first;
    lanes_halves half;
#endif
    uint32_t bits;
};

static inline void lanes_find(struct lanes_found *found, unsigned i, lanes_signed mask) {
#ifdef __SSE2__
    lanes_halves half;

    if (i / LANES % 2 == 0) {
        found->first = mask;
        return;
    }
    half = (lanes_halves)__builtin_ia32_packssdw128(found->first, mask);
    if (i / LANES % 4 == 1)
        found->half = half;
    else
        found->bits |= (uint32_t)__builtin_ia32_pmovmskb128((lanes_chars)__builtin_ia32_packsswb128(found->half, half))
                       << i / 16 * 16;
#else
    lanes each = (lanes)mask & (lanes){1, 2, 4, 8};

    found->bits |= (each[0] | each[1] | each[2] | each[3]) << i;
#endif
}

/* What is in memory, of a block's chunks a byte each. */
typedef uint64_t lanes_bytes __attribute__((vector_size(16), aligned(8), may_alias));

struct lanes_flags {
    lanes_bytes of[LANES_BLOCK / 16];
};

/* A bit for each chunk with this bit in its byte. */
static inline uint32_t lanes_flagged(const struct lanes_flags *flags, unsigned bit) {
    uint32_t bits = 0;

    _Pragma("GCC unroll 2") for (unsigned i = 0; i < LANES_BLOCK / 16; i++) {
#ifdef __SSE2__
        bits |= (uint32_t)__builtin_ia32_pmovmskb128((lanes_chars)(flags->of[i] << (7 - bit))) << 16 * i;
#else
        lanes_bytes each = (flags->of[i] >> bit & UINT64_C(0x0101010101010101)) * UINT64_C(0x0102040810204080) >> 56;

        bits |= (uint32_t)(each[0] | each[1] << 8) << 16 * i;
#endif
    }
    return bits;
}

/* The mask of four of a block's chunks, from i on. */
static inline lanes lanes_mask(uint32_t bits, unsigned i) {
    lanes each = (lanes){1, 2, 4, 8} << i;

    return (lanes)((lanes_all(bits) & each) == each);
}

/* Of four cells the last pins' ticks, 0 of those that are pinned now, and a mask of the others. */
static inline lanes lanes_pins(const struct drp_pin_cell *cells, lanes *ret_ticks) {
    const volatile lanes_shared *shared = (const volatile lanes_shared *)(const volatile void *)cells;
    lanes a = shared[0], b = shared[1];
    lanes free = (lanes)(__builtin_shufflevector(a, b, 0, 2, 4, 6) == 0);

    *ret_ticks = __builtin_shufflevector(a, b, 1, 3, 5, 7) & free;
    return free;
}

/* Of ticks; 0 is none. As old_of(). */
static inline lanes_signed lanes_old(lanes ticks) {
    return (lanes_signed)(UINT32_C(0x80000000) - ticks);
}

/* A bit for each chunk of a block that is older. */
static inline uint32_t lanes_older(const int32_t *old, int32_t limit) {
    struct lanes_found older = {0};

    LANES_EACH lanes_find(&older, i, lanes_load(old + i) > limit);
    return older.bits;
}

/* How old the oldest of these chunks is. */
static inline int32_t lanes_oldest(const int32_t *old, uint32_t bits) {
    lanes_signed oldest = lanes_all_signed(OLD_NONE), none = oldest;

    LANES_EACH {
        lanes_signed mask = (lanes_signed)lanes_mask(bits, i);

        oldest = lanes_max((lanes_load(old + i) & mask) | (none & ~mask), oldest);
    }
    return lanes_most(oldest);
}

#endif
