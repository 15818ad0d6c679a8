/* SPDX-License-Identifier: MIT */

/*
 * A memory is filled and then dropped piece by piece; only the drops are timed. Small pieces get a memory of many of them, so that
 * the times of single drops give a distribution.
 *
 * While another thread touches, some of what was dropped is there again before the next piece: throughput is then over the size of
 * the pieces, not over what was freed.
 */

#include "drop.h"

#include "memory.h"
#include "team.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define LEFT_MAX 0.05

struct toucher {
    pthread_t thread;
    volatile unsigned char *address;
    uint64_t pages;
    _Atomic uint64_t touches;
    atomic_bool stop;
};

static void *touch_on(void *context) {
    struct toucher *toucher = context;
    uint64_t random = 88172645463325252;

    while (!toucher->stop) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        toucher->address[random % toucher->pages * PAGE] = 1;
        atomic_fetch_add_explicit(&toucher->touches, 1, memory_order_relaxed);
    }
    return NULL;
}

static int toucher_start(struct toucher *toucher, const struct memory *memory) {
    toucher->address = memory->address;
    toucher->pages = memory->size / PAGE;
    atomic_init(&toucher->touches, 0);
    atomic_init(&toucher->stop, false);
    if (pthread_create(&toucher->thread, NULL, touch_on, toucher) != 0)
        return -EAGAIN;
    while (toucher->touches == 0)
        sched_yield();
    return 0;
}

static void toucher_end(struct toucher *toucher) {
    toucher->stop = true;
    pthread_join(toucher->thread, NULL);
}

/* Drops all, piece by piece. @us gets the time of each. */
static int drop_pieces(struct memory *memory, struct task *task, uint64_t piece, double *us, double *ret_us) {
    double sum = 0;

    for (uint64_t at = 0; at < memory->size; at += piece) {
        uint64_t start = now_ns();
        int r = memory_drop(memory, task, at, piece);

        if (r < 0)
            return r;
        us[at / piece] = (double)(now_ns() - start) / 1000;
        sum += us[at / piece];
    }
    *ret_us = sum;
    return 0;
}

static int drop_timed(struct memory *memory, struct task *task, uint64_t piece, struct sample *ret) {
    double sum = 0, *us = calloc(memory->size / piece, sizeof(*us));
    bool busy = task->row->variant == DROP_BUSY;
    struct toucher toucher;
    int r = us ? 0 : -ENOMEM;

    if (r == 0 && busy)
        r = toucher_start(&toucher, memory);
    if (r == 0) {
        uint64_t touches = busy ? toucher.touches : 0;

        r = drop_pieces(memory, task, piece, us, &sum);
        if (busy) {
            touches = toucher.touches - touches;
            toucher_end(&toucher);
            ret->extra[EXTRA_TOUCHES_PER_MS] = (double)touches * 1000 / sum;
        }
    }
    if (r == 0) {
        ret->value = (double)memory->size / sum / 1000;
        ret->extra[EXTRA_US_PER_PAGE] = sum / (double)(memory->size / PAGE);
        ret->extra[EXTRA_P50] = sample_quantile(us, memory->size / piece, 0.5);
        ret->extra[EXTRA_P99] = sample_quantile(us, memory->size / piece, 0.99);
    }
    free(us);
    return r;
}

static int fill(struct memory *memory, struct task *task, struct sample *ret) {
    for (uint64_t at = 0; at < memory->size; at += PAGE)
        ((volatile unsigned char *)memory->address)[at] = 1;
    ret->extra[EXTRA_RESIDENT_BEFORE] = (double)memory_resident(memory);
    ret->extra[EXTRA_HUGE] = memory_huge_share(memory);
    return memory_check_huge(memory, task);
}

int drop_throughput(struct task *task, struct sample *ret) {
    uint64_t largest = task_scaled(task, GIB, 256 * MIB, 16 * MIB), piece = task->row->size, size = largest;
    struct memory memory;
    int r;

    if (piece == 0 || piece > largest)
        piece = largest;
    if (size > 1024 * piece)
        size = 1024 * piece;
    r = memory_open(&memory, task, size, task->row->huge);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    if (r == 0)
        r = fill(&memory, task, ret);
    if (r == 0)
        r = drop_timed(&memory, task, piece, ret);
    if (r == 0 && task->row->variant == DROP_QUIET) {
        ret->extra[EXTRA_RESIDENT_AFTER] = (double)memory_resident(&memory);
        if (ret->extra[EXTRA_RESIDENT_AFTER] > LEFT_MAX * (double)size)
            r = task_fail(task, -EBUSY, "after the drop %.0f %% of it are still there",
                          ret->extra[EXTRA_RESIDENT_AFTER] * 100 / (double)size);
    }
    memory_close(&memory);
    return r;
}
