/* SPDX-License-Identifier: MIT */
/*
 * Moves one packet with its descriptors over a SOCK_SEQPACKET socket. Owns nothing between calls: every descriptor that
 * the kernel has put into this process is either in the packet of a CHANNEL_OK or closed before the call returns.
 *
 * The peer decides how many descriptors a packet has, up to the kernel's 253. The control buffer takes twice as many as
 * any message has, so that a client's slip is seen whole; beyond that the kernel disposes of them itself and says
 * MSG_CTRUNC. The same flag also comes when this process has no free descriptor left. That is not the peer's fault and
 * must not be reported as such: it is told apart by the count, because whoever sent too many has filled the buffer past
 * what a message may have.
 */

#include "channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Older C libraries do not name it; the kernel sends it to sockets with SO_PASSPIDFD. */
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

#define FDS_ROOM (2 * DRP_WIRE_MAX_FDS)

/*
 * Room for a struct ucred and a pidfd. We ask for neither, but a listening socket that was handed in can have
 * SO_PASSCRED or SO_PASSPIDFD set, and accept(2) copies that.
 */
#define OTHER_ROOM (CMSG_SPACE(3 * sizeof(int)) + CMSG_SPACE(sizeof(int)))

/* No second try on EINTR: Linux has let go of the descriptor by then, and its number may be somebody else's. */
static void close_all(const int *fds, size_t n_fds) {
    for (size_t i = 0; i < n_fds; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
}

/*
 * Collects every descriptor of the control data into fds[FDS_ROOM], in order. What does not fit there is closed and
 * counted all the same. Returns how many the peer has sent, as far as the kernel has told.
 */
static size_t collect_fds(struct msghdr *header, int *fds) {
    size_t n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        size_t in_block;
        int fd;

        if (c->cmsg_level != SOL_SOCKET || (c->cmsg_type != SCM_RIGHTS && c->cmsg_type != SCM_PIDFD))
            continue;
        in_block = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < in_block; i++) {
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (c->cmsg_type == SCM_RIGHTS && n < FDS_ROOM)
                fds[n] = fd;
            else
                close_all(&fd, 1);
            n += c->cmsg_type == SCM_RIGHTS;
        }
    }
    return n;
}

/* The same for both directions. */
static int socket_error(int error) {
    switch (error) {
    case EAGAIN:
        return CHANNEL_AGAIN;
    case ECONNRESET:
    case EPIPE:
        return CHANNEL_CLOSED;
    default:
        return -error;
    }
}

int channel_receive(int socket, struct channel_packet *packet, int flags) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_ROOM * sizeof(int)) + OTHER_ROOM];
    } control;
    struct iovec data = {.iov_base = &packet->message, .iov_len = sizeof(packet->message)};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    int fds[FDS_ROOM];
    size_t n_fds, n_held;
    ssize_t size;
    int outcome;

    packet->size = 0;
    packet->n_fds = 0;
    do {
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof(control.bytes);
        size = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
    } while (size < 0 && errno == EINTR);
    if (size < 0)
        return socket_error(errno);

    n_fds = collect_fds(&header, fds);
    n_held = n_fds < FDS_ROOM ? n_fds : FDS_ROOM;
    /* 0 is the end, or an empty packet, which may have descriptors. There is no telling, and no message is empty. */
    if (size == 0)
        outcome = CHANNEL_CLOSED;
    else if ((header.msg_flags & MSG_TRUNC) || n_fds > DRP_WIRE_MAX_FDS)
        outcome = CHANNEL_TRUNCATED;
    else if (header.msg_flags & MSG_CTRUNC)
        outcome = -EMFILE;
    else
        outcome = CHANNEL_OK;
    if (outcome == CHANNEL_OK || outcome == -EMFILE)
        packet->size = (size_t)size;
    if (outcome != CHANNEL_OK) {
        close_all(fds, n_held);
        return outcome;
    }
    memcpy(packet->fds, fds, n_held * sizeof(int));
    packet->n_fds = n_held;
    return CHANNEL_OK;
}

int channel_peek(int socket, void *ret_start, size_t size, bool *ret_has_fds) {
    struct iovec iov = {.iov_base = ret_start, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t seen;

    memset(ret_start, 0, size);
    do
        seen = recvmsg(socket, &header, MSG_PEEK | MSG_DONTWAIT);
    while (seen < 0 && errno == EINTR);
    if (seen == 0 || (seen < 0 && errno == ECONNRESET))
        return CHANNEL_CLOSED;
    if (seen < 0)
        return errno == EAGAIN ? CHANNEL_AGAIN : -errno;
    /* Without room for them descriptors are not installed: that is all we want to know. */
    *ret_has_fds = header.msg_flags & MSG_CTRUNC;
    return CHANNEL_OK;
}

int channel_send(int socket, const void *message, size_t size, const int *fds, size_t n_fds, int flags) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(DRP_WIRE_MAX_FDS * sizeof(int))];
    } control;
    struct iovec data = {.iov_base = (void *)message, .iov_len = size};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    ssize_t sent;

    /* An empty packet would read as the end of the connection. */
    if (size == 0 || size > DRP_WIRE_MAX_SIZE || n_fds > DRP_WIRE_MAX_FDS)
        return -EINVAL;
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    /* A program that has forbidden itself to pass descriptors on can still speak. */
    do
        sent = n_fds > 0 ? sendmsg(socket, &header, flags | MSG_NOSIGNAL)
                         : send(socket, message, size, flags | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    /* A packet goes whole or not at all: there is no rest to send. */
    return sent < 0 ? socket_error(errno) : CHANNEL_OK;
}

/* What is closed already is not written to: a forked child would get a page of its own for that. */
void channel_packet_close(struct channel_packet *packet) {
    bool open = false;

    for (size_t i = 0; i < packet->n_fds; i++)
        open |= packet->fds[i] >= 0;
    if (!open)
        return;
    close_all(packet->fds, packet->n_fds);
    packet->n_fds = 0;
}

int channel_packet_take(struct channel_packet *packet, size_t i) {
    int fd;

    if (i >= packet->n_fds)
        return -1;
    fd = packet->fds[i];
    packet->fds[i] = -1;
    return fd;
}
