/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_RAW_H
#define DROPPABLE_TESTS_RAW_H

/* A client that speaks the protocol by hand: it can do what the library never would. Unexpected failures fail the test. */

#include "channel.h"
#include "pages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct msghdr;

#define RAW_ENDED (-1) /* the daemon ended the connection */

/* Connects to $DROPPABLE_SOCKET. The socket is the caller's. */
int raw_connect(void);
/*
 * Sends a request (serial 1) and waits for the reply: DRP_WIRE_OK, an error of the reply, or RAW_ENDED. packet has the reply and owns
 * its descriptors; NULL: they are closed.
 */
int raw_call(int socket, void *request, size_t size, const int *fds, size_t n_fds, struct channel_packet *packet);
/* Waits for the end of the connection. false: not within timeout_ms. Replies that come before are thrown away. */
bool raw_wait_end(int socket, int timeout_ms);

/* Connects and says hello. */
int raw_hello(const char *name);
/* A fresh userfaultfd of this process, or -1 with errno. */
int raw_userfaultfd(void);
/*
 * Makes the process's copy of the userfaultfd blocking and takes the events away, so that the pager's read(2) waits. Looks each pause_ms, or as soon as there
 * are any; 0: all the time.
 */
_Noreturn void raw_steal_events(int fd, int pause_ms);
/*
 * recvmsg(2), for a test that has one of its own in place of the C library's: replies to this type, as many as *shortages still says, come without
 * their descriptor, as if it did not fit into the process.
 */
ssize_t raw_receive_short(int fd, struct msghdr *message, int flags, uint16_t type, _Atomic int *shortages);
/* UFFD with a descriptor (not consumed) or, with fd -1, a reason. Returns an error, *ret_interception if it is 0. */
int raw_uffd(int socket, int fd, uint32_t reason, uint32_t *ret_interception);
/* Connects, says hello, offers a userfaultfd if there is one. */
int raw_session(const char *name);

struct raw_region {
    uint64_t id, size, object_offset, chunk_base, chunk_total;
    uint8_t chunk_shift;
    uint64_t granted;
    uint64_t mapping; /* 0: not mapped */
    int data_fd, state_fd, pin_fd;
    char *address;
    void *state, *pins;
    struct drp_pin_cell *cells;          /* of the region's first chunk */
    const _Atomic uint32_t *generations; /* of the region's first chunk */
};

/* Seals a mapping's pin page, which is mapped, and tells of it (SEAL_PINS): an error, or RAW_ENDED. */
int raw_seal_pins(int socket, uint64_t mapping, int fd);
/* CREATE, mmap(2) of data and state page, MAP, mmap(2) of the pin page. */
void raw_region_new(int socket, uint64_t size, struct raw_region *ret);
/* The same, with chunks of so many bytes: 1 << chunk_shift. */
void raw_region_new_chunked(int socket, uint64_t size, uint8_t chunk_shift, struct raw_region *ret);
/* Like raw_region_new(), with options, but nothing of it is mapped, and the daemon is told so: pieces may come. address is NULL. */
void raw_region_new_unmapped(int socket, uint64_t size, uint64_t required, struct raw_region *ret);
/* MAP_PIECES of one piece, UNMAP_PIECES of one range: an error, or RAW_ENDED. *ret_interception if that is 0; NULL is fine. */
int raw_map_piece(int socket, const struct raw_region *region, const void *address, uint64_t length, uint64_t offset,
                  uint32_t *ret_interception);
int raw_unmap_piece(int socket, const struct raw_region *region, const void *address, uint64_t length);
/* Unmaps and closes everything; tells the daemon (DESTROY) unless socket is -1. */
void raw_region_end(int socket, struct raw_region *region);
/* DROP, POPULATE, UNMAP, DESTROY, STATS: an error, or RAW_ENDED. */
int raw_drop(int socket, const struct raw_region *region, uint64_t offset, uint64_t length,
             struct drp_wire_drop_reply *ret);
int raw_id(int socket, uint16_t type, uint64_t id);
int raw_stats(int socket, struct drp_wire_counters *ret);

#endif
