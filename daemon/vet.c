/* SPDX-License-Identifier: MIT */
/*
 * Keeps foreign descriptors out of the daemon's table.
 *
 * close(2) of a descriptor that a client sent can wait for the client: of a file on its own FUSE file system as long as it likes. So a packet
 * that brings descriptors is received by a thread with a descriptor table of its own, which passes on what is shared memory
 * (F_GET_SEALS answers) or a userfaultfd, neither of which has a client's code behind its close, and closes the rest itself.
 * If that hangs, it hangs there: nothing else is in its table but the client's own socket.
 */

#include "vet.h"

#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define VET_STUCK_MAX 64
#define VET_STUCK_MAX_PER_UID 4
#define VET_WAIT_MS 5000

struct vet {
    LIST_ENTRY(vet) link;
    struct worker worker;
    int socket;
    uid_t uid;
};

static bool is_harmless(int fd) {
    char path[64], target[64];
    ssize_t n;

    if (fcntl(fd, F_GET_SEALS) >= 0)
        return true;
    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    return strcmp(target, "anon_inode:[userfaultfd]") == 0; /* no path of a file: those begin with a slash */
}

static void vet_main(struct worker *worker) {
    struct vet *vet = (struct vet *)((char *)worker - offsetof(struct vet, worker));
    struct drp_wire_header verdict = {.type = VET_OK};
    struct channel_packet packet;
    int r = channel_receive(vet->socket, &packet, MSG_DONTWAIT);

    if (r != CHANNEL_OK)
        verdict.type = VET_BROKEN;
    for (size_t i = 0; r == CHANNEL_OK && i < packet.n_fds; i++)
        if (!is_harmless(packet.fds[i]))
            verdict.type = VET_FOREIGN;
    /* The verdict first: closing may take for ever. */
    channel_send(worker->control, &verdict, sizeof(verdict), NULL, 0, 0);
    if (r == CHANNEL_OK) {
        channel_send(worker->control, &packet.message, packet.size, packet.fds,
                     verdict.type == VET_OK ? packet.n_fds : 0, 0);
        channel_packet_close(&packet);
    }
    close(vet->socket);
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

static int vet_count(const struct vet_list *list, uid_t uid, unsigned *ret_of_uid) {
    const struct vet *vet;
    int n = 0;

    *ret_of_uid = 0;
    LIST_FOREACH (vet, list, link) {
        n++;
        *ret_of_uid += vet->uid == uid;
    }
    return n;
}

int vet_receive(struct vet_list *list, int wake_fd, int socket, uid_t uid, struct channel_packet *packet) {
    struct vet *vet;
    unsigned of_uid;
    int r, outcome;

    packet->n_fds = 0;
    vet_tidy(list);
    if (vet_count(list, uid, &of_uid) >= VET_STUCK_MAX || of_uid >= VET_STUCK_MAX_PER_UID)
        return VET_BUSY;
    vet = calloc(1, sizeof(*vet));
    if (!vet)
        return -ENOMEM;
    vet->socket = socket;
    vet->uid = uid;
    r = worker_start(&vet->worker, vet_main, wake_fd, &socket, 1, "drp-vet");
    if (r < 0) {
        free(vet);
        return r;
    }
    LIST_INSERT_HEAD(list, vet, link);
    r = vet_hear(vet->worker.handle, packet);
    if (r != CHANNEL_OK)
        return r < 0 ? r : VET_BROKEN;
    outcome = packet->message.header.type;
    if (outcome == VET_BROKEN)
        return outcome;
    r = vet_hear(vet->worker.handle, packet);
    return r == CHANNEL_OK ? outcome : r < 0 ? r : VET_BROKEN;
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
