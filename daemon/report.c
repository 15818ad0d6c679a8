/* SPDX-License-Identifier: MIT */
/* Figures for STATS, STATUS, LIST, WHY and HISTOGRAMS. Reads the lists as the loop may (only it changes them), and domains under the manager's lock. */

#include "report.h"

#include "manager.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static void add_counters(struct drp_wire_counters *sum, struct home_counters *counters) {
    sum->dropped_bytes += atomic_load(&counters->dropped_bytes);
    sum->intercepted_faults += atomic_load(&counters->intercepted_faults);
    sum->refaults += atomic_load(&counters->refaults);
    sum->filled_bytes += atomic_load(&counters->filled_bytes);
    sum->pinned_skips += atomic_load(&counters->pinned_skips);
    sum->unarmed_drops += atomic_load(&counters->unarmed_drops);
    sum->gate_waits += atomic_load(&counters->gate_waits);
    sum->gate_timeouts += atomic_load(&counters->gate_timeouts);
    sum->unexpected_errors += atomic_load(&counters->unexpected_errors);
}

void report_session(struct session *session, struct drp_wire_counters *ret) {
    *ret = (struct drp_wire_counters){.resident_bytes = session_resident_bytes(session)};
    add_counters(ret, &session->home.counters);
}

struct domain *report_domain(const struct manager *manager, const char *path) {
    struct domain *domain;

    if (path[0] == '\0' || strcmp(path, "/") == 0)
        return manager->domains.machine;
    LIST_FOREACH (domain, &manager->domains.list, link)
        if (!domain->gone && strcmp(domain->path, path) == 0)
            return domain;
    return NULL;
}

static bool is_meant(const struct session *session, enum budget_scope scope, uint64_t id) {
    return (scope == BUDGET_USER ? (uint64_t)session->uid : (uint64_t)session->pid) == id;
}

static bool shared_is_meant(const struct shared *shared, enum budget_scope scope, uint64_t id) {
    const struct share *share;

    if (scope == BUDGET_USER)
        return shared->uid == id;
    LIST_FOREACH (share, &shared->shares, of_shared)
        if (share->session->domain && is_meant(share->session, scope, id))
            return true;
    return false;
}

static uint64_t bytes_in(struct manager *manager, const struct home *home, const struct domain *domain) {
    uint64_t resident, bytes = 0;
    bool is_in;

    pthread_mutex_lock(&manager->lock);
    is_in = home_is_in(home, domain);
    pthread_mutex_unlock(&manager->lock);
    if (!is_in)
        return 0;
    resident = home_resident_bytes(home);
    pthread_mutex_lock(&manager->lock);
    bytes = home->session ? session_bytes_in(home->session, domain, resident) : resident;
    pthread_mutex_unlock(&manager->lock);
    return bytes;
}

static uint64_t bytes_of_session(const struct session *session) {
    uint64_t bytes = session_resident_bytes(session);
    const struct share *share;

    LIST_FOREACH (share, &session->shares, of_session)
        bytes += home_resident_bytes(&share->shared->home);
    return bytes;
}

static uint64_t bytes_of_cgroup(struct manager *manager, const char *path) {
    struct domain *domain;
    struct home *home;
    uint64_t bytes = 0;

    pthread_mutex_lock(&manager->lock);
    domain = report_domain(manager, path);
    if (domain)
        domain->refs++;
    pthread_mutex_unlock(&manager->lock);
    /* Without the lock: thousands of objects take milliseconds. */
    LIST_FOREACH (home, &manager->homes, link)
        bytes += domain ? bytes_in(manager, home, domain) : 0;
    pthread_mutex_lock(&manager->lock);
    domain_unref(domain);
    pthread_mutex_unlock(&manager->lock);
    return bytes;
}

uint64_t report_resident(struct manager *manager, const struct budget_object *object) {
    const struct home *home;
    uint64_t bytes = 0;

    switch (object->scope) {
    case BUDGET_REGION:
        return object->region ? region_resident_bytes(object->region) : 0;
    case BUDGET_SESSION:
        return bytes_of_session(object->session);
    case BUDGET_CGROUP:
        return bytes_of_cgroup(manager, object->path);
    default:
        LIST_FOREACH (home, &manager->homes, link)
            if (home->session ? is_meant(home->session, object->scope, object->id)
                              : shared_is_meant(shared_of(home), object->scope, object->id))
                bytes += home_resident_bytes(home);
        return bytes;
    }
}

#define EDGES_PSI (DEMAND_EDGE(DEMAND_PSI_SOME) | DEMAND_EDGE(DEMAND_PSI_FULL))

static uint32_t features_of(const struct manager *manager) {
    const struct domain *machine = manager->domains.machine;
    const struct kernel *kernel = &manager->kernel;
    bool psi = (machine->sources & EDGES_PSI) == EDGES_PSI;

    return (kernel->mount_small >= 0 ? DRP_STATUS_PRIVATE_TMPFS : 0) |
           (kernel_keeps_from_swap(kernel, false) ? DRP_STATUS_NOSWAP : 0) | (psi ? DRP_STATUS_PSI : 0) |
           (psi && machine->short_windows ? DRP_STATUS_PSI_SHORT : 0) |
           (kernel->uring_error == 0 ? DRP_STATUS_IO_URING : 0) | (kernel->uffd_error == 0 ? DRP_STATUS_UFFD : 0) |
           (kernel->uffd_wp_shmem ? DRP_STATUS_UFFD_WP : 0) |
           (kernel->uffd_device >= 0 && manager->config->lend_gid != (gid_t)-1 ? DRP_STATUS_UFFD_LENT : 0) |
           (manager->pressure.realtime ? DRP_STATUS_REALTIME : 0) | (kernel->huge ? DRP_STATUS_HUGE : 0);
}

static void note(char *notes, size_t size, bool missing, const char *text, int error) {
    size_t used = strlen(notes);

    if (missing)
        snprintf(notes + used, size - used, "%s%s%s\n", text, error ? ": " : "",
                 error ? strerror(error < 0 ? -error : error) : "");
}

/* Nobody can use up what has no limit. */
static uint64_t fitting_reserve(const struct manager *manager, const struct domain *domain) {
    return domain->gone || domain_headroom(domain) == CGROUP_NO_LIMIT ? 0
                                                                      : domain_auto_reserve(&manager->domains, domain);
}

/* Of the domains whose configured reserve is too small: the one that misses most. */
static void note_reserves(const struct manager *manager, char *notes, size_t size) {
    const struct domain *domain, *worst = NULL;
    uint64_t missing = 0;
    unsigned n = 0;
    char text[400];

    LIST_FOREACH (domain, &manager->domains.list, link) {
        uint64_t fitting = fitting_reserve(manager, domain);

        if (domain->controller.limits.reserve >= fitting)
            continue;
        n++;
        if (fitting - domain->controller.limits.reserve > missing) {
            missing = fitting - domain->controller.limits.reserve;
            worst = domain;
        }
    }
    if (!worst)
        return;
    snprintf(text, sizeof(text),
             "the reserve of %.160s is configured as %.1f MiB; %.1f MiB (auto) is what programs can fill until a drop has "
             "freed something: a burst may be met too late%s",
             worst->parent ? worst->path : "the machine", (double)worst->controller.limits.reserve / 1048576,
             (double)(worst->controller.limits.reserve + missing) / 1048576,
             n > 1 ? "; so it is of others, see the list" : "");
    note(notes, size, true, text, 0);
}

static void note_sources(const struct manager *manager, char *notes, size_t size) {
    const struct domain *machine = manager->domains.machine, *domain;
    int error = 0;

    note(notes, size, machine->missing & EDGES_PSI, "no PSI triggers, pressure is seen by sampling alone",
         machine->missing_error);
    note(notes, size, !(machine->missing & EDGES_PSI) && !machine->short_windows,
         "PSI windows of 2 s only, shorter ones need CAP_SYS_RESOURCE", 0);
    LIST_FOREACH (domain, &manager->domains.list, link)
        if (domain != machine && domain->missing)
            error = domain->missing_error;
    note(notes, size, error != 0, "not all events of cgroups can be had, pressure there is seen by sampling", error);
}

static void write_notes(const struct manager *manager, char *notes, size_t size) {
    const struct kernel *kernel = &manager->kernel;

    note_reserves(manager, notes, size);

    note(notes, size, kernel->mount_small < 0, "no private tmpfs", kernel->mount_error);
    note(notes, size, !kernel->noswap && !kernel->locked,
         "memory may be swapped, and DRP_REGION_NO_SWAP is refused: there is no tmpfs with noswap (Linux 6.4, root), and locked segments "
         "(CAP_CHECKPOINT_RESTORE, RLIMIT_MEMLOCK) cannot be had",
         kernel->locked_error);
    note(notes, size, kernel->locked && !kernel->locked_huge,
         "no tmpfs with noswap: memory is in locked segments, without huge pages unless shmem_enabled is 'advise'; a region that asks for them "
         "may be swapped",
         0);
    note(notes, size, kernel->locked, "no tmpfs with noswap: shared regions may be swapped", 0);
    note_sources(manager, notes, size);
    note(notes, size, manager->domains.machine->commit_limited,
         "vm.overcommit_memory is 2: droppable memory counts, and is dropped before CommitLimit is met", 0);
    note(notes, size, manager->domains.full,
         "clients were in more cgroups than can be watched: some count to one above them", 0);
    note(notes, size, kernel->uring_error != 0, "no io_uring, one punch at a time for each client", kernel->uring_error);
    note(notes, size, kernel->uffd_error != 0, "no full userfaultfd for this user", kernel->uffd_error);
    note(notes, size, kernel->uffd_error == 0 && !kernel->uffd_wp_shmem,
         "no write-protect mode on shared memory (Linux 5.19): spans are unregistered instead", 0);
    note(notes, size, manager->lock_error != 0,
         "the service's own program is not locked in memory (RLIMIT_MEMLOCK), and may have to be read again in need",
         manager->lock_error);
    note(notes, size, worker_pool_error(&manager->pool) < 0, "no more threads can be started for the next clients",
         worker_pool_error(&manager->pool));
    note(notes, size, !manager->pressure.realtime,
         "the sampler runs without real-time priority, which needs CAP_SYS_NICE", 0);
    note(notes, size, kernel->huge && kernel->mount_huge < 0, "huge pages as the system's shmem_enabled allows", 0);
    note(notes, size, !kernel->huge, "no huge pages: there is no private tmpfs for them, and shmem_enabled is 'never'",
         0);
}

void report_status(struct manager *manager, struct drp_wire_status_reply *ret) {
    struct domain *machine = manager->domains.machine;
    struct home *home;

    add_counters(&ret->counters, &manager->ended);
    LIST_FOREACH (home, &manager->homes, link) {
        ret->counters.resident_bytes += home_resident_bytes(home);
        add_counters(&ret->counters, &home->counters);
        ret->quarantined += atomic_load(&home->quarantined);
    }
    ret->uptime_ms = (kernel_now() - manager->started) / 1000000;
    ret->sessions = manager->n_sessions;
    ret->regions = manager->n_regions;
    ret->features = features_of(manager);
    pthread_mutex_lock(&manager->lock);
    domain_take_look(&manager->domains, machine);
    ret->machine_headroom = domain_headroom(machine);
    ret->machine_reserve = machine->controller.limits.reserve;
    ret->machine_commitment = (uint64_t)atomic_load(&machine->commitment);
    ret->machine_auto_reserve = domain_auto_reserve(&manager->domains, machine);
    ret->machine_sources = machine->sources;
    write_notes(manager, ret->notes, sizeof(ret->notes));
    pthread_mutex_unlock(&manager->lock);
    for (size_t i = 0; i <= DEMAND_SOURCE_MAX; i++)
        ret->edges[i] = manager->edges[i];
    ret->fill_rate = manager->kernel.fill_rate;
    ret->looks = atomic_load(&manager->pressure.looks);
    ret->pressure_drops = atomic_load(&manager->pressure.plans.made);
    snprintf(ret->version, sizeof(ret->version), "%s", DROPPABLE_VERSION);
}

static void list_session(const struct config *config, struct session *session, struct drp_wire_entry *ret) {
    *ret = (struct drp_wire_entry){
        .kind = DRP_ENTRY_SESSION,
        .flags = (atomic_load(&session->home.quarantined) ? DRP_ENTRY_QUARANTINED : 0) |
                 (budget_pins_are_closed(session) ? DRP_ENTRY_PINS_CLOSED : 0),
        .id = session->id,
        .parent = session->domain->id,
        .size = session->region_bytes,
        .resident = session_resident_bytes(session),
        .dropped = atomic_load(&session->home.counters.dropped_bytes),
        .refaults = atomic_load(&session->home.counters.refaults),
        .faults = atomic_load(&session->home.counters.intercepted_faults),
        .pid = (uint32_t)session->pid,
        .uid = session->uid,
        .interception = session->intercepted ? DRP_WIRE_INTERCEPTION_FULL : DRP_WIRE_INTERCEPTION_NONE,
        .reason = (uint32_t)session->no_interception,
        .priority = budget_has_priority(session) ? (uint32_t)budget_of_session(config, session, LIMIT_PRIORITY) : 0,
        .budget = budget_of_session(config, session, LIMIT_BUDGET),
        .pinned = session->pinned,
        .share = (uint32_t)budget_of_session(config, session, LIMIT_SHARE),
    };
    memcpy(ret->name, session->name, sizeof(session->name));
}

static void list_region(const struct config *config, const struct session *session, struct region *region,
                        struct drp_wire_entry *ret) {
    *ret = (struct drp_wire_entry){
        .kind = DRP_ENTRY_REGION,
        .flags = budget_pins_are_closed(session) ? DRP_ENTRY_PINS_CLOSED : 0,
        .id = region->id,
        .parent = session->id,
        .size = region->size,
        .resident = region_resident_bytes(region),
        .dropped = atomic_load(&region->dropped_bytes),
        .refaults = atomic_load(&region->refaults),
        .faults = atomic_load(&region->faults),
        .chunk_shift = region->chunk_shift,
        .priority = budget_priority(region),
        .options = region->options | region->told,
        .budget = limit_value(&region->budget.of[LIMIT_BUDGET], config->region_budget),
        .pinned = region->pinned,
        .share = budget_share(region),
    };
}

/* As one of those who have it sees it. */
static void list_shared(const struct config *config, const struct share *of, struct drp_wire_entry *ret) {
    const struct shared *shared = of->shared;
    const struct share *share;

    list_region(config, of->session, shared->region, ret);
    ret->flags |= shared->region->held ? DRP_ENTRY_HELD : 0;
    ret->options |= of->told;
    ret->uid = shared->uid;
    LIST_FOREACH (share, &shared->shares, of_shared) {
        ret->pid++;
    }
    strcpy(ret->name, shared->name);
}

static void list_domain(const struct manager *manager, struct domain *domain, struct drp_wire_entry *ret) {
    size_t length = strlen(domain->path), cut = length >= sizeof(ret->name) ? length - sizeof(ret->name) + 1 : 0;

    *ret = (struct drp_wire_entry){
        .kind = DRP_ENTRY_DOMAIN,
        .id = domain->id,
        .parent = domain->parent ? domain->parent->id : 0,
        .size = domain->look.limit,
        .resident = domain->look.usage,
        .dropped = domain->controller.limits.reserve,
        .refaults =
            domain->look.headroom < domain->look.headroom_high ? domain->look.headroom : domain->look.headroom_high,
        .faults = (uint64_t)atomic_load(&domain->commitment),
        .budget = limit_value(&domain->budget.of[LIMIT_BUDGET],
                              domain->holds_clients && domain->parent ? manager->config->cgroup_budget : LIMIT_INFINITE),
        .pinned = fitting_reserve(manager, domain),
        .high = domain->look.headroom_high,
        .sources = domain->sources,
    };
    snprintf(ret->name, sizeof(ret->name), "%s", domain->path + cut);
}

/* Where to put the entry with this index, or NULL if it is not on the page. */
static struct drp_wire_entry *on_page(struct drp_wire_list_reply *reply, uint64_t cursor, uint64_t *index) {
    uint64_t i = (*index)++;

    if (i < cursor)
        return NULL;
    if (reply->count == DRP_WIRE_LIST_MAX) {
        if (reply->next == 0)
            reply->next = i;
        return NULL;
    }
    return &reply->entries[reply->count++];
}

void report_list(struct manager *manager, uint64_t cursor, struct drp_wire_list_reply *ret) {
    struct drp_wire_entry *entry;
    struct session *session;
    struct region *region;
    struct domain *domain;
    struct share *share;
    uint64_t index = 0;

    pthread_mutex_lock(&manager->lock);
    LIST_FOREACH (domain, &manager->domains.list, link)
        if ((entry = on_page(ret, cursor, &index)))
            list_domain(manager, domain, entry);
    LIST_FOREACH (session, &manager->sessions, link) {
        if ((entry = on_page(ret, cursor, &index)))
            list_session(manager->config, session, entry);
        LIST_FOREACH (region, &session->home.regions, link)
            if ((entry = on_page(ret, cursor, &index)))
                list_region(manager->config, session, region, entry);
        LIST_FOREACH (share, &session->shares, of_session)
            if ((entry = on_page(ret, cursor, &index)))
                list_shared(manager->config, share, entry);
    }
    pthread_mutex_unlock(&manager->lock);
}

/* ---- WHY, HISTOGRAMS ---- */

static_assert(DRP_SOURCE_SAMPLER == (int)DEMAND_SAMPLER && DRP_SOURCE_HAND == (int)DEMAND_HAND &&
                  DRP_SOURCE_LAST == (int)DEMAND_SOURCE_MAX && DRP_URGENCY_LIFE == (int)URGENCY_LIFE,
              "sources and urgencies have the numbers of the wire");
static_assert(DEMAND_SOURCE_MAX < sizeof(((struct drp_wire_status_reply *)0)->edges) / sizeof(uint64_t),
              "there is room for each source's edges");
static_assert(DRP_BUDGET_SESSION == (int)BUDGET_SESSION, "so have the scopes of budgets");
static_assert(DRP_WIRE_VICTIMS_MAX == DECISION_VICTIMS, "as many victims are sent as are kept");
static_assert(DRP_WIRE_BUCKETS == HISTOGRAM_BUCKETS, "histograms are sent as they are");

static uint64_t ms_ago(uint64_t then, uint64_t now) {
    return then < now ? (now - then) / 1000000 : 0;
}

static void tell_victim(const struct decision_victim *victim, struct drp_wire_victim *ret) {
    *ret = (struct drp_wire_victim){
        .session = victim->session, .region = victim->region, .planned = victim->planned, .pid = (uint32_t)victim->pid};
    snprintf(ret->name, sizeof(ret->name), "%s", victim->name);
}

static void tell_decision(const struct decisions *decisions, const struct decision *decision, uint64_t now,
                          struct drp_wire_decision *ret) {
    *ret = (struct drp_wire_decision){
        .number = decision->number,
        .began_ms = ms_ago(decision->began, now),
        .ended_ms = ms_ago(decision->ended, now),
        .source = decision->source,
        .urgency = decision->urgency,
        .domain = decision->domain,
        .budget_scope = decision->budget.scope,
        .budget_id = decision->budget.id,
        .budget = decision->budget.budget,
        .budget_resident = decision->budget.resident,
        .limit = decision->limit,
        .headroom = decision->headroom,
        .reserve = decision->reserve,
        .demand = decision->demand,
        .planned = decision->planned,
        .freed = decision->freed,
        .pinned = decision->pinned,
        .failed = decision->failed,
        .reaction_ns = decision->reaction_ns,
        .refaults = decisions_refaults(decisions, decision),
        .slices = decision->slices,
        .n_victims = decision->n_victims,
        .others = decision->others,
        .unseen = decision->unseen,
    };
    snprintf(ret->path, sizeof(ret->path), "%s", decision->path);
    for (uint32_t i = 0; i < decision->n_victims; i++)
        tell_victim(&decision->victims[i], &ret->victims[i]);
}

void report_why(struct manager *manager, uint64_t cursor, struct drp_wire_why_reply *ret) {
    const struct decisions *decisions = &manager->decisions;
    const struct decision *decision;
    struct timespec wall;
    uint64_t now;

    clock_gettime(CLOCK_REALTIME, &wall);
    ret->now_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000;
    pthread_mutex_lock(&manager->lock);
    now = kernel_now();
    if (cursor == 0 || cursor > decisions->newest)
        cursor = decisions->newest;
    for (; (decision = decisions_get(decisions, cursor)); cursor--) {
        if (ret->count == DRP_WIRE_WHY_MAX) {
            ret->next = cursor;
            break;
        }
        tell_decision(decisions, decision, now, &ret->entries[ret->count++]);
    }
    pthread_mutex_unlock(&manager->lock);
}

static void tell_histogram(struct histogram *histogram, uint64_t *ret) {
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        ret[i] = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
}

void report_histograms(struct manager *manager, struct drp_wire_histograms_reply *ret) {
    struct decisions *decisions = &manager->decisions;

    tell_histogram(&decisions->reaction_us, ret->reaction_us);
    tell_histogram(&decisions->gate_us, ret->gate_us);
    tell_histogram(&decisions->refault_ms, ret->refault_ms);
    ret->dropped_spans = atomic_load(&decisions->dropped_spans);
    ret->refaulted_spans = atomic_load(&decisions->refaulted_spans);
}

bool report_in_group(int socket, gid_t gid, gid_t wanted) {
    gid_t groups[256];
    socklen_t size = sizeof(groups);

    if (gid == wanted)
        return true;
#ifdef SO_PEERGROUPS
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0)
        for (size_t i = 0; i < size / sizeof(gid_t); i++)
            if (groups[i] == wanted)
                return true;
#endif
    return false;
}
