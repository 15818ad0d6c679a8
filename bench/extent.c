/* SPDX-License-Identifier: MIT */

/*
 * A region's life, step by step: each row shows one step of it, and pays for all of them, as none can be had without the ones
 * before. The value is the median of a few lives.
 */

#include "extent.h"

#include "memory.h"
#include "service.h"
#include "team.h"

#include <errno.h>
#include <unistd.h>

#define LIVES_MAX 20
#define PAUSE_US 1000 /* what the service does after a free must not be in the next one's way */

enum step { STEP_NEW, STEP_FIRST, STEP_REFILL, STEP_FREE, STEP_COUNT };

static double us_since(uint64_t start) {
    return (double)(now_ns() - start) / 1000;
}

static int live(struct task *task, double us[STEP_COUNT]) {
    volatile unsigned char *middle;
    struct memory memory;
    uint64_t start = now_ns();
    int r;

    r = memory_open(&memory, task, task->row->size, false);
    us[STEP_NEW] = us_since(start);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    middle = memory.address + memory.size / 2;
    start = now_ns();
    *middle = 1;
    us[STEP_FIRST] = us_since(start);
    if (r == 0)
        r = memory_drop(&memory, task, 0, memory.size);
    start = now_ns();
    *middle = 1;
    us[STEP_REFILL] = us_since(start);
    start = now_ns();
    memory_close(&memory);
    us[STEP_FREE] = us_since(start);
    usleep(PAUSE_US);
    return r;
}

static int lives(struct task *task, struct sample *ret, enum step step) {
    unsigned count = (unsigned)task_scaled(task, LIVES_MAX, 10, 2);
    double us[LIVES_MAX], steps[STEP_COUNT];
    int r;

    /* One before: the connection, and what is made with the first region, is not meant. */
    r = live(task, steps);
    for (unsigned i = 0; i < count && r == 0; i++) {
        r = live(task, steps);
        us[i] = steps[step];
    }
    if (r == 0)
        sample_set_distribution(ret, us, count);
    return r;
}

int extent_new(struct task *task, struct sample *ret) {
    return lives(task, ret, STEP_NEW);
}

int extent_first(struct task *task, struct sample *ret) {
    return lives(task, ret, STEP_FIRST);
}

int extent_refill(struct task *task, struct sample *ret) {
    return lives(task, ret, STEP_REFILL);
}

int extent_free(struct task *task, struct sample *ret) {
    return lives(task, ret, STEP_FREE);
}

/* ---- memory ---- */

static void touch_spread(const struct memory *memory, uint64_t most) {
    uint64_t spans = memory->size / SPAN, count, step;

    count = spans < 1 ? 1 : spans < most ? spans : most;
    step = memory->size / count;
    for (uint64_t i = 0; i < count; i++)
        ((volatile unsigned char *)memory->address)[i * step] = 1;
}

int extent_memory(struct task *task, struct sample *ret) {
    uint64_t most = task->scale == SCALE_TINY && task->row->count > 64 ? 64 : task->row->count;
    uint64_t rss, before, after;
    struct memory memory;
    int r;

    if (!memory_connection(task))
        return -ENOTCONN;
    service_settle(task->service, 0);
    r = service_memory(task->service, &rss, &before);
    if (r < 0)
        return task_fail(task, r, "the service's smaps_rollup");
    r = memory_open(&memory, task, task->row->size, false);
    if (r < 0)
        return r;
    if (most > 0)
        touch_spread(&memory, most);
    service_settle(task->service, 0);
    r = service_memory(task->service, &rss, &after);
    ret->value = ((double)after - (double)before) / (double)MIB;
    if (r == 0 && most > 0)
        r = memory_drop(&memory, task, 0, memory.size);
    if (r == 0 && most > 0 && service_memory(task->service, &rss, &after) == 0)
        ret->extra[EXTRA_AFTER_DROP] = (double)after - (double)before;
    memory_close(&memory);
    service_settle(task->service, 0);
    if (r == 0 && service_memory(task->service, &rss, &after) == 0)
        ret->extra[EXTRA_AFTER_FREE] = (double)after - (double)before;
    return r;
}
