/* SPDX-License-Identifier: MIT */
/*
 * An operation: a request that is under way in other threads.
 *
 * It outlives its connection if need be: it then ends without a reply. It never outlives its session, since the session's
 * threads finish or give up everything before they end, and completions run before the session is freed. The one that the pressure thread works for (FREE) may: it
 * does without the session.
 */

#include "operation.h"

#include "container.h"
#include "mapping.h"
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct operation *operation_new(struct connection *connection, const struct drp_wire_header *header,
                                void (*run)(struct completion *completion)) {
    struct operation *operation = calloc(1, sizeof(*operation));

    if (!operation) {
        connection_reply_error(connection, header->type, header->serial, DRP_WIRE_ERROR_MEMORY);
        return NULL;
    }
    operation->completion.run = run;
    operation->connection = connection;
    operation->session = connection->session;
    operation->manager = connection->server->manager;
    operation->type = header->type;
    operation->serial = header->serial;
    connection->operation = operation;
    return operation;
}

struct operation *operation_of(struct completion *completion) {
    return container_of(completion, struct operation, completion);
}

void operation_add_fd(struct operation *operation, int fd) {
    operation->fds[operation->n_fds++] = fd;
}

void operation_finish(struct operation *operation, uint32_t error, void *message, size_t size) {
    struct connection *connection = operation->connection;
    bool sent = connection && error == DRP_WIRE_OK;

    for (size_t i = 0; i < operation->n_fds && !sent; i++)
        close(operation->fds[i]);
    if (connection) {
        connection->operation = NULL;
        if (error == DRP_WIRE_OK)
            connection_reply(connection, operation->type, operation->serial, message, size, operation->fds,
                             operation->n_fds);
        else
            connection_reply_error(connection, operation->type, operation->serial, error);
        connection_finish_operation(connection);
    }
    free(operation->command.pieces);
    free(operation);
}

struct extent *operation_make_pieces(struct operation *operation, size_t n) {
    operation->command.pieces = calloc(n, sizeof(*operation->command.pieces));
    operation->command.n_pieces = n;
    return operation->command.pieces;
}

void operation_abandon(struct operation *operation) {
    operation->connection = NULL;
}

/* In the pager's thread. */
static void command_done(struct pager_command *command) {
    struct operation *operation = container_of(command, struct operation, command);

    manager_complete(operation->manager, &operation->completion);
}

void operation_submit(struct operation *operation, enum pager_command_type type) {
    operation->command.type = type;
    operation->command.mapping = operation->mapping;
    operation->command.region = operation->region;
    operation->command.done = command_done;
    pager_submit(operation->session, &operation->command);
}

uint32_t operation_error(int error) {
    switch (error) {
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
    case -EAGAIN:
        return DRP_WIRE_ERROR_MEMORY;
    case -EBADF:
    case -EINVAL:
        return DRP_WIRE_ERROR_DESCRIPTOR;
    case -EOPNOTSUPP:
        return DRP_WIRE_ERROR_NOT_INTERCEPTED;
    case -EDQUOT:
        return DRP_WIRE_ERROR_QUOTA;
    case -ESHUTDOWN:
    case -ETIMEDOUT:
        return DRP_WIRE_ERROR_QUARANTINED;
    default:
        return DRP_WIRE_ERROR_INTERNAL;
    }
}
