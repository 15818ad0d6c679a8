/* SPDX-License-Identifier: MIT */
/*
 * What was decided. A number's place in the ring is fixed, so that looking one up needs no search.
 */

#include "decision.h"

#include "pages.h"

#include <string.h>

/* Several domains may be in need at once, and groups over their budgets: theirs are among the newest few. */
#define DECISIONS_OPEN (16 + DECISIONS_OF_BUDGETS + 1)

void histogram_add(struct histogram *histogram, uint64_t value) {
    unsigned bucket = value == 0 ? 0 : 64 - (unsigned)__builtin_clzll(value);

    if (bucket >= HISTOGRAM_BUCKETS)
        bucket = HISTOGRAM_BUCKETS - 1;
    atomic_fetch_add_explicit(&histogram->counts[bucket], 1, memory_order_relaxed);
}

struct decision *decisions_edit(struct decisions *decisions, uint64_t number) {
    struct decision *decision = &decisions->ring[number % DECISIONS_MAX];

    return number != 0 && decision->number == number ? decision : NULL;
}

const struct decision *decisions_get(const struct decisions *decisions, uint64_t number) {
    return decisions_edit((struct decisions *)decisions, number);
}

/* Quiet for so long: the next slice begins a new episode. */
#define DECISION_QUIET_NS UINT64_C(1000000000)

void decisions_go_on(struct decisions *decisions, struct decision *decision, uint64_t now, uint32_t tick) {
    decision->ended = now > decision->ended ? now : decision->ended;
    atomic_store_explicit(&decisions->marks[decision - decisions->ring].last_tick, tick, memory_order_relaxed);
}

uint64_t decisions_refaults(const struct decisions *decisions, const struct decision *decision) {
    return atomic_load_explicit(&decisions->marks[decision - decisions->ring].refaults, memory_order_relaxed);
}

/* What a pager counts meanwhile may go to the one that is forgotten, or to the new one: one more or less. */
static void begin_marks(struct decision_marks *marks, uint64_t domain, bool needed, uint32_t tick) {
    atomic_store_explicit(&marks->first_tick, UINT32_MAX, memory_order_relaxed);
    atomic_store_explicit(&marks->last_tick, tick, memory_order_relaxed);
    atomic_store_explicit(&marks->domain, domain, memory_order_relaxed);
    atomic_store_explicit(&marks->needed, needed, memory_order_relaxed);
    atomic_store_explicit(&marks->refaults, 0, memory_order_relaxed);
    atomic_store_explicit(&marks->first_tick, tick, memory_order_release);
}

/* What is under way of this source, domain and group; *ret_budgets: how many budgets have one. */
static struct decision *find_open(struct decisions *decisions, enum demand_source source, uint64_t domain,
                                  const struct decision_budget *budget, uint64_t now, unsigned *ret_budgets) {
    uint64_t newest = atomic_load_explicit(&decisions->newest, memory_order_relaxed);

    *ret_budgets = 0;
    for (uint64_t number = newest; number > 0 && number + DECISIONS_OPEN > newest; number--) {
        struct decision *decision = &decisions->ring[number % DECISIONS_MAX];

        if (now > decision->ended && now - decision->ended >= DECISION_QUIET_NS)
            continue;
        if (decision->source == source && decision->domain == domain && decision->budget.scope == budget->scope &&
            decision->budget.id == budget->id)
            return decision;
        *ret_budgets += decision->budget.scope != 0;
    }
    return NULL;
}

struct decision *decisions_begin(struct decisions *decisions, enum demand_source source, uint64_t domain,
                                 const struct decision_budget *budget, bool anew, uint64_t now, uint32_t tick) {
    static const struct decision_budget none;
    uint64_t newest = atomic_load_explicit(&decisions->newest, memory_order_relaxed);
    struct decision *decision;
    unsigned budgets = 0;

    budget = budget ? budget : &none;
    decision = anew ? NULL : find_open(decisions, source, domain, budget, now, &budgets);
    if (!decision && budget->scope != 0 && budgets >= DECISIONS_OF_BUDGETS)
        return decisions_begin(decisions, source, domain, NULL, false, now, tick);
    if (decision) {
        decisions_go_on(decisions, decision, now, tick);
        return decision;
    }
    decision = &decisions->ring[(newest + 1) % DECISIONS_MAX];
    *decision = (struct decision){
        .number = newest + 1, .began = now, .ended = now, .source = source, .domain = domain, .budget = *budget};
    begin_marks(&decisions->marks[(newest + 1) % DECISIONS_MAX], domain,
                source != DEMAND_BUDGET && source != DEMAND_HAND, tick);
    atomic_store_explicit(&decisions->newest, newest + 1, memory_order_release);
    return decision;
}

void decision_add_victim(struct decision *decision, uint64_t session, pid_t pid, const char *name, uint64_t region,
                         uint64_t planned) {
    struct decision_victim *victim = decision->victims, *end = victim + decision->n_victims;

    while (victim < end && victim->session != session)
        victim++;
    if (victim == end) {
        if (decision->n_victims == DECISION_VICTIMS) {
            decision->others += planned;
            return;
        }
        decision->n_victims++;
        *victim = (struct decision_victim){.session = session, .pid = pid};
        strncpy(victim->name, name, sizeof(victim->name) - 1);
    }
    victim->planned += planned;
    /* The region in which most runs begin, near enough: exact sums would take a table of all of them. */
    if (victim->region == region)
        victim->of_region += planned;
    else if (planned > victim->of_region) {
        victim->region = region;
        victim->of_region = planned;
    }
}

void decisions_note_refault(struct decisions *decisions, uint32_t age, bool mistake) {
    histogram_add(&decisions->refault_ms, (uint64_t)age * DRP_TICK_MS);
    if (mistake)
        atomic_fetch_add_explicit(&decisions->refaulted_spans, 1, memory_order_relaxed);
}

bool decisions_regret(struct decisions *decisions, uint64_t domain, bool needed, uint32_t dropped) {
    uint64_t newest = atomic_load_explicit(&decisions->newest, memory_order_acquire);

    for (uint64_t number = newest; number > 0 && number + DECISIONS_MAX > newest; number--) {
        struct decision_marks *marks = &decisions->marks[number % DECISIONS_MAX];

        if (atomic_load_explicit(&marks->first_tick, memory_order_acquire) <= dropped &&
            atomic_load_explicit(&marks->last_tick, memory_order_relaxed) + 1 >= dropped &&
            atomic_load_explicit(&marks->domain, memory_order_relaxed) == domain &&
            atomic_load_explicit(&marks->needed, memory_order_relaxed) == needed) {
            atomic_fetch_add_explicit(&marks->refaults, 1, memory_order_relaxed);
            return true;
        }
    }
    return false;
}
