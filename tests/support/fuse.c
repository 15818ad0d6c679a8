/* SPDX-License-Identifier: MIT */
/*
 * What makes a close wait is FUSE_WRITEBACK_CACHE: the kernel keeps what is written, and writes it back before it lets go of an open file, also where
 * nobody calls close(2), as for one that waits unread in a socket. Linux: fs/fuse/file.c, fuse_flush() and fuse_release().
 */

#include "fuse.h"

#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_NODE 2
#define FILE_SIZE (UINT64_C(1) << 20)
#define PAGE 4096

static void reply(int fuse, uint64_t unique, int error, const void *data, size_t size) {
    struct {
        struct fuse_out_header header;
        char data[256];
    } out = {.header = {.len = (uint32_t)(sizeof(out.header) + size), .error = -error, .unique = unique}};

    if (size > 0)
        memcpy(out.data, data, size);
    (void)!write(fuse, &out, out.header.len);
}

static void answer(int fuse, const struct fuse_in_header *in) {
    struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 65536, .flags = FUSE_WRITEBACK_CACHE};
    struct fuse_attr file = {.ino = FILE_NODE, .mode = S_IFREG | 0666, .nlink = 1, .size = FILE_SIZE};
    struct fuse_attr folder = {.ino = FUSE_ROOT_ID, .mode = S_IFDIR | 0777, .nlink = 2};
    struct fuse_entry_out entry = {.nodeid = FILE_NODE, .attr = file, .entry_valid = 3600, .attr_valid = 3600};
    struct fuse_attr_out attr = {.attr = folder};
    struct fuse_open_out opened = {.fh = 1};

    switch (in->opcode) {
    case FUSE_INIT:
        reply(fuse, in->unique, 0, &init, sizeof(init));
        break;
    case FUSE_LOOKUP:
        reply(fuse, in->unique, 0, &entry, sizeof(entry));
        break;
    case FUSE_GETATTR:
        if (in->nodeid == FUSE_ROOT_ID)
            reply(fuse, in->unique, 0, &attr, sizeof(attr));
        break;
    case FUSE_OPEN:
        reply(fuse, in->unique, 0, &opened, sizeof(opened));
        break;
    case FUSE_WRITE:
    case FUSE_SETATTR:
    case FUSE_RELEASE:
    case FUSE_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        reply(fuse, in->unique, ENOSYS, NULL, 0);
    }
}

static void serve(int fuse) {
    static char request[1 << 17] __attribute__((aligned(8)));

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(fuse, request, sizeof(request)) > 0 || errno == EINTR || errno == EAGAIN)
        answer(fuse, (const struct fuse_in_header *)request);
    _exit(0);
}

int fuse_start(struct fuse_system *fuse) {
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[128];

    strcpy(fuse->folder, "/tmp/droppable-fuse-XXXXXX");
    if (device < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        !mkdtemp(fuse->folder)) {
        if (device >= 0)
            close(device);
        return -1;
    }
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%d,group_id=%d", device, (int)getuid(),
             (int)getgid());
    if (mount("fuse", fuse->folder, "fuse", MS_NOSUID | MS_NODEV, options) < 0) {
        rmdir(fuse->folder);
        close(device);
        return -1;
    }
    fuse->server = fork();
    child_check(fuse->server >= 0);
    if (fuse->server == 0)
        serve(device);
    close(device); /* the file system ends with its server: who ends with a file of it would wait for ever */
    return 0;
}

int fuse_open(const struct fuse_system *fuse) {
    char path[64];

    snprintf(path, sizeof(path), "%s/file", fuse->folder);
    return open(path, O_RDWR | O_CLOEXEC);
}

void fuse_soil(int fd) {
    static const char page[PAGE];

    child_check(pwrite(fd, page, sizeof(page), 0) == (ssize_t)sizeof(page));
}

void fuse_detach(const struct fuse_system *fuse) {
    umount2(fuse->folder, MNT_DETACH);
    rmdir(fuse->folder);
}

void fuse_end(struct fuse_system *fuse) {
    kill(fuse->server, SIGKILL);
    waitpid(fuse->server, NULL, 0);
}
