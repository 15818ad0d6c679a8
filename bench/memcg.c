/* SPDX-License-Identifier: MIT */

/*
 * A folder below the root of the hierarchy that has the memory controller: v1 first, as that one has the controller if it is mounted.
 * Headroom is what the service means by it: with the page cache of the cgroup, half of it where it is active, and what slab can be
 * reclaimed. That changes slowly here, where nobody reads files, and is asked for before; so the look that is repeated is a read of one number,
 * which costs less than a microsecond.
 *
 * The service's reserve is not in the public interface; droppablectl, beside this program, tells it.
 */

#include "memcg.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REMOVE_LOOKS 500
#define REMOVE_US 10000

static int write_text(const char *folder, const char *name, const char *text) {
    char path[384];
    int fd, error = 0;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, text, strlen(text)) < 0)
        error = -errno;
    close(fd);
    return error;
}

/* Whether the memory controller is one of the mount's options. */
static bool has_memory(char *options) {
    char *option;

    while ((option = strsep(&options, ",")))
        if (strcmp(option, "memory") == 0)
            return true;
    return false;
}

/* @return 1 or 2; 0: there is none */
static int find_hierarchy(char *ret, size_t size) {
    FILE *file = fopen("/proc/self/mounts", "re");
    char line[1024], unified[192] = "";
    int version = 0;

    while (file && version == 0 && fgets(line, sizeof(line), file)) {
        char point[192], type[32], options[256];

        if (sscanf(line, "%*s %191s %31s %255s", point, type, options) != 3)
            continue;
        if (strcmp(type, "cgroup2") == 0)
            snprintf(unified, sizeof(unified), "%s", point);
        if (strcmp(type, "cgroup") != 0 || !has_memory(options))
            continue;
        version = 1;
        snprintf(ret, size, "%s", point);
    }
    if (file)
        fclose(file);
    if (version == 0 && *unified) {
        version = 2;
        snprintf(ret, size, "%s", unified);
        (void)write_text(unified, "cgroup.subtree_control", "+memory"); /* shows when the limit is set */
    }
    return version;
}

static int open_usage(const struct memcg *memcg) {
    char path[384];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", memcg->path, memcg->version == 1 ? "memory.usage_in_bytes" : "memory.current");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int memcg_init(struct memcg *memcg, struct task *task, uint64_t limit) {
    char root[192], text[32];
    int r;

    *memcg = (struct memcg){.usage = -1, .limit = limit, .version = find_hierarchy(root, sizeof(root))};
    if (memcg->version == 0)
        return task_fail(task, -EOPNOTSUPP, "no memory controller is mounted");
    snprintf(memcg->name, sizeof(memcg->name), "droppable-bench-%d", (int)getpid());
    snprintf(memcg->path, sizeof(memcg->path), "%s/%s", root, memcg->name);
    if (mkdir(memcg->path, 0755) < 0) {
        r = -errno;
        memcg->path[0] = '\0';
        return task_fail(task, r, "making a memory cgroup");
    }
    snprintf(text, sizeof(text), "%" PRIu64, limit);
    r = write_text(memcg->path, memcg->version == 1 ? "memory.limit_in_bytes" : "memory.max", text);
    if (r == 0) {
        memcg->usage = open_usage(memcg);
        r = memcg->usage < 0 ? memcg->usage : 0;
    }
    if (r < 0) {
        memcg_deinit(memcg);
        return task_fail(task, r, "the limit of a memory cgroup");
    }
    return 0;
}

void memcg_deinit(struct memcg *memcg) {
    if (!memcg)
        return;
    if (memcg->usage >= 0)
        close(memcg->usage);
    memcg->usage = -1;
    for (unsigned i = 0; *memcg->path && i < REMOVE_LOOKS && rmdir(memcg->path) < 0 && errno == EBUSY; i++)
        usleep(REMOVE_US);
    memcg->path[0] = '\0';
}

int memcg_enter(const struct memcg *memcg, struct task *task) {
    int r = write_text(memcg->path, "cgroup.procs", "0");

    return r < 0 ? task_fail(task, r, "entering a memory cgroup") : 0;
}

int memcg_look(struct memcg *memcg, struct task *task) {
    uint64_t value, inactive = 0, active = 0, slab = 0;
    char path[384], line[128], key[64];
    FILE *file;

    snprintf(path, sizeof(path), "%s/memory.stat", memcg->path);
    file = fopen(path, "re");
    if (!file)
        return task_fail(task, -errno, "memory.stat of a memory cgroup");
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%63s %" SCNu64, key, &value) != 2)
            continue;
        if (strcmp(key, memcg->version == 1 ? "total_inactive_file" : "inactive_file") == 0)
            inactive = value;
        else if (strcmp(key, memcg->version == 1 ? "total_active_file" : "active_file") == 0)
            active = value;
        else if (strcmp(key, "slab_reclaimable") == 0)
            slab = value;
    }
    fclose(file);
    memcg->cache = inactive + active / 2 + slab;
    return 0;
}

uint64_t memcg_headroom(const struct memcg *memcg) {
    char text[32];
    ssize_t n = pread(memcg->usage, text, sizeof(text) - 1, 0);
    uint64_t usage;

    text[n > 0 ? n : 0] = '\0';
    usage = strtoull(text, NULL, 10);
    return (memcg->limit > usage ? memcg->limit - usage : 0) + memcg->cache;
}

/* ---- the service's word ---- */

/* What droppablectl, beside this program, prints of the service's domains. NULL: nothing. */
static struct json_object *list(void) {
    char self[PATH_MAX - 64], command[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    struct json_object *object;
    FILE *pipe;

    if (n < 0)
        return NULL;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(command, sizeof(command), "exec '%s/droppablectl' --json list", self);
    pipe = popen(command, "re");
    if (!pipe)
        return NULL;
    object = json_object_from_fd(fileno(pipe));
    pclose(pipe);
    return object;
}

int memcg_reserve(const struct memcg *memcg, struct task *task, uint64_t *ret) {
    struct json_object *all = list(), *domains = NULL, *path, *reserve;
    bool found = false;

    if (all)
        json_object_object_get_ex(all, "domains", &domains);
    for (size_t i = 0; domains && !found && i < json_object_array_length(domains); i++) {
        struct json_object *domain = json_object_array_get_idx(domains, i);
        const char *end;

        if (!json_object_object_get_ex(domain, "path", &path) || !json_object_object_get_ex(domain, "reserve", &reserve))
            continue;
        end = strrchr(json_object_get_string(path), '/');
        if (!end || strcmp(end + 1, memcg->name) != 0)
            continue;
        *ret = json_object_get_uint64(reserve);
        found = true;
    }
    json_object_put(all);
    return found ? 0 : task_fail(task, -ENOENT, "droppablectl list tells no reserve of the cgroup");
}
