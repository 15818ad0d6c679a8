/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_SHARED_H
#define DROPPABLE_DAEMON_SHARED_H

#include "completion.h"
#include "home.h"
#include "wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

struct budget_user;
struct kernel;
struct session;
struct shared;

/* What a session has of a shared region: it may map it so often. Of the loop, under the manager's lock. */
struct share {
    LIST_ENTRY(share) of_session; /* session.shares */
    LIST_ENTRY(share) of_shared;
    struct session *session;
    struct shared *shared;
    unsigned opened;
    uint64_t told; /* DRP_REGION_* of its mappings, as it says, for LIST */
};
LIST_HEAD(share_list, share);

/* A region of several sessions, in a home of its own. */
struct shared {
    struct home home;
    struct region *region; /* the only one */
    uid_t uid;             /* whoever made it, and the names of whom its name is one of */
    gid_t gid;
    mode_t mode; /* who may open it by name */
    char name[DRP_WIRE_SHARED_NAME];
    struct budget_user *user;
    struct share_list shares;
    int state_fd; /* read-only */
    uint64_t era; /* whoever has a ticket of an earlier one is waited for. Written in the region's thread while it is handed over first */
    struct completion looked; /* that thread has looked for tickets */
    bool looking;             /* of the loop: it is about to */
    bool survivors;           /* somebody whose session has ended lives, and takes it to the next service, as it is */
    bool missing;             /* of the last look, as the next */
    uint64_t look_at;         /* ns: no look before */
};

/* What a shared object says of itself. */
struct passport {
    uid_t uid;
    gid_t gid;
    mode_t mode;
    uint64_t options; /* DRP_REGION_* */
    uint64_t size;
    char name[DRP_WIRE_SHARED_NAME];
};

/* Makes a data object with a passport that nobody can forge. In the loop. -errno */
int shared_make_object(const struct kernel *kernel, const struct passport *passport, int *ret_fd);
/* -EBADF: no object of ours. */
int shared_read_passport(int fd, struct passport *ret);
/* Is the object of that passport what its kind is? */
bool shared_is_object(int fd, const struct passport *passport);

/*
 * A home for the region, which it takes, with its state page's descriptor, if it succeeds. It has no name yet. Its tickets are of a new era. In the loop,
 * under the manager's lock. -errno
 */
int shared_new(struct shared **ret, struct manager *manager, const struct passport *passport, struct region *region,
               int state_fd, const struct domain *domain);
static inline struct shared *shared_of(const struct home *home) {
    return home->session ? NULL : (struct shared *)(uintptr_t)home;
}
/* All in the loop, under the manager's lock or with nobody but the loop changing what they read. NULL: none. */
struct shared *shared_find(struct manager *manager, uid_t uid, const char *name);
/* Gives it its name, unless another has that. */
void shared_take_name(struct manager *manager, struct shared *shared, const struct passport *passport);
struct shared *shared_find_object(struct manager *manager, int fd);
struct share *shared_share_of(const struct shared *shared, const struct session *session);

/* How many regions of the session's are shared ones. */
unsigned shared_count(const struct session *session);
/* The session may map it once more. Under the manager's lock. -ENOMEM; -EDQUOT: too many. */
int shared_open(struct shared *shared, struct session *session);
/* The session gives one up; with the last one its mappings go. dead: what nobody has any more is freed whoever else may hold it. */
void shared_close(struct share *share, bool dead);
/* The end of a session: all that it has. Takes the manager's lock. */
void shared_close_all(struct session *session, bool dead);

/* Ends one that nobody has. */
void shared_abandon(struct shared *shared);

/* Room for one more mapping. -ENOMEM; -EDQUOT */
int shared_reserve_mapping(struct shared *shared);
/* In the region's thread, with the first to hand it over: a new era. An error is region->adopt_error. */
void shared_find_era(struct region *region);
/* A ticket for a new mapping. -errno */
int shared_make_ticket(const struct shared *shared, uint64_t mapping, int *ret_fd);
/* A ticket of an earlier era, of a mapping that is handed over, becomes one of this. -EBADF; -errno */
int shared_renew_ticket(const struct shared *shared, uint64_t mapping, int fd);

/* Lets regions go that all who had them have handed over, or are gone; frees homes that have ended. true: call again in a while. */
bool shared_tidy(struct manager *manager);
/* The daemon ends: nothing is dropped any more. */
void shared_hold_all(struct manager *manager);

#endif
