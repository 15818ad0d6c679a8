/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PROTOCOL_CHANNEL_H
#define DROPPABLE_PROTOCOL_CHANNEL_H

/*
 * One message a packet, with its descriptors, over a SOCK_SEQPACKET socket. No state, no buffers.
 * A received descriptor is CLOEXEC and is the caller's; on every failure all that came are closed.
 *
 * close(2) of a received descriptor can wait for the peer for as long as the peer likes (a file on its own FUSE mount: flush). So
 * can fstat(2) and fstatfs(2) on it; fcntl(F_GET_SEALS) and readlink(2) of /proc/self/fd cannot.
 */

#include "wire.h"

#include <stdbool.h>
#include <stddef.h>

enum channel_outcome {
    CHANNEL_OK = 0,
    CHANNEL_AGAIN = 1,     /* nothing there / no room, on a non-blocking socket */
    CHANNEL_CLOSED = 2,    /* the peer is gone */
    CHANNEL_TRUNCATED = 3, /* longer than any message, or more descriptors than any message has */
};

struct channel_packet {
    union drp_wire_message message;
    size_t size;
    int fds[DRP_WIRE_MAX_FDS];
    size_t n_fds;
};

/*
 * Receives one packet. flags: 0 or MSG_DONTWAIT. Returns an outcome, or a negative errno. packet->n_fds is 0 unless CHANNEL_OK.
 * -EMFILE: the packet's descriptors are lost because this process, not the peer, is out of them; the message is there. An empty packet reads as
 * CHANNEL_CLOSED.
 */
int channel_receive(int socket, struct channel_packet *packet, int flags);
/*
 * Looks at the packet that waits: its first size bytes, and whether it brings descriptors, without taking it or them. ret_start is
 * zeroed where the packet is shorter than that. Returns as channel_receive() with MSG_DONTWAIT, never CHANNEL_TRUNCATED.
 */
int channel_peek(int socket, void *ret_start, size_t size, bool *ret_has_fds);

/*
 * Sends one packet (MSG_NOSIGNAL added); the descriptors stay the caller's. Returns an outcome (never TRUNCATED), or a negative errno.
 * -EINVAL: empty, longer than any message, or more descriptors than any message has.
 */
int channel_send(int socket, const void *message, size_t size, const int *fds, size_t n_fds, int flags);
/* Closes every descriptor of the packet and sets n_fds to 0. */
void channel_packet_close(struct channel_packet *packet);
/* Takes descriptor i out of the packet: the caller owns it, the packet holds -1 there. */
int channel_packet_take(struct channel_packet *packet, size_t i);

#endif
