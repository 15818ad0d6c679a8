/* SPDX-License-Identifier: MIT */
#ifndef BENCH_LIFETIME_H
#define BENCH_LIFETIME_H

/*
 * Making and freeing memory, and forking with it. row: size (0: the largest of this scale), huge.
 */

#include "rows.h"

int lifetime_create(struct task *task, struct sample *ret); /* us for making and freeing, nothing touched */

/* ms for fork(), _exit() and wait(), all resident. row->threads: as many idle ones besides. */
int lifetime_fork(struct task *task, struct sample *ret);

/* row->count mappings of row->size bytes each, made and touched one after the other: ms for all of them. */
int lifetime_pieces(struct task *task, struct sample *ret);

#endif
