/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_WORKER_H
#define DROPPABLE_DAEMON_WORKER_H

#include "worker-pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct worker;

/* Runs in the thread; returns when worker_stopping(). */
typedef void (*worker_main)(struct worker *worker);

struct worker {
    pthread_t thread;
    pid_t tid;
    int nice;    /* of whoever started it */
    void *stack; /* with its guard page */
    size_t stack_size;
    bool started;
    worker_main main;
    int control;               /* the thread's end: readable means kicked; valid in the thread's table only */
    int handle;                /* our end: worker_kick(), worker_send_fd() */
    int keep[WORKER_KEEP_MAX]; /* in the thread: descriptors that it was started with; -1: it could not get them */
    _Atomic bool stop;
    _Atomic bool done;             /* the thread has nothing more to do with any memory but its own stack */
    _Atomic uint64_t call_started; /* CLOCK_MONOTONIC ns of a call that may wait for the client; 0: none */
    uint64_t turn;                 /* ns: when the thread slept, or let others in, last; its own */
};

#define WORKER_NULL \
    { .control = -1, .handle = -1 }

/*
 * Has a thread do it, with a descriptor table of its own that holds just control, the pool's wake_fd, stderr and keep[]. The caller may then close its
 * copies of keep[]. Waits for no thread if the pool has one. 0, or a negative errno (nothing is left behind).
 */
int worker_start(struct worker *worker, worker_main main, struct worker_pool *pool, const int *keep, size_t n_keep,
                 const char *name);
/* In the thread, when nobody waits for it any more: it came first until now. */
void worker_calm(const struct worker *worker);
/* In the thread, when it has slept; and between two steps of what takes long: lets others have the CPU, if its turn is over. */
void worker_begin_turn(struct worker *worker);
void worker_let_others(struct worker *worker);
/* Asks the thread to end, also out of an interruptible call. May be repeated. */
void worker_stop(struct worker *worker);
/* Waits for the end of a thread that is done (at once, or a few instructions later) and frees what start took. */
void worker_join(struct worker *worker);

/*
 * Makes the thread's control readable. From any thread whose table has handle under its number. Never blocks. false: there was no memory for that, or
 * there is no thread.
 */
bool worker_kick(const struct worker *worker);
/* From one whose table has it under another number. */
bool worker_kick_by(const struct worker *worker, int handle);
/* Hands a descriptor over to the thread, with a pointer. 0; -EAGAIN: the thread does not keep up; negative errno. */
int worker_send_fd(const struct worker *worker, int fd, void *data);
/* In the thread: takes what is in control. 1: *ret_fd and *ret_data are set; 0: nothing more (kicks are swallowed). */
int worker_receive(struct worker *worker, int *ret_fd, void **ret_data);

/* What has to run when others keep the CPUs busy, so that memory is freed in time. Needs CAP_SYS_NICE, else it has no effect. */
#define WORKER_URGENT_NICE (-19)
/* Sets the thread's nice value, from any thread. */
void worker_set_nice(const struct worker *worker, int nice);
/* From any thread, for a piece of work that is short: before all ordinary ones. Without CAP_SYS_NICE it has no effect. */
void worker_set_realtime(const struct worker *worker, bool realtime);

static inline bool worker_stopping(const struct worker *worker) {
    return atomic_load_explicit(&worker->stop, memory_order_acquire);
}

/* Around every call that can wait for the client. */
void worker_call_begin(struct worker *worker);
void worker_call_end(struct worker *worker);
/* Is a call under way for longer than limit_ns? */
bool worker_overdue(const struct worker *worker, uint64_t now, uint64_t limit_ns);

#endif
