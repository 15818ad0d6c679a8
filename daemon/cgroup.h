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

/* open(2) with O_CLOEXEC. A descriptor, or negative errno. */
__attribute__((format(printf, 2, 3))) int cgroup_open_path(int flags, const char *format, ...);

/* Is this for want of memory or descriptors, so that it may be tried again? Says nothing about the cgroup. */
bool cgroup_is_shortage(int error);

struct cgroup;
/* Opens the directory's files. -ENOENT: it is gone. The root of a hierarchy has no limit: opens fine, reads CGROUP_NO_LIMIT. */
int cgroup_new(struct cgroup **ret, int version, const char *mount, const char *path);
struct cgroup *cgroup_free(struct cgroup *cgroup);
/* Its directory, O_PATH; borrowed. */
int cgroup_directory(const struct cgroup *cgroup);
/* The kernel's root, and not just the topmost that a container sees? What it holds is all of the machine. */
bool cgroup_is_root(const struct cgroup *cgroup);
/* Was it removed, or the controller taken from it? What is made later under the same name is another one. */
bool cgroup_is_gone(const struct cgroup *cgroup);

struct cgroup_look {
    uint64_t limit;      /* v2: memory.max; v1: memory.limit_in_bytes; huge values are CGROUP_NO_LIMIT */
    uint64_t high;       /* v2: memory.high, else CGROUP_NO_LIMIT */
    uint64_t limit_swap; /* v1: memory.memsw.limit_in_bytes, of memory and swap together; else CGROUP_NO_LIMIT */
    uint64_t usage;
    uint64_t headroom; /* until a limit, where it costs a life: see cgroup_headroom(); CGROUP_NO_LIMIT without one */
    uint64_t headroom_high; /* until high, where it costs stall; CGROUP_NO_LIMIT without one */
    bool stat_read;         /* memory.stat was needed */
};
/*
 * One look. memory.stat is read only when limit - usage or high - usage is under stat_below. known: a look not long ago, whose limits are taken
 * instead of reading them; NULL: they are read. -ENODEV: the cgroup was removed.
 */
int cgroup_read(struct cgroup *cgroup, uint64_t stat_below, const struct cgroup_look *known, struct cgroup_look *ret);

struct cgroup_stat {
    uint64_t inactive_file; /* v1: total_inactive_file */
    uint64_t active_file;   /* v1: total_active_file */
    uint64_t slab_reclaimable;
};
/* v2 memory.events, v2 memory.events.local: counts since the cgroup was made. */
struct cgroup_events {
    uint64_t high;     /* memory.high was crossed, and somebody was slowed down for it */
    uint64_t max;      /* memory.max was about to be crossed */
    uint64_t oom;      /* reclaim there did not help */
    uint64_t oom_kill; /* processes of it that the kernel ended */
};
/* Pure parsers, for tests and fuzzers. text need not be NUL-terminated. */
int cgroup_parse_stat(const char *text, size_t size, int version, struct cgroup_stat *ret);
int cgroup_parse_events(const char *text, size_t size, struct cgroup_events *ret);
int cgroup_parse_value(const char *text, size_t size,
                       uint64_t *ret); /* "max" -> CGROUP_NO_LIMIT; v1's PAGE_COUNTER_MAX likewise */
/* limit - usage + inactive_file + active_file / 2 + slab, saturating, at most limit. */
uint64_t cgroup_headroom(uint64_t limit, uint64_t usage, const struct cgroup_stat *stat);

/* /proc/meminfo, and how the kernel overcommits, kept open. */
struct meminfo {
    int fd;
    int mode_fd;     /* /proc/sys/vm/overcommit_memory; -1: there is none */
    uint64_t unused; /* bytes that the kernel keeps from programs where it does not overcommit */
};
struct meminfo_look {
    uint64_t total, available;
    uint64_t committable; /* until CommitLimit; UINT64_MAX where that is no limit */
};
int meminfo_init(struct meminfo *meminfo, const struct cgroup_roots *roots);
void meminfo_deinit(struct meminfo *meminfo);
int meminfo_read(struct meminfo *meminfo, struct meminfo_look *ret);
/* As if it was a limit. */
int meminfo_parse(const char *text, size_t size, struct meminfo_look *ret);

#endif
