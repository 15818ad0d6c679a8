/* SPDX-License-Identifier: MIT */
/*
 * Keeps foreign descriptors out of the daemon's table, and their last close out of its threads.
 *
 * close(2) of a descriptor that a client sent can wait for the client: of a file on its own FUSE file system, of a TCP socket that lingers, of
 * a userfaultfd (the client's mmap_lock). The same goes for the close of a socket in which such descriptors wait unread. So a packet
 * that brings descriptors is received by a thread with a descriptor table of its own, which passes on those of the kind that is
 * expected, and keeps its copies until ours are closed. Sockets go to such threads, too, the closers.
 *
 * None of them closes anything: it ends, and the kernel closes what is in its table. For an ending thread no socket lingers (SO_LINGER), and that is
 * what anybody can make as many of as he likes. What is left can hang still, but there: nothing else is in that table. So a thread counts until the
 * kernel has none of that number any more, which is after its pthread has been joined.
 */

#include "vet.h"

#include "codec.h"
#include "container.h"
#include "kernel.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VET_MAX 512
#define VET_MAX_PER_UID 64
#define VET_STUCK_MAX_PER_UID 4
#define VET_CLOSERS_PER_UID 8
/* Of one closer: they are there until the last has been closed. As many as its socket holds. */
#define VET_CLOSER_SOCKETS 200
/* Where no thread can be had. */
#define VET_SOCKETS_MAX 4096
#define VET_STUCK_NS UINT64_C(1000000000)
#define VET_WAIT_MS 5000
#define VET_FDS_MAX 253 /* SCM_MAX_FD: with room for all of them the kernel disposes of none before the verdict */

/* A socket that waits for a thread. */
struct vet_socket {
    TAILQ_ENTRY(vet_socket) link;
    int fd;
};

TAILQ_HEAD(vet_sockets, vet_socket);

struct vet_user {
    LIST_ENTRY(vet_user) link;
    uid_t uid;
    unsigned n_packets, n_closers; /* threads */
    struct vet_sockets sockets;
    unsigned n_sockets;
    struct vet *collector; /* of his closers, one that is not released yet; or NULL */
};

struct vet {
    LIST_ENTRY(vet) link;
    struct vet_user *user;
    struct worker worker;
    pid_t tid;
    bool joined;
    int socket; /* in the thread's table */
    enum vet_kind kind;
    unsigned n_sockets;      /* that it closes; 0: it received a packet */
    uint64_t made, released; /* when, and when the thread was told to end; 0: not yet */
    union drp_wire_message message;
    int fds[VET_FDS_MAX];
    size_t n_fds;
};

static bool is_of_kind(int fd, enum vet_kind kind) {
    /* None asks a file system that could be the client's. */
    switch (kind) {
    case VET_SHARED_MEMORY:
        return fcntl(fd, F_GET_SEALS) >= 0;
    case VET_USERFAULTFD:
        return kernel_is_userfaultfd(fd);
    case VET_PROC_FILE:
        return kernel_is_proc_file(fd);
    }
    return false;
}

/* Bytes of the packet, or -1. */
static ssize_t take_packet(struct vet *vet, bool *ret_truncated) {
    union {
        char space[CMSG_SPACE(sizeof(vet->fds))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = &vet->message, .iov_len = sizeof(vet->message)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t size = recvmsg(vet->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (size <= 0)
        return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            memcpy(vet->fds + vet->n_fds, CMSG_DATA(c), n * sizeof(int));
            vet->n_fds += n;
        }
    *ret_truncated = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    return size;
}

static void vet_main(struct worker *worker) {
    struct vet *vet = container_of(worker, struct vet, worker);
    struct drp_wire_header verdict = {.type = VET_OK};
    struct pollfd control = {.fd = worker->control, .events = POLLIN};
    bool truncated = false;
    ssize_t size;

    vet->socket = worker->keep[0];
    size = take_packet(vet, &truncated);
    if (size < 0 || truncated || vet->n_fds > DRP_WIRE_MAX_FDS)
        verdict.type = VET_BROKEN;
    else
        verdict.error = codec_check_request(&vet->message, (size_t)size, vet->n_fds);
    if (verdict.error != CODEC_OK) {
        verdict.type = VET_MALFORMED;
        verdict.reserved = vet->message.header.type;
        verdict.serial = vet->message.header.serial;
    }
    for (size_t i = 0; verdict.type == VET_OK && i < vet->n_fds; i++)
        if (!is_of_kind(vet->fds[i], vet->kind))
            verdict.type = VET_FOREIGN;
    /* The verdict first: closing may take for ever. What cannot be said is not to be waited for. */
    if (channel_send(worker->control, &verdict, sizeof(verdict), NULL, 0, 0) != CHANNEL_OK ||
        (verdict.type == VET_OK &&
         channel_send(worker->control, &vet->message, (size_t)size, vet->fds, vet->n_fds, 0) != CHANNEL_OK))
        shutdown(worker->control, SHUT_WR);
    worker_calm(worker);
    while (!worker_stopping(worker))
        (void)poll(&control, 1, -1);
}

/* Until ours are closed, so that those in its table are the last. */
static void closer_main(struct worker *worker) {
    struct pollfd control = {.fd = worker->control, .events = POLLIN};
    void *data;
    int fd;

    worker_calm(worker);
    while (!worker_stopping(worker)) {
        (void)poll(&control, 1, -1);
        while (worker_receive(worker, &fd, &data) > 0)
            ; /* it stays in the table */
    }
}

/* What the thread says; it does nothing before that waits for anybody. */
static int vet_hear(int handle, struct channel_packet *packet) {
    struct pollfd fd = {.fd = handle, .events = POLLIN};
    int r;

    do
        r = poll(&fd, 1, VET_WAIT_MS);
    while (r < 0 && errno == EINTR);
    return r > 0 ? channel_receive(handle, packet, MSG_DONTWAIT) : -ETIMEDOUT;
}

/* ---- users ---- */

static struct vet_user *find_user(const struct vets *vets, uid_t uid) {
    struct vet_user *user;

    LIST_FOREACH (user, &vets->users, link)
        if (user->uid == uid)
            return user;
    return NULL;
}

/* NULL: no memory. */
static struct vet_user *need_user(struct vets *vets, uid_t uid) {
    struct vet_user *user = find_user(vets, uid);

    if (user)
        return user;
    user = calloc(1, sizeof(*user));
    if (!user)
        return NULL;
    user->uid = uid;
    TAILQ_INIT(&user->sockets);
    LIST_INSERT_HEAD(&vets->users, user, link);
    return user;
}

static void tidy_user(struct vet_user *user) {
    if (user->n_packets > 0 || user->n_closers > 0 || user->n_sockets > 0)
        return;
    LIST_REMOVE(user, link);
    free(user);
}

static bool is_stuck(const struct vet *vet, uint64_t now) {
    return vet->released != 0 && now - vet->released > VET_STUCK_NS;
}

/* It is one only while others do not end. */
static bool collects_for_long(const struct vet *vet, uint64_t now) {
    return vet == vet->user->collector && now - vet->made > VET_STUCK_NS;
}

/* Of his threads that received packets. */
static unsigned count_stuck(const struct vets *vets, const struct vet_user *user) {
    uint64_t now = kernel_now();
    const struct vet *vet;
    unsigned n = 0;

    LIST_FOREACH (vet, &vets->all, link)
        n += vet->user == user && vet->n_sockets == 0 && is_stuck(vet, now);
    return n;
}

/* May a thread receive one more packet of the user's? Of others' stuck ones only so many count: they stay for as long as these like. */
static enum vet_outcome may_receive(const struct vets *vets, const struct vet_user *user) {
    const struct vet_user *other;
    unsigned all = 0;

    if (count_stuck(vets, user) >= VET_STUCK_MAX_PER_UID)
        return VET_BUSY;
    LIST_FOREACH (other, &vets->users, link) {
        unsigned stuck = count_stuck(vets, other);

        all += other->n_packets - stuck + (stuck < VET_STUCK_MAX_PER_UID ? stuck : VET_STUCK_MAX_PER_UID);
    }
    return all >= VET_MAX || user->n_packets >= VET_MAX_PER_UID ? VET_LATER : VET_OK;
}

static int vet_new(struct vets *vets, struct worker_pool *pool, int socket, struct vet_user *user, worker_main run,
                   enum vet_kind kind, struct vet **ret) {
    struct vet *vet = calloc(1, sizeof(*vet));
    int r;

    if (!vet)
        return -ENOMEM;
    vet->user = user;
    vet->kind = kind;
    vet->made = kernel_now();
    r = worker_start(&vet->worker, run, pool, &socket, 1, "drp-vet");
    if (r < 0) {
        free(vet);
        return r;
    }
    vet->tid = vet->worker.tid;
    LIST_INSERT_HEAD(&vets->all, vet, link);
    *ret = vet;
    return 0;
}

/* ---- packets ---- */

/* The verdict, and with VET_OK the packet. */
static int vet_verdict(const struct vet *vet, struct channel_packet *packet) {
    int r = vet_hear(vet->worker.handle, packet), outcome;

    if (r != CHANNEL_OK)
        return r < 0 ? r : VET_BROKEN;
    outcome = packet->message.header.type;
    packet->message.header.type = packet->message.header.reserved;
    if (outcome != VET_OK)
        return outcome;
    r = vet_hear(vet->worker.handle, packet);
    return r == CHANNEL_OK ? VET_OK : r < 0 ? r : VET_BROKEN;
}

int vet_receive(struct vets *vets, struct worker_pool *pool, int socket, uid_t uid, enum vet_kind kind,
                struct channel_packet *packet, struct vet **ret) {
    struct vet_user *user;
    struct vet *vet;
    int r;

    packet->n_fds = 0;
    vet_tidy(vets, pool);
    user = need_user(vets, uid);
    if (!user)
        return -ENOMEM;
    r = may_receive(vets, user);
    if (r == VET_OK)
        r = vet_new(vets, pool, socket, user, vet_main, kind, &vet);
    if (r != VET_OK) {
        tidy_user(user);
        return r;
    }
    user->n_packets++;
    r = vet_verdict(vet, packet);
    if (r == VET_OK)
        *ret = vet;
    else
        vet_release(vet);
    return r;
}

void vet_release(struct vet *vet) {
    if (!vet)
        return;
    vet->released = kernel_now();
    worker_stop(&vet->worker);
}

/* ---- sockets ---- */

/* The thread has one of its own. */
static void forget_socket(struct vets *vets, struct vet_user *user, struct vet_socket *socket) {
    close(socket->fd);
    TAILQ_REMOVE(&user->sockets, socket, link);
    user->n_sockets--;
    vets->n_sockets--;
    free(socket);
}

/* A new one, with the first socket that waits. NULL: there is no thread to be had. */
static struct vet *new_closer(struct vets *vets, struct worker_pool *pool, struct vet_user *user) {
    struct vet_socket *socket = TAILQ_FIRST(&user->sockets);
    struct vet *vet;

    if (vet_new(vets, pool, socket->fd, user, closer_main, VET_SHARED_MEMORY, &vet) < 0)
        return NULL;
    user->n_closers++;
    vet->n_sockets = 1;
    forget_socket(vets, user, socket);
    return vet;
}

/*
 * While none but a few are there each closes at once. Once as many hang, the next one collects first: else they cost a thread each, of whoever has
 * their close wait. What it has is out of our table, so that it is not ours to close if we are killed.
 */
static void release_collector(struct vet_user *user) {
    if (!user->collector || (user->n_closers > VET_CLOSERS_PER_UID && user->collector->n_sockets < VET_CLOSER_SOCKETS))
        return;
    vet_release(user->collector);
    user->collector = NULL;
}

/* false: not now. */
static bool close_some(struct vets *vets, struct worker_pool *pool, struct vet_user *user) {
    unsigned before = user->n_sockets;
    struct vet_socket *socket;

    if (!user->collector)
        user->collector = new_closer(vets, pool, user);
    if (!user->collector)
        return false;
    while ((socket = TAILQ_FIRST(&user->sockets)) && user->collector->n_sockets < VET_CLOSER_SOCKETS &&
           worker_send_fd(&user->collector->worker, socket->fd, NULL) >= 0) {
        user->collector->n_sockets++;
        forget_socket(vets, user, socket);
    }
    release_collector(user);
    return user->n_sockets < before;
}

void vet_close_socket(struct vets *vets, int fd, uid_t uid) {
    struct vet_socket *socket = malloc(sizeof(*socket));
    struct vet_user *user = need_user(vets, uid);

    shutdown(fd, SHUT_RDWR);
    if (!socket || !user) { /* the descriptor is lost: its close could wait */
        free(socket);
        if (user)
            tidy_user(user);
        return;
    }
    socket->fd = fd;
    TAILQ_INSERT_TAIL(&user->sockets, socket, link);
    user->n_sockets++;
    vets->n_sockets++;
}

bool vets_are_full(const struct vets *vets) {
    return vets->n_sockets >= VET_SOCKETS_MAX;
}

unsigned vets_count_stuck(const struct vets *vets, uid_t uid, unsigned most, unsigned *ret_all) {
    uint64_t now = kernel_now();
    const struct vet_user *user;
    const struct vet *vet;
    unsigned n = 0;

    *ret_all = 0;
    LIST_FOREACH (user, &vets->users, link) {
        unsigned own = 0;

        LIST_FOREACH (vet, &vets->all, link)
            own += vet->user == user && (is_stuck(vet, now) || collects_for_long(vet, now)) ? vet->n_sockets : 0;
        own += own > 0 ? user->n_sockets : 0;
        *ret_all += own < most ? own : most;
        n += user->uid == uid ? own : 0;
    }
    return n;
}

/* ---- all of them ---- */

void vets_init(struct vets *vets) {
    LIST_INIT(&vets->all);
    LIST_INIT(&vets->users);
    vets->n_sockets = 0;
}

/* Has the kernel closed what was in its table? */
static bool is_gone(struct vet *vet) {
    if (!vet->joined && !atomic_load(&vet->worker.done))
        return false;
    if (!vet->joined)
        worker_join(&vet->worker);
    vet->joined = true;
    return syscall(SYS_tgkill, getpid(), vet->tid, 0) < 0 && errno == ESRCH;
}

static void vet_free(struct vet *vet) {
    struct vet_user *user = vet->user;

    if (vet->n_sockets > 0)
        user->n_closers--;
    else
        user->n_packets--;
    tidy_user(user);
    LIST_REMOVE(vet, link);
    free(vet);
}

void vet_tidy(struct vets *vets, struct worker_pool *pool) {
    struct vet *vet, *next;
    struct vet_user *user;

    for (vet = LIST_FIRST(&vets->all); vet; vet = next) {
        next = LIST_NEXT(vet, link);
        if (is_gone(vet))
            vet_free(vet);
    }
    LIST_FOREACH (user, &vets->users, link) {
        release_collector(user);
        while (user->n_sockets > 0 && close_some(vets, pool, user))
            ;
    }
}
