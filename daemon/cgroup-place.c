/* SPDX-License-Identifier: MIT */
/*
 * Where a process is charged: what two text files tell, <proc>/self/mountinfo and <proc>/PID/cgroup.
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

#include "cgroup-place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct cgroup_roots cgroup_real_roots = {.proc = "/proc", .cgroup = ""};

/* The two hierarchies that can hold the memory controller, as one process sees them. Text of others' buffers. */
struct hierarchy {
    const char *path; /* of the process; NULL: it is in none */
    const char *root; /* of the mount that shows path and most above it; NULL: there is none */
    const char *point;
};

/* Reads a file of text to its end, malloc'd; NULL if empty. Consumes fd, which may be an error of cgroup_open_path(). */
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
    int fd = cgroup_open_path(O_PATH, "%s%s/%s", place->mount, place->path, file);

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

    r = read_text(cgroup_open_path(O_RDONLY, "%s/cgroup.controllers", mount), &text);
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

    r = read_text(cgroup_open_path(O_RDONLY, "%s/%lld/cgroup", roots->proc, (long long)pid), &groups);
    if (r == 0)
        r = parse_membership(groups, &v1, &v2);
    if (r == 0) {
        r = read_text(cgroup_open_path(O_RDONLY, "%s/self/mountinfo", roots->proc), &mounts);
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
