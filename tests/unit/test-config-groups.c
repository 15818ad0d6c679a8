/* SPDX-License-Identifier: MIT */
/* The settings' sections of one user or one cgroup. What is wrong with them test-config.c asks. */

#define _GNU_SOURCE

#include "config.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_config(struct config *config, const char *text, char **ret_error) {
    char path[] = "/tmp/test-config-groups-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC), r;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    r = config_read_file(config, path, ret_error);
    unlink(path);
    return r;
}

static const char *value_of(const struct config *config, const char *section, const char *name) {
    static char value[64];
    const char *other, *key;

    for (size_t i = 0; config_value(config, i, &other, &key, value, sizeof(value)); i++)
        if (strcmp(other, section) == 0 && strcmp(key, name) == 0)
            return value;
    return NULL;
}

/* Sections of one user or cgroup: each is there once, over files, too, and a path may be longer than a line. */
START_TEST(test_groups) {
    static const char text[] =
        "[User root]\nBudget=1G\n[Limits]\nConnections=7\n[Cgroup /a b]\nBudget=infinity\nQuota=64M\n"
        "[User 0]\nQuota=2G\n[User 4711]\nBudget=8M\n";
    char *error = NULL, name[600] = "", longer[800];
    struct config config, other;

    config_init(&config);
    ck_assert_int_eq(read_config(&config, text, &error), 0);
    ck_assert_uint_eq(config.n_groups, 3);
    ck_assert_uint_eq(config.max_connections, 7);
    ck_assert_str_eq(value_of(&config, "User root", "Budget"), "1G");
    ck_assert_str_eq(value_of(&config, "User root", "Quota"), "2G");
    ck_assert_ptr_null(value_of(&config, "User 0", "Quota"));
    ck_assert_str_eq(value_of(&config, "User 4711", "Quota"), "");
    ck_assert_str_eq(value_of(&config, "Cgroup /a b", "Budget"), "infinity");
    ck_assert_str_eq(config.groups[1].path, "/a b");
    ck_assert_uint_eq(config.groups[0].uid, 0);

    ck_assert_int_eq(read_config(&config, "[Cgroup /a b]\nBudget=\n[User root]\nBudget=16M\n", &error), 0);
    ck_assert_uint_eq(config.n_groups, 3);
    ck_assert_str_eq(value_of(&config, "User root", "Budget"), "16M");
    ck_assert_str_eq(value_of(&config, "Cgroup /a b", "Budget"), "");
    ck_assert_str_eq(value_of(&config, "Cgroup /a b", "Quota"), "64M");

    memset(name, 'x', 500);
    snprintf(longer, sizeof(longer), "[Cgroup /%s]\nBudget=1G\n", name);
    ck_assert_int_eq(read_config(&config, longer, &error), 0);
    ck_assert_str_eq(config.groups[3].path + 1, name);

    config_init(&other);
    ck_assert_int_eq(read_config(&other, "[User 4711]\nBudget=1M\n", &error), 0);
    for (size_t i = 0, same;; i++) {
        const char *section, *key;
        char value[64];

        if (!config_value(&config, i, &section, &key, value, sizeof(value)))
            break;
        same = config_same(&config, i, &other);
        if (strcmp(section, "User 4711") == 0)
            ck_assert_uint_eq(config_same(&other, same, &config), i);
        else
            ck_assert_uint_eq(same, strchr(section, ' ') ? SIZE_MAX : i);
    }
    config_deinit(&other);
    config_deinit(&config);
}
END_TEST

START_TEST(test_too_many_groups) {
    struct config config;
    char *error = NULL, *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    for (unsigned i = 0; i < 600; i++)
        fprintf(file, "[User %u]\nBudget=1G\n", 1000 + i);
    fclose(file);
    config_init(&config);
    ck_assert_int_eq(read_config(&config, text, &error), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(error, ":1025: [User 1512]: there are too many users and cgroups before it"));
    ck_assert_uint_eq(config.n_groups, 0);
    free(error);
    free(text);
    config_deinit(&config);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config-groups");
    TCase *tcase = tcase_create("config-groups");

    tcase_add_test(tcase, test_groups);
    tcase_add_test(tcase, test_too_many_groups);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
