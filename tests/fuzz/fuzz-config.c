/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes the reader of the daemon's settings: the input is a file. One that is refused leaves the settings as they were and
 * says file and line; one that is taken, written out again by config_value(), is taken again and says the same.
 */

#define _GNU_SOURCE

#include "config.h"
#include "fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The file, as a path that config_read_file() can open. */
static const char *file_path(const void *data, size_t size) {
    static char path[32];
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("config", MFD_CLOEXEC);
        REQUIRE(fd >= 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    REQUIRE(ftruncate(fd, 0) == 0);
    REQUIRE(pwrite(fd, data, size, 0) == (ssize_t)size);
    return path;
}

/* As a file has them; a text that is not set is a key without a value. malloc'd. */
static char *settings_text(const struct config *config) {
    const char *section, *name, *before = "";
    char value[8192];
    char *text = NULL;
    size_t size;
    FILE *f;

    f = open_memstream(&text, &size);
    REQUIRE(f);
    for (size_t i = 0; config_value(config, i, &section, &name, value, sizeof(value)); i++) {
        if (strcmp(section, before) != 0)
            fprintf(f, "[%s]\n", section);
        fprintf(f, "%s=%s\n", name, value);
        before = section;
    }
    REQUIRE(fclose(f) == 0);
    return text;
}

static void require_same(const struct config *config, const char *text) {
    char *now = settings_text(config);

    REQUIRE(strcmp(now, text) == 0);
    free(now);
}

static void require_error(const char *error, const char *path, int r) {
    size_t length = strlen(path);

    REQUIRE(r < 0 && error);
    REQUIRE(strncmp(error, path, length) == 0 && error[length] == ':');
    REQUIRE(error[length + 1] == ' ' || (error[length + 1] >= '0' && error[length + 1] <= '9'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = file_path(data, size);
    struct config config, again;
    char *error = NULL, *text;
    int r;

    config_init(&config);
    text = settings_text(&config);
    r = config_read_file(&config, path, &error);
    if (r < 0) {
        require_error(error, path, r);
        require_same(&config, text);
        free(error);
    } else {
        REQUIRE(!error);
        free(text);
        text = settings_text(&config);
        config_init(&again);
        r = config_read_file(&again, file_path(text, strlen(text)), &error);
        if (r < 0)
            fprintf(stderr, "%s\n", error);
        REQUIRE(r == 0);
        require_same(&again, text);
        config_deinit(&again);
    }
    free(text);
    config_deinit(&config);
    return 0;
}
