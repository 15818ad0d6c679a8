/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_BUDGET_GROUPS_H
#define DROPPABLE_DAEMON_BUDGET_GROUPS_H

/* Whom budgets know: users, processes and cgroups, and what was set for each. Of the budget modules; all under the manager's lock. */

#include "budget.h"

/* Half of the places for what is kept are the administrators'. */
bool groups_have_place(struct budgets *budgets, bool administrator);

/* NULL: there is none. */
struct budget_user *groups_find_user(struct budgets *budgets, uid_t uid);
/* Made if need be, and there until it is let go. NULL: no memory. */
struct budget_user *groups_keep_user(struct budgets *budgets, uid_t uid);
/* Unless somebody is there, or something is kept. */
void groups_free_unused_user(struct budget_user *user);
/* Nothing of one that was kept is any more. */
void groups_let_go_user(struct budgets *budgets, struct budget_user *user);

/* The process that has the number now. NULL: no session is of it, and nothing is kept. */
struct budget_client *groups_find_client(struct manager *manager, uint64_t pid);
/* What was set for it holds as long as it lives, sessions or not. -EMFILE */
int groups_keep_client(struct manager *manager, struct budget_client *client);
/* Nothing of one that was kept is any more. It is freed if it has no session. */
void groups_release_client(struct budgets *budgets, struct budget_client *client);
/* Address space of the regions of all its sessions. */
uint64_t groups_bytes_of_client(const struct manager *manager, const struct budget_client *client);

struct budget_cgroup *groups_find_cgroup(struct budgets *budgets, const char *path);
/* NULL: no memory. */
struct budget_cgroup *groups_make_cgroup(struct budgets *budgets, const char *path);
void groups_free_cgroup(struct budgets *budgets, struct budget_cgroup *cgroup);
/* A domain with what was set for its path. */
struct limits *groups_limits_of_domain(struct budgets *budgets, struct domain *domain);

/* What the config says of each kind. */
void groups_configured(const struct config *config, enum budget_scope scope, uint64_t *ret);

#endif
