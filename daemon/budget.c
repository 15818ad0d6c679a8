/* SPDX-License-Identifier: MIT */
/*
 * Who may have how much, and who has more.
 *
 * Limits lie with what they are for: in the region, the session, the user, the domain. Users and cgroups for which something was set are
 * kept until the daemon ends, in two short lists; a domain comes and goes with its clients, and copies what was set for its
 * path when it is first looked at. Always: a look allocates nothing and asks the kernel for sizes of objects only.
 *
 * The config's budget of cgroups is for those that hold clients themselves: else a slice above ten services would have no more than
 * one of them.
 */

#include "budget.h"

#include "manager.h"
#include "tally.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEPT_MAX 1024
#define AGAIN_NS UINT64_C(1000000)
/* A look costs up to 1 us for each region: at most 1 % of a CPU, 10 % while somebody is over or settings change. */
#define COST_FACTOR 100
#define COST_FACTOR_IN_HASTE 10
#define COST_LEAST_NS UINT64_C(100000)

#define KINDS_OF_GROUP (LIMIT_BIT(LIMIT_BUDGET) | LIMIT_BIT(LIMIT_QUOTA))
#define KINDS_OF_REGION (LIMIT_BIT(LIMIT_BUDGET) | LIMIT_BIT(LIMIT_SHARE) | LIMIT_BIT(LIMIT_PRIORITY))
#define KINDS_OF_CLIENT (KINDS_OF_GROUP | KINDS_OF_REGION)

/* ---- users and cgroups ---- */

void budgets_init(struct manager *manager) {
    LIST_INIT(&manager->budgets.users);
    LIST_INIT(&manager->budgets.cgroups);
    manager->budgets.version = 1;
    manager->budgets.active = true;
}

static void free_unused_user(struct budget_user *user) {
    if (user->sessions > 0 || user->kept)
        return;
    LIST_REMOVE(user, link);
    free(user);
}

static void free_cgroup(struct budget_cgroup *cgroup) {
    LIST_REMOVE(cgroup, link);
    free(cgroup->path);
    free(cgroup);
}

void budgets_deinit(struct manager *manager) {
    struct budget_user *user;
    struct budget_cgroup *cgroup;

    while ((user = LIST_FIRST(&manager->budgets.users))) {
        user->kept = false; /* all sessions are gone */
        free_unused_user(user);
    }
    while ((cgroup = LIST_FIRST(&manager->budgets.cgroups)))
        free_cgroup(cgroup);
}

void budgets_reload(struct manager *manager) {
    struct budgets *budgets = &manager->budgets;
    bool planned = budgets->active && budgets->due <= budgets->not_before; /* it wakes for that already */

    budgets->active = true;
    budgets->due = budgets->not_before;
    if (!planned)
        pressure_wake(&manager->pressure);
}

static struct budget_user *find_user(struct budgets *budgets, uid_t uid) {
    struct budget_user *user;

    LIST_FOREACH (user, &budgets->users, link)
        if (user->uid == uid)
            return user;
    return NULL;
}

static struct budget_user *make_user(struct budgets *budgets, uid_t uid) {
    struct budget_user *user = find_user(budgets, uid);

    if (user)
        return user;
    user = calloc(1, sizeof(*user));
    if (!user)
        return NULL;
    user->uid = uid;
    LIST_INSERT_HEAD(&budgets->users, user, link);
    return user;
}

static struct budget_cgroup *find_cgroup(struct budgets *budgets, const char *path) {
    struct budget_cgroup *cgroup;

    LIST_FOREACH (cgroup, &budgets->cgroups, link)
        if (strcmp(cgroup->path, path) == 0)
            return cgroup;
    return NULL;
}

int budget_hold_user(struct manager *manager, uid_t uid, struct budget_user **ret) {
    struct budget_user *user = make_user(&manager->budgets, uid);

    if (!user)
        return -ENOMEM;
    user->sessions++;
    *ret = user;
    return 0;
}

void budget_release_user(struct budget_user *user) {
    user->sessions--;
    free_unused_user(user);
}

int budget_join(struct manager *manager, struct session *session) {
    manager->budgets.active = true;
    return budget_hold_user(manager, session->uid, &session->user);
}

void budget_leave(struct session *session) {
    struct budget_user *user = session->user;

    session->user = NULL;
    budget_release_user(user);
}

/* A domain with what was set for its path. */
static struct limits *limits_of_domain(struct budgets *budgets, struct domain *domain) {
    const struct budget_cgroup *cgroup;

    if (domain->limits_version == budgets->version)
        return &domain->budget;
    domain->limits_version = budgets->version;
    cgroup = LIST_EMPTY(&budgets->cgroups) ? NULL : find_cgroup(budgets, domain->parent ? domain->path : "/");
    for (int i = 0; i < LIMIT_KINDS; i++)
        domain->budget.of[i] = cgroup ? cgroup->limits.of[i] : (struct limit){0};
    domain->budget.standing.not_before = 0;
    return &domain->budget;
}

/* ---- setting ---- */

/* What the config says of each kind. The ceiling of a priority is the highest: a region is created with any. */
static void configured(const struct config *config, enum budget_scope scope, uint64_t *ret) {
    ret[LIMIT_BUDGET] = scope == BUDGET_REGION   ? config->region_budget
                        : scope == BUDGET_USER   ? config->user_budget
                        : scope == BUDGET_CGROUP ? config->cgroup_budget
                                                 : config->client_budget;
    ret[LIMIT_QUOTA] = scope == BUDGET_USER     ? config->max_bytes_per_uid
                       : scope == BUDGET_CGROUP ? config->max_bytes_per_cgroup
                                                : config->max_bytes_per_client;
    ret[LIMIT_SHARE] = LIMIT_SHARE_DEFAULT;
    ret[LIMIT_PRIORITY] = 3;
}

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
    unsigned found;
};

static int set_one(struct setting *setting, struct limits *limits, uid_t owner) {
    uint64_t defaults[LIMIT_KINDS];
    int r;

    if (setting->values->mask && !setting->administrator && setting->by != owner)
        return -EPERM;
    configured(setting->config, setting->scope, defaults);
    r = limits_check(limits, defaults, setting->values, setting->administrator);
    if (r < 0)
        return r;
    if (setting->apply)
        limits_apply(limits, setting->values, setting->administrator);
    if (setting->found++ > 0)
        return 0;
    setting->effective.mask = kinds_of(setting->scope);
    for (int i = 0; i < LIMIT_KINDS; i++)
        setting->effective.of[i] = limit_value(&limits->of[i], defaults[i]);
    return 0;
}

static int set_in_region(struct setting *setting, struct region *region) {
    int r;

    setting->found = 0;
    if (!region)
        return -ENOENT;
    r = set_one(setting, &region->budget, home_uid(region->home));
    setting->effective.of[LIMIT_PRIORITY] = budget_priority(region);
    return r;
}

static int set_in_session(struct setting *setting, struct session *session) {
    setting->found = 0;
    return set_one(setting, &session->budget, session->uid);
}

static int set_in_sessions(struct manager *manager, struct setting *setting, uint64_t id) {
    struct session *session;
    int r = 0;

    setting->found = 0;
    LIST_FOREACH (session, &manager->sessions, link)
        if (r >= 0 && (uint64_t)session->pid == id)
            r = set_one(setting, &session->budget, session->uid);
    return r < 0 ? r : setting->found > 0 ? 0 : -ENOENT;
}

/* Half of the places are the administrators'. */
static bool has_place(const struct budgets *budgets, bool administrator) {
    return budgets->n_kept < (administrator ? KEPT_MAX : KEPT_MAX / 2);
}

static bool anything_set(const struct limits *limits) {
    bool any = false;

    for (int i = 0; i < LIMIT_KINDS; i++)
        any |= limit_is_set(&limits->of[i]);
    return any;
}

static int set_user(struct manager *manager, struct setting *setting, uint64_t uid) {
    struct budgets *budgets = &manager->budgets;
    struct budget_user *user = uid < (uid_t)-1 ? find_user(budgets, (uid_t)uid) : NULL;
    struct limits none = {0};
    bool keeps = setting->values->mask && !(user && user->kept);
    int r;

    setting->found = 0;
    if (uid >= (uid_t)-1 || (!user && !setting->administrator))
        return -ENOENT;
    if (keeps && !has_place(budgets, setting->administrator))
        return -ENOSPC;
    if (setting->apply && keeps) {
        user = make_user(budgets, (uid_t)uid);
        if (!user)
            return -ENOMEM;
        user->kept = true;
        budgets->n_kept++;
    }
    r = set_one(setting, user ? &user->limits : &none, (uid_t)uid);
    if (setting->apply && !anything_set(&user->limits)) {
        user->kept = false;
        budgets->n_kept--;
        free_unused_user(user);
    }
    return r;
}

static int set_cgroup(struct manager *manager, struct setting *setting, const char *path) {
    struct budgets *budgets = &manager->budgets;
    struct budget_cgroup *cgroup = find_cgroup(budgets, path);
    struct limits none = {0};
    int r;

    setting->found = 0;
    if (setting->values->mask && !cgroup && !has_place(budgets, true))
        return -ENOSPC;
    if (setting->apply && !cgroup) {
        cgroup = calloc(1, sizeof(*cgroup));
        if (cgroup)
            cgroup->path = strdup(path);
        if (!cgroup || !cgroup->path) {
            free(cgroup);
            return -ENOMEM;
        }
        LIST_INSERT_HEAD(&budgets->cgroups, cgroup, link);
        budgets->n_kept++;
    }
    r = set_one(setting, cgroup ? &cgroup->limits : &none, 0);
    if (!setting->apply)
        return r;
    budgets->version++;
    if (!anything_set(&cgroup->limits)) {
        budgets->n_kept--;
        free_cgroup(cgroup);
    }
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
        return set_in_sessions(manager, setting, object->id);
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
    const struct budget_user *user = session->user;
    const char *key = NULL;

    pthread_mutex_lock(&manager->lock);
    if (exceeds(&session->budget, config->max_bytes_per_client, session->region_bytes + size))
        key = "BytesPerClient";
    else if (exceeds(&user->limits, config->max_bytes_per_uid, of_user + size))
        key = "BytesPerUser";
    for (struct domain *domain = session->domain; domain && !key; domain = domain->parent) {
        bool holds_it = domain == session->domain && domain->parent;

        if (exceeds(limits_of_domain(&manager->budgets, domain),
                    holds_it ? config->max_bytes_per_cgroup : LIMIT_INFINITE, tally_bytes_within(manager, domain) + size))
            key = "BytesPerCgroup";
    }
    pthread_mutex_unlock(&manager->lock);
    return key;
}

/* ---- looking ---- */

struct look {
    struct manager *manager;
    uint64_t now;
    uint64_t next; /* ns */
    bool anybody;  /* has a budget */
    struct budget_excess excess;
    struct limit_standing *standing; /* of the excess */
};

static void consider(struct look *look, struct limits *limits, uint64_t configured_budget, enum budget_scope scope,
                     uint64_t id, const struct domain *domain) {
    uint64_t budget = limit_value(&limits->of[LIMIT_BUDGET], configured_budget), wait, excess;

    if (budget == LIMIT_INFINITE)
        return;
    look->anybody = true;
    excess = limit_excess(&limits->standing, budget, look->manager->kernel.fill_rate, look->now, &wait);
    if (excess == 0) {
        if (wait < look->next)
            look->next = wait;
        return;
    }
    if (excess <= look->excess.bytes)
        return;
    look->excess = (struct budget_excess){.bytes = excess,
                                          .scope = scope,
                                          .id = id,
                                          .budget = budget,
                                          .resident = limits->standing.resident,
                                          .domain = domain};
    look->standing = &limits->standing;
}

static void stand(struct limits *limits, uint64_t resident, uint64_t dropped) {
    limits->standing.resident = resident;
    limits->standing.dropped = dropped;
}

static void add(struct limits *limits, const struct limit_standing *part) {
    limits->standing.resident += part->resident;
    limits->standing.dropped += part->dropped;
}

static void add_within(const struct session *session, struct domain *domain) {
    struct limit_standing part = session->budget.standing;

    part.resident = session_bytes_in(session, domain, part.resident);
    add(&domain->budget, &part);
}

/* A session's sums, its regions' and its own budget; and its part of the sums of the groups it belongs to. */
static void look_at_session(struct look *look, struct session *session) {
    const struct config *config = look->manager->config;
    struct region *region;
    struct share *share;

    stand(&session->budget, 0, 0);
    LIST_FOREACH (region, &session->home.regions, link) {
        stand(&region->budget, region_resident_bytes(region), atomic_load(&region->dropped_bytes));
        add(&session->budget, &region->budget.standing);
        consider(look, &region->budget, config->region_budget, BUDGET_REGION, region->id, NULL);
    }
    add(&session->user->limits, &session->budget.standing);
    for (struct domain *domain = session->domain; domain; domain = domain->parent)
        add_within(session, domain);
    for (struct domain *domain = session->former; domain && !domain_is_within(session->domain, domain);
         domain = domain->parent)
        add_within(session, domain);
    session->domain->holds_clients = true;
    LIST_FOREACH (share, &session->shares, of_session) {
        add(&session->budget, &share->shared->region->budget.standing);
    }
    consider(look, &session->budget, config->client_budget, BUDGET_SESSION, session->id, NULL);
}

/* It counts whole for each client that has it, once for the user whose it is, and once for every cgroup in which somebody has it. */
static void look_at_shared(struct look *look, struct shared *shared) {
    struct region *region = shared->region;
    struct domain *domain;

    stand(&region->budget, region_resident_bytes(region), atomic_load(&region->dropped_bytes));
    consider(look, &region->budget, look->manager->config->region_budget, BUDGET_REGION, region->id, NULL);
    add(&shared->user->limits, &region->budget.standing);
    LIST_FOREACH (domain, &look->manager->domains.list, link)
        if (home_is_in(&shared->home, domain))
            add(&domain->budget, &region->budget.standing);
}

static void look_at_groups(struct look *look) {
    struct budgets *budgets = &look->manager->budgets;
    const struct config *config = look->manager->config;
    struct budget_user *user;
    struct domain *domain;

    LIST_FOREACH (user, &budgets->users, link) {
        consider(look, &user->limits, config->user_budget, BUDGET_USER, user->uid, NULL);
    }
    LIST_FOREACH (domain, &look->manager->domains.list, link) {
        consider(look, limits_of_domain(budgets, domain),
                 domain->holds_clients && domain->parent ? config->cgroup_budget : LIMIT_INFINITE, BUDGET_CGROUP,
                 domain->id, domain);
    }
}

static bool config_has_budgets(const struct config *config) {
    return config->region_budget != LIMIT_INFINITE || config->client_budget != LIMIT_INFINITE ||
           config->user_budget != LIMIT_INFINITE || config->cgroup_budget != LIMIT_INFINITE;
}

static void look_at_all(struct look *look) {
    struct budgets *budgets = &look->manager->budgets;
    struct budget_user *user;
    struct session *session;
    struct domain *domain;
    struct home *home;

    LIST_FOREACH (user, &budgets->users, link) {
        stand(&user->limits, 0, 0);
    }
    LIST_FOREACH (domain, &look->manager->domains.list, link) {
        stand(&domain->budget, 0, 0);
        domain->holds_clients = false;
    }
    LIST_FOREACH (home, &look->manager->homes, link)
        if (!home->session)
            look_at_shared(look, shared_of(home));
    LIST_FOREACH (session, &look->manager->sessions, link) {
        look_at_session(look, session);
    }
    look_at_groups(look);
    budgets->active = look->anybody || config_has_budgets(look->manager->config) || !LIST_EMPTY(&budgets->cgroups);
}

uint64_t budget_look(struct manager *manager, uint64_t now, struct budget_excess *ret) {
    struct look look = {.manager = manager, .now = now, .next = UINT64_C(1000000000)};
    struct budgets *budgets = &manager->budgets;
    uint64_t began, cost;

    ret->bytes = 0;
    if (!budgets->active)
        return UINT64_MAX;
    if (now < budgets->due)
        return budgets->due - now;
    began = kernel_now();
    look_at_all(&look);
    if (!budgets->active)
        return UINT64_MAX;
    *ret = look.excess;
    cost = kernel_now() - began;
    /* Whoever may set a budget, his own, can do so all the time, or stay over it. */
    budgets->not_before = cost > COST_LEAST_NS ? now + cost * COST_FACTOR_IN_HASTE : 0;
    if (look.standing) {
        if (budget_may_plan(manager, now)) /* else nobody is asked */
            limit_asked(look.standing, now);
        look.next = cost * COST_FACTOR_IN_HASTE > AGAIN_NS ? cost * COST_FACTOR_IN_HASTE : AGAIN_NS;
    } else if (look.next < cost * COST_FACTOR)
        look.next = cost * COST_FACTOR;
    budgets->due = now + look.next;
    return look.next;
}

void budget_note_plan(struct manager *manager, uint64_t cost) {
    manager->budgets.plan_not_before = cost > COST_LEAST_NS ? kernel_now() + cost * COST_FACTOR_IN_HASTE : 0;
}

bool budget_may_plan(const struct manager *manager, uint64_t now) {
    return now >= manager->budgets.plan_not_before;
}

/* Is it the session's, or does that have a share of it? */
static bool is_of_session(const struct home *home, uint64_t id) {
    const struct share *share;

    if (home->session)
        return home->session->id == id;
    LIST_FOREACH (share, &shared_of(home)->shares, of_shared)
        if (share->session->id == id)
            return true;
    return false;
}

bool budget_covers(const struct budget_excess *excess, const struct region *region) {
    const struct home *home = region->home;

    switch (excess->scope) {
    case BUDGET_REGION:
        return region->id == excess->id;
    case BUDGET_USER:
        return home_uid(home) == excess->id;
    case BUDGET_CGROUP:
        return home_is_in(home, excess->domain);
    default:
        return is_of_session(home, excess->id);
    }
}

/* ---- for the policy ---- */

/* Of a shared one what its owner said of it alone: it is nobody's whole memory. */
uint32_t budget_share(const struct region *region) {
    const struct session *session = region->home->session;
    uint64_t own = limit_value(&region->budget.of[LIMIT_SHARE], LIMIT_SHARE_DEFAULT);
    uint64_t client = session ? limit_value(&session->budget.of[LIMIT_SHARE], LIMIT_SHARE_DEFAULT) : LIMIT_SHARE_DEFAULT;
    uint64_t share = own * client / LIMIT_SHARE_DEFAULT;

    return share < 1 ? 1 : share > 10000 ? 10000 : (uint32_t)share;
}

uint32_t budget_priority(const struct region *region) {
    const struct session *session = region->home->session;
    const struct limit *of_region = &region->budget.of[LIMIT_PRIORITY];
    uint64_t priority = of_region->own ? of_region->own : of_region->given ? of_region->given : region->priority;

    if (session && limit_is_set(&session->budget.of[LIMIT_PRIORITY]))
        priority = limit_value(&session->budget.of[LIMIT_PRIORITY], 3);
    return (uint32_t)limit_value(&(struct limit){.given = of_region->given, .own = priority}, 3);
}
