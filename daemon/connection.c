/* SPDX-License-Identifier: MIT */
/*
 * Connections: reads one request at a time from each, and sends replies.
 *
 * A connection is not read while a request of it is under way or its reply does not fit into the socket: a client that floods or does
 * not read holds up itself; nor while it rests, since requests of its user took long (turns.h). Every packet passes the codec before a handler sees it; what the codec rejects ends the connection with
 * a named error in the log. Handles are freed in their close callbacks only.
 */

#include "codec.h"
#include "handlers.h"
#include "log.h"
#include "operation.h"
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Between two looks whether there may be a thread for a packet with descriptors. */
#define VET_PAUSE_NS UINT64_C(5000000)
/* Then there is none to be had. */
#define VET_WAIT_NS UINT64_C(2000000000)

static void connection_closed(uv_handle_t *handle) {
    struct connection *connection = handle->data;

    if (connection->pidfd >= 0 && !connection->session)
        close(connection->pidfd);
    for (size_t i = 0; i < connection->n_reply_fds; i++)
        close(connection->reply_fds[i]);
    turns_leave(&connection->server->turns, &connection->turn, kernel_now()); /* not before it was charged */
    server_note_freed(connection->server);
    free(connection);
}

void connection_end(struct connection *connection, const char *reason) {
    struct server *server = connection->server;

    if (connection->closing)
        return;
    connection->closing = true;
    if (reason && log_allows(&server->faults, kernel_now()))
        log_about(LOG_LEVEL_WARNING,
                  &(struct log_about){.client = connection->session ? connection->session->name : "",
                                      .pid = connection->pid,
                                      .uid = connection->uid,
                                      .id = LOG_ID_REFUSED},
                  "client %s (pid %d, uid %u): %s: ending its connection",
                  connection->session ? connection->session->name : "without hello", (int)connection->pid,
                  connection->uid, reason);
    if (connection->operation)
        operation_abandon(connection->operation);
    connection->operation = NULL;
    LIST_REMOVE(connection, link);
    if (connection->resting)
        LIST_REMOVE(connection, resting_link);
    server->n_connections--;
    server->n_refused -= connection->refused;
    uv_close((uv_handle_t *)&connection->poll, connection_closed);
    server_close_socket(server, connection->socket, connection->uid);
    connection->socket = -1;
    server_connection_ended(server, connection->session);
}

/* Tries to send what waits. */
static void connection_flush(struct connection *connection) {
    int r;

    if (connection->reply_size == 0)
        return;
    r = channel_send(connection->socket, &connection->reply, connection->reply_size, connection->reply_fds,
                     connection->n_reply_fds, MSG_DONTWAIT);
    if (r == CHANNEL_AGAIN)
        return;
    for (size_t i = 0; i < connection->n_reply_fds; i++)
        close(connection->reply_fds[i]);
    connection->n_reply_fds = 0;
    connection->reply_size = 0;
    if (r == CHANNEL_CLOSED)
        connection_end(connection, NULL);
    else if (r < 0)
        connection_end(connection, strerror(-r));
}

void connection_reply(struct connection *connection, uint16_t type, uint32_t serial, void *message, size_t size,
                      const int *fds, size_t n_fds) {
    struct drp_wire_header *header = message;

    header->type = type | DRP_WIRE_REPLY;
    header->serial = serial;
    header->error = DRP_WIRE_OK;
    memcpy(&connection->reply, message, size);
    connection->reply_size = size;
    if (n_fds > 0)
        memcpy(connection->reply_fds, fds, n_fds * sizeof(*fds));
    connection->n_reply_fds = n_fds;
    connection_flush(connection);
}

void connection_reply_error(struct connection *connection, uint16_t type, uint32_t serial, uint32_t error) {
    struct drp_wire_header header = {.type = type | DRP_WIRE_REPLY, .serial = serial, .error = error};

    log_debug("client %s (pid %d): %s answered with %s",
              connection->session ? connection->session->name : "without hello", (int)connection->pid,
              codec_type_name(type), codec_error_name(error));
    memcpy(&connection->reply, &header, sizeof(header));
    connection->reply_size = sizeof(header);
    connection->n_reply_fds = 0;
    connection_flush(connection);
}

void connection_finish_operation(struct connection *connection) {
    if (!connection->closing)
        connection_update(connection);
}

/* The codec says no: a value out of its range is answered, anything else ends the connection, too. */
static void connection_reject(struct connection *connection, const struct drp_wire_header *header,
                              enum codec_verdict verdict) {
    char reason[96];

    if (verdict == CODEC_VALUE && connection->session) {
        connection_reply_error(connection, header->type, header->serial, DRP_WIRE_ERROR_INVALID);
        return;
    }
    snprintf(reason, sizeof(reason), "malformed: %s: %s", codec_type_name(header->type), codec_verdict_name(verdict));
    connection_reply_error(connection, header->type, header->serial, DRP_WIRE_ERROR_MALFORMED);
    connection_end(connection, reason);
}

/* ---- turns ---- */

static void resting_wakes(uv_timer_t *timer);

/* Sleeps until the first of those who rest may go on. */
static void await_resting(struct server *server) {
    uint64_t now = kernel_now(), first = UINT64_MAX;
    const struct connection *connection;

    LIST_FOREACH (connection, &server->resting, resting_link)
        first = connection->turn.at < first ? connection->turn.at : first;
    if (first != UINT64_MAX)
        uv_timer_start(&server->rest, resting_wakes, first > now ? (first - now) / 1000000 + 1 : 0, 0);
}

static void resting_wakes(uv_timer_t *timer) {
    struct server *server = timer->data;
    struct connection *connection, *next;
    uint64_t now = kernel_now();

    for (connection = LIST_FIRST(&server->resting); connection; connection = next) {
        next = LIST_NEXT(connection, resting_link);
        if (connection->turn.at > now)
            continue;
        LIST_REMOVE(connection, resting_link);
        connection->resting = false;
        connection_update(connection);
    }
    await_resting(server);
}

/* Until turn.at. */
static void connection_rest(struct connection *connection) {
    struct server *server = connection->server;

    connection->resting = true;
    LIST_INSERT_HEAD(&server->resting, connection, resting_link);
    await_resting(server);
}

/* May the request that begins so be read? Else it stays in the socket. */
static bool connection_has_turn(struct connection *connection, const union drp_wire_message *start) {
    struct server *server = connection->server;
    enum turn_answer answer;

    /* Before what it is about is looked up, which nobody is charged for. */
    if (turns_have_ended(&server->turns, &connection->turn))
        return false;
    answer = turns_ask(&server->turns, &connection->turn, start->header.type, handlers_is_for_all(connection, start),
                       kernel_now());
    if (answer == TURN_LATER)
        connection_rest(connection);
    return answer == TURN_NOW;
}

/* ---- reading ---- */

static bool brings_descriptors(uint16_t type, enum vet_kind *ret_kind) {
    switch (type) {
    case DRP_WIRE_UFFD:
        *ret_kind = VET_USERFAULTFD;
        return true;
    case DRP_WIRE_MAP:
    case DRP_WIRE_ADOPT:
    case DRP_WIRE_OPEN:
        *ret_kind = VET_SHARED_MEMORY;
        return true;
    case DRP_WIRE_NATIVE:
        *ret_kind = VET_PROC_FILE;
        return true;
    default:
        return false;
    }
}

/* false: for too long. */
static bool waits_for_vet(struct connection *connection) {
    uint64_t now = kernel_now();

    if (connection->vet_since == 0)
        connection->vet_since = now;
    if (now - connection->vet_since > VET_WAIT_NS)
        return false;
    connection->turn.at = now + VET_PAUSE_NS;
    connection_rest(connection);
    return true;
}

/*
 * Takes the packet that waits. 1: nothing there, or not yet its turn; 0: packet is filled; negative: the connection has been ended.
 */
static int connection_take(struct connection *connection, struct channel_packet *packet, struct vet **vet) {
    struct server *server = connection->server;
    struct drp_wire_header header;
    enum vet_kind kind;
    bool has_fds = false;
    char reason[96];
    int r;

    r = channel_peek(connection->socket, &packet->message, HANDLERS_LOOK, &has_fds);
    if (r == CHANNEL_OK && !connection_has_turn(connection, &packet->message)) {
        connection->vet_since = 0;
        return 1;
    }
    header = packet->message.header;
    if (r == CHANNEL_OK && !has_fds)
        r = channel_receive(connection->socket, packet, MSG_DONTWAIT);
    else if (r == CHANNEL_OK && !brings_descriptors(header.type, &kind)) {
        /* Ending the connection discards what waits in it, descriptors unseen. */
        snprintf(reason, sizeof(reason), "malformed: %s: wrong number of descriptors", codec_type_name(header.type));
        connection_end(connection, reason);
        return -EBADMSG;
    } else if (r == CHANNEL_OK) {
        r = vet_receive(&server->vets, &server->manager->pool, connection->socket, connection->uid, kind, packet, vet);
        if (r == VET_OK) {
            connection->vet_since = 0;
            return 0;
        }
        if (r == VET_LATER && waits_for_vet(connection))
            return 1;
        connection->vet_since = 0;
        if (r == VET_MALFORMED) {
            connection_reject(connection, &packet->message.header, (enum codec_verdict)packet->message.header.error);
            return -EBADMSG;
        }
        snprintf(reason, sizeof(reason), "%s: %s", codec_type_name(header.type),
                 r == VET_FOREIGN                  ? "descriptor: not of the kind expected"
                 : r == VET_BUSY || r == VET_LATER ? "descriptor: too many of this user are still being closed"
                 : r < 0                           ? strerror(-r)
                                                   : "malformed: packet or descriptors truncated");
        connection_end(connection, reason);
        return -EBADMSG;
    }
    if (r == CHANNEL_OK || r == CHANNEL_AGAIN)
        return r;
    connection_end(connection, r == CHANNEL_CLOSED      ? NULL
                               : r == CHANNEL_TRUNCATED ? "malformed: packet or descriptors truncated"
                                                        : strerror(-r));
    return -EBADMSG;
}

static void connection_serve(struct connection *connection, struct channel_packet *packet) {
    enum codec_verdict verdict = codec_check_request(&packet->message, packet->size, packet->n_fds);

    if (verdict == CODEC_OK)
        handlers_dispatch(connection, packet);
    else if (packet->size >= sizeof(packet->message.header))
        connection_reject(connection, &packet->message.header, verdict);
    else
        connection_end(connection, "malformed: no header: message too short");
}

static void connection_read(struct connection *connection) {
    struct server *server = connection->server;
    uint64_t began = kernel_thread_time();
    struct channel_packet packet;
    struct vet *vet = NULL;
    int r = connection_take(connection, &packet, &vet);

    if (r > 0) { /* it keeps its place in the line */
        turns_spend(&server->turns, &connection->turn, kernel_thread_time() - began);
        return;
    }
    if (r == 0) {
        connection_serve(connection, &packet);
        channel_packet_close(&packet);
        vet_release(vet);
    }
    turns_charge(&server->turns, &connection->turn, kernel_thread_time() - began, kernel_now());
}

static bool connection_reads(const struct connection *connection) {
    return connection->reply_size == 0 && !connection->operation && !connection->resting;
}

static void connection_ready(uv_poll_t *poll, int status, int events) {
    struct connection *connection = poll->data;

    if (status < 0) {
        connection_end(connection, NULL);
        return;
    }
    if (events & UV_WRITABLE)
        connection_flush(connection);
    if (!connection->closing && (events & UV_READABLE) && connection_reads(connection))
        connection_read(connection);
    else if (!connection->closing && (events & UV_DISCONNECT))
        connection_end(connection, NULL);
    if (!connection->closing)
        connection_update(connection);
}

void connection_update(struct connection *connection) {
    int events = UV_DISCONNECT;

    if (connection->reply_size > 0)
        events |= UV_WRITABLE;
    else if (connection_reads(connection))
        events |= UV_READABLE;
    uv_poll_start(&connection->poll, events, connection_ready);
}
