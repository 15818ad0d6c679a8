/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_SESSION_H
#define DROPPABLE_DAEMON_SESSION_H

#include "home.h"
#include "limit.h"
#include "loss.h"
#include "mapping.h"
#include "move.h"
#include "pager.h"
#include "shared.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

struct budget_client;
struct budget_user;
struct domain;
struct manager;

struct session {
    LIST_ENTRY(session) link; /* manager.sessions, then manager.leaving; under its lock */
    uint64_t left;            /* ns: when its connection ended; 0: not yet */
    struct manager *manager;
    uint64_t id;
    pid_t pid;
    uid_t uid;
    gid_t gid;
    int pidfd;
    char name[33];

    struct share_list shares; /* of regions that are not its own alone */
    struct home home; /* of its own regions; its lock is the session's, for extents and the pager's queue, too */
    unsigned n_regions;
    unsigned n_locked;     /* of these, in locked segments */
    uint64_t region_bytes; /* address space of all regions */
    uint64_t tables_most;  /* what the daemon's tables of these may grow to */
    struct extents extents;
    _Atomic int64_t committed; /* bytes, of all its mappings */
    struct domain *domain;     /* a reference; changed by the loop under both locks */
    struct domain *former; /* where memory of it may still be charged, or NULL. A reference; under the manager's lock */
    struct {
        uint64_t resident; /* bytes, when it moved */
        uint64_t dropped;  /* by then */
    } at_move;             /* under the manager's lock */
    struct move move;
    struct budget_client *client; /* its process, of the manager's budgets, while linked */
    struct budget_user *user;     /* the same */
    struct limits budget;         /* own words of it alone; under the manager's lock, as all of these */
    uint64_t regions_asked;       /* ns: when one of its regions last had its turn to come down to its budget */
    uint64_t pinned;              /* bytes, of the last count */
    uint64_t pinning;             /* of that in one shared region, while it is added up */
    _Atomic bool pins_closed;     /* by its own quota */
    bool pins_logged;             /* of the loop */
    bool quota_logged;            /* of the loop: later refusals are not worth a line */
    bool native_logged;           /* the same */

    bool attaches;       /* the client can attach locked segments */
    bool uffd_asked;     /* the client has sent UFFD */
    bool intercepted;    /* there is a pager */
    int no_interception; /* errno that tells why not */
    struct pager pager;
    struct loss loss;
};
LIST_HEAD(session_list, session);

/* The fields of a log_about that tell of a session. In the loop. */
#define SESSION_ABOUT(session) \
    .client = (session)->name, .pid = (session)->pid, .uid = (session)->uid, .cgroup = session_cgroup(session)
/* Where it is charged; NULL: not known, or not any more. In the loop. */
const char *session_cgroup(const struct session *session);

int session_new(struct session **ret, struct manager *manager, uint64_t id, pid_t pid, uid_t uid, gid_t gid, int pidfd);
/* After both workers are joined. pidfd is closed. NULL is fine. */
struct session *session_free(struct session *session);

/* Takes a client's userfaultfd (vetted; consumed in any case) and starts the pager. 0, or negative errno: no interception, and why. */
int session_take_uffd(struct session *session, int uffd);
/* Where its process is charged now. A reference for the caller. -ENOMEM. In the loop; takes the manager's lock. */
int session_find_domain(const struct session *session, struct domain **ret);
/*
 * In the loop: it is charged there from now on, and so are its promises. The reference is consumed. What it had touched before stays charged
 * where it was: until the next move, or until nothing of it is resident, it counts in both. false: no move, or the session has ended.
 */
bool session_enter(struct session *session, struct domain *domain);
/* Under the manager's lock: may memory of it be charged to the domain, or below it? */
bool session_is_in(const struct session *session, const struct domain *domain);
/*
 * Under the manager's lock: how much of what is resident counts for the domain's budget. What was there when the session moved, and was not
 * dropped since, counts where it came from; the rest where it is. That is a guess, as the kernel does not tell who a page is charged to.
 */
uint64_t session_bytes_in(const struct session *session, const struct domain *domain, uint64_t resident);
/* Under the manager's lock, now and then: is it still true of session->former? */
void session_review_former(struct session *session);
/*
 * Once its pager has ended nobody counts what the kernel fills of it: others may have what was promised, also while its dropper is held up. In the loop.
 */
void session_give_promises_back(struct session *session);
/* The end of its promises and of its references. */
void session_leave_domains(struct session *session);
uint64_t session_resident_bytes(const struct session *session);

/* Its own, or one that it shares. */
struct region *session_find_region(struct session *session, uint64_t id);
/* Links a region in / out, under both locks. */
void session_add_region(struct session *session, struct region *region);
void session_remove_region(struct session *session, struct region *region);

/* Begins the end: both workers are told to stop; the dropper, started if need be, takes the memory down. May be repeated. */
void session_stop(struct session *session, bool client_dead);
/* Have both workers ended? */
bool session_stopped(const struct session *session);

/* Under the lock: a span's commitment becomes so many pages, in the mapping, the session and its domains. */
void session_set_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned pages);
/* Makes the pressure thread have a turn now. From any thread. */
void session_wake_pressure(struct session *session);
/* Under the lock: something that was dropped of a span is touched again. */
void session_note_refault(struct session *session, struct region *region, uint64_t chunk);
/* A fill that was put aside at the gate was let in after so many ns. */
void session_note_gate_wait(struct session *session, uint64_t ns);

static inline void session_lock(struct session *session) {
    home_lock(&session->home);
}
static inline void session_unlock(struct session *session) {
    home_unlock(&session->home);
}

#endif
