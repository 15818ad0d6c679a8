/* SPDX-License-Identifier: MIT */

#include "lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int add(struct lines *lines, char *text) {
    char *colon = strchr(text, ':');
    struct line *grown;

    if (!colon || !memchr(text, '.', (size_t)(colon - text)))
        return -EBADMSG;
    grown = realloc(lines->lines, (lines->n + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    lines->lines = grown;
    *colon++ = '\0';
    grown[lines->n++] = (struct line){.check = text, .words = colon + strspn(colon, " ")};
    return 0;
}

int lines_init(struct lines *lines, char *text) {
    char *save = NULL;

    *lines = (struct lines){.text = text};
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int r = *line == '#' ? 0 : add(lines, line);

        if (r < 0) {
            lines_deinit(lines);
            return r;
        }
    }
    return 0;
}

void lines_deinit(struct lines *lines) {
    free(lines->lines);
    free(lines->text);
    *lines = (struct lines){0};
}

const char *lines_find(const struct lines *lines, const char *check) {
    for (size_t i = 0; i < lines->n; i++)
        if (strcmp(lines->lines[i].check, check) == 0)
            return lines->lines[i].words;
    return NULL;
}

size_t lines_section(const char *check) {
    return strcspn(check, ".");
}
