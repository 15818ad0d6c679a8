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
 * best; 2. a census (policy-census.c) walks the chunks of the spans up to there, counts them by their own ranks, and makes the bounds exact;
 * if that is too little, as younger or pinned ones were among them, it is extended; 3. the harvest takes. A span whose chunks are all pinned often is walked
 * once and then has a bound that keeps it out until it is old again.
 *
 * Of several regions the census tells how much each gives; then each gives that in an order of its own, by a census and a harvest of its own.
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

#include "policy-plan.h"
#include "policy-span.h"

/* Cells of pin pages that one plan reads, 1 ns each. */
#define CELLS_MAX (4u << 20)

/* What a harvest takes: ranks [from, upto) until below is used up, and rank upto until last is. */
struct harvest {
    unsigned from;
    unsigned upto;
    uint64_t below; /* bytes; what the census counted, so used up by the last chunk only, but for races */
    uint64_t last;  /* bytes */
    uint64_t bytes; /* taken */
    const struct policy_region *regions; /* the first one, of which victims count */
    struct policy_victim *victims;
    size_t n;
    size_t max;
    bool full;   /* the array was too small */
    bool quotas; /* of rank upto no region gives more than its quota */
};

unsigned policy_age_bucket(uint32_t now, uint32_t last) {
    return age_bucket(now > last ? now - last : 0);
}

/* ---- shares of the bucket that is taken in part ---- */

static bool count_part(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    unsigned threshold = *(const unsigned *)data;
    uint32_t tick;

    span_open(view, region, &plan->cells);
    for (unsigned i = 0, n; span_next(view, &i, &n, &tick); i += n)
        if (view->base + plan_coldness(plan, tick) == threshold)
            region->at_threshold += view->weight * n;
        else
            region->below += view->weight * n;
    return true;
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

static void divide_opaque(struct plan *plan, struct policy_region *region, unsigned threshold) {
    for (unsigned part = 0; part < region->n_parts; part++) {
        unsigned rank = plan_part_rank(plan, region, part);

        if (rank == threshold)
            region->at_threshold += plan_part_bytes(region, part);
        else if (rank < threshold)
            region->below += plan_part_bytes(region, part);
    }
}

/* What each region gives: all below the threshold, and of that its quota, if so many bytes of it are wanted. */
static void divide(struct plan *plan, unsigned threshold, uint64_t wanted) {
    for (size_t i = 0; i < plan->n_regions; i++) {
        struct policy_region *region = &plan->regions[i];

        region->below = region->at_threshold = region->quota = 0;
        if (plan_region_is_opaque(region))
            divide_opaque(plan, region, threshold);
    }
    plan_each_span(plan, threshold, count_part, &threshold);
    fill_quotas(plan, wanted);
    round_quotas(plan);
}

/* ---- 3. the harvest ---- */

static bool harvest_done(const struct harvest *harvest) {
    return harvest->full || (harvest->below == 0 && harvest->last == 0);
}

static uint64_t less(uint64_t from, uint64_t bytes) {
    return bytes < from ? from - bytes : 0;
}

/* The bytes that are still wanted of a region's rank. */
static uint64_t harvest_wants(const struct harvest *harvest, const struct policy_region *region, unsigned rank) {
    if (rank < harvest->from || rank > harvest->upto)
        return 0;
    if (rank < harvest->upto)
        return harvest->below;
    if (harvest->quotas && less(region->quota, region->given) < harvest->last)
        return less(region->quota, region->given);
    return harvest->last;
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
    region->given += bytes;
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

static bool harvest_span(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    struct harvest *harvest = data;
    struct policy_victim *run = NULL;
    uint32_t tick;

    if (harvest_done(harvest))
        return false;
    span_open(view, region, &plan->cells);
    for (unsigned i = 0, n, end = 0; !harvest_done(harvest) && span_next(view, &i, &n, &tick); i += n, end = i) {
        unsigned rank = view->base + plan_coldness(plan, tick);
        uint64_t wanted = harvest_wants(harvest, region, rank), chunks;

        if (i != end)
            run = NULL;
        if (wanted == 0) {
            run = NULL;
            continue;
        }
        if (!run) {
            run = harvest_add(harvest, (uint32_t)(region - harvest->regions));
            if (!run)
                return false;
            run->first_chunk = view->first_chunk + i;
        }
        chunks = (wanted + view->weight - 1) / view->weight;
        chunks = chunks < n ? chunks : n;
        run->chunk_count += chunks;
        harvest_account(harvest, region, run, rank, view->weight * chunks);
        if (chunks < n)
            run = NULL;
    }
    return !harvest_done(harvest);
}

/* The only victim of an opaque region, also where a harvest has two walks. */
static struct policy_victim *harvest_whole(struct harvest *harvest, struct policy_region *region) {
    uint32_t index = (uint32_t)(region - harvest->regions);
    struct policy_victim *victim;

    if (region->victim < harvest->n && harvest->victims[region->victim].region == index)
        return &harvest->victims[region->victim];
    victim = harvest_add(harvest, index);
    if (!victim)
        return NULL;
    region->victim = harvest->n - 1;
    victim->chunk_count = region->chunk_count;
    victim->limit = 0;
    return victim;
}

static void harvest_part(struct plan *plan, struct harvest *harvest, struct policy_region *region, unsigned part) {
    unsigned rank = plan_part_rank(plan, region, part);
    uint64_t wanted = harvest_wants(harvest, region, rank), bytes = plan_part_bytes(region, part);
    struct policy_victim *victim = wanted > 0 ? harvest_whole(harvest, region) : NULL;
    uint32_t before;

    if (!victim)
        return;
    bytes = bytes < wanted ? bytes : wanted;
    before = region->parts[part].last == POLICY_PINNED ? UINT32_MAX : plan_rank_limit(plan, plan_base(region), rank);
    victim->limit += bytes;
    victim->before = before > victim->before ? before : victim->before;
    harvest_account(harvest, region, victim, rank, bytes);
}

static void harvest_opaque(struct plan *plan, struct harvest *harvest) {
    for (size_t i = 0; i < plan->n_regions; i++)
        if (plan_region_is_opaque(&plan->regions[i]))
            for (unsigned part = 0; part < plan->regions[i].n_parts && !harvest_done(harvest); part++)
                harvest_part(plan, harvest, &plan->regions[i], part);
}

static void harvest_walk(struct plan *plan, struct harvest *harvest) {
    unsigned upto = harvest->upto;

    if (harvest->last == 0 && upto > 0) /* nothing of the last one */
        upto--;
    for (size_t i = 0; i < plan->n_regions; i++)
        plan->regions[i].given = 0;
    harvest_opaque(plan, harvest);
    plan_each_span(plan, upto, harvest_span, harvest);
}

/* Takes the demand in the order of ranks. If the array is too small: the oldest, until it is full. */
static void harvest_ranks(struct plan *plan, struct harvest *harvest, const struct census *census, uint64_t demand) {
    unsigned threshold = census_threshold(census, demand);
    unsigned fits = census_fits(census, threshold, harvest->max - harvest->n);
    uint64_t last = demand - census_below(census, threshold);
    struct harvest before = *harvest;

    last = last < census->bytes[threshold] ? last : census->bytes[threshold];
    if (fits == threshold) {
        harvest->upto = threshold;
        harvest->below = census_below(census, threshold);
        harvest->last = last;
        harvest_walk(plan, harvest);
        if (!harvest->full)
            return;
        *harvest = before;
    }
    harvest->quotas &= fits == threshold;
    harvest->from = 0;
    harvest->upto = fits;
    harvest->below = census_below(census, fits);
    harvest->last = 0;
    harvest_walk(plan, harvest);
    harvest->from = fits;
    harvest->below = 0;
    harvest->last = fits == threshold ? last : census->bytes[fits];
    harvest_walk(plan, harvest);
    harvest->full = true;
}

/* Each region gives its part, in an order of its own. What one gives beyond that, for chunks are whole, the next ones need not. */
static void harvest_parts(struct plan *plan, struct harvest *harvest) {
    uint64_t owed = 0;

    for (size_t i = 0; i < plan->n_regions && !harvest->full; i++) {
        struct policy_region *region = &plan->regions[i];
        struct plan own = {.regions = region, .n_regions = 1, .now = plan->now, .cells = plan->cells, .within = true};
        struct census census;

        owed += region->below + region->quota;
        if (owed <= harvest->bytes)
            continue;
        census_take(&own, &census, owed - harvest->bytes);
        harvest_ranks(&own, harvest, &census, owed - harvest->bytes);
        plan->cells = own.cells;
    }
}

size_t policy_plan(struct policy_region *regions, size_t n_regions, uint64_t demand, uint32_t now,
                   struct policy_victim *victims, size_t max, uint64_t *ret_bytes) {
    struct plan plan = {.regions = regions, .n_regions = n_regions, .now = now, .cells = CELLS_MAX};
    struct harvest harvest = {.regions = regions, .victims = victims, .max = max};
    struct harvest none = harvest;
    struct census census;
    unsigned threshold;
    bool divided;

    *ret_bytes = 0;
    if (demand == 0 || max == 0 || n_regions == 0)
        return 0;
    plan.within = n_regions == 1;
    census_take(&plan, &census, demand);
    threshold = census_threshold(&census, demand);
    divided = !plan.within && census_fits(&census, threshold, max) == threshold; /* else none gives all of its part */
    if (divided) {
        divide(&plan, threshold, demand - census_below(&census, threshold));
        harvest_parts(&plan, &harvest);
    }
    if (!divided || harvest.full) {
        harvest = none;
        harvest.quotas = divided;
        harvest_ranks(&plan, &harvest, &census, demand);
    }
    *ret_bytes = harvest.bytes;
    return harvest.n;
}
