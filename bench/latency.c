/* SPDX-License-Identifier: MIT */

/*
 * One client faults once in a millisecond. The others, if there are any, touch each of their places, drop all, and do so
 * again, without a pause: there are more of them than processors, so what is measured is also who gets one.
 */

#include "latency.h"

#include "crew.h"
#include "memory.h"
#include "pace.h"
#include "window.h"

#include <errno.h>
#include <stdlib.h>

#define INTERVAL_NS 1000000
#define PLACES 128
#define STORM_PLACES 64

static int storm(struct member *member) {
    struct memory memory;
    int r;

    r = memory_open(&memory, &member->task, STORM_PLACES * PACE_PLACE, false);
    if (r < 0)
        return r;
    r = pace_prepare(&memory, &member->task);
    if (r < 0)
        return r;
    member_ready(member);
    do
        r = pace_prepare(&memory, &member->task);
    while (r == 0);
    return r;
}

static int measure(struct memory *memory, struct task *task, struct sample *ret) {
    struct pace pace = {
        .interval_ns = INTERVAL_NS,
        .faults = (unsigned)task_scaled(task, 1000, 300, 20),
    };
    double *us = calloc(pace.faults, sizeof(*us));
    struct window window;
    int r;

    if (!us)
        return -ENOMEM;
    window_open(&window, task);
    r = pace_faults(memory, task, &pace, us);
    window_close(&window, task, ret);
    if (r == 0)
        sample_set_distribution(ret, us, pace.faults);
    free(us);
    return r;
}

int latency_fault(struct task *task, struct sample *ret) {
    struct crew *crew = NULL;
    struct memory memory;
    int r;

    r = memory_open(&memory, task, task_scaled(task, PLACES, PLACES, 8) * PACE_PLACE, false);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    if (r == 0)
        r = pace_prepare(&memory, task);
    if (r == 0 && task->row->count > 0) {
        r = crew_new(&crew, task, task->row->count, 0, storm, NULL);
        if (r == 0)
            crew_start(crew, 0);
    }
    if (r == 0)
        r = measure(&memory, task, ret);
    crew_free(crew);
    memory_close(&memory);
    return r;
}
