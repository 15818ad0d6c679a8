/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_HONEST_H
#define DROPPABLE_TESTS_HONEST_H

/* A client that does what clients do, without a pause, while a test lets others misbehave; and tells how long that took. */

#include "child.h"

#include <stdint.h>

struct honest_figures;
struct honest {
    struct child child;
    struct honest_figures *figures; /* shared with the child */
};

/* Starts the process and returns after its first rounds. */
void honest_start(struct honest *honest);
/* Forgets the times so far. */
void honest_reset(struct honest *honest);
/* Waits until it has done that many more operations; fails the test if it hangs or found a wrong byte. */
void honest_progress(struct honest *honest, uint64_t operations);
/* Of the operations since the reset: the longest, and the one that 99 of 100 are faster than (to a power of two), ns. */
uint64_t honest_longest_ns(const struct honest *honest);
uint64_t honest_p99_ns(const struct honest *honest);
uint64_t honest_operations(const struct honest *honest);
/* How often the library has found a new service. */
uint64_t honest_reconnects(const struct honest *honest);
/* Ends it and fails the test if anything was wrong. */
void honest_stop(struct honest *honest);

#endif
