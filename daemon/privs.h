/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PRIVS_H
#define DROPPABLE_DAEMON_PRIVS_H

/*
 * Keeps the capabilities that are used after start, each with its reason, and proves that the rest cannot come back.
 * Called by main while there is one thread, after kernel_init() made what needs more.
 */

#include <stdbool.h>
#include <stddef.h>

/*
 * Drops: effective and permitted set to what is both had and in the kept list (CAP_SYS_PTRACE: /proc/PID/maps of clients of other users;
 * CAP_SYS_RESOURCE: PSI triggers of cgroups, as root; CAP_SYS_NICE: the sampler's SCHED_FIFO; CAP_KILL: ending a stuck client by pidfd; with
 * locks, that is where segments are locked, CAP_CHECKPOINT_RESTORE, and CAP_IPC_LOCK unless RLIMIT_MEMLOCK is unlimited), inheritable and
 * ambient empty, the bounding set likewise, no_new_privs on, not dumpable. Then proves: reads the sets back, tries to take a dropped
 * capability again. As an ordinary user without capabilities: no_new_privs only.
 * ret_text: "cap_sys_ptrace,cap_sys_nice" or "none", for the log. 0, or negative errno (the daemon must not go on).
 */
int privs_drop(bool locks, char *ret_text, size_t size);

#endif
