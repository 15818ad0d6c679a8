/* SPDX-License-Identifier: MIT */

/*
 * Whether a process lives of which only the number was kept, and the inode of a pidfd that is closed by now. kill(2) finds one that has ended for as long as its
 * parent does not wait for it, in some containers for ever, and whoever has its number by now. A pidfd, opened for the moment, tells the end of all threads; since
 * Linux 6.9 it has an inode of its own, the same each time, which no process has that comes later. Not by /proc, which may be another pid namespace's.
 *
 * No lock, and so not the fork handler's: a child that is forked in that moment has the descriptor, too, until it executes something.
 */

#include "process.h"

#include "cancel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool process_has_ended(pid_t pid, uint64_t inode) {
    NOT_CANCELLED; /* with the descriptor */
    struct pollfd process = {.events = POLLIN};
    struct stat st;
    bool ended;

    if (pid <= 0)
        return false;
    if (kill(pid, 0) < 0 && errno == ESRCH)
        return true;
    process.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process.fd < 0) /* before Linux 5.3, or there is no descriptor to be had: then it lives */
        return errno == ESRCH;
    ended = poll(&process, 1, 0) > 0 && process.revents & POLLIN;
    ended |= inode != 0 && fstat(process.fd, &st) == 0 && st.st_ino != inode;
    close(process.fd);
    return ended;
}
