/* SPDX-License-Identifier: MIT */

/* Calls about memory that few programs make: process_madvise(2), remap_file_pages(2), mseal(2), and what userfaultfds are asked. */

#include "arena.h"
#include "cancel.h"
#include "raw.h"
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool is_ours(uintptr_t start, size_t length) {
    return table_has(start, start + length);
}

/* ---- process_madvise(2) ---- */

/* Is it a descriptor of this process? Linux 6.14 has numbers for that, too, which are no descriptors. */
static bool is_self(int pidfd) {
    char path[64], text[512];
    const char *pid;
    ssize_t n = -1;
    int fd;

    if (pidfd < 0)
        return true;
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    text[n < 0 ? 0 : n] = '\0';
    pid = strstr(text, "\nPid:");
    return pid && atoi(pid + strlen("\nPid:")) == getpid();
}

/* The kernel judges what it is asked of a range of nothing. */
long serve_process_madvise(int pidfd, const struct iovec *ranges, size_t n, int advice, unsigned int flags) {
    NOT_CANCELLED;
    int saved = errno;
    long done = 0;

    if (raw_process_madvise(pidfd, ranges, 0, advice, flags) < 0 || !is_self(pidfd)) {
        errno = saved;
        return raw_process_madvise(pidfd, ranges, n, advice, flags);
    }
    for (size_t i = 0; i < n; i++) {
        if (serve_madvise(ranges[i].iov_base, ranges[i].iov_len, advice) < 0) {
            if (done == 0)
                return -1;
            break;
        }
        done += (long)ranges[i].iov_len;
    }
    errno = saved;
    return done;
}

/* ---- the others ---- */

int serve_remap_file_pages(void *address, size_t length, int protection, size_t page, int flags) {
    if (!is_ours((uintptr_t)address & ~(ARENA_PAGE - 1), length))
        return raw_remap_file_pages(address, length, protection, page, flags);
    errno = EINVAL; /* it is no file's for the program */
    return -1;
}

int serve_mseal(void *address, size_t length, unsigned long flags) {
    uintptr_t start, end;

    if (raw_mseal(address, length, flags) < 0)
        return -1;
    /* Without room for the note it is the kernel that refuses, later than it should. */
    if (arena_pages(address, length, &start, &end))
        table_set_flags(start, end, PIECE_SEALED, PIECE_SEALED);
    return 0;
}

/* The service has its own there. */
int serve_userfaultfd(int fd, unsigned long request, void *argument) {
    const struct uffdio_range *range = argument;
    const struct uffdio_copy *copy = argument;
    bool registers = request == UFFDIO_REGISTER;
    uintptr_t start = request == UFFDIO_COPY ? copy->dst : range->start;
    size_t length = request == UFFDIO_COPY ? copy->len : range->len;

    if (!is_ours(start, length))
        return raw_ioctl(fd, request, argument);
    errno = registers ? EINVAL : ENOENT;
    return -1;
}
