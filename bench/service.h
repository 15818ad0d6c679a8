/* SPDX-License-Identifier: MIT */
#ifndef BENCH_SERVICE_H
#define BENCH_SERVICE_H

/*
 * The service as a process: which it is, what it uses.
 */

#include <stdint.h>
#include <sys/types.h>

/* The process that listens at $DROPPABLE_SOCKET. @return 0 or a negative errno */
int service_find(pid_t *ret);

/* CPU time of all its threads so far, also of those that have ended, ns. 0 if it cannot be told. */
uint64_t service_cpu_ns(pid_t service);

/* How many it has. 0 if it cannot be told. */
unsigned service_threads(pid_t service);

/* Waits until it has nothing to do and at most so many threads (0: any number): for a few seconds. */
void service_settle(pid_t service, unsigned threads);

/* Bytes. @return 0 or a negative errno */
int service_memory(pid_t service, uint64_t *ret_rss, uint64_t *ret_pss);

#endif
