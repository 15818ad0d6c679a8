/* SPDX-License-Identifier: MIT */

/* `list`: sessions, regions and domains, page by page from the daemon, then all of it as tables or as JSON. */

#include "choice.h"
#include "ctl.h"
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool any(const struct drp_wire_entry *entries, size_t n, uint32_t kind) {
    for (size_t i = 0; i < n; i++)
        if (entries[i].kind == kind)
            return true;
    return false;
}

static void print_sessions(const struct drp_wire_entry *entries, size_t n) {
    printf("%-8s %-8s %-8s %10s %10s %10s %9s %9s %6s  %-5s %s\n", "SESSION", "PID", "UID", "RESIDENT", "BUDGET",
           "DROPPED", "REFAULTS", "FAULTS", "SHARE", "INTER", "NAME");
    for (size_t i = 0; i < n; i++) {
        const struct drp_wire_entry *e = &entries[i];

        if (e->kind != DRP_ENTRY_SESSION)
            continue;
        printf("%-8" PRIu64 " %-8u %-8u %10s %10s %10s %9" PRIu64 " %9" PRIu64 " %6u  %-5s %s", e->id, e->pid, e->uid,
               ctl_mib(e->resident), ctl_mib(e->budget), ctl_mib(e->dropped), e->refaults, e->faults, e->share,
               ctl_interception_name(e->interception), ctl_clean(e->name));
        if (e->interception == DRP_WIRE_INTERCEPTION_NONE && e->reason)
            printf(" (not intercepted: %s)", strerror((int)e->reason));
        printf("%s%s\n", e->flags & DRP_ENTRY_QUARANTINED ? " [quarantined]" : "",
               e->flags & DRP_ENTRY_PINS_CLOSED ? " [pins closed]" : "");
    }
}

#define NAMES_SIZE 128

static const char *option_names(uint64_t options, char *text) {
    const char *name;
    size_t length = 0;

    while ((name = options_next_name(&options)) && length < NAMES_SIZE)
        length += (size_t)snprintf(text + length, NAMES_SIZE - length, "%s%s", length ? "," : "", name);
    return length ? text : "-";
}

static void print_regions(const struct drp_wire_entry *entries, size_t n) {
    char text[NAMES_SIZE];

    printf("%-8s %-8s %10s %10s %10s %10s %9s %9s %6s %6s  %-8s %s\n", "REGION", "SESSION", "SIZE", "RESIDENT",
           "BUDGET", "DROPPED", "REFAULTS", "FAULTS", "CHUNK", "SHARE", "PRIORITY", "OPTIONS");
    for (size_t i = 0; i < n; i++) {
        const struct drp_wire_entry *e = &entries[i];

        if (e->kind != DRP_ENTRY_REGION)
            continue;
        printf("%-8" PRIu64 " %-8" PRIu64 " %10s %10s %10s %10s %9" PRIu64 " %9" PRIu64 " %5uK %6u  %-8s %s%s\n", e->id,
               e->parent, ctl_mib(e->size), ctl_mib(e->resident), ctl_mib(e->budget), ctl_mib(e->dropped), e->refaults,
               e->faults, 1u << ((e->chunk_shift - 10) & 31), e->share, ctl_priority_name(e->priority),
               option_names(e->options, text), e->flags & DRP_ENTRY_PINS_CLOSED ? " [pins closed]" : "");
        if (e->options & DRP_REGION_SHARED)
            printf("         shared by %u, of uid %u%s%s%s\n", e->pid, e->uid, e->name[0] ? ": " : "",
                   ctl_clean(e->name), e->flags & DRP_ENTRY_HELD ? " [held until all are back]" : "");
    }
}

/* A reserve that was configured smaller than the one that fits. */
static bool reserve_is_low(const struct drp_wire_entry *domain) {
    return domain->dropped < domain->pinned;
}

static void print_domain(const struct drp_wire_entry *e) {
    printf("%-8" PRIu64 " %-8" PRIu64 " %10s %10s %9s%s %10s %10s %10s %10s  %s", e->id, e->parent, ctl_mib(e->size),
           ctl_mib(e->resident), ctl_mib(e->dropped), reserve_is_low(e) ? "!" : " ", ctl_mib(e->refaults),
           ctl_mib(e->high), ctl_mib(e->faults), ctl_mib(e->budget), e->name[0] ? ctl_clean(e->name) : "(machine)");
    for (uint32_t source = DRP_SOURCE_SAMPLER; source <= DRP_SOURCE_LAST; source++)
        if (e->sources & UINT32_C(1) << source)
            printf(" +%s", ctl_source_name(source));
    printf("\n");
}

static void print_domains(const struct drp_wire_entry *entries, size_t n) {
    printf("%-8s %-8s %10s %10s %10s %10s %10s %10s %10s  %s\n", "DOMAIN", "PARENT", "LIMIT", "USAGE", "RESERVE",
           "HEADROOM", "TO-HIGH", "COMMITTED", "BUDGET", "PATH");
    for (size_t i = 0; i < n; i++)
        if (entries[i].kind == DRP_ENTRY_DOMAIN)
            print_domain(&entries[i]);
    for (size_t i = 0; i < n; i++)
        if (entries[i].kind == DRP_ENTRY_DOMAIN && reserve_is_low(&entries[i]))
            printf("! domain %" PRIu64 ": a reserve of %s MiB is configured, %s MiB fit: a burst may be met too late\n",
                   entries[i].id, ctl_mib(entries[i].dropped), ctl_mib(entries[i].pinned));
}

static void print_list(const struct drp_wire_entry *entries, size_t n) {
    print_sessions(entries, n);
    if (any(entries, n, DRP_ENTRY_REGION)) {
        printf("\n");
        print_regions(entries, n);
    }
    if (any(entries, n, DRP_ENTRY_DOMAIN)) {
        printf("\n");
        print_domains(entries, n);
    }
    printf("\nSizes in MiB.\n");
}

static struct json_object *json_session(const struct drp_wire_entry *e) {
    struct json_object *object = json_object_new_object();

    ctl_add(object, "id", e->id);
    ctl_add(object, "pid", e->pid);
    ctl_add(object, "uid", e->uid);
    ctl_add_text(object, "name", e->name);
    ctl_add(object, "domain", e->parent);
    ctl_add(object, "resident_bytes", e->resident);
    ctl_add(object, "dropped_bytes", e->dropped);
    ctl_add(object, "refaults", e->refaults);
    ctl_add(object, "intercepted_faults", e->faults);
    ctl_add_text(object, "interception", ctl_interception_name(e->interception));
    ctl_add(object, "reason", e->reason);
    ctl_add_text(object, "reason_text", e->reason ? strerror((int)e->reason) : "");
    ctl_add_bool(object, "quarantined", e->flags & DRP_ENTRY_QUARANTINED);
    ctl_add_bool(object, "pins_closed", e->flags & DRP_ENTRY_PINS_CLOSED);
    ctl_add_limit(object, "budget", e->budget);
    ctl_add(object, "share", e->share);
    json_object_object_add(object, "priority",
                           e->priority ? json_object_new_string(ctl_priority_name(e->priority)) : NULL);
    ctl_add(object, "pinned_bytes", e->pinned);
    return object;
}

static struct json_object *json_region(const struct drp_wire_entry *e) {
    struct json_object *object = json_object_new_object();

    ctl_add(object, "id", e->id);
    ctl_add(object, "session", e->parent);
    ctl_add(object, "size", e->size);
    ctl_add(object, "resident_bytes", e->resident);
    ctl_add(object, "dropped_bytes", e->dropped);
    ctl_add(object, "refaults", e->refaults);
    ctl_add(object, "intercepted_faults", e->faults);
    ctl_add(object, "chunk_size", UINT64_C(1) << (e->chunk_shift & 63));
    ctl_add_text(object, "priority", ctl_priority_name(e->priority));
    ctl_add_options(object, "options", e->options);
    ctl_add_text(object, "backend",
                 choice_name(e->options & DRP_REGION_NO_PINS ? DRP_BACKEND_NATIVE : DRP_BACKEND_DAEMON));
    ctl_add_limit(object, "budget", e->budget);
    ctl_add(object, "share", e->share);
    ctl_add(object, "pinned_bytes", e->pinned);
    ctl_add_bool(object, "pins_closed", e->flags & DRP_ENTRY_PINS_CLOSED);
    if (e->options & DRP_REGION_SHARED) {
        ctl_add_text(object, "name", e->name);
        ctl_add(object, "uid", e->uid);
        ctl_add(object, "shared_by", e->pid);
        ctl_add_bool(object, "held", e->flags & DRP_ENTRY_HELD);
    }
    return object;
}

static struct json_object *json_domain(const struct drp_wire_entry *e) {
    struct json_object *object = json_object_new_object();

    ctl_add(object, "id", e->id);
    ctl_add(object, "parent", e->parent);
    ctl_add_text(object, "path", e->name);
    ctl_add_limit(object, "limit", e->size);
    ctl_add_limit(object, "usage", e->resident);
    ctl_add_limit(object, "reserve", e->dropped);
    ctl_add_limit(object, "headroom", e->refaults);
    ctl_add_limit(object, "commitment", e->faults);
    ctl_add(object, "auto_reserve", e->pinned);
    ctl_add_limit(object, "high_headroom", e->high);
    ctl_add_limit(object, "budget", e->budget);
    ctl_add_sources(object, "sources", e->sources);
    return object;
}

static struct json_object *json_list(const struct drp_wire_entry *entries, size_t n) {
    struct json_object *object = json_object_new_object();
    struct json_object *sessions = json_object_new_array();
    struct json_object *regions = json_object_new_array();
    struct json_object *domains = json_object_new_array();

    for (size_t i = 0; i < n; i++)
        if (entries[i].kind == DRP_ENTRY_SESSION)
            json_object_array_add(sessions, json_session(&entries[i]));
        else if (entries[i].kind == DRP_ENTRY_REGION)
            json_object_array_add(regions, json_region(&entries[i]));
        else
            json_object_array_add(domains, json_domain(&entries[i]));
    json_object_object_add(object, "sessions", sessions);
    json_object_object_add(object, "regions", regions);
    json_object_object_add(object, "domains", domains);
    return object;
}

/* All pages of the list. 0 or negative errno; *ret is malloc'd in either case, or NULL. */
static int fetch_list(struct drp *d, struct drp_wire_entry **ret, size_t *ret_n) {
    const struct drp_wire_list_reply *reply = &d->link.packet->message.list_reply;
    struct drp_wire_list request = {.header.type = DRP_WIRE_LIST};
    int r;

    do {
        struct drp_wire_entry *entries;

        r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
        if (r < 0)
            return r;
        entries = realloc(*ret, (*ret_n + DRP_WIRE_LIST_MAX) * sizeof(*entries));
        if (!entries)
            return error_detail(-ENOMEM, "the list has more than %zu entries", *ret_n);
        *ret = entries;
        for (uint32_t i = 0; i < reply->count; i++)
            entries[(*ret_n)++] = reply->entries[i];
        request.cursor = reply->next;
    } while (request.cursor != 0);
    return 0;
}

int ctl_list(const struct ctl_options *options) {
    struct drp_wire_entry *entries = NULL;
    struct drp *d;
    size_t n = 0;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    r = fetch_list(d, &entries, &n);
    if (r < 0)
        status = ctl_fail("list", r);
    else if (options->json)
        status = ctl_print_json(json_list(entries, n));
    else
        print_list(entries, n);
    free(entries);
    context_free(d);
    return status;
}
