/* SPDX-License-Identifier: MIT */
/*
 * The files of the daemon's settings. config-values.c has the keys.
 *
 * A file is read into memory, parsed (by inih) into a copy of the settings, and the copy takes the place of the settings only
 * when every line was good: a typo leaves the daemon as it was. The same holds for all files together.
 *
 * inih gets its lines from our own reader. That gives the line number of every key, which inih's handler does not get;
 * it makes inih's limits visible (a line longer than its buffer would be taken for two); it takes leading blanks away,
 * so that an indented line is a key as in systemd's files, not the continuation of the line before; and it sees
 * section headers that have no key. Of several assignments of a key the last one wins. No path and no text with blanks
 * is among the values, so inih's comments after " ;" do no harm.
 */

#include "config-keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_FILE_MAX (UINT64_C(1) << 20)

/* One file on its way into a struct config. */
struct parse {
    struct config *config; /* the copy */
    const char *path;
    const char *next; /* what the reader has not handed out yet */
    const char *end;
    int line;  /* of the line handed out last */
    int error; /* the first one; 0: none */
    int error_line;
    char *text;    /* of the first error; NULL also when memory ran out */
    bool in_group; /* the lines are of one user or cgroup: */
    size_t group;
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

/* ---- lines ---- */

static bool section_known(const char *name, size_t size) {
    for (size_t i = 0; i < config_n_keys; i++)
        if (strlen(config_keys[i].section) == size && memcmp(config_keys[i].section, name, size) == 0)
            return true;
    return false;
}

/* What section is this? false: it is not one, which was noted. */
static bool take_section(struct parse *parse, const char *name, size_t size) {
    const char *expected = "";
    int r;

    r = config_group_need(parse->config, name, size, &parse->group, &expected);
    parse->in_group = r == 0;
    if (r == -ENOENT && section_known(name, size))
        return true;
    if (r == -ENOENT)
        parse_fail(parse, -EINVAL, "[%.*s]: no such section", (int)size, name);
    else if (r == -EINVAL)
        parse_fail(parse, r, "[%.*s]: this is not %s", (int)size, name, expected);
    else if (r == -ENOSPC)
        parse_fail(parse, r, "[%.*s]: there are too many users and cgroups before it", (int)size, name);
    else if (r < 0)
        parse_fail(parse, r, "[%.*s]: out of memory", (int)size, name);
    return r == 0;
}

static const struct config_key *find_key(const struct parse *parse, const char *section, const char *name) {
    const struct config_key *keys = parse->in_group ? config_group_keys : config_keys;
    size_t n = parse->in_group ? CONFIG_GROUP_KEYS : config_n_keys;

    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].name, name) == 0 && (parse->in_group || strcmp(keys[i].section, section) == 0))
            return &keys[i];
    return NULL;
}

/* inih's handler: nonzero for success. */
static int take_key(void *user, const char *section, const char *name, const char *value) {
    struct parse *parse = user;
    const struct config_key *key = find_key(parse, section, name);
    const char *text = value ? value : "";
    int r;

    if (!key && !*section)
        parse_fail(parse, -EINVAL, "%s=: stands before the first [section]", name);
    else if (!key)
        parse_fail(parse, -EINVAL, "%s=: no such key in [%s]", name,
                   parse->in_group ? parse->config->groups[parse->group].section : section);
    if (!key)
        return 0;
    r = parse->in_group ? config_set_in_group(&parse->config->groups[parse->group], key, text)
                        : config_set(parse->config, key, text);
    if (r == -ENOMEM)
        parse_fail(parse, r, "%s=: out of memory", name);
    else if (r < 0)
        parse_fail(parse, r, "%s=: '%s' is not %s", name, text, key->expected);
    return r == 0;
}

/* inih's reader, as fgets(3). */
static char *take_line(char *buffer, int size, void *stream) {
    struct parse *parse = stream;
    const char *start = parse->next;
    const char *stop, *close;
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
    close = length > 1 && *start == '[' ? memchr(start, ']', length) : NULL;
    if (close && !take_section(parse, start + 1, (size_t)(close - start) - 1))
        return NULL;
    if (close && parse->in_group) { /* inih has no room for a path */
        start = "[group]";
        length = strlen(start);
    }
    if (length + 3 > (size_t)size) {
        parse_fail(parse, -EINVAL, "the line is longer than %d bytes", size - 3);
        return NULL;
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
    copy.control_group = from->control_group ? strdup(from->control_group) : NULL;
    copy.socket_group = from->socket_group ? strdup(from->socket_group) : NULL;
    if (config_groups_copy(&copy, from) < 0 || (from->socket_path && !copy.socket_path) ||
        (from->lend_group && !copy.lend_group) || (from->control_group && !copy.control_group) ||
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

void config_deinit(struct config *config) {
    free(config->socket_path);
    free(config->lend_group);
    free(config->control_group);
    free(config->socket_group);
    config_groups_free(config);
    config->socket_path = NULL;
    config->lend_group = NULL;
    config->control_group = NULL;
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

static int is_drop_in(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);

    return entry->d_name[0] != '.' && length > 5 && strcmp(entry->d_name + length - 5, ".conf") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The files of PATH.d, in the order of their names. A folder that is not there has none. */
static int read_drop_ins(struct config *config, const char *path, char **ret_error) {
    struct dirent **entries = NULL;
    char *folder = NULL, *file;
    int n = 0, r = 0;

    if (asprintf(&folder, "%s.d", path) < 0)
        return -ENOMEM;
    n = scandir(folder, &entries, is_drop_in, by_name);
    if (n < 0 && errno != ENOENT && errno != ENOTDIR) {
        r = -errno;
        if (asprintf(ret_error, "%s: %s", folder, strerror(-r)) < 0)
            *ret_error = NULL;
    }
    for (int i = 0; i < n; i++) {
        if (r >= 0 && asprintf(&file, "%s/%s", folder, entries[i]->d_name) < 0)
            r = -ENOMEM;
        else if (r >= 0) {
            r = config_read_file(config, file, ret_error);
            free(file);
        }
        free(entries[i]);
    }
    free(entries);
    free(folder);
    return r;
}

int config_load(struct config *ret, const struct config_source *source, char **ret_error) {
    struct config config;
    int r;

    *ret_error = NULL;
    config_init(&config);
    r = config_read_file(&config, source->path, ret_error);
    /* Nothing else: settings that cannot be read are not the defaults. */
    if (source->optional && (r == -ENOENT || r == -ENOTDIR)) {
        free(*ret_error);
        *ret_error = NULL;
        r = 0;
    }
    if (r >= 0)
        r = read_drop_ins(&config, source->path, ret_error);
    if (r >= 0 && source->socket_path) {
        free(config.socket_path);
        config.socket_path = strdup(source->socket_path);
        r = config.socket_path ? 0 : -ENOMEM;
    } else if (r >= 0 && !config.socket_path)
        r = config_default_socket(&config.socket_path);
    if (r < 0) {
        config_deinit(&config);
        return r;
    }
    *ret = config;
    return 0;
}
