/* SPDX-License-Identifier: MIT */
/* What the config says of single users and cgroups. They are kept for it as for what an administrator sets. */

#include "budget-groups.h"

#include "config.h"
#include "manager.h"

#include <errno.h>

/* False: no memory. */
static bool hold(struct budgets *budgets, const struct config_group *group) {
    if (group->path)
        return groups_find_cgroup(budgets, group->path) || groups_make_cgroup(budgets, group->path);
    return groups_keep_user(budgets, group->uid);
}

static void say(struct limits *limits, uint64_t budget, uint64_t quota) {
    limits->of[LIMIT_BUDGET].of_section = budget;
    limits->of[LIMIT_QUOTA].of_section = quota;
    limits->standing.not_before = 0;
}

static void forget_sections(struct budgets *budgets) {
    struct budget_cgroup *cgroup;
    struct budget_user *user;

    LIST_FOREACH (user, &budgets->users, link) {
        say(&user->limits, 0, 0);
    }
    LIST_FOREACH (cgroup, &budgets->cgroups, link) {
        say(&cgroup->limits, 0, 0);
    }
}

/* Of whom nothing is said any more. */
static void let_go(struct budgets *budgets) {
    struct budget_cgroup *cgroup, *next_cgroup;
    struct budget_user *user, *next_user;

    for (user = LIST_FIRST(&budgets->users); user; user = next_user) {
        next_user = LIST_NEXT(user, link);
        if (user->kept && !limits_are_set(&user->limits))
            groups_let_go_user(budgets, user);
    }
    for (cgroup = LIST_FIRST(&budgets->cgroups); cgroup; cgroup = next_cgroup) {
        next_cgroup = LIST_NEXT(cgroup, link);
        if (!limits_are_set(&cgroup->limits))
            groups_free_cgroup(budgets, cgroup);
    }
}

int budgets_hold_sections(struct manager *manager, const struct config *config) {
    struct budgets *budgets = &manager->budgets;
    bool held = true;

    pthread_mutex_lock(&manager->lock);
    for (size_t i = 0; held && i < config->n_groups; i++)
        held = hold(budgets, &config->groups[i]);
    if (!held)
        let_go(budgets);
    pthread_mutex_unlock(&manager->lock);
    return held ? 0 : -ENOMEM;
}

void budgets_take_sections(struct manager *manager, const struct config *config) {
    struct budgets *budgets = &manager->budgets;

    forget_sections(budgets);
    for (size_t i = 0; i < config->n_groups; i++) {
        const struct config_group *group = &config->groups[i];

        say(group->path ? &groups_find_cgroup(budgets, group->path)->limits
                        : &groups_find_user(budgets, group->uid)->limits,
            group->budget, group->quota);
    }
    let_go(budgets);
    budgets->version++;
    budgets->active = true;
}
