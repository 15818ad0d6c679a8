/* SPDX-License-Identifier: MIT */

/*
 * Touching memory that is not there. A byte is written to each page of a list, which the threads share out in equal runs; the
 * list is made before. Time is from the first thread's start to the last one's end, over all pages of the list.
 *
 * A sparse touch takes a span of its own, so that memory is large but hardly filled; of huge pages, which fill it, there are fewer.
 * The textbook's server gets an eighth of the memory: what a page costs it does not depend on that, and it takes ten times as long.
 */

#include "touch.h"

#include "memory.h"
#include "team.h"
#include "window.h"

#include <errno.h>
#include <stdlib.h>

#define STRIDE 16
#define LEFT_MAX 0.05 /* of what was there: more after a drop means that it was none */

struct walk {
    volatile unsigned char *address;
    uint32_t *pages;
    uint64_t count;
    unsigned threads;
};

static uint64_t size_of(const struct task *task) {
    uint64_t size = task_scaled(task, 512 * MIB, 128 * MIB, 8 * MIB);

    if (task->row->pattern == PATTERN_SPARSE)
        size = task_scaled(task, task->row->huge ? 512 : 4096, task->row->huge ? 512 : 2048, 8) * SPAN;
    return task->contender == CONTENDER_TEXTBOOK || task->contender == CONTENDER_SERVER ? size / 8 : size;
}

static void shuffle(uint32_t *pages, uint64_t count) {
    uint64_t random = 88172645463325252;

    for (uint64_t i = count - 1; i > 0; i--) {
        uint32_t page = pages[i];
        uint64_t other;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        other = random % (i + 1);
        pages[i] = pages[other];
        pages[other] = page;
    }
}

static int walk_init(struct walk *walk, const struct row *row, const struct memory *memory) {
    uint64_t step = row->pattern == PATTERN_STRIDED ? STRIDE : row->pattern == PATTERN_SPARSE ? SPAN / PAGE : 1;

    walk->address = memory->address;
    walk->threads = row->threads;
    walk->count = memory->size / PAGE / step;
    walk->pages = malloc(walk->count * sizeof(*walk->pages));
    if (!walk->pages)
        return -ENOMEM;
    for (uint64_t i = 0; i < walk->count; i++) {
        walk->pages[i] = (uint32_t)(i * step);
        if (row->pattern == PATTERN_SPARSE) /* not always a span's first page */
            walk->pages[i] += (uint32_t)(i * 197 % (SPAN / PAGE));
    }
    if (row->pattern == PATTERN_RANDOM)
        shuffle(walk->pages, walk->count);
    return 0;
}

static void touch(void *context, unsigned number) {
    const struct walk *walk = context;
    uint64_t end = walk->count * (number + 1) / walk->threads;

    for (uint64_t i = walk->count * number / walk->threads; i < end; i++)
        walk->address[walk->pages[i] * PAGE] = 1;
}

static int touch_timed(struct walk *walk, const struct memory *memory, struct task *task, struct sample *ret) {
    struct window window;
    uint64_t ns;
    int r;

    window_open(&window, task);
    r = team_run(walk->threads, touch, walk, &ns);
    if (r < 0)
        return task_fail(task, r, "threads");
    window_close(&window, task, ret);
    ret->value = (double)ns / (double)walk->count / 1000;
    ret->extra[EXTRA_RESIDENT_AFTER] = (double)memory_resident(memory);
    ret->extra[EXTRA_HUGE] = memory_huge_share(memory);
    return memory_check_huge(memory, task);
}

int touch_first(struct task *task, struct sample *ret) {
    struct walk walk = {0};
    struct memory memory;
    int r;

    memory_warm(task_scaled(task, 512 * MIB, 128 * MIB, 8 * MIB));
    r = memory_open(&memory, task, size_of(task), task->row->huge);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    if (r == 0)
        r = walk_init(&walk, task->row, &memory);
    if (r == 0)
        r = touch_timed(&walk, &memory, task, ret);
    memory_close(&memory);
    free(walk.pages);
    return r;
}

/* Touched, and dropped. */
static int prepare(struct walk *walk, struct memory *memory, struct task *task, struct sample *ret) {
    uint64_t before, left, ns;
    int r;

    r = team_run(walk->threads, touch, walk, &ns);
    if (r < 0)
        return task_fail(task, r, "threads");
    before = memory_resident(memory);
    r = memory_drop(memory, task, 0, memory->size);
    if (r < 0)
        return r;
    left = memory_resident(memory);
    if (before == UINT64_MAX || left == UINT64_MAX)
        return task_fail(task, -ENOMEM, "mincore");
    if ((double)left > (double)before * LEFT_MAX)
        return task_fail(task, -EBUSY, "after the drop %.0f %% of it are still there",
                         (double)left * 100 / (double)before);
    ret->extra[EXTRA_RESIDENT_BEFORE] = (double)before;
    return 0;
}

int touch_refill(struct task *task, struct sample *ret) {
    struct walk walk = {0};
    struct memory memory;
    int r;

    r = memory_open(&memory, task, size_of(task), task->row->huge);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    if (r == 0)
        r = walk_init(&walk, task->row, &memory);
    if (r == 0)
        r = prepare(&walk, &memory, task, ret);
    if (r == 0)
        r = touch_timed(&walk, &memory, task, ret);
    if (r == 0)
        ret->extra[EXTRA_BROUGHT_BACK] = ret->extra[EXTRA_RESIDENT_AFTER] / ret->extra[EXTRA_RESIDENT_BEFORE];
    memory_close(&memory);
    free(walk.pages);
    return r;
}
