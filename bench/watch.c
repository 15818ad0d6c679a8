/* SPDX-License-Identifier: MIT */

/*
 * A process in a memory cgroup of 256 MiB has 32 MiB droppable there, and so much other memory that its headroom is twice what the
 * service keeps free. The nearer to that, the more often the service looks; below it, it drops.
 */

#include "watch.h"

#include "crew.h"
#include "memcg.h"
#include "memory.h"
#include "service.h"
#include "team.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT (256 * MIB)
#define DROPPABLE (32 * MIB)
#define BATCH 16 /* pages */

enum { VALUE_RESERVE, VALUE_DROPPED, VALUE_COUNT };

static void touch(void *address, uint64_t size) {
    for (uint64_t at = 0; at < size; at += PAGE)
        ((volatile unsigned char *)address)[at] = 1;
}

static int come_near(struct member *member) {
    struct memcg memcg = *(const struct memcg *)member->context;
    struct task *task = &member->task;
    struct drp_stats stats;
    struct memory memory;
    unsigned char *plain;
    uint64_t reserve;
    int r;

    r = memcg_enter(&memcg, task);
    if (r == 0)
        r = memory_open(&memory, task, DROPPABLE, false);
    if (r < 0)
        return r;
    touch(memory.address, memory.size);
    member_ready(member);
    reserve = (uint64_t)member->values[VALUE_RESERVE];
    plain = mmap(NULL, LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (plain == MAP_FAILED)
        return task_fail(task, -errno, "mmap");
    madvise(plain, LIMIT, MADV_NOHUGEPAGE);
    r = memcg_look(&memcg, task);
    for (uint64_t at = 0; r == 0 && at < LIMIT && memcg_headroom(&memcg) > 2 * reserve; at += BATCH * PAGE)
        touch(plain + at, BATCH * PAGE);
    if (r == 0)
        r = drp_get_stats(memory_connection(task), &stats);
    if (r == 0)
        member->values[VALUE_DROPPED] = (double)stats.dropped_bytes;
    return r;
}

int watch_near(struct task *task, struct sample *ret) {
    uint64_t ms = task_scaled(task, 3000, 1000, 50), start, before, reserve;
    struct crew *crew = NULL;
    struct memcg memcg;
    int r;

    r = memcg_init(&memcg, task, LIMIT);
    if (r < 0)
        return r;
    r = crew_new(&crew, task, 1, VALUE_COUNT, come_near, &memcg);
    if (r == 0)
        r = memcg_reserve(&memcg, task, &reserve);
    if (r == 0) {
        crew_values(crew)[VALUE_RESERVE] = (double)reserve;
        crew_start(crew, 0);
        r = crew_wait(crew, task);
    }
    if (r == 0 && crew_values(crew)[VALUE_DROPPED] > 0)
        r = task_fail(task, -EIO, "something was dropped with headroom of twice the reserve");
    if (r == 0) {
        service_settle(task->service, 0);
        start = now_ns();
        before = service_cpu_ns(task->service);
        usleep((useconds_t)ms * 1000);
        ret->value = (double)(service_cpu_ns(task->service) - before) * 1e6 / (double)(now_ns() - start);
    }
    crew_free(crew);
    memcg_deinit(&memcg);
    return r;
}
