/* SPDX-License-Identifier: MIT */

/*
 * What was lost: told by eventfds, and range by range.
 *
 * The daemon counts drops in a region's state page and sends a byte to a socket of the context (WATCH), if it is asked to. The watcher's
 * thread reads that socket, sees which regions' counts have changed, and writes to the eventfds of these and of the context. So the program has
 * descriptors that stay the same over restarts of the daemon, and the daemon never waits for a program that does not read.
 *
 * Which ranges, say the generations: a table of those that were told last, made at the first question. A generation that is odd is not
 * told yet; once it is settled the count goes up, so that the next question looks again.
 */

#include "cancel.h"
#include "client.h"
#include "local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK ((size_t)1024) /* chunks */

struct lost {
    pthread_mutex_t lock;
    uint32_t *told;    /* by chunk; wiped in a forked child, as its memory is */
    size_t cursor;     /* chunk at which this pass goes on */
    uint64_t drops;    /* the count when this pass began, or the last one did */
    bool skipped;      /* this pass has met what is being dropped */
    _Atomic bool done; /* no pass is needed unless the count has changed */
};

/* ---- ranges ---- */

static size_t chunks_of(const struct drp_region *r) {
    return r->size >> r->pins.chunk_shift;
}

static struct lost *get_table(struct drp_region *r) {
    struct lost *lost = atomic_load(&r->lost), *none = NULL;
    size_t bytes = chunks_of(r) * sizeof(*lost->told);

    if (lost)
        return lost;
    lost = calloc(1, sizeof(*lost));
    if (!lost)
        return NULL;
    pthread_mutex_init(&lost->lock, NULL);
    lost->told = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (lost->told == MAP_FAILED) {
        free(lost);
        return NULL;
    }
    if (madvise(lost->told, bytes, MADV_WIPEONFORK) < 0 || !atomic_compare_exchange_strong(&r->lost, &none, lost)) {
        munmap(lost->told, bytes);
        free(lost);
        return none;
    }
    return lost;
}

static uint64_t count_drops(const struct drp_region *r) {
    return !r->pins.native && pins_arrive(&r->pins) ? atomic_load(&r->pins.state->drops) : 0;
}

/* From the cursor on: the next run of chunks whose generations were not told yet; 0: there is none. */
static size_t find_run(struct drp_region *r, struct lost *lost, size_t *ret_first) {
    size_t total = chunks_of(r), run = 0;
    unsigned shift = r->pins.chunk_shift;
    uint32_t now[BLOCK];
    bool ended = false;

    while (lost->cursor < total && !ended) {
        size_t n = total - lost->cursor < BLOCK ? total - lost->cursor : BLOCK, i = 0;
        uint32_t *told = lost->told + lost->cursor;

        drp_copy_generations(r, lost->cursor << shift, n << shift, now);
        if (run == 0 && memcmp(now, told, n * sizeof(*now)) == 0)
            i = n;
        for (; i < n && !ended; i++) {
            bool settled = ((now[i] - r->pins.bias) & 1) == 0;

            lost->skipped |= !settled;
            ended = run > 0 && (!settled || now[i] == told[i]);
            if (ended || !settled || now[i] == told[i])
                continue;
            told[i] = now[i];
            if (run++ == 0)
                *ret_first = lost->cursor + i;
        }
        lost->cursor += i;
    }
    return run;
}

int drp_region_take_lost(struct drp_region *r, size_t *ret_offset, size_t *ret_length) {
    struct lost *lost;
    size_t first = 0, run = 0;

    if (r->pins.foreign)
        return fork_foreign();
    if (r->pins.native)
        return local_refuse();
    lost = get_table(r);
    if (!lost)
        return error_detail(-ENOMEM, "no memory to remember what of %zu bytes was lost", r->size);
    pthread_mutex_lock(&lost->lock);
    for (;;) {
        if (lost->cursor == 0) { /* a pass begins, if there is anything to find */
            uint64_t drops = count_drops(r);

            if (atomic_load(&lost->done) && drops == lost->drops)
                break;
            lost->drops = drops;
            lost->skipped = false;
            atomic_store(&lost->done, true); /* lost_again() may say otherwise meanwhile */
        }
        run = find_run(r, lost, &first);
        if (run > 0)
            break;
        lost->cursor = 0;
        if (lost->skipped) { /* what is being dropped is told next time */
            atomic_store(&lost->done, false);
            break;
        }
    }
    pthread_mutex_unlock(&lost->lock);
    if (run == 0)
        return 0;
    *ret_offset = first << r->pins.chunk_shift;
    *ret_length = run << r->pins.chunk_shift;
    return 1;
}

void lost_free(struct drp_region *r) {
    struct lost *lost = atomic_load(&r->lost);

    if (lost) {
        munmap(lost->told, chunks_of(r) * sizeof(*lost->told));
        pthread_mutex_destroy(&lost->lock);
        free(lost);
    }
    object_close(&r->lost_fd, &r->lost_object);
}

/* ---- eventfds ---- */

static int make_eventfd(int *fd, struct object *object) {
    int error = 0;

    fork_lock();
    if (!object_owns(*fd, object)) {
        *fd = object_keep(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        error = *fd < 0 ? -errno : 0;
        object_note_kind(*fd, object, OBJECT_EVENTFD);
    }
    fork_unlock();
    return error < 0 ? error_detail(error, "no descriptor for an eventfd: %s", strerror(-error)) : 0;
}

/* Has the daemon at the link send to a socket, which becomes the context's. */
static int watch(struct drp *d, struct link *link) {
    struct drp_wire_header request = {.type = DRP_WIRE_WATCH};
    int error, fd;

    if (!(link->hello.features & DRP_FEATURE_WATCH))
        return error_detail(-EOPNOTSUPP, "the service is older than this library: it does not tell what it drops");
    error = link_call(link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    if (error < 0)
        return error;
    fork_lock();
    fd = channel_packet_take(link->packet, 0);
    object_note(fd, &d->lost_socket_object);
    atomic_store(&d->lost_socket, fd); /* the watcher looks at it */
    fork_unlock();
    return 0;
}

/*
 * Asks for it, unless that was done; while the service is away the watcher will, or whose request makes the next connection. The eventfd has been made
 * before: by it a watcher that withdraws sees that there is a wish, see lost_forget().
 */
static int ensure_watched(struct drp *d) {
    int error;

    atomic_store(&d->lost_wanted, true);
    error = context_lock(d);
    if (error == -ENOTCONN)
        return 0;
    if (error < 0)
        return error;
    if (!object_holds(d->lost_socket, &d->lost_socket_object)) { /* the program may have closed it */
        error = watch(d, &d->link);
        if (error == 0)
            watcher_wake(d); /* it looks at the socket from now on */
    }
    context_unlock(d);
    return error == -ENOTCONN ? 0 : error; /* it went away meanwhile */
}

int drp_get_lost_fd(struct drp *d) {
    NOT_CANCELLED;
    int error;

    if (d->backend == DRP_BACKEND_NATIVE)
        return local_refuse();
    fork_catch_up();
    error = make_eventfd(&d->lost_fd, &d->lost_object);
    if (error == 0)
        error = ensure_watched(d);
    return error < 0 ? error : d->lost_fd;
}

int drp_region_get_lost_fd(struct drp_region *r) {
    NOT_CANCELLED;
    int error;

    if (r->pins.native)
        return local_refuse();
    fork_catch_up();
    error = make_eventfd(&r->lost_fd, &r->lost_object);
    if (error == 0)
        error = ensure_watched(r->context);
    if (error == 0 && count_drops(r) > 0)
        eventfd_write(r->lost_fd, 1); /* what was dropped before */
    return error < 0 ? error : r->lost_fd;
}

/* ---- for who connects, and who drops himself ---- */

bool lost_is_due(const struct drp *d, const struct link *link) {
    return atomic_load(&d->lost_wanted) && atomic_load(&d->lost_socket) < 0 && link->hello.features & DRP_FEATURE_WATCH;
}

int lost_watch_again(struct drp *d, struct link *link) {
    return lost_is_due(d, link) ? watch(d, link) : 0;
}

/* Another thread may just make it. */
static void notify(const int *fd, const struct object *object) {
    fork_lock();
    if (object_owns(*fd, object))
        eventfd_write(*fd, 1);
    fork_unlock();
}

/* regions_lock held. */
static void tell(struct drp *d, bool all) {
    bool any = all;

    for (struct drp_region *r = d->regions; r; r = r->next) {
        uint64_t drops = r->phase == REGION_LIVE ? count_drops(r) : r->lost_drops;

        if (!all && drops == r->lost_drops)
            continue;
        any = true;
        r->lost_drops = drops;
        notify(&r->lost_fd, &r->lost_object);
    }
    if (any)
        notify(&d->lost_fd, &d->lost_object);
}

void lost_tell(struct drp *d) {
    pthread_mutex_lock(&d->regions_lock);
    tell(d, false);
    pthread_mutex_unlock(&d->regions_lock);
}

void lost_again(struct drp *d) {
    for (struct drp_region *r = d->regions; r; r = r->next) {
        struct lost *lost = atomic_load(&r->lost);

        if (lost)
            atomic_store(&lost->done, false);
    }
    tell(d, true);
}

static void close_socket(struct drp *d) {
    int fd = atomic_load(&d->lost_socket);

    if (fd < 0)
        return;
    object_close(&fd, &d->lost_socket_object);
    atomic_store(&d->lost_socket, -1);
}

void lost_pass_on(struct drp *d) {
    bool goes_on = false;
    char words[64];
    ssize_t n;

    fork_lock(); /* who asks again puts another one in the place of what the program has closed */
    if (object_holds(d->lost_socket, &d->lost_socket_object)) {
        do
            n = recv(d->lost_socket, words, sizeof(words), MSG_DONTWAIT);
        while (n > 0 || (n < 0 && errno == EINTR));
        goes_on = n < 0 && errno == EAGAIN;
    }
    if (!goes_on)
        close_socket(d);
    fork_unlock();
    lost_tell(d);
}

void lost_close(struct drp *d) {
    fork_lock();
    close_socket(d);
    fork_unlock();
}

void lost_forget(struct drp *d) {
    bool asked;

    fork_lock();
    asked = object_owns(d->lost_fd, &d->lost_object);
    for (const struct drp_region *r = d->regions; r && !asked; r = r->next)
        asked = object_owns(r->lost_fd, &r->lost_object);
    if (!asked)
        atomic_store(&d->lost_wanted, false);
    fork_unlock();
}

/* ---- fork ---- */

/* The parent's is not the child's, but a number that the child may be polling shall stay one of an eventfd. */
static void replace_eventfd(int fd, const struct object *object) {
    int fresh = object_owns(fd, object) ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;

    if (fresh >= 0) {
        dup3(fresh, fd, O_CLOEXEC);
        close(fresh);
    }
}

static void child_region(struct drp_region *r, bool missed) {
    struct lost *lost = atomic_load(&r->lost);

    if (missed)
        r->lost_fd = -1;
    replace_eventfd(r->lost_fd, &r->lost_object);
    if (!lost)
        return;
    lost->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    lost->cursor = 0;
    atomic_store(&lost->done, false);
}

void lost_fork_child(struct drp *d, bool missed) {
    atomic_store(&d->lost_wanted, false); /* what the parent asked for */
    if (missed) {
        d->lost_fd = -1;
        atomic_store(&d->lost_socket, -1);
    }
    close_socket(d);
    replace_eventfd(d->lost_fd, &d->lost_object);
    for (struct drp_region *r = d->regions; r; r = r->next)
        child_region(r, missed);
}
