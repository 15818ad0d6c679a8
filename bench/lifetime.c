/* SPDX-License-Identifier: MIT */

/*
 * What memory costs beside its use. The value is the median of a few times within one round: a single call is short, and one that
 * was interrupted says nothing about the others.
 */

#include "lifetime.h"

#include "memory.h"
#include "team.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CREATES 100
#define FORKS 15
#define FORK_THREADS_MAX 8

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

/* *made: how many there are, to be closed. */
static int make_pieces(struct memory *pieces, unsigned count, struct task *task, unsigned *made) {
    for (*made = 0; *made < count; ++*made) {
        int r = memory_open(&pieces[*made], task, task->row->size, false);

        if (r < 0)
            return r;
        memset(pieces[*made].address, 1, pieces[*made].size);
    }
    return 0;
}

static void close_pieces(struct memory *pieces, unsigned made) {
    while (made-- > 0)
        memory_close(&pieces[made]);
}

int lifetime_pieces(struct task *task, struct sample *ret) {
    unsigned count = (unsigned)task_scaled(task, task->row->count, task->row->count, 10), made;
    struct memory *pieces = calloc(count, sizeof(*pieces));
    uint64_t start;
    double ms;
    int r;

    if (!pieces)
        return -ENOMEM;
    /* One before: the connection, and what is made with the first mapping, is not meant. */
    r = make_pieces(pieces, 1, task, &made);
    if (r == 0)
        r = memory_check(&pieces[0], task);
    close_pieces(pieces, made);
    if (r == 0) {
        start = now_ns();
        r = make_pieces(pieces, count, task, &made);
        ms = (double)(now_ns() - start) / 1e6;
        close_pieces(pieces, made);
    }
    free(pieces);
    if (r == 0)
        sample_set_distribution(ret, &ms, 1);
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

static void *idle(void *data) {
    sem_wait(data);
    return NULL;
}

static int measure_forks(struct task *task, struct sample *ret) {
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

/* A process with threads of its own: the C library does more for its children, with or without the library's thread. */
int lifetime_fork(struct task *task, struct sample *ret) {
    pthread_t threads[FORK_THREADS_MAX];
    unsigned made = 0;
    int r = 0;
    sem_t end;

    sem_init(&end, 0, 0);
    while (r == 0 && made < task->row->threads && made < FORK_THREADS_MAX) {
        r = -pthread_create(&threads[made], NULL, idle, &end);
        made += r == 0;
    }
    r = r < 0 ? task_fail(task, r, "pthread_create") : measure_forks(task, ret);
    for (unsigned i = 0; i < made; i++)
        sem_post(&end);
    while (made > 0)
        pthread_join(threads[--made], NULL);
    sem_destroy(&end);
    return r;
}
