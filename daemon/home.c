/* SPDX-License-Identifier: MIT */
/*
 * A home: the lock that protects regions, and the dropper that punches them, with its own table of descriptors.
 *
 * The regions of one client have the home of its session; a region that several share has one of its own. The lock inherits priority, since the real-time pressure thread takes it.
 *
 * The end has two steps: home_stop() tells the dropper, which takes down what can wait for a client; when it has ended, home_deinit() frees
 * the rest. A thread that is stuck keeps its home, and only it, from being freed.
 */

#include "home.h"

#include "crash-point.h"
#include "manager.h"
#include "mapping.h"
#include "record-sample.h"
#include "record.h"
#include "session.h"
#include "shared.h"
#include "sweep.h"

#include <unistd.h>

void home_init(struct home *home, struct manager *manager, uint64_t id, struct session *session) {
    home->manager = manager;
    home->id = id;
    home->session = session;
    home->dropper.worker = (struct worker)WORKER_NULL;
    LIST_INIT(&home->regions);
    TAILQ_INIT(&home->dropper.jobs);
    TAILQ_INIT(&home->dropper.asked);
    TAILQ_INIT(&home->dropper.pool_free);
    manager_init_lock(&home->lock);
}

void home_deinit(struct home *home) {
    struct region *region;

    worker_join(&home->dropper.worker);
    while ((region = LIST_FIRST(&home->regions))) {
        for (unsigned i = 0; i < region->n_mappings; i++)
            mapping_free(region->mappings[i]);
        LIST_REMOVE(region, link);
        record_end(region->id);
        region_release_object(region); /* only where no dropper could be started */
        region_free(region);
    }
    dropper_deinit(&home->dropper);
    pthread_mutex_destroy(&home->lock);
}

int home_need_dropper(struct home *home) {
    return home->dropper.worker.started ? 0 : dropper_start(home, &home->manager->pool);
}

void home_add_region(struct home *home, struct region *region, const struct domain *domain) {
    region->home = home;
    home->n_native += region->native.address != 0;
    home->manager->n_native += region->native.address != 0;
    home_lock(home);
    sweep_init(region, home_tick(home));
    LIST_INSERT_HEAD(&home->regions, region, link);
    home_unlock(home);
    record_region(region, domain);
}

void home_remove_region(struct home *home, struct region *region) {
    home_lock(home);
    LIST_REMOVE(region, link);
    home_unlock(home);
    home->n_native -= region->native.address != 0;
    home->manager->n_native -= region->native.address != 0;
    record_end(region->id);
}

uint64_t home_resident_bytes(const struct home *home) {
    struct region *region;
    uint64_t bytes = 0;

    LIST_FOREACH (region, &home->regions, link)
        bytes += region_resident_bytes(region);
    return bytes;
}

uint64_t home_native_bytes(struct home *home) {
    struct native_counting *counting = &home->counting;

    if (kernel_now() >= atomic_load(&counting->not_before)) {
        atomic_store(&counting->all, true);
        if (!atomic_exchange(&counting->asked, true))
            worker_kick(counting->worker);
    }
    return atomic_load(&counting->resident);
}

bool home_is_in(const struct home *home, const struct domain *domain) {
    const struct share *share;

    if (home->session)
        return session_is_in(home->session, domain);
    /* Whoever touched a page first is charged: that can be any of them. */
    LIST_FOREACH (share, &shared_of(home)->shares, of_shared)
        if (session_is_in(share->session, domain))
            return true;
    return false;
}

const struct domain *home_domain(const struct home *home) {
    return home->session ? home->session->domain : home->manager->domains.machine;
}

uid_t home_uid(const struct home *home) {
    return home->session ? home->session->uid : shared_of(home)->uid;
}

void home_finish_drops(struct region *region) {
    if (region->n_unfinished > 0)
        CRASH_POINT("adopt-unfinished");
    for (unsigned i = 0; i < region->n_unfinished; i++)
        dropper_submit(region->home, region, region->unfinished[i].first,
                       region->unfinished[i].first + region->unfinished[i].count, URGENCY_NONE, NULL, false);
    region->n_unfinished = 0;
}

void home_hold(struct home *home) {
    struct region *region;

    home_lock(home);
    LIST_FOREACH (region, &home->regions, link) {
        region->held = true;
    }
    home_unlock(home);
}

/* Hands every object to the dropper and lets go of ours, so that its close is the last. false: it does not keep up, try again. */
static bool hand_over_objects(struct home *home) {
    struct region *region;
    bool all = true;

    LIST_FOREACH (region, &home->regions, link) {
        if (!region->data_sent && worker_send_fd(&home->dropper.worker, region->data_fd, region) >= 0)
            region->data_sent = true;
        if (region->data_sent && region->data_fd >= 0) {
            close(region->data_fd);
            region->data_fd = -1;
        }
        all &= region->data_sent;
    }
    return all;
}

void home_stop(struct home *home, bool client_dead) {
    if (client_dead)
        atomic_store(&home->client_dead, true);
    if (LIST_EMPTY(&home->regions) || home_need_dropper(home) < 0 || hand_over_objects(home))
        worker_stop(&home->dropper.worker);
}

bool home_stopped(const struct home *home) {
    return !home->dropper.worker.started || atomic_load(&home->dropper.worker.done);
}

uint32_t home_tick(const struct home *home) {
    return atomic_load_explicit(&home->manager->clock->tick, memory_order_relaxed);
}

void home_note_pressure_drop(struct home *home, struct region *region, uint32_t span, bool needed) {
    policy_note_drop(&region->ticks[span], home_tick(home));
    region->spans[span].needed |= needed;
    counter_add(&home->manager->decisions.dropped_spans, 1);
}
