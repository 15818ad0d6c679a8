/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_POLICY_PLAN_H
#define DROPPABLE_DAEMON_POLICY_PLAN_H

/* A plan on its way, between its parts: policy's alone. */

#include "policy-age.h"
#include "policy-span.h"
#include "policy.h"

#define N_PRIORITIES 3
#define N_BUCKETS 64
#define N_RANKS (N_PRIORITIES * N_BUCKETS)
#define RANK_NONE N_RANKS /* pinned or gone: never taken */

struct plan {
    struct policy_region *regions;
    size_t n_regions;
    uint32_t now;
    uint64_t cells; /* that may still be read */
    bool within;    /* the order within a region, which is of nobody else's concern */
    bool counted;   /* by a census, so that of a span with a later bound than now nothing can be had */
};

/* What survey, sample and census count. */
struct census {
    uint64_t bounds[N_RANKS];    /* bytes of spans by the rank of their bound */
    uint64_t guess[N_RANKS];     /* bytes of chunks by rank, as a sample has it; all 0: there was none */
    uint64_t bytes[N_RANKS + 1]; /* the last: of nobody's concern */
    /* The number of runs changes by starts - ends from rank - 1 to rank. Two arrays: one would make each chunk wait for the one before. */
    uint64_t starts[N_RANKS + 1], ends[N_RANKS + 1];
    unsigned upto; /* spans whose bound is at most this were walked, and chunks counted */
};

/* The oldest bucket has the lowest rank. */
static inline unsigned plan_age_rank(uint32_t age) {
    return N_BUCKETS - 1 - age_bucket(age);
}

static inline unsigned plan_coldness(const struct plan *plan, uint32_t last) {
    return plan_age_rank(plan->now > last ? plan->now - last : 0);
}

static inline bool plan_region_usable(const struct policy_region *region) {
    return region->chunk_shift >= 12 && region->chunk_shift <= POLICY_SPAN_SHIFT && region->chunk_count > 0;
}

/* The lowest rank of a region's priority. */
unsigned plan_base(const struct policy_region *region);
/* The tick before which all lies that has a rank of at most upto; base: of its priority. */
uint32_t plan_rank_limit(const struct plan *plan, unsigned base, unsigned upto);
/* Is it an opaque region of which anything is there? */
static inline bool plan_region_is_opaque(const struct policy_region *region) {
    return region->opaque && plan_region_usable(region) && region->n_parts > 0 && region->n_parts <= POLICY_PARTS;
}
static inline uint64_t plan_part_bytes(const struct policy_region *region, unsigned part) {
    return (uint64_t)region->parts[part].pages << 12;
}
/* What is pinned comes after all else of every priority: as a rule nothing of it can be dropped. */
static inline unsigned plan_part_rank(const struct plan *plan, const struct policy_region *region, unsigned part) {
    uint32_t last = region->parts[part].last;

    return last == POLICY_PINNED ? N_RANKS - 1 : plan_base(region) + plan_coldness(plan, last);
}

/* False: that was enough. */
typedef bool (*plan_visit_fn)(struct plan *plan, struct policy_region *region, struct span_view *view, void *data);

/* Calls visit for each span with a bound up to rank upto. */
void plan_each_span(struct plan *plan, unsigned upto, plan_visit_fn visit, void *data);

/* Walks spans until the chunks found reach the demand in ranks that are complete, or there are no more. */
void census_take(struct plan *plan, struct census *census, uint64_t demand);
uint64_t census_below(const struct census *census, unsigned end);
/* The rank in which demand is reached; if there is less, the one behind all that have any. */
unsigned census_threshold(const struct census *census, uint64_t demand);
/* The highest end <= limit for which a full harvest of the ranks [0, end) has at most max victims. */
unsigned census_fits(const struct census *census, unsigned limit, size_t max);

#endif
