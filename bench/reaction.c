/* SPDX-License-Identifier: MIT */

/*
 * A process in a memory cgroup of 512 MiB has 256 MiB droppable there, all touched. It then allocates in 4 KiB pages, as fast as it
 * can, until headroom falls below the service's reserve; that is the start. It stops, and looks until headroom is above it again. Reading the
 * cgroup's usage costs a page's fault, and so comes after every 16 pages.
 *
 * A service that is always in time does not let it come so far: then the time is 0, and the process stops when three quarters of the
 * memory that was droppable have gone.
 */

#include "reaction.h"

#include "crew.h"
#include "memcg.h"
#include "memory.h"
#include "pace.h"
#include "team.h"
#include "window.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT (512 * MIB)
#define DROPPABLE (256 * MIB)
#define BATCH 16 /* pages */
#define TIMES_MAX 7
#define WAIT_NS UINT64_C(5000000000)
#define REST_US 50000

enum { VALUE_DROPPED = TIMES_MAX, VALUE_RESERVE, VALUE_COUNT };

static void fill(const struct memory *memory) {
    for (uint64_t at = 0; at < memory->size; at += PAGE)
        ((volatile unsigned char *)memory->address)[at] = 1;
}

/* Until headroom is below the reserve; that time, or 0: it never was. */
static uint64_t allocate(const struct memcg *memcg, unsigned char *plain, uint64_t size, uint64_t reserve) {
    for (uint64_t at = 0; at < size; at += BATCH * PAGE) {
        for (unsigned i = 0; i < BATCH; i++)
            ((volatile unsigned char *)plain)[at + i * PAGE] = 1;
        if (memcg_headroom(memcg) < reserve)
            return now_ns();
    }
    return 0;
}

static int react_once(struct memcg *memcg, struct task *task, uint64_t reserve, double *ret_ms) {
    uint64_t size = LIMIT - DROPPABLE / 4 - reserve, start, end;
    unsigned char *plain = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r = memcg_look(memcg, task);

    if (r == 0 && plain == MAP_FAILED)
        r = task_fail(task, -errno, "mmap");
    if (r < 0)
        return r;
    madvise(plain, size, MADV_NOHUGEPAGE);
    start = allocate(memcg, plain, size / (BATCH * PAGE) * (BATCH * PAGE), reserve);
    end = now_ns();
    while (start && end - start < WAIT_NS && memcg_headroom(memcg) < reserve)
        end = now_ns();
    if (start && end - start >= WAIT_NS)
        r = task_fail(task, -ETIMEDOUT,
                      "headroom still %" PRIu64 " KiB after %d s, reserve %" PRIu64 " KiB, cache %" PRIu64,
                      memcg_headroom(memcg) / KIB, (int)(WAIT_NS / 1000000000), reserve / KIB, memcg->cache / KIB);
    *ret_ms = start ? (double)(end - start) / 1e6 : 0;
    munmap(plain, size);
    usleep(REST_US);
    return r;
}

/* In a process of its own, which may be killed. */
static int react(struct member *member) {
    struct memcg memcg = *(const struct memcg *)member->context;
    unsigned times = (unsigned)task_scaled(&member->task, TIMES_MAX, 3, 1);
    struct task *task = &member->task;
    struct memory memory;
    struct drp_stats before, after;
    int r;

    r = memcg_enter(&memcg, task);
    if (r == 0)
        r = memory_open(&memory, task, DROPPABLE, false);
    if (r == 0)
        r = drp_get_stats(memory_connection(task), &before);
    if (r < 0)
        return r;
    member_ready(member);
    for (unsigned i = 0; i < times && r == 0; i++) {
        fill(&memory);
        usleep(REST_US);
        r = react_once(&memcg, task, (uint64_t)member->values[VALUE_RESERVE], &member->values[i]);
    }
    if (r == 0)
        r = drp_get_stats(memory_connection(task), &after);
    if (r == 0)
        member->values[VALUE_DROPPED] = (double)(after.dropped_bytes - before.dropped_bytes) / times;
    return r;
}

int reaction_time(struct task *task, struct sample *ret) {
    unsigned times = (unsigned)task_scaled(task, TIMES_MAX, 3, 1);
    struct crew *crew = NULL;
    struct memcg memcg;
    uint64_t reserve;
    int r;

    r = memcg_init(&memcg, task, LIMIT);
    if (r < 0)
        return r;
    r = crew_new(&crew, task, 1, VALUE_COUNT, react, &memcg);
    if (r == 0)
        r = memcg_reserve(&memcg, task, &reserve);
    if (r == 0) {
        crew_values(crew)[VALUE_RESERVE] = (double)reserve;
        crew_start(crew, 0);
        r = crew_wait(crew, task);
    }
    if (r == 0) {
        ret->extra[EXTRA_DROPPED] = crew_values(crew)[VALUE_DROPPED];
        sample_set_distribution(ret, crew_values(crew), times);
    }
    crew_free(crew);
    memcg_deinit(&memcg);
    return r;
}
