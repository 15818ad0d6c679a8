/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CONFORMANCE_EXPECTED_H
#define DROPPABLE_CONFORMANCE_EXPECTED_H

/* The lines that cannot be equal, of the file expected-differences. Each has a reason, which docs/differences.md tells about. */

#include <stdbool.h>
#include <stddef.h>

struct expected_line {
    char check[64], reason[32];
};

struct expected {
    struct expected_line *lines; /* of this kernel */
    size_t n;
};

/* user: of a program that is not root. 0, or -errno after a message: -EBADMSG for what is no such line, or one that is there twice. */
int expected_init(struct expected *expected, const char *path, bool user);
void expected_deinit(struct expected *expected);
/* Why the line may differ; NULL: it may not. */
const char *expected_reason(const struct expected *expected, const char *check);

#endif
