/* SPDX-License-Identifier: MIT */

/* Lines "CHECK REASON [M.N-M.N] [root|user]": of the versions of Linux from the one to the other, or of all; of whom. '#' begins a comment. */

#include "expected.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

static unsigned number_of(unsigned major, unsigned minor) {
    return major * 1000 + minor;
}

static unsigned this_kernel(void) {
    unsigned major = 0, minor = 0;
    struct utsname name;

    if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2)
        return 0;
    return number_of(major, minor);
}

/* 1: of this kernel, and of whoever is meant; 0: of others; -EBADMSG. */
static int holds(const char *condition, bool user) {
    unsigned major, minor, last_major, last_minor;
    char rest;

    if (!*condition)
        return 1;
    if (strcmp(condition, "root") == 0 || strcmp(condition, "user") == 0)
        return user == (strcmp(condition, "user") == 0);
    if (sscanf(condition, "%u.%u-%u.%u%c", &major, &minor, &last_major, &last_minor, &rest) != 4)
        return -EBADMSG;
    return this_kernel() >= number_of(major, minor) && this_kernel() <= number_of(last_major, last_minor);
}

static int add(struct expected *expected, const char *text, bool user) {
    struct expected_line line, *grown;
    char conditions[2][16] = {"", ""}, more;
    int n = sscanf(text, "%63s %31s %15s %15s %c", line.check, line.reason, conditions[0], conditions[1], &more);

    if (n < 2 || n > 4)
        return -EBADMSG;
    for (int i = 0, r; i < 2; i++) {
        r = holds(conditions[i], user);
        if (r <= 0)
            return r;
    }
    if (!strchr(line.check, '.') || expected_reason(expected, line.check))
        return -EBADMSG;
    grown = realloc(expected->lines, (expected->n + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    expected->lines = grown;
    grown[expected->n++] = line;
    return 0;
}

int expected_init(struct expected *expected, const char *path, bool user) {
    FILE *file = fopen(path, "re");
    char text[256];
    int r = file ? 0 : -errno;

    *expected = (struct expected){0};
    while (r == 0 && fgets(text, sizeof(text), file)) {
        text[strcspn(text, "#\n")] = '\0';
        if (text[strspn(text, " ")])
            r = add(expected, text, user);
        if (r < 0)
            fprintf(stderr, "%s: not understood: %s\n", path, text);
    }
    if (file)
        fclose(file);
    else
        fprintf(stderr, "cannot read %s: %s\n", path, strerror(-r));
    if (r < 0)
        expected_deinit(expected);
    return r;
}

void expected_deinit(struct expected *expected) {
    free(expected->lines);
    *expected = (struct expected){0};
}

const char *expected_reason(const struct expected *expected, const char *check) {
    for (size_t i = 0; i < expected->n; i++)
        if (strcmp(expected->lines[i].check, check) == 0)
            return expected->lines[i].reason;
    return NULL;
}
