/* SPDX-License-Identifier: MIT */

/*
 * Programs close descriptors that they do not know, and open others with the same numbers. So what a descriptor is of is noted when it is made, and looked
 * at before it is sent to, read from, handed over or closed: fstat(2) is 0.5 us, a request fifty times as much. A program that does both in the very
 * moment between is not helped.
 *
 * Those without an inode of their own (eventfds, inotify, epoll, before Linux 5.12 userfaultfds, before 6.9 pidfds) have all the same one. Their kind says
 * /proc, so one of the program's is taken for ours if it is of the same kind, and has the same number. A pidfd is believed as long as the socket is there.
 */

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void object_note(int fd, struct object *ret) {
    struct stat st;

    *ret = (struct object){0};
    if (fd >= 0 && fstat(fd, &st) == 0)
        *ret = (struct object){.device = st.st_dev, .inode = st.st_ino};
}

void object_note_kind(int fd, struct object *ret, const char *kind) {
    object_note(fd, ret);
    ret->kind = kind;
}

/* A limit of so few is EINVAL. */
int object_keep(int fd) {
    int copy, error;

    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    error = errno == EINVAL ? EMFILE : errno;
    close(fd);
    errno = error;
    return copy;
}

/* What cannot be looked at, as in a sandbox that forbids it, is ours. */
bool object_holds(int fd, const struct object *object) {
    struct stat st;

    if (fd < 0)
        return false;
    if (fstat(fd, &st) < 0)
        return errno != EBADF;
    return object->inode == 0 || (st.st_dev == object->device && st.st_ino == object->inode);
}

/* The same where there is no /proc. */
static bool is_of_kind(int fd, const char *kind) {
    char path[64], text[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    n = readlink(path, text, sizeof(text));
    return n < 0 || ((size_t)n == strlen(kind) && memcmp(text, kind, (size_t)n) == 0);
}

bool object_owns(int fd, const struct object *object) {
    return object_holds(fd, object) && (!object->kind || is_of_kind(fd, object->kind));
}

void object_close(int *fd, const struct object *object) {
    if (object_owns(*fd, object))
        close(*fd);
    if (*fd >= 0) /* else nothing is written: a forked child would get a page of its own for that */
        *fd = -1;
}

int object_copy(int fd, const struct object *object) {
    int copy;

    if (!object_holds(fd, object)) /* to close a copy of the program's file would end all its locks of that */
        return -EBADF;
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return -errno;
    if (object_holds(copy, object))
        return copy;
    close(copy);
    return -EBADF;
}

/* It is of the data object, as handles of that are, which may get its number; but it can only be read. */
bool object_holds_ticket(const struct drp_region *r) {
    int flags;

    if (!object_holds(r->ticket_fd, &r->data_object))
        return false;
    flags = fcntl(r->ticket_fd, F_GETFL);
    return flags < 0 || (flags & O_ACCMODE) == O_RDONLY;
}

void object_close_region(struct drp_region *r) {
    if (!object_holds_ticket(r))
        r->ticket_fd = -1;
    object_close(&r->data_fd, &r->data_object);
    object_close(&r->state_fd, &r->state_object);
    object_close(&r->pin_fd, &r->pin_object);
    object_close(&r->ticket_fd, &r->data_object);
}

int object_check_region(const struct drp_region *r) {
    if (object_holds(r->data_fd, &r->data_object) && object_holds(r->state_fd, &r->state_object) &&
        object_holds(r->pin_fd, &r->pin_object) && (!(r->granted & DRP_REGION_SHARED) || object_holds_ticket(r)) &&
        (r->signal_fd < 0 || object_owns(r->signal_fd, &r->signal_object))) /* else what is dropped would not signal */
        return 0;
    return error_detail(-EBADF, "the program has closed descriptors of the region");
}
