/* SPDX-License-Identifier: MIT */
#ifndef BENCH_WINDOW_H
#define BENCH_WINDOW_H

/*
 * What the service did and used in the timed part of a measurement. Nothing, for contenders without one.
 */

#include "memory.h"
#include "sample.h"

struct window {
    bool counted; /* there is a service to be counted */
    struct drp_stats stats;
    uint64_t cpu_ns;
};

void window_open(struct window *window, struct task *task);
/* Notes the differences in @sample. */
void window_close(struct window *window, struct task *task, struct sample *sample);

#endif
