/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PROCESS_H
#define DROPPABLE_DAEMON_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

struct ucred;

/*
 * A handle of a socket's peer, of whom SO_PEERCRED says that: its pidfd, before Linux 5.3 its folder in /proc. A descriptor, which is the caller's,
 * -ESRCH: it has ended, or somebody else has its number; or negative errno.
 */
int process_of_peer(int socket, const struct ucred *peer);
/* Has all of it ended? */
bool process_ended(int handle);
/* Can an event loop wait for its end? */
bool process_can_be_polled(int handle);
/* SIGKILL. */
void process_kill(pid_t pid, int handle);

/* /proc/PID/NAME, certainly of the process of the handle. A descriptor, -ESRCH, or negative errno. */
int process_open(pid_t pid, int handle, const char *name);

#endif
