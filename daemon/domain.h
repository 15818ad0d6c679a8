/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_DOMAIN_H
#define DROPPABLE_DAEMON_DOMAIN_H

#include "cgroup.h"
#include "demand.h"
#include "limit.h"
#include "policy.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct kernel;

struct domain {
    LIST_ENTRY(domain) link;
    struct domain *parent; /* NULL: this is the machine. A reference */
    unsigned refs;         /* sessions and child domains */
    uint64_t id;
    int version;
    char *mount;
    char *path;            /* of the cgroup; "" for the machine */
    struct cgroup *cgroup; /* NULL for the machine, and when the cgroup is gone */

    _Atomic int64_t credit;     /* what fills and commitments may still take before the next look; may be negative */
    _Atomic int64_t commitment; /* what the disarmed spans of the sessions in it may still fill */
    _Atomic bool waiters;       /* a pager waits for credit */
    _Atomic uint64_t wanted;    /* bytes that waiting pagers ask for */
    _Atomic uint32_t edges;     /* DEMAND_EDGE() of sources that fired since the last look */
    _Atomic uint64_t refaults;  /* mistakes: chunks touched again soon after pressure had dropped them */

    struct cgroup_look look; /* the newest; of the machine: no high */
    struct policy_limits limits;
    bool took_back;        /* the last look at waiters left it at taking commitments back */
    unsigned barren;       /* plans in a row that got nothing done */
    uint64_t not_before;   /* ns: no look until then */
    unsigned deficits;     /* looks in a row that found less than the reserve */
    uint64_t last_deficit; /* ns */

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
    uint64_t next_id;
    uint64_t fill_rate;
    uint64_t machine_reserve, cgroup_reserve; /* CONFIG_AUTO, or configured */
};

int domains_init(struct domains *domains, const struct cgroup_roots *roots, uint64_t fill_rate,
                 uint64_t machine_reserve, uint64_t cgroup_reserve);
void domains_deinit(struct domains *domains);

/*
 * The domain in which a process is charged, with its chain of ancestors up to the machine. Where that can't be found out it is the
 * machine: never fails but for memory. A reference for the caller.
 */
int domains_find(struct domains *domains, pid_t pid, struct domain **ret);
void domain_unref(struct domain *domain);
/* Is the domain, or an ancestor of it, the given one? */
bool domain_is_within(const struct domain *domain, const struct domain *ancestor);

/* After a look: the margin grows while the headroom stays under the reserve, and is small again 100 ms after it was. */
void domain_note_deficit(struct domain *domain, uint64_t now);
/* Takes a look: headroom, reserve, and the credit made anew from them. */
void domain_take_look(struct domains *domains, struct domain *domain);
/*
 * The headroom that is compared with the reserve. The reserve is what the fastest allocation takes until a drop has freed something. Who
 * comes too late for memory.max ends a process, who comes too late for memory.high slows one down for a moment; so a quarter
 * of the reserve is kept free before memory.high, and three quarters are added to the headroom until there.
 */
uint64_t domain_headroom(const struct domain *domain);

#endif
