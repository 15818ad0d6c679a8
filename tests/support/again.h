/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_AGAIN_H
#define DROPPABLE_TESTS_AGAIN_H

/* What is done again where it says nothing, because something stood still: a thread, or the machine. All zeros at the start. */

#include "service.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Fills and drops, after which all accesses are seen: a drop that could not wait for its spans to be armed lets the next ones pass by, and what comes
 * back is as if it had never been there.
 *
 *     for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
 *         fill and drop, all of it
 *     }
 */
struct armed_drops {
    uint64_t unarmed; /* before this try */
    unsigned tries;
};

/* Is there to be a (further) try? Fails the test when twenty were in vain. Where nothing can be intercepted there is one. */
bool armed_drops_again(struct armed_drops *drops, const struct service *of);

/*
 * The longest of many operations, where a machine that stands still is the longest: measured up to three times, and missed only where it is each time, as
 * a service that holds somebody up would.
 *
 *     for (struct bar bar = {.what = "...", .ns = ...}; bar_again(&bar);) {
 *         bar.longest_ns = measure, all of it
 *     }
 */
struct bar {
    const char *what;
    uint64_t ns; /* what is too long */
    uint64_t longest_ns;
    unsigned tries;
};

/* Is there to be a (further) measurement? Prints each, and fails the test when the third misses the bar, too. */
bool bar_again(struct bar *bar);

#endif
