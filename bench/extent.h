/* SPDX-License-Identifier: MIT */
#ifndef BENCH_EXTENT_H
#define BENCH_EXTENT_H

/*
 * Memory from small to huge, hardly anything of it touched. row: size.
 */

#include "rows.h"

int extent_new(struct task *task, struct sample *ret);    /* us */
int extent_first(struct task *task, struct sample *ret);  /* us of the first touch */
int extent_refill(struct task *task, struct sample *ret); /* us of a touch after a drop */
int extent_free(struct task *task, struct sample *ret);   /* us, with one page resident */

/*
 * MiB that the service needs more (Pss): for making it, row->count = 0, and with one page in each span, row->count of them at
 * most, spread evenly.
 */
int extent_memory(struct task *task, struct sample *ret);

#endif
