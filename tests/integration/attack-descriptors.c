/* SPDX-License-Identifier: MIT */
/*
 * Descriptors: very many of them, and such as are not what they are said to be. The worst are files of a FUSE file system of the client's own: a
 * close(2) of one waits for an answer, which does not come.
 */

#include "attack.h"
#include "child.h"
#include "pages.h"
#include "raw.h"
#include "suite.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PACKET_FDS 253 /* SCM_MAX_FD */
#define FLOOD_SOCKETS 64

/* ---- a file system that answers until a file is to be closed ---- */

static void fuse_reply(int fuse, uint64_t unique, int error, const void *data, size_t size) {
    struct {
        struct fuse_out_header header;
        char data[256];
    } out = {.header = {.len = (uint32_t)(sizeof(out.header) + size), .error = -error, .unique = unique}};

    if (size > 0)
        memcpy(out.data, data, size);
    (void)!write(fuse, &out, out.header.len);
}

static void fuse_answer(int fuse, const struct fuse_in_header *in) {
    struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 65536};
    struct fuse_attr file = {.ino = 2, .mode = S_IFREG | 0666, .nlink = 1, .size = MIB};
    struct fuse_attr folder = {.ino = 1, .mode = S_IFDIR | 0777, .nlink = 2};
    struct fuse_entry_out entry = {.nodeid = 2, .attr = file, .entry_valid = 3600, .attr_valid = 3600};
    struct fuse_attr_out attr = {.attr = in->nodeid == 1 ? folder : file, .attr_valid = 0};
    struct fuse_open_out opened = {.fh = 1};

    switch (in->opcode) {
    case FUSE_INIT:
        fuse_reply(fuse, in->unique, 0, &init, sizeof(init));
        break;
    case FUSE_LOOKUP:
        fuse_reply(fuse, in->unique, 0, &entry, sizeof(entry));
        break;
    case FUSE_GETATTR:
        if (in->nodeid == 1)
            fuse_reply(fuse, in->unique, 0, &attr, sizeof(attr));
        break; /* nor does it say what the file is */
    case FUSE_OPEN:
        fuse_reply(fuse, in->unique, 0, &opened, sizeof(opened));
        break;
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        fuse_reply(fuse, in->unique, ENOSYS, NULL, 0);
    }
}

static void fuse_serve(int fuse) {
    static char request[1 << 17] __attribute__((aligned(8)));

    while (read(fuse, request, sizeof(request)) > 0 || errno == EINTR || errno == EAGAIN)
        fuse_answer(fuse, (const struct fuse_in_header *)request);
    _exit(0);
}

/* A file of it, or -1 where this user may not mount. The mount goes with the process. */
static int fuse_file(void) {
    char options[128], folder[] = "/tmp/droppable-fuse-XXXXXX", path[64];
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), fd;

    if (fuse < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        !mkdtemp(folder))
        return -1;
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, (int)getuid(),
             (int)getgid());
    if (mount("fuse", folder, "fuse", MS_NOSUID | MS_NODEV, options) < 0) {
        rmdir(folder);
        return -1;
    }
    if (fork() == 0)
        fuse_serve(fuse);
    close(fuse); /* the file system ends with its server: who ends with a file of it would wait for ever */
    snprintf(path, sizeof(path), "%s/file", folder);
    fd = open(path, O_RDWR | O_CLOEXEC);
    umount2(folder, MNT_DETACH);
    rmdir(folder);
    return fd;
}

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
    int fd = fuse_file();

    if (fd < 0)
        suite_skip_part("hands back files of its FUSE", "no file system can be mounted");
    attack_begun();
    for (unsigned i = 0; fd >= 0; i++) {
        attack_did();
        hand_back("fuse", fd, i);
    }
    for (;;)
        pause();
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
