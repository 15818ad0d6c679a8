/* SPDX-License-Identifier: MIT */
/*
 * What can run short: the machine, and every memory cgroup that a session is in, with its ancestors, as a tree whose root is the
 * machine. A domain lives while a session or a child refers to it.
 *
 * Always: parent pointers lead to the machine; a session's fills and commitments are counted in every domain of its chain, so a
 * limit anywhere above it is seen. A cgroup that was removed stays as a domain without a limit until its sessions are gone: what is charged
 * to it is charged to its parent, in which they are, too. It is never found again: a cgroup that is made under its name is a new domain.
 *
 * Each costs up to eight descriptors and a look of some microseconds whenever anybody's is due, and a user who may make cgroups can put his
 * clients into thousands, nested or not. So there are bounds: what is beyond is not watched for itself.
 *
 * Handles of the loop watch a domain (source.c), and the last reference may be the pressure thread's. So a domain with a source is not freed
 * but retired, and the loop woken: it closes the source, and frees the domain. Until then nothing of the domain can be found by anybody.
 */

#include "domain.h"

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEPTH_MAX 32
#define DESCRIPTORS_EACH 9
/* A limit that is known is no older than that, and one look. */
#define DOMAIN_LIMITS_NS UINT64_C(10000000)

/* Some source has to be made, or closed. */
static void domains_wake_loop(struct domains *domains) {
    if (!domains->changed)
        (void)!write(domains->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    domains->changed = true;
}

struct domain *domain_free(struct domain *domain) {
    if (!domain)
        return NULL;
    cgroup_free(domain->cgroup);
    free(domain->mount);
    free(domain->path);
    free(domain);
    return NULL;
}

static int domain_new(struct domains *domains, struct domain **ret, struct domain *parent, int version,
                      const char *mount, const char *path, uid_t by) {
    struct domain *domain = calloc(1, sizeof(*domain));

    if (!domain)
        return -ENOMEM;
    domain->mount = strdup(mount);
    domain->path = strdup(path);
    if (!domain->mount || !domain->path) {
        domain_free(domain);
        return -ENOMEM;
    }
    domain->domains = domains;
    domain->id = domains->next_id++;
    domain->by = by;
    domain->version = version;
    domain->parent = parent;
    domain->refs = 1;
    controller_init(&domain->controller, domains->fill_rate);
    LIST_INSERT_HEAD(&domains->list, domain, link);
    domains_wake_loop(domains);
    if (parent)
        parent->refs++;
    *ret = domain;
    return 0;
}

/* A quarter of the descriptors, as regions take three. */
static unsigned domains_that_fit(void) {
    struct rlimit files = {.rlim_cur = 1024};

    getrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_cur / 4 / DESCRIPTORS_EACH < 65536 ? (unsigned)files.rlim_cur / 4 / DESCRIPTORS_EACH : 65536;
}

int domains_init(struct domains *domains, const struct cgroup_roots *roots, int wake_fd, uint64_t fill_rate,
                 uint64_t machine_reserve, uint64_t cgroup_reserve) {
    int r;

    *domains = (struct domains){.roots = *roots,
                                .wake_fd = wake_fd,
                                .fill_rate = fill_rate,
                                .machine_reserve = machine_reserve,
                                .cgroup_reserve = cgroup_reserve,
                                .next_id = 1,
                                .max = domains_that_fit()};
    LIST_INIT(&domains->list);
    LIST_INIT(&domains->retired);
    r = meminfo_init(&domains->meminfo, roots);
    if (r < 0)
        return r;
    r = domain_new(domains, &domains->machine, NULL, 0, "", "", 0);
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
        if (domain->domains->nearest == domain)
            domain->domains->nearest = NULL;
        if (domain->source) {
            LIST_INSERT_HEAD(&domain->domains->retired, domain, link);
            domains_wake_loop(domain->domains);
        } else
            domain_free(domain);
        domain = parent;
    }
}

struct domain *domains_take_retired(struct domains *domains) {
    struct domain *domain = LIST_FIRST(&domains->retired);

    if (domain)
        LIST_REMOVE(domain, link);
    return domain;
}

/* The files say that it was removed. */
static void domain_note_gone(struct domain *domain) {
    domain->cgroup = cgroup_free(domain->cgroup);
    domain->gone = true;
    if (domain->source)
        domains_wake_loop(domain->domains);
}

static struct domain *domains_lookup(struct domains *domains, int version, const char *mount, const char *path) {
    struct domain *domain;

    LIST_FOREACH (domain, &domains->list, link) {
        if (domain->gone || domain->version != version || strcmp(domain->path, path) != 0 ||
            strcmp(domain->mount, mount) != 0)
            continue;
        if (!domain->cgroup || !cgroup_is_gone(domain->cgroup))
            return domain;
        domain_note_gone(domain); /* no look has come by since */
    }
    return NULL;
}

static bool has_room(const struct domains *domains, uid_t by) {
    const struct domain *domain;
    unsigned all = 0, of_user = 0;

    LIST_FOREACH (domain, &domains->list, link) {
        all++;
        of_user += domain->by == by;
    }
    return all < domains->max && of_user < domains->max / 2;
}

/* The domain of a path, made with its ancestors if need be. A reference for the caller. */
static int domains_get(struct domains *domains, int version, const char *mount, const char *path, uid_t by,
                       struct domain **ret) {
    struct domain *domain, *parent = NULL;
    struct cgroup *cgroup = NULL;
    char *parent_path = NULL;
    bool is_top, gone;
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
    is_top = !parent_path;
    r = is_top ? domains_find(domains, NULL, by, &parent)
               : domains_get(domains, version, mount, parent_path, by, &parent);
    free(parent_path);
    if (r < 0)
        return r;
    r = cgroup_new(&cgroup, version, mount, path); /* not readable: no limit of its own */
    if (cgroup_is_shortage(r)) {
        domain_unref(parent);
        return r;
    }
    gone = r == -ENOENT;
    if (is_top && (!cgroup || cgroup_is_root(cgroup))) { /* that is the machine itself */
        cgroup_free(cgroup);
        *ret = parent;
        return 0;
    }
    if (!has_room(domains, by)) {
        domains->full = true;
        cgroup_free(cgroup);
        *ret = parent;
        return 0;
    }
    r = domain_new(domains, &domain, parent, version, mount, path, by);
    domain_unref(parent); /* the child holds it now */
    if (r < 0) {
        cgroup_free(cgroup);
        return r;
    }
    domain->cgroup = cgroup;
    domain->gone = gone;
    domain_take_look(domains, domain);
    *ret = domain;
    return 0;
}

/* The end of what is watched of a path. */
static const char *end_of_watch(const char *path) {
    unsigned depth = 0;

    for (; *path; path++)
        if (*path == '/' && ++depth > DEPTH_MAX)
            break;
    return path;
}

int domains_find(struct domains *domains, const struct cgroup_place *place, uid_t by, struct domain **ret) {
    const char *end;
    char *path;
    int r;

    if (!place) {
        domains->machine->refs++;
        *ret = domains->machine;
        return 0;
    }
    end = end_of_watch(place->path);
    domains->full |= *end != '\0';
    path = strndup(place->path, (size_t)(end - place->path));
    if (!path)
        return -ENOMEM;
    r = domains_get(domains, place->version, place->mount, path, by, ret);
    free(path);
    return r;
}

void domain_look_now(struct domain *domain) {
    for (; domain; domain = domain->parent)
        domain->due = 0;
}

bool domain_is_within(const struct domain *domain, const struct domain *ancestor) {
    for (; domain; domain = domain->parent)
        if (domain == ancestor)
            return true;
    return false;
}

static void domain_look_machine(struct domains *domains, struct domain *domain) {
    struct meminfo_look look;

    if (meminfo_read(&domains->meminfo, &look) < 0)
        return;
    domain->commit_limited = look.committable != UINT64_MAX;
    domain->committable = look.committable;
    domain->look = (struct cgroup_look){.limit = look.total,
                                        .high = CGROUP_NO_LIMIT,
                                        .limit_swap = CGROUP_NO_LIMIT,
                                        .usage = look.total - look.available,
                                        .headroom = look.available,
                                        .headroom_high = CGROUP_NO_LIMIT};
}

/*
 * One that cannot be read has no limit of its own. A look each few milliseconds costs as much for each file as a quarter of its waking up, so
 * then not each of them reads the limits, which whoever sets them sets once.
 */
static void domain_look_cgroup(struct domain *domain) {
    const struct cgroup_look *known = NULL;
    int r = -EACCES;

    if (domain->interval > 0 && domain->limits_read * domain->interval < DOMAIN_LIMITS_NS)
        known = &domain->look;
    domain->limits_read = known ? domain->limits_read + 1 : 1;
    if (domain->cgroup)
        r = cgroup_read(domain->cgroup, domain->controller.limits.reserve + domain->controller.limits.margin, known,
                        &domain->look);
    if (r == -ENODEV)
        domain_note_gone(domain);
    if (r >= 0)
        return;
    domain->limits_read = DOMAIN_LIMITS_NS; /* what follows is not known */
    domain->look = (struct cgroup_look){.limit = CGROUP_NO_LIMIT,
                                        .high = CGROUP_NO_LIMIT,
                                        .limit_swap = CGROUP_NO_LIMIT,
                                        .headroom = CGROUP_NO_LIMIT,
                                        .headroom_high = CGROUP_NO_LIMIT};
}

uint64_t domain_until_commit(const struct domain *domain, uint64_t headroom) {
    return domain->commit_limited && domain->committable < headroom ? domain->committable : headroom;
}

uint64_t domain_headroom(const struct domain *domain) {
    const struct cgroup_look *look = &domain->look;
    uint64_t relief = domain->controller.limits.reserve - domain->controller.limits.reserve / 4;
    uint64_t headroom = look->headroom_high < CGROUP_NO_LIMIT - relief && look->headroom_high + relief < look->headroom
                            ? look->headroom_high + relief
                            : look->headroom;

    return domain_until_commit(domain, headroom);
}

uint64_t domain_threshold(const struct domain *domain) {
    uint64_t distance = 2 * domain->controller.limits.reserve;

    return domain->version == 1 && !domain->gone && domain->look.limit != CGROUP_NO_LIMIT && domain->look.limit > distance
               ? domain->look.limit - distance
               : 0;
}

/* A new one takes some system calls, so it is made for a sixteenth and no less. */
bool domain_is_off_threshold(const struct domain *domain) {
    uint64_t is = domain->threshold, wanted = domain_threshold(domain);

    return (is > wanted ? is - wanted : wanted - is) > is / 16;
}

/* What it may use at most, without stall. */
static uint64_t bound_of(const struct domain *domain) {
    return domain->look.high < domain->look.limit ? domain->look.high : domain->look.limit;
}

uint64_t domain_auto_reserve(const struct domains *domains, const struct domain *domain) {
    uint64_t bound = bound_of(domain);

    return domain->parent ? controller_auto_reserve(domains->fill_rate, bound)
                          : controller_machine_reserve(domains->fill_rate, bound);
}

/* One that is all of it could never be kept: whatever is there would be dropped again and again. */
static uint64_t bounded_reserve(const struct domain *domain, uint64_t configured) {
    uint64_t bound = bound_of(domain);

    return configured < bound ? configured : bound / 2;
}

void domain_take_look(struct domains *domains, struct domain *domain) {
    uint64_t configured = domain->cgroup ? domains->cgroup_reserve : domains->machine_reserve;
    struct controller_limits *limits = &domain->controller.limits;
    int64_t credit = INT64_MAX / 4;
    uint64_t headroom;

    if (!domain->parent)
        domain_look_machine(domains, domain);
    else
        domain_look_cgroup(domain);
    limits->reserve =
        configured != CONFIG_AUTO ? bounded_reserve(domain, configured) : domain_auto_reserve(domains, domain);
    headroom = domain_headroom(domain);
    if (headroom != CGROUP_NO_LIMIT)
        credit = (int64_t)headroom - atomic_load(&domain->commitment) - (int64_t)limits->reserve;
    domain->credit_seen = credit;
    atomic_store(&domain->credit, credit);
    if (domain->source && domain_is_off_threshold(domain))
        domains_wake_loop(domains);
}
