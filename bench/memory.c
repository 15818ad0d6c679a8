/* SPDX-License-Identifier: MIT */

/*
 * Droppable memory as each contender has it: how it is made, dropped, and looked at.
 *
 * The preload contender runs the native code; that its memory is the service's is checked, since a preload library that
 * lets a call through would be timed as the kernel's own.
 */

#include "memory.h"

#include "textbook.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define HUGE_MIN 0.9

static struct drp *connection;

struct drp *memory_connection(struct task *task) {
    int r = connection ? 0 : drp_new(&connection, NULL);

    if (r == 0)
        return connection;
    task_fail(task, r, "drp_new: %s", drp_detail());
    return NULL;
}

void memory_warm(uint64_t size) {
    unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return;
    madvise(memory, size, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < size; at += PAGE)
        ((volatile unsigned char *)memory)[at] = 1;
    munmap(memory, size);
}

/* ---- objects ---- */

/* As the service has it for huge pages: a file on a tmpfs that nobody else sees. Descriptor or negative errno. */
static int huge_object(void) {
    int context = fsopen("tmpfs", FSOPEN_CLOEXEC), mount = -1, fd = -1, error = 0;

    if (context < 0)
        return -errno;
    if (fsconfig(context, FSCONFIG_SET_STRING, "huge", "always", 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ||
        (mount = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOEXEC)) < 0 ||
        (fd = openat(mount, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600)) < 0)
        error = -errno;
    if (mount >= 0)
        close(mount);
    close(context);
    return error < 0 ? error : fd;
}

/* Which pages a memfd gets is the administrator's choice; the first word in brackets is it. */
static bool memfd_gives_huge(void) {
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
    char line[128] = "";
    bool huge;

    if (!file)
        return false;
    huge = fgets(line, sizeof(line), file) && (strstr(line, "[always]") || strstr(line, "[advise]") ||
                                               strstr(line, "[within_size]") || strstr(line, "[force]"));
    fclose(file);
    return huge;
}

static int open_memfd(struct memory *memory, struct task *task) {
    bool own_mount = memory->huge && !memfd_gives_huge();

    memory->fd = own_mount ? huge_object() : memfd_create("droppable-bench", MFD_CLOEXEC);
    if (memory->fd < 0)
        return task_fail(task, own_mount ? memory->fd : -errno, "%s",
                         own_mount ? "no huge pages by shmem_enabled, none by a tmpfs of our own" : "memfd_create");
    if (ftruncate(memory->fd, (off_t)memory->size) < 0)
        return task_fail(task, -errno, "ftruncate");
    memory->address = mmap(NULL, memory->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
    return memory->address == MAP_FAILED ? task_fail(task, -errno, "mmap of an object") : 0;
}

/* ---- opening ---- */

static int open_library(struct memory *memory, struct task *task) {
    struct drp_region_options options = {
        .struct_size = sizeof(options),
        .required = memory->huge ? DRP_REGION_HUGE : 0,
        .chunk_size = memory->huge ? 0 : 64 * KIB, /* asked for, it keeps huge pages out wherever those are the default */
    };
    struct drp *d = memory_connection(task);
    int r;

    if (!d)
        return -ENOTCONN;
    r = drp_region_new(&memory->region, d, memory->size, &options);
    if (r < 0)
        return task_fail(task, r, "drp_region_new: %s", drp_detail());
    memory->address = drp_region_address(memory->region);
    return 0;
}

static int open_anonymous(struct memory *memory, struct task *task, int type) {
    memory->address = mmap(NULL, memory->size, PROT_READ | PROT_WRITE, type | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->address == MAP_FAILED)
        return task_fail(task, -errno, "%s", type == MAP_DROPPABLE ? "mmap(MAP_DROPPABLE)" : "mmap");
    return 0;
}

static int open_textbook(struct memory *memory, struct task *task) {
    int r;

    if (memory->huge)
        return task_fail(task, -EOPNOTSUPP, "UFFDIO_ZEROPAGE of 4 KiB makes no huge pages");
    r = open_anonymous(memory, task, MAP_PRIVATE);
    if (r < 0)
        return r;
    r = textbook_new(&memory->textbook, memory->address, memory->size, task->contender == CONTENDER_SERVER);
    return r < 0 ? task_fail(task, r, "userfaultfd") : 0;
}

static int open_any(struct memory *memory, struct task *task) {
    switch (memory->contender) {
    case CONTENDER_NATIVE:
    case CONTENDER_PAGEOUT:
    case CONTENDER_PRELOAD:
        return open_anonymous(memory, task, MAP_DROPPABLE);
    case CONTENDER_DONTNEED:
    case CONTENDER_FREE:
    case CONTENDER_LOAD:
        return open_anonymous(memory, task, MAP_PRIVATE);
    case CONTENDER_MEMFD:
        return open_memfd(memory, task);
    case CONTENDER_TEXTBOOK:
    case CONTENDER_SERVER:
        return open_textbook(memory, task);
    case CONTENDER_LIBRARY:
        return open_library(memory, task);
    default:
        return task_fail(task, -EOPNOTSUPP, "has no memory");
    }
}

int memory_open(struct memory *memory, struct task *task, uint64_t size, bool huge) {
    int r;

    *memory = (struct memory){.contender = task->contender, .address = MAP_FAILED, .size = size, .huge = huge, .fd = -1};
    r = open_any(memory, task);
    /* EINVAL: a kernel without huge pages, where all have small ones. */
    if (r == 0 && madvise(memory->address, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0 && errno != EINVAL)
        r = task_fail(task, -errno, "madvise(%s)", huge ? "MADV_HUGEPAGE" : "MADV_NOHUGEPAGE");
    if (r < 0)
        memory_close(memory);
    return r;
}

void memory_close(struct memory *memory) {
    if (memory->region)
        drp_region_free(memory->region);
    else if (memory->address != MAP_FAILED)
        munmap(memory->address, memory->size);
    textbook_free(memory->textbook);
    if (memory->fd >= 0)
        close(memory->fd);
    *memory = (struct memory){.address = MAP_FAILED, .fd = -1};
}

/* ---- dropping ---- */

static int punch(struct memory *memory, struct task *task, uint64_t offset, uint64_t length) {
    while (length > 0) {
        uint64_t piece = length < SPAN ? length : SPAN;

        if (fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)piece) < 0)
            return task_fail(task, -errno, "PUNCH_HOLE");
        offset += piece;
        length -= piece;
    }
    return 0;
}

static int advise(struct memory *memory, struct task *task, uint64_t offset, uint64_t length, int advice) {
    static const char *const names[] = {
        [MADV_DONTNEED] = "MADV_DONTNEED",
        [MADV_FREE] = "MADV_FREE",
        [MADV_PAGEOUT] = "MADV_PAGEOUT",
    };

    return madvise(memory->address + offset, length, advice) < 0 ? task_fail(task, -errno, "%s", names[advice]) : 0;
}

int memory_drop(struct memory *memory, struct task *task, uint64_t offset, uint64_t length) {
    int r;

    switch (memory->contender) {
    case CONTENDER_LIBRARY:
        r = drp_drop(memory->region, offset, length, NULL, NULL);
        return r < 0 ? task_fail(task, r, "drp_drop: %s", drp_detail()) : 0;
    case CONTENDER_MEMFD:
        return punch(memory, task, offset, length);
    case CONTENDER_PAGEOUT:
    case CONTENDER_PRELOAD:
        return advise(memory, task, offset, length, MADV_PAGEOUT);
    case CONTENDER_FREE:
        r = advise(memory, task, offset, length, MADV_FREE);
        return r < 0 ? r : advise(memory, task, offset, length, MADV_PAGEOUT);
    default:
        return advise(memory, task, offset, length, MADV_DONTNEED);
    }
}

/* ---- looking ---- */

/* The mapping that has the address: whether it is of a file. */
static bool is_of_object(const void *address) {
    FILE *file = fopen("/proc/self/maps", "re");
    uint64_t start, end, inode;
    bool found = false;
    char line[512];

    while (!found && file && fgets(line, sizeof(line), file))
        found = sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %" SCNu64, &start, &end, &inode) == 3 &&
                (uintptr_t)address >= start && (uintptr_t)address < end && inode != 0;
    if (file)
        fclose(file);
    return found;
}

int memory_check(const struct memory *memory, struct task *task) {
    if (memory->contender == CONTENDER_PRELOAD && !is_of_object(memory->address))
        return task_fail(task, -EOPNOTSUPP, "the preload library left this mapping to the kernel");
    return 0;
}

uint64_t memory_resident(const struct memory *memory) {
    uint64_t pages = memory->size / PAGE, resident = 0;
    unsigned char *there = malloc(pages);

    if (!there)
        return UINT64_MAX;
    if (mincore(memory->address, memory->size, there) == 0)
        for (uint64_t i = 0; i < pages; i++)
            resident += (there[i] & 1) * PAGE;
    else
        resident = UINT64_MAX;
    free(there);
    return resident;
}

double memory_huge_share(const struct memory *memory) {
    static const char *const names[] = {"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"};
    uint64_t start, end, from = (uintptr_t)memory->address, kib, rss = 0, huge = 0;
    FILE *file = fopen("/proc/self/smaps", "re");
    bool inside = false;
    char line[512];

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
            inside = start < from + memory->size && end > from;
        if (!inside)
            continue;
        if (sscanf(line, "Rss: %" SCNu64, &kib) == 1)
            rss += kib;
        for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            if (strncmp(line, names[i], strlen(names[i])) == 0)
                huge += strtoull(line + strlen(names[i]), NULL, 10);
    }
    if (file)
        fclose(file);
    return rss > 0 ? (double)huge / (double)rss : NAN;
}

int memory_check_huge(const struct memory *memory, struct task *task) {
    double share = memory->huge ? memory_huge_share(memory) : 1;

    if (share >= HUGE_MIN)
        return 0;
    return task_fail(task, -EOPNOTSUPP, "of this memory only %.0f %% are huge pages", share * 100);
}
