/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_KERNEL_H
#define DROPPABLE_DAEMON_KERNEL_H

/*
 * What this kernel and these privileges give, found by trying, never by version number; and the objects that memory is made of.
 * Filled once at start, before privileges are dropped, read-only afterwards.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct kernel {
    size_t page_size;
    unsigned cpus;

    int mount_small; /* O_PATH-able directory descriptor of a private tmpfs with 4 KiB pages (huge=never), or -1 */
    int mount_huge;  /* the same with huge=always, or -1 */
    int mount_error; /* why -1: negative errno */
    bool huge;       /* objects with huge pages can be had, on the mount or, as shmem_enabled allows, without */
    bool noswap;     /* the private tmpfs never swaps */

    /* Without noswap: locked segments (locked.h). */
    bool locked;            /* they can be had */
    int locked_error;       /* why not: negative errno */
    bool locked_huge;       /* with huge pages (shmem_enabled) */
    unsigned locked_max;    /* how many there may be */
    uint32_t ipc_namespace; /* in which clients can attach them, or 0 */

    int uffd_device;        /* /dev/userfaultfd, or -1 */
    int uffd_error;         /* 0: a full userfaultfd can be made by this process; else negative errno */
    uint64_t uffd_features; /* those that UFFDIO_API offers */
    bool uffd_wp_shmem;     /* UFFD_FEATURE_WP_HUGETLBFS_SHMEM: disarm by write-protect mode */
    bool seals_writes;      /* F_SEAL_FUTURE_WRITE (Linux 5.1) */
    bool cachestat;         /* cachestat(2) counts the pages of an object (Linux 6.5) */
    bool numa;              /* several nodes have memory: a fill by the daemon would come from its own */
    bool thp_always;        /* transparent huge pages for everybody, unless they refuse */
    int uring_error;        /* 0: io_uring can be had */

    uint64_t fill_rate_small; /* bytes per second that one CPU fills with 4 KiB pages */
    uint64_t fill_rate_huge;  /* the same with huge pages; = small where there are none */
    uint64_t fill_rate;       /* the larger of both times cpus: the fastest that memory can go */
};

/* Finds it all out. Logs nothing. Never fails for a missing feature; negative errno for an unusable system only. */
int kernel_init(struct kernel *kernel);
void kernel_deinit(struct kernel *kernel);

/* Data object of size bytes: an O_TMPFILE file on the private tmpfs, else a sealed memfd (SHRINK|GROW|SEAL). Read-write CLOEXEC. */
int kernel_data_object(const struct kernel *kernel, uint64_t size, bool huge, int *ret_fd);
/*
 * The same, never swapped, without huge pages, and with a name that /proc/PID/fd shows for good ("/NAME (deleted)"): nobody can give it another. Names are of
 * files in a folder; one thread makes these at a time. -EOPNOTSUPP: no noswap.
 */
int kernel_named_object(const struct kernel *kernel, const char *name, uint64_t size, int *ret_fd);
/* Can objects be had that are never swapped? */
bool kernel_keeps_from_swap(const struct kernel *kernel, bool huge);
/* Checks an object that a client hands back: a regular tmpfs file, of at least size bytes, open read-write. 0 or negative errno. */
int kernel_check_data_object(int fd, uint64_t size);

/* Pages of [offset, offset + length) in an object's page cache (cachestat(2)), or negative errno. Takes no lock of the object. */
int64_t kernel_cached_pages(int fd, uint64_t offset, uint64_t length);

/* A memfd of size bytes, mode, sealed SHRINK|GROW|SEAL, read-write. */
int kernel_page_object(const char *name, uint64_t size, mode_t mode, int *ret_fd);
/*
 * A pin page: a memfd of size bytes, read-write, sealed SHRINK|GROW. Its client maps it and adds FUTURE_WRITE|SEAL: from then on nobody can
 * punch it, for which whoever reads it would have to wait. Where the kernel has no such seal it is sealed like any page object.
 */
int kernel_pin_page(const struct kernel *kernel, uint64_t size, int *ret_fd);
/* Is that so, as far as the kernel has the seal? Takes no lock. */
bool kernel_pin_page_is_sealed(const struct kernel *kernel, int fd);
/* A read-only descriptor of the same object. */
int kernel_reopen_readonly(int fd, int *ret_fd);
/* Checks a sealed page object that a client hands back: memfd on tmpfs, exactly size bytes, sealed SHRINK|GROW. 0 or negative errno. */
int kernel_check_page_object(int fd, uint64_t size);
/* Is this an anon_inode:[userfaultfd]? */
bool kernel_is_userfaultfd(int fd);
/* Is this a file of procfs? Asks no other file system. */
bool kernel_is_proc_file(int fd);

/* vm.max_map_count: VMAs that a process may have. */
unsigned long kernel_max_map_count(void);
/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t kernel_now(void);
/* What the calling thread has used of a CPU, in nanoseconds: neither what others take of it nor waits count. */
uint64_t kernel_thread_time(void);

#endif
