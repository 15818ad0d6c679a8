/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes the search for a process's memory cgroup: the input is /proc/PID/cgroup and /proc/self/mountinfo, a NUL between them.
 * A place that is found is a path that leads nowhere else: absolute, without ".."; so are all its parents, and there is an end of them.
 */

#define _GNU_SOURCE

#include "cgroup-place.h"
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PID 100

static char base[] = "/tmp/droppable-fuzz-XXXXXX";
static int files[2]; /* cgroup, mountinfo */

static const char *const folders[] = {"100", "self", "m", "m/a"};
static const struct {
    const char *name, *text;
} contents[] = {{"100/cgroup", ""},
                {"self/mountinfo", ""},
                {"m/cgroup.controllers", "cpu memory pids\n"},
                {"m/memory.current", "4096\n"},
                {"m/a/memory.current", "4096\n"}};

static void remove_tree(void) {
    int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++)
        unlinkat(fd, contents[i].name, 0);
    for (size_t i = sizeof(folders) / sizeof(folders[0]); i-- > 0;)
        unlinkat(fd, folders[i], AT_REMOVEDIR);
    close(fd);
    rmdir(base);
}

/* Mounts in the input are looked up below here: a hierarchy at /m, with the group /a in it. */
static void make_tree(void) {
    int fd;

    REQUIRE(mkdtemp(base));
    atexit(remove_tree);
    fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
        REQUIRE(mkdirat(fd, folders[i], 0700) == 0);
    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
        int file = openat(fd, contents[i].name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        REQUIRE(file >= 0);
        REQUIRE(write(file, contents[i].text, strlen(contents[i].text)) == (ssize_t)strlen(contents[i].text));
        if (i < 2)
            files[i] = file;
        else
            close(file);
    }
    close(fd);
}

static void fill(int fd, const uint8_t *data, size_t size) {
    REQUIRE(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
}

static void require_path(const char *path) {
    REQUIRE(path[0] == '/');
    for (const char *p = path; (p = strstr(p, "/..")); p++)
        REQUIRE(p[3] != '/' && p[3] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct cgroup_roots roots = {.proc = base, .cgroup = base};
    struct cgroup_place place = {0};
    const uint8_t *middle;
    char *path, *parent;
    int r;

    if (files[1] == 0)
        make_tree();
    middle = memchr(data, 0, size);
    if (!middle)
        return 0;
    fill(files[0], data, (size_t)(middle - data));
    fill(files[1], middle + 1, (size_t)(data + size - middle - 1));

    r = cgroup_locate(&roots, PID, &place);
    if (r < 0) {
        REQUIRE(!place.mount && !place.path);
        return 0;
    }
    REQUIRE((place.version == 1 || place.version == 2) && place.mount);
    require_path(place.path);
    for (path = strdup(place.path); path; path = parent) {
        REQUIRE(cgroup_parent_path(path, &parent) == 0);
        REQUIRE(!parent || strlen(parent) < strlen(path));
        if (parent)
            require_path(parent);
        free(path);
    }
    cgroup_place_deinit(&place);
    return 0;
}
