/* SPDX-License-Identifier: MIT */

/*
 * Each has one span, of which a page was touched. What is timed is one more, or one of them at a time, in an order in which no two
 * neighbours follow each other.
 */

#include "crowd.h"

#include "memory.h"
#include "service.h"
#include "team.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define REPEATS_MAX 200
#define PAUSE_US 500
#define STEP 7919 /* a prime */

struct crowd {
    struct memory *memories;
    unsigned count;
};

static void touch(const struct memory *memory) {
    *(volatile unsigned char *)memory->address = 1;
}

/* Each needs a few descriptors: as many as this process may have. */
static void raise_limit(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void crowd_deinit(struct crowd *crowd, const struct task *task) {
    while (crowd->count > 0)
        memory_close(&crowd->memories[--crowd->count]);
    free(crowd->memories);
    service_settle(task->service, 0);
}

static int crowd_init(struct crowd *crowd, struct task *task) {
    unsigned count = task->row->count;
    int r = 0;

    raise_limit();
    *crowd = (struct crowd){.memories = calloc(count, sizeof(*crowd->memories))};
    if (!crowd->memories)
        return -ENOMEM;
    for (; crowd->count < count && r == 0; crowd->count++) {
        r = memory_open(&crowd->memories[crowd->count], task, SPAN, false);
        if (r < 0)
            break;
        r = memory_check(&crowd->memories[crowd->count], task);
        touch(&crowd->memories[crowd->count]);
    }
    if (r < 0)
        crowd_deinit(crowd, task);
    else
        service_settle(task->service, 0);
    return r;
}

static int one_more(struct task *task, bool whole_life, double *ret_us) {
    struct memory memory;
    uint64_t start = now_ns();
    int r;

    r = memory_open(&memory, task, SPAN, false);
    if (r < 0)
        return r;
    if (!whole_life)
        *ret_us = (double)(now_ns() - start) / 1000;
    touch(&memory);
    memory_close(&memory);
    if (whole_life)
        *ret_us = (double)(now_ns() - start) / 1000;
    return 0;
}

static int fault_once(struct crowd *crowd, struct task *task, unsigned i, double *ret_us) {
    struct memory *memory = &crowd->memories[(uint64_t)i * STEP % crowd->count];
    uint64_t start;
    int r;

    r = memory_drop(memory, task, 0, memory->size);
    if (r < 0)
        return r;
    /* At once: after a pause the processor has to wake up and its caches are others', which says nothing of how many regions there are. */
    start = now_ns();
    touch(memory);
    *ret_us = (double)(now_ns() - start) / 1000;
    return 0;
}

enum what { WHAT_NEW, WHAT_CYCLE, WHAT_FAULT };

static int repeat(struct task *task, struct sample *ret, enum what what) {
    unsigned count = (unsigned)task_scaled(task, what == WHAT_FAULT ? REPEATS_MAX : 50, 30, 3);
    double us[REPEATS_MAX];
    struct crowd crowd;
    int r;

    r = crowd_init(&crowd, task);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < count && r == 0; i++) {
        if (what == WHAT_FAULT)
            r = fault_once(&crowd, task, i, &us[i]);
        else
            r = one_more(task, what == WHAT_CYCLE, &us[i]);
        if (what != WHAT_FAULT)
            usleep(PAUSE_US);
    }
    if (r == 0)
        sample_set_distribution(ret, us, count);
    crowd_deinit(&crowd, task);
    return r;
}

int crowd_new(struct task *task, struct sample *ret) {
    return repeat(task, ret, WHAT_NEW);
}

int crowd_cycle(struct task *task, struct sample *ret) {
    return repeat(task, ret, WHAT_CYCLE);
}

int crowd_fault(struct task *task, struct sample *ret) {
    return repeat(task, ret, WHAT_FAULT);
}
