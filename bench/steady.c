/* SPDX-License-Identifier: MIT */

/*
 * Memory that nobody drops must cost what any memory costs. Each address depends on the byte read before, so that the time is that
 * of one access, with its misses in cache and TLB, and not of as many as the processor keeps under way.
 */

#include "steady.h"

#include "memory.h"
#include "team.h"

#include <errno.h>
#include <string.h>

#define BATCH 65536

/* As many reads as fit into the time. @return ns per read */
static double read_for(const volatile unsigned char *address, uint64_t size, uint64_t ns) {
    uint64_t start = now_ns(), end = start, reads = 0, state = 1;

    while (end - start < ns) {
        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t at = (uint64_t)(((unsigned __int128)state * size) >> 64);

            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407) + address[at];
        }
        reads += BATCH;
        end = now_ns();
    }
    return (double)(end - start) / (double)reads;
}

int steady_read(struct task *task, struct sample *ret) {
    uint64_t resident, size = task_scaled(task, 512 * MIB, 128 * MIB, 8 * MIB);
    struct memory memory;
    int r;

    memory_warm(size);
    r = memory_open(&memory, task, size, task->row->huge);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    memset(memory.address, 1, size);
    resident = memory_resident(&memory);
    ret->extra[EXTRA_HUGE] = memory_huge_share(&memory);
    ret->value = read_for(memory.address, size, task_scaled(task, 300, 200, 5) * 1000000);
    ret->extra[EXTRA_RESIDENT_BEFORE] = (double)resident;
    ret->extra[EXTRA_RESIDENT_AFTER] = (double)memory_resident(&memory);
    if (r == 0 && ret->extra[EXTRA_RESIDENT_AFTER] < (double)size)
        r = task_fail(task, -EAGAIN, "something of it was dropped meanwhile");
    if (r == 0)
        r = memory_check_huge(&memory, task);
    memory_close(&memory);
    return r;
}
