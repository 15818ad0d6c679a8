/* SPDX-License-Identifier: MIT */
#ifndef BENCH_COST_H
#define BENCH_COST_H

/*
 * What the service itself uses up.
 */

#include "rows.h"

int cost_refill(struct task *task, struct sample *ret); /* ms of CPU time for a GiB that is filled again, page by page */
int cost_drop(struct task *task, struct sample *ret);   /* ms of CPU time for a GiB that is dropped */
int cost_idle(struct task *task,
              struct sample *ret); /* us of CPU time in a second; row: count of clients that do nothing */
int cost_resident(struct task *task, struct sample *ret); /* KiB of memory for a GiB that is there */
int cost_region(struct task *task, struct sample *ret);   /* KiB of memory for a region of one span */
int cost_client(struct task *task, struct sample *ret);   /* KiB of memory for a client with one region */

#endif
