/* SPDX-License-Identifier: MIT */
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

/*
 * The guard against slow-downs: ratios of now beside those of a baseline.
 */

#include "result.h"

/*
 * Prints which rows have become worse, and notes them in @worse, by their place in the table. @return number of them, or a negative
 * errno: no baseline.
 */
int compare_print(const struct result *result, const char *path, bool *worse);

#endif
