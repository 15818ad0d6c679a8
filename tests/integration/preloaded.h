/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_PRELOADED_H
#define DROPPABLE_TESTS_PRELOADED_H

/* This test run as a program of its own under the preload library (program.h), and what the service holds of it. */

#include "child.h"

struct preloaded {
    const char *name, *backend, *output; /* of program_become() */
};

/* For child_start(); data: a struct preloaded. */
void preloaded_run(int socket, void *data);
/* The program of that name, with the service's memory. */
struct child preloaded_start(const char *name);
/* It waits for that when it has said something. */
void preloaded_go_on(const struct child *child);
uint64_t preloaded_resident(const struct child *child);
/* All of it: who was held up for a moment, on a machine that stood still, is asked again. */
void preloaded_drop_all(void);

#endif
