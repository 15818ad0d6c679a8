/* SPDX-License-Identifier: MIT */
#ifndef BENCH_JSON_H
#define BENCH_JSON_H

/*
 * Results as programs read them. These functions tell on stderr what went wrong.
 */

#include "result.h"

/* @return 0 or a negative errno */
int json_write(const struct result *result, const char *path);

/* A file that json_write() made, as tab-separated lines for gnuplot. @return 0 or a negative errno */
int json_print_tsv(const char *path);

/* The same of its growth curves, a line for each point. @return 0 or a negative errno */
int json_print_curves(const char *path);

#endif
