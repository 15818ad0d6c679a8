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
    unsigned shift = POLICY_SPAN_SHIFT - region->chunk_shift, gone, left;
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
    view->bound = atomic_load_explicit(&view->span->coldest, memory_order_relaxed);
    return true;
}

/* ---- chunks that were pinned, a block at a time ---- */

/* What reading a block's cells comes to. A bit for each of its chunks. */
struct block {
    unsigned first, count; /* chunks of the span */
    int32_t *old;          /* when each was last pinned */
    uint32_t free;         /* those that can be dropped: not pinned now, not gone */
    uint32_t never;        /* of these, which were never pinned */
    uint32_t zero;         /* of these, which are the coldest, at tick 0 */
    uint32_t extra;        /* what is still to be added to the tick of each */
    uint32_t below, older; /* the walk's limits */
};

static void note_coldest(struct span_view *view, uint32_t tick) {
    view->coldest = tick < view->coldest ? tick : view->coldest;
}

static void note_oldest(struct span_view *view, int32_t oldest, uint32_t extra) {
    if (oldest != OLD_NONE)
        note_coldest(view, age_add(old_tick(oldest), extra));
}

/* Chunks that all have this tick. */
static void add_alike(const struct span_view *view, struct block *block, uint32_t chunks, uint32_t tick) {
    block->below |= tick < view->limit ? chunks : 0;
    block->older |= tick < view->limit_older ? chunks : 0;
}

/* One mapping, a whole block, no flags, as nearly all are: all at once. */
static void read_plain(struct span_view *view, const struct drp_pin_cell *cells, struct block *block) {
    lanes_signed limit = lanes_all_signed(old_limit(view->limit, view->seen)), oldest = lanes_all_signed(OLD_NONE);
    lanes_signed limit_older = lanes_all_signed(old_limit(view->limit_older, view->seen));
    struct lanes_masks free, never, below, older;
    int32_t *olds = block->old;

    LANES_EACH {
        lanes ticks, is_free = lanes_pins(cells + i, &ticks);
        lanes_signed old = lanes_old(ticks, is_free);

        lanes_store(olds + i, old);
        oldest = lanes_max(old, oldest);
        free.of[i / LANES] = (lanes_signed)is_free;
        never.of[i / LANES] = ticks == 0;
        below.of[i / LANES] = old > limit;
        older.of[i / LANES] = old > limit_older;
    }
    block->free = lanes_bits(&free);
    block->never = lanes_bits(&never) & block->free;
    block->below = lanes_bits(&below);
    block->older = lanes_bits(&older);
    block->extra = view->seen;
    note_oldest(view, lanes_most(oldest), view->seen);
}

static void plain_block(struct span_view *view, const struct drp_pin_cell *cells, struct block *block) {
    read_plain(view, cells, block);
    if (block->never == 0)
        return;
    note_coldest(view, view->near);
    add_alike(view, block, block->never, view->near);
    if ((block->below & block->never) == 0)
        return;
    if (block->extra > 0)
        lanes_add(block->old, block->extra);
    block->extra = 0;
    lanes_put(block->old, block->never, old_of(view->near));
}

/* Of four chunks or less; those behind the span's last one are not free. */
static inline lanes read_cells(const struct drp_pin_cell *cells, unsigned left, lanes *ret_ticks) {
    lanes free = {0};

    if (left >= LANES)
        return lanes_pins(cells, ret_ticks);
    *ret_ticks = free;
    for (unsigned i = 0; i < left; i++) {
        (*ret_ticks)[i] = atomic_load_explicit(&cells[i].tick, memory_order_relaxed);
        free[i] = atomic_load_explicit(&cells[i].count, memory_order_relaxed) == 0 ? UINT32_MAX : 0;
    }
    return free;
}

/* Who pins last counts. cells: of the span's first chunk, by mapping. */
static void read_mappings(const struct drp_pin_cell *const *cells, unsigned n_pins, struct block *block) {
    struct lanes_masks all_free, never;

    for (unsigned i = 0; i < LANES_BLOCK; i += LANES) {
        unsigned left = i < block->count ? block->count - i : 0;
        lanes ticks, free = read_cells(cells[0] + block->first + i, left, &ticks);

        for (unsigned k = 1; k < n_pins; k++) {
            lanes others, later;

            free &= read_cells(cells[k] + block->first + i, left, &others);
            later = (lanes)(others > ticks);
            ticks = (later & others) | (~later & ticks);
        }
        lanes_store(block->old + i, lanes_old(ticks, free));
        all_free.of[i / LANES] = (lanes_signed)free;
        never.of[i / LANES] = ticks == 0;
    }
    block->free = lanes_bits(&all_free);
    block->never = lanes_bits(&never) & block->free;
}

/* The same of a whole block and one mapping. */
static void read_mapping(const struct drp_pin_cell *cells, struct block *block) {
    struct lanes_masks all_free, never;

    LANES_EACH {
        lanes ticks, free = lanes_pins(cells + i, &ticks);

        lanes_store(block->old + i, lanes_old(ticks, free));
        all_free.of[i / LANES] = (lanes_signed)free;
        never.of[i / LANES] = ticks == 0;
    }
    block->free = lanes_bits(&all_free);
    block->never = lanes_bits(&never) & block->free;
}

/* Flags of a block's chunks, and any that one has. */
struct flags {
    struct lanes_flags each; /* 0 behind the last one */
    uint8_t any;
};

/* Returns whether any has one. */
static inline uint8_t read_flags(struct flags *flags, const _Atomic uint8_t *from, unsigned count) {
    lanes_bytes any = {0};

    if (count == SPAN_BLOCK && (uintptr_t)from % 8 == 0) {
        for (unsigned i = 0; i < SPAN_BLOCK / 16; i++)
            flags->each.of[i] = (lanes_bytes){span_eight(from + 16 * i), span_eight(from + 16 * i + 8)};
    } else {
        memset(&flags->each, 0, sizeof(flags->each));
        for (unsigned i = 0; i < count; i++)
            flags->each.of[i / 16][i / 8 % 2] |= (uint64_t)atomic_load_explicit(from + i, memory_order_relaxed)
                                                 << i % 8 * 8;
    }
    for (unsigned i = 0; i < SPAN_BLOCK / 16; i++)
        any |= flags->each.of[i];
    any[0] |= any[1];
    any[0] |= any[0] >> 32;
    any[0] |= any[0] >> 16;
    flags->any = (uint8_t)(any[0] | any[0] >> 8);
    return flags->any;
}

static inline uint32_t with_flag(const struct flags *flags, uint8_t flag) {
    return flags->any & flag ? lanes_flagged(&flags->each, (unsigned)__builtin_ctz(flag)) : 0;
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

/* A drop found nothing in it, and nobody told when there was: as if it was used with its span, if it ever was. */
static void use_empty(const struct span_view *view, struct block *block, uint32_t empty) {
    for (; empty != 0 && view->use != 0; empty &= empty - 1) {
        int32_t *old = &block->old[__builtin_ctz(empty)];

        *old = *old > old_of(view->use) ? old_of(view->use) : *old;
    }
}

/*
 * A pin tells of the chunk itself, so who pins at all is judged by his pins; what came back and was not pinned since is zeros. Chunks that
 * were never pinned as in span_unseen().
 */
static void judge_pinned(struct span_view *view, struct block *block, const struct flags *flags) {
    uint32_t pinned = block->free & ~block->never, empty = with_flag(flags, POLICY_CHUNK_EMPTY);
    uint32_t back = with_flag(flags, POLICY_CHUNK_BACK);

    use_empty(view, block, empty & pinned);
    block->zero = back & pinned & ~empty;
    if (block->zero != 0)
        block->zero &= lanes_older(block->old, old_limit(view->use, 0));
    forget_back(view->flags + block->first, back & pinned & ~block->zero, block->count);
    if (view->seen > 0)
        lanes_add(block->old, view->seen);
}

static void judge_never(struct span_view *view, struct block *block, const struct flags *flags) {
    uint32_t far = with_flag(flags, POLICY_CHUNK_BACK) & ~with_flag(flags, POLICY_CHUNK_NEAR) & block->never;
    uint32_t near = block->never & ~far;

    if (!view->within && far != 0) {
        note_coldest(view, view->far); /* for every order */
        near |= far;
        far = 0;
    }
    block->zero |= view->near == 0 ? near : 0;
    block->zero |= view->far == 0 ? far : 0;
    lanes_put(block->old, near, old_of(view->near));
    lanes_put(block->old, far, old_of(view->far));
}

/* What is final is compared with the limits. */
static void judge_limits(struct span_view *view, struct block *block) {
    lanes_signed limit = lanes_all_signed(old_limit(view->limit, 0)), oldest = lanes_all_signed(OLD_NONE);
    lanes_signed limit_older = lanes_all_signed(old_limit(view->limit_older, 0));
    uint32_t others = block->free & ~block->zero;
    struct lanes_masks below, older;
    int32_t *olds = block->old;

    LANES_EACH {
        lanes_signed mask = (lanes_signed)lanes_mask(others, i), old = lanes_load(olds + i);

        old = (old & mask) | (~mask & OLD_NONE);
        lanes_store(olds + i, old);
        oldest = lanes_max(old, oldest);
        below.of[i / LANES] = old > limit;
        older.of[i / LANES] = old > limit_older;
    }
    block->below = lanes_bits(&below);
    block->older = lanes_bits(&older);
    note_oldest(view, lanes_most(oldest), 0);
}

static void mixed_block(struct span_view *view, const struct drp_pin_cell *const *cells, const struct flags *flags,
                        struct block *block) {
    uint32_t once = with_flag(flags, 1 << POLICY_MISSED_SHIFT), twice = with_flag(flags, 2 << POLICY_MISSED_SHIFT);

    if (view->n_pins == 1 && block->count == SPAN_BLOCK)
        read_mapping(cells[0] + block->first, block);
    else
        read_mappings(cells, view->n_pins, block);
    block->free &= ~with_flag(flags, POLICY_CHUNK_GONE);
    block->never &= block->free;
    judge_pinned(view, block, flags);
    judge_never(view, block, flags);
    if (once | twice)
        lanes_missed(block->old, view->now, once, twice);
    judge_limits(view, block);
    if (block->zero != 0)
        note_coldest(view, 0);
    add_alike(view, block, block->zero, 0);
}

/* Are all of a whole block, which lie below the limit, certainly the same? */
static bool block_alike(const struct block *block) {
    lanes_signed same = lanes_all_signed(-1);

    if (block->below != UINT32_MAX)
        return false;
    LANES_EACH same &= lanes_load(block->old + i) == block->old[0];
    return (same[0] & same[1] & same[2] & same[3]) != 0;
}

static void pins_to_ages(struct span_view *view, const struct drp_pin_cell *const *cells) {
    uint32_t any = 0;

    for (unsigned i = 0; i < view->count; i += SPAN_BLOCK) {
        unsigned count = view->count - i < SPAN_BLOCK ? view->count - i : SPAN_BLOCK;
        struct block block;
        struct flags flags;

        block.first = i;
        block.count = count;
        block.old = view->old + i;
        block.extra = 0;
        block.zero = 0;
        if (read_flags(&flags, view->flags + i, count) == 0 && view->n_pins == 1 && count == SPAN_BLOCK)
            plain_block(view, cells[0] + i, &block);
        else
            mixed_block(view, cells, &flags, &block);
        any |= block.free;
        view->below[i / SPAN_BLOCK] = block.below;
        view->older[i / SPAN_BLOCK] = block.older;
        view->extra[i / SPAN_BLOCK] = block.extra;
        view->alike[i / SPAN_BLOCK] = block_alike(&block);
    }
    if (any == 0) /* nothing before it is old again */
        view->coldest = view->now + 1;
}

void span_open(struct span_view *view, const struct policy_region *region, uint64_t *cells) {
    unsigned level = policy_span_level(view->span);
    const struct drp_pin_cell *pins[4];

    view->use = atomic_load_explicit(&view->span->last_fault, memory_order_relaxed);
    view->seen = policy_protection_seen(level);
    view->near = age_unseen(view->use, false, policy_protection_unseen(level));
    view->far = age_unseen(view->use, true, 0);
    view->n_pins = 0;
    view->read = true;
    view->coldest = view->now;
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
