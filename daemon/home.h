/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_HOME_H
#define DROPPABLE_DAEMON_HOME_H

#include "dropper.h"
#include "region.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

struct domain;
struct manager;
struct session;

/* Written by the threads that work for a home, read by anybody. Same order as struct drp_wire_counters. */
struct home_counters {
    _Atomic uint64_t dropped_bytes;
    _Atomic uint64_t intercepted_faults;
    _Atomic uint64_t refaults;
    _Atomic uint64_t filled_bytes;
    _Atomic uint64_t pinned_skips;
    _Atomic uint64_t unarmed_drops;
    _Atomic uint64_t gate_waits;
    _Atomic uint64_t gate_timeouts;
    _Atomic uint64_t unexpected_errors;
};

/* Where regions live: their lock, and the thread that drops from them. */
struct home {
    LIST_ENTRY(home) link; /* manager.homes, under its lock */
    struct manager *manager;
    uint64_t id;                /* the session's, if it is one's */
    struct session *session;    /* whose regions these are; NULL: a region that several share (shared.h) */
    pthread_mutex_t lock;       /* spans, mappings, queues. Never held across a call that can wait for a client */
    struct region_list regions; /* changed by the loop, under the manager's lock and this one */
    unsigned n_native;          /* of these, of the client's own memory */
    struct native_counting counting;
    struct dropper dropper;
    _Atomic bool quarantined;
    bool quarantine_logged;   /* of the loop */
    _Atomic bool client_dead; /* set before the end, for the dropper's last work */
    struct home_counters counters;
};
LIST_HEAD(home_list, home);

void home_init(struct home *home, struct manager *manager, uint64_t id, struct session *session);
/* After the dropper has ended, or without one. Frees the regions. */
void home_deinit(struct home *home);

/* Starts the dropper unless it runs. */
int home_need_dropper(struct home *home);
/* Links a region in / out, under both locks. Whoever makes it is in the domain. */
void home_add_region(struct home *home, struct region *region, const struct domain *domain);
void home_remove_region(struct home *home, struct region *region);
/* Resident bytes of all its regions. In the loop, or under the manager's lock. */
uint64_t home_resident_bytes(const struct home *home);
/* Of one that has native regions: what is resident of these, as of the last counts. Costs the same however many they are; they are counted again. */
uint64_t home_native_bytes(struct home *home);
/* Under the manager's lock: may memory of it be charged to the domain, or below it? */
bool home_is_in(const struct home *home, const struct domain *domain);

/* Drops that the daemon before did not finish are begun anew, now that the pins are known. */
void home_finish_drops(struct region *region);
/* No drop of it begins any more. In the loop. */
void home_hold(struct home *home);
/* Whose regions these are. */
uid_t home_uid(const struct home *home);
/* Where its memory is charged. Of a shared one, which may be anywhere: the machine. */
const struct domain *home_domain(const struct home *home);

/* Begins the end: the dropper, started if need be, takes the memory down. May be repeated. */
void home_stop(struct home *home, bool client_dead);
/* Has the dropper ended, or is there none? */
bool home_stopped(const struct home *home);

/* The current tick of the clock page. */
uint32_t home_tick(const struct home *home);
/*
 * Under the lock: pressure dropped something of an armed span (not its owner). needed: a domain was short; else it was a budget, or somebody's hand.
 */
void home_note_pressure_drop(struct home *home, struct region *region, uint32_t span, bool needed);

static inline void home_lock(struct home *home) {
    pthread_mutex_lock(&home->lock);
}
static inline void home_unlock(struct home *home) {
    pthread_mutex_unlock(&home->lock);
}
static inline void counter_add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

#endif
