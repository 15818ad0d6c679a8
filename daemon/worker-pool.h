/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_WORKER_POOL_H
#define DROPPABLE_DAEMON_WORKER_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What is kept ready: a client that registers takes three. */
#define WORKER_POOL_SIZE 8
/* Descriptors that come with a message. */
#define WORKER_KEEP_MAX 2

enum spare_state {
    SPARE_NONE = 0,
    SPARE_ORDERED, /* the filler's */
    SPARE_READY,   /* the thread waits for an order */
    SPARE_FAILED,
};

/* A thread that has a descriptor table of its own, with nothing of anybody's in it, and waits for an order. */
struct spare {
    _Atomic uint32_t state;
    int error; /* of one that failed: negative errno */
    pthread_t thread;
    pid_t tid;
    void *stack; /* with its guard page */
    size_t stack_size;
    int control;            /* the thread's end; valid in its table only */
    int handle;             /* ours */
    int wake_fd;            /* the pool's */
    _Atomic uint32_t table; /* futex: 1 once the thread has its own table, 2 if it could not get one */
};

struct worker_pool {
    int wake_fd; /* the manager's eventfd, under the same number in every table; borrowed */
    int orders;  /* to the filler; -1: there is none */
    int filler_end;
    int error; /* negative errno of the last order, or of the filler's start */
    pthread_t filler;
    _Atomic uint32_t table;    /* of the filler, as a spare's */
    _Atomic uint32_t outcomes; /* futex: changes whenever one is ready, or failed */
    _Atomic bool stop;
    struct spare spares[WORKER_POOL_SIZE];
};

void worker_pool_init(struct worker_pool *pool, int wake_fd);
/*
 * Starts the filler and waits for it, and orders spares without waiting. Where that fails worker_pool_take() tries it again, so that whoever takes
 * one waits for it. Nobody else may close a client's descriptors meanwhile.
 */
void worker_pool_start(struct worker_pool *pool);
/* Why one that is wanted is not there. 0, or negative errno. In the loop only. */
int worker_pool_error(const struct worker_pool *pool);
/* Ends the thread and all spares. One that was only initialized is fine. */
void worker_pool_deinit(struct worker_pool *pool);
/*
 * Waits for one that is ready, which the next worker_pool_take() takes then without waiting: for who takes it under a lock. In the loop only. NULL: none can be
 * had now.
 */
struct spare *worker_pool_await(struct worker_pool *pool);
/*
 * One that is ready, the caller's from now on: he gives it an order, or ends it. Waits for a thread if more were taken than could be started meanwhile. In the loop only. 0, or
 * negative errno: none can be had now.
 */
int worker_pool_take(struct worker_pool *pool, struct spare *ret);
/* One without an order: waits for its end. */
void spare_end(struct spare *spare);
/* After the end of the thread: its stack. */
void worker_free_stack(void *stack, size_t size);

/* In worker.c. In the thread: waits for an order, and follows it to its end; returns at once when the other end is closed. */
void worker_follow(int control, int wake_fd);

/* In worker.c. Sends a pointer with descriptors. Does not block. 0, or negative errno. */
int worker_send_message(int socket, void *data, const int *fds, size_t n_fds);
/*
 * In worker.c. 1: a pointer came, and as many of n_fds descriptors as ret_fds[] has that are not -1; 0: something else; -EPIPE: the other end is closed;
 * negative errno.
 */
int worker_receive_message(int socket, void **ret_data, int *ret_fds, size_t n_fds, int flags);

#endif
