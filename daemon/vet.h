/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_VET_H
#define DROPPABLE_DAEMON_VET_H

#include "channel.h"

#include <sys/queue.h>
#include <sys/types.h>

struct vet;
LIST_HEAD(vet_list, vet);

enum vet_outcome {
    VET_OK = 0,      /* the packet and its descriptors are the caller's: shared memory or userfaultfds, nothing else */
    VET_FOREIGN = 1, /* a descriptor is something else; it never reached our table. The packet has none */
    VET_BROKEN = 2,  /* the packet is truncated, or gone */
    VET_BUSY = 3,    /* too many descriptors of this user are still being closed */
};

/*
 * Receives the packet that waits in a client's socket, which brings descriptors, by way of a thread of its own. Outcome, or a negative errno (no
 * thread or memory to be had).
 */
int vet_receive(struct vet_list *list, int wake_fd, int socket, uid_t uid, struct channel_packet *packet);
/* Frees those whose thread has ended. */
void vet_tidy(struct vet_list *list);

#endif
