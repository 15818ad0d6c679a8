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

/* CPU time of all its threads so far, ns. 0 if it cannot be told. */
uint64_t service_cpu_ns(pid_t service);

/* Bytes. @return 0 or a negative errno */
int service_memory(pid_t service, uint64_t *ret_rss, uint64_t *ret_pss);

#endif
