/* SPDX-License-Identifier: MIT */
/* Who may have how much: what is set, by whom, for what; and what is refused for a quota. */

#include "budget-groups.h"

#include "manager.h"
#include "tally.h"

#include <errno.h>
#include <string.h>

#define KINDS_OF_GROUP (LIMIT_BIT(LIMIT_BUDGET) | LIMIT_BIT(LIMIT_QUOTA))
#define KINDS_OF_REGION (LIMIT_BIT(LIMIT_BUDGET) | LIMIT_BIT(LIMIT_SHARE) | LIMIT_BIT(LIMIT_PRIORITY))
#define KINDS_OF_CLIENT (KINDS_OF_GROUP | KINDS_OF_REGION)

void budgets_reload(struct manager *manager) {
    struct budgets *budgets = &manager->budgets;
    bool planned = budgets->active && budgets->due <= budgets->not_before; /* it wakes for that already */

    budgets->active = true;
    budgets->due = budgets->not_before;
    if (!planned)
        pressure_wake(&manager->pressure);
}

/* ---- setting ---- */

static uint32_t kinds_of(enum budget_scope scope) {
    switch (scope) {
    case BUDGET_REGION:
        return KINDS_OF_REGION;
    case BUDGET_CLIENT:
    case BUDGET_SESSION:
        return KINDS_OF_CLIENT;
    default:
        return KINDS_OF_GROUP;
    }
}

/* One call of budget_set(). */
struct setting {
    const struct config *config;
    enum budget_scope scope;
    uid_t by;
    bool administrator;
    bool apply; /* the second time round: all were found to be good */
    const struct limit_values *values;
    struct limit_values effective;
};

/* What holds without them: of each kind the config's, or what holds for all that it is a part of. */
static int set_below(struct setting *setting, struct limits *limits, uid_t owner, const uint64_t *above) {
    int r;

    if (setting->values->mask && !setting->administrator && setting->by != owner)
        return -EPERM;
    r = limits_check(limits, above, setting->values, setting->administrator);
    if (r < 0)
        return r;
    if (setting->apply)
        limits_apply(limits, setting->values, setting->administrator);
    setting->effective.mask = kinds_of(setting->scope);
    for (int i = 0; i < LIMIT_KINDS; i++)
        setting->effective.of[i] = limit_value(&limits->of[i], above[i]);
    return 0;
}

static int set_one(struct setting *setting, struct limits *limits, uid_t owner) {
    uint64_t above[LIMIT_KINDS];

    groups_configured(setting->config, setting->scope, above);
    return set_below(setting, limits, owner, above);
}

static int set_in_region(struct setting *setting, struct region *region) {
    int r;

    if (!region)
        return -ENOENT;
    r = set_one(setting, &region->budget, home_uid(region->home));
    setting->effective.of[LIMIT_PRIORITY] = budget_priority(region);
    return r;
}

static void limits_of_client(const struct config *config, const struct budget_client *client, uint64_t *ret) {
    groups_configured(config, BUDGET_CLIENT, ret);
    for (int i = 0; i < LIMIT_KINDS; i++)
        ret[i] = limit_value(&client->limits.of[i], ret[i]);
}

uint64_t budget_of_session(const struct config *config, const struct session *session, enum limit_kind kind) {
    uint64_t above[LIMIT_KINDS];

    limits_of_client(config, session->client, above);
    return limit_value(&session->budget.of[kind], above[kind]);
}

/* What a program says of itself is its own word, whoever runs it: below what holds for the process. */
static int set_in_session(struct setting *setting, struct session *session) {
    uint64_t above[LIMIT_KINDS];

    limits_of_client(setting->config, session->client, above);
    setting->administrator = false;
    return set_below(setting, &session->budget, session->uid, above);
}

static bool anything_given(const struct limits *limits) {
    bool any = false;

    for (int i = 0; i < LIMIT_KINDS; i++)
        any |= limits->of[i].given != 0;
    return any;
}

/*
 * What an administrator has set has a place, and so outlives the sessions. What its owner set does not: with that a user could take all
 * places, and he can end what he has set in other ways.
 */
static int set_client(struct manager *manager, struct setting *setting, uint64_t pid) {
    struct budgets *budgets = &manager->budgets;
    struct budget_client *client = groups_find_client(manager, pid);
    bool keeps;
    int r;

    if (!client)
        return -ENOENT;
    keeps = setting->values->mask && setting->administrator && client->handle < 0;
    if (keeps && !groups_have_place(budgets, true))
        return -ENOSPC;
    if (keeps && setting->apply) {
        r = groups_keep_client(manager, client);
        if (r < 0)
            return r;
    }
    r = set_one(setting, &client->limits, client->mixed ? (uid_t)-1 : client->uid);
    if (setting->apply && client->handle >= 0 && !anything_given(&client->limits))
        groups_release_client(budgets, client);
    return r;
}

static int set_user(struct manager *manager, struct setting *setting, uint64_t uid) {
    struct budgets *budgets = &manager->budgets;
    struct budget_user *user = uid < (uid_t)-1 ? groups_find_user(budgets, (uid_t)uid) : NULL;
    struct limits none = {0};
    bool keeps = setting->values->mask && !(user && user->kept);
    int r;

    if (uid >= (uid_t)-1 || (!user && !setting->administrator))
        return -ENOENT;
    if (keeps && !groups_have_place(budgets, setting->administrator))
        return -ENOSPC;
    if (setting->apply && keeps) {
        user = groups_keep_user(budgets, (uid_t)uid);
        if (!user)
            return -ENOMEM;
    }
    r = set_one(setting, user ? &user->limits : &none, (uid_t)uid);
    if (setting->apply && !limits_are_set(&user->limits))
        groups_let_go_user(budgets, user);
    return r;
}

static int set_cgroup(struct manager *manager, struct setting *setting, const char *path) {
    struct budgets *budgets = &manager->budgets;
    struct budget_cgroup *cgroup = groups_find_cgroup(budgets, path);
    struct limits none = {0};
    int r;

    if (setting->values->mask && !cgroup && !groups_have_place(budgets, true))
        return -ENOSPC;
    if (setting->apply && !cgroup) {
        cgroup = groups_make_cgroup(budgets, path);
        if (!cgroup)
            return -ENOMEM;
    }
    r = set_one(setting, cgroup ? &cgroup->limits : &none, 0);
    if (!setting->apply)
        return r;
    budgets->version++;
    if (!limits_are_set(&cgroup->limits))
        groups_free_cgroup(budgets, cgroup);
    return r;
}

static int set_all(struct manager *manager, struct setting *setting, const struct budget_object *object) {
    switch (object->scope) {
    case BUDGET_USER:
        return set_user(manager, setting, object->id);
    case BUDGET_CGROUP:
        return set_cgroup(manager, setting, object->path);
    case BUDGET_REGION:
        return set_in_region(setting, object->region);
    case BUDGET_SESSION:
        return set_in_session(setting, object->session);
    default:
        return set_client(manager, setting, object->id);
    }
}

int budget_set(struct manager *manager, uid_t by, bool administrator, const struct budget_object *object,
               const struct limit_values *values, struct limit_values *ret_effective) {
    struct setting setting = {
        .config = manager->config, .scope = object->scope, .by = by, .administrator = administrator, .values = values};
    const char *path = object->path;
    int r;

    if ((values->mask & ~kinds_of(object->scope)) ||
        (object->scope == BUDGET_CGROUP && (!path || path[0] != '/' || strlen(path) >= 4096)))
        return -EINVAL;
    pthread_mutex_lock(&manager->lock);
    r = set_all(manager, &setting, object);
    if (r >= 0 && values->mask) {
        setting.apply = true;
        r = set_all(manager, &setting, object);
        budgets_reload(manager);
    }
    pthread_mutex_unlock(&manager->lock);
    if (r >= 0)
        *ret_effective = setting.effective;
    return r;
}

/* ---- quotas ---- */

static bool exceeds(const struct limits *limits, uint64_t configured_quota, uint64_t bytes) {
    uint64_t quota = limit_value(&limits->of[LIMIT_QUOTA], configured_quota);

    return quota != LIMIT_INFINITE && bytes > quota;
}

const char *budget_check_bytes(struct manager *manager, const struct session *session, uint64_t of_user, uint64_t size) {
    const struct config *config = manager->config;
    const struct budget_client *client = session->client;
    const struct budget_user *user = session->user;
    const char *key = NULL;

    pthread_mutex_lock(&manager->lock);
    if (exceeds(&session->budget, LIMIT_INFINITE, session->region_bytes + size) ||
        exceeds(&client->limits, config->max_bytes_per_client, groups_bytes_of_client(manager, client) + size))
        key = "BytesPerClient";
    else if (exceeds(&user->limits, config->max_bytes_per_uid, of_user + size))
        key = "BytesPerUser";
    for (struct domain *domain = session->domain; domain && !key; domain = domain->parent) {
        bool holds_it = domain == session->domain && domain->parent;

        if (exceeds(groups_limits_of_domain(&manager->budgets, domain),
                    holds_it ? config->max_bytes_per_cgroup : LIMIT_INFINITE, tally_bytes_within(manager, domain) + size))
            key = "BytesPerCgroup";
    }
    pthread_mutex_unlock(&manager->lock);
    return key;
}
