/* SPDX-License-Identifier: MIT */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

/*
 * Runs the rows: round by round, contender by contender.
 */

#include "result.h"

#include <sys/types.h>

struct plan {
    enum scale scale;
    unsigned rounds;
    unsigned contenders; /* CONTENDER_BIT()s that take part */
    pid_t service;
};

/* Measures the rows that are selected. A contender that fails in a row is out of it, with its reason. */
void driver_run(struct result *result, const struct plan *plan);

#endif
