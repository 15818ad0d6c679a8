/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PRESSURE_H
#define DROPPABLE_DAEMON_PRESSURE_H

#include "demand.h"
#include "dropper.h"
#include "policy.h"
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct domain;
struct manager;

#define PRESSURE_VICTIMS 256
#define PRESSURE_JOBS 1024
#define PRESSURE_SLICES 64

/* One plan, handed out. Stands until every job of it is finished or given up, also when the thread has gone on. */
struct pressure_slice {
    struct drop_request request;
    _Atomic bool in_use;
};

struct pressure {
    pthread_t thread;
    bool started;
    bool realtime; /* SCHED_FIFO could be had */
    struct manager *manager;
    _Atomic bool stop;
    _Atomic uint32_t kicks;       /* futex */
    _Atomic uint32_t slices_done; /* futex: counts slices that are finished */
    _Atomic bool psi_edge;        /* a PSI trigger fired */
    _Atomic bool quarantines;     /* some session's quarantine began or ended: the loop shall look */
    _Atomic uint64_t looks;
    _Atomic uint64_t plans;

    /* of the thread */
    uint64_t now;                  /* of the present cycle */
    uint64_t watched;              /* ns: when the workers' clocks were looked at */
    size_t first;                  /* domains that had their turn in the last cycle, where one was not enough for all */
    struct policy_region *regions; /* grown under the manager's lock while there is memory */
    struct region **region_of;
    size_t regions_max;
    struct policy_victim victims[PRESSURE_VICTIMS];
    struct drop_job jobs[PRESSURE_JOBS];
    size_t next_job;
    struct pressure_slice slices[PRESSURE_SLICES];
    LIST_HEAD(, pressure_hand) hands; /* under the manager's lock */
};

int pressure_start(struct pressure *pressure, struct manager *manager);
void pressure_stop(struct pressure *pressure);
/* Makes the thread look now. From any thread whatever its table. */
void pressure_kick(struct pressure *pressure);
/* A PSI trigger fired. */
void pressure_psi(struct pressure *pressure);
/* A source says: look at this domain now. From any thread; the caller sees to it that the domain lives. */
void pressure_edge(struct pressure *pressure, struct domain *domain, enum demand_source source);

/* Somebody's hand: so many bytes of a domain shall go, in the policy's order. Owned by who asks, until done(). */
struct pressure_hand {
    LIST_ENTRY(pressure_hand) link;
    struct domain *domain; /* a reference */
    uint64_t wanted;       /* bytes */
    uint64_t freed, pinned, failed;
    void (*done)(struct pressure_hand
                     *hand); /* in the pressure thread, under the manager's lock; all is freed, or nothing is left */
};
/* Under the manager's lock. */
void pressure_ask(struct pressure *pressure, struct pressure_hand *hand);

/* Makes room for so many regions. Called by the loop, under the manager's lock, before one is added. */
int pressure_reserve(struct pressure *pressure, size_t regions);

#endif
