/* SPDX-License-Identifier: MIT */
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

/*
 * The guard against slow-downs: ratios of now beside those of a baseline.
 */

#include "result.h"

/* Prints what has become worse. @return number of rows that have, or a negative errno: no baseline. */
int compare_print(const struct result *result, const char *path);

#endif
