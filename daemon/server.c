/* SPDX-License-Identifier: MIT */
/*
 * Sockets: accepts connections, reads one request at a time from each, sends replies, and sees sessions to their end.
 *
 * A connection is not read while a request of it is under way or its reply does not fit into the socket: a client that floods or does
 * not read holds up itself. Every packet passes the codec before a handler sees it; what the codec rejects ends the connection with
 * a named error in the log.
 *
 * A session outlives its connection: whether the client died (its memory is punched) or only disconnected (the memory is its own) the
 * pidfd tells, a moment after the socket. Handles are freed in their close callbacks only.
 */

#include "server.h"

#include "codec.h"
#include "gate.h"
#include "handlers.h"
#include "log.h"
#include "notices.h"
#include "operation.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SERVER_BACKLOG 128
/* So many connections over the limit are told so; more are just closed. */
#define SERVER_REFUSED_MAX 32
#define SERVER_TIDY_MS 50
/* An exiting process closes its socket a moment before its pidfd says so. */
#define SERVER_DEATH_WAIT_NS UINT64_C(100000000)
#define SERVER_VETS_WAIT_NS UINT64_C(100000000)
#define SERVER_END_WAIT_NS UINT64_C(3000000000)

static void connection_update(struct connection *connection);
static void ending_begin(struct server *server, struct session *session);
static void server_tidy(uv_timer_t *timer);

/* ---- connections ---- */

static void connection_closed(uv_handle_t *handle) {
    struct connection *connection = handle->data;

    if (connection->pidfd >= 0 && !connection->session)
        close(connection->pidfd);
    for (size_t i = 0; i < connection->n_reply_fds; i++)
        close(connection->reply_fds[i]);
    free(connection);
}

/* Descriptors may wait in it unread, and their close may wait for the client: not ours to do. */
static void connection_close_socket(struct connection *connection) {
    struct server *server = connection->server;
    struct session *session = connection->session;

    shutdown(connection->socket, SHUT_RDWR);
    if (session && session->dropper.worker.started &&
        worker_send_fd(&session->dropper.worker, connection->socket, NULL) >= 0)
        close(connection->socket);
    else
        vet_close_socket(&server->vets, server->manager->wake_fd, connection->socket, connection->uid);
    connection->socket = -1;
}

void connection_end(struct connection *connection, const char *reason) {
    struct server *server = connection->server;

    if (connection->closing)
        return;
    connection->closing = true;
    if (reason)
        log_warning("client %s (pid %d, uid %u): %s: ending its connection",
                    connection->session ? connection->session->name : "without hello", (int)connection->pid,
                    connection->uid, reason);
    if (connection->operation)
        operation_abandon(connection->operation);
    connection->operation = NULL;
    LIST_REMOVE(connection, link);
    server->n_connections--;
    server->n_refused -= connection->refused;
    uv_close((uv_handle_t *)&connection->poll, connection_closed);
    connection_close_socket(connection);
    if (connection->session) {
        manager_remove_session(server->manager, connection->session);
        ending_begin(server, connection->session);
    }
    if (!server->accepting && !server->ended)
        uv_timer_start(&server->tidy, server_tidy, 0, SERVER_TIDY_MS); /* a descriptor is free again */
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

/* Takes the packet that waits. 1: nothing there; 0: packet is filled; negative: the connection has been ended. */
static int connection_take(struct connection *connection, struct channel_packet *packet, struct vet **vet) {
    struct server *server = connection->server;
    struct drp_wire_header header;
    bool has_fds = false;
    char reason[96];
    int r;

    r = channel_peek(connection->socket, &header, &has_fds);
    if (r == CHANNEL_OK && !has_fds)
        r = channel_receive(connection->socket, packet, MSG_DONTWAIT);
    else if (r == CHANNEL_OK && header.type != DRP_WIRE_UFFD && header.type != DRP_WIRE_MAP &&
             header.type != DRP_WIRE_ADOPT) {
        /* Ending the connection discards what waits in it, descriptors unseen. */
        snprintf(reason, sizeof(reason), "malformed: %s: wrong number of descriptors", codec_type_name(header.type));
        connection_end(connection, reason);
        return -EBADMSG;
    } else if (r == CHANNEL_OK) {
        r = vet_receive(&server->vets, server->manager->wake_fd, connection->socket, connection->uid,
                        header.type == DRP_WIRE_UFFD ? VET_USERFAULTFD : VET_SHARED_MEMORY, packet, vet);
        if (r == VET_OK)
            return 0;
        if (r == VET_MALFORMED) {
            connection_reject(connection, &packet->message.header, (enum codec_verdict)packet->message.header.error);
            return -EBADMSG;
        }
        snprintf(reason, sizeof(reason), "%s: %s", codec_type_name(header.type),
                 r == VET_FOREIGN ? "descriptor: not of the kind expected"
                 : r == VET_BUSY  ? "descriptor: too many of this user are still being closed"
                 : r < 0          ? strerror(-r)
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

static void connection_read(struct connection *connection) {
    struct channel_packet packet;
    enum codec_verdict verdict;
    struct vet *vet = NULL;

    if (connection_take(connection, &packet, &vet) != 0)
        return;
    verdict = codec_check_request(&packet.message, packet.size, packet.n_fds);
    if (verdict == CODEC_OK)
        handlers_dispatch(connection, &packet);
    else if (packet.size >= sizeof(packet.message.header))
        connection_reject(connection, &packet.message.header, verdict);
    else
        connection_end(connection, "malformed: no header: message too short");
    channel_packet_close(&packet);
    vet_release(vet);
}

static void connection_ready(uv_poll_t *poll, int status, int events) {
    struct connection *connection = poll->data;

    if (status < 0) {
        connection_end(connection, NULL);
        return;
    }
    if (events & UV_WRITABLE)
        connection_flush(connection);
    if (!connection->closing && (events & UV_READABLE) && connection->reply_size == 0 && !connection->operation)
        connection_read(connection);
    else if (!connection->closing && (events & UV_DISCONNECT))
        connection_end(connection, NULL);
    if (!connection->closing)
        connection_update(connection);
}

/* What to wait for follows from what is under way. */
static void connection_update(struct connection *connection) {
    int events = UV_DISCONNECT;

    if (connection->reply_size > 0)
        events |= UV_WRITABLE;
    else if (!connection->operation)
        events |= UV_READABLE;
    uv_poll_start(&connection->poll, events, connection_ready);
}

/* ---- accepting ---- */

static unsigned connections_of(const struct server *server, uid_t uid) {
    struct connection *connection;
    unsigned n = 0;

    LIST_FOREACH (connection, &server->connections, link)
        n += connection->uid == uid;
    return n;
}

static bool is_over_limit(const struct server *server, uid_t uid) {
    return server->n_connections - server->n_refused >= server->config->max_connections ||
           connections_of(server, uid) >= server->config->max_connections_per_uid;
}

static int connection_new(struct server *server, int socket) {
    struct ucred peer;
    socklen_t size = sizeof(peer);
    struct connection *connection;
    bool refused;
    int pidfd, r;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return -errno;
    refused = is_over_limit(server, peer.uid);
    if (refused)
        log_warning("client (pid %d, uid %u): too many connections (Connections=%u, ConnectionsPerUser=%u): refused",
                    (int)peer.pid, peer.uid, server->config->max_connections, server->config->max_connections_per_uid);
    if (refused && server->n_refused >= SERVER_REFUSED_MAX)
        return -EDQUOT;
    pidfd = kernel_peer_pidfd(socket, peer.pid);
    if (pidfd < 0)
        return pidfd;
    connection = calloc(1, sizeof(*connection));
    if (!connection) {
        close(pidfd);
        return -ENOMEM;
    }
    connection->server = server;
    connection->socket = socket;
    connection->pidfd = pidfd;
    connection->pid = peer.pid;
    connection->uid = peer.uid;
    connection->gid = peer.gid;
    r = uv_poll_init(server->loop, &connection->poll, socket);
    if (r < 0) {
        close(pidfd);
        free(connection);
        return r;
    }
    connection->poll.data = connection;
    LIST_INSERT_HEAD(&server->connections, connection, link);
    server->n_connections++;
    connection->refused = refused;
    server->n_refused += refused;
    connection_update(connection);
    return 0;
}

static void server_accept(uv_poll_t *poll, int status, int events) {
    struct server *server = poll->data;

    (void)status;
    (void)events;
    for (;;) {
        int socket = accept4(server->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

        if (socket < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                log_error("cannot accept: %s: raise LimitNOFILE=; waiting for a connection to end", strerror(errno));
                uv_poll_stop(&server->listener);
                server->accepting = false;
                uv_timer_start(&server->tidy, server_tidy, 1000, SERVER_TIDY_MS);
            }
            return;
        }
        r = connection_new(server, socket);
        if (r < 0) /* already there may be what it has sent */
            vet_close_socket(&server->vets, server->manager->wake_fd, socket, (uid_t)-1);
    }
}

/* ---- the end of sessions ---- */

static void ending_closed(uv_handle_t *handle) {
    struct ending *ending = handle->data;

    session_free(ending->session); /* pidfd included */
    free(ending);
}

static void ending_stop(struct ending *ending, bool dead) {
    ending->stopping = true;
    pthread_mutex_lock(&ending->server->manager->lock);
    session_stop(ending->session, dead);
    pthread_mutex_unlock(&ending->server->manager->lock);
}

static void ending_dead(uv_poll_t *poll, int status, int events) {
    struct ending *ending = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    ending->polling = false;
    ending_stop(ending, true);
}

static void server_tidy_endings(struct server *server) {
    uint64_t now = kernel_now();
    struct ending *ending, *next;

    for (ending = LIST_FIRST(&server->endings); ending; ending = next) {
        next = LIST_NEXT(ending, link);
        if (ending->stopping || now - ending->since > SERVER_DEATH_WAIT_NS)
            ending_stop(ending, false); /* repeated: a signal may come too early for a call that is about to begin */
        if (!ending->stopping || !session_stopped(ending->session)) {
            dropper_give_up(ending->session); /* nobody waits for one who is stuck and gone */
            continue;
        }
        manager_dispatch(server->manager); /* what its threads left for the loop before they ended */
        LIST_REMOVE(ending, link);
        session_leave_domains(ending->session);
        uv_close((uv_handle_t *)&ending->poll, ending_closed);
    }
}

static void ending_begin(struct server *server, struct session *session) {
    struct ending *ending = calloc(1, sizeof(*ending));

    if (!ending || uv_poll_init(server->loop, &ending->poll, session->pidfd) < 0) {
        log_error("client %s (pid %d): no memory to end its session, it is leaked", session->name, (int)session->pid);
        free(ending);
        return;
    }
    ending->server = server;
    ending->session = session;
    ending->since = kernel_now();
    dropper_give_up(session);
    ending->poll.data = ending;
    LIST_INSERT_HEAD(&server->endings, ending, link);
    if (kernel_pidfd_dead(session->pidfd))
        ending_stop(ending, true);
    else if (server->ended || LIST_EMPTY(&session->regions))
        ending_stop(ending, false);
    else
        ending->polling = uv_poll_start(&ending->poll, UV_READABLE, ending_dead) == 0;
    uv_timer_start(&server->tidy, server_tidy, SERVER_TIDY_MS, SERVER_TIDY_MS);
}

/* ---- the loop's other events ---- */

static void server_woken(uv_poll_t *poll, int status, int events) {
    struct server *server = poll->data;
    uint64_t count;

    (void)status;
    (void)events;
    (void)!read(server->manager->wake_fd, &count, sizeof(count)); /* before all that it can have been written for */
    manager_dispatch(server->manager);
    vet_tidy(&server->vets);
    sources_tidy(&server->sources);
    notices_tell(server->manager);
    server_tidy_endings(server);
}

static void server_tidy(uv_timer_t *timer) {
    struct server *server = timer->data;

    server_tidy_endings(server);
    if (!server->accepting && !server->ended) {
        server->accepting = true;
        uv_poll_start(&server->listener, UV_READABLE, server_accept);
    }
    if (!LIST_EMPTY(&server->endings)) {
        struct ending *ending;

        if (!server->ended)
            return;
        LIST_FOREACH (ending, &server->endings, link)
            if (kernel_now() - ending->since < SERVER_END_WAIT_NS)
                return;
        /* Only its clients can free such a thread; it ends with the process. */
        log_warning("client %s (pid %d): still holds up a call at the end, leaving it",
                    LIST_FIRST(&server->endings)->session->name, (int)LIST_FIRST(&server->endings)->session->pid);
        unlink(server->config->socket_path);
        _exit(0);
    }
    vet_tidy(&server->vets);
    if (server->ended && !LIST_EMPTY(&server->vets) && kernel_now() - server->ended < SERVER_VETS_WAIT_NS)
        return; /* who hangs in a client's close for longer ends with the process */
    uv_timer_stop(timer);
    if (server->ended && !uv_is_closing((uv_handle_t *)timer)) {
        uv_close((uv_handle_t *)&server->wake, NULL);
        uv_close((uv_handle_t *)timer, NULL);
    }
}

static void server_signalled(uv_signal_t *signal, int number) {
    log_notice("%s: ending", strsignal(number));
    server_end(signal->data);
}

/* ---- life ---- */

static int server_bind(struct server *server) {
    const struct config *config = server->config;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t mask;
    int r;

    if (strlen(config->socket_path) >= sizeof(address.sun_path)) {
        log_error("--socket %s: longer than the %zu bytes that a unix socket's path may have", config->socket_path,
                  sizeof(address.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, config->socket_path);
    server->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->socket < 0)
        return -errno;
    /* A socket that nobody listens on is left over from a daemon that was killed. */
    if (connect(server->socket, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN) {
        log_error("--socket %s: another daemon listens there; stop it, or choose another path", config->socket_path);
        return -EADDRINUSE;
    }
    if (errno == ECONNREFUSED)
        unlink(config->socket_path);
    mask = umask(0777 & ~config->socket_mode);
    r = bind(server->socket, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    umask(mask);
    if (r >= 0 && listen(server->socket, SERVER_BACKLOG) < 0)
        r = -errno;
    if (r >= 0 && config->socket_gid != (gid_t)-1 && chown(config->socket_path, (uid_t)-1, config->socket_gid) < 0)
        r = -errno;
    if (r < 0)
        log_error("--socket %s: %s", config->socket_path, strerror(-r));
    return r;
}

int server_init(struct server *server, uv_loop_t *loop, struct manager *manager) {
    int r;

    *server = (struct server){.loop = loop, .manager = manager, .config = manager->config, .socket = -1};
    LIST_INIT(&server->connections);
    LIST_INIT(&server->endings);
    LIST_INIT(&server->vets);
    r = server_bind(server);
    if (r < 0) {
        if (server->socket >= 0)
            close(server->socket);
        return r;
    }
    uv_poll_init(loop, &server->listener, server->socket);
    uv_poll_init(loop, &server->wake, manager->wake_fd);
    uv_timer_init(loop, &server->tidy);
    uv_signal_init(loop, &server->terminate);
    uv_signal_init(loop, &server->interrupt);
    server->listener.data = server->wake.data = server->tidy.data = server->terminate.data = server->interrupt.data =
        server;
    return sources_init(&server->sources, loop, manager);
}

int server_start(struct server *server) {
    int r;

    r = uv_signal_start(&server->terminate, server_signalled, SIGTERM);
    if (r >= 0)
        r = uv_signal_start(&server->interrupt, server_signalled, SIGINT);
    if (r >= 0)
        r = uv_poll_start(&server->wake, UV_READABLE, server_woken);
    if (r >= 0)
        r = uv_poll_start(&server->listener, UV_READABLE, server_accept);
    server->accepting = true;
    return r;
}

static void listener_closed(uv_handle_t *handle) {
    struct server *server = handle->data;

    close(server->socket);
}

void server_end(struct server *server) {
    struct connection *connection;

    if (server->ended)
        return;
    server->ended = kernel_now();
    unlink(server->config->socket_path);
    uv_close((uv_handle_t *)&server->listener, listener_closed);
    uv_close((uv_handle_t *)&server->terminate, NULL);
    uv_close((uv_handle_t *)&server->interrupt, NULL);
    sources_end(&server->sources);
    while ((connection = LIST_FIRST(&server->connections)))
        connection_end(connection, NULL);
    uv_timer_start(&server->tidy, server_tidy, 0, SERVER_TIDY_MS);
}
