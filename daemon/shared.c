/* SPDX-License-Identifier: MIT */
/*
 * Shared regions: who has them, what they are called, and whose pins are still to come.
 *
 * Always: the region has one home, which is nobody's session; the state page is one for all; each mapping brings a pin page, and a drop reads
 * them all. A region lives as long as a session has a share of it.
 *
 * The object is a memfd, which its mappers cannot truncate. Its name, which cannot be changed, says whose it is and what it is called, and its
 * owner that a daemon of this user made it: so a new daemon need not believe what a client says.
 *
 * Tickets keep the crash contract. A ticket is an open file description of the object, with a lock on one byte: its offset is the era (one
 * for each daemon that had the region) and the mapping. The daemon keeps no copy, so the lock is there exactly as long as the mapper has
 * the region, whatever becomes of daemons. A new daemon counts the eras on, and drops nothing while there is a lock of an earlier one: a
 * mapper whose pins it does not know. It does not matter how long that takes, nor how many daemons die meanwhile.
 */

#include "shared.h"

#include "budget.h"
#include "codec.h"
#include "manager.h"
#include "mapping.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ERA_SHIFT 32
/* Eras that have locks: more daemons than can have died while somebody was late. */
#define ERAS_MAX 64

/* ---- objects ---- */

int shared_make_object(const struct passport *passport, uint64_t size, int *ret_fd) {
    char text[128];

    snprintf(text, sizeof(text), "droppable:%u:%u:%o:%s", passport->uid, passport->gid, passport->mode, passport->name);
    return kernel_page_object(text, size, 0600, ret_fd);
}

int shared_read_passport(int fd, struct passport *ret) {
    static const char deleted[] = " (deleted)";
    char path[64], text[160];
    int name = 0;
    struct stat st;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    n = readlink(path, text, sizeof(text) - 1);
    if (n < (ssize_t)sizeof(deleted) || fstat(fd, &st) < 0 || st.st_uid != geteuid())
        return -EBADF;
    n -= (ssize_t)sizeof(deleted) - 1;
    if (strncmp(text + n, deleted, sizeof(deleted) - 1) != 0)
        return -EBADF;
    text[n] = '\0';
    if (sscanf(text, "/memfd:droppable:%u:%u:%o:%n", &ret->uid, &ret->gid, &ret->mode, &name) != 3 || name == 0 ||
        !codec_is_shared_name(text + name))
        return -EBADF;
    strcpy(ret->name, text + name);
    return 0;
}

/* ---- tickets ---- */

static int lock_byte(int fd, uint64_t era, uint64_t mapping) {
    struct flock lock = {.l_type = F_RDLCK,
                         .l_whence = SEEK_SET,
                         .l_start = (off_t)(era << ERA_SHIFT | (mapping & UINT32_MAX)),
                         .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Is there a lock in [start, end), end 0: anywhere behind? *ret_start is where. */
static bool find_lock(int fd, uint64_t start, uint64_t end, uint64_t *ret_start) {
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = end > 0 ? (off_t)(end - start) : 0};

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
        return false;
    *ret_start = (uint64_t)lock.l_start;
    return true;
}

/* The era after all that have tickets. */
static int next_era(int fd, uint64_t *ret) {
    uint64_t era = 1, at;

    for (unsigned i = 0; find_lock(fd, era << ERA_SHIFT, 0, &at); i++) {
        era = (at >> ERA_SHIFT) > era ? (at >> ERA_SHIFT) + 1 : era + 1;
        if (i == ERAS_MAX || era > INT32_MAX)
            return -EDQUOT;
    }
    *ret = era;
    return 0;
}

static bool tickets_are_missing(const struct shared *shared) {
    uint64_t at;

    return find_lock(shared->region->data_fd, 0, shared->era << ERA_SHIFT, &at);
}

int shared_make_ticket(const struct shared *shared, uint64_t mapping, int *ret_fd) {
    char path[64];
    int fd, r;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", shared->region->data_fd);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nobody's lease holds us up */
    if (fd < 0)
        return -errno;
    r = lock_byte(fd, shared->era, mapping);
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

int shared_renew_ticket(const struct shared *shared, uint64_t mapping, int fd) {
    struct flock before = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = (off_t)(shared->era << ERA_SHIFT)};
    const struct region *region = shared->region;
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0 || st.st_ino != region->inode || st.st_dev != region->device)
        return -EBADF;
    r = lock_byte(fd, shared->era, mapping);
    if (r >= 0 && fcntl(fd, F_OFD_SETLK, &before) < 0)
        r = -errno;
    return r;
}

/* ---- life ---- */

int shared_new(struct shared **ret, struct manager *manager, const struct passport *passport, struct region *region,
               int state_fd, const struct domain *domain) {
    struct shared *shared = calloc(1, sizeof(*shared));
    int r;

    if (!shared)
        return -ENOMEM;
    home_init(&shared->home, manager, manager->next_id++, NULL);
    LIST_INIT(&shared->shares);
    shared->uid = passport->uid;
    shared->gid = passport->gid;
    shared->mode = passport->mode;
    r = next_era(region->data_fd, &shared->era);
    if (r >= 0)
        r = home_need_dropper(&shared->home);
    if (r >= 0)
        r = budget_hold_user(manager, shared->uid, &shared->user);
    if (r < 0) {
        home_stop(&shared->home, false);
        home_deinit(&shared->home);
        free(shared);
        return r;
    }
    shared->region = region;
    shared->state_fd = state_fd;
    region->held = tickets_are_missing(shared);
    home_add_region(&shared->home, region, domain);
    manager_add_home(manager, &shared->home);
    *ret = shared;
    return 0;
}

static void shared_end(struct shared *shared, bool dead) {
    struct manager *manager = shared->home.manager;

    manager_remove_home(manager, &shared->home);
    budget_release_user(shared->user);
    shared->user = NULL;
    dropper_give_up(&shared->home);
    home_stop(&shared->home, dead);
    LIST_INSERT_HEAD(&manager->ending_homes, &shared->home, link);
    (void)!write(manager->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

void shared_abandon(struct shared *shared) {
    shared_end(shared, false);
}

static void shared_free(struct shared *shared) {
    home_deinit(&shared->home);
    close(shared->state_fd);
    free(shared);
}

/* ---- who has it ---- */

struct shared *shared_find(struct manager *manager, uid_t uid, const char *name) {
    struct home *home;

    LIST_FOREACH (home, &manager->homes, link) {
        struct shared *shared = shared_of(home);

        if (shared && shared->name[0] && shared->uid == uid && strcmp(shared->name, name) == 0)
            return shared;
    }
    return NULL;
}

void shared_take_name(struct manager *manager, struct shared *shared, const struct passport *passport) {
    if (!shared_find(manager, shared->uid, passport->name)) /* who was there first has the name */
        strcpy(shared->name, passport->name);
}

struct shared *shared_find_object(struct manager *manager, int fd) {
    struct home *home;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return NULL;
    LIST_FOREACH (home, &manager->homes, link) {
        struct shared *shared = shared_of(home);

        if (shared && shared->region->inode == st.st_ino && shared->region->device == st.st_dev)
            return shared;
    }
    return NULL;
}

struct share *shared_share_of(const struct shared *shared, const struct session *session) {
    struct share *share;

    LIST_FOREACH (share, &shared->shares, of_shared)
        if (share->session == session)
            return share;
    return NULL;
}

unsigned shared_count(const struct session *session) {
    const struct share *share;
    unsigned n = 0;

    LIST_FOREACH (share, &session->shares, of_session)
        n += share->opened;
    return n;
}

/* As often as it is opened it may be mapped, and counts as a region of the session's. */
int shared_open(struct shared *shared, struct session *session) {
    struct share *share = shared_share_of(shared, session);

    if (!share) {
        share = calloc(1, sizeof(*share));
        if (!share)
            return -ENOMEM;
        share->session = session;
        share->shared = shared;
        LIST_INSERT_HEAD(&session->shares, share, of_session);
        LIST_INSERT_HEAD(&shared->shares, share, of_shared);
    }
    share->opened++;
    session->n_regions++;
    session->region_bytes += shared->region->size;
    shared->home.manager->n_regions++;
    return 0;
}

/* Of the mappings that the session has so many stay. The pins of the others go with them. */
static void remove_mappings(struct share *share, unsigned stay) {
    struct region *region = share->shared->region;

    for (unsigned i = 0; i < region->n_mappings;) {
        struct mapping *mapping = region->mappings[i];

        if (mapping->session != share->session || stay > 0) {
            stay -= mapping->session == share->session;
            i++;
            continue;
        }
        home_lock(region->home);
        region_remove_mapping(region, mapping);
        home_unlock(region->home);
        mapping_free(mapping);
    }
}

void shared_close(struct share *share, bool dead) {
    struct shared *shared = share->shared;
    struct session *session = share->session;

    session->n_regions--;
    session->region_bytes -= shared->region->size;
    shared->home.manager->n_regions--;
    remove_mappings(share, --share->opened);
    if (share->opened > 0)
        return;
    LIST_REMOVE(share, of_session);
    LIST_REMOVE(share, of_shared);
    free(share);
    if (LIST_EMPTY(&shared->shares))
        shared_end(shared, dead);
}

void shared_close_all(struct session *session, bool dead) {
    struct share *share;

    pthread_mutex_lock(&session->manager->lock);
    while ((share = LIST_FIRST(&session->shares)))
        shared_close(share, dead);
    pthread_mutex_unlock(&session->manager->lock);
}

int shared_reserve_mapping(struct shared *shared) {
    return region_reserve_mapping(shared->region, &shared->home.lock);
}

/* ---- now and then ---- */

/* Drops that the old daemon did not finish are begun anew, now that all pins are known. */
static void let_go(struct shared *shared) {
    home_lock(&shared->home);
    shared->region->held = false;
    home_unlock(&shared->home);
    home_finish_drops(shared->region);
}

bool shared_tidy(struct manager *manager) {
    struct home *home, *next;
    bool again = false;

    for (home = LIST_FIRST(&manager->ending_homes); home; home = next) {
        next = LIST_NEXT(home, link);
        if (!home_stopped(home)) {
            home_stop(home, false); /* repeated: a signal may come too early for a call that is about to begin */
            dropper_give_up(home);
            again = true;
            continue;
        }
        manager_dispatch(manager); /* what it left for the loop before it ended */
        LIST_REMOVE(home, link);
        shared_free(shared_of(home));
    }
    LIST_FOREACH (home, &manager->homes, link) {
        struct shared *shared = shared_of(home);

        if (!shared || !shared->region->held || shared->region->holding)
            continue;
        /* What the daemon before had begun has to be known before it can be begun anew. */
        if (!shared->region->adopting && !tickets_are_missing(shared))
            let_go(shared);
        again |= shared->region->held;
    }
    return again;
}

void shared_hold_all(struct manager *manager) {
    struct home *home;

    LIST_FOREACH (home, &manager->homes, link) {
        struct shared *shared = shared_of(home);

        if (!shared)
            continue;
        home_lock(home);
        shared->region->held = shared->region->holding = true;
        home_unlock(home);
    }
}
