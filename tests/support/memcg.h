/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_MEMCG_H
#define DROPPABLE_TESTS_MEMCG_H

/* A memory cgroup of a test's own, v1 or v2, below the root of the hierarchy. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct memcg {
    int version;
    uint64_t limit;
    char path[256]; /* directory */
};

/* Makes one with a limit. false: no right or no controller (reason in *ret_reason, static). */
bool memcg_make(struct memcg *memcg, uint64_t limit, const char **ret_reason);
/* Moves the calling process into it. */
void memcg_enter(const struct memcg *memcg);
/* Moves another one. */
void memcg_take(const struct memcg *memcg, pid_t pid);
/* Writes a file of it (without the folder); false: there is none, or the value is refused. */
bool memcg_set(const struct memcg *memcg, const char *name, uint64_t value);
/* Its path as /proc/PID/cgroup and the service tell it. */
const char *memcg_name(const struct memcg *memcg);
/* Makes it again after its removal. */
void memcg_make_again(const struct memcg *memcg);
uint64_t memcg_usage(const struct memcg *memcg);
/* limit - usage + inactive_file + active_file / 2 */
uint64_t memcg_headroom(const struct memcg *memcg);
/* OOM kills so far (v2 memory.events oom_kill; v1 memory.oom_control oom_kill). */
uint64_t memcg_oom_kills(const struct memcg *memcg);
/* v1 memory.failcnt, v2 memory.events max. */
uint64_t memcg_failures(const struct memcg *memcg);
/* Ends what is in it and removes it. */
void memcg_remove(struct memcg *memcg);

#endif
