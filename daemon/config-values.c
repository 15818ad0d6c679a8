/* SPDX-License-Identifier: MIT */
/*
 * The keys, and their values from text and to text.
 *
 * One table names every key: its section, where its value goes, how it is read and what range it has. Reading, range checks, error texts,
 * what a reload says has changed, and the test of the documented defaults all come from there: a new key is a field in struct config,
 * a default in config_init(), a line in the table and one in systemd/droppabled.conf.
 */

#include "config-keys.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

#define AT(field) offsetof(struct config, field)
#define SHARE "1%..100% of the machine's memory"
#define A_GROUP 0, 0, NULL, false, "a group of this system"
#define A_BOOL 0, 0, 0, NULL, false, "'yes' or 'no'"
#define A_COUNT 0, 1, 65536, NULL, false, "a number (1..65536)"
#define A_RESERVE 0, 4 * KIB, TIB, "auto", true, "a size (4K..1T, " SHARE ", or 'auto')"
#define A_TABLES 0, 4 * KIB, 1024 * TIB, "auto", true, "a size (4K..1024T, " SHARE ", or 'auto')"
#define A_BUDGET 0, 4 * KIB, 1024 * TIB, "infinity", true, "a size (4K..1024T, " SHARE ", or 'infinity')"

const struct config_key config_keys[] = {
    {"Daemon", "Socket", CONFIG_PATH, AT(socket_path), 0, 1, 107, NULL, false, "an absolute path (107 bytes at most)"},
    {"Daemon", "SocketMode", CONFIG_MODE, AT(socket_mode), 0, 0, 0777, NULL, false, "an octal mode (0000..0777)"},
    {"Daemon", "SocketGroup", CONFIG_GROUP, AT(socket_group), AT(socket_gid), A_GROUP},
    {"Daemon", "LendUserfaultfd", CONFIG_GROUP, AT(lend_group), AT(lend_gid), A_GROUP},
    {"Daemon", "ControlGroup", CONFIG_GROUP, AT(control_group), AT(control_gid), A_GROUP},
    {"Daemon", "KillStuckClients", CONFIG_BOOL, AT(kill_stuck), A_BOOL},
    {"Daemon", "SystemHugePages", CONFIG_BOOL, AT(system_huge_pages), A_BOOL},
    {"Pressure", "MachineReserve", CONFIG_SIZE, AT(machine_reserve), A_RESERVE},
    {"Pressure", "CgroupReserve", CONFIG_SIZE, AT(cgroup_reserve), A_RESERVE},
    {"Budgets", "Region", CONFIG_SIZE, AT(region_budget), A_BUDGET},
    {"Budgets", "Client", CONFIG_SIZE, AT(client_budget), A_BUDGET},
    {"Budgets", "User", CONFIG_SIZE, AT(user_budget), A_BUDGET},
    {"Budgets", "Cgroup", CONFIG_SIZE, AT(cgroup_budget), A_BUDGET},
    {"Limits", "Connections", CONFIG_COUNT, AT(max_connections), A_COUNT},
    {"Limits", "ConnectionsPerUser", CONFIG_COUNT, AT(max_connections_per_uid), A_COUNT},
    {"Limits", "RegionsPerClient", CONFIG_COUNT, AT(max_regions), A_COUNT},
    {"Limits", "RegionBytes", CONFIG_SIZE, AT(max_region_bytes), 0, 4 * KIB, 16 * TIB, NULL, false, "a size (4K..16T)"},
    {"Limits", "BytesPerClient", CONFIG_SIZE, AT(max_bytes_per_client), A_BUDGET},
    {"Limits", "BytesPerUser", CONFIG_SIZE, AT(max_bytes_per_uid), A_BUDGET},
    {"Limits", "BytesPerCgroup", CONFIG_SIZE, AT(max_bytes_per_cgroup), A_BUDGET},
    {"Limits", "TablesPerUser", CONFIG_SIZE, AT(max_tables_per_uid), A_TABLES},
    {"Limits", "PinnedPerClient", CONFIG_SIZE, AT(max_pinned_per_client), A_BUDGET},
    {"Limits", "PinnedPerUser", CONFIG_SIZE, AT(max_pinned_per_uid), A_BUDGET},
};

const struct config_key config_group_keys[CONFIG_GROUP_KEYS] = {
    {NULL, "Budget", CONFIG_SIZE, offsetof(struct config_group, budget), A_BUDGET},
    {NULL, "Quota", CONFIG_SIZE, offsetof(struct config_group, quota), A_BUDGET},
};

const size_t config_n_keys = sizeof(config_keys) / sizeof(config_keys[0]);

void config_init(struct config *config) {
    *config = (struct config){
        .lend_gid = (gid_t)-1,
        .control_gid = (gid_t)-1,
        .socket_gid = (gid_t)-1,
        .socket_mode = 0666,
        .system_huge_pages = true,
        .machine_reserve = CONFIG_AUTO,
        .cgroup_reserve = CONFIG_AUTO,
        .region_budget = CONFIG_INFINITY,
        .client_budget = CONFIG_INFINITY,
        .user_budget = CONFIG_INFINITY,
        .cgroup_budget = CONFIG_INFINITY,
        .max_connections = 4096,
        .max_connections_per_uid = 1024,
        .max_regions = 1024,
        .max_region_bytes = 16 * TIB,
        .max_bytes_per_client = CONFIG_INFINITY,
        .max_bytes_per_uid = 32 * TIB,
        .max_bytes_per_cgroup = CONFIG_INFINITY,
        .max_tables_per_uid = CONFIG_AUTO,
        .max_pinned_per_client = CONFIG_INFINITY,
        .max_pinned_per_uid = CONFIG_INFINITY,
    };
}

/* ---- from text ---- */

static int parse_number(const char *text, unsigned base, const char **ret_end, uint64_t *ret) {
    uint64_t value = 0;
    const char *p = text;

    for (; *p >= '0' && *p < (char)('0' + base); p++)
        if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return -ERANGE;
    if (p == text)
        return -EINVAL;
    *ret_end = p;
    *ret = value;
    return 0;
}

int config_parse_size(const char *text, uint64_t *ret) {
    static const char suffixes[] = "KMGT";
    const char *end;
    uint64_t value;
    int r;

    r = parse_number(text, 10, &end, &value);
    if (r < 0)
        return r;
    if (*end) {
        const char *suffix = strchr(suffixes, *end);
        unsigned shift;

        if (!suffix || end[1])
            return -EINVAL;
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        if (value > UINT64_MAX >> shift)
            return -ERANGE;
        value <<= shift;
    }
    *ret = value;
    return 0;
}

static int parse_integer(const char *text, unsigned base, uint64_t *ret) {
    const char *end;
    uint64_t value;
    int r;

    r = parse_number(text, base, &end, &value);
    if (r < 0)
        return r;
    if (*end)
        return -EINVAL;
    *ret = value;
    return 0;
}

static int parse_bool(const char *text, bool *ret) {
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};

    for (size_t i = 0; i < 4; i++)
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *ret = strcmp(text, yes[i]) == 0;
            return 0;
        }
    return -EINVAL;
}

/* A name, or a number that need not have one. */
static int parse_group(const char *text, gid_t *ret) {
    struct group group;
    struct group *found = NULL;
    size_t size = 4096;
    char *buffer = NULL;
    uint64_t number;
    int r;

    if (parse_integer(text, 10, &number) == 0) {
        if (number >= (gid_t)-1)
            return -ERANGE;
        *ret = (gid_t)number;
        return 0;
    }
    do {
        char *grown = realloc(buffer, size);

        if (!grown) {
            free(buffer);
            return -ENOMEM;
        }
        buffer = grown;
        r = getgrnam_r(text, &group, buffer, size, &found);
        size *= 2;
    } while (r == ERANGE && size <= 16 * MIB);
    if (found)
        *ret = group.gr_gid;
    free(buffer);
    return found ? 0 : -EINVAL;
}

/* Whole pages. */
static int parse_share(const char *text, uint64_t *ret) {
    const char *end;
    uint64_t percent;
    int r;

    r = parse_number(text, 10, &end, &percent);
    if (r < 0)
        return r;
    if (strcmp(end, "%") != 0)
        return -EINVAL;
    if (percent > 100) /* 0% is below every minimum */
        return -ERANGE;
    *ret = (uint64_t)sysconf(_SC_PHYS_PAGES) * percent / 100 * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

static void *field(struct config *config, size_t offset) {
    return (char *)config + offset;
}

/* A copy of the text takes the place of the one that is there. */
static int replace_text(char **text, const char *value) {
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*text);
    *text = copy;
    return 0;
}

static int set_text(struct config *config, const struct config_key *key, const char *value) {
    size_t length = strlen(value);
    gid_t found;
    int r = 0;

    if (key->type == CONFIG_PATH) {
        if (value[0] != '/')
            return -EINVAL;
        if (length < key->min || length > key->max)
            return -ERANGE;
        return replace_text(field(config, key->offset), value);
    }
    r = parse_group(value, &found);
    if (r >= 0)
        r = replace_text(field(config, key->offset), value);
    if (r >= 0)
        *(gid_t *)field(config, key->offset2) = found;
    return r;
}

static int set_number(void *at, const struct config_key *key, const char *value) {
    uint64_t number;
    int r;

    if (key->word && strcmp(value, key->word) == 0) {
        *(uint64_t *)at = UINT64_MAX;
        return 0;
    }
    if (key->share && strchr(value, '%'))
        r = parse_share(value, &number);
    else if (key->type == CONFIG_SIZE)
        r = config_parse_size(value, &number);
    else
        r = parse_integer(value, key->type == CONFIG_MODE ? 8 : 10, &number);
    if (r < 0)
        return r;
    if (number < key->min || number > key->max)
        return -ERANGE;

    if (key->type == CONFIG_COUNT)
        *(uint32_t *)at = (uint32_t)number;
    else if (key->type == CONFIG_MODE)
        *(mode_t *)at = (mode_t)number;
    else
        *(uint64_t *)at = number;
    return 0;
}

/* Texts have no default: they are not there then. */
static void set_default(struct config *config, const struct config_key *key) {
    static const size_t sizes[] = {[CONFIG_SIZE] = sizeof(uint64_t),
                                   [CONFIG_COUNT] = sizeof(uint32_t),
                                   [CONFIG_MODE] = sizeof(mode_t),
                                   [CONFIG_BOOL] = sizeof(bool)};
    struct config defaults;

    config_init(&defaults);
    if (key->type == CONFIG_GROUP || key->type == CONFIG_PATH) {
        free(*(char **)field(config, key->offset));
        *(char **)field(config, key->offset) = NULL;
        if (key->type == CONFIG_GROUP)
            *(gid_t *)field(config, key->offset2) = (gid_t)-1;
        return;
    }
    memcpy(field(config, key->offset), field(&defaults, key->offset), sizes[key->type]);
}

int config_set(struct config *config, const struct config_key *key, const char *text) {
    if (!*text) {
        set_default(config, key);
        return 0;
    }
    switch (key->type) {
    case CONFIG_BOOL:
        return parse_bool(text, field(config, key->offset));
    case CONFIG_GROUP:
    case CONFIG_PATH:
        return set_text(config, key, text);
    default:
        return set_number(field(config, key->offset), key, text);
    }
}

int config_set_in_group(struct config_group *group, const struct config_key *key, const char *text) {
    uint64_t *at = (uint64_t *)((char *)group + key->offset);

    if (*text)
        return set_number(at, key, text);
    *at = 0;
    return 0;
}

/* ---- to text ---- */

static void format_size(uint64_t size, char *ret, size_t ret_size) {
    static const char suffixes[] = "KMGT";
    unsigned n = 0;

    while (n < 4 && size > 0 && size % 1024 == 0) {
        size /= 1024;
        n++;
    }
    snprintf(ret, ret_size, "%" PRIu64 "%.*s", size, n > 0, &suffixes[n > 0 ? n - 1 : 0]);
}

static void format_number(const void *at, const struct config_key *key, char *ret, size_t size) {
    switch (key->type) {
    case CONFIG_SIZE:
        if (key->word && *(const uint64_t *)at == UINT64_MAX)
            snprintf(ret, size, "%s", key->word);
        else
            format_size(*(const uint64_t *)at, ret, size);
        break;
    case CONFIG_COUNT:
        snprintf(ret, size, "%" PRIu32, *(const uint32_t *)at);
        break;
    case CONFIG_MODE:
        snprintf(ret, size, "%04o", *(const mode_t *)at);
        break;
    case CONFIG_BOOL:
        snprintf(ret, size, "%s", *(const bool *)at ? "yes" : "no");
        break;
    default:
        snprintf(ret, size, "%s", *(char *const *)at ? *(char *const *)at : "");
    }
}

/* What is not set is a key without a value. */
static bool group_value(const struct config *config, size_t i, const char **ret_section, const char **ret_name,
                        char *ret, size_t size) {
    const struct config_key *key = &config_group_keys[i % CONFIG_GROUP_KEYS];
    const struct config_group *group;
    const uint64_t *at;

    if (i / CONFIG_GROUP_KEYS >= config->n_groups)
        return false;
    group = &config->groups[i / CONFIG_GROUP_KEYS];
    *ret_section = group->section;
    *ret_name = key->name;
    at = (const uint64_t *)((const char *)group + key->offset);
    if (*at == 0)
        snprintf(ret, size, "%s", "");
    else
        format_number(at, key, ret, size);
    return true;
}

bool config_value(const struct config *config, size_t i, const char **ret_section, const char **ret_name, char *ret,
                  size_t size) {
    const struct config_key *key;

    if (i >= config_n_keys)
        return group_value(config, i - config_n_keys, ret_section, ret_name, ret, size);
    key = &config_keys[i];
    *ret_section = key->section;
    *ret_name = key->name;
    format_number((const char *)config + key->offset, key, ret, size);
    return true;
}

size_t config_same(const struct config *config, size_t i, const struct config *other) {
    size_t at = i - config_n_keys;

    if (i < config_n_keys)
        return i;
    for (size_t j = 0; j < other->n_groups; j++)
        if (strcmp(other->groups[j].section, config->groups[at / CONFIG_GROUP_KEYS].section) == 0)
            return config_n_keys + j * CONFIG_GROUP_KEYS + at % CONFIG_GROUP_KEYS;
    return SIZE_MAX;
}
