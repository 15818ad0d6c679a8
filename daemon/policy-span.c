/* SPDX-License-Identifier: MIT */
/* A span, its parts checked: nothing that a client or a broken table holds leads out of the region. */

#include "policy-span.h"

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

/* The tick of a chunk's last pin by any mapping; TICK_NONE: it is pinned now. No branch: what is read can be anything. */
static inline uint32_t last_pin(const struct drp_pin_cell *cell, uint32_t before) {
    uint32_t tick = atomic_load_explicit(&cell->tick, memory_order_relaxed);

    tick = tick < AGE_TICK_MAX ? tick : AGE_TICK_MAX;
    tick |= -(uint32_t)(atomic_load_explicit(&cell->count, memory_order_relaxed) != 0);
    return tick > before ? tick : before;
}

static uint32_t flagged(struct span_view *view, unsigned chunk, uint32_t pinned) {
    uint8_t flags = atomic_load_explicit(view->flags + chunk, memory_order_relaxed);
    uint32_t tick;

    if (flags & POLICY_CHUNK_GONE || pinned == TICK_NONE)
        return TICK_NONE;
    if (pinned == 0)
        return span_unseen(view, flags);
    tick = age_seen(pinned, view->use, view->now, flags, view->seen);
    if (flags & POLICY_CHUNK_BACK && tick > 0) /* not zeros any more */
        atomic_fetch_and_explicit(view->flags + chunk, (uint8_t) ~(POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR),
                                  memory_order_relaxed);
    return tick;
}

/* Chunks from..end, of which none has a flag; cells are those of the last mapping, ticks[] has what the others say. Returns the coldest. */
static uint32_t plain_ages(const struct span_view *view, const struct drp_pin_cell *cells, uint32_t *ticks,
                           unsigned from, unsigned end) {
    uint32_t coldest = TICK_NONE, near = view->near, seen = view->seen, others = view->n_pins > 1 ? TICK_NONE : 0;

    for (unsigned i = from; i < end; i++) {
        uint32_t pinned = last_pin(cells + i, ticks[i] & others);
        uint32_t never = -(uint32_t)(pinned == 0), now = -(uint32_t)(pinned == TICK_NONE);
        uint32_t tick = pinned < AGE_TICK_MAX - seen ? pinned + seen : AGE_TICK_MAX;

        ticks[i] = tick = (tick & ~never) | (near & never) | now;
        coldest = tick < coldest ? tick : coldest;
    }
    return coldest;
}

/* How many chunks from the first one on have no flag. */
static unsigned without_flags(const _Atomic uint8_t *flags, unsigned count) {
    unsigned n = 0;

    while (n < count)
        if ((uintptr_t)(flags + n) % 8 == 0 && n + 8 <= count && span_eight(flags + n) == 0)
            n += 8;
        else if (atomic_load_explicit(flags + n, memory_order_relaxed) == 0)
            n++;
        else
            break;
    return n;
}

static void pins_to_ages(struct span_view *view, const struct drp_pin_cell *cells) {
    for (unsigned i = 0, n; i < view->count; i += n) {
        uint32_t coldest;

        n = without_flags(view->flags + i, view->count - i);
        if (n > 0) {
            coldest = plain_ages(view, cells, view->ticks, i, i + n);
        } else {
            n = 1;
            coldest = view->ticks[i] = flagged(view, i, last_pin(cells + i, view->n_pins > 1 ? view->ticks[i] : 0));
        }
        view->coldest = coldest < view->coldest ? coldest : view->coldest;
    }
}

void span_open(struct span_view *view, const struct policy_region *region, uint64_t *cells) {
    const struct drp_pin_cell *last = NULL;

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
        for (unsigned k = 0; last && k < view->count; k++)
            view->ticks[k] = last_pin(last + k, view->n_pins > 1 ? view->ticks[k] : 0);
        last = region->pins[i] + region->first_chunk + view->first_chunk;
        view->n_pins++;
    }
    if (last)
        pins_to_ages(view, last);
}
