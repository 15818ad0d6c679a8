/* SPDX-License-Identifier: MIT */
/*
 * What can run short: the machine, and every memory cgroup that a session is in, with its ancestors, as a tree whose root is the
 * machine. A domain lives while a session or a child refers to it.
 *
 * Always: parent pointers lead to the machine; a session's fills and commitments are counted in every domain of its chain, so a
 * limit anywhere above it is seen. A cgroup that was removed stays as a domain without a limit until its sessions are gone.
 */

#include "domain.h"

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A wake-up under load, and the time in which a slice is punched (four times as fast as memory is filled, or better). */
#define DOMAIN_WAKEUP_NS UINT64_C(2000000)
#define DOMAIN_SLICE (UINT64_C(16) * 1024 * 1024)
#define DOMAIN_PUNCH_NS UINT64_C(4000000)
#define DOMAIN_MARGIN (UINT64_C(2) * 1024 * 1024)
#define DOMAIN_CALM_NS UINT64_C(100000000)

static int domain_new(struct domains *domains, struct domain **ret, struct domain *parent, int version,
                      const char *mount, const char *path) {
    struct domain *domain = calloc(1, sizeof(*domain));

    if (!domain)
        return -ENOMEM;
    domain->mount = strdup(mount);
    domain->path = strdup(path);
    if (!domain->mount || !domain->path) {
        free(domain->mount);
        free(domain->path);
        free(domain);
        return -ENOMEM;
    }
    domain->id = domains->next_id++;
    domain->version = version;
    domain->parent = parent;
    domain->refs = 1;
    domain->limits.slice = DOMAIN_SLICE;
    domain->limits.margin = DOMAIN_MARGIN;
    domain->limits.fill_rate = domains->fill_rate;
    LIST_INSERT_HEAD(&domains->list, domain, link);
    if (parent)
        parent->refs++;
    *ret = domain;
    return 0;
}

int domains_init(struct domains *domains, const struct cgroup_roots *roots, uint64_t fill_rate,
                 uint64_t machine_reserve, uint64_t cgroup_reserve) {
    int r;

    *domains = (struct domains){.roots = *roots,
                                .fill_rate = fill_rate,
                                .machine_reserve = machine_reserve,
                                .cgroup_reserve = cgroup_reserve,
                                .next_id = 1};
    LIST_INIT(&domains->list);
    r = meminfo_init(&domains->meminfo, roots);
    if (r < 0)
        return r;
    r = domain_new(domains, &domains->machine, NULL, 0, "", "");
    if (r < 0) {
        meminfo_deinit(&domains->meminfo);
        return r;
    }
    domain_take_look(domains, domains->machine);
    return 0;
}

void domains_deinit(struct domains *domains) {
    if (domains->machine)
        domain_unref(domains->machine);
    meminfo_deinit(&domains->meminfo);
    domains->machine = NULL;
}

void domain_unref(struct domain *domain) {
    while (domain && --domain->refs == 0) {
        struct domain *parent = domain->parent;

        LIST_REMOVE(domain, link);
        cgroup_free(domain->cgroup);
        free(domain->mount);
        free(domain->path);
        free(domain);
        domain = parent;
    }
}

static struct domain *domains_lookup(struct domains *domains, int version, const char *mount, const char *path) {
    struct domain *domain;

    LIST_FOREACH (domain, &domains->list, link)
        if (domain->version == version && strcmp(domain->path, path) == 0 && strcmp(domain->mount, mount) == 0)
            return domain;
    return NULL;
}

/* The domain of a path, made with its ancestors if need be. A reference for the caller. */
static int domains_get(struct domains *domains, int version, const char *mount, const char *path, struct domain **ret) {
    struct domain *domain, *parent = NULL;
    char *parent_path = NULL;
    int r;

    domain = domains_lookup(domains, version, mount, path);
    if (domain) {
        domain->refs++;
        *ret = domain;
        return 0;
    }
    r = cgroup_parent_path(path, &parent_path);
    if (r < 0)
        return r;
    if (!parent_path) { /* the root of the hierarchy is the machine itself */
        domains->machine->refs++;
        *ret = domains->machine;
        return 0;
    }
    r = domains_get(domains, version, mount, parent_path, &parent);
    free(parent_path);
    if (r < 0)
        return r;
    r = domain_new(domains, &domain, parent, version, mount, path);
    domain_unref(parent); /* the child holds it now */
    if (r < 0)
        return r;
    if (cgroup_new(&domain->cgroup, version, mount, path) < 0)
        domain->cgroup = NULL; /* gone, or not readable: no limit of its own */
    domain_take_look(domains, domain);
    *ret = domain;
    return 0;
}

int domains_find(struct domains *domains, pid_t pid, struct domain **ret) {
    struct cgroup_place place = {0};
    int r;

    r = cgroup_locate(&domains->roots, pid, &place);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        domains->machine->refs++;
        *ret = domains->machine;
        return 0;
    }
    r = domains_get(domains, place.version, place.mount, place.path, ret);
    cgroup_place_deinit(&place);
    return r;
}

bool domain_is_within(const struct domain *domain, const struct domain *ancestor) {
    for (; domain; domain = domain->parent)
        if (domain == ancestor)
            return true;
    return false;
}

static void domain_look_machine(struct domains *domains, struct domain *domain) {
    uint64_t total, available;

    if (meminfo_read(&domains->meminfo, &total, &available) < 0)
        return;
    domain->look = (struct cgroup_look){.limit = total,
                                        .high = CGROUP_NO_LIMIT,
                                        .usage = total - available,
                                        .headroom = available,
                                        .headroom_high = CGROUP_NO_LIMIT};
}

uint64_t domain_headroom(const struct domain *domain) {
    const struct cgroup_look *look = &domain->look;
    uint64_t relief = domain->limits.reserve - domain->limits.reserve / 4;

    return look->headroom_high < CGROUP_NO_LIMIT - relief && look->headroom_high + relief < look->headroom
               ? look->headroom_high + relief
               : look->headroom;
}

void domain_take_look(struct domains *domains, struct domain *domain) {
    uint64_t configured = domain->cgroup ? domains->cgroup_reserve : domains->machine_reserve;
    struct policy_limits *limits = &domain->limits;
    int64_t credit = INT64_MAX / 4;
    uint64_t bound, headroom;

    if (!domain->parent)
        domain_look_machine(domains, domain);
    else if (!domain->cgroup || cgroup_read(domain->cgroup, limits->reserve + limits->margin, &domain->look) < 0) {
        domain->cgroup = cgroup_free(domain->cgroup);
        domain->look = (struct cgroup_look){.limit = CGROUP_NO_LIMIT,
                                            .high = CGROUP_NO_LIMIT,
                                            .headroom = CGROUP_NO_LIMIT,
                                            .headroom_high = CGROUP_NO_LIMIT};
    }
    bound = domain->look.high < domain->look.limit ? domain->look.high : domain->look.limit;
    limits->reserve = configured != CONFIG_AUTO
                          ? configured
                          : policy_auto_reserve(domains->fill_rate, DOMAIN_WAKEUP_NS, DOMAIN_PUNCH_NS, bound);
    headroom = domain_headroom(domain);
    if (headroom != CGROUP_NO_LIMIT)
        credit = (int64_t)headroom - atomic_load(&domain->commitment) - (int64_t)limits->reserve;
    atomic_store(&domain->credit, credit);
}

void domain_note_deficit(struct domain *domain, uint64_t now) {
    struct policy_limits *limits = &domain->limits;

    if (domain_headroom(domain) < limits->reserve) {
        if (domain->deficits < 16)
            domain->deficits++;
        domain->last_deficit = now;
    } else if (now - domain->last_deficit > DOMAIN_CALM_NS)
        domain->deficits = 0;
    limits->margin = policy_margin(DOMAIN_MARGIN, limits->slice, domain->deficits);
}
