/* SPDX-License-Identifier: MIT */

/* Names of the contenders: those of the command line, of tables and of result files. */

#include "contender.h"

#include <string.h>

const char *const contender_names[CONTENDER_COUNT] = {
    [CONTENDER_NATIVE] = "native",   [CONTENDER_PAGEOUT] = "pageout", [CONTENDER_DONTNEED] = "dontneed",
    [CONTENDER_FREE] = "free",       [CONTENDER_MEMFD] = "memfd",     [CONTENDER_TEXTBOOK] = "textbook",
    [CONTENDER_LIBRARY] = "library", [CONTENDER_PRELOAD] = "preload", [CONTENDER_CAS] = "cas",
    [CONTENDER_LOAD] = "load",       [CONTENDER_SERVER] = "server",   [CONTENDER_CALLS] = "calls",
};

const char *const contender_texts[CONTENDER_COUNT] = {
    [CONTENDER_NATIVE] = "the kernel's MAP_DROPPABLE, dropped by MADV_DONTNEED",
    [CONTENDER_PAGEOUT] = "the kernel's MAP_DROPPABLE, dropped by MADV_PAGEOUT",
    [CONTENDER_DONTNEED] = "private anonymous memory, dropped by MADV_DONTNEED",
    [CONTENDER_FREE] = "private anonymous memory, dropped by MADV_FREE and then MADV_PAGEOUT",
    [CONTENDER_MEMFD] = "a bare shared-memory object, dropped by PUNCH_HOLE in 2 MiB pieces: the floor of the service",
    [CONTENDER_TEXTBOOK] = "a userfaultfd server after the manual page: one thread, one event, one page",
    [CONTENDER_SERVER] = "the same in a process of its own, as a service has to be",
    [CONTENDER_LIBRARY] = "libdroppable and its service",
    [CONTENDER_PRELOAD] = "the code of `native' with libdroppable-preload and the service, dropped by MADV_PAGEOUT",
    [CONTENDER_CAS] = "two compare-and-swaps on one line, up and down",
    [CONTENDER_LOAD] = "a plain load",
    [CONTENDER_CALLS] = "the system calls of which the service's work is made, in one process",
};

int contender_find(const char *name) {
    for (int i = 0; i < CONTENDER_COUNT; i++)
        if (strcmp(contender_names[i], name) == 0)
            return i;
    return -1;
}
