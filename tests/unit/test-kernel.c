/* SPDX-License-Identifier: MIT */
/*
 * What the kernel gives and the objects made of it, on the kernel that the test runs on; and privileges, as those
 * decide what objects can still be opened after start. What needs another uid or a dropped capability runs in a child,
 * which says what failed on stderr.
 *
 * Exit code 77: not even a sealed memfd can be had, so there is nothing to test.
 */

#define _GNU_SOURCE

#include "filter.h"
#include "kernel.h"
#include "privs.h"
#include "process.h"
#include "psi.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEALS_ALL (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define OTHER_UID 65534
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

/* In a child: Check's own macros belong to the parent. */
#define CHILD_CHECK(condition)                                                        \
    do                                                                                \
        if (!(condition)) {                                                           \
            fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #condition, errno); \
            _exit(1);                                                                 \
        }                                                                             \
    while (0)

static struct kernel kernel;

static void with_kernel(void) {
    ck_assert_int_eq(kernel_init(&kernel), 0);
}

static void without_kernel(void) {
    kernel_deinit(&kernel);
}

/* Runs a function in a child. _exit: a leak checker would want to trace a process that forbids it. */
static void in_child(void (*run)(void)) {
    int status;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        run();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}

static bool is_cloexec(int fd) {
    int flags = fcntl(fd, F_GETFD);

    return flags >= 0 && (flags & FD_CLOEXEC);
}

static unsigned count_fds(void) {
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* ---- probes ---- */

START_TEST(test_init) {
    unsigned before = count_fds();
    uint64_t start = kernel_now();
    struct kernel found;
    unsigned kept;

    ck_assert_int_eq(kernel_init(&found), 0);
    printf("%.1f ms: mounts %d (noswap %d), userfaultfd %d (features %#llx, shmem WP %d), io_uring %d, "
           "%llu and %llu MiB/s, %u CPUs\n",
           (double)(kernel_now() - start) / 1e6, found.mount_error, found.noswap, found.uffd_error,
           (unsigned long long)found.uffd_features, found.uffd_wp_shmem, found.uring_error,
           (unsigned long long)(found.fill_rate_small >> 20), (unsigned long long)(found.fill_rate_huge >> 20),
           found.cpus);

    kept = (unsigned)(found.mount_small >= 0) + (found.mount_huge >= 0) + (found.uffd_device >= 0);
    ck_assert_uint_eq(count_fds(), before + kept);
    ck_assert(found.mount_small < 0 || is_cloexec(found.mount_small));
    ck_assert(found.mount_huge < 0 || is_cloexec(found.mount_huge));
    ck_assert(found.uffd_device < 0 || is_cloexec(found.uffd_device));
    ck_assert_int_le(found.mount_error, 0);
    ck_assert((found.mount_small < 0 || found.mount_huge < 0) == (found.mount_error < 0));
    ck_assert(!found.noswap || found.mount_small >= 0);
    ck_assert_int_le(found.uffd_error, 0);
    ck_assert((found.uffd_error == 0) == (found.uffd_features != 0));
    ck_assert_int_le(found.uring_error, 0);
    ck_assert_uint_eq(found.page_size, (size_t)sysconf(_SC_PAGESIZE));
    ck_assert_uint_gt(found.fill_rate_small, 10 << 20);
    ck_assert_uint_ge(found.fill_rate_huge, found.fill_rate_small);
    ck_assert_uint_eq(found.fill_rate, found.fill_rate_huge * found.cpus);

    kernel_deinit(&found);
    ck_assert_uint_eq(count_fds(), before);
    kernel_deinit(&found);
}
END_TEST

START_TEST(test_psi_open) {
    bool has_psi = access("/proc/pressure/memory", W_OK) == 0, is_short;

    for (enum psi_level level = PSI_SOME; level <= PSI_FULL; level++) {
        int fd = psi_open(AT_FDCWD, "/proc/pressure/memory", level, &is_short);

        ck_assert(fd < 0 || (has_psi && is_cloexec(fd)));
        ck_assert(fd >= 0 || !has_psi || geteuid() != 0);
        if (fd >= 0)
            close(fd);
    }
    ck_assert_int_eq(psi_open(AT_FDCWD, "/nonexistent", PSI_SOME, &is_short), -ENOENT);
}
END_TEST

/* ---- objects ---- */

static void check_data_object(const struct kernel *with, bool huge) {
    struct stat st;
    struct statfs fs;
    bool on_mount = (huge ? with->mount_huge : with->mount_small) >= 0;
    int fd;

    ck_assert_int_eq(kernel_data_object(with, 8 << 20, huge, &fd), 0);
    ck_assert(is_cloexec(fd));
    ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_size, 8 << 20);
    ck_assert_int_eq(st.st_mode, S_IFREG | 0600);
    ck_assert_int_eq(st.st_blocks, 0);
    ck_assert_int_eq(fcntl(fd, F_GET_SEALS) & ~F_SEAL_EXEC, on_mount ? F_SEAL_SEAL : SEALS_ALL);
    if (on_mount) { /* no limit, and nothing that could get a name */
        ck_assert_int_eq(fstatfs(fd, &fs), 0);
        ck_assert_uint_eq(fs.f_blocks, 0);
        ck_assert_int_lt(linkat(AT_FDCWD, "", fd, "x", AT_EMPTY_PATH), 0);
    } else {
        ck_assert_int_lt(ftruncate(fd, 0), 0);
    }
    ck_assert_int_eq(kernel_check_data_object(fd, 8 << 20), 0);
    ck_assert_int_eq(kernel_check_data_object(fd, (8 << 20) + 1), -EFBIG);
    ck_assert_int_eq(kernel_check_page_object(fd, 8 << 20), on_mount ? -EPERM : 0);

    ck_assert_int_eq(pwrite(fd, "x", 1, 4096), 1);
    ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8 << 20), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_blocks, 0);
    close(fd);
}

START_TEST(test_data_objects) {
    struct kernel bare = kernel;
    int fd = -1;

    check_data_object(&kernel, false);
    check_data_object(&kernel, true);
    bare.mount_small = bare.mount_huge = -1;
    check_data_object(&bare, false);
    check_data_object(&bare, true);
    ck_assert_int_lt(kernel_data_object(&kernel, UINT64_MAX, false, &fd), 0);
    ck_assert_int_lt(kernel_data_object(&bare, UINT64_MAX, false, &fd), 0);
    ck_assert_int_eq(fd, -1);
}
END_TEST

START_TEST(test_page_object) {
    struct stat st;
    uint32_t *writer;
    const uint32_t *reader;
    int readable;
    int fd;

    ck_assert_int_eq(kernel_page_object("droppable-state", 8192, 0400, &fd), 0);
    ck_assert(is_cloexec(fd));
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_mode, S_IFREG | 0400);
    ck_assert_int_eq(fcntl(fd, F_GET_SEALS) & SEALS_ALL, SEALS_ALL);
    ck_assert_int_lt(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    ck_assert_int_lt(ftruncate(fd, 4096), 0);
    ck_assert_int_lt(ftruncate(fd, 12288), 0);

    ck_assert_int_eq(kernel_reopen_readonly(fd, &readable), 0);
    ck_assert(is_cloexec(readable));
    ck_assert_int_eq(fcntl(readable, F_GETFL) & O_ACCMODE, O_RDONLY);
    writer = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    reader = mmap(NULL, 8192, PROT_READ, MAP_SHARED, readable, 0);
    ck_assert_ptr_ne(writer, MAP_FAILED);
    ck_assert_ptr_ne(reader, MAP_FAILED);
    writer[1500] = 42;
    ck_assert_uint_eq(reader[1500], 42);
    ck_assert_int_lt(mprotect((void *)reader, 8192, PROT_READ | PROT_WRITE), 0);
    ck_assert_ptr_eq(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, readable, 0), MAP_FAILED);
    munmap(writer, 8192);
    munmap((void *)reader, 8192);

    ck_assert_int_eq(kernel_check_page_object(fd, 8192), 0);
    ck_assert_int_eq(kernel_check_page_object(readable, 8192), 0);
    ck_assert_int_eq(kernel_check_data_object(readable, 8192), -EACCES);
    ck_assert_int_eq(kernel_check_page_object(fd, 4096), -EFBIG);
    ck_assert_int_eq(kernel_check_page_object(fd, 12288), -EFBIG);
    close(readable);
    close(fd);
    ck_assert_int_eq(kernel_reopen_readonly(fd, &readable), -ENOENT);
}
END_TEST

/* Its client seals it, against everything that needs no mapping; what is mapped goes on. */
START_TEST(test_pin_page) {
    const struct kernel without = {.seals_writes = false};
    char *writer;
    int fd;

    ck_assert_int_eq(kernel_pin_page(&without, 8192, &fd), 0);
    ck_assert(kernel_pin_page_is_sealed(&without, fd));
    ck_assert_int_eq(kernel_check_page_object(fd, 8192), 0);
    close(fd);
    ck_assert(!kernel_pin_page_is_sealed(&kernel, -1));
    if (!kernel.seals_writes)
        return;

    ck_assert_int_eq(kernel_pin_page(&kernel, 8192, &fd), 0);
    ck_assert(!kernel_pin_page_is_sealed(&kernel, fd));
    ck_assert_int_eq(kernel_check_page_object(fd, 8192), -EPERM);
    ck_assert_int_lt(ftruncate(fd, 4096), 0);
    writer = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(writer, MAP_FAILED);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), 0);
    ck_assert(kernel_pin_page_is_sealed(&kernel, fd));
    ck_assert_int_eq(kernel_check_page_object(fd, 8192), 0);
    writer[0] = 1;
    ck_assert_int_lt(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    ck_assert_int_eq(writer[0], 1);
    munmap(writer, 8192);
    close(fd);
}
END_TEST

static int open_again(int fd, int flags) {
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

/* A client of another uid has a read-only descriptor of a state page: it stays one. */
static void run_other_uid(void) {
    int state;
    int readable;
    int open_to_all;

    CHILD_CHECK(kernel_page_object("droppable-state", 4096, 0400, &state) == 0);
    CHILD_CHECK(kernel_reopen_readonly(state, &readable) == 0);
    CHILD_CHECK(kernel_page_object("control", 4096, 0666, &open_to_all) == 0);
    close(state);
    CHILD_CHECK(setresgid(OTHER_UID, OTHER_UID, OTHER_UID) == 0);
    CHILD_CHECK(setresuid(OTHER_UID, OTHER_UID, OTHER_UID) == 0);
    CHILD_CHECK(open_again(open_to_all, O_RDWR) >= 0); /* so it is the mode that decides below */
    CHILD_CHECK(open_again(readable, O_RDWR) < 0 && errno == EACCES);
    CHILD_CHECK(open_again(readable, O_WRONLY) < 0 && errno == EACCES);
    CHILD_CHECK(fchmod(readable, 0666) < 0 && errno == EPERM);
    CHILD_CHECK(fcntl(readable, F_ADD_SEALS, F_SEAL_WRITE) < 0);
}

START_TEST(test_state_page_other_uid) {
    if (geteuid() != 0)
        printf("test_state_page_other_uid: needs root to become another user, left out\n");
    else
        in_child(run_other_uid);
}
END_TEST

/* ---- what a client may hand back ---- */

static void refuse(int fd, int data_result, int page_result) {
    ck_assert_int_eq(kernel_check_data_object(fd, 4096), data_result);
    ck_assert_int_eq(kernel_check_page_object(fd, 4096), page_result);
    close(fd);
}

static int plain_memfd(unsigned flags, int seals) {
    int fd = memfd_create("test", MFD_CLOEXEC | flags);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    if (seals)
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

START_TEST(test_checks_refuse) {
    char file[] = "/var/tmp/test-kernel-XXXXXX";
    struct statfs fs;
    int pair[2];
    int fd;

    ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
    refuse(pair[0], -EMEDIUMTYPE, -EMEDIUMTYPE);
    refuse(pair[1], -EMEDIUMTYPE, -EMEDIUMTYPE);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    refuse(pair[0], -EMEDIUMTYPE, -EMEDIUMTYPE);
    close(pair[1]);
    refuse(open("/dev/null", O_RDWR | O_CLOEXEC), -EMEDIUMTYPE, -EMEDIUMTYPE);
    refuse(open("/dev/zero", O_RDWR | O_CLOEXEC), -EMEDIUMTYPE, -EMEDIUMTYPE);
    refuse(open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC), -EMEDIUMTYPE, -EMEDIUMTYPE);
    refuse(open("/proc/self/maps", O_RDONLY | O_CLOEXEC), -EMEDIUMTYPE, -EMEDIUMTYPE);
    refuse(-1, -EBADF, -EBADF);

    fd = mkostemp(file, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    unlink(file);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    ck_assert_int_eq(fstatfs(fd, &fs), 0);
    if (fs.f_type != TMPFS_MAGIC)
        refuse(fd, -EMEDIUMTYPE, -EMEDIUMTYPE);
    else
        close(fd);

    refuse(plain_memfd(MFD_ALLOW_SEALING, 0), -EPERM, -EPERM);
    refuse(plain_memfd(0, 0), 0, -EPERM); /* can't be sealed any more, so nothing against it as data */
    refuse(plain_memfd(MFD_ALLOW_SEALING, F_SEAL_SHRINK | F_SEAL_GROW), -EPERM, -EPERM);
    refuse(plain_memfd(MFD_ALLOW_SEALING, F_SEAL_SHRINK | F_SEAL_SEAL), 0, -EPERM);
    refuse(plain_memfd(MFD_ALLOW_SEALING, SEALS_ALL), 0, 0);
    refuse(plain_memfd(MFD_ALLOW_SEALING, SEALS_ALL | F_SEAL_WRITE), -EPERM, 0);
    refuse(plain_memfd(MFD_ALLOW_SEALING, SEALS_ALL | F_SEAL_FUTURE_WRITE), -EPERM, 0);
    fd = plain_memfd(MFD_ALLOW_SEALING, SEALS_ALL);
    refuse(open_again(fd, O_PATH), -EBADF, -EBADF);
    refuse(open_again(fd, O_WRONLY), -EACCES, -EACCES);
    refuse(open_again(fd, O_RDONLY), -EACCES, 0);
    close(fd);
}
END_TEST

START_TEST(test_is_userfaultfd) {
    int plain = memfd_create("anon_inode:[userfaultfd]", MFD_CLOEXEC);
    int event = (int)syscall(SYS_eventfd2, 0, O_CLOEXEC);
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    ck_assert(!kernel_is_userfaultfd(plain));
    ck_assert(!kernel_is_userfaultfd(event));
    ck_assert(!kernel_is_userfaultfd(-1));
    ck_assert(kernel.uffd_device < 0 || !kernel_is_userfaultfd(kernel.uffd_device));
    if (uffd >= 0)
        ck_assert(kernel_is_userfaultfd(uffd));
    else
        printf("test_is_userfaultfd: no userfaultfd here (%s), only the negative cases\n", strerror(errno));
    close(plain);
    close(event);
    if (uffd >= 0)
        close(uffd);
}
END_TEST

/* ---- processes ---- */

static struct ucred peer_of(pid_t pid) {
    return (struct ucred){.pid = pid, .uid = geteuid(), .gid = getegid()};
}

/* As it is, as before Linux 6.5, and as before Linux 5.3. */
START_TEST(test_processes) {
    static const struct filter_rule none[] = {
        {SYS_getsockopt, ENOPROTOOPT, {{2, ~0U, SOL_SOCKET}, {3, ~0U, 77}}}, /* SO_PEERPIDFD */
        {.call = SYS_pidfd_open, .error = ENOSYS},
        {.call = SYS_pidfd_send_signal, .error = ENOSYS},
    };
    static const size_t hidden[] = {0, 1, 3};
    struct ucred peer = peer_of(getpid());
    int pair[2];
    int handle;
    siginfo_t info;
    pid_t pid;

    ck_assert_int_eq(_i ? filter_install(none, hidden[_i], NULL) : 0, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    handle = process_of_peer(pair[0], &peer);
    ck_assert_int_ge(handle, 0);
    ck_assert(is_cloexec(handle));
    ck_assert(!process_ended(handle));
    ck_assert(process_can_be_polled(handle) == (_i < 2));
    close(handle);
    peer.uid++; /* it has the number, but is not who connected */
    ck_assert(_i ? process_of_peer(pair[0], &peer) == -ESRCH : (handle = process_of_peer(pair[0], &peer)) >= 0);
    if (!_i)
        close(handle);

    pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    peer = peer_of(pid);
    handle = _i ? process_of_peer(pair[0], &peer) : (int)syscall(SYS_pidfd_open, pid, 0);
    ck_assert_int_ge(handle, 0);
    ck_assert(!process_ended(handle));
    process_kill(pid, handle);
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    ck_assert(process_ended(handle)); /* a zombie */
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(process_ended(handle));
    ck_assert_int_eq(process_open(pid, handle, "maps"), -ENOENT);
    close(handle);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

/* ---- privileges ---- */

static bool may_have(cap_value_t cap) {
    return cap == CAP_SYS_PTRACE || cap == CAP_SYS_RESOURCE || cap == CAP_SYS_NICE || cap == CAP_KILL;
}

/* What a daemon has to be able to do afterwards. */
static void check_objects_after_drop(void) {
    int state;
    int readable;
    int data;

    CHILD_CHECK(kernel_page_object("droppable-state", 4096, 0400, &state) == 0);
    CHILD_CHECK(kernel_reopen_readonly(state, &readable) == 0);
    CHILD_CHECK(kernel_data_object(&kernel, 4096, false, &data) == 0);
    CHILD_CHECK(!kernel_is_userfaultfd(data));
    CHILD_CHECK(kernel_check_data_object(data, 4096) == 0);
}

static void run_drop(void) {
    cap_t before = cap_get_proc();
    cap_flag_value_t had;
    cap_flag_value_t has;
    char text[256];
    cap_t after;

    CHILD_CHECK(kernel_init(&kernel) == 0); /* as the user that this child has become */
    CHILD_CHECK(privs_drop(false, text, sizeof(text)) == 0);
    after = cap_get_proc();
    for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++) {
        CHILD_CHECK(cap_get_flag(before, cap, CAP_PERMITTED, &had) == 0);
        CHILD_CHECK(cap_get_flag(after, cap, CAP_PERMITTED, &has) == 0);
        CHILD_CHECK(has == (had && may_have(cap) ? CAP_SET : CAP_CLEAR));
        CHILD_CHECK(cap_get_flag(after, cap, CAP_EFFECTIVE, &had) == 0 && had == has);
        CHILD_CHECK(cap_get_flag(after, cap, CAP_INHERITABLE, &has) == 0 && has == CAP_CLEAR);
    }
    CHILD_CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    CHILD_CHECK(text[0]);
    printf("kept: %s\n", text);
    fflush(stdout);
    check_objects_after_drop();
    CHILD_CHECK(privs_drop(false, text, sizeof(text)) == 0); /* again: nothing left to drop, still provable */
}

static void run_drop_root(void) {
    run_drop();
    CHILD_CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
    CHILD_CHECK(cap_get_bound(CAP_SYS_ADMIN) == 0);
    CHILD_CHECK(chroot("/") < 0 && errno == EPERM);
}

static void run_drop_ordinary(void) {
    char text[16] = "";

    if (geteuid() == 0) {
        CHILD_CHECK(setresgid(OTHER_UID, OTHER_UID, OTHER_UID) == 0);
        CHILD_CHECK(setresuid(OTHER_UID, OTHER_UID, OTHER_UID) == 0);
        CHILD_CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0); /* as after execve(2) */
    }
    run_drop();
    CHILD_CHECK(privs_drop(false, text, sizeof(text)) == 0 && strcmp(text, "none") == 0);
    CHILD_CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
}

/* User= with AmbientCapabilities= in a unit: an ordinary uid that has some, and becomes undumpable. */
static void run_drop_service(void) {
    cap_value_t some[] = {CAP_SYS_ADMIN, CAP_SYS_NICE};
    char text[16] = "";
    cap_t caps = cap_init();

    CHILD_CHECK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
    CHILD_CHECK(setresgid(OTHER_UID, OTHER_UID, OTHER_UID) == 0);
    CHILD_CHECK(setresuid(OTHER_UID, OTHER_UID, OTHER_UID) == 0);
    CHILD_CHECK(cap_set_flag(caps, CAP_PERMITTED, 2, some, CAP_SET) == 0);
    CHILD_CHECK(cap_set_flag(caps, CAP_EFFECTIVE, 2, some, CAP_SET) == 0);
    CHILD_CHECK(cap_set_flag(caps, CAP_INHERITABLE, 2, some, CAP_SET) == 0);
    CHILD_CHECK(cap_set_proc(caps) == 0);
    CHILD_CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0) == 0);
    run_drop();
    CHILD_CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
    CHILD_CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_SYS_ADMIN, 0, 0) == 0);
    CHILD_CHECK(privs_drop(false, text, sizeof(text)) == 0 && strcmp(text, "cap_sys_nice") == 0);
}

START_TEST(test_privs) {
    in_child(run_drop_ordinary);
    if (geteuid() != 0) {
        printf("test_privs: not root, only the ordinary user's case\n");
        return;
    }
    in_child(run_drop_root);
    in_child(run_drop_service);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("kernel");
    TCase *tcase = tcase_create("kernel");
    int fd;
    int r;

    r = kernel_page_object("droppable-test", 4096, 0400, &fd);
    if (r < 0) {
        printf("no sealed memfd here: %s\n", strerror(-r));
        return 77;
    }
    close(fd);
    tcase_add_checked_fixture(tcase, with_kernel, without_kernel);
    tcase_add_test(tcase, test_init);
    tcase_add_test(tcase, test_psi_open);
    tcase_add_test(tcase, test_data_objects);
    tcase_add_test(tcase, test_page_object);
    tcase_add_test(tcase, test_pin_page);
    tcase_add_test(tcase, test_state_page_other_uid);
    tcase_add_test(tcase, test_checks_refuse);
    tcase_add_test(tcase, test_is_userfaultfd);
    tcase_add_loop_test(tcase, test_processes, 0, 3);
    tcase_add_test(tcase, test_privs);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
