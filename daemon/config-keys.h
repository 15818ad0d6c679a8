/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CONFIG_KEYS_H
#define DROPPABLE_DAEMON_CONFIG_KEYS_H

/* The table of keys: for config.c, which reads files. */

#include "config.h"

enum config_type {
    CONFIG_SIZE,  /* uint64_t, bytes; or the key's word, which is UINT64_MAX */
    CONFIG_COUNT, /* uint32_t */
    CONFIG_MODE,  /* mode_t, octal */
    CONFIG_BOOL,  /* bool */
    CONFIG_GROUP, /* char * at offset, gid_t at offset2 */
    CONFIG_PATH,  /* char *, absolute */
};

struct config_key {
    const char *section;
    const char *name;
    enum config_type type;
    size_t offset;
    size_t offset2;
    uint64_t min; /* of a path: of its length */
    uint64_t max;
    const char *word;     /* of a size: "auto", "infinity", or NULL */
    bool share;           /* of a size: N% of the machine's memory is one, too */
    const char *expected; /* ends an error text: "... is not " expected */
};

extern const struct config_key config_keys[];
extern const size_t config_n_keys;

/* Of [User NAME] and [Cgroup PATH]: their place is in struct config_group. */
#define CONFIG_GROUP_KEYS 2
extern const struct config_key config_group_keys[CONFIG_GROUP_KEYS];

/* Sets one value of a struct config from text. Empty: back to the default. -EINVAL, -ERANGE, -ENOMEM: nothing is changed. */
int config_set(struct config *config, const struct config_key *key, const char *text);
/* The same of a group; its defaults are 0. */
int config_set_in_group(struct config_group *group, const struct config_key *key, const char *text);

/*
 * In config-groups.c. The group of the section of that name, made if it is new: its index. -ENOENT: no such kind of section. -EINVAL: what follows is not
 * *ret_expected. -ENOSPC: there are too many. -ENOMEM.
 */
int config_group_need(struct config *config, const char *name, size_t size, size_t *ret, const char **ret_expected);
/* ret's are taken for not there. -ENOMEM: it has none. */
int config_groups_copy(struct config *ret, const struct config *from);
void config_groups_free(struct config *config);

#endif
