/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_DOMAIN_H
#define DROPPABLE_DAEMON_DOMAIN_H

#include "cgroup-place.h"
#include "controller.h"
#include "demand.h"
#include "limit.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct source;

struct domain {
    LIST_ENTRY(domain) link;
    struct domain *parent; /* NULL: this is the machine. A reference */
    unsigned refs;         /* sessions and child domains */
    uint64_t id;
    uid_t by; /* for whose session it was made */
    int version;
    char *mount;
    char *path;            /* of the cgroup; "" for the machine */
    struct cgroup *cgroup; /* NULL for the machine, when it is gone, and when it can't be read */
    bool gone;             /* removed: never found again, and what is still charged to it counts to the parent */
    struct domains *domains;
    struct source *source; /* what watches it; of the loop. NULL: nothing does */
    uint32_t sources;      /* DEMAND_EDGE() of the sources that do */
    uint32_t missing;      /* of those that should and cannot be had, */
    int missing_error;     /* errno: why */
    bool short_windows;    /* PSI tells within half a second */
    uint64_t threshold;    /* v1: of usage, at which the source fires; 0: none */

    _Atomic int64_t credit;     /* what fills and commitments may still take before the next look; may be negative */
    _Atomic int64_t commitment; /* what the disarmed spans of the sessions in it may still fill */
    _Atomic uint64_t wanted;    /* bytes that waiting pagers ask for */
    _Atomic uint64_t hopeless_until; /* ns: nothing of it can be dropped, as far as was found */
    _Atomic uint32_t edges;          /* DEMAND_EDGE() of sources that fired since the last look */
    _Atomic uint64_t refaults; /* mistakes: chunks touched again soon after they were dropped since a domain was short */

    struct cgroup_look look; /* the newest; of the machine: no high */
    int64_t credit_seen;     /* with it */
    bool commit_limited;     /* the machine, where the kernel does not overcommit: */
    uint64_t committable;    /* bytes until CommitLimit, to which native regions do not count */
    struct controller controller;
    bool waiters;         /* a pager waits for credit of it, as of the turn's begin */
    bool fruitless;       /* a plan of its own need has ended since the last turn, and got nothing done */
    unsigned barren;      /* such plans in a row */
    unsigned noted;       /* plans in a row that freed nothing, and found out something */
    uint64_t barren_at;   /* ns: the last of them */
    uint64_t due;         /* ns: the next look, if nothing asks for an earlier one */
    uint64_t interval;    /* ns, between the last look and due */
    uint64_t limits_read; /* looks ago */

    struct limits budget;    /* what was set for its path, as of limits_version; of budget.c */
    unsigned limits_version; /* 0: never looked */
    bool holds_clients;      /* itself, as of the last look at budgets */
};
LIST_HEAD(domain_list, domain);

/* The tree of domains. Touched by the loop and the pressure thread, under the manager's lock. */
struct domains {
    struct cgroup_roots roots;
    struct meminfo meminfo;
    struct domain_list list;
    struct domain *machine;
    struct domain *nearest;     /* that glances are for; NULL: none. Of the pressure thread */
    struct domain_list retired; /* without reference, and still with a source: for the loop to close and free */
    int wake_fd;                /* eventfd: the loop shall look after the sources; -1: there are none */
    bool changed;               /* some domain's source has to be made, or closed */
    bool commit_limited;        /* vm.overcommit_memory is 2 */
    uint64_t next_id;
    unsigned max; /* as descriptors allow; half of them for one user */
    bool full;    /* some cgroup was left out */
    uint64_t fill_rate;
    uint64_t machine_reserve, cgroup_reserve; /* CONFIG_AUTO, or configured */
};

/* wake_fd: see there; borrowed. */
int domains_init(struct domains *domains, const struct cgroup_roots *roots, int wake_fd, uint64_t fill_rate,
                 uint64_t machine_reserve, uint64_t cgroup_reserve);
void domains_deinit(struct domains *domains);

/*
 * The domain of a place, with its chain of ancestors up to the machine. place NULL: it could not
 * be found out, so it is the machine. Never fails but for want of memory or descriptors. A reference for the caller. cgroup_locate() goes before, without the lock:
 * it reads files whose locks others hold. by: whose session it is for. Of a chain that is too long, or for which there is no room, the end is left
 * out: it counts to the last one that is in.
 */
int domains_find(struct domains *domains, const struct cgroup_place *place, uid_t by, struct domain **ret);
/* The last reference: frees it, or leaves it to the loop. NULL is fine. */
void domain_unref(struct domain *domain);
/* In the loop, under the lock: takes one that is left to it; its source is closed, then it is freed. NULL: there is none. */
struct domain *domains_take_retired(struct domains *domains);
struct domain *domain_free(struct domain *domain);
/* The domain and its ancestors are looked at in the pressure thread's next turn; of others nobody has said anything. Under the manager's lock. */
void domain_look_now(struct domain *domain);
/* Is the domain, or an ancestor of it, the given one? */
bool domain_is_within(const struct domain *domain, const struct domain *ancestor);

/* Takes a look: headroom, reserve, and the credit made anew from them; and whether the cgroup is gone. */
void domain_take_look(struct domains *domains, struct domain *domain);
/* The reserve that fits the domain, whatever is configured. */
uint64_t domain_auto_reserve(const struct domains *domains, const struct domain *domain);
/* No more than what is left until CommitLimit, where that is a limit. */
uint64_t domain_until_commit(const struct domain *domain, uint64_t headroom);
/*
 * The headroom that is compared with the reserve. The reserve is what the fastest allocation takes until a drop has freed something. Who
 * comes too late for memory.max ends a process, who comes too late for memory.high slows one down for a moment; so a quarter
 * of the reserve is kept free before memory.high, and three quarters are added to the headroom until there.
 */
uint64_t domain_headroom(const struct domain *domain);
/*
 * v1: the usage at which a look is due, twice the reserve before the limit; 0: there is no limit. That the sampler is late, or page
 * cache hides the approach, does not matter then.
 */
uint64_t domain_threshold(const struct domain *domain);
/* Does its source watch for another one, by more than it is worth? */
bool domain_is_off_threshold(const struct domain *domain);

#endif
