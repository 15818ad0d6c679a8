/* SPDX-License-Identifier: MIT */
/*
 * What to drop.
 *
 * Every chunk that could be dropped has a rank: priority x age bucket, 3 x 64, the lowest dropped first. A plan needs the rank in which the
 * demand is reached, the threshold; it then takes everything below it and, of the threshold itself, what is still missing. So the
 * order is exact by rank without sorting or storing a million chunks.
 *
 * Looking at a million chunks for each slice would cost milliseconds, and under the manager's lock. But use only ever makes a chunk
 * younger, and what is older can come to a span by a fault only, which forgets the bound. So each span has a bound, the tick before which none of its droppable chunks
 * was used last: 1. a survey of the spans adds up bytes by the rank of the bound, which says how far up the demand can reach at
 * best; 2. a census walks the chunks of the spans up to there, counts them by their own ranks, and makes the bounds exact; if that is
 * too little, as younger or pinned ones were among them, it is extended; 3. the harvest takes. A span whose chunks are all pinned often is walked
 * once and then has a bound that keeps it out until it is old again.
 *
 * Victims are runs of neighbouring chunks within a span, so their number is not known from bytes. The census counts it too, exactly, for
 * a full harvest up to each rank: a chunk of rank r behind a neighbour of rank p starts a run for all thresholds from r up to, but
 * without, p. If the array given is too small for the plan, the highest rank up to which a full harvest fits is taken in full and
 * the next one until the array is full: the oldest win. (The two parts are walks of their own, and neighbours of different parts
 * don't merge.)
 *
 * Pin pages belong to clients, who may write anything at any time, also between two walks. Each cell is read once a walk; any count but
 * zero is a pin, a tick ahead of the clock is age 0, and sums are taken from what the harvest itself sees. By that a client keeps
 * its own chunks busy and does nothing else. Cells beyond a number that no honest client needs in one plan are not read: the
 * dropper looks at pins for good. The daemon's span numbers are checked against the region.
 *
 * Ticks are compared as plain numbers: they wrap after 13.6 years of uptime, and all that follows is that everything
 * looks young until it was touched again.
 */

#include "policy.h"

#include "policy-age.h"

#include <string.h>

#define N_PRIORITIES 3
#define N_BUCKETS 64
#define N_RANKS (N_PRIORITIES * N_BUCKETS)
#define RANK_NONE N_RANKS /* pinned or gone: never taken */
/* Censuses of one plan; the last goes all the way. */
#define CENSUS_MAX 5
/* Cells of pin pages that one plan reads, 1 ns each. */
#define CELLS_MAX (4u << 20)

/* What survey and census count. */
struct census {
    uint64_t bounds[N_RANKS]; /* bytes of spans by the rank of their bound */
    uint64_t bytes[N_RANKS];
    int64_t starts[N_RANKS + 1]; /* change of the number of runs from rank - 1 to rank */
    unsigned upto;               /* spans whose bound is at most this were walked */
};

/* What a harvest takes: ranks [from, upto) until below is used up, and rank upto until last is, of each region its quota. */
struct harvest {
    unsigned from;
    unsigned upto;
    uint64_t below; /* bytes; what the census counted, so used up by the last chunk only, but for races */
    uint64_t last;  /* bytes */
    uint64_t bytes; /* taken */
    struct policy_victim *victims;
    size_t n;
    size_t max;
    bool full; /* the array was too small */
};

/* A plan on its way. */
struct plan {
    struct policy_region *regions;
    size_t n_regions;
    uint32_t now;
    uint64_t cells; /* that may still be read */
};

/* One span of a region, its parts checked and ready to walk. */
struct span_view {
    struct policy_span *span;
    _Atomic uint8_t *flags;             /* of its first chunk */
    const struct drp_pin_cell *pins[4]; /* of its first chunk */
    unsigned n_pins;
    unsigned base;   /* rank of the region's priority */
    uint32_t use;    /* tick of the last fault */
    uint32_t seen;   /* ticks by which its pinned chunks are protected */
    uint32_t unseen; /* the same of those that are never pinned, at least as many */
    unsigned bound;  /* rank below which none of its chunks is; RANK_NONE: there is nothing in it */
    uint64_t bytes;  /* of all that may be droppable */
    uint64_t weight; /* bytes of a chunk */
    uint64_t first_chunk;
    unsigned count;      /* chunks, 1..512 */
    unsigned like_rank;  /* of the last one that was never pinned; RANK_NONE: there was none yet */
    uint32_t like_bound; /* its tick for the bound */
    uint8_t like_flags;
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

/* ---- a span ---- */

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

/* What the survey needs. False: the region has no such span, or nothing is in it. */
static bool span_look(const struct plan *plan, const struct policy_region *region, uint32_t index,
                      struct span_view *ret) {
    unsigned shift = POLICY_SPAN_SHIFT - region->chunk_shift, gone, left, level;
    uint64_t first = (uint64_t)index << shift, rest, known;
    uint16_t resident;

    if (first >= region->chunk_count)
        return false;
    rest = region->chunk_count - first;
    ret->span = &region->spans[index];
    ret->first_chunk = first;
    ret->count = rest < UINT64_C(1) << shift ? (unsigned)rest : 1u << shift;
    gone = policy_span_gone(ret->span);
    if (gone >= ret->count)
        return false;
    ret->flags = region->chunk_flags + first;
    left = ret->count - gone;
    ret->weight = UINT64_C(1) << region->chunk_shift;
    ret->bytes = left * ret->weight;
    resident = atomic_load_explicit(&ret->span->resident, memory_order_relaxed);
    known = (uint64_t)(resident & (uint16_t)~POLICY_SPAN_KNOWN) << 12;
    if (resident > 0 && known < ret->bytes) {
        if (known == 0)
            return false;
        ret->weight = (known + left - 1) / left;
        ret->bytes = known;
    }
    ret->base = priority_base(region);
    ret->use = atomic_load_explicit(&ret->span->last_fault, memory_order_relaxed);
    level = policy_span_level(ret->span);
    ret->like_rank = RANK_NONE;
    ret->seen = policy_protection_seen(level);
    ret->unseen = policy_protection_unseen(level);
    ret->bound = ret->base + coldness(plan->now, atomic_load_explicit(&ret->span->coldest, memory_order_relaxed));
    return true;
}

/* What a walk over its chunks needs beside that. */
static void span_open_pins(struct plan *plan, const struct policy_region *region, struct span_view *view) {
    view->n_pins = 0;
    for (unsigned i = 0; i < region->n_pins && i < 4; i++)
        if (region->pins[i] && plan->cells >= view->count && pins_written(region, i, view->first_chunk, view->count)) {
            view->pins[view->n_pins++] = region->pins[i] + region->first_chunk + view->first_chunk;
            plan->cells -= view->count;
        }
}

/* Of a chunk that was never pinned: all of a span whose flags are alike have the same, and neighbours mostly are. */
static inline unsigned unseen_rank(const struct plan *plan, struct span_view *view, uint8_t flags, uint32_t *ret_bound) {
    if (view->like_rank == RANK_NONE || flags != view->like_flags) {
        view->like_flags = flags;
        view->like_bound = age_unseen(view->use, plan->now, flags, view->seen);
        if (plan->n_regions >
            1) /* what one fault tells of a span must not make its owner lose before somebody who is cold */
            flags |= POLICY_CHUNK_NEAR;
        view->like_rank = view->base + coldness(plan->now, age_unseen(view->use, plan->now, flags, view->unseen));
    }
    *ret_bound = view->like_bound;
    return view->like_rank;
}

/* The rank of a chunk; *ret_bound is a tick for the span's bound. A pin to come may take from it what protects the unseen. */
static inline unsigned chunk_rank(const struct plan *plan, struct span_view *view, unsigned chunk, uint32_t *ret_bound) {
    uint8_t flags = atomic_load_explicit(view->flags + chunk, memory_order_relaxed);
    uint32_t count = 0, pinned = 0;

    if (flags & POLICY_CHUNK_GONE)
        return RANK_NONE;
    for (unsigned i = 0; i < view->n_pins; i++) {
        const struct drp_pin_cell *cell = view->pins[i] + chunk;
        uint32_t tick = atomic_load_explicit(&cell->tick, memory_order_relaxed);

        count |= atomic_load_explicit(&cell->count, memory_order_relaxed);
        pinned = tick > pinned ? tick : pinned;
    }
    if (count)
        return RANK_NONE;
    if (pinned == 0)
        return unseen_rank(plan, view, flags, ret_bound);
    *ret_bound = age_seen(pinned, view->use, plan->now, flags, view->seen);
    if (flags & POLICY_CHUNK_BACK && *ret_bound > 0)
        atomic_fetch_and_explicit(view->flags + chunk, (uint8_t) ~(POLICY_CHUNK_BACK | POLICY_CHUNK_NEAR),
                                  memory_order_relaxed);
    return view->base + coldness(plan->now, *ret_bound);
}

static unsigned opaque_rank(const struct plan *plan, const struct policy_region *region) {
    return priority_base(region) + coldness(plan->now, region->last_scan);
}

/* ---- 1. the survey, 2. the census ---- */

typedef void (*visit_fn)(struct plan *plan, struct policy_region *region, struct span_view *view, void *data);

/* Calls visit for every span with a bound from above to upto. */
static void for_each_span(struct plan *plan, unsigned upto, visit_fn visit, void *data) {
    for (size_t i = 0; i < plan->n_regions; i++) {
        struct policy_region *region = &plan->regions[i];
        struct span_view view;

        if (!region_usable(region) || region->opaque || priority_base(region) > upto)
            continue;
        for (uint32_t t = 0; t < region->touched_count; t++)
            if (span_look(plan, region, atomic_load_explicit(&region->touched[t], memory_order_relaxed), &view) &&
                view.bound <= upto)
                visit(plan, region, &view, data);
    }
}

static void survey_span(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    struct census *census = data;

    (void)plan;
    (void)region;
    census->bounds[view->bound] += view->bytes;
}

static void count_chunk(struct census *census, unsigned rank, unsigned before, uint64_t weight, unsigned chunks) {
    if (rank < RANK_NONE)
        census->bytes[rank] += weight * chunks;
    if (rank < before) {
        census->starts[rank]++;
        census->starts[before]--;
    }
}

static void census_span(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    uint32_t coldest = UINT32_MAX, bound;
    unsigned before = RANK_NONE;
    struct census *census = data;

    span_open_pins(plan, region, view);
    for (unsigned i = 0, alike; i < view->count; i += alike) {
        unsigned rank = chunk_rank(plan, view, i, &bound);

        alike = view->n_pins > 0 ? 1 : age_alike(view->flags + i, view->count - i);
        if (rank < RANK_NONE && bound < coldest)
            coldest = bound;
        count_chunk(census, rank, before, view->weight, alike);
        before = rank;
    }
    /* All pinned: not before it is old again. Never ahead of the clock, whatever a client wrote. */
    atomic_store_explicit(&view->span->coldest, coldest < plan->now ? coldest : plan->now, memory_order_relaxed);
}

static void census_opaque(const struct plan *plan, struct census *census) {
    for (size_t i = 0; i < plan->n_regions; i++) {
        const struct policy_region *region = &plan->regions[i];
        unsigned rank = opaque_rank(plan, region);

        if (!region_usable(region) || !region->opaque || region->resident == 0)
            continue;
        census->bytes[rank] += region->resident;
        census->starts[rank]++;
    }
}

/*
 * How far up the demand reaches at best: what was walked counts by its own rank, the rest by its bound. At least one rank further than
 * before.
 */
static unsigned census_reach(const struct census *census, uint64_t demand, bool walked) {
    unsigned rank = 0;

    for (; rank < N_RANKS - 1; rank++) {
        uint64_t here = census->bytes[rank] + (walked && rank <= census->upto ? 0 : census->bounds[rank]);

        if (here >= demand && (!walked || rank > census->upto))
            break;
        demand -= here < demand ? here : demand;
    }
    return rank;
}

static uint64_t census_below(const struct census *census, unsigned end) {
    uint64_t sum = 0;

    for (unsigned rank = 0; rank < end; rank++)
        sum += census->bytes[rank];
    return sum;
}

/* Walks spans until the chunks found reach the demand in ranks that are complete, or there are no more. */
static void census_take(struct plan *plan, struct census *census, uint64_t demand) {
    memset(census, 0, sizeof(*census));
    census_opaque(plan, census);
    for_each_span(plan, N_RANKS - 1, survey_span, census);
    census->upto = census_reach(census, demand, false);
    for (unsigned i = 0;; i++) {
        memset(census->bytes, 0, sizeof(census->bytes));
        memset(census->starts, 0, sizeof(census->starts));
        census_opaque(plan, census);
        for_each_span(plan, census->upto, census_span, census);
        if (census->upto == N_RANKS - 1 || census_below(census, census->upto + 1) >= demand)
            return;
        census->upto = i + 1 < CENSUS_MAX ? census_reach(census, demand, true) : N_RANKS - 1;
    }
}

/* The rank in which demand is reached, the last one if there is less. */
static unsigned census_threshold(const struct census *census, uint64_t demand) {
    unsigned rank = 0;

    while (rank < N_RANKS - 1 && census->bytes[rank] < demand)
        demand -= census->bytes[rank++];
    return rank;
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

/* ---- shares of the bucket that is taken in part ---- */

struct rank_count {
    unsigned rank;
};

static void count_rank(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    const struct rank_count *count = data;
    uint32_t bound;

    span_open_pins(plan, region, view);
    for (unsigned i = 0; i < view->count; i++)
        if (chunk_rank(plan, view, i, &bound) == count->rank)
            region->at_threshold += view->weight;
}

/* The part of the bytes wanted that a region has to give: what it has there, less if its share is large. */
static uint64_t region_weight(const struct policy_region *region) {
    uint64_t share = region->share ? region->share : POLICY_SHARE_DEFAULT;

    return region->at_threshold / share + (region->at_threshold > 0);
}

/* Fills quota up to at_threshold, in proportion to the weights: who has less than his part gives all, the others share the rest. */
static void fill_quotas(struct plan *plan, uint64_t wanted) {
    for (unsigned round = 0; round < 4 && wanted > 0; round++) {
        unsigned __int128 sum = 0;
        uint64_t given = 0;

        for (size_t i = 0; i < plan->n_regions; i++)
            if (plan->regions[i].quota < plan->regions[i].at_threshold)
                sum += region_weight(&plan->regions[i]);
        if (sum == 0)
            return;
        for (size_t i = 0; i < plan->n_regions; i++) {
            struct policy_region *region = &plan->regions[i];
            uint64_t room = region->at_threshold - region->quota;
            uint64_t part = room ? (uint64_t)((unsigned __int128)wanted * region_weight(region) / sum) : 0;

            part = part < room ? part : room;
            region->quota += part;
            given += part;
        }
        wanted -= given;
    }
    for (size_t i = 0; i < plan->n_regions && wanted > 0; i++) { /* what rounding left */
        struct policy_region *region = &plan->regions[i];
        uint64_t room = region->at_threshold - region->quota;
        uint64_t part = wanted < room ? wanted : room;

        region->quota += part;
        wanted -= part;
    }
}

/* Whole chunks only: what a region has over goes to the next one. */
static void round_quotas(struct plan *plan) {
    uint64_t over = 0;

    for (size_t i = 0; i < plan->n_regions; i++) {
        struct policy_region *region = &plan->regions[i];
        uint64_t chunk = UINT64_C(1) << region->chunk_shift;
        uint64_t quota = region->quota + over;

        if (quota > region->at_threshold)
            quota = region->at_threshold;
        if (i + 1 < plan->n_regions && !region->opaque)
            quota = quota / chunk * chunk;
        over += region->quota - quota;
        region->quota = quota;
    }
    for (size_t i = 0; i < plan->n_regions && over > 0; i++) { /* the last ones had no room for it */
        uint64_t room = plan->regions[i].at_threshold - plan->regions[i].quota;
        uint64_t part = over < room ? over : room;

        plan->regions[i].quota += part;
        over -= part;
    }
}

/* How much of a rank each region gives, if so many bytes of it are wanted. */
static void share_out(struct plan *plan, const struct census *census, unsigned rank, uint64_t wanted) {
    bool all = plan->n_regions == 1 || wanted >= census->bytes[rank];
    struct rank_count count = {.rank = rank};

    for (size_t i = 0; i < plan->n_regions; i++) {
        struct policy_region *region = &plan->regions[i];

        region->quota = all ? UINT64_MAX : 0;
        region->at_threshold = 0;
        if (region_usable(region) && region->opaque && opaque_rank(plan, region) == rank)
            region->at_threshold = region->resident;
    }
    if (all)
        return;
    for_each_span(plan, rank, count_rank, &count);
    fill_quotas(plan, wanted);
    round_quotas(plan);
}

/* ---- 3. the harvest ---- */

static bool harvest_done(const struct harvest *harvest) {
    return harvest->full || (harvest->below == 0 && harvest->last == 0);
}

/* The bytes that are still wanted of a region's rank. */
static uint64_t harvest_wants(const struct harvest *harvest, const struct policy_region *region, unsigned rank) {
    if (rank < harvest->from || rank > harvest->upto)
        return 0;
    if (rank < harvest->upto)
        return harvest->below;
    return harvest->last < region->quota ? harvest->last : region->quota;
}

static uint64_t less(uint64_t from, uint64_t bytes) {
    return bytes < from ? from - bytes : 0;
}

static void harvest_account(struct harvest *harvest, struct policy_region *region, struct policy_victim *victim,
                            unsigned rank, uint64_t bytes) {
    harvest->bytes += bytes;
    victim->bytes += bytes;
    if (rank < harvest->upto) {
        harvest->below = less(harvest->below, bytes);
        return;
    }
    harvest->last = less(harvest->last, bytes);
    if (region->quota != UINT64_MAX)
        region->quota = less(region->quota, bytes);
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

static void harvest_span(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    struct harvest *harvest = data;
    struct policy_victim *run = NULL;
    uint32_t bound;

    if (harvest_done(harvest))
        return;
    span_open_pins(plan, region, view);
    for (unsigned i = 0, step; i < view->count && !harvest_done(harvest); i += step) {
        unsigned rank = chunk_rank(plan, view, i, &bound);

        step = 1;
        if (harvest_wants(harvest, region, rank) == 0) {
            step = view->n_pins > 0 ? 1 : age_alike(view->flags + i, view->count - i);
            run = NULL;
            continue;
        }
        if (!run) {
            run = harvest_add(harvest, (uint32_t)(region - plan->regions));
            if (!run)
                return;
            run->first_chunk = view->first_chunk + i;
        }
        run->chunk_count++;
        harvest_account(harvest, region, run, rank, view->weight);
    }
}

static void harvest_opaque(struct plan *plan, struct harvest *harvest) {
    for (size_t i = 0; i < plan->n_regions && !harvest_done(harvest); i++) {
        struct policy_region *region = &plan->regions[i];
        unsigned rank = opaque_rank(plan, region);
        struct policy_victim *victim;
        uint64_t wanted;

        if (!region_usable(region) || !region->opaque || region->resident == 0)
            continue;
        wanted = harvest_wants(harvest, region, rank);
        victim = wanted > 0 ? harvest_add(harvest, (uint32_t)i) : NULL;
        if (!victim)
            continue;
        victim->chunk_count = region->chunk_count;
        victim->limit = region->resident < wanted ? region->resident : wanted;
        harvest_account(harvest, region, victim, rank, victim->limit);
    }
}

static void harvest_walk(struct plan *plan, struct harvest *harvest) {
    harvest_opaque(plan, harvest);
    for_each_span(plan, harvest->upto, harvest_span, harvest);
}

size_t policy_plan(struct policy_region *regions, size_t n_regions, uint64_t demand, uint32_t now,
                   struct policy_victim *victims, size_t max, uint64_t *ret_bytes) {
    struct plan plan = {.regions = regions, .n_regions = n_regions, .now = now, .cells = CELLS_MAX};
    struct harvest harvest = {.victims = victims, .max = max};
    struct census census;
    unsigned threshold, fits;
    uint64_t last;

    *ret_bytes = 0;
    if (demand == 0 || max == 0 || n_regions == 0)
        return 0;

    census_take(&plan, &census, demand);
    threshold = census_threshold(&census, demand);
    last = demand - census_below(&census, threshold);
    fits = census_fits(&census, threshold, max);
    if (fits == threshold) {
        share_out(&plan, &census, threshold, last);
        harvest.upto = threshold;
        harvest.below = census_below(&census, threshold);
        harvest.last = last;
        harvest_walk(&plan, &harvest);
    }
    if (fits < threshold || harvest.full) {
        harvest = (struct harvest){.upto = fits, .victims = victims, .max = max};
        harvest.below = census_below(&census, fits);
        harvest_walk(&plan, &harvest);
        harvest.from = fits;
        harvest.below = 0;
        harvest.last = fits == threshold ? last : census.bytes[fits];
        share_out(&plan, &census, fits, harvest.last);
        harvest_walk(&plan, &harvest);
    }
    *ret_bytes = harvest.bytes;
    return harvest.n;
}
