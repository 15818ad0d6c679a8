/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PRESSURE_H
#define DROPPABLE_DAEMON_PRESSURE_H

#include "demand.h"
#include "plan.h"
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct domain;
struct manager;

struct pressure {
    pthread_t thread;
    bool started;
    bool realtime; /* SCHED_FIFO could be had */
    struct manager *manager;
    _Atomic bool stop;
    _Atomic uint32_t wakes;   /* futex */
    _Atomic bool kicked;      /* with the last of them: look at everything */
    _Atomic bool quarantines; /* some session's quarantine began or ended: the loop shall look */
    _Atomic uint64_t looks;
    _Atomic uint64_t turns; /* ended */

    /* of the thread */
    uint64_t now;           /* of the present cycle */
    uint64_t watched;       /* ns: when the workers' clocks were looked at; */
    bool quarantined;       /* somebody was held up then */
    uint64_t glances_until; /* ns: a turn is due */
    int64_t glance_credit;  /* of domains.nearest, at the last turn */
    size_t first;           /* domains that had their turn in the last cycle, where one was not enough for all */
    LIST_HEAD(pressure_hand_list, pressure_hand) hands; /* under the manager's lock */
    struct plans plans;
};

int pressure_start(struct pressure *pressure, struct manager *manager);
void pressure_stop(struct pressure *pressure);
/* Makes the thread look now. From any thread whatever its table. */
void pressure_kick(struct pressure *pressure);
/* Makes it have a turn now, in which it looks at what is due: a client can ask for that as often as he likes. */
void pressure_wake(struct pressure *pressure);
/* A source says: look at this domain now. From any thread; the caller sees to it that the domain lives. */
void pressure_edge(struct pressure *pressure, struct domain *domain, enum demand_source source);

/* Somebody's hand: so many bytes of a domain shall go, in the policy's order. Owned by who asks, until done(). */
struct pressure_hand {
    LIST_ENTRY(pressure_hand) link;
    struct domain *domain; /* a reference */
    uint64_t wanted;       /* bytes */
    uint64_t freed, pinned, failed;
    unsigned pending;  /* slices under way */
    unsigned barren;   /* slices in a row that got nothing done */
    unsigned noted;    /* that freed nothing, and found out something */
    uint64_t decision; /* its number; 0: none yet */
    void (*done)(struct pressure_hand
                     *hand); /* in the pressure thread, under the manager's lock; all is freed, or nothing is left */
};
/* Under the manager's lock. */
void pressure_ask(struct pressure *pressure, struct pressure_hand *hand);

#endif
