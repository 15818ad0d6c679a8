/* SPDX-License-Identifier: MIT */
/*
 * The gate before every fill: atomics on the chain of domains, no lock and no system call, since each fault passes here.
 * Two pagers that ask at once may both be let in on the same credit: the error is at most one span each, and the reserve covers it.
 */

#include "gate.h"

#include "domain.h"

enum gate_verdict gate_ask(struct domain *domain, uint64_t bytes, bool waits) {
    enum gate_verdict verdict = GATE_FREE;
    uint64_t take;

    for (struct domain *d = domain; d; d = d->parent) {
        int64_t credit = atomic_load_explicit(&d->credit, memory_order_relaxed);

        if (credit < GATE_STEP) {
            if (waits)
                atomic_fetch_add_explicit(&d->wanted, bytes, memory_order_relaxed);
            verdict = GATE_WAIT;
        } else if (credit < (int64_t)bytes + GATE_SPAN && verdict == GATE_FREE)
            verdict = GATE_TIGHT;
    }
    if (verdict == GATE_WAIT)
        return verdict;
    take = verdict == GATE_TIGHT && bytes > GATE_STEP ? GATE_STEP : bytes;
    for (struct domain *d = domain; d; d = d->parent)
        atomic_fetch_sub_explicit(&d->credit, (int64_t)take, memory_order_relaxed);
    return verdict;
}

bool gate_allows(const struct domain *domain, uint64_t bytes) {
    for (const struct domain *d = domain; d; d = d->parent)
        if (atomic_load_explicit(&d->credit, memory_order_relaxed) < (int64_t)bytes + GATE_SPAN)
            return false;
    return true;
}

bool gate_is_hopeless(const struct domain *domain, uint64_t now) {
    bool hopeless = false;

    for (const struct domain *d = domain; d; d = d->parent) {
        if (atomic_load_explicit(&d->credit, memory_order_relaxed) >= GATE_STEP)
            continue;
        hopeless = true;
        if (now >= atomic_load_explicit(&d->hopeless_until, memory_order_relaxed))
            return false;
    }
    return hopeless;
}

uint64_t gate_room(const struct domain *domain) {
    int64_t room = INT64_MAX;

    for (const struct domain *d = domain; d; d = d->parent) {
        int64_t credit = atomic_load_explicit(&d->credit, memory_order_relaxed);

        room = credit < room ? credit : room;
    }
    return room > 0 ? (uint64_t)room : 0;
}

bool gate_is_ample(const struct domain *domain, int64_t share) {
    for (const struct domain *d = domain; d; d = d->parent) {
        int64_t commitment = atomic_load_explicit(&d->commitment, memory_order_relaxed);

        if (atomic_load_explicit(&d->credit, memory_order_relaxed) < commitment * (share - 1))
            return false;
    }
    return true;
}

void gate_adjust(struct domain *domain, int64_t bytes) {
    for (struct domain *d = domain; d; d = d->parent) {
        atomic_fetch_add_explicit(&d->commitment, bytes, memory_order_relaxed);
        atomic_fetch_sub_explicit(&d->credit, bytes, memory_order_relaxed);
    }
}
