/* SPDX-License-Identifier: MIT */
/*
 * Runs a program as if on an older kernel (kernels.c): system calls, flags and ioctls that it had not fail as they did, files that it had not are not
 * there, capabilities that it did not know are gone. Two calls have in memory what matters, so they are answered here: UFFDIO_API, with fewer
 * features, and io_uring_setup(2), by a ring with fewer operations.
 *
 * Exits as the program does; with 77, saying why, where this cannot be done.
 *
 * usage: as-kernel VERSION[-userfaultfd][-io_uring][-psi][-mounts][-docker] -- PROGRAM [ARGUMENT...]
 */

#include "channel.h"
#include "kernels.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* Linux 6.9. */
#define PIDFD_OF_THREAD O_EXCL

static struct kernel_profile profile;

static void skip(const char *what) {
    printf("as-kernel: skipped: %s: %s\n", what, strerror(errno));
    exit(77);
}

static void require(bool condition, const char *what) {
    if (!condition)
        skip(what);
}

/* ---- files ---- */

/* The entry of /dev at the same place under the new one. */
static void carry(const char *name, const char *to) {
    char from[300], at[300], target[256];
    struct stat st;

    snprintf(from, sizeof(from), "/dev/%.200s", name);
    snprintf(at, sizeof(at), "%s/%.200s", to, name);
    if (lstat(from, &st) < 0)
        return;
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(from, target, sizeof(target) - 1);

        target[n > 0 ? n : 0] = '\0';
        require(symlink(target, at) == 0, at);
        return;
    }
    if (S_ISDIR(st.st_mode))
        require(mkdir(at, 0755) == 0, at);
    else
        require(mknod(at, S_IFREG | 0644, 0) == 0, at);
    require(mount(from, at, NULL, MS_BIND | MS_REC, NULL) == 0, at);
}

/* A new /dev that has all but one. */
static void hide_device(const char *name) {
    char at[] = "/tmp/as-kernel-XXXXXX";
    struct dirent *entry;
    DIR *dir = opendir("/dev");

    require(dir && mkdtemp(at) && mount("none", at, "tmpfs", 0, "mode=755") == 0, "/dev");
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && strcmp(entry->d_name, name) != 0)
            carry(entry->d_name, at);
    closedir(dir);
    require(mount(at, "/dev", NULL, MS_MOVE, NULL) == 0 && rmdir(at) == 0, "/dev");
}

static void hide_files(void) {
    bool psi = !kernel_profile_has_psi(&profile) && access("/proc/pressure", F_OK) == 0;
    bool device = !kernel_profile_has_uffd_device(&profile) && access("/dev/userfaultfd", F_OK) == 0;

    if (!psi && !device)
        return;
    require(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
            "hiding files takes CAP_SYS_ADMIN");
    if (psi)
        require(mount("none", "/proc/pressure", "tmpfs", MS_RDONLY, "mode=555") == 0, "/proc/pressure");
    if (device)
        hide_device("userfaultfd");
}

/* execve(2) gives root what the bounding set allows. */
static void forget_capabilities(void) {
    int last = kernel_profile_last_capability(&profile);

    for (int capability = last + 1; last >= 0 && prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        require(prctl(PR_CAPBSET_DROP, capability) == 0 || geteuid() != 0, "capabilities");
}

/* ---- answers ---- */

static int open_thread(pid_t tid) {
    int fd = (int)syscall(SYS_pidfd_open, tid, PIDFD_OF_THREAD);

    return fd < 0 ? (int)syscall(SYS_pidfd_open, tid, 0) : fd;
}

static bool memory_get(pid_t tid, uint64_t address, void *data, size_t size) {
    struct iovec here = {data, size}, there = {(void *)(uintptr_t)address, size};

    return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

static bool memory_put(pid_t tid, uint64_t address, void *data, size_t size) {
    struct iovec here = {data, size}, there = {(void *)(uintptr_t)address, size};

    return process_vm_writev(tid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* Made by us, on the same open file. 0 or negative errno. */
static int answer_uffd_api(const struct seccomp_notif *call) {
    uint64_t known = kernel_profile_uffd_features(&profile);
    int thread = open_thread((pid_t)call->pid), fd = -1, r = 0;
    struct uffdio_api api;

    if (thread >= 0)
        fd = (int)syscall(SYS_pidfd_getfd, thread, (int)call->data.args[0], 0);
    if (fd < 0)
        r = -errno;
    else if (!memory_get((pid_t)call->pid, call->data.args[2], &api, sizeof(api)))
        r = -EFAULT;
    else if (api.features & ~known || ioctl(fd, UFFDIO_API, &api) < 0) {
        r = api.features & ~known ? -EINVAL : -errno;
        memset(&api, 0, sizeof(api));
    } else
        api.features &= known;
    if (fd >= 0 && r != -EFAULT && !memory_put((pid_t)call->pid, call->data.args[2], &api, sizeof(api)))
        r = -EFAULT;
    if (fd >= 0)
        close(fd);
    if (thread >= 0)
        close(thread);
    return r;
}

/* A refused operation is EACCES then, where such a kernel says EINVAL. */
static int make_ring(unsigned entries, struct io_uring_params *params) {
    struct io_uring_restriction restrictions[32] = {{0}};
    unsigned n = 0;
    int fd;

    params->flags |= IORING_SETUP_R_DISABLED;
    fd = (int)syscall(SYS_io_uring_setup, entries, params);
    params->flags &= ~IORING_SETUP_R_DISABLED;
    if (fd < 0)
        return -errno;
    for (int op = 0; op <= kernel_profile_last_uring_op(&profile); op++)
        restrictions[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = (uint8_t)op};
    for (int op = IORING_REGISTER_BUFFERS; op <= IORING_UNREGISTER_EVENTFD; op++)
        restrictions[n++] =
            (struct io_uring_restriction){.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = (uint8_t)op};
    if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_RESTRICTIONS, restrictions, n) < 0 ||
        syscall(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0) {
        close(fd);
        return -ENOSYS;
    }
    return fd;
}

/* The number of the descriptor there, or negative errno. */
static int answer_uring_setup(int listener, const struct seccomp_notif *call) {
    struct seccomp_notif_addfd add = {.id = call->id, .newfd_flags = O_CLOEXEC};
    struct io_uring_params params;
    int fd, r;

    if (!memory_get((pid_t)call->pid, call->data.args[1], &params, sizeof(params)))
        return -EFAULT;
    fd = make_ring((unsigned)call->data.args[0], &params);
    if (fd < 0)
        return fd;
    add.srcfd = (uint32_t)fd;
    r = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
    if (r < 0)
        r = -errno;
    else if (!memory_put((pid_t)call->pid, call->data.args[1], &params, sizeof(params)))
        r = -EFAULT;
    close(fd);
    return r;
}

static void answer(int listener) {
    struct seccomp_notif call = {0};
    struct seccomp_notif_resp response = {0};
    int r;

    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
        return; /* who asked is gone */
    r = call.data.nr == SYS_ioctl ? answer_uffd_api(&call) : answer_uring_setup(listener, &call);
    response.id = call.id;
    response.val = r > 0 ? r : 0;
    response.error = r < 0 ? r : 0;
    (void)!ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

/* ---- the program ---- */

static void run(int socket, char **argv) {
    struct filter_rule rules[KERNEL_RULES_MAX];
    size_t n = kernel_profile_rules(&profile, rules);
    int listener, r;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    hide_files();
    forget_capabilities();
    r = filter_install(rules, n, &listener);
    if (r < 0 || channel_send(socket, "f", 1, &listener, 1, 0) != CHANNEL_OK) {
        fprintf(stderr, "as-kernel: no filter: %s\n", strerror(-r));
        exit(126);
    }
    /* How long anything takes says nothing then: each call goes through the rules. */
    setenv("DROPPABLE_AS_KERNEL", "1", 1);
    execvp(argv[0], argv);
    fprintf(stderr, "as-kernel: %s: %s\n", argv[0], strerror(errno));
    exit(127);
}

static int supervise(int listener, pid_t pid) {
    struct pollfd events[2] = {{.fd = listener, .events = POLLIN},
                               {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN}};
    int status;

    while (poll(events, 2, -1) > 0 && !events[1].revents)
        if (events[0].revents & POLLIN)
            answer(listener);
    if (waitpid(pid, &status, 0) != pid)
        return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static unsigned running_version(void) {
    struct utsname name;
    unsigned major = 0, minor = 0;

    if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2)
        return 0;
    return KERNEL(major, minor);
}

int main(int argc, char *argv[]) {
    struct channel_packet packet;
    int pair[2], status, outcome;
    pid_t pid;

    if (argc < 4 || !kernel_profile_parse(argv[1], &profile) || strcmp(argv[2], "--") != 0) {
        fprintf(stderr,
                "usage: as-kernel VERSION[-userfaultfd][-io_uring][-psi][-mounts][-docker] -- PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    if (profile.version > running_version()) {
        printf("as-kernel: skipped: this kernel is older\n");
        return 77;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return 126;
    pid = fork();
    if (pid < 0)
        return 126;
    if (pid == 0)
        run(pair[1], argv + 3);
    close(pair[1]);
    outcome = channel_receive(pair[0], &packet, 0);
    if (outcome == CHANNEL_OK && packet.n_fds == 1)
        return supervise(packet.fds[0], pid);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
