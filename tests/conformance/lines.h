/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CONFORMANCE_LINES_H
#define DROPPABLE_CONFORMANCE_LINES_H

/* What the program conformance printed: lines "section.name: words". Lines that begin with '#' tell how it was made. */

#include <stdbool.h>
#include <stddef.h>

struct line {
    char *check; /* "section.name" */
    char *words;
};

struct lines {
    char *text; /* owns all the strings */
    struct line *lines;
    size_t n;
};

/* text: NUL-terminated, from malloc(3), which becomes theirs in any case. 0, or -errno: -EBADMSG for what is no such line. */
int lines_init(struct lines *lines, char *text);
void lines_deinit(struct lines *lines);
/* NULL: has none. */
const char *lines_find(const struct lines *lines, const char *check);
/* Of the check's name, up to the dot. */
size_t lines_section(const char *check);

#endif
