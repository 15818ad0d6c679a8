/* SPDX-License-Identifier: MIT */

/*
 * A link: one connection to a daemon, one request under way at a time.
 *
 * The socket is non-blocking and every wait is a poll(2) with a deadline, so that no call of the library hangs on a
 * daemon that hangs. A request that was given up leaves a reply behind; replies carry the serial of their request, so
 * the next request passes over what is not its own. Such a stale reply may bring descriptors, which are closed, and may
 * tell of a region that nobody waits for any more, which is destroyed. So is a region of whose reply the descriptors do not fit into this process.
 *
 * Descriptors come into being in this process under the fork lock and are noted in the link before it is released: a
 * child forked at any moment knows all of them and closes them.
 *
 * A peer that breaks the protocol is cut off; the watcher then sees the end of the connection.
 *
 * A program may close what it does not know, and open something else with the same number (object.c): nothing is sent to, received from or closed of
 * that, and the watcher withdraws.
 */

#include "client.h"
#include "codec.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Newer than the C library's headers may be: Linux 6.5. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define CONNECT_RETRY_MS 10

bool link_is_lost(int error) {
    return error == -ENOTCONN || error == -ETIMEDOUT || error == -ECANCELED || error == -EPROTO;
}

void link_init(struct link *link, struct drp *context, struct channel_packet *packet) {
    memset(link, 0, sizeof(*link));
    link->context = context;
    link->packet = packet;
    link->socket = -1;
    link->pidfd = -1;
    link->stop = -1;
}

bool link_has_pidfd(const struct link *link) {
    return object_holds(link->socket, &link->socket_object) && object_holds(link->pidfd, &link->pidfd_object);
}

void link_close(struct link *link) {
    fork_lock();
    channel_packet_close(link->packet);
    if (!link_has_pidfd(link))
        link->pidfd = -1;
    object_close(&link->socket, &link->socket_object);
    object_close(&link->pidfd, &link->pidfd_object);
    fork_unlock();
}

/* Waits for events on the socket (0: for time to pass). -ETIMEDOUT, -ECANCELED. */
static int wait_for(struct link *link, short events, int64_t deadline) {
    struct pollfd polls[2] = {
        {.fd = events ? link->socket : -1, .events = events},
        {.fd = link->stop, .events = POLLIN},
    };
    int64_t left;
    int n;

    do {
        left = deadline - wait_now_ms();
        n = wait_poll(polls, 2, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (polls[1].revents)
        return -ECANCELED;
    return n == 0 ? -ETIMEDOUT : 0;
}

void link_cut(struct link *link) {
    link->cut = true;
    if (object_holds(link->socket, &link->socket_object))
        shutdown(link->socket, SHUT_RDWR);
}

/* The peer does not keep to the protocol: no more of it. */
static int cut_off(struct link *link, const char *what) {
    link_cut(link);
    return error_detail(-EPROTO, "the service sent a reply that makes no sense (%s): is it of another version?", what);
}

static int lost(void) {
    return error_detail(-ENOTCONN,
                        "the service ended the connection; it is made again by itself when the service is back");
}

/* The watcher sees the same. */
static int replaced(const struct link *link) {
    watcher_wake(link->context);
    return error_detail(-ENOTCONN, "the program has closed the library's connection; the next request makes a new one");
}

static int timed_out(uint16_t type) {
    return error_detail(-ETIMEDOUT,
                        "no reply to '%s' in time: the service is stopped or overloaded, see 'droppablectl status'",
                        codec_type_name(type));
}

/* What a reply's error means, for requests whose caller knows no better. */
static int reply_error(uint16_t type, uint32_t error) {
    return error_detail(codec_error_errno(error), "the service refused '%s': %s", codec_type_name(type),
                        codec_error_name(error));
}

int link_send(struct link *link, void *request, size_t size, const int *fds, size_t n_fds, int timeout_ms) {
    struct drp_wire_header *header = request;
    int64_t deadline = wait_now_ms() + timeout_ms;
    int r;

    if (!object_holds(link->socket, &link->socket_object))
        return replaced(link);
    header->serial = ++link->serial;
    for (;;) {
        r = channel_send(link->socket, request, size, fds, n_fds, MSG_DONTWAIT);
        if (r == CHANNEL_OK)
            return 0;
        if (r == CHANNEL_CLOSED)
            return lost();
        if (r != CHANNEL_AGAIN)
            return error_detail(r, "cannot send '%s' to the service: %s", codec_type_name(header->type), strerror(-r));
        r = wait_for(link, POLLOUT, deadline);
        if (r == -ETIMEDOUT)
            return timed_out(header->type);
        if (r < 0)
            return r;
    }
}

/* The request that takes back what a reply gave, if it gave something. short_of: its descriptors, for which there was no room here. */
static bool taken_back_by(const struct channel_packet *packet, bool short_of, struct drp_wire_id *ret) {
    static const uint16_t types[] = {DRP_WIRE_CREATE, DRP_WIRE_CREATE_SHARED, DRP_WIRE_OPEN, DRP_WIRE_NATIVE};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (codec_check_reply(&packet->message, packet->size, packet->n_fds, types[i]) ==
            (short_of ? CODEC_DESCRIPTORS : CODEC_OK)) {
            bool native = types[i] == DRP_WIRE_NATIVE;

            /* The reply to this has serial 0, which no request has. */
            *ret = (struct drp_wire_id){
                .header.type = native ? DRP_WIRE_END_NATIVE : DRP_WIRE_DESTROY,
                .id = native ? packet->message.id.id : packet->message.create_reply.region,
            };
            return packet->message.header.error == DRP_WIRE_OK;
        }
    return false;
}

/* A reply that nobody waits for any more, or that is of no use. Its descriptors go with the packet. */
static void pass_over(struct link *link, bool short_of) {
    struct drp_wire_id request;

    if (taken_back_by(link->packet, short_of, &request)) /* best effort: the daemon's limits hold in any case */
        channel_send(link->socket, &request, sizeof(request), NULL, 0, MSG_DONTWAIT);
    fork_lock();
    channel_packet_close(link->packet);
    fork_unlock();
}

/* Of a packet that was received. -EMFILE as from channel_receive(). Fork lock held. */
static int keep_all(struct channel_packet *packet) {
    bool short_of = false;

    for (size_t i = 0; i < packet->n_fds; i++) {
        packet->fds[i] = object_keep(packet->fds[i]);
        short_of |= packet->fds[i] < 0;
    }
    if (short_of)
        channel_packet_close(packet);
    packet->n_fds = short_of ? 0 : packet->n_fds;
    return short_of ? -EMFILE : 0;
}

/* Receives one packet into link->packet; -EMFILE: its message alone. */
static int receive(struct link *link, int64_t deadline) {
    int r;

    for (;;) {
        r = wait_for(link, POLLIN, deadline);
        if (r < 0)
            return r;
        if (!object_holds(link->socket, &link->socket_object))
            return replaced(link);
        fork_lock();
        channel_packet_close(link->packet);
        r = channel_receive(link->socket, link->packet, MSG_DONTWAIT);
        if (r == CHANNEL_OK && (r = keep_all(link->packet)) == 0) {
            fork_unlock();
            return 0;
        }
        fork_unlock();
        if (r == CHANNEL_CLOSED)
            return lost();
        if (r == CHANNEL_TRUNCATED)
            return cut_off(link, "message too long");
        if (r < 0)
            return error_detail(r, "cannot receive from the service: %s", strerror(-r));
    }
}

int link_wait(struct link *link, uint16_t type, int timeout_ms) {
    const struct channel_packet *packet = link->packet;
    int64_t deadline = wait_now_ms() + timeout_ms;
    enum codec_verdict verdict;
    bool awaited;
    int r;

    for (;;) {
        r = receive(link, deadline);
        if (r == -ETIMEDOUT)
            return timed_out(type);
        if (r < 0 && r != -EMFILE)
            return r;
        if (packet->size < sizeof(packet->message.header))
            return cut_off(link, codec_verdict_name(CODEC_SHORT));
        awaited = packet->message.header.serial == link->serial;
        if (awaited && r == 0)
            break;
        pass_over(link, r < 0);
        if (awaited) /* and without its descriptors */
            return r;
    }
    verdict = codec_check_reply(&packet->message, packet->size, packet->n_fds, type);
    if (verdict != CODEC_OK)
        return cut_off(link, codec_verdict_name(verdict));
    if (packet->message.header.error != DRP_WIRE_OK)
        return reply_error(type, packet->message.header.error);
    return 0;
}

bool link_was_short(const struct link *link, uint16_t type) {
    const struct channel_packet *packet = link->packet;

    return packet->size >= sizeof(packet->message.header) && packet->message.header.serial == link->serial &&
           packet->message.header.error == DRP_WIRE_OK &&
           codec_check_reply(&packet->message, packet->size, packet->n_fds, type) == CODEC_DESCRIPTORS;
}

int link_call(struct link *link, void *request, size_t size, const int *fds, size_t n_fds, int timeout_ms) {
    const struct drp_wire_header *header = request;
    int r = link_send(link, request, size, fds, n_fds, timeout_ms);

    return r < 0 ? r : link_wait(link, header->type, timeout_ms);
}

/* connect(2) of a non-blocking socket: EAGAIN while the daemon has not taken earlier connections off its queue. */
static int connect_path(struct link *link, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int64_t deadline = wait_now_ms() + REQUEST_TIMEOUT_MS;
    int r;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_detail(-EINVAL, "the socket path '%s' is longer than %zu bytes", path,
                            sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));
    fork_lock();
    link->socket = object_keep(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    object_note(link->socket, &link->socket_object);
    fork_unlock();
    if (link->socket < 0)
        return error_detail(-errno, "cannot make a socket: %s", strerror(errno));
    while (connect(link->socket, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int64_t next = wait_now_ms() + CONNECT_RETRY_MS;

        if (errno == EINTR)
            continue;
        if (errno == EPROTOTYPE || errno == ENOTSOCK)
            return error_detail(-EPROTO, "%s is a socket of something else", path);
        if (errno != EAGAIN)
            return error_detail(-errno, "cannot connect to %s: %s", path, strerror(errno));
        r = next < deadline ? wait_for(link, 0, next) : -ETIME;
        if (r == -ETIME)
            return error_detail(-ETIMEDOUT, "%s does not accept connections: the service is stopped or overloaded",
                                path);
        if (r != -ETIMEDOUT)
            return r;
    }
    return 0;
}

/*
 * The process behind the socket. The credentials are those of who called listen(2): with socket activation that is the
 * service manager, and the daemon is the process that the hello names. A listener without a number here lives in
 * another pid namespace; a pidfd from the socket still tells its end, if it was the daemon that called listen(2).
 */
static void find_process(struct link *link) {
    struct ucred peer = {.pid = 0};
    socklen_t size = sizeof(peer);
    int fd;

    link->pid = 0;
    if (getsockopt(link->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return;
    fork_lock();
    if (peer.pid == 0 || (uint32_t)peer.pid == link->hello.daemon_pid) {
        size = sizeof(fd);
        if (getsockopt(link->socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0)
            link->pidfd = object_keep(fd);
    }
    if (link->pidfd < 0 && peer.pid != 0)
        link->pidfd = object_keep((int)syscall(SYS_pidfd_open, (pid_t)link->hello.daemon_pid, 0));
    /* Nobody of that number: it is one of another namespace's. */
    if (peer.pid != 0 && (link->pidfd >= 0 || kill((pid_t)link->hello.daemon_pid, 0) == 0 || errno != ESRCH))
        link->pid = (pid_t)link->hello.daemon_pid;
    object_note(link->pidfd, &link->pidfd_object);
    fork_unlock();
}

int link_open(struct link *link, const char *path, const char *name) {
    struct drp_wire_hello hello = {
        .header.type = DRP_WIRE_HELLO,
        .magic = DRP_WIRE_MAGIC,
        .version_min = DRP_WIRE_VERSION,
        .version_max = DRP_WIRE_VERSION,
        .features = DRP_FEATURES_KNOWN,
    };
    int r;

    link->cut = false;
    strncpy(hello.name, name, sizeof(hello.name) - 1);
    r = connect_path(link, path);
    if (r == 0)
        r = link_call(link, &hello, sizeof(hello), NULL, 0, REQUEST_TIMEOUT_MS);
    if (r == -ENOTCONN)
        r = error_detail(-EPROTO, "who listens on %s ended the connection without a hello", path);
    if (r == -EDQUOT)
        error_detail(r, "too many connections: see [Limits] of the service's configuration");
    if (r < 0) {
        link_close(link);
        return r;
    }
    link->hello = link->packet->message.hello_reply;
    find_process(link);
    return 0;
}
