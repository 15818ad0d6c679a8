/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_RESTART_LOAD_H
#define DROPPABLE_TESTS_RESTART_LOAD_H

/*
 * A client while the service is restarted, in the test's own process: a region of which half is pinned, and one in which a thread touches one place
 * after the other and looks at what it finds there. One at a time.
 */

#include <droppable/droppable.h>
#include <stddef.h>
#include <stdint.h>

struct load {
    struct drp *d;
    struct drp_region *pinned, *busy;
    size_t half; /* bytes: so much is pinned, and as much behind it is not */
    uint64_t generation;
};

/* Sizes in bytes, multiples of a chunk: the pinned half, and what is touched. */
void load_begin(struct load *load, size_t half, size_t busy);
/* Waits until the library has found the service n times again. */
void load_await_reconnect(const struct load *load, uint64_t n);
/*
 * Waits until the service has both regions. It drops all of them but what is pinned, of which no byte is lost; and what was touched was found as it had
 * been left, or zero. Fails the test otherwise.
 */
void load_check(const struct load *load);
/* The slowest touch since it was asked last, ns. */
uint64_t load_slowest(void);
/* Checks once more what is pinned, and frees everything. */
void load_end(struct load *load);

#endif
