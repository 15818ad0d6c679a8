/* SPDX-License-Identifier: MIT */
#ifndef BENCH_CONTENDER_H
#define BENCH_CONTENDER_H

/*
 * Who is measured. Each contender has a worker process of its own, and so an address space of its own.
 */

enum contender {
    CONTENDER_NATIVE,   /* MAP_DROPPABLE, dropped by MADV_DONTNEED */
    CONTENDER_PAGEOUT,  /* MAP_DROPPABLE, dropped by MADV_PAGEOUT */
    CONTENDER_DONTNEED, /* private anonymous memory, MADV_DONTNEED */
    CONTENDER_FREE,     /* private anonymous memory, MADV_FREE, and MADV_PAGEOUT so that it really goes */
    CONTENDER_MEMFD,    /* a bare shared-memory object, PUNCH_HOLE: the floor of what the service does */
    CONTENDER_TEXTBOOK, /* a userfaultfd server as the manual page has it */
    CONTENDER_SERVER,   /* the same in a process of its own, as a service has to be */
    CONTENDER_LIBRARY,  /* libdroppable */
    CONTENDER_PRELOAD,  /* the native code over libdroppable-preload */
    CONTENDER_CAS,      /* two compare-and-swaps: what a pin cannot go below */
    CONTENDER_LOAD,     /* a plain load */
    CONTENDER_CALLS,    /* bare system calls */
    CONTENDER_COUNT,
};

#define CONTENDER_BIT(contender) (1u << (contender))

extern const char *const contender_names[CONTENDER_COUNT];
extern const char *const contender_texts[CONTENDER_COUNT];

/* -1: there is none of that name. */
int contender_find(const char *name);

#endif
