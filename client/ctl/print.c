/* SPDX-License-Identifier: MIT */

/*
 * How answers look. People get aligned columns with sizes in MiB; programs get JSON, bytes as integers, keys that stay
 * as they are once released (new ones may come). Names and paths are others' choice: control characters never reach a
 * terminal.
 */

#include "ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROOM 9
#define MIB 1048576.0

static const struct {
    uint32_t bit;
    const char *name;
} features[] = {
    {DRP_STATUS_PRIVATE_TMPFS, "private_tmpfs"},
    {DRP_STATUS_NOSWAP, "noswap"},
    {DRP_STATUS_PSI, "psi"},
    {DRP_STATUS_PSI_SHORT, "psi_short"},
    {DRP_STATUS_IO_URING, "io_uring"},
    {DRP_STATUS_UFFD, "userfaultfd"},
    {DRP_STATUS_UFFD_WP, "userfaultfd_wp"},
    {DRP_STATUS_UFFD_LENT, "userfaultfd_lent"},
    {DRP_STATUS_REALTIME, "realtime"},
    {DRP_STATUS_HUGE, "huge"},
};

static const struct {
    const char *name;
    size_t offset;
    bool bytes;
} counters[] = {
    {"resident_bytes", offsetof(struct drp_wire_counters, resident_bytes), true},
    {"dropped_bytes", offsetof(struct drp_wire_counters, dropped_bytes), true},
    {"filled_bytes", offsetof(struct drp_wire_counters, filled_bytes), true},
    {"intercepted_faults", offsetof(struct drp_wire_counters, intercepted_faults), false},
    {"refaults", offsetof(struct drp_wire_counters, refaults), false},
    {"pinned_skips", offsetof(struct drp_wire_counters, pinned_skips), false},
    {"unarmed_drops", offsetof(struct drp_wire_counters, unarmed_drops), false},
    {"gate_waits", offsetof(struct drp_wire_counters, gate_waits), false},
    {"gate_timeouts", offsetof(struct drp_wire_counters, gate_timeouts), false},
    {"unexpected_errors", offsetof(struct drp_wire_counters, unexpected_errors), false},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t counter(const struct drp_wire_counters *from, size_t i) {
    return *(const uint64_t *)((const char *)from + counters[i].offset);
}

static const char *interception_name(uint32_t interception) {
    return interception == DRP_WIRE_INTERCEPTION_FULL ? "full" : "none";
}

static const char *priority_name(uint32_t priority) {
    return priority == DRP_PRIORITY_LOW ? "low" : priority == DRP_PRIORITY_HIGH ? "high" : "normal";
}

const char *ctl_mib(uint64_t bytes) {
    static char room[ROOM][32];
    static unsigned next;
    char *text = room[next++ % ROOM];

    if (bytes == UINT64_MAX)
        return "-";
    snprintf(text, sizeof(room[0]), "%.1f", (double)bytes / MIB);
    return text;
}

const char *ctl_clean(const char *from) {
    static char room[ROOM][160];
    static unsigned next;
    char *text = room[next++ % ROOM];

    snprintf(text, sizeof(room[0]), "%s", from);
    for (char *c = text; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    return text;
}

int ctl_print_json(struct json_object *object) {
    int ok;

    ok = printf("%s\n",
                json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)) > 0 &&
         fflush(stdout) == 0;
    json_object_put(object);
    if (!ok)
        perror("droppablectl: cannot write");
    return ok ? CTL_OK : CTL_FAILURE;
}

static void add(struct json_object *object, const char *key, uint64_t value) {
    json_object_object_add(object, key, json_object_new_uint64(value));
}

/* What has no limit is null. */
static void add_limit(struct json_object *object, const char *key, uint64_t value) {
    json_object_object_add(object, key, value == UINT64_MAX ? NULL : json_object_new_uint64(value));
}

static void add_text(struct json_object *object, const char *key, const char *value) {
    json_object_object_add(object, key, json_object_new_string(value));
}

static void add_bool(struct json_object *object, const char *key, bool value) {
    json_object_object_add(object, key, json_object_new_boolean(value));
}

static void add_options(struct json_object *object, const char *key, uint64_t options) {
    struct json_object *array = json_object_new_array();

    if (options & DRP_REGION_HUGE)
        json_object_array_add(array, json_object_new_string("huge"));
    json_object_object_add(object, key, array);
}

/* ---- status ---- */

void ctl_print_status(const struct drp_wire_status_reply *status) {
    printf("version             %s\n", ctl_clean(status->version));
    printf("uptime              %.1f s\n", (double)status->uptime_ms / 1000.0);
    printf("sessions            %u (%u quarantined)\n", status->sessions, status->quarantined);
    printf("regions             %u\n", status->regions);
    for (size_t i = 0; i < COUNT(counters); i++)
        if (counters[i].bytes)
            printf("%-18.*s  %s MiB\n", (int)(strlen(counters[i].name) - strlen("_bytes")), counters[i].name,
                   ctl_mib(counter(&status->counters, i)));
        else
            printf("%-18s  %" PRIu64 "\n", counters[i].name, counter(&status->counters, i));
    printf("machine headroom    %s MiB\n", ctl_mib(status->machine_headroom));
    printf("machine reserve     %s MiB\n", ctl_mib(status->machine_reserve));
    printf("machine commitment  %s MiB\n", ctl_mib(status->machine_commitment));
    printf("fill rate           %s MiB/s\n", ctl_mib(status->fill_rate));
    printf("looks               %" PRIu64 "\n", status->looks);
    printf("pressure drops      %" PRIu64 "\n", status->pressure_drops);
    printf("features           ");
    for (size_t i = 0; i < COUNT(features); i++)
        if (status->features & features[i].bit)
            printf(" %s", features[i].name);
    printf("\n");
    for (const char *note = status->notes; *note; note += strcspn(note, "\n"), note += *note == '\n')
        printf("note                %.*s\n", (int)strcspn(note, "\n"), note);
}

static struct json_object *json_notes(const char *notes) {
    struct json_object *array = json_object_new_array();

    for (const char *note = notes; *note; note += strcspn(note, "\n"), note += *note == '\n')
        if (*note != '\n')
            json_object_array_add(array, json_object_new_string_len(note, (int)strcspn(note, "\n")));
    return array;
}

struct json_object *ctl_json_status(const struct drp_wire_status_reply *status) {
    struct json_object *object = json_object_new_object();
    struct json_object *flags = json_object_new_object();
    struct json_object *machine = json_object_new_object();

    add_text(object, "version", status->version);
    add(object, "uptime_ms", status->uptime_ms);
    add(object, "sessions", status->sessions);
    add(object, "quarantined_sessions", status->quarantined);
    add(object, "regions", status->regions);
    for (size_t i = 0; i < COUNT(counters); i++)
        add(object, counters[i].name, counter(&status->counters, i));
    add_limit(machine, "headroom", status->machine_headroom);
    add_limit(machine, "reserve", status->machine_reserve);
    add_limit(machine, "commitment", status->machine_commitment);
    json_object_object_add(object, "machine", machine);
    add(object, "fill_rate", status->fill_rate);
    add(object, "looks", status->looks);
    add(object, "pressure_drops", status->pressure_drops);
    for (size_t i = 0; i < COUNT(features); i++)
        add_bool(flags, features[i].name, status->features & features[i].bit);
    json_object_object_add(object, "features", flags);
    json_object_object_add(object, "notes", json_notes(status->notes));
    return object;
}

/* ---- list ---- */

static bool any(const struct drp_wire_entry *entries, size_t n, uint32_t kind) {
    for (size_t i = 0; i < n; i++)
        if (entries[i].kind == kind)
            return true;
    return false;
}

static void print_sessions(const struct drp_wire_entry *entries, size_t n) {
    printf("%-8s %-8s %-8s %10s %10s %9s %9s  %-5s %s\n", "SESSION", "PID", "UID", "RESIDENT", "DROPPED", "REFAULTS",
           "FAULTS", "INTER", "NAME");
    for (size_t i = 0; i < n; i++) {
        const struct drp_wire_entry *e = &entries[i];

        if (e->kind != DRP_ENTRY_SESSION)
            continue;
        printf("%-8" PRIu64 " %-8u %-8u %10s %10s %9" PRIu64 " %9" PRIu64 "  %-5s %s", e->id, e->pid, e->uid,
               ctl_mib(e->resident), ctl_mib(e->dropped), e->refaults, e->faults, interception_name(e->interception),
               ctl_clean(e->name));
        if (e->interception == DRP_WIRE_INTERCEPTION_NONE && e->reason)
            printf(" (not intercepted: %s)", strerror((int)e->reason));
        printf("%s\n", e->flags & 1 ? " [quarantined]" : "");
    }
}

static void print_regions(const struct drp_wire_entry *entries, size_t n) {
    printf("%-8s %-8s %10s %10s %10s %9s %9s %6s  %-8s %s\n", "REGION", "SESSION", "SIZE", "RESIDENT", "DROPPED",
           "REFAULTS", "FAULTS", "CHUNK", "PRIORITY", "OPTIONS");
    for (size_t i = 0; i < n; i++) {
        const struct drp_wire_entry *e = &entries[i];

        if (e->kind != DRP_ENTRY_REGION)
            continue;
        printf("%-8" PRIu64 " %-8" PRIu64 " %10s %10s %10s %9" PRIu64 " %9" PRIu64 " %5uK  %-8s %s\n", e->id, e->parent,
               ctl_mib(e->size), ctl_mib(e->resident), ctl_mib(e->dropped), e->refaults, e->faults,
               1u << ((e->chunk_shift - 10) & 31), priority_name(e->priority),
               e->options & DRP_REGION_HUGE ? "huge" : "-");
    }
}

static void print_domains(const struct drp_wire_entry *entries, size_t n) {
    printf("%-8s %-8s %10s %10s %10s %10s %10s  %s\n", "DOMAIN", "PARENT", "LIMIT", "USAGE", "RESERVE", "HEADROOM",
           "COMMITTED", "PATH");
    for (size_t i = 0; i < n; i++) {
        const struct drp_wire_entry *e = &entries[i];

        if (e->kind == DRP_ENTRY_DOMAIN)
            printf("%-8" PRIu64 " %-8" PRIu64 " %10s %10s %10s %10s %10s  %s\n", e->id, e->parent, ctl_mib(e->size),
                   ctl_mib(e->resident), ctl_mib(e->dropped), ctl_mib(e->refaults), ctl_mib(e->faults),
                   e->name[0] ? ctl_clean(e->name) : "(machine)");
    }
}

void ctl_print_list(const struct drp_wire_entry *entries, size_t n) {
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

    add(object, "id", e->id);
    add(object, "pid", e->pid);
    add(object, "uid", e->uid);
    add_text(object, "name", e->name);
    add(object, "domain", e->parent);
    add(object, "resident_bytes", e->resident);
    add(object, "dropped_bytes", e->dropped);
    add(object, "refaults", e->refaults);
    add(object, "intercepted_faults", e->faults);
    add_text(object, "interception", interception_name(e->interception));
    add(object, "reason", e->reason);
    add_text(object, "reason_text", e->reason ? strerror((int)e->reason) : "");
    add_bool(object, "quarantined", e->flags & 1);
    return object;
}

static struct json_object *json_region(const struct drp_wire_entry *e) {
    struct json_object *object = json_object_new_object();

    add(object, "id", e->id);
    add(object, "session", e->parent);
    add(object, "size", e->size);
    add(object, "resident_bytes", e->resident);
    add(object, "dropped_bytes", e->dropped);
    add(object, "refaults", e->refaults);
    add(object, "intercepted_faults", e->faults);
    add(object, "chunk_size", UINT64_C(1) << (e->chunk_shift & 63));
    add_text(object, "priority", priority_name(e->priority));
    add_options(object, "options", e->options);
    return object;
}

static struct json_object *json_domain(const struct drp_wire_entry *e) {
    struct json_object *object = json_object_new_object();

    add(object, "id", e->id);
    add(object, "parent", e->parent);
    add_text(object, "path", e->name);
    add_limit(object, "limit", e->size);
    add_limit(object, "usage", e->resident);
    add_limit(object, "reserve", e->dropped);
    add_limit(object, "headroom", e->refaults);
    add_limit(object, "commitment", e->faults);
    return object;
}

struct json_object *ctl_json_list(const struct drp_wire_entry *entries, size_t n) {
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

/* ---- probe ---- */

static void print_can(const char *what, bool can, int error) {
    printf("%-14s %s", what, can ? "yes" : "no");
    if (!can && error)
        printf(" (%s)", strerror(-error));
    printf("\n");
}

void ctl_print_probe(const struct drp_probe *probe) {
    print_can("native", probe->native, probe->native_error);
    print_can("daemon", probe->daemon, probe->daemon_error);
    printf("%-14s %s\n", "socket", ctl_clean(probe->daemon_socket));
    if (!probe->daemon)
        return;
    print_can("interception", probe->daemon_interception == DRP_INTERCEPTION_FULL, probe->interception_error);
    print_can("huge regions", probe->daemon_regions & DRP_REGION_HUGE, 0);
}

/* An errno as number and as text. */
static void add_error(struct json_object *object, const char *key, const char *text_key, int error) {
    json_object_object_add(object, key, json_object_new_int(-error));
    add_text(object, text_key, error ? strerror(-error) : "");
}

struct json_object *ctl_json_probe(const struct drp_probe *probe) {
    struct json_object *object = json_object_new_object();
    struct json_object *native = json_object_new_object();
    struct json_object *daemon = json_object_new_object();

    add_bool(native, "available", probe->native);
    add_error(native, "error", "error_text", probe->native_error);
    add_bool(daemon, "available", probe->daemon);
    add_error(daemon, "error", "error_text", probe->daemon_error);
    add_text(daemon, "socket", probe->daemon_socket);
    add_options(daemon, "options", probe->daemon_regions);
    add_text(daemon, "interception", interception_name((uint32_t)probe->daemon_interception));
    add_error(daemon, "interception_error", "interception_error_text", probe->interception_error);
    json_object_object_add(object, "native", native);
    json_object_object_add(object, "daemon", daemon);
    return object;
}
