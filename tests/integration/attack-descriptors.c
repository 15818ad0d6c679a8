/* SPDX-License-Identifier: MIT */
/*
 * Descriptors: very many of them, and such as are not what they are said to be. The worst are files of a FUSE file system of the client's own: a
 * close(2) of one waits for an answer, which does not come.
 */

#include "attack.h"
#include "child.h"
#include "fuse.h"
#include "pages.h"
#include "raw.h"
#include "suite.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PACKET_FDS 253 /* SCM_MAX_FD */
#define FLOOD_SOCKETS 64

/* ---- what is handed back ---- */

static int foreign(unsigned kind) {
    int ends[2];

    switch (kind % 6) {
    case 0:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 1:
        child_check(pipe2(ends, O_CLOEXEC) == 0);
        close(ends[0]);
        return ends[1];
    case 2:
        return eventfd(0, EFD_CLOEXEC);
    case 3:
        return open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    case 4:
        return memfd_create("foreign", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    default:
        return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
}

/* In each place that takes one. */
static void hand_back(const char *name, int fd, unsigned place) {
    int socket = raw_hello(name);
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT, .size = MIB, .chunk_total = 16, .chunk_shift = 16};
    struct drp_wire_open open = {.header.type = DRP_WIRE_OPEN};

    if (place % 4 == 0)
        raw_uffd(socket, fd, 0, NULL);
    else if (place % 4 == 1)
        raw_call(socket, &open, sizeof(open), &fd, 1, NULL);
    else if (place % 4 == 2)
        raw_call(socket, &adopt, sizeof(adopt), (const int[]){fd, fd}, 2, NULL);
    else {
        struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .length = MIB};
        struct raw_region region;

        raw_region_new(socket, MIB, &region);
        map.region = region.id;
        map.address = (uintptr_t)region.address;
        raw_call(socket, &map, sizeof(map), &fd, 1, NULL);
        raw_region_end(-1, &region);
    }
    close(socket);
}

static void run_foreign(void) {
    attack_begun();
    for (unsigned i = 0;; i++) {
        attack_did();
        int fd = foreign(i / 4);

        hand_back("foreign", fd, i);
        close(fd);
    }
}

static void run_fuse(void) {
    struct fuse_system fuse;
    int fd = fuse_start(&fuse) < 0 ? -1 : fuse_open(&fuse);

    if (fd < 0) {
        suite_skip_part("hands back files of its FUSE", "no file system can be mounted");
        attack_begun();
        for (;;)
            pause();
    }
    fuse_detach(&fuse);
    fuse_soil(fd);
    attack_begun();
    for (unsigned i = 0;; i++) {
        attack_did();
        hand_back("fuse", fd, i);
    }
}

/* ---- many ---- */

static void send_many(int socket, int fd) {
    char control[CMSG_SPACE(PACKET_FDS * sizeof(int))] __attribute__((aligned(__alignof__(struct cmsghdr)))) = {0};
    struct drp_wire_uffd uffd = {.header = {.type = DRP_WIRE_UFFD, .serial = 1}};
    struct iovec iov = {.iov_base = &uffd, .iov_len = sizeof(uffd)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(PACKET_FDS * sizeof(int));
    for (size_t i = 0; i < PACKET_FDS; i++)
        memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof(int));
    (void)!sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* In each packet as many as go into one, on connections that the service ends for it, and behind requests that it is to answer first. */
static void run_flood(void) {
    struct drp_wire_header status = {.type = DRP_WIRE_STATUS};
    int sockets[FLOOD_SOCKETS], fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < FLOOD_SOCKETS; i++)
        sockets[i] = raw_hello("descriptors");
    attack_begun();
    for (unsigned i = 0;; i = (i + 1) % FLOOD_SOCKETS) {
        attack_did();
        if (attack_random(2))
            for (int n = 0; n < 100; n++)
                (void)!send(sockets[i], &status, sizeof(status), MSG_NOSIGNAL | MSG_DONTWAIT);
        send_many(sockets[i], fd);
        close(sockets[i]);
        sockets[i] = raw_hello("descriptors");
    }
}

/* Regions, until a quota says no; then one goes and another comes. */
static void run_regions(void) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = 65536};
    int socket = raw_session("regions"), r;
    uint64_t first = 0;

    attack_begun();
    for (;;) {
        attack_did();
        struct channel_packet packet;

        r = raw_call(socket, &create, sizeof(create), NULL, 0, &packet);
        if (r == DRP_WIRE_OK) {
            first = first ? first : packet.message.create_reply.region;
            channel_packet_close(&packet);
        } else
            raw_id(socket, DRP_WIRE_DESTROY, first++);
    }
}

/* Made, opened by name, mapped, left behind: each has a thread of its own. */
static void run_shared(void) {
    struct drp_wire_create_shared create = {
        .create = {.header.type = DRP_WIRE_CREATE_SHARED, .size = MIB, .required = DRP_REGION_SHARED}, .mode = 0600};
    struct drp_wire_open open = {.header.type = DRP_WIRE_OPEN, .uid = getuid()};
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP};

    attack_begun();
    for (unsigned i = 0;; i++) {
        attack_did();
        int socket = raw_hello("shared");
        struct channel_packet packet;

        snprintf(create.name, sizeof(create.name), "attack-%d-%u", (int)getpid(), i);
        strcpy(open.name, create.name);
        raw_call(socket, &create, sizeof(create), NULL, 0, NULL);
        if (raw_call(socket, &open, sizeof(open), NULL, 0, &packet) == DRP_WIRE_OK) {
            map.region = packet.message.create_reply.region;
            channel_packet_close(&packet);
            raw_call(socket, &map, sizeof(map), NULL, 0, NULL);
            if (i % 2)
                raw_id(socket, DRP_WIRE_DESTROY, map.region);
        }
        close(socket);
    }
}

const struct attack attacks_by_descriptors[] = {
    {"hands back foreign objects", 2, 1, run_foreign, NULL}, {"hands back files of its FUSE", 2, 1, run_fuse, NULL},
    {"floods of descriptors", 2, 1, run_flood, NULL},        {"regions up to the quota", 1, 1, run_regions, NULL},
    {"shared regions, left behind", 2, 1, run_shared, NULL}, {0},
};
