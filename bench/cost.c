/* SPDX-License-Identifier: MIT */

/*
 * CPU time is that of the service's process, threads that ended included; memory is its Pss, so that a page shared with a client is
 * half the client's. What the kernel holds for it (stacks, descriptors, page tables) is in neither.
 */

#include "cost.h"

#include "crew.h"
#include "memory.h"
#include "pace.h"
#include "service.h"
#include "team.h"

#include <errno.h>
#include <unistd.h>

#define REGIONS 256
#define CLIENTS 100

/* ---- CPU time ---- */

static uint64_t size_of(const struct task *task) {
    return task_scaled(task, GIB, 256 * MIB, 8 * MIB);
}

static void fill(const struct memory *memory) {
    for (uint64_t at = 0; at < memory->size; at += PAGE)
        ((volatile unsigned char *)memory->address)[at] = 1;
}

/* Filled, dropped, filled again: the service's CPU time for the two latter. */
static int measure_cpu(struct task *task, uint64_t *ret_drop_ns, uint64_t *ret_refill_ns) {
    struct memory memory;
    uint64_t before, dropped;
    int r;

    r = memory_open(&memory, task, size_of(task), false);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    fill(&memory);
    service_settle(task->service, 0);
    before = service_cpu_ns(task->service);
    if (r == 0)
        r = memory_drop(&memory, task, 0, memory.size);
    dropped = service_cpu_ns(task->service);
    fill(&memory);
    *ret_refill_ns = service_cpu_ns(task->service) - dropped;
    *ret_drop_ns = dropped - before;
    memory_close(&memory);
    return r;
}

/* ms for a GiB. */
static double for_a_gib(const struct task *task, uint64_t ns) {
    return (double)ns / 1e6 * (double)GIB / (double)size_of(task);
}

int cost_refill(struct task *task, struct sample *ret) {
    uint64_t drop, refill;
    int r = measure_cpu(task, &drop, &refill);

    if (r == 0)
        ret->value = for_a_gib(task, refill);
    return r;
}

int cost_drop(struct task *task, struct sample *ret) {
    uint64_t drop, refill;
    int r = measure_cpu(task, &drop, &refill);

    if (r == 0)
        ret->value = for_a_gib(task, drop);
    return r;
}

/* A client that has dropped memory, and then nothing to do. */
static int sit(struct member *member) {
    struct memory memory;
    int r;

    r = memory_open(&memory, &member->task, SPAN, false);
    if (r == 0)
        r = pace_prepare(&memory, &member->task);
    if (r == 0)
        member_ready(member);
    return r;
}

int cost_idle(struct task *task, struct sample *ret) {
    uint64_t ms = task_scaled(task, 3000, 1000, 50), start, before;
    struct crew *crew;
    int r;

    r = crew_new(&crew, task, task->row->count, 0, sit, NULL);
    if (r < 0)
        return r;
    service_settle(task->service, 0);
    start = now_ns();
    before = service_cpu_ns(task->service);
    usleep((useconds_t)ms * 1000);
    ret->value = (double)(service_cpu_ns(task->service) - before) * 1e6 / (double)(now_ns() - start);
    crew_free(crew);
    return 0;
}

/* ---- memory ---- */

static int take_pss(struct task *task, double *ret) {
    uint64_t rss, pss;
    int r;

    service_settle(task->service, 0);
    r = service_memory(task->service, &rss, &pss);
    if (r < 0)
        return task_fail(task, r, "the service's smaps_rollup");
    *ret = (double)pss;
    return 0;
}

int cost_resident(struct task *task, struct sample *ret) {
    double before, after;
    struct memory memory;
    int r;

    r = memory_open(&memory, task, size_of(task), false);
    if (r < 0)
        return r;
    r = take_pss(task, &before);
    fill(&memory);
    if (r == 0)
        r = take_pss(task, &after);
    if (r == 0)
        ret->value = (after - before) / (double)KIB * (double)GIB / (double)size_of(task);
    memory_close(&memory);
    return r;
}

int cost_region(struct task *task, struct sample *ret) {
    struct memory memories[REGIONS];
    double before, after;
    unsigned made = 0;
    int r;

    if (!memory_connection(task))
        return -ENOTCONN;
    r = take_pss(task, &before);
    while (made < REGIONS && r == 0) {
        r = memory_open(&memories[made], task, SPAN, false);
        made += r == 0;
    }
    if (r == 0)
        r = take_pss(task, &after);
    if (r == 0)
        ret->value = (after - before) / (double)KIB / REGIONS;
    while (made > 0)
        memory_close(&memories[--made]);
    return r;
}

int cost_client(struct task *task, struct sample *ret) {
    unsigned count = (unsigned)task_scaled(task, CLIENTS, CLIENTS, 4);
    double before, after;
    struct crew *crew;
    int r;

    r = take_pss(task, &before);
    if (r < 0)
        return r;
    r = crew_new(&crew, task, count, 0, sit, NULL);
    if (r < 0)
        return r;
    r = take_pss(task, &after);
    if (r == 0)
        ret->value = (after - before) / (double)KIB / count;
    crew_free(crew);
    return r;
}
