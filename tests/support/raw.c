/* SPDX-License-Identifier: MIT */
/*
 * A client of a few lines on top of channel and wire format: blocking socket, one request at a time, every wait with a deadline. It owns
 * nothing that its callers cannot see, so that they can misuse each part.
 */

#include "raw.h"

#include "service.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define REPLY_MS 60000

int raw_connect(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    strncpy(address.sun_path, getenv("DROPPABLE_SOCKET"), sizeof(address.sun_path) - 1);
    ck_assert_msg(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", address.sun_path,
                  strerror(errno));
    return fd;
}

int raw_call(int socket, void *request, size_t size, const int *fds, size_t n_fds, struct channel_packet *packet) {
    struct pollfd readable = {.fd = socket, .events = POLLIN};
    struct drp_wire_header *header = request;
    struct channel_packet own;
    int r;

    if (size >= sizeof(*header))
        header->serial = 1;
    r = channel_send(socket, request, size, fds, n_fds, 0);
    if (r == CHANNEL_CLOSED)
        return RAW_ENDED;
    ck_assert_int_eq(r, CHANNEL_OK);
    ck_assert_msg(poll(&readable, 1, REPLY_MS * (int)patience()) == 1, "no reply within %d ms", REPLY_MS);
    if (!packet)
        packet = &own;
    r = channel_receive(socket, packet, 0);
    if (r == CHANNEL_CLOSED)
        return RAW_ENDED;
    ck_assert_int_eq(r, CHANNEL_OK);
    ck_assert_uint_eq(packet->message.header.serial, 1);
    if (packet == &own)
        channel_packet_close(packet);
    return (int)packet->message.header.error;
}

bool raw_wait_end(int socket, int timeout_ms) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);
    struct pollfd readable = {.fd = socket, .events = POLLIN};
    struct channel_packet packet;

    while (now_ms() < deadline && poll(&readable, 1, (int)(deadline - now_ms())) == 1) {
        if (channel_receive(socket, &packet, MSG_DONTWAIT) == CHANNEL_CLOSED)
            return true;
        channel_packet_close(&packet);
    }
    return false;
}

int raw_hello(const char *name) {
    struct drp_wire_hello hello = {
        .header.type = DRP_WIRE_HELLO,
        .magic = DRP_WIRE_MAGIC,
        .version_min = DRP_WIRE_VERSION,
        .version_max = DRP_WIRE_VERSION,
        .features = DRP_FEATURE_ADOPT,
    };
    int fd = raw_connect();

    strncpy(hello.name, name, sizeof(hello.name) - 1);
    ck_assert_int_eq(raw_call(fd, &hello, sizeof(hello), NULL, 0, NULL), DRP_WIRE_OK);
    return fd;
}

int raw_userfaultfd(void) {
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

_Noreturn void raw_steal_events(int fd, int pause_ms) {
    struct uffd_msg message;

    for (;;) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};

        fcntl(fd, F_SETFL, 0);
        if (poll(&readable, 1, pause_ms) == 1 && read(fd, &message, sizeof(message)) == sizeof(message) &&
            message.event == UFFD_EVENT_PAGEFAULT) {
            struct uffdio_range range = {.start = message.arg.pagefault.address & ~UINT64_C(4095), .len = 4096};

            ioctl(fd, UFFDIO_WAKE, &range); /* it faults again */
        }
    }
}

ssize_t raw_receive_short(int fd, struct msghdr *message, int flags, uint16_t type, _Atomic int *shortages) {
    const struct drp_wire_header *header = message->msg_iov[0].iov_base;
    ssize_t n = syscall(SYS_recvmsg, fd, message, flags);
    struct cmsghdr *control = CMSG_FIRSTHDR(message);

    if (n < (ssize_t)sizeof(*header) || header->type != (DRP_WIRE_REPLY | type) || !control ||
        atomic_load(shortages) == 0)
        return n;
    atomic_fetch_sub(shortages, 1);
    memcpy(&fd, CMSG_DATA(control), sizeof(fd));
    close(fd);
    message->msg_controllen = 0;
    message->msg_flags |= MSG_CTRUNC;
    return n;
}

int raw_uffd(int socket, int fd, uint32_t reason, uint32_t *ret_interception) {
    struct drp_wire_uffd uffd = {.header.type = DRP_WIRE_UFFD, .reason = reason};
    struct channel_packet packet;
    int r = raw_call(socket, &uffd, sizeof(uffd), &fd, fd >= 0 ? 1 : 0, &packet);

    if (r == DRP_WIRE_OK && ret_interception)
        *ret_interception = packet.message.uffd_reply.interception;
    return r;
}

int raw_session(const char *name) {
    int socket = raw_hello(name), fd = raw_userfaultfd();

    ck_assert_int_eq(raw_uffd(socket, fd, fd < 0 ? (uint32_t)errno : 0, NULL), DRP_WIRE_OK);
    if (fd >= 0)
        close(fd);
    return socket;
}

static void raw_create(int socket, uint64_t size, uint8_t chunk_shift, uint64_t required, struct raw_region *region) {
    struct drp_wire_create create = {
        .header.type = DRP_WIRE_CREATE, .size = size, .chunk_shift = chunk_shift, .required = required};
    struct channel_packet packet;
    const struct drp_wire_create_reply *reply = &packet.message.create_reply;

    ck_assert_int_eq(raw_call(socket, &create, sizeof(create), NULL, 0, &packet), DRP_WIRE_OK);
    ck_assert_uint_eq(packet.n_fds, 2);
    *region = (struct raw_region){
        .id = reply->region,
        .size = reply->size,
        .object_offset = reply->object_offset,
        .chunk_base = reply->chunk_base,
        .chunk_total = reply->chunk_total,
        .chunk_shift = reply->chunk_shift,
        .granted = reply->granted,
        .data_fd = packet.fds[0],
        .state_fd = packet.fds[1],
        .pin_fd = -1,
    };
}

void raw_region_new(int socket, uint64_t size, struct raw_region *ret) {
    raw_region_new_chunked(socket, size, 0, ret);
}

int raw_seal_pins(int socket, uint64_t mapping, int fd) {
    if (fcntl(fd, F_GET_SEALS) & F_SEAL_SEAL) /* before 5.1 it came so */
        return DRP_WIRE_OK;
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), 0);
    return raw_id(socket, DRP_WIRE_SEAL_PINS, mapping);
}

/* Maps the state page, tells the daemon of the length mapped at ret->address, maps the pin page. */
static void raw_map(int socket, struct raw_region *ret, uint64_t length) {
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP};
    struct channel_packet packet;

    ret->state = mmap(NULL, drp_state_bytes(ret->chunk_total), PROT_READ, MAP_SHARED, ret->state_fd, 0);
    ck_assert_ptr_ne(ret->state, MAP_FAILED);
    ret->generations = drp_state_generations(ret->state) + ret->chunk_base;
    map.region = ret->id;
    map.address = (uintptr_t)ret->address;
    map.length = length;
    ck_assert_int_eq(raw_call(socket, &map, sizeof(map), NULL, 0, &packet), DRP_WIRE_OK);
    ck_assert_uint_eq(packet.n_fds, 1);
    ret->mapping = packet.message.map_reply.mapping;
    ret->pin_fd = packet.fds[0];
    ret->pins = mmap(NULL, drp_pin_bytes(ret->chunk_total), PROT_READ | PROT_WRITE, MAP_SHARED, ret->pin_fd, 0);
    ck_assert_ptr_ne(ret->pins, MAP_FAILED);
    ck_assert_int_eq(raw_seal_pins(socket, ret->mapping, ret->pin_fd), DRP_WIRE_OK);
    ret->cells = drp_pin_cells(ret->pins) + ret->chunk_base;
}

void raw_region_new_chunked(int socket, uint64_t size, uint8_t chunk_shift, struct raw_region *ret) {
    raw_create(socket, size, chunk_shift, 0, ret);
    ret->address = mmap(NULL, ret->size, PROT_READ | PROT_WRITE, MAP_SHARED, ret->data_fd, (off_t)ret->object_offset);
    ck_assert_ptr_ne(ret->address, MAP_FAILED);
    raw_map(socket, ret, ret->size);
}

void raw_region_new_unmapped(int socket, uint64_t size, uint64_t required, struct raw_region *ret) {
    raw_create(socket, size, 0, required, ret);
    raw_map(socket, ret, 0);
}

static int raw_pieces(int socket, uint16_t type, const struct raw_region *region, const struct drp_wire_piece *piece,
                      struct channel_packet *packet) {
    struct drp_wire_pieces request = {.header.type = type, .mapping = region->mapping, .count = 1, .pieces = {*piece}};

    return raw_call(socket, &request, offsetof(struct drp_wire_pieces, pieces) + sizeof(*piece), NULL, 0, packet);
}

int raw_map_piece(int socket, const struct raw_region *region, const void *address, uint64_t length, uint64_t offset,
                  uint32_t *ret_interception) {
    struct channel_packet packet;
    int r = raw_pieces(socket, DRP_WIRE_MAP_PIECES, region,
                       &(struct drp_wire_piece){(uintptr_t)address, length, offset}, &packet);

    if (r == DRP_WIRE_OK && ret_interception)
        *ret_interception = packet.message.pieces_reply.interception;
    return r;
}

int raw_unmap_piece(int socket, const struct raw_region *region, const void *address, uint64_t length) {
    return raw_pieces(socket, DRP_WIRE_UNMAP_PIECES, region, &(struct drp_wire_piece){(uintptr_t)address, length, 0},
                      NULL);
}

void raw_region_end(int socket, struct raw_region *region) {
    if (socket >= 0)
        ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, region->id), DRP_WIRE_OK);
    if (region->address)
        munmap(region->address, region->size);
    munmap(region->state, drp_state_bytes(region->chunk_total));
    munmap(region->pins, drp_pin_bytes(region->chunk_total));
    close(region->data_fd);
    close(region->state_fd);
    close(region->pin_fd);
}

int raw_drop(int socket, const struct raw_region *region, uint64_t offset, uint64_t length,
             struct drp_wire_drop_reply *ret) {
    struct drp_wire_range range = {
        .header.type = DRP_WIRE_DROP, .region = region->id, .offset = offset, .length = length};
    struct channel_packet packet;
    int r = raw_call(socket, &range, sizeof(range), NULL, 0, &packet);

    if (r == DRP_WIRE_OK && ret)
        *ret = packet.message.drop_reply;
    return r;
}

int raw_id(int socket, uint16_t type, uint64_t id) {
    struct drp_wire_id request = {.header.type = type, .id = id};

    return raw_call(socket, &request, sizeof(request), NULL, 0, NULL);
}

int raw_stats(int socket, struct drp_wire_counters *ret) {
    struct drp_wire_header stats = {.type = DRP_WIRE_STATS};
    struct channel_packet packet;
    int r = raw_call(socket, &stats, sizeof(stats), NULL, 0, &packet);

    if (r == DRP_WIRE_OK && ret)
        *ret = packet.message.stats_reply.counters;
    return r;
}
