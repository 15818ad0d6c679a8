/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PSI_H
#define DROPPABLE_DAEMON_PSI_H

/* Triggers of the kernel's pressure stall information: of /proc/pressure/memory, and of a v2 cgroup's memory.pressure. */

#include <stdbool.h>

enum psi_level {
    PSI_SOME, /* early: some tasks stall */
    PSI_FULL, /* severe: all tasks that could run stall */
};

/*
 * Opens the file, below a directory unless its path is absolute, and sets a trigger: a descriptor to poll for POLLPRI, or negative errno. -ENOENT or
 * -EOPNOTSUPP: this kernel has no PSI, or it is off. *ret_short: the window is under 2 s, which takes CAP_SYS_RESOURCE.
 */
int psi_open(int directory, const char *path, enum psi_level level, bool *ret_short);

#endif
