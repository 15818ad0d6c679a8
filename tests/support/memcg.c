/* SPDX-License-Identifier: MIT */
/*
 * A memory cgroup of a test's own: a folder below the root of whichever hierarchy has the memory controller, v1 first, as that one has
 * the controller if it is mounted. Its limit counts swap, too, where the kernel can. What was started in it is ended with it.
 */

#include "memcg.h"

#include "service.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REMOVE_MS 10000

/* ---- files ---- */

static bool file_write(const char *folder, const char *name, const char *text) {
    char path[384];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = write(fd, text, strlen(text));
    close(fd);
    return n == (ssize_t)strlen(text);
}

static bool file_read(const char *folder, const char *name, char *text, size_t size) {
    char path[384];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

static uint64_t file_number(const struct memcg *memcg, const char *name) {
    char text[64];

    ck_assert_msg(file_read(memcg->path, name, text, sizeof(text)), "%s/%s: %s", memcg->path, name, strerror(errno));
    return strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

/* The number behind a key of a file with one "key number" a line; 0 without it. */
static uint64_t file_key(const struct memcg *memcg, const char *name, const char *key) {
    size_t length = strlen(key);
    char text[8192];

    ck_assert_msg(file_read(memcg->path, name, text, sizeof(text)), "%s/%s: %s", memcg->path, name, strerror(errno));
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (strncmp(line, key, length) == 0 && line[length] == ' ')
            return strtoull(line + length, NULL, 10);
    return 0;
}

/* ---- where ---- */

/* Is there a memory controller, and where? */
static bool find_hierarchy(char *path, size_t size, int *ret_version) {
    FILE *file = fopen("/proc/self/mounts", "re");
    char line[1024], unified[192] = "";
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file)) {
        char point[192], type[32], options[256];

        if (sscanf(line, "%*s %191s %31s %255s", point, type, options) != 3)
            continue;
        if (strcmp(type, "cgroup2") == 0)
            strcpy(unified, point);
        if (strcmp(type, "cgroup") != 0)
            continue;
        for (char *rest = options, *option; !found && (option = strsep(&rest, ","));)
            found = strcmp(option, "memory") == 0;
        if (found)
            snprintf(path, size, "%s", point);
    }
    if (file)
        fclose(file);
    *ret_version = found ? 1 : 2;
    if (!found && *unified) {
        char controllers[256];

        snprintf(path, size, "%s", unified);
        found = file_read(path, "cgroup.controllers", controllers, sizeof(controllers)) && strstr(controllers, "memory");
    }
    return found;
}

bool memcg_set(const struct memcg *memcg, const char *name, uint64_t value) {
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return file_write(memcg->path, name, text);
}

static bool make_folder(const struct memcg *memcg, const char **ret_reason) {
    bool v1 = memcg->version == 1;

    if (mkdir(memcg->path, 0755) < 0) {
        *ret_reason = "no right to make a memory cgroup";
        return false;
    }
    if (!memcg_set(memcg, v1 ? "memory.limit_in_bytes" : "memory.max", memcg->limit)) {
        rmdir(memcg->path);
        *ret_reason = "the memory controller is not enabled at the root";
        return false;
    }
    memcg_set(memcg, v1 ? "memory.memsw.limit_in_bytes" : "memory.swap.max", v1 ? memcg->limit : 0);
    return true;
}

bool memcg_make(struct memcg *memcg, uint64_t limit, const char **ret_reason) {
    static unsigned count;
    char root[192];

    *memcg = (struct memcg){.limit = limit};
    if (!find_hierarchy(root, sizeof(root), &memcg->version)) {
        *ret_reason = "no memory controller is mounted";
        return false;
    }
    if (memcg->version == 2)
        file_write(root, "cgroup.subtree_control", "+memory");
    snprintf(memcg->path, sizeof(memcg->path), "%s/droppable-test-%d-%u", root, (int)getpid(), count++);
    return make_folder(memcg, ret_reason);
}

void memcg_make_again(const struct memcg *memcg) {
    const char *reason = "";

    ck_assert_msg(make_folder(memcg, &reason), "%s: %s", memcg->path, reason);
}

void memcg_take(const struct memcg *memcg, pid_t pid) {
    char text[32];

    snprintf(text, sizeof(text), "%d", (int)pid);
    ck_assert_msg(file_write(memcg->path, "cgroup.procs", text), "%s: %s", memcg->path, strerror(errno));
}

void memcg_enter(const struct memcg *memcg) {
    memcg_take(memcg, 0);
}

const char *memcg_name(const struct memcg *memcg) {
    return strrchr(memcg->path, '/');
}

/* ---- figures ---- */

uint64_t memcg_usage(const struct memcg *memcg) {
    return file_number(memcg, memcg->version == 1 ? "memory.usage_in_bytes" : "memory.current");
}

uint64_t memcg_headroom(const struct memcg *memcg) {
    bool v1 = memcg->version == 1;
    uint64_t limit = file_number(memcg, v1 ? "memory.limit_in_bytes" : "memory.max");
    uint64_t usage = memcg_usage(memcg);
    uint64_t inactive = file_key(memcg, "memory.stat", v1 ? "total_inactive_file" : "inactive_file");
    uint64_t active = file_key(memcg, "memory.stat", v1 ? "total_active_file" : "active_file");

    return (limit > usage ? limit - usage : 0) + inactive + active / 2;
}

uint64_t memcg_oom_kills(const struct memcg *memcg) {
    return file_key(memcg, memcg->version == 1 ? "memory.oom_control" : "memory.events", "oom_kill");
}

uint64_t memcg_failures(const struct memcg *memcg) {
    return memcg->version == 1 ? file_number(memcg, "memory.failcnt") : file_key(memcg, "memory.events", "max");
}

/* ---- the end ---- */

void memcg_remove(struct memcg *memcg) {
    uint64_t deadline = deadline_in(REMOVE_MS);
    char root[256];

    strcpy(root, memcg->path);
    *strrchr(root, '/') = '\0';
    while (rmdir(memcg->path) < 0 && errno == EBUSY) {
        char text[8192];

        ck_assert_msg(now_ms() < deadline, "%s does not become empty", memcg->path);
        if (!file_read(memcg->path, "cgroup.procs", text, sizeof(text)))
            break;
        for (char *rest = text, *line; (line = strsep(&rest, "\n")) && *line;) {
            pid_t pid = (pid_t)strtol(line, NULL, 10);

            if (pid == getpid())
                file_write(root, "cgroup.procs", "0");
            else if (pid > 0)
                kill(pid, SIGKILL);
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    memcg->path[0] = '\0';
}
