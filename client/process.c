/* SPDX-License-Identifier: MIT */

/*
 * Whether a process lives of which only the number was kept, and the inode of a pidfd that is closed by now. tgkill(2) finds one that has ended for as long as its
 * parent does not wait for it, in some containers for ever, and whoever has its number by now. A pidfd, opened for the moment, tells the end of all threads; since
 * Linux 6.9 it has an inode of its own, the same each time, which no process has that comes later. Not by /proc, which may be another pid namespace's: that is asked only where a wrong answer makes us wait less, as ever.
 *
 * No lock, and so not the fork handler's: a child that is forked in that moment has the descriptor, too, until it executes something.
 */

#include "process.h"

#include "cancel.h"
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

bool process_has_ended(pid_t pid, uint64_t inode) {
    NOT_CANCELLED; /* with the descriptor */
    struct pollfd process = {.events = POLLIN};
    struct object object;
    bool ended;

    if (pid <= 0)
        return false;
    if (syscall(SYS_tgkill, pid, pid, 0) < 0 && errno == ESRCH) /* another process's thread has the number */
        return true;
    process.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process.fd < 0) /* before Linux 5.3, or there is no descriptor to be had: then it lives */
        return errno == ESRCH;
    object_note(process.fd, &object);
    ended = poll(&process, 1, 0) > 0 && process.revents & POLLIN;
    ended |= inode != 0 && object.inode != 0 && object.inode != inode;
    object_close(&process.fd, &object);
    return ended;
}

bool process_may_serve(pid_t pid, uint64_t inode) {
    NOT_CANCELLED;
    static const char name[] = "(droppabled) ";
    char path[32], stat[64] = "", *at;
    ssize_t n;
    int fd;

    if (pid <= 0 || process_has_ended(pid, inode))
        return false;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fork_lock();
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, stat, sizeof(stat) - 1) : -1;
    if (fd >= 0)
        close(fd);
    fork_unlock();
    if (n <= 0)
        return true;
    at = strstr(stat, name);
    return at && at[sizeof(name) - 1] != 'Z' && at[sizeof(name) - 1] != 'X';
}
