/* SPDX-License-Identifier: MIT */
/* Sections of one user or one cgroup: [User NAME], [Cgroup PATH]. Each is there once, whatever it is called: of two of one user the later values win. */

#include "config-keys.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_MAX 512
#define PATH_MOST 4095

static int parse_user(const char *text, uid_t *ret) {
    const struct passwd *found;
    unsigned long number;
    char *end;

    if (*text >= '0' && *text <= '9') {
        errno = 0;
        number = strtoul(text, &end, 10);
        if (*end || errno != 0 || number >= (uid_t)-1)
            return -EINVAL;
        *ret = (uid_t)number;
        return 0;
    }
    found = getpwnam(text);
    if (!found)
        return -EINVAL;
    *ret = found->pw_uid;
    return 0;
}

/* As the kernel writes it: another one would be nobody's. */
static bool path_is_good(const char *path) {
    size_t length = strlen(path);

    return path[0] == '/' && length <= PATH_MOST && (length == 1 || path[length - 1] != '/') && !strstr(path, "//");
}

static struct config_group *find_group(const struct config *config, const char *path, uid_t uid) {
    for (size_t i = 0; i < config->n_groups; i++) {
        struct config_group *group = &config->groups[i];

        if (path ? group->path && strcmp(group->path, path) == 0 : !group->path && group->uid == uid)
            return group;
    }
    return NULL;
}

/* Takes the section over. */
static int add_group(struct config *config, const struct config_group *group, size_t *ret) {
    struct config_group *grown;

    if (config->n_groups == GROUPS_MAX)
        return -ENOSPC;
    grown = realloc(config->groups, (config->n_groups + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    config->groups = grown;
    grown[config->n_groups] = *group;
    *ret = config->n_groups++;
    return 0;
}

int config_group_need(struct config *config, const char *name, size_t size, size_t *ret, const char **ret_expected) {
    bool of_user = size >= 5 && memcmp(name, "User ", 5) == 0;
    const struct config_group *known;
    char *section, *path = NULL;
    uid_t uid = (uid_t)-1;
    int r;

    if (!of_user && !(size >= 7 && memcmp(name, "Cgroup ", 7) == 0))
        return -ENOENT;
    section = strndup(name, size);
    if (!section)
        return -ENOMEM;
    if (of_user)
        r = parse_user(section + 5, &uid);
    else {
        path = section + 7;
        r = path_is_good(path) ? 0 : -EINVAL;
    }
    *ret_expected = of_user ? "a user of this system" : "the path of a cgroup as in /proc/PID/cgroup";
    known = r == 0 ? find_group(config, path, uid) : NULL;
    if (known)
        *ret = (size_t)(known - config->groups);
    else if (r == 0)
        r = add_group(config, &(struct config_group){.section = section, .path = path, .uid = uid}, ret);
    if (known || r < 0)
        free(section);
    return r;
}

int config_groups_copy(struct config *ret, const struct config *from) {
    ret->groups = NULL;
    ret->n_groups = 0;
    if (from->n_groups == 0)
        return 0;
    ret->groups = calloc(from->n_groups, sizeof(*ret->groups));
    if (!ret->groups)
        return -ENOMEM;
    for (size_t i = 0; i < from->n_groups; i++) {
        const struct config_group *group = &from->groups[i];
        char *section = strdup(group->section);

        if (!section) {
            config_groups_free(ret);
            return -ENOMEM;
        }
        ret->groups[i] = *group;
        ret->groups[i].section = section;
        ret->groups[i].path = group->path ? section + (group->path - group->section) : NULL;
        ret->n_groups++;
    }
    return 0;
}

void config_groups_free(struct config *config) {
    for (size_t i = 0; i < config->n_groups; i++)
        free(config->groups[i].section);
    free(config->groups);
    config->groups = NULL;
    config->n_groups = 0;
}
