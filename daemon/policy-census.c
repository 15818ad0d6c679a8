/* SPDX-License-Identifier: MIT */
/*
 * How far up a demand reaches, and how much there is up to there.
 *
 * The survey looks at each span and adds up bytes by the rank of its bound. Where these say little, since no plan was here before, a sample of the spans
 * says in which rank the demand will be reached: a guess, with a margin, and all that depends on it is what the census costs. The
 * census counts chunks, exactly, up to a rank and no further: a demand is a small part of all, so most chunks cost a comparison. If what it found
 * is too little, it is taken anew, further up.
 */

#include "policy-plan.h"

#include <string.h>

/* Censuses of one plan; the last goes all the way. */
#define CENSUS_MAX 5
/* The sample: of so many spans one, if there are as many as that makes sense for, and the census without it looked at so much more than is wanted. */
#define SAMPLE_ONE_OF 16
#define SAMPLE_SPANS 256
#define SAMPLE_BYTES (UINT64_C(4) * SAMPLE_ONE_OF << POLICY_SPAN_SHIFT)
#define SAMPLE_WORTH 2

unsigned plan_base(const struct policy_region *region) {
    uint32_t priority = region->priority;

    if (priority < 1)
        priority = 1;
    if (priority > N_PRIORITIES)
        priority = N_PRIORITIES;
    return (priority - 1) * N_BUCKETS;
}

/* ---- walks ---- */

/* The first age of a bucket. */
static uint32_t bucket_start(unsigned bucket) {
    return bucket < 2 ? bucket : (2 + (bucket & 1)) << (bucket / 2 - 1);
}

uint32_t plan_rank_limit(const struct plan *plan, unsigned base, unsigned upto) {
    uint32_t start;

    if (upto - base >= N_BUCKETS - 1)
        return TICK_NONE;
    start = bucket_start(N_BUCKETS - 1 - (upto - base));
    return plan->now < start ? 0 : plan->now - start + 1;
}

/* For one of so many spans. Inline, so that what is done for each is: in 64 GiB there are 32,768. */
static inline __attribute__((always_inline)) void each_span(struct plan *plan, unsigned upto, uint32_t one_of,
                                                            plan_visit_fn visit, void *data) {
    struct span_view view;
    uint64_t t = 0;
    uint32_t skip; /* spans with a bound from here on */

    view.now = plan->now;
    view.within = plan->within;
    for (size_t i = 0; i < plan->n_regions; i++) {
        struct policy_region *region = &plan->regions[i];

        view.base = plan_base(region);
        if (!plan_region_usable(region) || region->opaque || view.base > upto)
            continue;
        view.limit = plan_rank_limit(plan, view.base, upto);
        view.limit_older = upto > view.base ? plan_rank_limit(plan, view.base, upto - 1) : 0;
        skip = plan->counted && view.limit > plan->now ? plan->now + 1 : view.limit;
        for (; t < region->touched_count; t += one_of) {
            uint32_t index = atomic_load_explicit(&region->touched[t], memory_order_relaxed);

            if ((uint64_t)index << (POLICY_SPAN_SHIFT - region->chunk_shift) < region->chunk_count &&
                atomic_load_explicit(&region->spans[index].coldest, memory_order_relaxed) < skip &&
                span_look(&view, region, index) && !visit(plan, region, &view, data))
                return;
        }
        t -= region->touched_count; /* one of so many is that across regions */
    }
}

void plan_each_span(struct plan *plan, unsigned upto, plan_visit_fn visit, void *data) {
    each_span(plan, upto, 1, visit, data);
}

static bool survey_span(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    struct census *census = data;

    (void)region;
    census->bounds[view->base + plan_coldness(plan, view->bound)] += view->bytes;
    return true;
}

static void count_bytes(struct census *census, unsigned rank, uint64_t bytes) {
    if (rank < RANK_NONE)
        census->bytes[rank] += bytes;
}

static void count_start(struct census *census, unsigned before, unsigned rank) {
    if (rank < before) {
        census->starts[rank]++;
        census->ends[before]++;
    }
}

static inline unsigned count_run(struct census *census, unsigned before, unsigned rank, uint64_t bytes) {
    bool start = rank < before;

    census->bytes[rank] += bytes;
    census->starts[rank] += start;
    census->ends[before] += start;
    return rank;
}

/* The compiler's own is a call, since not all processors can. */
static inline unsigned bits_count(uint32_t bits) {
    bits -= bits >> 1 & UINT32_C(0x55555555);
    bits = (bits & UINT32_C(0x33333333)) + (bits >> 2 & UINT32_C(0x33333333));
    bits = (bits + (bits >> 4)) & UINT32_C(0x0f0f0f0f);
    return bits * UINT32_C(0x01010101) >> 24;
}

/*
 * Chunk by chunk, but only those in question, and without a branch on what is found: ages of pinned chunks may be anything, and a wrong
 * guess takes longer than all the rest. Of the highest rank, which often holds most, only bytes are of use.
 */
static void census_pinned(const struct span_view *view, struct census *census) {
    const struct span_block *block = view->blocks;
    unsigned before = RANK_NONE, end = 0, base = view->base;
    uint64_t weight = view->weight;

    for (unsigned i = 0, count = view->count; i < count; i += SPAN_BLOCK, block++) {
        uint32_t older = block->older, last = block->below & ~older, other = block->other;

        census->bytes[census->upto] += bits_count(last) * weight;
        if (older != 0 && block->alike) {
            before = count_run(census, i == end ? before : RANK_NONE, base + plan_age_rank(span_age(view, i, other)),
                               SPAN_BLOCK * weight);
            end = i + SPAN_BLOCK;
            continue;
        }
        for (; older != 0; older &= older - 1) {
            unsigned chunk = i + (unsigned)__builtin_ctz(older);

            before = count_run(census, chunk == end ? before : RANK_NONE,
                               base + plan_age_rank(span_age(view, chunk, other)), weight);
            end = chunk + 1;
        }
    }
}

/* Run by run. */
static void census_unpinned(const struct plan *plan, struct span_view *view, struct census *census) {
    unsigned before = RANK_NONE, end = 0;
    uint64_t chunks = 0;
    uint32_t tick;

    for (unsigned i = 0, n; span_next(view, &i, &n, &tick); i += n, end = i) {
        unsigned rank = view->base + plan_coldness(plan, tick);

        if (rank != before || i != end) {
            count_bytes(census, before, chunks * view->weight);
            count_start(census, i == end ? before : RANK_NONE, rank);
            before = rank;
            chunks = 0;
        }
        chunks += n;
    }
    count_bytes(census, before, chunks * view->weight);
}

static bool census_span(struct plan *plan, struct policy_region *region, struct span_view *view, void *data) {
    struct census *census = data;

    span_open(view, region, &plan->cells);
    if (view->n_pins > 0)
        census_pinned(view, census);
    else
        census_unpinned(plan, view, census);
    if (view->read)
        atomic_store_explicit(&view->span->coldest, view->coldest, memory_order_relaxed);
    return true;
}

/* ---- how far ---- */

/* All of a region that is taken is one run. */
static void census_opaque(const struct plan *plan, struct census *census) {
    for (size_t i = 0; i < plan->n_regions; i++) {
        const struct policy_region *region = &plan->regions[i];
        unsigned first = RANK_NONE;

        if (!plan_region_is_opaque(region))
            continue;
        for (unsigned part = 0; part < region->n_parts; part++) {
            unsigned rank = plan_part_rank(plan, region, part);

            census->bytes[rank] += plan_part_bytes(region, part);
            first = rank < first ? rank : first;
        }
        census->starts[first]++;
    }
}

static void census_clear(const struct plan *plan, struct census *census) {
    memset(census->bytes, 0, sizeof(census->bytes));
    memset(census->starts, 0, sizeof(census->starts));
    memset(census->ends, 0, sizeof(census->ends));
    census_opaque(plan, census);
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

static uint64_t sum_below(const uint64_t *bytes, unsigned end) {
    uint64_t sum = 0;

    for (unsigned rank = 0; rank < end; rank++)
        sum += bytes[rank];
    return sum;
}

uint64_t census_below(const struct census *census, unsigned end) {
    return sum_below(census->bytes, end);
}

/* Would the census look at much more than is wanted? Then a sample is worth its while. */
static bool sample_is_worth_it(const struct plan *plan, const struct census *census, uint64_t demand) {
    uint64_t spans = 0;

    for (size_t i = 0; i < plan->n_regions; i++)
        spans += plan->regions[i].touched_count;
    return spans >= SAMPLE_SPANS && sum_below(census->bounds, census->upto + 1) / SAMPLE_WORTH > demand;
}

static void sample_take(struct plan *plan, struct census *census) {
    unsigned upto = census->upto;

    census->upto = N_RANKS - 1;
    census_clear(plan, census);
    each_span(plan, N_RANKS - 1, SAMPLE_ONE_OF, census_span, census);
    for (unsigned rank = 0; rank < N_RANKS; rank++)
        census->guess[rank] = census->bytes[rank] * SAMPLE_ONE_OF;
    census->upto = upto;
}

/* How far up a demand reaches by the sample, and somewhat further: too far costs little, not far enough another census. */
static unsigned guess_reach(const struct census *census, uint64_t demand) {
    uint64_t missing = demand + demand / 4 + SAMPLE_BYTES;
    unsigned rank = 0;

    for (; rank < N_RANKS - 1 && census->guess[rank] < missing; rank++)
        missing -= census->guess[rank];
    return rank;
}

void census_take(struct plan *plan, struct census *census, uint64_t demand) {
    bool sampled;

    memset(census, 0, sizeof(*census));
    census_opaque(plan, census);
    each_span(plan, N_RANKS - 1, 1, survey_span, census);
    census->upto = census_reach(census, demand, false);
    sampled = sample_is_worth_it(plan, census, demand);
    if (sampled)
        sample_take(plan, census);
    else if (sum_below(census->bounds, census->upto + 1) == sum_below(census->bounds, N_RANKS))
        census->upto = N_RANKS - 1; /* who walks all of them counts all that they have */
    for (unsigned i = 0;; i++) {
        unsigned guess = sampled ? guess_reach(census, demand << i) : 0;

        census->upto = guess > census->upto ? guess : census->upto;
        census_clear(plan, census);
        each_span(plan, census->upto, 1, census_span, census);
        if (census->upto == N_RANKS - 1 || census_below(census, census->upto + 1) >= demand)
            break;
        census->upto = i + 1 < CENSUS_MAX ? census_reach(census, demand, true) : N_RANKS - 1;
    }
    plan->counted = true;
}

unsigned census_threshold(const struct census *census, uint64_t demand) {
    unsigned end = 0;

    for (unsigned rank = 0; rank < N_RANKS; rank++) {
        if (census->bytes[rank] == 0)
            continue;
        if (census->bytes[rank] >= demand)
            return rank;
        demand -= census->bytes[rank];
        end = rank + 1;
    }
    return end < N_RANKS ? end : N_RANKS - 1;
}

unsigned census_fits(const struct census *census, unsigned limit, size_t max) {
    unsigned fits = 0;
    int64_t runs = 0;

    for (unsigned rank = 0; rank < limit; rank++) {
        runs += (int64_t)(census->starts[rank] - census->ends[rank]);
        if (runs >= 0 && (uint64_t)runs <= max)
            fits = rank + 1;
    }
    return fits;
}
