/* SPDX-License-Identifier: MIT */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

/*
 * A contender's own process: this program executed anew, at the other end of a socket. Only one round of one row at a time is
 * asked of it.
 */

#include "sample.h"
#include "task.h"

#include <sys/types.h>

struct worker {
    enum contender contender;
    pid_t pid; /* 0: not started, or ended */
    int fd;    /* -1: none */
};

/* @return 0; a negative errno with the reason in @task */
int worker_start(struct worker *worker, struct task *task);
void worker_stop(struct worker *worker);

/* Has the task done. @return 0; a negative errno, with the reason in @task. A worker that died is started anew next time. */
int worker_ask(struct worker *worker, struct task *task, struct sample *ret);

/* The worker's own main(). @return exit status */
int worker_main(const char *name);

#endif
