/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CGROUP_H
#define DROPPABLE_DAEMON_CGROUP_H

/*
 * Reads memory control groups, v1 and v2, and /proc/meminfo. Engine without loop, threads or logging; roots are injectable for tests.
 * A struct cgroup holds open descriptors of one directory's files and is read with pread(2) only: 0.7 us for a usage.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CGROUP_NO_LIMIT UINT64_MAX

struct cgroup_roots {
    const char *proc;   /* "/proc" */
    const char *cgroup; /* prefix put before the mount points that <proc>/self/mountinfo names; "" on a real system */
};
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

struct cgroup;
/* Opens the directory's files. -ENOENT: it is gone. The root of a hierarchy has no limit: opens fine, reads CGROUP_NO_LIMIT. */
int cgroup_new(struct cgroup **ret, int version, const char *mount, const char *path);
struct cgroup *cgroup_free(struct cgroup *cgroup);

struct cgroup_look {
    uint64_t limit; /* v2: memory.max; v1: memory.limit_in_bytes; huge values are CGROUP_NO_LIMIT */
    uint64_t high;  /* v2: memory.high, else CGROUP_NO_LIMIT */
    uint64_t usage;
    uint64_t headroom;      /* until limit, where it costs a life: see cgroup_headroom(); CGROUP_NO_LIMIT without one */
    uint64_t headroom_high; /* until high, where it costs stall; CGROUP_NO_LIMIT without one */
    bool stat_read;         /* memory.stat was needed */
};
/*
 * One look. memory.stat is read only when limit - usage or high - usage is under stat_below. Limits are reread each time (they are cheap and change).
 * -ENODEV: the cgroup was removed.
 */
int cgroup_read(struct cgroup *cgroup, uint64_t stat_below, struct cgroup_look *ret);

struct cgroup_stat {
    uint64_t inactive_file; /* v1: total_inactive_file */
    uint64_t active_file;   /* v1: total_active_file */
    uint64_t slab_reclaimable;
};
/* Pure parsers, for tests and fuzzers. text need not be NUL-terminated. */
int cgroup_parse_stat(const char *text, size_t size, int version, struct cgroup_stat *ret);
int cgroup_parse_value(const char *text, size_t size,
                       uint64_t *ret); /* "max" -> CGROUP_NO_LIMIT; v1's PAGE_COUNTER_MAX likewise */
/* limit - usage + inactive_file + active_file / 2 + slab, saturating, at most limit. */
uint64_t cgroup_headroom(uint64_t limit, uint64_t usage, const struct cgroup_stat *stat);

/* /proc/meminfo, kept open. */
struct meminfo {
    int fd;
};
int meminfo_init(struct meminfo *meminfo, const struct cgroup_roots *roots);
void meminfo_deinit(struct meminfo *meminfo);
int meminfo_read(struct meminfo *meminfo, uint64_t *ret_total, uint64_t *ret_available);
int meminfo_parse(const char *text, size_t size, uint64_t *ret_total, uint64_t *ret_available);

#endif
