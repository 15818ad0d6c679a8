/* SPDX-License-Identifier: MIT */
/*
 * A session: one client process, with its regions, its pager and its dropper.
 *
 * Who touches what: the loop links and unlinks regions (under the manager's lock and the session's); the pager owns interception, the
 * dropper owns generations; everything they share is under the session's lock, which nobody holds across a call that can wait
 * for the client. The lock inherits priority, since the real-time pressure thread takes it.
 *
 * The end has two steps: session_stop() tells both threads, they take down what can wait for the client; when both have ended,
 * session_free() frees the rest. A thread that is stuck keeps its session, and only it, from being freed.
 */

#include "session.h"

#include "crash-point.h"
#include "gate.h"
#include "manager.h"
#include "process.h"
#include "record-sample.h"
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int session_new(struct session **ret, struct manager *manager, uint64_t id, pid_t pid, uid_t uid, gid_t gid, int pidfd) {
    struct session *session = calloc(1, sizeof(*session));
    int r;

    if (!session)
        return -ENOMEM;
    r = extents_init(&session->extents);
    if (r < 0) {
        free(session);
        return r;
    }
    session->manager = manager;
    session->id = id;
    session->pid = pid;
    session->uid = uid;
    session->gid = gid;
    session->pidfd = pidfd;
    session->no_interception = ENODATA; /* the client has not offered a userfaultfd */
    session->pager.uffd = session->pager.maps_fd = session->pager.pidfd = -1;
    session->pager.worker = (struct worker)WORKER_NULL;
    move_init(&session->move);
    loss_init(&session->loss, session);
    TAILQ_INIT(&session->pager.commands);
    LIST_INIT(&session->shares);
    home_init(&session->home, manager, id, session);
    *ret = session;
    return 0;
}

struct session *session_free(struct session *session) {
    if (!session)
        return NULL;
    worker_join(&session->pager.worker);
    home_deinit(&session->home);
    loss_deinit(&session->loss);
    extents_deinit(&session->extents);
    if (session->pidfd >= 0)
        close(session->pidfd);
    free(session);
    return NULL;
}

int session_take_uffd(struct session *session, int uffd) {
    const struct kernel *kernel = &session->manager->kernel;
    int r;
    bool use_wp;

    r = pager_handshake(uffd, kernel->uffd_wp_shmem, &use_wp);
    if (r < 0) {
        close(uffd);
        return r;
    }
    CRASH_POINT("uffd-handshake");
    session->pager.kernel_fills = kernel->numa;
    session->pager.runs_max = (uint32_t)(kernel_max_map_count() / 8); /* a quarter of it, and a run costs two */
    r = pager_start(session, uffd, use_wp, &session->manager->pool);
    close(uffd); /* never the last: whoever vetted it still has it */
    if (r < 0)
        return r;
    CRASH_POINT("uffd-taken");
    session->intercepted = true;
    session->no_interception = 0;
    return 0;
}

int session_find_domain(const struct session *session, struct domain **ret) {
    struct manager *manager = session->manager;
    struct cgroup_place place = {0};
    bool known;
    int r;

    r = cgroup_locate(&manager->domains.roots, session->pid, &place);
    if (cgroup_is_shortage(r))
        return r;
    known = r >= 0 && !process_ended(session->pidfd); /* else the number may be another process's */
    pthread_mutex_lock(&manager->lock);
    r = domains_find(&manager->domains, known ? &place : NULL, session->uid, ret);
    pthread_mutex_unlock(&manager->lock);
    cgroup_place_deinit(&place);
    return r;
}

bool session_enter(struct session *session, struct domain *domain) {
    struct manager *manager = session->manager;
    int64_t committed;

    pthread_mutex_lock(&manager->lock);
    if (!session->domain || session->domain == domain || process_ended(session->pidfd)) { /* ended, or no move */
        domain_unref(domain);
        pthread_mutex_unlock(&manager->lock);
        return false;
    }
    domain_unref(session->former);
    session->former = session->domain;
    session->at_move.resident = session_resident_bytes(session);
    session->at_move.dropped = atomic_load(&session->home.counters.dropped_bytes);
    session_lock(session);
    committed = atomic_load(&session->committed);
    gate_adjust(session->domain, -committed);
    gate_adjust(domain, committed);
    session->domain = domain;
    session_unlock(session);
    pthread_mutex_unlock(&manager->lock);
    session_wake_pressure(session); /* who waits at the old gate is looked after at the new one */
    return true;
}

bool session_is_in(const struct session *session, const struct domain *domain) {
    return domain_is_within(session->domain, domain) || domain_is_within(session->former, domain);
}

/* Of what is resident: still from before the move. */
static uint64_t bytes_from_before(const struct session *session, uint64_t resident) {
    uint64_t dropped = atomic_load(&session->home.counters.dropped_bytes) - session->at_move.dropped;
    uint64_t left = session->at_move.resident > dropped ? session->at_move.resident - dropped : 0;

    if (!session->former)
        return 0;
    return left < resident ? left : resident;
}

uint64_t session_bytes_in(const struct session *session, const struct domain *domain, uint64_t resident) {
    uint64_t before = bytes_from_before(session, resident), bytes = 0;

    if (domain_is_within(session->domain, domain))
        bytes += resident - before;
    if (domain_is_within(session->former, domain))
        bytes += before;
    return bytes;
}

void session_review_former(struct session *session) {
    /* What was charged to a cgroup that is gone is its parent's. */
    while (session->former && session->former->gone) {
        struct domain *gone = session->former;

        session->former = gone->parent;
        session->former->refs++;
        domain_unref(gone);
    }
    if (session->former && (domain_is_within(session->domain, session->former) || session_resident_bytes(session) == 0)) {
        domain_unref(session->former);
        session->former = NULL;
    }
}

static bool pager_ended(const struct session *session) {
    return !session->pager.worker.started || atomic_load(&session->pager.worker.done);
}

void session_give_promises_back(struct session *session) {
    struct region *region;

    if (!pager_ended(session))
        return;
    session_lock(session);
    LIST_FOREACH (region, &session->home.regions, link)
        for (unsigned i = 0; i < region->n_mappings; i++) {
            atomic_fetch_sub_explicit(&session->committed, (int64_t)region->mappings[i]->committed,
                                      memory_order_relaxed);
            gate_adjust(session->domain, -(int64_t)region->mappings[i]->committed);
            region->mappings[i]->committed = 0;
        }
    session_unlock(session);
}

void session_leave_domains(struct session *session) {
    pthread_mutex_lock(&session->manager->lock);
    session_give_promises_back(session);
    domain_unref(session->domain);
    domain_unref(session->former);
    session->domain = session->former = NULL;
    pthread_mutex_unlock(&session->manager->lock);
}

const char *session_cgroup(const struct session *session) {
    return session->domain ? session->domain->path : NULL;
}

uint64_t session_resident_bytes(const struct session *session) {
    return home_resident_bytes(&session->home);
}

struct region *session_find_region(struct session *session, uint64_t id) {
    struct share *share;
    struct region *region;

    LIST_FOREACH (region, &session->home.regions, link)
        if (region->id == id && !region->dead)
            return region;
    LIST_FOREACH (share, &session->shares, of_session)
        if (share->shared->region->id == id)
            return share->shared->region;
    return NULL;
}

void session_add_region(struct session *session, struct region *region) {
    home_add_region(&session->home, region, session->domain);
    session->n_regions++;
    session->n_locked += region->locked;
    session->region_bytes += region->size;
    session->tables_most += region_tables_most(region->size, region->chunk_shift);
}

void session_remove_region(struct session *session, struct region *region) {
    home_remove_region(&session->home, region);
    session->n_regions--;
    session->n_locked -= region->locked;
    session->region_bytes -= region->size;
    session->tables_most -= region_tables_most(region->size, region->chunk_shift);
}

void session_stop(struct session *session, bool client_dead) {
    worker_stop(&session->pager.worker);
    home_stop(&session->home, client_dead);
}

bool session_stopped(const struct session *session) {
    return pager_ended(session) && home_stopped(&session->home);
}

void session_set_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned pages) {
    int64_t change = ((int64_t)pages - mapping->span_commit[span]) * (INT64_C(1) << PAGE_SHIFT);

    if (change == 0)
        return;
    mapping->span_commit[span] = (uint16_t)pages;
    mapping->committed = (uint64_t)((int64_t)mapping->committed + change);
    atomic_fetch_add_explicit(&session->committed, change, memory_order_relaxed);
    gate_adjust(session->domain, change);
}

void session_wake_pressure(struct session *session) {
    pressure_wake(&session->manager->pressure);
}

/*
 * If pressure had dropped it a moment ago, that was a mistake: every domain that may have asked for it hears of it. Of drops for budgets and by hand none
 * does: a client that goes round in a small budget of his own would keep all from answering stalls.
 */
void session_note_refault(struct session *session, struct region *region, uint64_t chunk) {
    uint32_t span = region_span_of_chunk(region, chunk), age;
    uint32_t dropped = atomic_load_explicit(&region->ticks[span].last_drop, memory_order_relaxed);
    bool mistake = policy_note_refault(region->ticks, region->span_count, span, &region->chunk_flags[chunk],
                                       home_tick(&session->home), &age);
    bool needed = region->spans[span].needed, regretted = false;

    region->spans[span].needed = false;
    counter_add(&session->home.counters.refaults, 1);
    counter_add(&region->refaults, 1);
    if (dropped == 0)
        return;
    decisions_note_refault(&session->manager->decisions, age, mistake);
    for (struct domain *d = session->domain; d && mistake; d = d->parent) {
        regretted = regretted || decisions_regret(&session->manager->decisions, d->id, needed, dropped);
        if (needed)
            counter_add(&d->refaults, 1);
    }
}

void session_note_gate_wait(struct session *session, uint64_t ns) {
    histogram_add(&session->manager->decisions.gate_us, ns / 1000);
}
