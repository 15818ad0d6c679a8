/* SPDX-License-Identifier: MIT */

/*
 * The system calls of which the service's work is made, one after the other in one process, with nobody to wait for: a row of the
 * service cannot go below the sum of its calls. On an object like the service's own, mapped as its clients map theirs.
 */

#include "floor.h"

#include "memory.h"
#include "rows.h"
#include "team.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.5: in no header of Debian 12, the same number on every architecture. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
/* Linux 5.19. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

static int open_uffd(struct task *task) {
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP,
    };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return task_fail(task, -errno, "userfaultfd");
    if (ioctl(fd, UFFDIO_API, &api) == 0)
        return fd;
    close(fd);
    return task_fail(task, -EOPNOTSUPP, "UFFDIO_API: no write-protect mode on shared memory");
}

static int register_range(int uffd, const struct memory *memory, uint64_t offset, uint64_t size, uint64_t mode) {
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)memory->address + offset, .len = size},
        .mode = mode,
    };

    return ioctl(uffd, UFFDIO_REGISTER, &range) < 0 ? -errno : 0;
}

static int zero(int uffd, const struct memory *memory, uint64_t step) {
    for (uint64_t at = 0; at < memory->size; at += step) {
        struct uffdio_zeropage call = {
            .range = {.start = (uintptr_t)memory->address + at, .len = step},
            .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
        };

        if (ioctl(uffd, UFFDIO_ZEROPAGE, &call) < 0)
            return -errno;
    }
    return 0;
}

/* Every second piece: neighbours of one mode are one VMA, which has to be split and merged, as in use. */
static int toggle(int uffd, const struct memory *memory, uint64_t step, uint64_t mode) {
    int r = 0;

    for (uint64_t at = 0; r == 0 && at + step <= memory->size; at += 2 * step)
        r = register_range(uffd, memory, at, step, mode);
    return r;
}

static int time_uffd(struct task *task, const struct memory *memory, int uffd, double *ret) {
    uint64_t step = task->row->size, start;
    unsigned variant = task->row->variant;
    int r = register_range(uffd, memory, 0, memory->size, UFFDIO_REGISTER_MODE_MISSING);

    if (r == 0 && variant == FLOOR_ARM)
        r = toggle(uffd, memory, step, UFFDIO_REGISTER_MODE_WP);
    if (r < 0)
        return task_fail(task, r, "UFFDIO_REGISTER");
    start = now_ns();
    if (variant == FLOOR_ZERO)
        r = zero(uffd, memory, step);
    else
        r = toggle(uffd, memory, step, variant == FLOOR_ARM ? UFFDIO_REGISTER_MODE_MISSING : UFFDIO_REGISTER_MODE_WP);
    *ret = (double)(now_ns() - start) / 1000 / (double)(memory->size / (variant == FLOOR_ZERO ? PAGE : 2 * step));
    return r < 0 ? task_fail(task, r, "the call") : 0;
}

static int look(const struct memory *memory, bool count, const void *unmapped, uint64_t at) {
    struct {
        uint64_t offset, length;
    } range = {at, SPAN};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } counts;
    unsigned char pages[SPAN / PAGE];

    if (count)
        return syscall(SYS_cachestat, memory->fd, &range, &counts, 0) < 0 ? -errno : 0;
    return mincore((char *)unmapped + at, SPAN, pages) < 0 ? -errno : 0;
}

/* By a mapping that was never touched, as the service has it: the kernel then looks into the page cache. */
static int time_look(struct task *task, const struct memory *memory, double *ret) {
    void *unmapped = mmap(NULL, memory->size, PROT_NONE, MAP_SHARED, memory->fd, 0);
    uint64_t start;
    int r = 0;

    if (unmapped == MAP_FAILED)
        return task_fail(task, -errno, "mmap");
    memset(memory->address, 1, memory->size);
    start = now_ns();
    for (uint64_t at = 0; r == 0 && at < memory->size; at += SPAN)
        r = look(memory, task->row->variant == FLOOR_COUNT, unmapped, at);
    *ret = (double)(now_ns() - start) / 1000 / (double)(memory->size / SPAN);
    munmap(unmapped, memory->size);
    return r < 0 ? task_fail(task, r, "the call") : 0;
}

int floor_call(struct task *task, struct sample *ret) {
    struct task as_memfd = *task;
    struct memory memory;
    int uffd = -1, r;

    as_memfd.contender = CONTENDER_MEMFD;
    memory_warm(task_scaled(task, 512 * MIB, 128 * MIB, 64 * MIB));
    r = memory_open(&memory, &as_memfd, task_scaled(task, 512 * MIB, 128 * MIB, 64 * MIB), task->row->huge);
    if (r < 0)
        return r;
    if (task->row->variant == FLOOR_MINCORE || task->row->variant == FLOOR_COUNT)
        r = time_look(task, &memory, &ret->value);
    else {
        uffd = open_uffd(task);
        r = uffd < 0 ? uffd : time_uffd(task, &memory, uffd, &ret->value);
    }
    memory_close(&memory);
    if (uffd >= 0)
        close(uffd);
    return r;
}
