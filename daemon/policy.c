/* SPDX-License-Identifier: MIT */
/*
 * What to drop.
 *
 * Every chunk that could be dropped has a rank: priority x age bucket, 3 x 64, the lowest dropped first. The first
 * walk counts bytes by rank; that gives the threshold, the rank in which the demand is reached. The second walk takes
 * everything below the threshold and, of the threshold itself, what is still missing, in the order of the walk. So the
 * order is exact by rank without sorting or storing a million chunks.
 *
 * Victims are runs of neighbouring chunks within a span, so their number is not known from bytes. The first walk
 * counts it too, exactly, for a full harvest up to each rank: a chunk of rank r behind a neighbour of rank p starts a
 * run for all thresholds from r up to, but without, p. If the array given is too small for the plan, the highest rank
 * up to which a full harvest fits is taken in full and the next one until the array is full: the oldest win. (The two
 * parts are walks of their own, and neighbours of different parts don't merge.)
 *
 * Pin pages belong to clients, who may write anything at any time, also between two walks. Each cell is read once a
 * walk; any count but zero is a pin, a tick ahead of the clock is age 0, and sums are taken from what the harvest
 * itself sees. By that a client keeps its own chunks busy and does nothing else. The daemon's span numbers are checked
 * against the region.
 *
 * Ticks are compared as plain numbers: they wrap after 13.6 years of uptime, and all that follows is that everything
 * looks young until it was touched again.
 */

#include "policy.h"

#include <string.h>

#define N_PRIORITIES 3
#define N_BUCKETS 64
#define N_RANKS (N_PRIORITIES * N_BUCKETS)
#define RANK_NONE N_RANKS /* pinned or gone: never taken */

/* What the first walk counts. */
struct census {
    uint64_t bytes[N_RANKS];
    int64_t starts[N_RANKS + 1]; /* change of the number of runs from rank - 1 to rank */
};

/* What a harvest takes: ranks [from, upto) until below is used up, and rank upto until last is. */
struct harvest {
    unsigned from;
    unsigned upto;
    uint64_t below; /* bytes; what the first walk counted, so used up by the last chunk only, but for races */
    uint64_t last;  /* bytes */
    uint64_t bytes; /* taken */
    struct policy_victim *victims;
    size_t n;
    size_t max;
    bool full; /* the array was too small */
};

/* One span of a region, its parts checked and ready to walk. */
struct span_view {
    const _Atomic uint8_t *flags;       /* of its first chunk */
    const struct drp_pin_cell *pins[4]; /* of its first chunk */
    unsigned n_pins;
    unsigned base; /* rank of the region's priority */
    unsigned rank; /* of a chunk that was not used since the span's last fault */
    uint32_t last_fault;
    uint64_t first_chunk;
    unsigned count; /* chunks, 1..512 */
    uint64_t chunk_size;
};

unsigned policy_age_bucket(uint32_t now, uint32_t last) {
    uint32_t age = now > last ? now - last : 0;
    unsigned exponent;

    if (age < 2)
        return age;
    exponent = 31 - (unsigned)__builtin_clz(age);
    return 2 * exponent + ((age >> (exponent - 1)) & 1);
}

/* The oldest bucket has the lowest rank. */
static inline unsigned coldness(uint32_t now, uint32_t last) {
    return N_BUCKETS - 1 - policy_age_bucket(now, last);
}

static unsigned priority_base(const struct policy_region *region) {
    uint32_t priority = region->priority;

    if (priority < 1)
        priority = 1;
    if (priority > N_PRIORITIES)
        priority = N_PRIORITIES;
    return (priority - 1) * N_BUCKETS;
}

static bool region_usable(const struct policy_region *region) {
    return region->chunk_shift >= 12 && region->chunk_shift <= POLICY_SPAN_SHIFT && region->chunk_count > 0;
}

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

/* False if the region has no such span. */
static bool span_view(const struct policy_region *region, uint32_t span, uint32_t now, struct span_view *ret) {
    unsigned shift = POLICY_SPAN_SHIFT - region->chunk_shift;
    uint64_t first = (uint64_t)span << shift;
    uint64_t rest;

    if (first >= region->chunk_count)
        return false;
    rest = region->chunk_count - first;
    ret->flags = region->chunk_flags + first;
    ret->base = priority_base(region);
    ret->last_fault = atomic_load_explicit(&region->spans[span].last_fault, memory_order_relaxed);
    ret->rank = ret->base + coldness(now, ret->last_fault);
    ret->first_chunk = first;
    ret->count = rest < UINT64_C(1) << shift ? (unsigned)rest : 1u << shift;
    ret->chunk_size = UINT64_C(1) << region->chunk_shift;
    ret->n_pins = 0;
    for (unsigned i = 0; i < region->n_pins && i < 4; i++)
        if (region->pins[i] && pins_written(region, i, first, ret->count))
            ret->pins[ret->n_pins++] = region->pins[i] + region->first_chunk + first;
    return true;
}

static inline unsigned chunk_rank(const struct span_view *view, unsigned chunk, uint32_t now) {
    uint32_t last = view->last_fault;
    uint32_t count = 0;

    if (atomic_load_explicit(view->flags + chunk, memory_order_relaxed) & POLICY_CHUNK_GONE)
        return RANK_NONE;
    for (unsigned i = 0; i < view->n_pins; i++) {
        const struct drp_pin_cell *cell = view->pins[i] + chunk;
        uint32_t tick = atomic_load_explicit(&cell->tick, memory_order_relaxed);

        count |= atomic_load_explicit(&cell->count, memory_order_relaxed);
        if (tick > last)
            last = tick;
    }
    if (count)
        return RANK_NONE;
    return last == view->last_fault ? view->rank : view->base + coldness(now, last);
}

static unsigned opaque_rank(const struct policy_region *region, uint32_t now) {
    return priority_base(region) + coldness(now, region->last_scan);
}

/* ---- the first walk ---- */

static void census_span(struct census *census, const struct span_view *view, uint32_t now) {
    unsigned before = RANK_NONE;

    for (unsigned i = 0; i < view->count; i++) {
        unsigned rank = chunk_rank(view, i, now);

        if (rank < RANK_NONE)
            census->bytes[rank] += view->chunk_size;
        if (rank < before) {
            census->starts[rank]++;
            census->starts[before]--;
        }
        before = rank;
    }
}

static void census_take(struct census *census, const struct policy_region *regions, size_t n_regions, uint32_t now) {
    memset(census, 0, sizeof(*census));
    for (size_t i = 0; i < n_regions; i++) {
        const struct policy_region *region = &regions[i];
        struct span_view view;

        if (!region_usable(region))
            continue;
        if (region->opaque) {
            unsigned rank = opaque_rank(region, now);

            census->bytes[rank] += region->resident;
            census->starts[rank] += region->resident > 0;
            continue;
        }
        for (uint32_t t = 0; t < region->touched_count; t++)
            if (span_view(region, atomic_load_explicit(&region->touched[t], memory_order_relaxed), now, &view))
                census_span(census, &view, now);
    }
}

/* The rank in which demand is reached, the last one if there is less. */
static unsigned census_threshold(const struct census *census, uint64_t demand) {
    unsigned rank = 0;

    while (rank < N_RANKS - 1 && census->bytes[rank] < demand)
        demand -= census->bytes[rank++];
    return rank;
}

static uint64_t census_below(const struct census *census, unsigned end) {
    uint64_t sum = 0;

    for (unsigned rank = 0; rank < end; rank++)
        sum += census->bytes[rank];
    return sum;
}

/* The highest end <= limit for which a full harvest of the ranks [0, end) has at most max victims. */
static unsigned census_fits(const struct census *census, unsigned limit, size_t max) {
    unsigned fits = 0;
    int64_t runs = 0;

    for (unsigned rank = 0; rank < limit; rank++) {
        runs += census->starts[rank];
        if (runs >= 0 && (uint64_t)runs <= max)
            fits = rank + 1;
    }
    return fits;
}

/* ---- the second walk ---- */

static bool harvest_done(const struct harvest *harvest) {
    return harvest->full || (harvest->below == 0 && harvest->last == 0);
}

/* The bytes that are still wanted of a rank. */
static uint64_t harvest_wants(const struct harvest *harvest, unsigned rank) {
    if (rank < harvest->from || rank > harvest->upto)
        return 0;
    return rank < harvest->upto ? harvest->below : harvest->last;
}

static void harvest_account(struct harvest *harvest, unsigned rank, uint64_t bytes) {
    uint64_t *left = rank < harvest->upto ? &harvest->below : &harvest->last;

    harvest->bytes += bytes;
    *left -= bytes < *left ? bytes : *left;
}

static struct policy_victim *harvest_add(struct harvest *harvest, uint32_t region) {
    struct policy_victim *victim;

    if (harvest->n == harvest->max) {
        harvest->full = true;
        return NULL;
    }
    victim = &harvest->victims[harvest->n++];
    *victim = (struct policy_victim){.region = region, .limit = UINT64_MAX};
    return victim;
}

static void harvest_span(struct harvest *harvest, uint32_t region, const struct span_view *view, uint32_t now) {
    struct policy_victim *run = NULL;

    for (unsigned i = 0; i < view->count && !harvest_done(harvest); i++) {
        unsigned rank = chunk_rank(view, i, now);

        if (harvest_wants(harvest, rank) == 0) {
            run = NULL;
            continue;
        }
        if (!run) {
            run = harvest_add(harvest, region);
            if (!run)
                return;
            run->first_chunk = view->first_chunk + i;
        }
        run->chunk_count++;
        harvest_account(harvest, rank, view->chunk_size);
    }
}

static void harvest_opaque(struct harvest *harvest, uint32_t index, const struct policy_region *region, uint32_t now) {
    unsigned rank = opaque_rank(region, now);
    uint64_t wanted = harvest_wants(harvest, rank);
    struct policy_victim *victim;

    if (region->resident == 0 || wanted == 0)
        return;
    victim = harvest_add(harvest, index);
    if (!victim)
        return;
    victim->chunk_count = region->chunk_count;
    victim->limit = region->resident < wanted ? region->resident : wanted;
    harvest_account(harvest, rank, victim->limit);
}

static void harvest_walk(struct harvest *harvest, const struct policy_region *regions, size_t n_regions, uint32_t now) {
    for (size_t i = 0; i < n_regions && !harvest_done(harvest); i++) {
        const struct policy_region *region = &regions[i];
        struct span_view view;

        if (!region_usable(region))
            continue;
        if (region->opaque) {
            harvest_opaque(harvest, (uint32_t)i, region, now);
            continue;
        }
        for (uint32_t t = 0; t < region->touched_count && !harvest_done(harvest); t++)
            if (span_view(region, atomic_load_explicit(&region->touched[t], memory_order_relaxed), now, &view))
                harvest_span(harvest, (uint32_t)i, &view, now);
    }
}

size_t policy_plan(const struct policy_region *regions, size_t n_regions, uint64_t demand, uint32_t now,
                   struct policy_victim *victims, size_t max, uint64_t *ret_bytes) {
    struct harvest harvest = {.victims = victims, .max = max};
    struct census census;
    unsigned threshold;
    unsigned fits;
    uint64_t last;

    *ret_bytes = 0;
    if (demand == 0 || max == 0)
        return 0;

    census_take(&census, regions, n_regions, now);
    threshold = census_threshold(&census, demand);
    last = demand - census_below(&census, threshold);
    fits = census_fits(&census, threshold, max);
    if (fits == threshold) {
        harvest.upto = threshold;
        harvest.below = census_below(&census, threshold);
        harvest.last = last;
        harvest_walk(&harvest, regions, n_regions, now);
    }
    if (fits < threshold || harvest.full) {
        harvest = (struct harvest){.upto = fits, .victims = victims, .max = max};
        harvest.below = census_below(&census, fits);
        harvest_walk(&harvest, regions, n_regions, now);
        harvest.from = fits;
        harvest.below = 0;
        harvest.last = fits == threshold ? last : census.bytes[fits];
        harvest_walk(&harvest, regions, n_regions, now);
    }
    *ret_bytes = harvest.bytes;
    return harvest.n;
}

/* ---- the controller ---- */

static uint64_t add_saturating(uint64_t a, uint64_t b) {
    uint64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t minimum(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* a * b / c, saturating. c is not 0. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c) {
    unsigned __int128 value = (unsigned __int128)a * b / c;

    return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

uint64_t policy_demand(const struct policy_limits *limits, uint64_t headroom) {
    if (headroom >= limits->reserve)
        return 0;
    return minimum(add_saturating(limits->reserve - headroom, limits->margin), limits->slice);
}

uint64_t policy_margin(uint64_t least, uint64_t slice, unsigned deficits) {
    uint64_t margin = least;

    while (margin < slice && deficits-- > 0)
        margin = add_saturating(margin, margin);
    return minimum(margin, slice);
}

uint64_t policy_next_look(const struct policy_limits *limits, uint64_t headroom, uint64_t commitment) {
    const uint64_t shortest = UINT64_C(1000000);
    const uint64_t longest = UINT64_C(1000000000);
    uint64_t taken = add_saturating(commitment, limits->reserve);
    uint64_t next;

    if (headroom <= taken)
        return shortest;
    next = limits->fill_rate ? scale(headroom - taken, UINT64_C(1000000000), limits->fill_rate) : longest;
    return next < shortest ? shortest : minimum(next, longest);
}

uint64_t policy_auto_reserve(uint64_t fill_rate, uint64_t wakeup_ns, uint64_t punch_ns, uint64_t limit) {
    const uint64_t least = UINT64_C(4) << 20;
    uint64_t reserve = scale(fill_rate, add_saturating(wakeup_ns, punch_ns), UINT64_C(1000000000));

    return minimum(reserve < least ? least : reserve, limit / 8);
}

uint64_t policy_stall_share(const struct policy_limits *limits, uint64_t headroom, uint64_t droppable) {
    if (headroom >= add_saturating(limits->reserve, limits->reserve))
        return 0;
    return minimum(droppable / 64, limits->slice);
}
