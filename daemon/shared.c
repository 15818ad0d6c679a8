/* SPDX-License-Identifier: MIT */
/*
 * Shared regions: who has them, what they are called, and whose pins are still to come.
 *
 * Always: the region has one home, which is nobody's session; the state page is one for all; each mapping brings a pin page, and a drop reads
 * them all. A region lives as long as a session has a share of it.
 *
 * The object is a memfd, which its mappers cannot truncate; or, so that it is never swapped, a file without a link on a daemon's private tmpfs, which they can.
 * Its name, which cannot be changed, says whose it is, what it is called and what it is, and its owner that a daemon of this user made it: so a new
 * daemon need not believe what a client says. How large a region is that has a file says its name, too: never the file.
 *
 * Whose pins are still to come the tickets say (ticket.c). Until all have come it is held: nothing of it is dropped.
 */

#include "shared.h"

#include "budget.h"
#include "codec.h"
#include "container.h"
#include "crash-point.h"
#include "kernel.h"
#include "manager.h"
#include "mapping.h"
#include "session.h"
#include "ticket.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Looks for missing tickets: so far apart at least, and for a hundredth of the thread's time. */
#define LOOK_LEAST_NS UINT64_C(50000000)
#define LOOK_COST_FACTOR 100

/* ---- objects ---- */

/* What /proc/PID/fd shows of objects before uid:gid:mode:name; of files before the size. The kernel puts MEMFD before a memfd's name, and "/" before a file's. */
#define MEMFD "/memfd:"
#define PREFIX "droppable:"
#define SIGNAL_PREFIX "droppable-signal:"

#define IS_FILE DRP_REGION_NO_SWAP

static const struct kind {
    const char *prefix;
    uint64_t options;
} kinds[] = {{MEMFD PREFIX, DRP_REGION_SHARED},
             {MEMFD SIGNAL_PREFIX, DRP_REGION_SHARED | DRP_REGION_SIGNAL},
             {"/" PREFIX, DRP_REGION_SHARED | IS_FILE},
             {"/" SIGNAL_PREFIX, DRP_REGION_SHARED | DRP_REGION_SIGNAL | IS_FILE}};

/* Behind its prefix; NULL: it has none of ours. */
static const char *skip_prefix(const char *text, uint64_t *ret_options) {
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t length = strlen(kinds[i].prefix);

        if (strncmp(text, kinds[i].prefix, length) == 0) {
            *ret_options = kinds[i].options;
            return text + length;
        }
    }
    return NULL;
}

int shared_make_object(const struct kernel *kernel, const struct passport *passport, int *ret_fd) {
    const char *prefix = passport->options & DRP_REGION_SIGNAL ? SIGNAL_PREFIX : PREFIX;
    char text[160], size[32] = "";
    bool file = passport->options & IS_FILE;

    if (file)
        snprintf(size, sizeof(size), "%" PRIu64 ":", passport->size);
    snprintf(text, sizeof(text), "%s%s%u:%u:%o:%s", prefix, size, passport->uid, passport->gid, passport->mode,
             passport->name);
    return file ? kernel_named_object(kernel, text, passport->size, ret_fd)
                : kernel_page_object(text, passport->size, 0600, ret_fd);
}

/* What is behind the prefix. */
static bool parse_passport(const char *text, struct passport *ret) {
    int behind = 0;

    if (ret->options & IS_FILE && (sscanf(text, "%" SCNu64 ":%n", &ret->size, &behind) != 1 || behind == 0))
        return false;
    text += behind;
    behind = 0;
    if (sscanf(text, "%u:%u:%o:%n", &ret->uid, &ret->gid, &ret->mode, &behind) != 3 || behind == 0 ||
        !codec_is_shared_name(text + behind))
        return false;
    strcpy(ret->name, text + behind);
    return true;
}

int shared_read_passport(int fd, struct passport *ret) {
    static const char deleted[] = " (deleted)";
    char path[64], text[192];
    const char *rest;
    struct stat st;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    n = readlink(path, text, sizeof(text) - 1);
    if (n < (ssize_t)sizeof(deleted) || fstat(fd, &st) < 0 || st.st_uid != geteuid() || st.st_nlink != 0)
        return -EBADF;
    n -= (ssize_t)sizeof(deleted) - 1;
    if (strncmp(text + n, deleted, sizeof(deleted) - 1) != 0)
        return -EBADF;
    text[n] = '\0';
    rest = skip_prefix(text, &ret->options);
    ret->size = (uint64_t)st.st_size; /* of a memfd that is sealed */
    return rest && parse_passport(rest, ret) ? 0 : -EBADF;
}

/*
 * Who is not of the daemon's user could have given a file of that user's such a name, where he may rename it, but not have opened it: it is for its owner alone.
 * Its size says nothing: who has it can make it longer and shorter, and the others have it dropped all the same.
 */
static bool is_file_of_ours(int fd) {
    struct stat st;

    return kernel_check_data_object(fd, 0) >= 0 && fstat(fd, &st) == 0 && st.st_mode == (S_IFREG | 0600);
}

bool shared_is_object(int fd, const struct passport *passport) {
    if (passport->options & IS_FILE)
        return is_file_of_ours(fd);
    return kernel_check_data_object(fd, passport->size) >= 0 && kernel_check_page_object(fd, passport->size) >= 0;
}

/* ---- tickets ---- */

int shared_make_ticket(const struct shared *shared, uint64_t mapping, int *ret_fd) {
    return ticket_make(shared->region->data_fd, shared->era, mapping, ret_fd);
}

int shared_renew_ticket(const struct shared *shared, uint64_t mapping, int fd) {
    const struct region *region = shared->region;
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_ino != region->inode || st.st_dev != region->device)
        return -EBADF;
    return ticket_renew(fd, shared->era, mapping);
}

/* In the region's thread: what is locked there is its mappers' doing. */
void shared_find_era(struct region *region) {
    int r = ticket_next_era(region->dropper_fd, &shared_of(region->home)->era);

    if (r < 0 && region->adopt_error >= 0)
        region->adopt_error = r;
}

/* The same. */
static void look_for_tickets(struct region *region) {
    struct shared *shared = shared_of(region->home);
    uint64_t began = kernel_now(), spent;

    shared->missing = ticket_is_missing(region->dropper_fd, shared->era);
    spent = kernel_now() - began;
    shared->look_at = began + (spent * LOOK_COST_FACTOR > LOOK_LEAST_NS ? spent * LOOK_COST_FACTOR : LOOK_LEAST_NS);
}

/* All pins are known. Drops that the old daemon did not finish are begun anew. */
static void let_go(struct shared *shared) {
    home_lock(&shared->home);
    CRASH_POINT("shared-let-go");
    shared->region->held = false;
    home_unlock(&shared->home);
    home_finish_drops(shared->region);
}

static void looked(struct completion *completion) {
    struct shared *shared = container_of(completion, struct shared, looked);

    shared->looking = false;
    if (!shared->user || shared->region->holding) /* it has ended, or everything has */
        return;
    if (!shared->missing && shared->region->n_mappings > 0) /* without one, nothing can be dropped yet */
        let_go(shared);
}

/* In the region's thread. */
static void look_done(void *data) {
    struct shared *shared = data;

    manager_complete(shared->home.manager, &shared->looked);
}

/* Of one that is held. Whoever hands it over first is to be through with that: what he says has been begun is begun anew. */
static void look(struct shared *shared) {
    if (shared->looking || shared->region->adopting || kernel_now() < shared->look_at)
        return;
    shared->looking = true;
    if (dropper_submit_adopt(&shared->home, shared->region, -1, look_for_tickets, look_done, shared) < 0)
        shared->looking = false;
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
    shared->era = 1;
    shared->looked.run = looked;
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
    home_hold(&shared->home);
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
    session->tables_most += mapping_tables_most(shared->region->size);
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
    session->tables_most -= mapping_tables_most(shared->region->size);
    shared->home.manager->n_regions--;
    remove_mappings(share, --share->opened);
    if (share->opened > 0)
        return;
    CRASH_POINT("shared-closing");
    LIST_REMOVE(share, of_session);
    LIST_REMOVE(share, of_shared);
    free(share);
    /* Where somebody may live who has it, and takes it to this service or to the next, its memory is not freed: what he has pinned is there. */
    if (LIST_EMPTY(&shared->shares))
        shared_end(shared, dead && !shared->survivors && !shared->region->held);
}

void shared_close_all(struct session *session, bool dead) {
    struct share *share;

    pthread_mutex_lock(&session->manager->lock);
    while ((share = LIST_FIRST(&session->shares))) {
        share->shared->survivors |= !dead;
        shared_close(share, dead);
    }
    pthread_mutex_unlock(&session->manager->lock);
}

int shared_reserve_mapping(struct shared *shared) {
    return region_reserve_mapping(shared->region, &shared->home.lock);
}

/* ---- now and then ---- */

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
        look(shared);
        again = true;
    }
    return again;
}

void shared_hold_all(struct manager *manager) {
    struct home *home;

    LIST_FOREACH (home, &manager->homes, link) {
        struct shared *shared = shared_of(home);

        if (!shared)
            continue;
        home_hold(home);
        shared->region->holding = true;
    }
}
