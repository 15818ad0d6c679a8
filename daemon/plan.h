/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PLAN_H
#define DROPPABLE_DAEMON_PLAN_H

/*
 * From a demand to the droppers: describes the regions that may be asked to the policy, hands its plan out as jobs, and keeps the account
 * of what came of it. All by the pressure thread, under the manager's lock, but for the end of the jobs.
 */

#include "demand.h"
#include "dropper.h"
#include "policy.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct budget_excess;
struct domain;
struct manager;
struct pressure_hand;

#define PLAN_VICTIMS DROPPER_POOL
/* Handed out in one turn of the pressure thread. */
#define PLAN_SLICES_AT_ONCE 16

/* What is to be freed, for whom, and from whom. */
struct plan_demand {
    struct domain *domain;
    enum demand_source source;
    enum demand_urgency urgency;
    uint64_t bytes;                     /* of this slice, at most */
    uint64_t total;                     /* what is wanted in all, as far as that is known */
    bool shared_out;                    /* of a stall, without a deficit: the controller keeps an account of it */
    const struct budget_excess *excess; /* only from who it covers; NULL: from all in the domain */
    bool over;                          /* only from who is over any budget, and no more than he is */
    struct pressure_hand *hand;         /* who asked; NULL: nobody */
    uint64_t seen;                      /* ns: when the look that found it began */
};

enum plan_slice_state {
    PLAN_UNDER_WAY,
    PLAN_LEFT, /* likewise, and nobody waits for it any more */
    PLAN_FINISHED,
};

/* One plan, handed out. Stands until every job of it is finished or given up, also when the thread has gone on. */
struct plan_slice {
    LIST_ENTRY(plan_slice) link;
    struct drop_request request;
    _Atomic enum plan_slice_state state;
    struct domain *domain; /* a reference */
    struct pressure_hand *hand;
    bool needed;       /* by the domain: neither for a hand nor for a budget alone */
    bool over;         /* only who is over a budget was asked */
    uint32_t scope;    /* of the budget that it is for; 0: it is for none */
    uint64_t decision; /* its number */
    uint64_t seen;
    uint64_t handed_out; /* ns */
    uint64_t planned;    /* bytes */
    _Atomic uint64_t ended;
};
LIST_HEAD(plan_slices, plan_slice);

struct plans {
    struct manager *manager;
    _Atomic uint32_t finished; /* futex: counts slices that are finished */
    _Atomic uint64_t made;
    struct policy_region *regions; /* grown under the manager's lock while there is memory */
    struct region **region_of;
    size_t regions_max;
    uint64_t sample_round; /* of sweep_sample() */
    bool busy;             /* the last plan left somebody out who is busy with an earlier slice */
    struct policy_victim victims[PLAN_VICTIMS];
    struct plan_slices slices, spare; /* handed out; to be */
    size_t n_slices;                  /* of both: of a slice that lasts some session is busy with that one alone */
};

void plans_init(struct plans *plans, struct manager *manager);
void plans_deinit(struct plans *plans);
/* Makes room for so many regions, and for slices of all sessions. Called by the loop, under the manager's lock, before one is added. */
int plans_reserve(struct plans *plans, size_t regions);
/*
 * A home is gone: frees a slice, and room for regions that are not there any more. As small as a slice is, it keeps a page from the kernel. By the
 * loop, under the manager's lock: the pressure thread is not to wait for an allocator.
 */
void plans_trim(struct plans *plans);

/* Resident bytes of what could be dropped in a domain; *ret_chunk: the largest chunk of these, in bytes. */
uint64_t plan_droppable(struct plans *plans, const struct domain *domain, uint64_t *ret_chunk);
/* Of that, what is clients' own memory, as of the last count. */
uint64_t plan_native(struct plans *plans, const struct domain *domain);
/* Plans for a demand and hands the plan out. NULL: nothing to drop was found, unless plans->busy says that it is being dropped. */
struct plan_slice *plan_hand_out(struct plans *plans, const struct plan_demand *demand, uint32_t tick);
/* Enters what finished slices have freed where it belongs (and with a domain in need, whether they got anything done), and makes them free again. Returns how many are still under way. */
unsigned plan_settle(struct plans *plans);
/* Of a great slice that was handed out for the need of the domain no more than so many bytes are needed any more. */
void plan_trim(struct plans *plans, const struct domain *domain, uint64_t enough);
/*
 * Bytes that slices handed out for the need of the domain (all: or of one in it) are still to free: not of those that are late, by so many ns for the first of
 * it, and for the rest the time in which somebody could fill as much. Of those for hands and budgets nobody knows when they come.
 */
uint64_t plan_under_way(const struct plans *plans, const struct domain *domain, bool all, uint64_t now, uint64_t within);
bool plan_finished(const struct plan_slice *slice);
/* The thread goes on: if it is not finished yet, and then got anything done, the thread is woken. */
void plan_leave(struct plan_slice *slice);
/* Did a slice that is finished get something done? What turned out to be gone already is progress, too: the next plan names others. */
bool plan_progressed(const struct plan_slice *slice);

#endif
