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

/* ---- chunks that were pinned, a block at a time ---- */

/* A block on its way. A bit for each of its chunks. */
struct block {
    unsigned first, count; /* chunks of the span */
    int32_t *old;          /* when each was last pinned */
    uint32_t free;         /* those that can be dropped: not pinned now, not gone */
    uint32_t never;        /* of these, which were never pinned */
    uint32_t unused;       /* which were pinned, but not since the span's last fault; told if any has flags */
    int32_t oldest;        /* that any has; told if none has flags */
    struct span_block *found;
};

static void note_coldest(struct span_view *view, uint32_t tick) {
    view->coldest = tick < view->coldest ? tick : view->coldest;
}

static void add_below(const struct span_view *view, struct span_block *found, uint32_t chunks, uint32_t tick) {
    found->below |= tick < view->limit ? chunks : 0;
    found->older |= tick < view->limit_older ? chunks : 0;
}

static void note_oldest(struct span_view *view, const struct block *block) {
    if (block->oldest != OLD_NONE)
        note_coldest(view, age_add(old_tick(block->oldest), view->seen));
}

/* One mapping and a whole block, as nearly all are: all at once. */
static inline __attribute__((always_inline)) void read_mapping(const struct span_view *view,
                                                               const struct drp_pin_cell *cells, bool flagged,
                                                               struct block *block) {
    lanes_signed limit = lanes_all_signed(view->old_limit), older_limit = lanes_all_signed(view->old_limit_older);
    lanes_signed use = lanes_all_signed(view->old_use), oldest = lanes_all_signed(OLD_NONE);
    struct lanes_found free = {0}, never = {0}, unused = {0}, below = {0}, older = {0};
    int32_t *olds = block->old;

    LANES_EACH {
        lanes ticks, is_free = lanes_pins(cells + i, &ticks);
        lanes_signed old = lanes_old(ticks);

        lanes_store(olds + i, old);
        if (!flagged)
            oldest = lanes_max(old, oldest);
        lanes_find(&free, i, (lanes_signed)is_free);
        lanes_find(&never, i, ticks == 0);
        if (flagged)
            lanes_find(&unused, i, old > use);
        lanes_find(&below, i, old > limit);
        lanes_find(&older, i, old > older_limit);
    }
    block->free = free.bits;
    block->never = never.bits & free.bits;
    block->unused = unused.bits;
    block->found->below = below.bits;
    block->found->older = older.bits;
    block->oldest = lanes_most(oldest);
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
static void read_mappings(const struct span_view *view, const struct drp_pin_cell *const *cells, struct block *block) {
    struct lanes_found all_free = {0}, never = {0};

    for (unsigned i = 0; i < LANES_BLOCK; i += LANES) {
        unsigned left = i < block->count ? block->count - i : 0;
        lanes ticks, free = read_cells(cells[0] + block->first + i, left, &ticks);

        for (unsigned k = 1; k < view->n_pins; k++) {
            lanes others, later;

            free &= read_cells(cells[k] + block->first + i, left, &others);
            later = (lanes)(others > ticks);
            ticks = (later & others) | (~later & ticks);
        }
        lanes_store(block->old + i, lanes_old(ticks & free));
        lanes_find(&all_free, i, (lanes_signed)free);
        lanes_find(&never, i, ticks == 0);
    }
    block->free = all_free.bits;
    block->never = never.bits & all_free.bits;
    block->unused = lanes_older(block->old, view->old_use);
    block->found->below = lanes_older(block->old, view->old_limit);
    block->found->older = lanes_older(block->old, view->old_limit_older);
    block->oldest = lanes_oldest(block->old, UINT32_MAX);
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

static inline uint8_t flags_of(const struct flags *flags, unsigned chunk) {
    return (uint8_t)(flags->each.of[chunk / 16][chunk / 8 % 2] >> chunk % 8 * 8);
}

/* Those that are something else than their pins say, but no zeros: one by one, as they are few. */
static void judge_each(struct span_view *view, const struct flags *flags, uint32_t chunks, struct block *block) {
    for (; chunks != 0; chunks &= chunks - 1) {
        unsigned chunk = (unsigned)__builtin_ctz(chunks);
        uint8_t flag = flags_of(flags, chunk);
        uint32_t tick = age_add(old_tick(block->old[chunk]), view->seen);

        if (block->never >> chunk & 1)
            tick = view->within && span_is_far(flag) ? view->far : view->near;
        else if (flag & POLICY_CHUNK_EMPTY && block->unused >> chunk & 1)
            tick = age_add(view->use, view->seen);
        tick = age_missed(tick, view->now, flag);
        block->old[chunk] = old_of(tick);
        note_coldest(view, tick);
        add_below(view, block->found, UINT32_C(1) << chunk, tick);
    }
}

/* As span_unseen(). */
static void judge_never(struct span_view *view, uint32_t far, uint32_t others, struct span_block *found) {
    if (!view->within) {
        others |= far;
        far = 0;
    }
    if (others != 0)
        note_coldest(view, view->near);
    add_below(view, found, far, view->far);
    add_below(view, found, others, view->near);
    found->far = far;
    found->near = others;
    found->other |= far | others;
}

/*
 * A pin tells of the chunk itself, so who pins at all is judged by his pins; what came back and was not pinned since is zeros. What was missed, or
 * found empty, is younger than its pin: where even that is too young for the walk, and so for nearly all, it may count for the bound as it is.
 */
static void judge(struct span_view *view, const struct flags *flags, struct block *block) {
    uint32_t back = with_flag(flags, POLICY_CHUNK_BACK), empty = with_flag(flags, POLICY_CHUNK_EMPTY);
    uint32_t missed = with_flag(flags, 1 << POLICY_MISSED_SHIFT) | with_flag(flags, 2 << POLICY_MISSED_SHIFT);
    uint32_t gone = with_flag(flags, POLICY_CHUNK_GONE), far, pinned, zero, each;
    struct span_block *found = block->found;

    block->free &= ~gone;
    block->never &= ~gone;
    pinned = block->free & ~block->never;
    zero = back & pinned & ~empty & block->unused;
    forget_back(view->flags + block->first, back & pinned & ~zero, block->count);
    far = back & ~with_flag(flags, POLICY_CHUNK_NEAR) & block->never;
    each = (missed & block->never) | ((missed | (empty & block->unused)) & pinned & ~zero & found->below);
    found->below &= ~(gone | each);
    found->older &= ~(gone | each);
    found->zero = zero;
    found->other = zero | each;
    found->far = found->near = 0;
    judge_each(view, flags, each, block);
    if (zero != 0) {
        note_coldest(view, 0);
        add_below(view, found, zero, 0);
    } else if (pinned != 0) {
        block->oldest = lanes_oldest(block->old, pinned & ~each);
        note_oldest(view, block);
    }
    if (block->never == 0)
        return;
    if (far != 0) /* for every order */
        note_coldest(view, view->far);
    judge_never(view, far & ~missed, block->never & ~far & ~missed, found);
}

static inline __attribute__((always_inline)) void read_block(struct span_view *view,
                                                             const struct drp_pin_cell *const *cells,
                                                             struct block *block) {
    bool whole = view->n_pins == 1 && block->count == SPAN_BLOCK;
    struct flags flags;

    if (read_flags(&flags, view->flags + block->first, block->count) != 0) {
        if (whole)
            read_mapping(view, cells[0] + block->first, true, block);
        else
            read_mappings(view, cells, block);
        judge(view, &flags, block);
        return;
    }
    if (whole)
        read_mapping(view, cells[0] + block->first, false, block);
    else
        read_mappings(view, cells, block);
    note_oldest(view, block);
    block->found->other = block->found->zero = 0;
    if (block->never != 0)
        judge_never(view, 0, block->never, block->found);
}

/* Are all of a whole block, which lie below the limit, certainly the same? */
static bool block_alike(const struct span_block *found, const int32_t *old) {
    lanes_signed same = lanes_all_signed(-1);

    if (found->below != UINT32_MAX)
        return false;
    if (found->other != 0)
        return found->zero == UINT32_MAX ||
               (found->other == UINT32_MAX && (found->far == UINT32_MAX || found->near == UINT32_MAX));
    LANES_EACH same &= lanes_load(old + i) == old[0];
    return (same[0] & same[1] & same[2] & same[3]) != 0;
}

static inline __attribute__((always_inline)) void pins_to_ages(struct span_view *view,
                                                               const struct drp_pin_cell *const *cells) {
    uint32_t any = 0;

    view->youngest = view->now > view->seen ? old_of(view->now - view->seen) : INT32_MAX;
    view->old_limit = old_limit(view->limit, view->seen);
    view->old_limit_older = old_limit(view->limit_older, view->seen);
    view->old_use = old_limit(view->use, 0);
    for (unsigned i = 0; i < view->count; i += SPAN_BLOCK) {
        struct block block;

        block.first = i;
        block.old = view->old + i;
        block.found = &view->blocks[i / SPAN_BLOCK];
        block.count = view->count - i < SPAN_BLOCK ? view->count - i : SPAN_BLOCK;
        read_block(view, cells, &block);
        any |= block.free;
        block.found->alike = block_alike(block.found, block.old);
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
