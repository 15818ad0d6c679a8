/* SPDX-License-Identifier: MIT */
#ifndef BENCH_CLIENTS_H
#define BENCH_CLIENTS_H

/*
 * Many clients. row: count.
 */

#include "rows.h"

int clients_fault(struct task *task, struct sample *ret); /* us, p99: all of them together make the same load */
int clients_join(struct task *task, struct sample *ret);  /* us to connect and to make a region, with so many there */

#endif
