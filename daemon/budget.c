/* SPDX-License-Identifier: MIT */
/*
 * Who has more than he may have.
 *
 * Limits lie with what they are for: in the region, the session, the process, the user, the domain. A domain comes and goes with its clients, and
 * copies what was set for its path when it is first looked at. Always: a look allocates nothing and asks the kernel for sizes of
 * objects only.
 *
 * The config's budget of cgroups is for those that hold clients themselves: else a slice above ten services would have no more than
 * one of them.
 */

#include "budget-groups.h"

#include "manager.h"

#define AGAIN_NS UINT64_C(1000000)
/* A look costs up to 1 us for each region: at most 1 % of a CPU, 10 % while somebody is over or settings change. */
#define COST_FACTOR 100
#define COST_FACTOR_IN_HASTE 10
#define COST_LEAST_NS UINT64_C(100000)

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* ---- looking ---- */

struct look {
    struct manager *manager;
    uint64_t now;
    uint64_t next; /* ns */
    bool anybody;  /* has a budget */
    bool over;     /* somebody is */
    struct budget_excess *chosen;
    size_t n;
};

static bool comes_before(const struct budget_excess *a, const struct budget_excess *b) {
    if (*a->turn_of_user != *b->turn_of_user)
        return *a->turn_of_user < *b->turn_of_user;
    return *a->turn != *b->turn ? *a->turn < *b->turn : a->bytes > b->bytes;
}

/*
 * Whoever had his turn the longest time ago comes first, not who is most over: who fills as fast as he is dropped from would be that for ever. Users before
 * what is of a user, or one with many sessions, each over a budget of its own, would take the others' turns. The regions of one session have one turn
 * together.
 */
static void choose(struct look *look, const struct budget_excess *excess) {
    struct budget_excess *chosen = look->chosen;
    size_t i = 0;

    while (i < look->n && chosen[i].turn != excess->turn)
        i++;
    if (i < look->n) {
        if (excess->standing->asked < chosen[i].standing->asked)
            chosen[i] = *excess;
        return;
    }
    for (; i > 0 && comes_before(excess, &chosen[i - 1]); i--)
        if (i < BUDGET_AT_ONCE)
            chosen[i] = chosen[i - 1];
    if (i == BUDGET_AT_ONCE)
        return;
    chosen[i] = *excess;
    look->n += look->n < BUDGET_AT_ONCE;
}

/* whose: scope, id and what else says whom it covers; turn: NULL, its own; turn_of_user: NULL, as if it were a user. */
static void consider(struct look *look, struct limits *limits, uint64_t configured_budget, struct budget_excess whose) {
    uint64_t budget = limit_value(&limits->of[LIMIT_BUDGET], configured_budget), wait;

    limits->standing.over = 0;
    if (budget == LIMIT_INFINITE)
        return;
    look->anybody = true;
    whose.bytes = limit_excess(&limits->standing, budget, look->manager->kernel.fill_rate, look->now, &wait);
    limits->standing.over = whose.bytes;
    if (whose.bytes == 0) {
        if (wait < look->next)
            look->next = wait;
        return;
    }
    look->over = true;
    whose.budget = budget;
    whose.resident = limits->standing.resident;
    whose.standing = &limits->standing;
    if (!whose.turn)
        whose.turn = &limits->standing.asked;
    if (!whose.turn_of_user)
        whose.turn_of_user = whose.turn;
    choose(look, &whose);
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
    struct region *region;
    struct share *share;

    stand(&session->budget, 0, 0);
    LIST_FOREACH (region, &session->home.regions, link) {
        stand(&region->budget, region_resident_bytes(region), atomic_load(&region->dropped_bytes));
        add(&session->budget, &region->budget.standing);
        consider(look, &region->budget, look->manager->config->region_budget,
                 (struct budget_excess){.scope = BUDGET_REGION,
                                        .id = region->id,
                                        .turn = &session->regions_asked,
                                        .turn_of_user = &session->user->asked});
    }
    session->client->turn_of_user = &session->user->asked;
    add(&session->client->limits, &session->budget.standing);
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
    consider(look, &session->budget, LIMIT_INFINITE,
             (struct budget_excess){.scope = BUDGET_SESSION, .id = session->id, .turn_of_user = &session->user->asked});
}

/* Once for each process that has it, by whatever number of sessions. */
static void add_to_clients(struct budgets *budgets, const struct shared *shared) {
    uint64_t count = ++budgets->counts;
    const struct share *share;

    LIST_FOREACH (share, &shared->shares, of_shared) {
        struct budget_client *client = share->session->client; /* NULL: its connection has ended */

        if (client && client->counted != count)
            add(&client->limits, &shared->region->budget.standing);
        if (client)
            client->counted = count;
    }
}

/* It counts whole for each process that has it, once for the user whose it is, and once for every cgroup in which somebody has it. */
static void look_at_shared(struct look *look, struct shared *shared) {
    struct region *region = shared->region;
    struct domain *domain;

    stand(&region->budget, region_resident_bytes(region), atomic_load(&region->dropped_bytes));
    consider(look, &region->budget, look->manager->config->region_budget,
             (struct budget_excess){.scope = BUDGET_REGION,
                                    .id = region->id,
                                    .turn = &shared->user->regions_asked,
                                    .turn_of_user = &shared->user->asked});
    add(&shared->user->limits, &region->budget.standing);
    add_to_clients(&look->manager->budgets, shared);
    LIST_FOREACH (domain, &look->manager->domains.list, link)
        if (home_is_in(&shared->home, domain))
            add(&domain->budget, &region->budget.standing);
}

static void look_at_groups(struct look *look) {
    struct budgets *budgets = &look->manager->budgets;
    const struct config *config = look->manager->config;
    struct budget_client *client;
    struct budget_user *user;
    struct domain *domain;

    TAILQ_FOREACH (client, &budgets->clients, link) {
        consider(look, &client->limits, config->client_budget,
                 (struct budget_excess){.scope = BUDGET_CLIENT,
                                        .id = (uint64_t)client->pid,
                                        .client = client,
                                        .turn_of_user = client->turn_of_user});
    }
    LIST_FOREACH (user, &budgets->users, link) {
        consider(look, &user->limits, config->user_budget,
                 (struct budget_excess){.scope = BUDGET_USER, .id = user->uid, .turn_of_user = &user->asked});
    }
    LIST_FOREACH (domain, &look->manager->domains.list, link) {
        uint64_t configured = domain->holds_clients && domain->parent ? config->cgroup_budget : LIMIT_INFINITE;

        consider(look, groups_limits_of_domain(budgets, domain), configured,
                 (struct budget_excess){.scope = BUDGET_CGROUP, .id = domain->id, .domain = domain});
    }
}

static bool config_has_budgets(const struct config *config) {
    return config->region_budget != LIMIT_INFINITE || config->client_budget != LIMIT_INFINITE ||
           config->user_budget != LIMIT_INFINITE || config->cgroup_budget != LIMIT_INFINITE;
}

static void look_at_all(struct look *look) {
    struct budgets *budgets = &look->manager->budgets;
    struct budget_client *client;
    struct budget_user *user;
    struct session *session;
    struct domain *domain;
    struct home *home;

    TAILQ_FOREACH (client, &budgets->clients, link) {
        stand(&client->limits, 0, 0);
        client->turn_of_user = NULL;
    }
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

uint64_t budget_look(struct manager *manager, uint64_t now, struct budget_excess *ret, size_t *ret_n) {
    struct look look = {.manager = manager, .now = now, .next = UINT64_C(1000000000), .chosen = ret};
    struct budgets *budgets = &manager->budgets;
    uint64_t began, cost;

    *ret_n = 0;
    if (!budgets->active)
        return UINT64_MAX;
    if (now < budgets->due)
        return budgets->due - now;
    began = kernel_now();
    look_at_all(&look);
    budgets->over = look.over;
    if (!budgets->active)
        return UINT64_MAX;
    *ret_n = look.n;
    cost = kernel_now() - began;
    /* Whoever may set a budget, his own, can do so all the time, or stay over it. */
    budgets->not_before = cost > COST_LEAST_NS ? now + cost * COST_FACTOR_IN_HASTE : 0;
    if (look.n > 0)
        look.next = cost * COST_FACTOR_IN_HASTE > AGAIN_NS ? cost * COST_FACTOR_IN_HASTE : AGAIN_NS;
    else if (look.next < cost * COST_FACTOR)
        look.next = cost * COST_FACTOR;
    budgets->due = now + look.next;
    return look.next;
}

void budget_note_asked(const struct budget_excess *excess, uint64_t now, bool busy) {
    *excess->turn_of_user = *excess->turn = excess->standing->asked = now;
    if (!busy)
        limit_asked(excess->standing, now);
}

void budget_note_plan(struct manager *manager, uint64_t cost) {
    manager->budgets.plan_not_before = cost > COST_LEAST_NS ? kernel_now() + cost * COST_FACTOR_IN_HASTE : 0;
}

bool budget_may_plan(const struct manager *manager, uint64_t now) {
    return now >= manager->budgets.plan_not_before;
}

static bool is_session(const struct budget_excess *excess, const struct session *session) {
    return excess->scope == BUDGET_CLIENT ? session->client == excess->client : session->id == excess->id;
}

/* Is it the session's or the process's, or has that a share of it? */
static bool is_of_session(const struct budget_excess *excess, const struct home *home) {
    const struct share *share;

    if (home->session)
        return is_session(excess, home->session);
    LIST_FOREACH (share, &shared_of(home)->shares, of_shared)
        if (is_session(excess, share->session))
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
        return is_of_session(excess, home);
    }
}

/* ---- in need ---- */

/* So many bytes of a group's are named. Returns what it is over by still, or most, if that is more. */
static uint64_t take(struct limits *limits, uint64_t bytes, uint64_t most) {
    limits->standing.over -= least(limits->standing.over, bytes);
    return limits->standing.over > most ? limits->standing.over : most;
}

static uint64_t take_of_session(struct session *session, uint64_t bytes, uint64_t most) {
    most = take(&session->budget, bytes, most);
    most = take(&session->client->limits, bytes, most);
    for (struct domain *domain = session->domain; domain; domain = domain->parent)
        most = take(&domain->budget, bytes, most);
    for (struct domain *domain = session->former; domain && !domain_is_within(session->domain, domain);
         domain = domain->parent)
        most = take(&domain->budget, bytes, most);
    return most;
}

/* The same of each group that the region counts for; of a shared one of some maybe more than once. */
static uint64_t take_of_region(struct region *region, uint64_t bytes) {
    const struct home *home = region->home;
    uint64_t most = take(&region->budget, bytes, 0);
    const struct share *share;

    if (home->session) {
        most = take(&home->session->user->limits, bytes, most);
        return take_of_session(home->session, bytes, most);
    }
    most = take(&shared_of(home)->user->limits, bytes, most);
    LIST_FOREACH (share, &shared_of(home)->shares, of_shared)
        if (share->session->client)
            most = take_of_session(share->session, bytes, most);
    return most;
}

uint64_t budget_over(struct region *region) {
    return take_of_region(region, 0);
}

void budget_note_planned(struct region *region, uint64_t bytes) {
    if (region->home->manager->budgets.over)
        (void)take_of_region(region, bytes);
}

/* A group's, once. */
static uint64_t count_once(struct limit_standing *standing, uint64_t *counted, uint64_t count) {
    if (*counted == count)
        return 0;
    *counted = count;
    return standing->over;
}

uint64_t budget_over_in(struct manager *manager, const struct domain *domain) {
    struct budgets *budgets = &manager->budgets;
    uint64_t count = ++budgets->counts, bytes = 0;
    const struct region *region;
    struct domain *other;
    struct home *home;

    if (!budgets->over)
        return 0;
    LIST_FOREACH (home, &manager->homes, link) {
        struct session *session = home->session;
        struct budget_user *user = session ? session->user : shared_of(home)->user;

        if (!home_is_in(home, domain))
            continue;
        LIST_FOREACH (region, &home->regions, link)
            bytes += region->budget.standing.over;
        if (session)
            bytes += session->budget.standing.over +
                     count_once(&session->client->limits.standing, &session->client->counted, count);
        bytes += count_once(&user->limits.standing, &user->counted, count);
    }
    LIST_FOREACH (other, &manager->domains.list, link)
        if (domain_is_within(other, domain) || domain_is_within(domain, other))
            bytes += other->budget.standing.over;
    return bytes;
}

/* ---- for the policy ---- */

/* Of a shared one what its owner said of it alone: it is nobody's whole memory. */
uint32_t budget_share(const struct region *region) {
    const struct session *session = region->home->session;
    uint64_t share = limit_value(&region->budget.of[LIMIT_SHARE], LIMIT_SHARE_DEFAULT), of_process;

    if (session) {
        of_process = limit_value(&session->client->limits.of[LIMIT_SHARE], LIMIT_SHARE_DEFAULT);
        share = share * limit_value(&session->budget.of[LIMIT_SHARE], of_process) / LIMIT_SHARE_DEFAULT;
    }
    return share < 1 ? 1 : share > 10000 ? 10000 : (uint32_t)share;
}

bool budget_has_priority(const struct session *session) {
    return limit_is_set(&session->budget.of[LIMIT_PRIORITY]) ||
           limit_is_set(&session->client->limits.of[LIMIT_PRIORITY]);
}

uint32_t budget_priority(const struct region *region) {
    const struct session *session = region->home->session;
    const struct limit *of_region = &region->budget.of[LIMIT_PRIORITY];
    uint64_t priority = of_region->own ? of_region->own : of_region->given ? of_region->given : region->priority;

    if (session && budget_has_priority(session))
        priority = limit_value(&session->budget.of[LIMIT_PRIORITY],
                               limit_value(&session->client->limits.of[LIMIT_PRIORITY], 3));
    return (uint32_t)limit_value(&(struct limit){.given = of_region->given, .own = priority}, 3);
}
