/* SPDX-License-Identifier: MIT */
/*
 * Who waits at the gate. A pager says once that it waits (pager.c), and waits until it is kicked from here: there is credit, or there is no hope; or until it has
 * waited for long enough.
 */

#include "waiters.h"

#include "gate.h"
#include "manager.h"
#include "session.h"

void waiters_find(struct manager *manager) {
    struct session *session;
    struct domain *domain;

    LIST_FOREACH (domain, &manager->domains.list, link) {
        domain->waiters = false;
    }
    LIST_FOREACH (session, &manager->sessions, link)
        if (atomic_load(&session->pager.waits_at_gate))
            for (domain = session->domain; domain; domain = domain->parent)
                domain->waiters |= atomic_load(&domain->credit) < GATE_STEP;
}

void waiters_let_in(struct manager *manager) {
    struct session *session;

    LIST_FOREACH (session, &manager->sessions, link)
        if (atomic_load(&session->pager.waits_at_gate)) {
            bool open = true;

            for (const struct domain *d = session->domain; d; d = d->parent)
                open &= atomic_load(&d->credit) >= GATE_STEP;
            if (open && atomic_exchange(&session->pager.waits_at_gate, false))
                worker_kick(&session->pager.worker);
        }
}

void waiters_give_up(struct manager *manager, const struct domain *domain) {
    uint64_t now = kernel_now();
    struct session *session;

    LIST_FOREACH (session, &manager->sessions, link)
        if (domain_is_within(session->domain, domain) && gate_is_hopeless(session->domain, now) &&
            atomic_exchange(&session->pager.waits_at_gate, false)) {
            atomic_store(&session->pager.gate_hopeless, true);
            worker_kick(&session->pager.worker);
        }
}
