/* SPDX-License-Identifier: MIT */
/*
 * Whom budgets know.
 *
 * Users and cgroups for which something was set are kept until the daemon ends, in short lists. A process has what was set for it whatever its
 * connections do: all of them add up to it, and what an administrator has set stays when the last one ends, as long as the process lives. So nobody gets
 * rid of it by connecting anew; that it is the same process, and not another one with its number, is seen by its handle (process.h).
 */

#include "budget-groups.h"

#include "manager.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEPT_MAX 1024
/* So many of the processes without a session are looked at at once, 1 us each. */
#define TIDY_LOOKS 64

void budgets_init(struct manager *manager) {
    LIST_INIT(&manager->budgets.users);
    TAILQ_INIT(&manager->budgets.clients);
    TAILQ_INIT(&manager->budgets.absent);
    LIST_INIT(&manager->budgets.cgroups);
    manager->budgets.version = 1;
    manager->budgets.active = true;
}

void budgets_deinit(struct manager *manager) {
    struct budget_cgroup *cgroup;
    struct budget_client *client;
    struct budget_user *user;

    while ((user = LIST_FIRST(&manager->budgets.users))) {
        user->kept = false; /* all sessions are gone */
        groups_free_unused_user(user);
    }
    while ((client = TAILQ_FIRST(&manager->budgets.absent)))
        groups_release_client(&manager->budgets, client);
    while ((cgroup = LIST_FIRST(&manager->budgets.cgroups)))
        groups_free_cgroup(&manager->budgets, cgroup);
}

/* ---- users ---- */

void groups_free_unused_user(struct budget_user *user) {
    if (user->sessions > 0 || user->kept)
        return;
    LIST_REMOVE(user, link);
    free(user);
}

void groups_let_go_user(struct budgets *budgets, struct budget_user *user) {
    user->kept = false;
    budgets->n_kept--;
    groups_free_unused_user(user);
}

struct budget_user *groups_find_user(struct budgets *budgets, uid_t uid) {
    struct budget_user *user;

    LIST_FOREACH (user, &budgets->users, link)
        if (user->uid == uid)
            return user;
    return NULL;
}

static struct budget_user *make_user(struct budgets *budgets, uid_t uid) {
    struct budget_user *user = groups_find_user(budgets, uid);

    if (user)
        return user;
    user = calloc(1, sizeof(*user));
    if (!user)
        return NULL;
    user->uid = uid;
    LIST_INSERT_HEAD(&budgets->users, user, link);
    return user;
}

struct budget_user *groups_keep_user(struct budgets *budgets, uid_t uid) {
    struct budget_user *user = make_user(budgets, uid);

    if (!user || user->kept)
        return user;
    user->kept = true;
    budgets->n_kept++;
    return user;
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
    groups_free_unused_user(user);
}

/* ---- processes ---- */

/* Of one that is there: the handle of the process. */
static int handle_of(const struct manager *manager, const struct budget_client *client) {
    const struct session *session;

    if (client->handle >= 0)
        return client->handle;
    LIST_FOREACH (session, &manager->sessions, link)
        if (session->client == client)
            return session->pidfd;
    return -1;
}

void groups_release_client(struct budgets *budgets, struct budget_client *client) {
    close(client->handle);
    client->handle = -1;
    budgets->n_kept--;
    if (client->sessions > 0)
        return;
    TAILQ_REMOVE(&budgets->absent, client, link);
    free(client);
}

/* Of those without a session: who was not looked at for the longest time stands first. */
static void forget_ended(struct budgets *budgets, unsigned looks) {
    struct budget_client *client, *last = TAILQ_LAST(&budgets->absent, budget_client_queue);

    while (looks-- > 0 && (client = TAILQ_FIRST(&budgets->absent))) {
        bool all = client == last;

        if (process_ended(client->handle))
            groups_release_client(budgets, client);
        else {
            TAILQ_REMOVE(&budgets->absent, client, link);
            TAILQ_INSERT_TAIL(&budgets->absent, client, link);
        }
        if (all)
            break;
    }
}

static struct budget_client *find_among(const struct manager *manager, const struct budget_client_queue *queue,
                                        uint64_t pid) {
    struct budget_client *client;

    TAILQ_FOREACH (client, queue, link)
        if ((uint64_t)client->pid == pid && !process_ended(handle_of(manager, client)))
            return client;
    return NULL;
}

struct budget_client *groups_find_client(struct manager *manager, uint64_t pid) {
    struct budget_client *client;

    if (pid == 0)
        return NULL;
    client = find_among(manager, &manager->budgets.clients, pid);
    return client ? client : find_among(manager, &manager->budgets.absent, pid);
}

int groups_keep_client(struct manager *manager, struct budget_client *client) {
    int handle = fcntl(handle_of(manager, client), F_DUPFD_CLOEXEC, 0);

    if (handle < 0)
        return -errno;
    client->handle = handle;
    manager->budgets.n_kept++;
    return 0;
}

uint64_t groups_bytes_of_client(const struct manager *manager, const struct budget_client *client) {
    const struct session *session;
    uint64_t bytes = 0;

    LIST_FOREACH (session, &manager->sessions, link)
        if (session->client == client)
            bytes += session->region_bytes;
    return bytes;
}

static struct budget_client_queue *queue_of(struct budgets *budgets, const struct budget_client *client) {
    return client->sessions > 0 ? &budgets->clients : &budgets->absent;
}

static int join_client(struct manager *manager, struct session *session) {
    struct budgets *budgets = &manager->budgets;
    struct budget_client *client = groups_find_client(manager, (uint64_t)(session->pid > 0 ? session->pid : 0));

    if (!client) {
        client = calloc(1, sizeof(*client));
        if (!client)
            return -ENOMEM;
        client->pid = session->pid;
        client->uid = session->uid;
        client->handle = -1;
    } else
        TAILQ_REMOVE(queue_of(budgets, client), client, link);
    TAILQ_INSERT_HEAD(&budgets->clients, client, link);
    client->mixed |= client->uid != session->uid;
    client->sessions++;
    session->client = client;
    return 0;
}

static void leave_client(struct budgets *budgets, struct session *session) {
    struct budget_client *client = session->client;

    session->client = NULL;
    if (--client->sessions > 0)
        return;
    TAILQ_REMOVE(&budgets->clients, client, link);
    if (client->handle < 0)
        free(client);
    else
        TAILQ_INSERT_HEAD(&budgets->absent, client, link);
}

int budget_join(struct manager *manager, struct session *session) {
    int r;

    manager->budgets.active = true;
    r = budget_hold_user(manager, session->uid, &session->user);
    if (r < 0)
        return r;
    r = join_client(manager, session);
    if (r >= 0)
        return 0;
    budget_release_user(session->user);
    session->user = NULL;
    return r;
}

void budget_leave(struct manager *manager, struct session *session) {
    struct budget_user *user = session->user;

    leave_client(&manager->budgets, session);
    session->user = NULL;
    budget_release_user(user);
}

bool budgets_tidy(struct manager *manager) {
    bool left;

    pthread_mutex_lock(&manager->lock);
    forget_ended(&manager->budgets, TIDY_LOOKS);
    left = !TAILQ_EMPTY(&manager->budgets.absent);
    pthread_mutex_unlock(&manager->lock);
    return left;
}

bool groups_have_place(struct budgets *budgets, bool administrator) {
    unsigned max = administrator ? KEPT_MAX : KEPT_MAX / 2;

    if (budgets->n_kept >= max)
        forget_ended(budgets, KEPT_MAX);
    return budgets->n_kept < max;
}

/* ---- cgroups ---- */

struct budget_cgroup *groups_find_cgroup(struct budgets *budgets, const char *path) {
    struct budget_cgroup *cgroup;

    LIST_FOREACH (cgroup, &budgets->cgroups, link)
        if (strcmp(cgroup->path, path) == 0)
            return cgroup;
    return NULL;
}

struct budget_cgroup *groups_make_cgroup(struct budgets *budgets, const char *path) {
    struct budget_cgroup *cgroup = calloc(1, sizeof(*cgroup));

    if (cgroup)
        cgroup->path = strdup(path);
    if (!cgroup || !cgroup->path) {
        free(cgroup);
        return NULL;
    }
    LIST_INSERT_HEAD(&budgets->cgroups, cgroup, link);
    budgets->n_kept++;
    return cgroup;
}

void groups_free_cgroup(struct budgets *budgets, struct budget_cgroup *cgroup) {
    LIST_REMOVE(cgroup, link);
    budgets->n_kept--;
    free(cgroup->path);
    free(cgroup);
}

struct limits *groups_limits_of_domain(struct budgets *budgets, struct domain *domain) {
    const struct budget_cgroup *cgroup;

    if (domain->limits_version == budgets->version)
        return &domain->budget;
    domain->limits_version = budgets->version;
    cgroup = LIST_EMPTY(&budgets->cgroups) ? NULL : groups_find_cgroup(budgets, domain->parent ? domain->path : "/");
    for (int i = 0; i < LIMIT_KINDS; i++)
        domain->budget.of[i] = cgroup ? cgroup->limits.of[i] : (struct limit){0};
    domain->budget.standing.not_before = 0;
    return &domain->budget;
}

/* ---- the config ---- */

/* The ceiling of a priority is the highest: a region is created with any. */
void groups_configured(const struct config *config, enum budget_scope scope, uint64_t *ret) {
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
