/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_ATTACK_USE_H
#define DROPPABLE_TESTS_ATTACK_USE_H

#include <stdint.h>
#include <sys/types.h>

/* What was used of the CPUs. */
struct used {
    uint64_t us;
    uint64_t kernel_us; /* of these, in the kernel */
    uint64_t seen_us;   /* of these, of threads whose sleeps are known */
    uint64_t sleeps;
};

/* How a process uses a CPU. */
struct cpu_use {
    unsigned thousandths;        /* of a CPU */
    unsigned kernel_thousandths; /* of these, in the kernel */
    unsigned burst_us;           /* between two sleeps, on average */
};

/* Of each of n processes, who together used so much in that time. */
struct cpu_use cpu_use_of(const struct used *used, uint64_t wall_us, unsigned n);
/* In a process of its own: uses it like that, for nothing. Never returns. */
void burn(const struct cpu_use *use) __attribute__((noreturn));

/* Of the service's threads: pagers and droppers, each a client's own; and of all others. */
struct service_use {
    struct used workers, others;
};

/* Since it began, also of threads that were. */
void service_use_read(pid_t pid, struct service_use *ret);
/* Not below zero: of who has ended nothing is seen any more. */
void service_use_subtract(struct service_use *use, const struct service_use *less);
void service_use_scale(struct service_use *use, uint64_t times, uint64_t of);

#endif
