/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TASK_H
#define BENCH_TASK_H

/*
 * One measurement to be made: by which contender, how large, and what was wrong with it.
 */

#include "contender.h"

#include <stdint.h>
#include <sys/types.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define PAGE UINT64_C(4096)
#define SPAN (2 * MIB)

enum scale {
    SCALE_FULL,
    SCALE_QUICK,
    SCALE_TINY, /* shows that the program works, and nothing else */
    SCALE_COUNT,
};

struct row;

struct task {
    const struct row *row;
    enum contender contender;
    enum scale scale;
    pid_t service;
    char reason[160]; /* why there is no value; "" where the errno says it all */
};

/* Notes what went wrong and for what reason. @return @error, a negative errno */
__attribute__((format(printf, 3, 4))) int task_fail(struct task *task, int error, const char *format, ...);

/* One of three by scale. */
static inline uint64_t task_scaled(const struct task *task, uint64_t full, uint64_t quick, uint64_t tiny) {
    return task->scale == SCALE_FULL ? full : task->scale == SCALE_QUICK ? quick : tiny;
}

#endif
