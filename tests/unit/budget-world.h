/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_BUDGET_WORLD_H
#define DROPPABLE_TESTS_BUDGET_WORLD_H

/*
 * A manager for tests of budgets: sessions made by hand, with a region each whose object is a memfd, so that what is resident is the kernel's
 * word. Session i has id 10 + i, pid 100 + i, region 20 + i. Alice has the first in /jobs/cache, the second in /jobs; Bob the third, in no cgroup.
 */

#include "budget.h"
#include "manager.h"

#include <stdint.h>
#include <sys/types.h>

#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)
#define ALICE 1000
#define BOB 1001
#define ROOT 0

extern struct manager manager;
extern struct config config;
extern struct domain machine, slice, cache; /* "", /jobs, /jobs/cache */
extern struct session sessions[3];
extern struct region regions[3];
extern uint64_t now;

void world_setup(void);
void world_teardown(void);

/* A handle of a process: its folder, as where there are no pidfds. */
int open_process(pid_t pid);
/* So much of region i is resident. */
void fill(unsigned i, uint64_t bytes);
/* budget_set() of one kind; of a cgroup: /jobs. */
int set(uid_t by, enum budget_scope scope, uint64_t id, enum limit_kind kind, uint64_t value);
/* What holds. */
uint64_t get(enum budget_scope scope, uint64_t id, enum limit_kind kind);
/* A look that is due: how many are over whose turn it is. */
size_t look_at(struct budget_excess *ret);
/* The same, and the first of them has its turn; bytes 0: nobody is over. */
struct budget_excess look(void);

#endif
