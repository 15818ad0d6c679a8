/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CGROUP_PLACE_H
#define DROPPABLE_DAEMON_CGROUP_PLACE_H

/* Finds the memory cgroup of a process. Without loop, threads or logging; roots are injectable for tests. */

#include "cgroup.h"

extern const struct cgroup_roots cgroup_real_roots;

/* Where a process is charged. */
struct cgroup_place {
    int version; /* 1 or 2 */
    char *mount; /* directory where the hierarchy is mounted, as this process sees it (prefix included); owned */
    char *path;  /* below it, "/" for the root, "/a/b" without a slash at the end; owned */
};
void cgroup_place_deinit(struct cgroup_place *place);
/*
 * Finds the memory cgroup of a process: the v1 memory hierarchy if it is mounted and has the controller, else v2. Honours the mount's root
 * (mountinfo field 4) and its escapes (\040). -ENOENT: process gone; -EOPNOTSUPP: no memory controller; -EBADMSG: malformed.
 */
int cgroup_locate(const struct cgroup_roots *roots, pid_t pid, struct cgroup_place *ret);
/* The parent's path ("/a/b" -> "/a" -> "/"), malloc'd; *ret = NULL for "/". */
int cgroup_parent_path(const char *path, char **ret);

#endif
