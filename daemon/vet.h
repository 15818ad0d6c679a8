/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_VET_H
#define DROPPABLE_DAEMON_VET_H

#include "channel.h"

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

struct vet;
struct worker_pool;
struct vet_user;
LIST_HEAD(vet_list, vet);
LIST_HEAD(vet_user_list, vet_user);

struct vets {
    struct vet_list all;
    struct vet_user_list users; /* that have any, or sockets that wait for one */
    unsigned n_sockets;         /* of all of them */
};

enum vet_outcome {
    VET_OK = 0,      /* the packet and its descriptors are the caller's, all of the kind that was asked for */
    VET_FOREIGN = 1, /* a descriptor is something else; it never reached our table. The packet has none */
    VET_BROKEN = 2,  /* the packet is truncated, or gone */
    VET_MALFORMED =
        4, /* the codec rejects it: packet->message.header has its type and serial, and in error the codec's verdict */
    VET_BUSY = 3,  /* too many descriptors of this user are still being closed */
    VET_LATER = 5, /* too many are on their way; the packet is still there */
};

enum vet_kind { VET_SHARED_MEMORY, VET_USERFAULTFD, VET_PROC_FILE };

/*
 * Receives the packet that waits in a client's socket, which brings descriptors, by way of a thread of its own. After VET_OK that thread
 * keeps copies until vet_release(*ret), so that no close of ours is the last. Outcome, or a negative errno (no thread or memory to be had).
 */
int vet_receive(struct vets *vets, struct worker_pool *pool, int socket, uid_t uid, enum vet_kind kind,
                struct channel_packet *packet, struct vet **ret);
/* The packet's descriptors are closed, or in somebody's hands. NULL is fine. */
void vet_release(struct vet *vet);
/*
 * Shuts a client's socket down and has a thread close it, whatever unread descriptors are still in it: as soon as one can be had, so call vet_tidy() while
 * vets_are_left(). Consumes the socket.
 */
void vet_close_socket(struct vets *vets, int fd, uid_t uid);
void vets_init(struct vets *vets);
/* Frees those whose thread has ended, and starts others for what waits. */
void vet_tidy(struct vets *vets, struct worker_pool *pool);
static inline bool vets_are_left(const struct vets *vets) {
    return vets->n_sockets > 0 || !LIST_EMPTY(&vets->all);
}
/* So many wait that no more connections should be accepted. */
bool vets_are_full(const struct vets *vets);
/* The user's sockets whose close takes too long, with those behind them; *ret_all: everybody's, of each user so many at most. */
unsigned vets_count_stuck(const struct vets *vets, uid_t uid, unsigned most, unsigned *ret_all);

#endif
