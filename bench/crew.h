/* SPDX-License-Identifier: MIT */
#ifndef BENCH_CREW_H
#define BENCH_CREW_H

/*
 * Processes of one measurement: other clients, each with an address space and a connection of its own. They die with the worker that
 * made them, and are ended with the measurement, also when it fails.
 */

#include "task.h"

struct crew;

/* What one of them knows. Lives in its process. */
struct member {
    struct crew *crew;
    struct task task; /* its own: a reason goes in here */
    unsigned number;
    const void *context; /* of crew_new() */
    double *values;      /* its part of crew_values() */
};

/* In the process: prepares, calls member_ready(), works. Having returned it lives on, with what it holds. @return 0 or a negative errno */
typedef int (*crew_work)(struct member *member);

/* @return when all are ready: 0 or a negative errno, the first one's reason in @task */
int crew_new(struct crew **ret, struct task *task, unsigned count, unsigned values_each, crew_work work,
             const void *context);
/* Ends them, and waits until the service has cleaned up behind them. NULL is fine. @return NULL */
struct crew *crew_free(struct crew *crew);

/* Lets them begin; @start_ns is for them, see member_ready(). */
void crew_start(struct crew *crew, uint64_t start_ns);
/* Until all have done their work. @return 0 or a negative errno */
int crew_wait(struct crew *crew, struct task *task);
/* values_each of each, one after the other: shared with them. */
double *crew_values(struct crew *crew);

/* In the process: waits for crew_start(). @return the start_ns given there */
uint64_t member_ready(struct member *member);

#endif
