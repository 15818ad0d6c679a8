/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_SERVER_H
#define DROPPABLE_DAEMON_SERVER_H

#include "channel.h"
#include "follow.h"
#include "log.h"
#include "manager.h"
#include "notices.h"
#include "source.h"
#include "turns.h"
#include "vet.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <uv.h>

struct operation;
struct server;

/* A socket, before and after its hello. */
struct connection {
    LIST_ENTRY(connection) link;
    struct server *server;
    uv_poll_t poll;
    int socket;
    bool closing;
    bool refused; /* over a limit: its hello is answered with that */
    pid_t pid;
    uid_t uid;
    gid_t gid;
    int pidfd; /* the session's after the hello */
    struct session *session;
    struct operation *operation; /* the request under way; nothing is read meanwhile */
    struct turn turn;
    LIST_ENTRY(connection) resting_link;
    bool resting;       /* nothing is read until turn.at */
    uint64_t vet_since; /* ns: a packet waits for a thread that receives it; 0: none */

    /* The reply that did not fit into the socket. */
    union drp_wire_message reply;
    size_t reply_size;
    int reply_fds[DRP_WIRE_MAX_FDS];
    size_t n_reply_fds;
};
LIST_HEAD(connection_list, connection);

/* A session whose connection is gone, until its threads have ended. */
struct ending {
    LIST_ENTRY(ending) link;
    struct server *server;
    struct session *session;
    uv_poll_t poll; /* of the pidfd: is it a death, or only a disconnect? */
    bool can_poll;  /* else the timer looks */
    bool stopping;
    uint64_t since;
};
LIST_HEAD(ending_list, ending);

struct server {
    uv_loop_t *loop;
    struct manager *manager;
    struct config *config;
    int socket;
    bool passed; /* by the service manager, whose path it is */
    uv_poll_t listener;
    uv_poll_t wake;
    struct sources sources;
    struct follow follow;
    uv_prepare_t round; /* of turns */
    uv_timer_t rest;    /* until the first of resting */
    uv_timer_t tidy;    /* runs while there are endings, or sockets could not be accepted */
    uv_timer_t absent;  /* runs while limits are kept for processes without a session */
    uv_signal_t terminate, interrupt;
    bool accepting;
    bool shared_pending; /* a shared region is held, or ending, and looked at by the timer */
    bool untrimmed;      /* memory was freed that the kernel may have back, */
    uint64_t trim_at;    /* ns: not before */
    uint64_t ended;      /* ns; 0: not yet */
    struct connection_list connections;
    unsigned n_connections;
    unsigned n_refused; /* of them */
    /*
     * Lines about connections that cannot be accepted, that were refused, rules that were broken, quotas, what could not be had, clients and mappings that
     * are not seen.
     */
    struct log_limit accepts, refusals, faults, quotas, failures, blind_clients, blind_mappings;
    struct notices notices;
    struct turns turns;
    struct connection_list resting;
    struct ending_list endings;
    struct vets vets;
};

/*
 * Binds and listens; errors are logged, with the way out. passed: a listening socket, to be taken over, or -1: the settings name a path.
 */
int server_init(struct server *server, uv_loop_t *loop, struct manager *manager, int passed);
/* Starts to accept. After privileges are dropped. */
int server_start(struct server *server);
/* Closes everything and removes the socket; the loop then runs out of handles when all sessions have ended. */
void server_end(struct server *server);

/* After the loop's last turn. */
void server_deinit(struct server *server);

/* ---- between server.c and connection.c ---- */

/* What to wait for follows from what is under way. */
void connection_update(struct connection *connection);
/* Something of a shared region may have to be waited for. */
void server_tidy_shared(struct server *server);
/* Closes a client's socket, in which descriptors may wait unread, and whose close may wait for the client. */
void server_close_socket(struct server *server, int socket, uid_t uid);
/* Memory of a client's was freed. */
void server_note_freed(struct server *server);
/* A connection is gone, and its session (NULL: it had none) ends. */
void server_connection_ended(struct server *server, struct session *session);

/* ---- for handlers ---- */

/* Sends the reply to the request under way; header's type, serial and error are filled in. The descriptors are consumed. */
void connection_reply(struct connection *connection, uint16_t type, uint32_t serial, void *message, size_t size,
                      const int *fds, size_t n_fds);
void connection_reply_error(struct connection *connection, uint16_t type, uint32_t serial, uint32_t error);
/* Ends the connection, with a reason for the log (NULL: an ordinary end). */
void connection_end(struct connection *connection, const char *reason);
/* The request is finished: the next may be read. */
void connection_finish_operation(struct connection *connection);

#endif
