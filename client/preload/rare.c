/* SPDX-License-Identifier: MIT */

/* Calls about memory that few programs make: process_madvise(2), remap_file_pages(2), mseal(2), and what userfaultfds are asked. */

#include "arena.h"
#include "cancel.h"
#include "raw.h"
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
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

/* As the kernel judges them, before it does anything. */
static int check_ranges(const struct iovec *ranges, size_t n) {
    struct iovec range;
    int r = n > IOV_MAX ? -EINVAL : 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        r = raw_copy_in(&range, &ranges[i], sizeof(range));
        if (r == 0 && range.iov_len > SSIZE_MAX)
            r = -EINVAL;
    }
    return r;
}

/* The kernel judges what it is asked of a range of nothing. */
long serve_process_madvise(int pidfd, const struct iovec *ranges, size_t n, int advice, unsigned int flags) {
    NOT_CANCELLED;
    int saved = errno, r;
    struct iovec range;
    long done = 0;

    if (raw_process_madvise(pidfd, ranges, 0, advice, flags) < 0 || !is_self(pidfd)) {
        errno = saved;
        return raw_process_madvise(pidfd, ranges, n, advice, flags);
    }
    r = check_ranges(ranges, n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = raw_copy_in(&range, &ranges[i], sizeof(range));
        if (r == 0 && serve_madvise(range.iov_base, range.iov_len, advice) < 0)
            r = -errno;
        if (r == 0)
            done += (long)range.iov_len;
    }
    errno = r < 0 && done == 0 ? -r : saved;
    return r < 0 && done == 0 ? -1 : done;
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

/* The service has its own there. What cannot be read the kernel cannot read either. */
int serve_userfaultfd(int fd, unsigned long request, void *argument) {
    bool copies = request == UFFDIO_COPY;
    struct uffdio_range range;
    struct uffdio_copy copy;
    int r = copies ? raw_copy_in(&copy, argument, offsetof(struct uffdio_copy, mode))
                   : raw_copy_in(&range, argument, sizeof(range));

    if (copies && r == 0)
        range = (struct uffdio_range){.start = copy.dst, .len = copy.len};
    if (r < 0 || !is_ours(range.start, range.len))
        return raw_ioctl(fd, request, argument);
    errno = request == UFFDIO_REGISTER || request == UFFDIO_UNREGISTER ? EINVAL : ENOENT;
    return -1;
}
