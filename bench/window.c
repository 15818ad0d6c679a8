/* SPDX-License-Identifier: MIT */

/*
 * Counters before and after, outside of the timed part. The preload library's counters belong to a connection of its own, so
 * for it only the service's CPU time is known.
 */

#include "window.h"

#include "service.h"

#include <string.h>

static bool read_stats(struct task *task, struct drp_stats *ret) {
    struct drp *d = task->contender == CONTENDER_LIBRARY ? memory_connection(task) : NULL;

    return d && drp_get_stats(d, ret) == 0;
}

void window_open(struct window *window, struct task *task) {
    memset(window, 0, sizeof(*window));
    window->counted = read_stats(task, &window->stats);
    window->cpu_ns = service_cpu_ns(task->service);
}

void window_close(struct window *window, struct task *task, struct sample *sample) {
    struct drp_stats stats;

    if (task->contender != CONTENDER_LIBRARY && task->contender != CONTENDER_PRELOAD)
        return;
    sample->extra[EXTRA_SERVICE_CPU_MS] = (double)(service_cpu_ns(task->service) - window->cpu_ns) / 1e6;
    if (!window->counted || !read_stats(task, &stats))
        return;
    sample->extra[EXTRA_FAULTS] = (double)(stats.intercepted_faults - window->stats.intercepted_faults);
    sample->extra[EXTRA_REFAULTS] = (double)(stats.refaults - window->stats.refaults);
}
