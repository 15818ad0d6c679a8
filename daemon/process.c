/* SPDX-License-Identifier: MIT */
/*
 * Other processes, by a descriptor that never becomes another one's, as a number does: a pidfd, or where there are none (before Linux 5.3) the process's
 * folder in /proc, opened. Files in that are ESRCH when the process has been reaped, whoever has its number then; but there is no event of
 * its end, so it is looked for from time to time.
 */

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static int open_folder(pid_t pid) {
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    return fd;
}

static int open_number(pid_t pid) {
    int handle;

    if (pid <= 0)
        return -ESRCH;
    handle = (int)syscall(SYS_pidfd_open, pid, 0);
    if (handle < 0)
        return errno == ENOSYS ? open_folder(pid) : -errno;
    return handle;
}

/* Is its effective user another one than it connected as? Who cannot be looked at is believed. */
static bool is_of_another_user(pid_t pid, int handle, uid_t uid) {
    int fd = process_open(pid, handle, "status");
    char text[1024];
    const char *at;
    unsigned now;
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    at = strstr(text, "\nUid:"); /* a name has no line breaks there */
    return at && sscanf(at, "\nUid: %*u %u", &now) == 1 && now != uid;
}

/*
 * Before Linux 6.5 there is the number alone, and whoever wants to be taken for another process ends, leaves its socket to a child, and waits until the
 * other one is given its number. That it is at least one of the same user can be seen: what such a one may be taken for is not more than
 * its user could do to it anyway. Who becomes another user just after connect(2), or with one of several threads alone, is refused, and connects again.
 */
int process_of_peer(int socket, const struct ucred *peer) {
    int handle = -1;
    socklen_t size = sizeof(handle);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &handle, &size) == 0)
        return handle;
    if (errno != ENOPROTOOPT) /* ENODATA, EINVAL or ESRCH: the peer is gone */
        return -errno;
    handle = open_number(peer->pid);
    if (handle >= 0 && is_of_another_user(peer->pid, handle, peer->uid)) {
        close(handle);
        return -ESRCH;
    }
    return handle;
}

/* What poll(2) says of a file is that it can be written; of a pidfd it never does. */
bool process_can_be_polled(int handle) {
    struct pollfd entry = {.fd = handle, .events = POLLOUT};

    return poll(&entry, 1, 0) == 0 || !(entry.revents & POLLOUT);
}

/* A zombie has ended when no other of its threads is left. */
static bool folder_ended(int folder) {
    char text[512], state, *end;
    int fd = openat(folder, "stat", O_RDONLY | O_CLOEXEC), threads;
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT || errno == ESRCH;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return n < 0 && errno == ESRCH;
    text[n] = '\0';
    end = strrchr(text, ')'); /* of the name, in which anything may be */
    if (!end || sscanf(end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d", &state,
                       &threads) != 2)
        return false;
    return strchr("ZXx", state) && threads <= 1;
}

bool process_ended(int handle) {
    struct pollfd entry = {.fd = handle, .events = POLLIN | POLLOUT};

    if (poll(&entry, 1, 0) <= 0)
        return false;
    return entry.revents & POLLOUT ? folder_ended(handle) : true;
}

void process_kill(pid_t pid, int handle) {
    if (syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0) < 0 && errno == ENOSYS && !process_ended(handle))
        (void)kill(pid, SIGKILL); /* before Linux 5.1 */
}

int process_open(pid_t pid, int handle, const char *name) {
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (!process_ended(handle)) /* alive still after it was opened */
        return fd;
    close(fd);
    return -ESRCH;
}
