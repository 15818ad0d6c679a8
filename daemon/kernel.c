/* SPDX-License-Identifier: MIT */
/*
 * What this kernel and these privileges give, and the objects that memory is made of.
 *
 * Every feature is found by using it once, on objects of our own that are gone again when kernel_init() returns. What
 * stays open is the two private mounts and /dev/userfaultfd. The mounts are detached: they have no place in any
 * namespace, their root is known by our descriptor only, and they go with it. They are limited by nobody but us
 * (size=0, nr_inodes=0): a full tmpfs would be SIGBUS for clients that did nothing wrong.
 *
 * Objects: an O_TMPFILE|O_EXCL file on a private mount never gets a name, and one that is made with a name loses it at once, but in /proc/PID/fd; a file
 * without a link can be given none (linkat(2): ENOENT), so that is nobody's to change. Files on tmpfs cannot be sealed, so the
 * client that maps one can resize its own. A memfd gets all its seals before anybody else sees it, F_SEAL_SEAL among
 * them: a client that could add F_SEAL_FUTURE_WRITE would end PUNCH_HOLE on it for ever. Pin pages, which nobody shall punch, get just that one from the client. Modes matter although memfds
 * have no name: whoever has a read-only descriptor opens it again by /proc/self/fd with all that the mode gives, hence
 * 0400 for state pages.
 *
 * Descriptors are opened again and looked at through /proc/thread-self, not /proc/self: the latter is the table of the
 * main thread, and workers have their own.
 */

#include "kernel.h"

#include "locked.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SEALS_SIZE (F_SEAL_SHRINK | F_SEAL_GROW)
#define SEALS_ALL (SEALS_SIZE | F_SEAL_SEAL)

/* In no header of Debian 12: the same number on every architecture. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

#define FILL_ROUNDS 2
#define FILL_BYTES_SMALL (UINT64_C(8) << 20)
#define FILL_BYTES_HUGE (UINT64_C(128) << 20)
#define HUGE_PAGE (UINT64_C(2) << 20)

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- private mounts ---- */

static int configure_mount(int context, const char *huge, bool noswap) {
    static const char *const options[][2] = {{"size", "0"}, {"nr_inodes", "0"}, {"mode", "0700"}};

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (fsconfig(context, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0) < 0)
            return -errno;
    if (huge && fsconfig(context, FSCONFIG_SET_STRING, "huge", huge, 0) < 0)
        return -errno;
    if (noswap && fsconfig(context, FSCONFIG_SET_FLAG, "noswap", NULL, 0) < 0)
        return -errno;
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    return 0;
}

/* A detached tmpfs; descriptor of its root, or negative errno. huge may be NULL: the kernel's default. */
static int make_mount(const char *huge, bool noswap) {
    int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    int root;
    int r;

    if (context < 0)
        return -errno;
    r = configure_mount(context, huge, noswap);
    if (r < 0) {
        close(context);
        return r;
    }
    root = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    r = root < 0 ? -errno : root;
    close(context);
    return r;
}

static int open_tmpfile(int root) {
    int fd = openat(root, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd;
}

/* A mount on which a file can indeed be made. */
static int try_mount(const char *huge, bool noswap) {
    int root = make_mount(huge, noswap);
    int fd;

    if (root < 0)
        return root;
    fd = open_tmpfile(root);
    if (fd < 0) {
        close(root);
        return fd;
    }
    close(fd);
    return root;
}

static void probe_mounts(struct kernel *kernel) {
    kernel->noswap = true;
    kernel->mount_small = try_mount("never", true);
    if (kernel->mount_small < 0) {
        kernel->noswap = false;
        kernel->mount_small = try_mount("never", false);
    }
    if (kernel->mount_small < 0) {
        kernel->mount_error = kernel->mount_small;
        kernel->mount_small = -1;
        return;
    }
    kernel->mount_huge = try_mount("always", kernel->noswap);
    if (kernel->mount_huge < 0) { /* EINVAL: no transparent huge pages here */
        kernel->mount_error = kernel->mount_huge;
        kernel->mount_huge = -1;
    }
}

/* ---- the other probes ---- */

/* A full userfaultfd (kernel-mode faults too), or negative errno. */
static int open_userfaultfd(int device) {
    int fd = -1;

    if (device >= 0)
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static void probe_userfaultfd(struct kernel *kernel) {
    struct uffdio_api api = {.api = UFFD_API};
    int fd;

    kernel->uffd_device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    fd = open_userfaultfd(kernel->uffd_device);
    if (fd < 0) {
        kernel->uffd_error = fd;
        return;
    }
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        kernel->uffd_error = -errno;
    } else {
        kernel->uffd_features = api.features;
        kernel->uffd_wp_shmem = api.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    }
    close(fd);
}

static void probe_uring(struct kernel *kernel) {
    struct io_uring ring;

    kernel->uring_error = io_uring_queue_init(1, &ring, 0);
    if (kernel->uring_error == 0)
        io_uring_queue_exit(&ring);
}

int64_t kernel_cached_pages(int fd, uint64_t offset, uint64_t length) {
    struct {
        uint64_t offset, length;
    } range = {offset, length};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } counts;

    return syscall(SYS_cachestat, fd, &range, &counts, 0) < 0 ? -errno : (int64_t)counts.cached;
}

static void probe_cachestat(struct kernel *kernel) {
    int fd = -1;

    if (kernel_data_object(kernel, 4096, false, &fd) < 0)
        return;
    kernel->cachestat = pwrite(fd, "", 1, 0) == 1 && kernel_cached_pages(fd, 0, 4096) == 1;
    close(fd);
}

/* The first line of a file of /sys; empty if there is none. */
static void read_setting(const char *path, char *line, size_t size) {
    FILE *file = fopen(path, "re");

    if (!file || !fgets(line, (int)size, file))
        line[0] = '\0';
    if (file)
        fclose(file);
}

/* Shared memory that is on no mount of ours. */
static bool shmem_may_be_huge(void) {
    char line[256];

    read_setting("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof(line));
    return *line && !strstr(line, "[never]") && !strstr(line, "[deny]");
}

static void probe_locking(struct kernel *kernel) {
    if (kernel->noswap)
        return;
    kernel->locked_error = locked_probe();
    kernel->locked = kernel->locked_error == 0;
    kernel->locked_max = kernel->locked ? locked_max() : 0;
    kernel->ipc_namespace = locked_namespace();
    kernel->locked_huge = kernel->locked && shmem_may_be_huge();
}

static void read_settings(struct kernel *kernel) {
    char line[256];

    read_setting("/sys/devices/system/node/has_memory", line, sizeof(line));
    kernel->numa = strpbrk(line, ",-") != NULL;
    read_setting("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line));
    kernel->thp_always = strstr(line, "[always]") != NULL;
    kernel->huge = kernel->mount_huge >= 0 || shmem_may_be_huge();
}

/* ---- fill rates ---- */

/* Bytes per second of touching fresh memory once, from one page of page_size to the next. 0: not measured. */
static uint64_t fill_once(uint64_t bytes, int advice, size_t page_size) {
    uint64_t reserved = bytes + HUGE_PAGE;
    uint64_t start;
    uint64_t took;
    char *area;
    char *aligned;

    area = mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return 0;
    aligned = area + (-(uintptr_t)area & (HUGE_PAGE - 1));
    (void)madvise(aligned, bytes, advice); /* EINVAL: no huge pages here, which is what the measurement then tells */

    start = kernel_thread_time(); /* on a busy machine memory would seem slow, just where it takes a larger reserve */
    for (uint64_t at = 0; at < bytes; at += page_size)
        *(volatile char *)(aligned + at) = 1;
    took = kernel_thread_time() - start;

    munmap(area, reserved);
    return (uint64_t)((double)bytes * 1e9 / (double)(took ? took : 1));
}

static uint64_t fill_best(uint64_t bytes, int advice, size_t page_size) {
    uint64_t best = 0;

    for (int i = 0; i < FILL_ROUNDS; i++) {
        uint64_t rate = fill_once(bytes, advice, page_size);

        if (rate > best)
            best = rate;
    }
    return best;
}

/*
 * The best of some rounds, not the mean: the question is how fast memory can go, and disturbances only slow it. Each
 * round gets the pages of the one before: they are warm, and backed already where a hypervisor does that at the first
 * touch (which made the first round 50 times slower). So it is an upper bound.
 * Huge pages that fit into a cache would tell of that instead: 49 GB/s at 8 MiB, 22 at 32, 19 from 128 on.
 */
static void measure_fill_rates(struct kernel *kernel) {
    uint64_t some = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * kernel->page_size / 16 & ~(HUGE_PAGE - 1);
    uint64_t huge = some < FILL_BYTES_HUGE ? some : FILL_BYTES_HUGE;

    kernel->fill_rate_small = fill_best(FILL_BYTES_SMALL, MADV_NOHUGEPAGE, kernel->page_size);
    kernel->fill_rate_huge = fill_best(huge > HUGE_PAGE ? huge : HUGE_PAGE, MADV_HUGEPAGE, kernel->page_size);
    if (kernel->fill_rate_huge < kernel->fill_rate_small)
        kernel->fill_rate_huge = kernel->fill_rate_small;
    kernel->fill_rate = kernel->fill_rate_huge * kernel->cpus;
}

/* ---- all of it ---- */

/* What nothing works without: sealed memfds, and /proc to open them again. */
static int require_pages(struct kernel *kernel) {
    int writable = -1;
    int readable = -1;
    int r;

    kernel->seals_writes = true;
    r = kernel_pin_page(kernel, 4096, &writable);
    if (r < 0)
        return r;
    if (fcntl(writable, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
        kernel->seals_writes = false;
        r = errno == EINVAL ? fcntl(writable, F_ADD_SEALS, F_SEAL_SEAL) : -1;
        if (r < 0)
            r = -errno;
    }
    if (r < 0) {
        close(writable);
        return r;
    }
    r = kernel_reopen_readonly(writable, &readable);
    if (r == 0)
        close(readable);
    close(writable);
    return r;
}

int kernel_init(struct kernel *kernel) {
    struct kernel found = {.mount_small = -1, .mount_huge = -1, .uffd_device = -1};
    long page_size = sysconf(_SC_PAGESIZE);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int r;

    if (page_size < 4096)
        return -EOPNOTSUPP;
    found.page_size = (size_t)page_size;
    found.cpus = cpus > 0 ? (unsigned)cpus : 1;
    r = require_pages(&found);
    if (r < 0)
        return r;

    probe_mounts(&found);
    probe_locking(&found);
    probe_userfaultfd(&found);
    probe_uring(&found);
    probe_cachestat(&found);
    read_settings(&found);
    measure_fill_rates(&found);
    *kernel = found;
    return 0;
}

void kernel_deinit(struct kernel *kernel) {
    close_fd(&kernel->mount_small);
    close_fd(&kernel->mount_huge);
    close_fd(&kernel->uffd_device);
}

/* ---- objects ---- */

/* Size, mode and seals of a memfd that nobody else knows yet. */
static int finish_memfd(int fd, uint64_t size, mode_t mode, unsigned seals) {
    if (fchmod(fd, mode) < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0)
        return -errno;
    if (fcntl(fd, F_ADD_SEALS, seals) < 0)
        return -errno;
    return 0;
}

static int make_memfd(const char *name, uint64_t size, mode_t mode, unsigned seals, int *ret_fd) {
    int fd;
    int r;

    if (size > INT64_MAX)
        return -EFBIG;
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* before 6.3 */
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    r = finish_memfd(fd, size, mode, seals);
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* Size of a file of a private mount that nobody else knows yet. Negative: it is closed. */
static int finish_file(int fd, uint64_t size, int *ret_fd) {
    if (ftruncate(fd, (off_t)size) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int kernel_data_object(const struct kernel *kernel, uint64_t size, bool huge, int *ret_fd) {
    int root = huge ? kernel->mount_huge : kernel->mount_small;
    int fd;

    if (root < 0)
        return make_memfd("droppable-data", size, 0600, SEALS_ALL, ret_fd);
    if (size > INT64_MAX)
        return -EFBIG;
    fd = open_tmpfile(root);
    return fd < 0 ? fd : finish_file(fd, size, ret_fd);
}

/* If we die between the two calls the file goes with the mount. */
int kernel_named_object(const struct kernel *kernel, const char *name, uint64_t size, int *ret_fd) {
    int root = kernel->mount_small, flags = O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC;
    int fd;

    if (!kernel->noswap)
        return -EOPNOTSUPP;
    if (size > INT64_MAX)
        return -EFBIG;
    fd = openat(root, name, flags, 0600);
    if (fd < 0 && errno == EEXIST && unlinkat(root, name, 0) == 0) /* that failed the last time */
        fd = openat(root, name, flags, 0600);
    if (fd < 0)
        return -errno;
    if (unlinkat(root, name, 0) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    return finish_file(fd, size, ret_fd);
}

bool kernel_keeps_from_swap(const struct kernel *kernel, bool huge) {
    if (kernel->noswap)
        return (huge ? kernel->mount_huge : kernel->mount_small) >= 0; /* a memfd can be swapped */
    return huge ? kernel->locked_huge : kernel->locked;
}

int kernel_page_object(const char *name, uint64_t size, mode_t mode, int *ret_fd) {
    return make_memfd(name, size, mode, SEALS_ALL, ret_fd);
}

int kernel_pin_page(const struct kernel *kernel, uint64_t size, int *ret_fd) {
    return make_memfd("droppable-pins", size, 0600, kernel->seals_writes ? SEALS_SIZE : SEALS_ALL, ret_fd);
}

bool kernel_pin_page_is_sealed(const struct kernel *kernel, int fd) {
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (!kernel->seals_writes || (seals & F_SEAL_FUTURE_WRITE));
}

int kernel_reopen_readonly(int fd, int *ret_fd) {
    char path[64];
    int readable;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    readable = open(path, O_RDONLY | O_CLOEXEC);
    if (readable < 0)
        return -errno;
    *ret_fd = readable;
    return 0;
}

/*
 * A regular file of ours on tmpfs; its size and access mode. Devices and pipes of a tmpfs fail too. Of another's file mincore(2) says that all
 * is there, as soon as its owner takes our right to write it: pages of pins would be filled by reading them, and drops would free what never was.
 */
static int check_tmpfs_file(int fd, uint64_t *ret_size, int *ret_access) {
    struct statfs fs;
    struct stat st;
    int flags;

    flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if (flags & O_PATH)
        return -EBADF;
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || fs.f_type != TMPFS_MAGIC)
        return -EMEDIUMTYPE;
    if (st.st_uid != geteuid())
        return -EPERM;
    *ret_size = (uint64_t)st.st_size;
    *ret_access = flags & O_ACCMODE;
    return 0;
}

int kernel_check_data_object(int fd, uint64_t size) {
    uint64_t has;
    int access;
    int seals;
    int r;

    r = check_tmpfs_file(fd, &has, &access);
    if (r < 0)
        return r;
    if (access != O_RDWR)
        return -EACCES;
    if (has < size)
        return -EFBIG;
    /* A file of a tmpfs mount has F_SEAL_SEAL alone, from birth: no seal that stops PUNCH_HOLE can come later. */
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return -errno;
    if (!(seals & F_SEAL_SEAL) || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
        return -EPERM;
    return 0;
}

int kernel_check_page_object(int fd, uint64_t size) {
    uint64_t has;
    int access;
    int seals;
    int r;

    r = check_tmpfs_file(fd, &has, &access);
    if (r < 0)
        return r;
    if (access != O_RDWR && access != O_RDONLY)
        return -EACCES;
    if (has != size)
        return -EFBIG;
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return -errno;
    return (seals & SEALS_ALL) == SEALS_ALL ? 0 : -EPERM;
}

bool kernel_is_userfaultfd(int fd) {
    static const char expected[] = "anon_inode:[userfaultfd]";
    char path[64];
    char target[sizeof(expected) + 1];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    n = readlink(path, target, sizeof(target));
    return n == (ssize_t)sizeof(expected) - 1 && memcmp(target, expected, (size_t)n) == 0;
}

/*
 * What is asked first the kernel answers itself. Blocks as small as procfs's has none that can be mounted without privileges (a client's own, by FUSE, has
 * pages), and of those that an administrator mounts, as FAT or an old ext4, none asks its disk for the second answer.
 */
bool kernel_is_proc_file(int fd) {
    struct statfs fs;
    int block_size;

    return ioctl(fd, FIGETBSZ, &block_size) == 0 && block_size == 1024 && fstatfs(fd, &fs) == 0 &&
           fs.f_type == PROC_SUPER_MAGIC;
}

/* ---- other facts ---- */

unsigned long kernel_max_map_count(void) {
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    unsigned long maps = 65530; /* the kernel's default */
    char text[32] = "";

    if (fd < 0)
        return maps;
    if (read(fd, text, sizeof(text) - 1) > 0)
        maps = strtoul(text, NULL, 10);
    close(fd);
    return maps;
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t kernel_now(void) {
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t kernel_thread_time(void) {
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}
