/* SPDX-License-Identifier: MIT */
#ifndef BENCH_MEMCG_H
#define BENCH_MEMCG_H

/*
 * A memory cgroup of a measurement's own, v1 or v2.
 */

#include "task.h"

struct memcg {
    char path[256]; /* folder */
    char name[64];  /* the folder's own */
    int usage;      /* descriptor; -1: none */
    int version;
    uint64_t limit; /* bytes */
    uint64_t cache; /* bytes of usage that count as free, see memcg_look() */
};

/* @return 0; a negative errno, with the reason in @task: cgroups cannot be made here */
int memcg_init(struct memcg *memcg, struct task *task, uint64_t limit);
/* Removes it. Its processes must have ended; waits for them a little. NULL and {.usage = -1} are fine. */
void memcg_deinit(struct memcg *memcg);

/* Moves the calling process into it. @return 0 or a negative errno */
int memcg_enter(const struct memcg *memcg, struct task *task);

/* Finds out how much of the usage the kernel can give back by itself. @return 0 or a negative errno */
int memcg_look(struct memcg *memcg, struct task *task);

/* Bytes up to the limit, and what memcg_look() found. A single short read. */
uint64_t memcg_headroom(const struct memcg *memcg);

/* What the service keeps free there, as its list says. A process in it must be a client. @return 0 or a negative errno */
int memcg_reserve(const struct memcg *memcg, struct task *task, uint64_t *ret);

#endif
