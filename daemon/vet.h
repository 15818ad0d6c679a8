/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_VET_H
#define DROPPABLE_DAEMON_VET_H

#include "channel.h"

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

struct vet;
struct worker_pool;
LIST_HEAD(vet_list, vet);

enum vet_outcome {
    VET_OK = 0,      /* the packet and its descriptors are the caller's, all of the kind that was asked for */
    VET_FOREIGN = 1, /* a descriptor is something else; it never reached our table. The packet has none */
    VET_BROKEN = 2,  /* the packet is truncated, or gone */
    VET_MALFORMED =
        4, /* the codec rejects it: packet->message.header has its type and serial, and in error the codec's verdict */
    VET_BUSY = 3, /* too many descriptors of this user are still being closed */
};

enum vet_kind { VET_SHARED_MEMORY, VET_USERFAULTFD, VET_PROC_FILE };

/*
 * Receives the packet that waits in a client's socket, which brings descriptors, by way of a thread of its own. After VET_OK that thread
 * keeps copies until vet_release(*ret), so that no close of ours is the last. Outcome, or a negative errno (no thread or memory to be had).
 */
int vet_receive(struct vet_list *list, struct worker_pool *pool, int socket, uid_t uid, enum vet_kind kind,
                struct channel_packet *packet, struct vet **ret);
/* The packet's descriptors are closed, or in somebody's hands. NULL is fine. */
void vet_release(struct vet *vet);
/*
 * Closes a client's socket, whatever unread descriptors are still in it, by way of a thread of its own. The caller's copy is
 * consumed. Without a thread to be had it is closed here.
 */
void vet_close_socket(struct vet_list *list, struct worker_pool *pool, int socket, uid_t uid);
/* Frees those whose thread has ended. */
void vet_tidy(struct vet_list *list);

#endif
