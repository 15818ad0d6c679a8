/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_ATTACK_H
#define DROPPABLE_TESTS_ATTACK_H

/* Clients that mean harm, one function each; test-attacks runs them beside an honest client. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct raw_region;

/* How a process is to use a CPU. */
struct attack_pace {
    uint64_t steps;   /* a second */
    uint64_t step_us; /* CPU time of each */
};

struct attack {
    const char *name;
    unsigned tasks;   /* processes that run it, */
    unsigned threads; /* and how many of each can be runnable at a time */
    /* In a process of its own, which is killed after some time. Calls attack_begun() when it is under way; never returns. */
    void (*run)(void);
    /* What uses CPUs in the same way without the service; NULL: burn() does. What the service uses for the attack is burnt beside it in both cases. */
    void (*run_neutral)(const struct attack_pace *pace);
};

/* Ends with an entry without a name. */
extern const struct attack attacks_by_messages[], attacks_by_memory[], attacks_by_descriptors[], attacks_by_processes[];

/* From here on it is an attack. May be called again. */
void attack_begun(void);
/* Counts what it does, so that an attack which does nothing is seen. */
void attack_did(void);
/* Waits for the next step's time. *next: zero at first. */
void attack_await(uint64_t *next, const struct attack_pace *pace);
/* 0 to n - 1, the same ones in each run. */
uint64_t attack_random(uint64_t n);
/* A region that is written to, of a session with that name. Returns the session's socket. */
int attack_region(const char *name, uint64_t size, struct raw_region *ret);

#endif
