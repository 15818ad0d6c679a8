/* SPDX-License-Identifier: MIT */
#ifndef BENCH_STEADY_H
#define BENCH_STEADY_H

/*
 * Using memory that is there: ns per read, random order. row: huge.
 */

#include "rows.h"

int steady_read(struct task *task, struct sample *ret);

#endif
