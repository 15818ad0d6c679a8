/* SPDX-License-Identifier: MIT */
/*
 * The socket that is listened on: accepts connections, and sees sessions to their end.
 *
 * A session outlives its connection: whether the client died (its memory is punched) or only disconnected (the memory is its own) the
 * pidfd tells, a moment after the socket. Handles are freed in their close callbacks only.
 */

#include "server.h"

#include "crash-point.h"
#include "log.h"
#include "notices.h"
#include "notify.h"
#include "process.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SERVER_BACKLOG 128
#define SERVER_ACCEPTS 16
/* So many connections over the limit are told so; more are just closed. */
#define SERVER_REFUSED_MAX 32
#define SERVER_TIDY_MS 50
/* An exiting process closes its socket a moment before its pidfd says so. */
#define SERVER_DEATH_WAIT_NS UINT64_C(100000000)
/* Whose connection has ended and who lives is about to come back, and pins meanwhile; or runs another program. */
#define SERVER_SHARES_WAIT_NS UINT64_C(10000000000)
/* An ordinary end takes less. */
#define SERVER_LINGER_NS UINT64_C(1000000000)
/* Between two looks at processes without a session for which limits are kept. */
#define SERVER_ABSENT_MS 1000
/* Between two trims, and so many times the CPU time of the last one: it looks at all memory that is free. */
#define SERVER_TRIM_NS UINT64_C(300000000)
#define SERVER_TRIM_COST 100
#define SERVER_TRIM_WAIT 4 /* so many times how long it took */
#define SERVER_VETS_WAIT_NS UINT64_C(100000000)
#define SERVER_END_WAIT_NS UINT64_C(3000000000)

static void server_tidy(uv_timer_t *timer);

/* ---- accepting ---- */

/* Sessions that outlive their connections: with a thread that is held up, or waiting for who may come back. */
static unsigned count_lingering(const struct server *server, uid_t uid, unsigned *ret_all) {
    uint64_t now = kernel_now();
    struct ending *ending;
    unsigned n = 0;

    *ret_all = 0;
    LIST_FOREACH (ending, &server->endings, link)
        if (!LIST_EMPTY(&ending->session->shares) || now - ending->since > SERVER_LINGER_NS) {
            (*ret_all)++;
            n += ending->session->uid == uid;
        }
    return n;
}

static bool is_over_limit(const struct server *server, uid_t uid) {
    struct connection *connection;
    unsigned most = server->config->max_connections_per_uid, all, stuck;
    unsigned n = count_lingering(server, uid, &all) + vets_count_stuck(&server->vets, uid, most, &stuck);

    all += stuck;
    LIST_FOREACH (connection, &server->connections, link)
        n += connection->uid == uid;
    return server->n_connections - server->n_refused + all >= server->config->max_connections || n >= most;
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
    if (refused && log_allows(&server->refusals, kernel_now()))
        log_about(LOG_LEVEL_WARNING,
                  &(struct log_about){.client = "", .pid = peer.pid, .uid = peer.uid, .id = LOG_ID_REFUSED},
                  "client (pid %d, uid %u): too many connections (Connections=%u, ConnectionsPerUser=%u): refused",
                  (int)peer.pid, peer.uid, server->config->max_connections, server->config->max_connections_per_uid);
    if (refused && server->n_refused >= SERVER_REFUSED_MAX)
        return -EDQUOT;
    pidfd = process_of_peer(socket, &peer);
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
    r = turns_join(&server->turns, &connection->turn, peer.uid, kernel_now());
    if (r >= 0) {
        r = uv_poll_init(server->loop, &connection->poll, socket);
        if (r < 0)
            turns_leave(&server->turns, &connection->turn, kernel_now());
    }
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
    CRASH_POINT("accepted");
    connection_update(connection);
    return 0;
}

static uid_t uid_of_peer(int socket) {
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof(peer);

    (void)getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.uid;
}

/* The timer goes on with it. */
static void pause_accepting(struct server *server, uint64_t ms) {
    uv_poll_stop(&server->listener);
    server->accepting = false;
    uv_timer_start(&server->tidy, server_tidy, ms, SERVER_TIDY_MS);
}

/* A thread of theirs that has ended is not gone before the kernel has closed what it had. */
static void server_tidy_vets(struct server *server) {
    vet_tidy(&server->vets, &server->manager->pool);
    if (vets_are_left(&server->vets) && !server->ended && !uv_is_active((uv_handle_t *)&server->tidy))
        uv_timer_start(&server->tidy, server_tidy, SERVER_TIDY_MS, SERVER_TIDY_MS);
}

void server_close_socket(struct server *server, int socket, uid_t uid) {
    vet_close_socket(&server->vets, socket, uid);
    server_tidy_vets(server);
}

static void server_accept(uv_poll_t *poll, int status, int events) {
    struct server *server = poll->data;

    (void)status;
    (void)events;
    server_tidy_vets(server); /* what is counted is what there is */
    /* The rest comes in the loop's next turn: who connects faster than that shall not keep it from everything else. */
    for (int i = 0; i < SERVER_ACCEPTS; i++) {
        int socket, r;

        if (vets_are_full(&server->vets)) {
            pause_accepting(server, SERVER_TIDY_MS);
            return;
        }
        socket = accept4(server->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (socket < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                if (log_allows(&server->accepts, kernel_now()))
                    log_error("cannot accept: %s: raise LimitNOFILE=; waiting for a connection to end", strerror(errno));
                pause_accepting(server, 1000);
            }
            return;
        }
        r = connection_new(server, socket);
        if (r < 0) /* already there may be what it has sent */
            server_close_socket(server, socket, uid_of_peer(socket));
    }
}

/* ---- the end of sessions ---- */

void server_note_freed(struct server *server) {
    server->untrimmed = true;
    if (!server->ended && !uv_is_active((uv_handle_t *)&server->tidy))
        uv_timer_start(&server->tidy, server_tidy, SERVER_TIDY_MS, SERVER_TIDY_MS);
}

static void ending_free(struct ending *ending) {
    session_free(ending->session); /* pidfd included */
    server_note_freed(ending->server);
    free(ending);
}

static void ending_closed(uv_handle_t *handle) {
    ending_free(handle->data);
}

static void ending_stop(struct ending *ending, bool dead) {
    ending->stopping = true;
    pthread_mutex_lock(&ending->server->manager->lock);
    session_stop(ending->session, dead);
    pthread_mutex_unlock(&ending->server->manager->lock);
    if (dead)
        shared_close_all(ending->session, true);
}

/* Its pins in shared regions vanish with the process. */
static bool ending_has_shares(struct ending *ending, uint64_t now) {
    bool dead;

    if (LIST_EMPTY(&ending->session->shares))
        return false;
    dead = process_ended(ending->session->pidfd);
    if (dead || ending->server->ended || now - ending->since > SERVER_SHARES_WAIT_NS)
        shared_close_all(ending->session, dead);
    return !LIST_EMPTY(&ending->session->shares);
}

static void ending_dead(uv_poll_t *poll, int status, int events) {
    struct ending *ending = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    ending_stop(ending, true);
}

static void server_tidy_endings(struct server *server) {
    uint64_t now = kernel_now();
    struct ending *ending, *next;

    for (ending = LIST_FIRST(&server->endings); ending; ending = next) {
        next = LIST_NEXT(ending, link);
        if (!ending->can_poll && !ending->stopping && process_ended(ending->session->pidfd))
            ending_stop(ending, true);
        if (ending->stopping || now - ending->since > SERVER_DEATH_WAIT_NS)
            ending_stop(ending, false); /* repeated: a signal may come too early for a call that is about to begin */
        if (!ending->stopping || !session_stopped(ending->session) || ending_has_shares(ending, now)) {
            session_give_promises_back(ending->session);
            dropper_give_up(&ending->session->home); /* nobody waits for one who is stuck and gone */
            continue;
        }
        manager_dispatch(server->manager); /* what its threads left for the loop before they ended */
        LIST_REMOVE(ending, link);
        manager_forget_session(server->manager, ending->session);
        session_leave_domains(ending->session);
        CRASH_POINT("session-ended");
        if (ending->can_poll)
            uv_close((uv_handle_t *)&ending->poll, ending_closed);
        else
            ending_free(ending);
    }
}

static void ending_begin(struct server *server, struct session *session) {
    struct ending *ending = calloc(1, sizeof(*ending));
    bool can_poll = process_can_be_polled(session->pidfd);

    if (!ending || (can_poll && uv_poll_init(server->loop, &ending->poll, session->pidfd) < 0)) {
        log_about(LOG_LEVEL_ERROR, &(struct log_about){SESSION_ABOUT(session)},
                  "client %s (pid %d): no memory to end its session, it is leaked", session->name, (int)session->pid);
        free(ending);
        return;
    }
    CRASH_POINT("session-ending");
    ending->server = server;
    ending->session = session;
    ending->can_poll = can_poll;
    ending->since = kernel_now();
    dropper_give_up(&session->home);
    ending->poll.data = ending;
    LIST_INSERT_HEAD(&server->endings, ending, link);
    if (process_ended(session->pidfd))
        ending_stop(ending, true);
    else if (server->ended || (LIST_EMPTY(&session->home.regions) && LIST_EMPTY(&session->shares)))
        ending_stop(ending, false);
    else if (can_poll)
        (void)uv_poll_start(&ending->poll, UV_READABLE, ending_dead);
    uv_timer_start(&server->tidy, server_tidy, SERVER_TIDY_MS, SERVER_TIDY_MS);
}

static void server_tidy_absent(uv_timer_t *timer) {
    struct server *server = timer->data;

    if (!budgets_tidy(server->manager))
        uv_timer_stop(timer);
}

void server_connection_ended(struct server *server, struct session *session) {
    if (session) {
        manager_remove_session(server->manager, session);
        if (!server->ended && !uv_is_active((uv_handle_t *)&server->absent) && budgets_tidy(server->manager))
            uv_timer_start(&server->absent, server_tidy_absent, SERVER_ABSENT_MS, SERVER_ABSENT_MS);
        home_hold(&session->home); /* who lives pins again as soon as he is back, in pages that are another home's */
        ending_begin(server, session);
    }
    if (!server->accepting && !server->ended)
        uv_timer_start(&server->tidy, server_tidy, 0, SERVER_TIDY_MS); /* a descriptor is free again */
}

/* ---- the loop's other events ---- */

/* What has to be looked at again is, by the timer. */
void server_tidy_shared(struct server *server) {
    if (!LIST_EMPTY(&server->manager->ending_homes))
        server_note_freed(server); /* the last of them, too */
    server->shared_pending = shared_tidy(server->manager);
    if (server->shared_pending && !server->ended && !uv_is_active((uv_handle_t *)&server->tidy))
        uv_timer_start(&server->tidy, server_tidy, SERVER_TIDY_MS, SERVER_TIDY_MS);
}

static void server_woken(uv_poll_t *poll, int status, int events) {
    struct server *server = poll->data;
    uint64_t count;

    (void)status;
    (void)events;
    (void)!read(server->manager->wake_fd, &count, sizeof(count)); /* before all that it can have been written for */
    manager_dispatch(server->manager);
    server_tidy_vets(server);
    sources_tidy(&server->sources);
    notices_tell(&server->notices, server->manager);
    server_tidy_endings(server);
    if (server->shared_pending || !LIST_EMPTY(&server->manager->ending_homes)) /* it goes through all homes */
        server_tidy_shared(server);
}

static void server_unlink(const struct server *server) {
    if (!server->passed)
        unlink(server->config->socket_path);
}

/* Gives back to the kernel what those had who are gone: many at a time would be remembered for ever. Later, if it was done a moment ago. */
static void server_trim(struct server *server) {
    uint64_t now = kernel_now(), before, cost, pause;

    if (!server->untrimmed || now < server->trim_at)
        return;
    server->untrimmed = false;
    before = kernel_thread_time();
    malloc_trim(0);
    cost = (kernel_thread_time() - before) * SERVER_TRIM_COST;
    /* Whoever kept this thread from a CPU meanwhile shall not put the next one off for long; but the loop waited, too. */
    pause = (kernel_now() - now) * SERVER_TRIM_WAIT;
    pause = pause > cost ? pause : cost;
    server->trim_at = kernel_now() + (pause > SERVER_TRIM_NS ? pause : SERVER_TRIM_NS);
}

static void server_tidy(uv_timer_t *timer) {
    struct server *server = timer->data;

    if (!server->ended)
        server_trim(server); /* also where somebody never ends */
    server_tidy_endings(server);
    server_tidy_shared(server);
    vet_tidy(&server->vets, &server->manager->pool);
    if (!server->accepting && !server->ended && !vets_are_full(&server->vets)) {
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
        server_unlink(server);
        _exit(0);
    }
    if (!LIST_EMPTY(&server->manager->ending_homes) && kernel_now() - server->ended < SERVER_END_WAIT_NS)
        return;
    if (server->ended && !LIST_EMPTY(&server->manager->ending_homes)) {
        log_warning("a shared region still holds up a call at the end, leaving it");
        server_unlink(server);
        _exit(0);
    }
    if (server->shared_pending && !server->ended)
        return;
    if (!server->ended && (server->untrimmed || vets_are_left(&server->vets)))
        return;
    if (server->ended && vets_are_left(&server->vets) && kernel_now() - server->ended < SERVER_VETS_WAIT_NS)
        return; /* who hangs in a client's close for longer ends with the process */
    uv_timer_stop(timer);
    if (server->ended && !uv_is_closing((uv_handle_t *)timer)) {
        uv_close((uv_handle_t *)&server->wake, NULL);
        uv_close((uv_handle_t *)timer, NULL);
    }
}

static void server_begin_round(uv_prepare_t *prepare) {
    struct server *server = prepare->data;

    server->turns.round++;
    follow_begin(&server->follow);
}

static void server_signalled(uv_signal_t *signal, int number) {
    log_notice("%s: ending", strsignal(number));
    notify_state("STOPPING=1\nSTATUS=Ending.");
    server_end(signal->data);
}

/* ---- life ---- */

/* Connections from now on have our credentials, no longer those of who made the socket (unix(7), SO_PEERCRED). */
static int server_take(struct server *server, int passed) {
    int r = listen(passed, SERVER_BACKLOG) < 0 ? -errno : 0;

    server->passed = true;
    server->socket = passed;
    if (r < 0)
        log_error("%s: cannot listen on the socket that was passed: %s", server->config->socket_path, strerror(-r));
    return r;
}

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
    if (r < 0) {
        log_error("--socket %s: %s", config->socket_path, strerror(-r));
        return r;
    }
    if (config->socket_gid != (gid_t)-1 && chown(config->socket_path, (uid_t)-1, config->socket_gid) < 0) {
        r = -errno;
        log_error("SocketGroup=: cannot give %s to group %u: %s; that takes root, or membership", config->socket_path,
                  config->socket_gid, strerror(-r));
    }
    return r;
}

int server_init(struct server *server, uv_loop_t *loop, struct manager *manager, int passed) {
    int r;

    *server = (struct server){.loop = loop, .manager = manager, .config = manager->config, .socket = -1};
    LIST_INIT(&server->connections);
    LIST_INIT(&server->resting);
    LIST_INIT(&server->turns.users);
    LIST_INIT(&server->endings);
    vets_init(&server->vets);
    r = passed >= 0 ? server_take(server, passed) : server_bind(server);
    if (r < 0) {
        if (server->socket >= 0)
            close(server->socket);
        return r;
    }
    uv_poll_init(loop, &server->listener, server->socket);
    uv_poll_init(loop, &server->wake, manager->wake_fd);
    uv_prepare_init(loop, &server->round);
    uv_timer_init(loop, &server->rest);
    uv_timer_init(loop, &server->tidy);
    uv_timer_init(loop, &server->absent);
    uv_signal_init(loop, &server->terminate);
    uv_signal_init(loop, &server->interrupt);
    server->listener.data = server->wake.data = server->tidy.data = server->terminate.data = server->interrupt.data =
        server->round.data = server->rest.data = server->absent.data = server;
    follow_init(&server->follow, loop, manager);
    return sources_init(&server->sources, loop, manager);
}

int server_start(struct server *server) {
    int r;

    r = uv_signal_start(&server->terminate, server_signalled, SIGTERM);
    if (r >= 0)
        r = uv_signal_start(&server->interrupt, server_signalled, SIGINT);
    if (r >= 0)
        r = uv_prepare_start(&server->round, server_begin_round);
    if (r >= 0)
        r = uv_poll_start(&server->wake, UV_READABLE, server_woken);
    if (r >= 0)
        r = uv_poll_start(&server->listener, UV_READABLE, server_accept);
    server->accepting = true;
    if (r < 0)
        return r;
    /* libuv starts its threads for this, and ends the program where they cannot be had: before all that can do without. */
    r = sources_start(&server->sources);
    if (r < 0)
        return r;
    worker_pool_start(&server->manager->pool);
    return 0;
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
    CRASH_POINT("end-begun");
    server_unlink(server);
    CRASH_POINT("end-unlinked");
    uv_close((uv_handle_t *)&server->listener, listener_closed);
    uv_close((uv_handle_t *)&server->terminate, NULL);
    uv_close((uv_handle_t *)&server->interrupt, NULL);
    uv_close((uv_handle_t *)&server->round, NULL);
    uv_close((uv_handle_t *)&server->rest, NULL);
    uv_close((uv_handle_t *)&server->absent, NULL);
    follow_end(&server->follow);
    sources_end(&server->sources);
    shared_hold_all(server->manager);
    while ((connection = LIST_FIRST(&server->connections)))
        connection_end(connection, NULL);
    CRASH_POINT("end-disconnected");
    uv_timer_start(&server->tidy, server_tidy, 0, SERVER_TIDY_MS);
}

void server_deinit(struct server *server) {
    turns_deinit(&server->turns);
}
