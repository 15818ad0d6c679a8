/* SPDX-License-Identifier: MIT */
#ifndef BENCH_SIGNAL_H
#define BENCH_SIGNAL_H

/*
 * What an access to lost memory costs where that is a signal: from the access, by the handler, which finds the region and populates the page, to
 * the end of the access.
 */

#include "rows.h"

int signal_retry(struct task *task, struct sample *ret);

#endif
