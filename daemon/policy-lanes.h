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

/* The masks of a block's chunks, as bits. */
struct lanes_masks {
    lanes_signed of[LANES_BLOCK / LANES];
};

static inline uint32_t lanes_bits(const struct lanes_masks *masks) {
#ifdef __SSE2__
    typedef short halves __attribute__((vector_size(16)));
    typedef char bytes __attribute__((vector_size(16)));
    uint32_t bits = 0;

    _Pragma("GCC unroll 2") for (unsigned i = 0; i < 2; i++) {
        const lanes_signed *four = &masks->of[4 * i];
        halves a = (halves)__builtin_ia32_packssdw128(four[0], four[1]);
        halves b = (halves)__builtin_ia32_packssdw128(four[2], four[3]);

        bits |= (uint32_t)__builtin_ia32_pmovmskb128((bytes)__builtin_ia32_packsswb128(a, b)) << 16 * i;
    }
    return bits;
#else
    lanes all = {0}, bits = {1, 2, 4, 8};

    for (unsigned i = 0; i < LANES_BLOCK / LANES; i++, bits <<= LANES)
        all |= (lanes)masks->of[i] & bits;
    return all[0] | all[1] | all[2] | all[3];
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
        typedef char bytes __attribute__((vector_size(16)));

        bits |= (uint32_t)__builtin_ia32_pmovmskb128((bytes)(flags->of[i] << (7 - bit))) << 16 * i;
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

/* Of four cells the last pins' ticks, and a mask of those that are not pinned now. */
static inline lanes lanes_pins(const struct drp_pin_cell *cells, lanes *ret_ticks) {
    const volatile lanes_shared *shared = (const volatile lanes_shared *)(const volatile void *)cells;
    lanes a = shared[0], b = shared[1];

    *ret_ticks = __builtin_shufflevector(a, b, 1, 3, 5, 7);
    return (lanes)(__builtin_shufflevector(a, b, 0, 2, 4, 6) == 0);
}

/* Of free chunks; of others none. */
static inline lanes_signed lanes_old(lanes ticks, lanes free) {
    return (lanes_signed)(((0 - ticks) & free) ^ UINT32_C(0x80000000));
}

/* A bit for each chunk of a block that is older. */
static inline uint32_t lanes_older(const int32_t *old, int32_t limit) {
    lanes_signed than = lanes_all_signed(limit);
    struct lanes_masks older;

    LANES_EACH older.of[i / LANES] = lanes_load(old + i) > than;
    return lanes_bits(&older);
}

/* Writes a value for each chunk of a block that has a bit. */
static inline void lanes_put(int32_t *old, uint32_t bits, int32_t value) {
    if (bits == 0)
        return;
    LANES_EACH {
        lanes_signed before = lanes_load(old + i);

        lanes_store(old + i, before ^ ((before ^ value) & (lanes_signed)lanes_mask(bits, i)));
    }
}

/* As age_add(), of all that are not none. */
static inline void lanes_add(int32_t *old, uint32_t extra) {
    lanes_signed least = lanes_all_signed(old_of(AGE_TICK_MAX - extra));

    LANES_EACH lanes_store(old + i, lanes_max(lanes_load(old + i), least) - (int32_t)extra);
}

/* As age_missed(), of chunks that were missed: the bits of how often. */
static inline void lanes_missed(int32_t *old, uint32_t now, uint32_t once, uint32_t twice) {
    lanes_signed past = lanes_all_signed(old_limit(now, 0));
    lanes zero = lanes_all(now + UINT32_C(0x80000000));

    LANES_EACH {
        lanes_signed before = lanes_load(old + i);
        lanes counts = (lanes)(before > past), age = (lanes)before + zero;

        age ^= (age ^ age >> MISSED_AGE_SHIFT) & lanes_mask(once, i) & counts;
        if (twice != 0)
            age ^= (age ^ age >> 2 * MISSED_AGE_SHIFT) & lanes_mask(twice, i) & counts;
        lanes_store(old + i, (lanes_signed)(age - zero));
    }
}

#endif
