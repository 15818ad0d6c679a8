/* SPDX-License-Identifier: MIT */
#ifndef BENCH_PINS_H
#define BENCH_PINS_H

/*
 * Pins, and reads without one: ns per operation, of all threads together. row: threads; variant: pins_place.
 */

#include "rows.h"

enum pins_place {
    PINS_SAME,  /* all threads pin one chunk */
    PINS_APART, /* each its own, one beside the other */
};

int pins_pair(struct task *task, struct sample *ret); /* drp_pin() and drp_unpin() */
int pins_read(struct task *task, struct sample *ret); /* drp_read_begin(), a load, drp_read_retry() */

#endif
