/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups and /proc/meminfo, read only: descriptors of one directory's files, read again and again with pread(2) into
 * the stack. The directory's own descriptor stays open, too: what is opened later is of this group, and not of one that was made
 * with the same name after it; and it tells whether the group is still there.
 */

#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OVERCOMMIT_NEVER 2
#define STAT_BUFFER (16 * 1024)                     /* memory.stat has 1.5 to 3 KiB */
#define UNLIMITED_FROM UINT64_C(0x7fffffffffff0000) /* v1's PAGE_COUNTER_MAX with 64 KiB pages, the least there is */

int cgroup_open_path(int flags, const char *format, ...) {
    char *path;
    va_list args;
    int fd;

    va_start(args, format);
    fd = vasprintf(&path, format, args);
    va_end(args);
    if (fd < 0)
        return -ENOMEM;
    fd = open(path, flags | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    free(path);
    return fd;
}

/* ---- parsers of numbers ---- */

/* A piece of a text that ends nowhere with NUL. */
struct piece {
    const char *at;
    size_t size;
};

static bool piece_is(struct piece piece, const char *text) {
    return piece.size == strlen(text) && memcmp(piece.at, text, piece.size) == 0;
}

/* Takes all up to the separator off *rest; the separator goes too. False, and nothing taken, if there is none. */
static bool piece_cut(struct piece *rest, char separator, struct piece *ret) {
    const char *end = rest->size ? memchr(rest->at, separator, rest->size) : NULL;

    if (!end)
        return false;
    *ret = (struct piece){rest->at, (size_t)(end - rest->at)};
    rest->size -= ret->size + 1;
    rest->at = end + 1;
    return true;
}

/* Digits and nothing else. */
static int parse_digits(struct piece text, uint64_t *ret) {
    uint64_t value = 0;

    if (text.size == 0)
        return -EBADMSG;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return -EBADMSG;
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.at[i] - '0'), &value))
            return -EBADMSG;
    }
    *ret = value;
    return 0;
}

int cgroup_parse_value(const char *text, size_t size, uint64_t *ret) {
    struct piece value = {text, size};
    uint64_t number;
    int r;

    if (size > 0 && text[size - 1] == '\n')
        value.size--;
    if (piece_is(value, "max")) {
        *ret = CGROUP_NO_LIMIT;
        return 0;
    }
    r = parse_digits(value, &number);
    if (r < 0)
        return r;
    *ret = number >= UNLIMITED_FROM ? CGROUP_NO_LIMIT : number;
    return 0;
}

/* A line "name value" or "name: value kB" that is looked for. */
struct wanted {
    const char *name;
    uint64_t *value;
    bool required;
    bool seen;
};

/* The number of a line behind its name, in bytes. */
static int parse_amount(struct piece text, uint64_t *ret) {
    uint64_t value;
    uint64_t unit = 1;
    int r;

    while (text.size > 0 && text.at[0] == ' ') {
        text.at++;
        text.size--;
    }
    if (text.size > 3 && memcmp(text.at + text.size - 3, " kB", 3) == 0) {
        text.size -= 3;
        unit = 1024;
    }
    r = parse_digits(text, &value);
    if (r < 0 || __builtin_mul_overflow(value, unit, ret))
        return -EBADMSG;
    return 0;
}

/* The first line of each name counts. A last one without newline does not: a number that was cut off is a wrong one. */
static int parse_lines(const char *text, size_t size, struct wanted *wanted, size_t n) {
    struct piece rest = {text, size};
    struct piece line;

    while (piece_cut(&rest, '\n', &line)) {
        struct piece name;

        if (!piece_cut(&line, ' ', &name))
            continue;
        for (size_t i = 0; i < n; i++) {
            if (wanted[i].seen || !piece_is(name, wanted[i].name))
                continue;
            if (parse_amount(line, wanted[i].value) < 0)
                return -EBADMSG;
            wanted[i].seen = true;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (wanted[i].required && !wanted[i].seen)
            return -EBADMSG;
    return 0;
}

int cgroup_parse_stat(const char *text, size_t size, int version, struct cgroup_stat *ret) {
    struct cgroup_stat stat = {0};
    struct wanted wanted[] = {
        {version == 1 ? "total_inactive_file" : "inactive_file", &stat.inactive_file, true, false},
        {version == 1 ? "total_active_file" : "active_file", &stat.active_file, true, false},
        {"slab_reclaimable", &stat.slab_reclaimable, false, false}, /* v1 does not tell */
    };
    int r;

    r = parse_lines(text, size, wanted, sizeof(wanted) / sizeof(wanted[0]));
    if (r == 0)
        *ret = stat;
    return r;
}

int cgroup_parse_events(const char *text, size_t size, struct cgroup_events *ret) {
    struct cgroup_events events = {0};
    struct wanted wanted[] = {
        {"high", &events.high, true, false},
        {"max", &events.max, true, false},
        {"oom", &events.oom, true, false},
        {"oom_kill", &events.oom_kill, false, false}, /* Linux 4.13 */
    };
    int r;

    r = parse_lines(text, size, wanted, sizeof(wanted) / sizeof(wanted[0]));
    if (r == 0)
        *ret = events;
    return r;
}

int meminfo_parse(const char *text, size_t size, struct meminfo_look *ret) {
    struct meminfo_look look = {0};
    uint64_t commit_limit = UINT64_MAX, committed = 0;
    struct wanted wanted[] = {
        {"MemTotal:", &look.total, true, false},
        {"MemAvailable:", &look.available, true, false},
        {"CommitLimit:", &commit_limit, false, false},
        {"Committed_AS:", &committed, false, false},
    };
    int r;

    r = parse_lines(text, size, wanted, sizeof(wanted) / sizeof(wanted[0]));
    if (r < 0)
        return r;
    look.committable = committed < commit_limit ? commit_limit - committed : 0;
    *ret = look;
    return 0;
}

uint64_t cgroup_headroom(uint64_t limit, uint64_t usage, const struct cgroup_stat *stat) {
    unsigned __int128 room = usage < limit ? limit - usage : 0;
    /* Over the limit: what can be reclaimed pays the excess first. */
    uint64_t excess = usage > limit ? usage - limit : 0;

    if (limit == CGROUP_NO_LIMIT)
        return CGROUP_NO_LIMIT;
    room += stat->inactive_file;
    room += stat->active_file / 2;
    room += stat->slab_reclaimable;
    room = room > excess ? room - excess : 0;
    return room > limit ? limit : (uint64_t)room;
}

/* ---- reading ---- */

enum { FILE_USAGE, FILE_LIMIT, FILE_HIGH, FILE_STAT, FILE_USAGE_SWAP, FILE_LIMIT_SWAP, N_FILES };

struct cgroup {
    int version;
    int directory;
    int fds[N_FILES]; /* -1: there is no such file */
};

/* v2's root has only memory.stat, and before 4.18 not that. v1's of memory and swap are there if the kernel accounts swap (swapaccount=1). */
static const char *const file_names[2][N_FILES] = {
    {"memory.usage_in_bytes", "memory.limit_in_bytes", NULL, "memory.stat", "memory.memsw.usage_in_bytes",
     "memory.memsw.limit_in_bytes"},
    {"memory.current", "memory.max", "memory.high", "memory.stat", NULL, NULL},
};

static bool may_lack(size_t file) {
    return file == FILE_HIGH || file == FILE_USAGE_SWAP || file == FILE_LIMIT_SWAP;
}

struct cgroup *cgroup_free(struct cgroup *cgroup) {
    if (!cgroup)
        return NULL;
    for (size_t i = 0; i < N_FILES; i++)
        if (cgroup->fds[i] >= 0)
            close(cgroup->fds[i]);
    close(cgroup->directory);
    free(cgroup);
    return NULL;
}

bool cgroup_is_shortage(int error) {
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE;
}

static int open_files(struct cgroup *cgroup, bool root) {
    for (size_t i = 0; i < N_FILES; i++) {
        const char *name = file_names[cgroup->version - 1][i];

        if (!name)
            continue;
        cgroup->fds[i] = openat(cgroup->directory, name, O_RDONLY | O_CLOEXEC);
        if (cgroup->fds[i] < 0 && !(errno == ENOENT && (root || may_lack(i))))
            return -errno;
    }
    return 0;
}

int cgroup_new(struct cgroup **ret, int version, const char *mount, const char *path) {
    struct cgroup *cgroup;
    int directory;
    int r;

    if (version != 1 && version != 2)
        return -EINVAL;
    directory = cgroup_open_path(O_PATH | O_DIRECTORY, "%s%s", mount, path);
    if (directory < 0)
        return directory;
    cgroup = malloc(sizeof(*cgroup));
    if (!cgroup) {
        close(directory);
        return -ENOMEM;
    }
    *cgroup = (struct cgroup){.version = version, .directory = directory, .fds = {-1, -1, -1, -1, -1, -1}};
    r = open_files(cgroup, strcmp(path, "/") == 0);
    if (r < 0)
        cgroup_free(cgroup);
    else
        *ret = cgroup;
    return r;
}

int cgroup_directory(const struct cgroup *cgroup) {
    return cgroup->directory;
}

/* v2's root alone has no usage, v1's root alone an agent. */
bool cgroup_is_root(const struct cgroup *cgroup) {
    return cgroup->version == 2 ? cgroup->fds[FILE_USAGE] < 0
                                : faccessat(cgroup->directory, "release_agent", F_OK, 0) == 0;
}

bool cgroup_is_gone(const struct cgroup *cgroup) {
    return cgroup->fds[FILE_USAGE] >= 0 &&
           faccessat(cgroup->directory, file_names[cgroup->version - 1][FILE_USAGE], F_OK, 0) < 0 &&
           (errno == ENOENT || errno == ENODEV);
}

/* ENODEV is what kernfs says when the directory was removed. */
static int read_value(int fd, uint64_t missing, uint64_t *ret) {
    char text[64];
    ssize_t n;

    if (fd < 0) {
        *ret = missing;
        return 0;
    }
    n = pread(fd, text, sizeof(text), 0);
    return n < 0 ? -errno : cgroup_parse_value(text, (size_t)n, ret);
}

static int read_stat(const struct cgroup *cgroup, struct cgroup_stat *ret) {
    char text[STAT_BUFFER];
    ssize_t n = pread(cgroup->fds[FILE_STAT], text, sizeof(text), 0);

    return n < 0 ? -errno : cgroup_parse_stat(text, (size_t)n, cgroup->version, ret);
}

static int read_limits(const struct cgroup *cgroup, const struct cgroup_look *known, struct cgroup_look *look) {
    int r;

    if (known) {
        *look = (struct cgroup_look){.limit = known->limit, .high = known->high, .limit_swap = known->limit_swap};
        return 0;
    }
    r = read_value(cgroup->fds[FILE_LIMIT], CGROUP_NO_LIMIT, &look->limit);
    if (r == 0)
        r = read_value(cgroup->fds[FILE_HIGH], CGROUP_NO_LIMIT, &look->high);
    return r < 0 ? r : read_value(cgroup->fds[FILE_LIMIT_SWAP], CGROUP_NO_LIMIT, &look->limit_swap);
}

static bool is_near(uint64_t limit, uint64_t usage, uint64_t distance) {
    return limit != CGROUP_NO_LIMIT && (usage >= limit || limit - usage < distance);
}

int cgroup_read(struct cgroup *cgroup, uint64_t stat_below, const struct cgroup_look *known, struct cgroup_look *ret) {
    struct cgroup_look look = {0};
    struct cgroup_stat stat = {0};
    uint64_t usage_swap = 0, headroom_swap;
    int r;

    r = read_limits(cgroup, known, &look);
    if (r == 0)
        r = read_value(cgroup->fds[FILE_USAGE], 0, &look.usage);
    if (r == 0 && look.limit_swap != CGROUP_NO_LIMIT)
        r = read_value(cgroup->fds[FILE_USAGE_SWAP], 0, &usage_swap);
    if (r < 0)
        return r;
    look.stat_read = is_near(look.limit, look.usage, stat_below) || is_near(look.high, look.usage, stat_below) ||
                     is_near(look.limit_swap, usage_swap, stat_below);
    if (look.stat_read)
        r = read_stat(cgroup, &stat);
    look.headroom = cgroup_headroom(look.limit, look.usage, &stat);
    /* What was swapped counts there still, and cannot be swapped once more. */
    headroom_swap = cgroup_headroom(look.limit_swap, usage_swap, &stat);
    look.headroom = headroom_swap < look.headroom ? headroom_swap : look.headroom;
    look.headroom_high = cgroup_headroom(look.high, look.usage, &stat);
    if (r == 0)
        *ret = look;
    return r;
}

/* A sysctl(8) of memory; 0: there is none. */
static uint64_t read_sysctl(const struct cgroup_roots *roots, const char *name) {
    int fd = cgroup_open_path(O_RDONLY, "%s/sys/vm/%s", roots->proc, name);
    uint64_t value;

    if (fd < 0)
        return 0;
    if (read_value(fd, 0, &value) < 0)
        value = 0;
    close(fd);
    return value;
}

int meminfo_init(struct meminfo *meminfo, const struct cgroup_roots *roots) {
    int fd = cgroup_open_path(O_RDONLY, "%s/meminfo", roots->proc);

    if (fd < 0)
        return fd;
    meminfo->fd = fd;
    meminfo->mode_fd = cgroup_open_path(O_RDONLY, "%s/sys/vm/overcommit_memory", roots->proc);
    meminfo->unused = (read_sysctl(roots, "admin_reserve_kbytes") + read_sysctl(roots, "user_reserve_kbytes")) * 1024;
    return 0;
}

void meminfo_deinit(struct meminfo *meminfo) {
    if (meminfo->fd >= 0)
        close(meminfo->fd);
    if (meminfo->mode_fd >= 0)
        close(meminfo->mode_fd);
    meminfo->fd = meminfo->mode_fd = -1;
}

/* Documentation/mm/overcommit-accounting.rst: each page of shared memory counts, and is refused beyond the limit, which the kernel says by SIGBUS. */
static bool is_commit_limited(const struct meminfo *meminfo) {
    uint64_t mode;

    return meminfo->mode_fd >= 0 && read_value(meminfo->mode_fd, 0, &mode) == 0 && mode == OVERCOMMIT_NEVER;
}

int meminfo_read(struct meminfo *meminfo, struct meminfo_look *ret) {
    char text[STAT_BUFFER];
    ssize_t n = pread(meminfo->fd, text, sizeof(text), 0);
    int r;

    r = n < 0 ? -errno : meminfo_parse(text, (size_t)n, ret);
    if (r < 0)
        return r;
    if (!is_commit_limited(meminfo))
        ret->committable = UINT64_MAX;
    else
        ret->committable = ret->committable > meminfo->unused ? ret->committable - meminfo->unused : 0;
    return 0;
}
