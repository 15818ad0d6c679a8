/* SPDX-License-Identifier: MIT */
/* A span, its parts checked: nothing that a client or a broken table holds leads out of the region. */

#include "policy-span.h"

#include "policy-lanes.h"

#define SPAN_CAME_BACK ((unsigned)(POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR))

/* Has a client written to a page of these cells? */
static bool pins_written(const struct policy_region *region, unsigned i, uint64_t first, unsigned count) {
    uint64_t start = region->pins_offset[i] + (region->first_chunk + first) * sizeof(struct drp_pin_cell);
    uint64_t last = start + count * sizeof(struct drp_pin_cell) - 1;

    if (!region->pins_present[i])
        return true;
    for (uint64_t page = start >> 12; page <= last >> 12; page++)
        if (region->pins_present[i][page] & 1)
            return true;
    return false;
}

bool span_look(struct span_view *view, const struct policy_region *region, uint32_t index) {
    unsigned shift = POLICY_SPAN_SHIFT - region->chunk_shift, gone, left, level;
    uint64_t first = (uint64_t)index << shift, rest, known;
    uint16_t resident;

    rest = region->chunk_count - first;
    view->span = &region->spans[index];
    view->first_chunk = first;
    view->count = rest < UINT64_C(1) << shift ? (unsigned)rest : 1u << shift;
    gone = policy_span_gone(view->span);
    if (gone >= view->count)
        return false;
    view->flags = region->chunk_flags + first;
    left = view->count - gone;
    view->weight = UINT64_C(1) << region->chunk_shift;
    view->bytes = left * view->weight;
    resident = atomic_load_explicit(&view->span->resident, memory_order_relaxed);
    known = (uint64_t)(resident & (uint16_t)~POLICY_SPAN_KNOWN) << 12;
    if (resident > 0 && known < view->bytes) {
        if (known == 0)
            return false;
        view->weight = (known + left - 1) / left;
        view->bytes = known;
    }
    view->use = atomic_load_explicit(&view->span->last_fault, memory_order_relaxed);
    level = policy_span_level(view->span);
    view->seen = policy_protection_seen(level);
    view->near = age_unseen(view->use, false, policy_protection_unseen(level));
    view->far = age_unseen(view->use, true, 0);
    view->bound = atomic_load_explicit(&view->span->coldest, memory_order_relaxed);
    return true;
}

/* Ticks of four chunks' last pins; TICK_NONE: it is pinned now, or lies behind the span's last one. */
static inline lanes read_cells(const struct drp_pin_cell *cells, unsigned left) {
    lanes ticks = lanes_all(TICK_NONE);

    if (left >= LANES)
        return lanes_pins(cells);
    for (unsigned i = 0; i < left; i++) {
        uint32_t tick = atomic_load_explicit(&cells[i].tick, memory_order_relaxed);

        if (atomic_load_explicit(&cells[i].count, memory_order_relaxed) == 0)
            ticks[i] = tick < AGE_TICK_MAX ? tick : AGE_TICK_MAX;
    }
    return ticks;
}

static inline lanes read_flags(const _Atomic uint8_t *flags, unsigned left) {
    uint32_t four = 0;

    if (left >= LANES && (uintptr_t)flags % LANES == 0)
        return lanes_all(__atomic_load_n((const uint32_t *)(const void *)flags, __ATOMIC_RELAXED));
    for (unsigned i = 0; i < left && i < LANES; i++)
        four |= (uint32_t)atomic_load_explicit(flags + i, memory_order_relaxed) << 8 * i;
    return lanes_all(four);
}

/* These chunks of a block were pinned since they came back: they are not zeros any more. */
static void forget_back(_Atomic uint8_t *flags, uint32_t chunks, unsigned count) {
    for (unsigned i = 0; i < count && chunks >> i != 0; i += 8) {
        uint64_t eight = chunks >> i & 0xff;

        if (eight == 0)
            continue;
        if ((uintptr_t)flags % 8 == 0 && i + 8 <= count) {
            /* a byte for each bit */
            eight = eight * UINT64_C(0x0101010101010101) & UINT64_C(0x8040201008040201);
            eight = (eight + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 7 & UINT64_C(0x0101010101010101);
            __atomic_fetch_and((uint64_t *)(void *)(flags + i), ~(eight * SPAN_CAME_BACK), __ATOMIC_RELAXED);
            continue;
        }
        for (unsigned k = i; k < count && k < i + 8; k++)
            if (chunks >> k & 1)
                atomic_fetch_and_explicit(flags + k, (uint8_t)~SPAN_CAME_BACK, memory_order_relaxed);
    }
}

/* What all chunks of a span have in common. */
struct common {
    lanes near, far, use, limit, limit_older;
    uint32_t now, seen;
    bool within;
    bool missed; /* some chunks of the block were */
};

static inline lanes missed(const struct common *common, lanes ticks, lanes flags) {
    return common->missed ? lanes_missed(ticks, common->now, flags) : ticks;
}

/*
 * Of four chunks of which some have a flag. A pin tells of the chunk itself, so who pins at all is judged by his pins; what came back and was
 * not pinned since is zeros. Chunks that were never pinned as in span_unseen(). used: those that were pinned since they came back.
 */
static inline lanes flagged_ages(const struct common *common, lanes pinned, lanes flags, lanes *coldest, lanes *used) {
    lanes back = lanes_has(flags, POLICY_CHUNK_BACK), empty = lanes_has(flags, POLICY_CHUNK_EMPTY);
    lanes out = lanes_has(flags, POLICY_CHUNK_GONE) | (lanes)(pinned == TICK_NONE), never = (lanes)(pinned == 0);
    lanes unseen = missed(common, common->near, flags), far, seen, zeros;

    far = back & ~lanes_has(flags, POLICY_CHUNK_NEAR);
    far = lanes_pick(far, missed(common, common->far, flags), unseen);
    seen = lanes_pick(empty, lanes_max(pinned, common->use), pinned);
    zeros = back & ~empty & (lanes)(seen < common->use);
    seen = missed(common, lanes_add(seen, common->seen), flags) & ~zeros;
    *coldest = lanes_min(lanes_pick(never, far, seen) | out, *coldest);
    *used = back & ~never & ~out & ~zeros;
    return lanes_pick(never, common->within ? far : unseen, seen) | out;
}

static inline lanes plain_ages(const struct common *common, lanes pinned) {
    lanes ticks = lanes_pick((lanes)(pinned == 0), common->near, lanes_add(pinned, common->seen));

    return ticks | (lanes)(pinned == TICK_NONE);
}

/* A whole block that one mapping pins and of which no chunk has a flag, as nearly all are. */
static inline lanes plain_block(struct span_view *restrict view, const struct common *restrict common,
                                const struct drp_pin_cell *cells, unsigned first, lanes coldest) {
    lanes below = {0}, older = {0}, bits = {1, 2, 4, 8}, same = lanes_all(UINT32_MAX), start;

    start = lanes_all(plain_ages(common, lanes_pins(cells))[0]);
    for (unsigned i = 0; i < SPAN_BLOCK; i += LANES, bits <<= LANES) {
        lanes ticks = plain_ages(common, lanes_pins(cells + i));

        memcpy(&view->ticks[first + i], &ticks, sizeof(ticks));
        same &= (lanes)(ticks == start);
        coldest = lanes_min(ticks, coldest);
        below |= (lanes)(ticks < common->limit) & bits;
        older |= (lanes)(ticks < common->limit_older) & bits;
    }
    view->below[first / SPAN_BLOCK] = lanes_or(below);
    view->older[first / SPAN_BLOCK] = lanes_or(older);
    view->alike[first / SPAN_BLOCK] = lanes_and(same) != 0;
    return coldest;
}

/* Any other. cells: of the view's first chunk, by mapping. */
static inline lanes mixed_block(struct span_view *restrict view, const struct common *restrict common,
                                const struct drp_pin_cell *const *cells, unsigned first, lanes coldest) {
    unsigned count = view->count - first < SPAN_BLOCK ? view->count - first : SPAN_BLOCK, n_pins = view->n_pins;
    lanes below = {0}, older = {0}, used = {0}, bits = {1, 2, 4, 8}, same = lanes_all(UINT32_MAX), start = {0};
    _Atomic uint8_t *flags = view->flags + first;

    for (unsigned i = 0; i < count; i += LANES, bits <<= LANES) {
        lanes ticks = read_cells(cells[0] + first + i, count - i), here;

        for (unsigned k = 1; k < n_pins; k++)
            ticks = lanes_max(ticks, read_cells(cells[k] + first + i, count - i));
        ticks = flagged_ages(common, ticks, read_flags(flags + i, count - i), &coldest, &here);
        memcpy(&view->ticks[first + i], &ticks, sizeof(ticks));
        start = i == 0 ? lanes_all(ticks[0]) : start;
        same &= (lanes)(ticks == start);
        used |= here & bits;
        below |= (lanes)(ticks < common->limit) & bits;
        older |= (lanes)(ticks < common->limit_older) & bits;
    }
    forget_back(flags, lanes_or(used), count);
    view->below[first / SPAN_BLOCK] = lanes_or(below);
    view->older[first / SPAN_BLOCK] = lanes_or(older);
    view->alike[first / SPAN_BLOCK] = count == SPAN_BLOCK && lanes_and(same) != 0;
    return coldest;
}

/* Flags that any of a block has. */
static uint8_t block_flags(const _Atomic uint8_t *flags, unsigned count) {
    uint64_t any = 0;
    unsigned n = 0;

    if ((uintptr_t)flags % 8 == 0)
        for (; n + 8 <= count && n < SPAN_BLOCK; n += 8)
            any |= span_eight(flags + n);
    for (; n < count && n < SPAN_BLOCK; n++)
        any |= atomic_load_explicit(flags + n, memory_order_relaxed);
    any |= any >> 32;
    any |= any >> 16;
    return (uint8_t)(any | any >> 8);
}

static void pins_to_ages(struct span_view *view, const struct drp_pin_cell *const *cells) {
    struct common common = {
        .near = lanes_all(view->near),
        .far = lanes_all(view->far),
        .use = lanes_all(view->use),
        .limit = lanes_all(view->limit),
        .limit_older = lanes_all(view->limit_older),
        .now = view->now,
        .seen = view->seen,
        .within = view->within,
    };
    lanes coldest = lanes_all(view->coldest);

    for (unsigned i = 0; i < view->count; i += SPAN_BLOCK) {
        uint8_t flags = block_flags(view->flags + i, view->count - i);

        common.missed = flags & POLICY_CHUNK_MISSED;
        if (view->n_pins == 1 && view->count - i >= SPAN_BLOCK && flags == 0)
            coldest = plain_block(view, &common, cells[0] + i, i, coldest);
        else
            coldest = mixed_block(view, &common, cells, i, coldest);
    }
    view->coldest = lanes_least(coldest);
}

void span_open(struct span_view *view, const struct policy_region *region, uint64_t *cells) {
    const struct drp_pin_cell *pins[4];

    view->n_pins = 0;
    view->read = true;
    view->coldest = view->now; /* if all is pinned: not before it is old again */
    for (unsigned i = 0; i < region->n_pins && i < 4; i++) {
        if (!region->pins[i] || !pins_written(region, i, view->first_chunk, view->count))
            continue;
        if (*cells < view->count) {
            view->read = false;
            continue;
        }
        *cells -= view->count;
        pins[view->n_pins++] = region->pins[i] + region->first_chunk + view->first_chunk;
    }
    if (view->n_pins > 0)
        pins_to_ages(view, pins);
}
