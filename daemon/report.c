/* SPDX-License-Identifier: MIT */
/* Figures for STATS, STATUS and LIST. Reads the lists as the loop may (only it changes them), and domains under the manager's lock. */

#include "report.h"

#include "manager.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static uint64_t session_resident(struct session *session) {
    struct region *region;
    uint64_t bytes = 0;

    LIST_FOREACH (region, &session->regions, link)
        bytes += region_resident_bytes(region);
    return bytes;
}

static void add_counters(struct drp_wire_counters *sum, struct session_counters *counters) {
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
    *ret = (struct drp_wire_counters){.resident_bytes = session_resident(session)};
    add_counters(ret, &session->counters);
}

static uint32_t features_of(const struct manager *manager) {
    const struct kernel *kernel = &manager->kernel;

    return (kernel->mount_small >= 0 ? DRP_STATUS_PRIVATE_TMPFS : 0) | (kernel->noswap ? DRP_STATUS_NOSWAP : 0) |
           (kernel->psi_error == 0 ? DRP_STATUS_PSI : 0) | (kernel->psi_short ? DRP_STATUS_PSI_SHORT : 0) |
           (kernel->uring_error == 0 ? DRP_STATUS_IO_URING : 0) | (kernel->uffd_error == 0 ? DRP_STATUS_UFFD : 0) |
           (kernel->uffd_wp_shmem ? DRP_STATUS_UFFD_WP : 0) |
           (kernel->uffd_device >= 0 && manager->config->lend_gid != (gid_t)-1 ? DRP_STATUS_UFFD_LENT : 0) |
           (manager->pressure.realtime ? DRP_STATUS_REALTIME : 0) | (kernel->mount_huge >= 0 ? DRP_STATUS_HUGE : 0);
}

static void note(char *notes, size_t size, bool missing, const char *text, int error) {
    size_t used = strlen(notes);

    if (missing)
        snprintf(notes + used, size - used, "%s%s%s\n", text, error ? ": " : "",
                 error ? strerror(error < 0 ? -error : error) : "");
}

static void write_notes(const struct manager *manager, char *notes, size_t size) {
    const struct kernel *kernel = &manager->kernel;

    note(notes, size, kernel->mount_small < 0, "no private tmpfs, memory is in sealed memfds and may be swapped",
         kernel->mount_error);
    note(notes, size, kernel->mount_small >= 0 && !kernel->noswap,
         "tmpfs has no noswap (Linux 6.4): memory may be swapped", 0);
    note(notes, size, kernel->psi_error != 0, "no PSI triggers, pressure is seen by sampling alone", kernel->psi_error);
    note(notes, size, kernel->psi_error == 0 && !kernel->psi_short,
         "PSI windows of 2 s only, shorter ones need CAP_SYS_RESOURCE", 0);
    note(notes, size, manager->domains.missing != 0,
         "not all events of cgroups can be had, pressure there is seen by sampling", manager->domains.missing_error);
    note(notes, size, kernel->uring_error != 0, "no io_uring, one punch at a time for each client", kernel->uring_error);
    note(notes, size, kernel->uffd_error != 0, "no full userfaultfd for this user", kernel->uffd_error);
    note(notes, size, kernel->uffd_error == 0 && !kernel->uffd_wp_shmem,
         "no write-protect mode on shared memory (Linux 5.19): spans are unregistered instead", 0);
    note(notes, size, !manager->pressure.realtime,
         "the sampler runs without real-time priority, which needs CAP_SYS_NICE", 0);
    note(notes, size, kernel->mount_huge < 0, "huge pages as the system's shmem_enabled allows", 0);
}

void report_status(struct manager *manager, struct drp_wire_status_reply *ret) {
    struct domain *machine = manager->domains.machine;
    struct session *session;

    add_counters(&ret->counters, &manager->ended);
    LIST_FOREACH (session, &manager->sessions, link) {
        ret->counters.resident_bytes += session_resident(session);
        add_counters(&ret->counters, &session->counters);
        ret->quarantined += atomic_load(&session->quarantined);
    }
    ret->uptime_ms = (kernel_now() - manager->started) / 1000000;
    ret->sessions = manager->n_sessions;
    ret->regions = manager->n_regions;
    ret->features = features_of(manager);
    pthread_mutex_lock(&manager->lock);
    domain_take_look(&manager->domains, machine);
    ret->machine_headroom = machine->look.headroom;
    ret->machine_reserve = machine->controller.limits.reserve;
    ret->machine_commitment = (uint64_t)atomic_load(&machine->commitment);
    pthread_mutex_unlock(&manager->lock);
    ret->fill_rate = manager->kernel.fill_rate;
    ret->looks = atomic_load(&manager->pressure.looks);
    ret->pressure_drops = atomic_load(&manager->pressure.plans.made);
    snprintf(ret->version, sizeof(ret->version), "%s", DROPPABLE_VERSION);
    write_notes(manager, ret->notes, sizeof(ret->notes));
}

static void list_session(struct session *session, struct drp_wire_entry *ret) {
    *ret = (struct drp_wire_entry){
        .kind = DRP_ENTRY_SESSION,
        .flags = atomic_load(&session->quarantined),
        .id = session->id,
        .parent = session->domain->id,
        .size = session->region_bytes,
        .resident = session_resident(session),
        .dropped = atomic_load(&session->counters.dropped_bytes),
        .refaults = atomic_load(&session->counters.refaults),
        .faults = atomic_load(&session->counters.intercepted_faults),
        .pid = (uint32_t)session->pid,
        .uid = session->uid,
        .interception = session->intercepted ? DRP_WIRE_INTERCEPTION_FULL : DRP_WIRE_INTERCEPTION_NONE,
        .reason = (uint32_t)session->no_interception,
    };
    memcpy(ret->name, session->name, sizeof(session->name));
}

static void list_region(struct region *region, struct drp_wire_entry *ret) {
    *ret = (struct drp_wire_entry){
        .kind = DRP_ENTRY_REGION,
        .id = region->id,
        .parent = region->session->id,
        .size = region->size,
        .resident = region_resident_bytes(region),
        .dropped = atomic_load(&region->dropped_bytes),
        .refaults = atomic_load(&region->refaults),
        .faults = atomic_load(&region->faults),
        .chunk_shift = region->chunk_shift,
        .priority = region->priority,
        .options = region->options,
    };
}

static void list_domain(struct domain *domain, struct drp_wire_entry *ret) {
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
    uint64_t index = 0;

    pthread_mutex_lock(&manager->lock);
    LIST_FOREACH (domain, &manager->domains.list, link)
        if ((entry = on_page(ret, cursor, &index)))
            list_domain(domain, entry);
    LIST_FOREACH (session, &manager->sessions, link) {
        if ((entry = on_page(ret, cursor, &index)))
            list_session(session, entry);
        LIST_FOREACH (region, &session->regions, link)
            if ((entry = on_page(ret, cursor, &index)))
                list_region(region, entry);
    }
    pthread_mutex_unlock(&manager->lock);
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
