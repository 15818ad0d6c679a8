/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_BUDGET_H
#define DROPPABLE_DAEMON_BUDGET_H

/*
 * Budgets (resident bytes, enforced by drops) and quotas (address space and pins, enforced by EDQUOT) of regions, clients, users and
 * cgroups: who may set them, who is over, who is asked next.
 */

#include "limit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

struct config;
struct domain;
struct manager;
struct region;
struct session;

enum budget_scope {
    BUDGET_REGION = 1, /* id: of the region. Budget, share, priority */
    BUDGET_CLIENT =
        2, /* id: a pid; all sessions of that process together. Budget, quota, share, priority (of all its regions) */
    BUDGET_USER = 3,   /* id: a uid. Budget, quota */
    BUDGET_CGROUP = 4, /* a path as in /proc/PID/cgroup, "/" being the machine. Budget, quota. Of an administrator only */
    BUDGET_SESSION = 5, /* id: of a session: what a program says of itself, below what holds for the process. The same */
};

/* A user, while a client of it is there or something is set for it. */
struct budget_user {
    LIST_ENTRY(budget_user) link;
    uid_t uid;
    unsigned sessions; /* and shared regions */
    bool kept;         /* something was set */
    struct limits limits;
    uint64_t asked;         /* ns: when anything of its last had its turn; */
    uint64_t regions_asked; /* one of its shared regions */
    uint64_t counted;       /* budgets.counts, when it was last counted */
    uint64_t pinned;        /* bytes */
    uint64_t pinning;       /* of that in one shared region, while it is added up */
    _Atomic bool pins_closed;
};

/* A process, while a session of it is there; and as long as it lives if an administrator has set something for it. */
struct budget_client {
    TAILQ_ENTRY(budget_client) link;
    pid_t pid;  /* 0: of another PID namespace, not known here: of one session alone */
    uid_t uid;  /* of its first session */
    bool mixed; /* others were of other users */
    unsigned sessions;
    int handle; /* of the process (process.h), if something is kept; else -1 */
    struct limits limits;
    uint64_t counted;       /* budgets.counts, when it was last counted */
    uint64_t *turn_of_user; /* of one of its sessions, as of this look */
};

/* What was set for a cgroup, by path: until the daemon ends. */
struct budget_cgroup {
    LIST_ENTRY(budget_cgroup) link;
    char *path;
    struct limits limits;
};

/* How far the count of pins is. */
struct budget_pins {
    uint64_t due;    /* ns: the next slice */
    uint32_t pass;   /* regions with another pins_pass are not counted yet; 0: nothing is counted */
    uint64_t region; /* id of the one that was left half counted; 0: none */
    uint64_t page;   /* of its pin page: where to go on */
    uint64_t chunks; /* pinned in it so far */
};

LIST_HEAD(budget_user_list, budget_user);
TAILQ_HEAD(budget_client_queue, budget_client);
LIST_HEAD(budget_cgroup_list, budget_cgroup);

/* All under the manager's lock. */
struct budgets {
    bool active;              /* somebody may have a budget: without, a look costs nothing */
    bool over;                /* somebody was over, as of the last look */
    uint64_t due;             /* ns: the next look */
    uint64_t not_before;      /* ns: no look until then, whatever changes; */
    uint64_t plan_not_before; /* and no plan for who is over his, without need */
    struct budget_user_list users;
    struct budget_client_queue clients, absent; /* with sessions; and without, for which something is kept */
    struct budget_cgroup_list cgroups;
    unsigned n_kept;  /* users, processes and cgroups for which something was set */
    unsigned version; /* of what was set for cgroups; domains copy it (domain->limits_version) */
    uint64_t counts;  /* of groups that are to be counted once: begun so far */
    struct budget_pins pins;
    _Atomic bool pins_changed; /* somebody's were closed or opened: the loop shall look */
};

void budgets_init(struct manager *manager);
void budgets_deinit(struct manager *manager);
/*
 * In budget-sections.c: sections of one user or cgroup take effect in two steps. The first makes room for those of a config (-ENOMEM: and nothing has
 * changed), the second, under the manager's lock, is for a config that there is room for.
 */
int budgets_hold_sections(struct manager *manager, const struct config *config);
void budgets_take_sections(struct manager *manager, const struct config *config);
/* The config has changed: looks anew. Under the manager's lock. */
void budgets_reload(struct manager *manager);

/* A session comes (-ENOMEM) and goes. Under the manager's lock. */
int budget_join(struct manager *manager, struct session *session);
void budget_leave(struct manager *manager, struct session *session);
/* In the loop: forgets processes that have ended. true: some have no session and live, call again in a while. Takes the manager's lock. */
bool budgets_tidy(struct manager *manager);
/* The user, for somebody whose regions have no session. -ENOMEM. Under the manager's lock, both. */
int budget_hold_user(struct manager *manager, uid_t uid, struct budget_user **ret);
void budget_release_user(struct budget_user *user);

/* What limits are of. */
struct budget_object {
    enum budget_scope scope;
    uint64_t id;             /* of the process, user */
    const char *path;        /* of the cgroup */
    struct region *region;   /* NULL: there is none */
    struct session *session; /* BUDGET_SESSION */
};

/*
 * Sets what values' mask names, or nothing; with an empty mask it only answers. by: the uid that asks; administrator: whatever is the owner's,
 * he may, and more. ret_effective: what then holds (mask: the kinds that the
 * scope has). From the loop; takes the manager's lock.
 * -EPERM: not the owner, or the owner goes above what the config or an administrator allows. -ENOENT: no such region, client, or client of
 * that user (an administrator may set for a user that is not there). -ERANGE: value out of range. -EINVAL: the scope has no such value, or
 * no absolute path. -ENOSPC: set for too many. -ENOMEM, -EMFILE.
 */
int budget_set(struct manager *manager, uid_t by, bool administrator, const struct budget_object *object,
               const struct limit_values *values, struct limit_values *ret_effective);

/* What holds for a session: what its program has said, where that is less than what holds for its process. */
uint64_t budget_of_session(const struct config *config, const struct session *session, enum limit_kind kind);

/* Somebody who is over a budget. Pointers are good as long as the manager's lock is held. */
struct budget_excess {
    uint64_t bytes; /* to drop */
    enum budget_scope scope;
    uint64_t id; /* of the region, session, or domain; the pid or the uid */
    uint64_t budget, resident;
    struct domain *domain;        /* BUDGET_CGROUP: that; else NULL */
    struct budget_client *client; /* BUDGET_CLIENT: that; else NULL */
    struct limit_standing *standing;
    uint64_t *turn;         /* ns: when it, or with it others of the same owner, last had its turn; */
    uint64_t *turn_of_user; /* and anything of the user whose it is */
};
#define BUDGET_AT_ONCE 8
/*
 * Under the manager's lock, by the pressure thread in every cycle. If a look is due: those that are over whose turn it is, at most BUDGET_AT_ONCE. Returns ns until it
 * wants to be called again: UINT64_MAX if nobody has a budget. Allocates nothing, waits for nobody.
 */
uint64_t budget_look(struct manager *manager, uint64_t now, struct budget_excess *ret, size_t *ret_n);
/* It had its turn. busy: it is still giving for an earlier one. */
void budget_note_asked(const struct budget_excess *excess, uint64_t now, bool busy);
/* A plan for an excess without need took so many ns: whoever can stay over a budget of his own must not keep everybody's thread at it. */
void budget_note_plan(struct manager *manager, uint64_t cost);
/* So not before so long after the last one. */
bool budget_may_plan(const struct manager *manager, uint64_t now);
/* Does the excess concern the region? */
bool budget_covers(const struct budget_excess *excess, const struct region *region);

/*
 * When something is short: bytes by which any group is over that the region counts for, the most of these; and those by which all are over that have something in the
 * domain (of groups within each other both). As of the last look, less what plans have named since, of which this hears.
 */
uint64_t budget_over(struct region *region);
uint64_t budget_over_in(struct manager *manager, const struct domain *domain);
void budget_note_planned(struct region *region, uint64_t bytes);

/* 1..10000: of the region, times that of its client in hundredths. */
uint32_t budget_share(const struct region *region);
/* Was the session, or its process, given a priority for all its regions? */
bool budget_has_priority(const struct session *session);
/* 1..3: as created, unless it or its client was given another one. */
uint32_t budget_priority(const struct region *region);

/* ---- quotas ---- */

/*
 * May the session, whose user has so many, have a region of so many bytes? NULL: yes; else the config's name of the quota that is in the way. From the loop; takes the
 * manager's lock.
 */
const char *budget_check_bytes(struct manager *manager, const struct session *session, uint64_t of_user, uint64_t size);

/* In budget-pins.c. */

/*
 * Goes on counting pinned bytes, and closes and opens pins by quota. Under the manager's lock, by the pressure thread in every cycle; takes
 * 0.5 ms, or a few more where somebody has thousands of regions. Returns ns until it wants to be called again: UINT64_MAX if there is no quota of pins.
 */
uint64_t budget_count_pins(struct manager *manager, uint64_t now);
/* Brings a region's state page up to date with what its client and user may. Under the manager's lock. */
void budget_mark_pins(struct region *region);
/* May the session pin nothing more, as of the last count? From any thread. */
bool budget_pins_are_closed(const struct session *session);

#endif
