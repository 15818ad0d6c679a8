/* SPDX-License-Identifier: MIT */

/*
 * What memory costs beside its use. The value is the median of a few times within one round: a single call is short, and one that
 * was interrupted says nothing about the others.
 */

#include "lifetime.h"

#include "memory.h"
#include "team.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CREATES 100
#define FORKS 7

static uint64_t size_of(const struct task *task) {
    uint64_t largest = task_scaled(task, GIB, 256 * MIB, 16 * MIB);

    return task->row->size ? task->row->size : largest;
}

int lifetime_create(struct task *task, struct sample *ret) {
    size_t count = task_scaled(task, CREATES, CREATES, 5);
    struct memory memory;
    double us[CREATES];
    int r;

    /* One before: the connection, and what is made with the first region, is not meant. */
    r = memory_open(&memory, task, size_of(task), task->row->huge);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    memory_close(&memory);
    for (size_t i = 0; i < count && r == 0; i++) {
        uint64_t start = now_ns();

        r = memory_open(&memory, task, size_of(task), task->row->huge);
        if (r < 0)
            return r;
        memory_close(&memory);
        us[i] = (double)(now_ns() - start) / 1000;
    }
    if (r == 0)
        sample_set_distribution(ret, us, count);
    return r;
}

static int fork_once(double *ret_ms) {
    uint64_t start = now_ns();
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0)
        _exit(0);
    if (waitpid(pid, NULL, 0) != pid)
        return -errno;
    *ret_ms = (double)(now_ns() - start) / 1e6;
    return 0;
}

int lifetime_fork(struct task *task, struct sample *ret) {
    struct memory memory;
    double ms[FORKS];
    int r;

    r = memory_open(&memory, task, size_of(task), task->row->huge);
    if (r < 0)
        return r;
    r = memory_check(&memory, task);
    memset(memory.address, 1, memory.size);
    ret->extra[EXTRA_HUGE] = memory_huge_share(&memory);
    if (r == 0)
        r = memory_check_huge(&memory, task);
    for (unsigned i = 0; i < FORKS && r == 0; i++) {
        r = fork_once(&ms[i]);
        if (r < 0)
            task_fail(task, r, "fork");
    }
    if (r == 0)
        sample_set_distribution(ret, ms, FORKS);
    memory_close(&memory);
    return r;
}
