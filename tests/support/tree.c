/* SPDX-License-Identifier: MIT */
/* Small trees of files. A folder with all in it goes by rm(1): tests make their names. */

#include "tree.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *tree_make(char *base) {
    ck_assert_ptr_nonnull(mkdtemp(base));
    return base;
}

void tree_write(const char *base, const char *name, const char *text) {
    char path[1024];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", base, name);
    for (char *slash = strchr(path + strlen(base) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    file = fopen(path, "w");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    fputs(text, file);
    fclose(file);
}

void tree_remove(const char *base, const char *name) {
    char command[1100];

    snprintf(command, sizeof(command), "rm -rf '%s/%s'", base, name);
    ck_assert_int_eq(system(command), 0);
}

char *tree_text(const char *path) {
    static char text[1 << 20];
    FILE *file = fopen(path, "re");
    size_t n;

    ck_assert_ptr_nonnull(file);
    n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    fclose(file);
    return text;
}
