/* SPDX-License-Identifier: MIT */
/*
 * The daemon's settings.
 *
 * One table names every key: its section, where its value goes, how it is read and what range it has; reading, range
 * checks and error texts all come from there. A file is read into memory, parsed (by inih) into a copy of the
 * settings, and the copy takes the place of the settings only when every line was good: a typo leaves the daemon as it
 * was.
 *
 * inih gets its lines from our own reader. That gives the line number of every key, which inih's handler does not get;
 * it makes inih's limits visible (a line longer than its buffer would be taken for two); it takes leading blanks away,
 * so that an indented line is a key as in systemd's files, not the continuation of the line before; and it sees
 * section headers that have no key. Of several assignments of a key the last one wins. No path and no text with blanks
 * is among the values, so inih's comments after " ;" do no harm.
 */

#define _GNU_SOURCE

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

#define CONFIG_FILE_MAX (1 * MIB)

enum value_type {
    VALUE_SIZE,      /* uint64_t, bytes */
    VALUE_SIZE_AUTO, /* the same, or "auto" */
    VALUE_COUNT,     /* uint32_t */
    VALUE_MODE,      /* mode_t, octal */
    VALUE_BOOL,      /* bool */
    VALUE_GROUP,     /* char * at offset, gid_t at offset2 */
};

struct key {
    const char *section;
    const char *name;
    enum value_type type;
    size_t offset;
    size_t offset2;
    uint64_t min;
    uint64_t max;
    const char *expected; /* ends an error text: "... is not " expected */
};

#define RESERVE_RANGE "a size (4K..1T, or 'auto')"
#define AT(field) offsetof(struct config, field)

static const struct key keys[] = {
    {"Daemon", "LendUserfaultfd", VALUE_GROUP, AT(lend_group), AT(lend_gid), 0, 0, "a group of this system"},
    {"Daemon", "SocketGroup", VALUE_GROUP, AT(socket_group), AT(socket_gid), 0, 0, "a group of this system"},
    {"Daemon", "SocketMode", VALUE_MODE, AT(socket_mode), 0, 0, 0777, "an octal mode (0000..0777)"},
    {"Daemon", "KillStuckClients", VALUE_BOOL, AT(kill_stuck), 0, 0, 0, "'yes' or 'no'"},
    {"Daemon", "SystemHugePages", VALUE_BOOL, AT(system_huge_pages), 0, 0, 0, "'yes' or 'no'"},
    {"Pressure", "MachineReserve", VALUE_SIZE_AUTO, AT(machine_reserve), 0, 4 * KIB, TIB, RESERVE_RANGE},
    {"Pressure", "CgroupReserve", VALUE_SIZE_AUTO, AT(cgroup_reserve), 0, 4 * KIB, TIB, RESERVE_RANGE},
    {"Limits", "Connections", VALUE_COUNT, AT(max_connections), 0, 1, 65536, "a number (1..65536)"},
    {"Limits", "ConnectionsPerUser", VALUE_COUNT, AT(max_connections_per_uid), 0, 1, 65536, "a number (1..65536)"},
    {"Limits", "RegionsPerClient", VALUE_COUNT, AT(max_regions), 0, 1, 65536, "a number (1..65536)"},
    {"Limits", "RegionBytes", VALUE_SIZE, AT(max_region_bytes), 0, 4 * KIB, 16 * TIB, "a size (4K..16T)"},
    {"Limits", "BytesPerUser", VALUE_SIZE, AT(max_bytes_per_uid), 0, 4 * KIB, 1024 * TIB, "a size (4K..1024T)"},
};

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

/* One file on its way into a struct config. */
struct parse {
    struct config *config; /* the copy */
    const char *path;
    const char *next; /* what the reader has not handed out yet */
    const char *end;
    int line;  /* of the line handed out last */
    int error; /* the first one; 0: none */
    int error_line;
    char *text; /* of the first error; NULL also when memory ran out */
};

__attribute__((format(printf, 3, 4))) static void parse_fail(struct parse *parse, int error, const char *format, ...) {
    char detail[512];
    va_list args;

    if (parse->error)
        return;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    parse->error = error;
    parse->error_line = parse->line;
    if (asprintf(&parse->text, "%s:%d: %s", parse->path, parse->line, detail) < 0) {
        parse->text = NULL;
        parse->error = -ENOMEM;
    }
}

/* ---- values ---- */

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

static int set_group(struct config *config, const struct key *key, const char *value) {
    char **name = (char **)((char *)config + key->offset);
    gid_t *gid = (gid_t *)((char *)config + key->offset2);
    char *copy = NULL;
    gid_t found = (gid_t)-1;
    int r;

    if (*value) { /* empty: back to the default, as in systemd's files */
        r = parse_group(value, &found);
        if (r < 0)
            return r;
        copy = strdup(value);
        if (!copy)
            return -ENOMEM;
    }
    free(*name);
    *name = copy;
    *gid = found;
    return 0;
}

static int set_number(struct config *config, const struct key *key, const char *value) {
    void *field = (char *)config + key->offset;
    uint64_t number;
    int r;

    if (key->type == VALUE_SIZE_AUTO && strcmp(value, "auto") == 0) {
        *(uint64_t *)field = CONFIG_AUTO;
        return 0;
    }
    if (key->type == VALUE_SIZE || key->type == VALUE_SIZE_AUTO)
        r = config_parse_size(value, &number);
    else
        r = parse_integer(value, key->type == VALUE_MODE ? 8 : 10, &number);
    if (r < 0)
        return r;
    if (number < key->min || number > key->max)
        return -ERANGE;

    if (key->type == VALUE_COUNT)
        *(uint32_t *)field = (uint32_t)number;
    else if (key->type == VALUE_MODE)
        *(mode_t *)field = (mode_t)number;
    else
        *(uint64_t *)field = number;
    return 0;
}

static int set_value(struct config *config, const struct key *key, const char *value) {
    switch (key->type) {
    case VALUE_BOOL:
        return parse_bool(value, (bool *)((char *)config + key->offset));
    case VALUE_GROUP:
        return set_group(config, key, value);
    default:
        return set_number(config, key, value);
    }
}

/* ---- lines ---- */

static bool section_known(const char *name, size_t size) {
    for (size_t i = 0; i < N_KEYS; i++)
        if (strlen(keys[i].section) == size && memcmp(keys[i].section, name, size) == 0)
            return true;
    return false;
}

/* inih's handler: nonzero for success. */
static int take_key(void *user, const char *section, const char *name, const char *value) {
    struct parse *parse = user;
    int r;

    for (size_t i = 0; i < N_KEYS; i++) {
        const struct key *key = &keys[i];

        if (strcmp(key->section, section) != 0 || strcmp(key->name, name) != 0)
            continue;
        r = set_value(parse->config, key, value ? value : "");
        if (r == -ENOMEM)
            parse_fail(parse, r, "%s=: out of memory", name);
        else if (r < 0)
            parse_fail(parse, r, "%s=: '%s' is not %s", name, value ? value : "", key->expected);
        return r == 0;
    }
    if (!*section)
        parse_fail(parse, -EINVAL, "%s=: stands before the first [section]", name);
    else
        parse_fail(parse, -EINVAL, "%s=: no such key in [%s]", name, section);
    return 0;
}

/* inih's reader, as fgets(3). */
static char *take_line(char *buffer, int size, void *stream) {
    struct parse *parse = stream;
    const char *start = parse->next;
    const char *stop;
    size_t length;

    if (start == parse->end || parse->error)
        return NULL;
    stop = memchr(start, '\n', (size_t)(parse->end - start));
    if (!stop)
        stop = parse->end;
    parse->next = stop < parse->end ? stop + 1 : stop;
    parse->line++;

    while (start < stop && (*start == ' ' || *start == '\t'))
        start++;
    length = (size_t)(stop - start);
    if (length + 3 > (size_t)size) {
        parse_fail(parse, -EINVAL, "the line is longer than %d bytes", size - 3);
        return NULL;
    }
    if (length > 1 && *start == '[') {
        const char *close = memchr(start, ']', length);

        if (close && !section_known(start + 1, (size_t)(close - start) - 1)) {
            parse_fail(parse, -EINVAL, "[%.*s]: no such section", (int)(close - start) - 1, start + 1);
            return NULL;
        }
    }
    memcpy(buffer, start, length);
    buffer[length] = '\n';
    buffer[length + 1] = '\0';
    return buffer;
}

static int parse_text(struct parse *parse) {
    int line;

    if (memchr(parse->next, '\0', (size_t)(parse->end - parse->next))) {
        parse_fail(parse, -EINVAL, "not a text file");
        return parse->error;
    }
    if (parse->end - parse->next >= 3 && memcmp(parse->next, "\xef\xbb\xbf", 3) == 0)
        parse->next += 3;
    line = ini_parse_stream(take_line, parse, take_key, parse);
    if (line > 0 && (!parse->error || line < parse->error_line)) {
        free(parse->text);
        parse->text = NULL;
        parse->error = 0;
        parse->line = line;
        parse_fail(parse, -EINVAL, "neither [section] nor key=value");
    }
    if (line < 0 && !parse->error)
        parse->error = -ENOMEM;
    return parse->error;
}

/* ---- files ---- */

/* The whole file, malloc'd. */
static int read_file(const char *path, char **ret, size_t *ret_size) {
    struct stat st;
    char *data = NULL;
    size_t size = 0;
    int fd;
    int r = 0;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (S_ISDIR(st.st_mode))
        r = -EISDIR;
    else if (!(data = malloc(CONFIG_FILE_MAX + 1)))
        r = -ENOMEM;
    while (r == 0) {
        ssize_t n = read(fd, data + size, CONFIG_FILE_MAX + 1 - size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = -errno;
        if (n <= 0)
            break;
        size += (size_t)n;
        if (size > CONFIG_FILE_MAX)
            r = -EFBIG;
    }
    close(fd);
    if (r < 0) {
        free(data);
        return r;
    }
    *ret = data;
    *ret_size = size;
    return 0;
}

static int config_copy(struct config *ret, const struct config *from) {
    struct config copy = *from;

    copy.socket_path = from->socket_path ? strdup(from->socket_path) : NULL;
    copy.lend_group = from->lend_group ? strdup(from->lend_group) : NULL;
    copy.socket_group = from->socket_group ? strdup(from->socket_group) : NULL;
    if ((from->socket_path && !copy.socket_path) || (from->lend_group && !copy.lend_group) ||
        (from->socket_group && !copy.socket_group)) {
        config_deinit(&copy);
        return -ENOMEM;
    }
    *ret = copy;
    return 0;
}

int config_read_file(struct config *config, const char *path, char **ret_error) {
    struct config copy;
    struct parse parse = {.config = &copy, .path = path};
    char *data = NULL;
    size_t size = 0;
    int r;

    *ret_error = NULL;
    r = read_file(path, &data, &size);
    if (r < 0) {
        if (asprintf(ret_error, "%s: %s", path, strerror(-r)) < 0)
            *ret_error = NULL;
        return r;
    }
    r = config_copy(&copy, config);
    if (r < 0) {
        free(data);
        return r;
    }
    parse.next = data;
    parse.end = data + size;
    r = parse_text(&parse);
    if (r < 0) {
        config_deinit(&copy);
        *ret_error = parse.text;
    } else {
        config_deinit(config);
        *config = copy;
    }
    free(data);
    return r;
}

/* ---- the rest ---- */

void config_init(struct config *config) {
    *config = (struct config){
        .lend_gid = (gid_t)-1,
        .socket_gid = (gid_t)-1,
        .socket_mode = 0666,
        .system_huge_pages = true,
        .machine_reserve = CONFIG_AUTO,
        .cgroup_reserve = CONFIG_AUTO,
        .max_connections = 4096,
        .max_connections_per_uid = 1024,
        .max_regions = 1024,
        .max_region_bytes = 16 * TIB,
        .max_bytes_per_uid = 32 * TIB,
        .max_bytes_per_client = CONFIG_INFINITY,
        .max_bytes_per_cgroup = CONFIG_INFINITY,
        .max_pinned_per_client = CONFIG_INFINITY,
        .max_pinned_per_uid = CONFIG_INFINITY,
        .region_budget = CONFIG_INFINITY,
        .client_budget = CONFIG_INFINITY,
        .user_budget = CONFIG_INFINITY,
        .cgroup_budget = CONFIG_INFINITY,
    };
}

void config_deinit(struct config *config) {
    free(config->socket_path);
    free(config->lend_group);
    free(config->socket_group);
    config->socket_path = NULL;
    config->lend_group = NULL;
    config->socket_group = NULL;
}

int config_default_socket(char **ret) {
    const char *directory = geteuid() == 0 ? NULL : secure_getenv("XDG_RUNTIME_DIR");
    char *path;

    if (!directory || directory[0] != '/')
        directory = "/run";
    if (asprintf(&path, "%s/droppabled.sock", directory) < 0)
        return -ENOMEM;
    *ret = path;
    return 0;
}
