/* SPDX-License-Identifier: MIT */

/*
 * A pin is a counter that the service reads, so it cannot be had for less than a compare-and-swap up and one down: that is what
 * it is measured against, contended in the same way. Time is from the first thread's start to the last one's end, over the
 * operations of all; with more threads than processors that is what the machine gets done.
 */

#include "pins.h"

#include "memory.h"
#include "team.h"

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>

#define CHUNK (64 * KIB)
#define LINES 16
#define LOAD_TIMES 20

struct line {
    alignas(64) _Atomic uint32_t count;
};

struct job {
    struct task *task;
    struct drp_region *region; /* library; else NULL */
    const volatile unsigned char *address;
    uint64_t each; /* operations of one thread */
    _Atomic int error;
};

static struct line lines[LINES];

static uint64_t chunk_of(const struct job *job, unsigned number) {
    return job->task->row->variant == PINS_APART ? number : 0;
}

static void pair_library(void *context, unsigned number) {
    struct job *job = context;
    uint64_t offset = chunk_of(job, number) * CHUNK;
    int failures = 0;

    for (uint64_t i = 0; i < job->each; i++) {
        failures |= drp_pin(job->region, offset, PAGE, NULL);
        failures |= drp_unpin(job->region, offset, PAGE);
    }
    if (failures)
        job->error = -EIO;
}

/* expected: what the last one left there, so that nobody else's doing costs no load. */
static void add(_Atomic uint32_t *count, uint32_t what, uint32_t *expected) {
    while (!atomic_compare_exchange_weak(count, expected, *expected + what))
        ;
    *expected += what;
}

static void pair_cas(void *context, unsigned number) {
    struct job *job = context;
    _Atomic uint32_t *count = &lines[chunk_of(job, number) % LINES].count;
    uint32_t expected = atomic_load_explicit(count, memory_order_relaxed);

    for (uint64_t i = 0; i < job->each; i++) {
        add(count, 1, &expected);
        add(count, UINT32_MAX, &expected);
    }
}

static void read_library(void *context, unsigned number) {
    struct job *job = context;
    uint64_t offset = chunk_of(job, number) * CHUNK, generation;
    int failures = 0;

    for (uint64_t i = 0; i < job->each; i++) {
        failures |= drp_read_begin(job->region, offset, PAGE, &generation);
        (void)job->address[offset];
        failures |= drp_read_retry(job->region, offset, PAGE, generation);
    }
    if (failures)
        job->error = -EIO;
}

static void read_plain(void *context, unsigned number) {
    struct job *job = context;
    uint64_t offset = chunk_of(job, number) * CHUNK;

    for (uint64_t i = 0; i < job->each; i++)
        (void)job->address[offset];
}

static int run_job(struct task *task, struct memory *memory, void (*work)(void *context, unsigned number),
                   struct sample *ret) {
    struct job job = {.task = task};
    uint64_t ns;
    int r;

    if (memory) {
        job.region = memory->region;
        job.address = memory->address;
        for (unsigned i = 0; i < LINES; i++)
            memory->address[i * CHUNK] = 1;
    }
    job.each = task_scaled(task, 4000000, 2000000, 20000) / task->row->threads;
    if (task->contender == CONTENDER_LOAD) /* or it would be over before the threads have all begun */
        job.each *= LOAD_TIMES;
    r = team_run(task->row->threads, work, &job, &ns);
    if (r < 0)
        return task_fail(task, r, "threads");
    if (job.error)
        return task_fail(task, job.error, "a call failed: %s", drp_detail());
    ret->value = (double)ns / (double)(job.each * task->row->threads);
    return 0;
}

static int run_with_memory(struct task *task, void (*work)(void *context, unsigned number), struct sample *ret) {
    struct memory memory;
    int r;

    r = memory_open(&memory, task, LINES * CHUNK, false);
    if (r < 0)
        return r;
    r = run_job(task, &memory, work, ret);
    memory_close(&memory);
    return r;
}

int pins_pair(struct task *task, struct sample *ret) {
    if (task->contender == CONTENDER_LIBRARY)
        return run_with_memory(task, pair_library, ret);
    return run_job(task, NULL, pair_cas, ret);
}

int pins_read(struct task *task, struct sample *ret) {
    return run_with_memory(task, task->contender == CONTENDER_LIBRARY ? read_library : read_plain, ret);
}
