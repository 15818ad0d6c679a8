/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

/*
 * Results as people read them.
 */

#include "result.h"

void table_print(const struct result *result);
/* The rows, what they measure and by whom. */
void table_list(void);

#endif
