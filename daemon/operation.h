/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_OPERATION_H
#define DROPPABLE_DAEMON_OPERATION_H

#include "dropper.h"
#include "manager.h"
#include "pager.h"
#include "wire.h"

#include <stddef.h>
#include <stdint.h>

struct connection;

struct operation {
    struct completion completion;
    struct connection *connection; /* NULL: gone */
    struct session *session;
    struct manager *manager;
    uint16_t type;
    uint32_t serial;
    struct pager_command command;
    struct drop_request request;
    struct pressure_hand hand;
    struct region *region;
    struct mapping *mapping;
    bool last;  /* destroy: the last step in the pager */
    int fds[2]; /* to send with the reply */
    size_t n_fds;
};

/*
 * Begins an operation for the request; nothing more is read from the connection until it is finished. run is called in the loop when its other
 * threads are done. NULL: no memory, replied already.
 */
struct operation *operation_new(struct connection *connection, const struct drp_wire_header *header,
                                void (*run)(struct completion *completion));
struct operation *operation_of(struct completion *completion);
/* A descriptor to send with the reply; closed if there is none. */
void operation_add_fd(struct operation *operation, int fd);
/* Replies with message and descriptors, or with an error; frees the operation and lets the connection go on. */
void operation_finish(struct operation *operation, uint32_t error, void *message, size_t size);
/* Room for so many pieces of the command, until the end of the operation. NULL: no memory. */
struct extent *operation_make_pieces(struct operation *operation, size_t n);
/* The connection is gone: what is under way ends without a reply. */
void operation_abandon(struct operation *operation);
/* Hands command over to the session's pager. */
void operation_submit(struct operation *operation, enum pager_command_type type);
/* Negative errno to wire error. */
uint32_t operation_error(int error);

#endif
