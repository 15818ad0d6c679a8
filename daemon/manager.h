/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_MANAGER_H
#define DROPPABLE_DAEMON_MANAGER_H

#include "budget.h"
#include "completion.h"
#include "config.h"
#include "decision.h"
#include "demand.h"
#include "domain.h"
#include "kernel.h"
#include "pages.h"
#include "pressure.h"
#include "session.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct manager {
    struct kernel kernel;
    struct config *config;
    uint64_t started;
    bool native;    /* regions of the kernel's own droppable memory are taken (native.h) */
    int lock_error; /* why the program could not be kept in memory: negative errno */

    pthread_mutex_t lock; /* order: this, then a home's */
    struct session_list sessions;
    struct session_list leaving;   /* whose connections have ended, and who have not. Of the loop */
    struct home_list homes;        /* theirs and those of shared regions, the newest first */
    struct home_list ending_homes; /* of shared regions that nobody has any more. Of the loop */
    struct domains domains;
    bool to_follow; /* some session has memory since. Of the loop */
    unsigned n_sessions;
    unsigned n_homes;
    unsigned n_regions;
    unsigned n_native;          /* of these, of clients' own memory */
    unsigned max_regions;       /* as descriptors and VMAs allow, with a reserve; half of it for one user */
    uint64_t next_id;           /* of sessions, regions, mappings */
    struct home_counters ended; /* sums of homes that are gone */

    struct worker_pool pool;
    int wake_fd; /* eventfd: completions or ended workers wait for the loop */
    pthread_mutex_t completions_lock;
    struct completion_list completions;

    struct drp_clock_page *clock;
    int clock_fd; /* read-only, for clients */

    struct pressure pressure;
    uint64_t edges[DEMAND_SOURCE_MAX + 1]; /* how often each source has fired; of the loop */
    struct decisions decisions;            /* under the lock */
    struct budgets budgets;                /* under the lock */
};

/* config is borrowed. Measures the kernel; may take 100 ms. */
int manager_init(struct manager *manager, struct config *config);
/* Starts the pressure thread. */
int manager_start(struct manager *manager);
/* All sessions must be gone. */
void manager_deinit(struct manager *manager);

/* A mutex that inherits priority: the real-time pressure thread takes it. */
void manager_init_lock(pthread_mutex_t *lock);
/* From any thread: run completion->run in the loop. */
void manager_complete(struct manager *manager, struct completion *completion);
/* In the loop: runs what waits. Leaves wake_fd as it is: it may have been written for somebody else's sake. */
void manager_dispatch(struct manager *manager);

/* Under the lock: links a home, of which no later one has a smaller id; and unlinks it, and keeps its figures. */
void manager_add_home(struct manager *manager, struct home *home);
void manager_remove_home(struct manager *manager, struct home *home);
/* Links it and its home. -ENOMEM: not linked. */
int manager_add_session(struct manager *manager, struct session *session);
/* Unlinks its home. It is leaving until it is forgotten. Frees nothing. */
void manager_remove_session(struct manager *manager, struct session *session);
void manager_forget_session(struct manager *manager, struct session *session);

/*
 * In the loop: does a thread of somebody who has it no more still work on the object that the session's process offers? What it punches would be another's by
 * then. So it is for an earlier session of the process, which has not ended: a child has a copy of its socket.
 */
bool manager_is_at_object(const struct session *session, int fd);

/* Brings the clock page up to date. Returns the tick. */
uint32_t manager_advance_clock(struct manager *manager);

#endif
