/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TEAM_H
#define BENCH_TEAM_H

/*
 * The same work by several threads at once, timed.
 */

#include <stdint.h>

#define TEAM_MAX 64

uint64_t now_ns(void);

/*
 * Calls @work once in each thread, with its number. @ret_ns is from the first start to the last end; the threads are made
 * before. @return 0 or a negative errno
 */
int team_run(unsigned threads, void (*work)(void *context, unsigned number), void *context, uint64_t *ret_ns);

#endif
