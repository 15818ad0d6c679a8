/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups and /proc/meminfo, read only.
 *
 * Two halves. cgroup_locate() works on two text files, <proc>/self/mountinfo and <proc>/PID/cgroup, and tells where a
 * process is charged; it is the only part that allocates much, and runs once per client. struct cgroup is the other
 * half: descriptors of one directory's files, read again and again with pread(2) into the stack.
 *
 * A path of /proc/PID/cgroup counts from the root of the hierarchy (as far as our cgroup namespace shows it), while a
 * mount may show only a part of it, named in mountinfo's field 4, as in containers without a cgroup namespace. So the
 * mount's root is taken off the path; a path that does not lie below it, or that leads out of our namespace ("/.."),
 * cannot be read from here. Of several mounts of a hierarchy the one that shows most is taken, as limits of ancestors
 * count.
 *
 * On hybrid hosts the memory controller belongs to one hierarchy at a time: v1 if it is mounted there, and the v2 tree
 * then lacks it in cgroup.controllers. Charged is the nearest ancestor that has the controller: v2 can end it on the
 * way down, and a group that was removed under its processes ("... (deleted)") is charged to its parent.
 */

#define _GNU_SOURCE

#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAT_BUFFER (16 * 1024)                     /* memory.stat has 1.5 to 3 KiB */
#define UNLIMITED_FROM UINT64_C(0x7fffffffffff0000) /* v1's PAGE_COUNTER_MAX with 64 KiB pages, the least there is */

const struct cgroup_roots cgroup_real_roots = {.proc = "/proc", .cgroup = ""};

/* The two hierarchies that can hold the memory controller, as one process sees them. Text of others' buffers. */
struct hierarchy {
    const char *path; /* of the process; NULL: it is in none */
    const char *root; /* of the mount that shows path and most above it; NULL: there is none */
    const char *point;
};

__attribute__((format(printf, 2, 3))) static int open_path(int flags, const char *format, ...) {
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

/* Reads a file of text to its end, malloc'd; NULL if empty. Consumes fd, which may be an error of open_path(). */
static int read_text(int fd, char **ret) {
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    size_t capacity = 0;
    char *text = NULL;
    int r = 0;

    if (fd < 0)
        return fd;
    if (!file) {
        close(fd);
        return -ENOMEM;
    }
    if (getdelim(&text, &capacity, '\0', file) < 0) {
        r = !ferror(file) ? 0 : errno == ESRCH ? -ENOENT : -errno; /* ESRCH: the process ended after open(2) */
        free(text);
        text = NULL;
    }
    fclose(file);
    if (r == 0)
        *ret = text;
    return r;
}

/* Is word among the words of list, which may be NULL? Destroys the list. */
static bool take_word(char *list, const char *separator, const char *word) {
    const char *item;

    while ((item = strsep(&list, separator)))
        if (strcmp(item, word) == 0)
            return true;
    return false;
}

/* ---- /proc/PID/cgroup and /proc/self/mountinfo; both are taken apart in place ---- */

/* Lines "4:memory:/path" of v1, "0::/path" of v2. The path is the rest of the line, whatever is in it. */
static int parse_membership(char *text, struct hierarchy *ret_v1, struct hierarchy *ret_v2) {
    char *line;

    while ((line = strsep(&text, "\n"))) {
        const char *id;
        char *controllers;

        if (!*line)
            continue;
        id = strsep(&line, ":");
        controllers = strsep(&line, ":");
        if (!line || line[0] != '/')
            return -EBADMSG;
        if (strcmp(id, "0") == 0 && !*controllers)
            ret_v2->path = line;
        else if (take_word(controllers, ",", "memory"))
            ret_v1->path = line;
    }
    return 0;
}

/* Resolves \ooo in place. */
static void unescape(char *text) {
    char *to = text;

    for (const char *p = text; *p; p++) {
        if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' && p[3] <= '7') {
            *to++ = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
            p += 3;
        } else {
            *to++ = *p;
        }
    }
    *to = '\0';
}

/* What of path lies below root, "/" at least; NULL if path is elsewhere. */
static const char *below_root(const char *path, const char *root) {
    size_t length = strlen(root);

    if (strcmp(root, "/") == 0)
        return path;
    if (strncmp(path, root, length) != 0)
        return NULL;
    if (path[length] == '\0')
        return "/";
    return path[length] == '/' ? path + length : NULL;
}

/* Of mounts that show the same, the later one counts: it covers the earlier. */
static void offer_mount(struct hierarchy *hierarchy, char *root, char *point) {
    if (!hierarchy->path)
        return;
    unescape(root);
    unescape(point);
    if (!below_root(hierarchy->path, root))
        return;
    if (hierarchy->root && strlen(hierarchy->root) < strlen(root))
        return;
    hierarchy->root = root;
    hierarchy->point = point;
}

/* Lines "36 35 98:0 /root /point rw,noatime shared:1 ... - type source options", optional fields before the "-". */
static int parse_mountinfo(char *text, struct hierarchy *v1, struct hierarchy *v2) {
    char *line;

    while ((line = strsep(&text, "\n"))) {
        char *fields[6];
        const char *field;
        const char *type;

        if (!*line)
            continue;
        for (size_t i = 0; i < 6; i++)
            fields[i] = strsep(&line, " ");
        do
            field = strsep(&line, " ");
        while (field && strcmp(field, "-") != 0);
        type = strsep(&line, " ");
        strsep(&line, " "); /* the source */
        if (!line)
            return -EBADMSG;
        if (strcmp(type, "cgroup2") == 0)
            offer_mount(v2, fields[3], fields[4]);
        else if (strcmp(type, "cgroup") == 0 && take_word(line, ",", "memory"))
            offer_mount(v1, fields[3], fields[4]);
    }
    return 0;
}

/* ---- the place of a process ---- */

void cgroup_place_deinit(struct cgroup_place *place) {
    free(place->mount);
    free(place->path);
    place->mount = NULL;
    place->path = NULL;
}

int cgroup_parent_path(const char *path, char **ret) {
    const char *slash;
    char *parent;

    if (path[0] != '/')
        return -EINVAL;
    if (path[1] == '\0') {
        *ret = NULL;
        return 0;
    }
    slash = strrchr(path, '/');
    parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    if (!parent)
        return -ENOMEM;
    *ret = parent;
    return 0;
}

/* Out of our cgroup namespace. */
static bool has_dotdot(const char *path) {
    for (const char *p = path; (p = strstr(p, "/..")); p++)
        if (p[3] == '/' || p[3] == '\0')
            return true;
    return false;
}

/* 1 or 0: is <mount><path>/<file> there? */
static int place_has(const struct cgroup_place *place, const char *file) {
    int fd = open_path(O_PATH, "%s%s/%s", place->mount, place->path, file);

    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 1 : fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
}

/* Goes up until there is a group that is charged. */
static int climb(struct cgroup_place *place) {
    static const char suffix[] = " (deleted)";
    const char *file = place->version == 1 ? "memory.usage_in_bytes" : "memory.current";
    size_t length = strlen(place->path);
    int r;

    r = place_has(place, file);
    if (r == 0 && length > sizeof(suffix) && strcmp(place->path + length - (sizeof(suffix) - 1), suffix) == 0)
        place->path[length - (sizeof(suffix) - 1)] = '\0';
    while (r == 0 && strcmp(place->path, "/") != 0) {
        char *parent;

        r = cgroup_parent_path(place->path, &parent);
        if (r < 0)
            return r;
        free(place->path);
        place->path = parent;
        r = place_has(place, file);
    }
    return r < 0 ? r : 0;
}

/* Does the unified hierarchy have the memory controller? */
static int v2_has_memory(const char *mount) {
    char *text = NULL;
    int r;

    r = read_text(open_path(O_RDONLY, "%s/cgroup.controllers", mount), &text);
    if (r == 0 && !take_word(text, " \n", "memory"))
        r = -EOPNOTSUPP;
    free(text);
    return r == -ENOENT ? -EOPNOTSUPP : r;
}

static int make_place(const struct cgroup_roots *roots, int version, const struct hierarchy *hierarchy,
                      struct cgroup_place *ret) {
    struct cgroup_place place = {.version = version};
    int r = 0;

    if (has_dotdot(hierarchy->path))
        return -EOPNOTSUPP;
    place.path = strdup(below_root(hierarchy->path, hierarchy->root));
    if (asprintf(&place.mount, "%s%s", roots->cgroup, strcmp(hierarchy->point, "/") == 0 ? "" : hierarchy->point) < 0)
        place.mount = NULL;
    if (!place.path || !place.mount)
        r = -ENOMEM;
    else if (version == 2)
        r = v2_has_memory(place.mount);
    if (r == 0)
        r = climb(&place);
    if (r < 0)
        cgroup_place_deinit(&place);
    else
        *ret = place;
    return r;
}

int cgroup_locate(const struct cgroup_roots *roots, pid_t pid, struct cgroup_place *ret) {
    struct hierarchy v1 = {0};
    struct hierarchy v2 = {0};
    char *groups = NULL;
    char *mounts = NULL;
    int r;

    r = read_text(open_path(O_RDONLY, "%s/%lld/cgroup", roots->proc, (long long)pid), &groups);
    if (r == 0)
        r = parse_membership(groups, &v1, &v2);
    if (r == 0) {
        r = read_text(open_path(O_RDONLY, "%s/self/mountinfo", roots->proc), &mounts);
        r = r == -ENOENT ? -EOPNOTSUPP : r;
    }
    if (r == 0)
        r = parse_mountinfo(mounts, &v1, &v2);
    if (r == 0 && v1.root)
        r = make_place(roots, 1, &v1, ret);
    else if (r == 0)
        r = v2.root ? make_place(roots, 2, &v2, ret) : -EOPNOTSUPP;
    free(groups);
    free(mounts);
    return r;
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

int meminfo_parse(const char *text, size_t size, uint64_t *ret_total, uint64_t *ret_available) {
    uint64_t total;
    uint64_t available;
    struct wanted wanted[] = {
        {"MemTotal:", &total, true, false},
        {"MemAvailable:", &available, true, false},
    };
    int r;

    r = parse_lines(text, size, wanted, sizeof(wanted) / sizeof(wanted[0]));
    if (r == 0) {
        *ret_total = total;
        *ret_available = available;
    }
    return r;
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

enum { FILE_USAGE, FILE_LIMIT, FILE_HIGH, FILE_STAT, N_FILES };

struct cgroup {
    int version;
    int fds[N_FILES]; /* -1: there is no such file */
};

/* v2's root has only the last, and before 4.18 not that. */
static const char *const file_names[2][N_FILES] = {
    {"memory.usage_in_bytes", "memory.limit_in_bytes", NULL, "memory.stat"},
    {"memory.current", "memory.max", "memory.high", "memory.stat"},
};

struct cgroup *cgroup_free(struct cgroup *cgroup) {
    if (!cgroup)
        return NULL;
    for (size_t i = 0; i < N_FILES; i++)
        if (cgroup->fds[i] >= 0)
            close(cgroup->fds[i]);
    free(cgroup);
    return NULL;
}

static int open_files(struct cgroup *cgroup, int directory, bool root) {
    for (size_t i = 0; i < N_FILES; i++) {
        const char *name = file_names[cgroup->version - 1][i];

        if (!name)
            continue;
        cgroup->fds[i] = openat(directory, name, O_RDONLY | O_CLOEXEC);
        if (cgroup->fds[i] < 0 && !(errno == ENOENT && (root || i == FILE_HIGH)))
            return -errno;
    }
    return 0;
}

int cgroup_new(struct cgroup **ret, int version, const char *mount, const char *path) {
    struct cgroup *cgroup;
    int directory;
    int r = 0;

    if (version != 1 && version != 2)
        return -EINVAL;
    directory = open_path(O_PATH | O_DIRECTORY, "%s%s", mount, path);
    if (directory < 0)
        return directory;
    cgroup = malloc(sizeof(*cgroup));
    if (cgroup) {
        *cgroup = (struct cgroup){.version = version, .fds = {-1, -1, -1, -1}};
        r = open_files(cgroup, directory, strcmp(path, "/") == 0);
    } else {
        r = -ENOMEM;
    }
    close(directory);
    if (r < 0)
        cgroup_free(cgroup);
    else
        *ret = cgroup;
    return r;
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

int cgroup_read(struct cgroup *cgroup, uint64_t stat_below, struct cgroup_look *ret) {
    struct cgroup_look look;
    struct cgroup_stat stat = {0};
    uint64_t bound;
    int r;

    r = read_value(cgroup->fds[FILE_LIMIT], CGROUP_NO_LIMIT, &look.limit);
    if (r == 0)
        r = read_value(cgroup->fds[FILE_HIGH], CGROUP_NO_LIMIT, &look.high);
    if (r == 0)
        r = read_value(cgroup->fds[FILE_USAGE], 0, &look.usage);
    if (r < 0)
        return r;
    bound = look.high < look.limit ? look.high : look.limit;
    look.stat_read = bound != CGROUP_NO_LIMIT && (look.usage >= bound || bound - look.usage < stat_below);
    if (look.stat_read)
        r = read_stat(cgroup, &stat);
    look.headroom = cgroup_headroom(look.limit, look.usage, &stat);
    look.headroom_high = cgroup_headroom(look.high, look.usage, &stat);
    if (r == 0)
        *ret = look;
    return r;
}

int meminfo_init(struct meminfo *meminfo, const struct cgroup_roots *roots) {
    int fd = open_path(O_RDONLY, "%s/meminfo", roots->proc);

    if (fd < 0)
        return fd;
    meminfo->fd = fd;
    return 0;
}

void meminfo_deinit(struct meminfo *meminfo) {
    if (meminfo->fd >= 0)
        close(meminfo->fd);
    meminfo->fd = -1;
}

int meminfo_read(struct meminfo *meminfo, uint64_t *ret_total, uint64_t *ret_available) {
    char text[STAT_BUFFER];
    ssize_t n = pread(meminfo->fd, text, sizeof(text), 0);

    return n < 0 ? -errno : meminfo_parse(text, (size_t)n, ret_total, ret_available);
}
