/* SPDX-License-Identifier: MIT */
/*
 * Keeps foreign descriptors out of the daemon's table, and their last close out of its threads.
 *
 * close(2) of a descriptor that a client sent can wait for the client: of a file on its own FUSE file system, of a TCP socket that lingers, of
 * a userfaultfd (the client's mmap_lock). The same goes for the close of a socket in which such descriptors wait unread. So a packet
 * that brings descriptors is received by a thread with a descriptor table of its own, which passes on those of the kind that is
 * expected, keeps its copies until ours are closed, and closes them last. If that hangs, it hangs there: nothing else is in its table.
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
#include <unistd.h>

#define VET_MAX 512
#define VET_STUCK_MAX_PER_UID 4
#define VET_CLOSERS_PER_UID 16
#define VET_STUCK_NS UINT64_C(1000000000)
#define VET_WAIT_MS 5000
#define VET_FDS_MAX 253 /* SCM_MAX_FD: with room for all of them the kernel disposes of none before the verdict */

struct vet {
    LIST_ENTRY(vet) link;
    struct worker worker;
    int socket; /* in the thread's table */
    uid_t uid;
    enum vet_kind kind;
    bool closer;       /* closes sockets, receives nothing */
    uint64_t released; /* when the thread was told to close; 0: not yet */
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
    for (size_t i = 0; i < vet->n_fds; i++)
        close(vet->fds[i]);
    close(vet->socket);
}

static void closer_main(struct worker *worker) {
    struct pollfd control = {.fd = worker->control, .events = POLLIN};
    void *data;
    int fd;

    worker_calm(worker);
    while (!worker_stopping(worker)) /* until ours is closed, so that this one is the last */
        (void)poll(&control, 1, -1);
    close(worker->keep[0]);
    /* More of the same user's. What comes after this is purged with control, in this thread, too. */
    while (worker_receive(worker, &fd, &data) > 0)
        close(fd);
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

/* Threads in all, and those of a user that hang in their close. */
static unsigned vet_count(const struct vet_list *list, uid_t uid, unsigned *ret_stuck) {
    uint64_t now = kernel_now();
    const struct vet *vet;
    unsigned n = 0;

    *ret_stuck = 0;
    LIST_FOREACH (vet, list, link) {
        n += !vet->closer;
        *ret_stuck += !vet->closer && vet->uid == uid && vet->released != 0 && now - vet->released > VET_STUCK_NS;
    }
    return n;
}

static int vet_new(struct vet_list *list, struct worker_pool *pool, int socket, uid_t uid, worker_main run,
                   enum vet_kind kind, struct vet **ret) {
    struct vet *vet = calloc(1, sizeof(*vet));
    int r;

    if (!vet)
        return -ENOMEM;
    vet->uid = uid;
    vet->kind = kind;
    r = worker_start(&vet->worker, run, pool, &socket, 1, "drp-vet");
    if (r < 0) {
        free(vet);
        return r;
    }
    LIST_INSERT_HEAD(list, vet, link);
    *ret = vet;
    return 0;
}

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

int vet_receive(struct vet_list *list, struct worker_pool *pool, int socket, uid_t uid, enum vet_kind kind,
                struct channel_packet *packet, struct vet **ret) {
    struct vet *vet;
    unsigned stuck;
    int r;

    packet->n_fds = 0;
    vet_tidy(list);
    if (vet_count(list, uid, &stuck) >= VET_MAX || stuck >= VET_STUCK_MAX_PER_UID)
        return VET_BUSY;
    r = vet_new(list, pool, socket, uid, vet_main, kind, &vet);
    if (r < 0)
        return r;
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

/* Leaves the socket to a thread that is closing another of this user's. */
static bool vet_queue_socket(struct vet_list *list, int socket, uid_t uid) {
    const struct vet *vet;

    LIST_FOREACH (vet, list, link)
        if (vet->closer && vet->uid == uid && worker_send_fd(&vet->worker, socket, NULL) >= 0)
            return true;
    return false;
}

void vet_close_socket(struct vet_list *list, struct worker_pool *pool, int socket, uid_t uid) {
    struct vet *vet = NULL, *other;
    unsigned closers = 0;

    vet_tidy(list);
    LIST_FOREACH (other, list, link)
        closers += other->closer && other->uid == uid;
    if ((closers < VET_CLOSERS_PER_UID || !vet_queue_socket(list, socket, uid)) &&
        vet_new(list, pool, socket, uid, closer_main, VET_SHARED_MEMORY, &vet) >= 0)
        vet->closer = true;
    close(socket);
    vet_release(vet);
}

void vet_tidy(struct vet_list *list) {
    struct vet *vet, *next;

    for (vet = LIST_FIRST(list); vet; vet = next) {
        next = LIST_NEXT(vet, link);
        if (!atomic_load(&vet->worker.done))
            continue;
        LIST_REMOVE(vet, link);
        worker_join(&vet->worker);
        free(vet);
    }
}
