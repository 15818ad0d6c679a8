/* SPDX-License-Identifier: MIT */

/*
 * A context: the connection of a process to the service, with the helper thread that watches it (watcher.c).
 *
 * It owns the link, the mapping of the clock page and the list of regions. The path of the socket is settled by the
 * first connection and kept: a reconnect never ends up at another service. The process's userfaultfd is handed over on
 * each connection and closed here at once, under the fork lock: while any copy of it stays open outside the daemon, the
 * faults of this process would wait for a daemon that died.
 */

#include "cancel.h"
#include "choice.h"
#include "client.h"
#include "local.h"
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK_AGAIN_MS 10000

/* The public structs as they were in the first release: the least that a caller can have. */
#define CONFIG_SIZE_MIN offsetof(struct drp_config, backend)

int context_copy_struct(void *to, size_t known, size_t minimum, const void *from, const char *name) {
    size_t size = *(const size_t *)from;

    if (size < minimum)
        return error_detail(-EINVAL, "%s.struct_size is %zu: set it to sizeof(struct %s)", name, size, name);
    for (size_t i = known; i < size; i++)
        if (((const char *)from)[i] != 0)
            return error_detail(-EINVAL,
                                "%s has a field beyond its %zu known bytes set: the program is newer than the library",
                                name, known);
    memset(to, 0, known);
    memcpy(to, from, size < known ? size : known);
    *(size_t *)to = known;
    return 0;
}

static int read_config(struct drp_config *to, const struct drp_config *from) {
    *to = (struct drp_config){.struct_size = sizeof(*to)};
    return from ? context_copy_struct(to, sizeof(*to), CONFIG_SIZE_MIN, from, "drp_config") : 0;
}

int context_new(struct drp **ret, const struct drp_config *config) {
    struct channel_packet *packets;
    struct drp_config c;
    struct drp *d;
    int r;

    r = read_config(&c, config);
    if (r == 0)
        r = fork_init();
    if (r < 0)
        return r;
    fork_catch_up(); /* before there is something new among what the parent left */
    packets = calloc(2, sizeof(*packets));
    d = packets ? calloc(1, sizeof(*d)) : NULL;
    if (!d) {
        free(packets);
        return error_detail(-ENOMEM, "no memory for a context");
    }
    d->packets = packets;
    pthread_mutex_init(&d->regions_lock, NULL);
    pthread_mutex_init(&d->request_lock, NULL);
    link_init(&d->link, d, &d->packets[0]);
    link_init(&d->fresh, d, &d->packets[1]);
    d->wake[0] = -1;
    d->wake[1] = -1;
    d->lost_fd = -1;
    d->lost_socket = -1;
    d->notify = -1;
    d->signal_fd = -1;
    if (c.socket_path && !(d->given_path = strdup(c.socket_path))) {
        free(packets);
        free(d);
        return error_detail(-ENOMEM, "no memory for the socket's path");
    }
    strncpy(d->name, c.name ? c.name : program_invocation_short_name, sizeof(d->name) - 1);
    fork_add(d);
    *ret = d;
    return 0;
}

void context_free(struct drp *d) {
    link_close(&d->link);
    link_close(&d->fresh);
    lost_close(d);
    object_close(&d->lost_fd, &d->lost_object);
    object_close(&d->signal_fd, &d->signal_object);
    fork_remove(d);
    if (d->clock)
        munmap(d->clock, DRP_CLOCK_BYTES);
    pthread_mutex_destroy(&d->regions_lock);
    pthread_mutex_destroy(&d->request_lock);
    free(d->given_path);
    free(d->socket_path);
    free(d->packets);
    free(d);
}

static int try_path(struct drp *d, const char *path) {
    char *copy = strdup(path), *old = d->socket_path;

    if (!copy)
        return error_detail(-ENOMEM, "no memory for the socket's path");
    d->socket_path = copy; /* first: a child that is forked in between frees what stands here */
    free(old);
    return link_open(&d->link, path, d->name);
}

/* The last error, unless it only says that there is nothing and an earlier one said more. */
static int worse(int error, int next) {
    return next == -ENOENT && error != 0 ? error : next;
}

int context_connect(struct drp *d, const struct drp_config *config) {
    struct drp_config c;
    const char *given;
    const char *runtime;
    char *path;
    int r;
    int error = 0;

    r = read_config(&c, config);
    if (r < 0)
        return r;
    /* What was named is meant: no other service instead of it. */
    given = c.socket_path ? c.socket_path : secure_getenv("DROPPABLE_SOCKET");
    if (given && *given)
        return try_path(d, given);
    runtime = secure_getenv("XDG_RUNTIME_DIR");
    if (runtime && *runtime == '/') {
        if (asprintf(&path, "%s/droppabled.sock", runtime) < 0)
            return error_detail(-ENOMEM, "no memory for the socket's path");
        error = try_path(d, path);
        free(path);
        if (error == 0)
            return 0;
    }
    return worse(error, try_path(d, "/run/droppabled.sock"));
}

/* Fork lock held. The new page takes the old one's place: pin() of other threads reads it at any moment. */
static int map_clock(struct drp *d, int fd) {
    int fixed = d->clock ? MAP_FIXED : 0;
    struct stat st;
    void *p;

    if (fstat(fd, &st) < 0 || st.st_size < DRP_CLOCK_BYTES)
        return error_detail(-EPROTO, "the service's clock page is too small");
    p = mmap(d->clock, DRP_CLOCK_BYTES, PROT_READ, MAP_SHARED | fixed, fd, 0);
    if (p == MAP_FAILED)
        return error_detail(-errno, "cannot map the service's clock page: %s", strerror(errno));
    d->clock = p;
    madvise(p, DRP_CLOCK_BYTES, MADV_DONTDUMP);
    return 0;
}

/*
 * A userfaultfd that also serves faults from kernel mode (read(2) into a region), or a negative errno. Fork lock held.
 */
static int make_uffd(const struct link *link) {
    int flags = O_CLOEXEC | O_NONBLOCK;
    int fd = -1;

    if (link->hello.flags & DRP_HELLO_LENT_UFFD)
        fd = ioctl(link->packet->fds[1], USERFAULTFD_IOC_NEW, flags);
    if (fd < 0)
        fd = (int)syscall(SYS_userfaultfd, flags);
    return fd < 0 ? -errno : fd;
}

/*
 * Makes, sends and closes the userfaultfd. Fork lock held, so no wait: after a hello that was answered there is room.
 */
static int send_uffd(struct drp *d, struct link *link) {
    struct drp_wire_uffd request = {.header.type = DRP_WIRE_UFFD};
    int fd = make_uffd(link);
    int r;

    channel_packet_close(link->packet);
    atomic_store(&d->interception_error, fd < 0 ? fd : 0);
    if (fd < 0)
        request.reason = (uint32_t)-fd;
    r = link_send(link, &request, sizeof(request), &fd, fd >= 0, 0);
    if (fd >= 0)
        close(fd);
    return r;
}

int context_settle(struct drp *d, struct link *link) {
    uint32_t interception = DRP_INTERCEPTION_NONE;
    int clock;
    int r;

    fork_lock();
    clock = channel_packet_take(link->packet, 0);
    r = map_clock(d, clock);
    close(clock);
    if (r == 0)
        r = send_uffd(d, link);
    fork_unlock();
    if (r < 0)
        return r;
    r = link_wait(link, DRP_WIRE_UFFD, REQUEST_TIMEOUT_MS);
    if (link_is_lost(r))
        return r;
    if (r == 0 && link->packet->message.uffd_reply.interception == DRP_WIRE_INTERCEPTION_FULL)
        interception = DRP_INTERCEPTION_FULL;
    else if (atomic_load(&d->interception_error) == 0)
        atomic_store(&d->interception_error, r < 0 ? r : -EOPNOTSUPP);
    atomic_store(&d->interception, interception);
    r = limits_hand_over(d, link);
    return link_is_lost(r) ? r : 0;
}

/* request_lock held, or nobody else has d yet. */
static int begin(struct drp *d) {
    int r = context_settle(d, &d->link), asked = r == 0 ? lost_watch_again(d, &d->link) : 0;

    if (link_is_lost(asked)) /* else the watcher asks once more */
        r = asked;
    if (r == 0) {
        atomic_store(&d->connected, true);
        r = watcher_start(d);
    }
    if (r < 0) {
        atomic_store(&d->connected, false);
        link_close(&d->link);
        lost_close(d);
    }
    return r;
}

/* In a child after fork(), or when the program has closed the old one: the first request makes the connection. */
static int connect_again(struct drp *d) {
    int r = link_open(&d->link, d->socket_path, d->name);

    if (r == 0)
        r = begin(d);
    if (r == 0) {
        d->inherited = false;
        return 0;
    }
    return r == -ENOENT || r == -ECONNREFUSED ? -ENOTCONN : r;
}

/* Some do without. */
static bool context_has_service(const struct drp *d) {
    return d->backend == DRP_BACKEND_AUTO || d->backend == DRP_BACKEND_DAEMON || atomic_load(&d->served);
}

int context_lock(struct drp *d) {
    int r = 0;

    fork_catch_up();
    if (!context_has_service(d))
        return error_detail(-ENOTCONN, "the backend is '%s', and no service knows of this process's regions",
                            choice_name(d->backend));
    /* The watcher takes its time while the daemon is away, without the lock. */
    pthread_mutex_lock(&d->request_lock);
    if (d->inherited)
        r = connect_again(d);
    else if (!atomic_load(&d->connected))
        r = error_detail(-ENOTCONN, "the service at %s is away; the connection is made again by itself when it is back",
                         d->socket_path);
    if (r < 0)
        pthread_mutex_unlock(&d->request_lock);
    return r;
}

void context_unlock(struct drp *d) {
    pthread_mutex_unlock(&d->request_lock);
}

/* Of those that were made before there was a service; they do without it. regions_lock held. */
static void tell_of_regions(struct drp *d) {
    for (struct drp_region *r = d->regions; r; r = r->next) {
        int error;

        if (r->phase != REGION_LIVE)
            continue;
        error = native_tell(r);
        r->held_up = error_is_shortage(error); /* the watcher that has just begun looks for such */
        if (error == 0)
            error = options_tell(r);
        if (link_is_lost(error))
            break;
    }
}

void context_look_again(struct drp *d) {
    const struct drp_config config = {.struct_size = sizeof(config), .socket_path = d->given_path};

    if (d->backend != DRP_BACKEND_NATIVE || atomic_load(&d->served))
        return;
    pthread_mutex_lock(&d->regions_lock);
    if (!atomic_load(&d->served) && wait_now_ms() >= d->look_again_at) {
        int r;

        pthread_mutex_lock(&d->request_lock);
        r = context_connect(d, &config);
        if (r == 0)
            r = begin(d);
        d->inherited &= r != 0;
        atomic_store(&d->served, r == 0);
        pthread_mutex_unlock(&d->request_lock);
        if (r == 0)
            tell_of_regions(d);
        else if (r != -ENOENT && r != -ECONNREFUSED) /* one that hangs is not to be waited for at each region */
            d->look_again_at = wait_now_ms() + LOOK_AGAIN_MS;
    }
    pthread_mutex_unlock(&d->regions_lock);
}

int drp_new(struct drp **ret, const struct drp_config *config) {
    NOT_CANCELLED;
    enum drp_backend backend;
    struct drp_config c;
    struct drp *d;
    int r;

    r = read_config(&c, config);
    if (r == 0)
        r = choice_of_context(c.backend, &backend);
    if (r == 0)
        r = context_new(&d, config);
    if (r != 0)
        return r;
    d->backend = backend;
    r = backend == DRP_BACKEND_NONE ? 0 : context_connect(d, config);
    if (r == 0 && backend != DRP_BACKEND_NONE)
        r = begin(d);
    atomic_store(&d->served, r == 0 && backend != DRP_BACKEND_NONE);
    if (r < 0 && backend == DRP_BACKEND_NATIVE)
        r = 0;
    if (r < 0) {
        context_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

struct drp *drp_free(struct drp *d) {
    NOT_CANCELLED;
    bool tell = true;

    if (!d)
        return NULL;
    fork_catch_up();
    watcher_stop(d);
    /* A daemon that hangs is asked once; it frees everything when the connection ends. */
    while (d->regions)
        if (region_end(d->regions, tell) < 0)
            tell = false;
    context_free(d);
    return NULL;
}

int drp_get_stats(struct drp *d, struct drp_stats *ret) {
    NOT_CANCELLED;
    struct drp_wire_header request = {.type = DRP_WIRE_STATS};
    struct drp_stats stats = {.reconnects = atomic_load(&d->reconnects)};
    int r;

    r = context_lock(d);
    if (r == 0) {
        r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
        if (r == 0) {
            const struct drp_wire_counters *counters = &d->link.packet->message.stats_reply.counters;

            stats.resident_bytes = counters->resident_bytes;
            stats.dropped_bytes = counters->dropped_bytes;
            stats.intercepted_faults = counters->intercepted_faults;
            stats.refaults = counters->refaults;
        }
        context_unlock(d);
    }
    *ret = stats;
    return r;
}
