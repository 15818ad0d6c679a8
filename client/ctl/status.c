/* SPDX-License-Identifier: MIT */

/* `status` and `probe`: how the service is, and what kernel and service can do here. */

#include "ctl.h"
#include "numbers.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

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

static uint64_t counter(const struct drp_wire_counters *from, size_t i) {
    return *(const uint64_t *)((const char *)from + counters[i].offset);
}

/* What only says that something may run short: between the sampler, which looks, and the hand. */
static bool has_edges(uint32_t source) {
    return source >= DRP_SOURCE_PSI_SOME && source <= DRP_SOURCE_LEVEL;
}

static void print_edges(const uint64_t *edges) {
    printf("edges              ");
    for (uint32_t source = 0; source <= DRP_SOURCE_LAST; source++)
        if (has_edges(source))
            printf(" %s %" PRIu64, ctl_source_name(source), edges[source]);
    printf("\n");
}

static struct json_object *json_edges(const uint64_t *edges) {
    struct json_object *object = json_object_new_object();

    for (uint32_t source = 0; source <= DRP_SOURCE_LAST; source++)
        if (has_edges(source))
            ctl_add(object, ctl_source_name(source), edges[source]);
    return object;
}

static void print_status(const struct drp_wire_status_reply *status) {
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
    printf("machine reserve     %s MiB (auto: %s MiB)\n", ctl_mib(status->machine_reserve),
           ctl_mib(status->machine_auto_reserve));
    printf("machine commitment  %s MiB\n", ctl_mib(status->machine_commitment));
    printf("fill rate           %s MiB/s\n", ctl_mib(status->fill_rate));
    printf("looks               %" PRIu64 "\n", status->looks);
    printf("pressure drops      %" PRIu64 "\n", status->pressure_drops);
    print_edges(status->edges);
    printf("features           ");
    for (size_t i = 0; i < COUNT(features); i++)
        if (status->features & features[i].bit)
            printf(" %s", features[i].name);
    printf("\n");
}

/* A path is in some of them. */
static void print_notes(char *notes) {
    char *note;

    while ((note = strsep(&notes, "\n")))
        if (*note) {
            ctl_clean_text(note);
            printf("note                %s\n", note);
        }
}

static struct json_object *json_notes(const char *notes) {
    struct json_object *array = json_object_new_array();

    for (const char *note = notes; *note; note += strcspn(note, "\n"), note += *note == '\n')
        if (*note != '\n')
            json_object_array_add(array, ctl_json_text(note, strcspn(note, "\n")));
    return array;
}

static struct json_object *json_status(const struct drp_wire_status_reply *status) {
    struct json_object *object = json_object_new_object();
    struct json_object *flags = json_object_new_object();
    struct json_object *machine = json_object_new_object();

    ctl_add_text(object, "version", status->version);
    ctl_add(object, "uptime_ms", status->uptime_ms);
    ctl_add(object, "sessions", status->sessions);
    ctl_add(object, "quarantined_sessions", status->quarantined);
    ctl_add(object, "regions", status->regions);
    for (size_t i = 0; i < COUNT(counters); i++)
        ctl_add(object, counters[i].name, counter(&status->counters, i));
    ctl_add_limit(machine, "headroom", status->machine_headroom);
    ctl_add_limit(machine, "reserve", status->machine_reserve);
    ctl_add_limit(machine, "commitment", status->machine_commitment);
    ctl_add(machine, "auto_reserve", status->machine_auto_reserve);
    ctl_add_sources(machine, "sources", status->machine_sources);
    json_object_object_add(object, "machine", machine);
    ctl_add(object, "fill_rate", status->fill_rate);
    ctl_add(object, "looks", status->looks);
    ctl_add(object, "pressure_drops", status->pressure_drops);
    json_object_object_add(object, "edges", json_edges(status->edges));
    for (size_t i = 0; i < COUNT(features); i++)
        ctl_add_bool(flags, features[i].name, status->features & features[i].bit);
    json_object_object_add(object, "features", flags);
    json_object_object_add(object, "notes", json_notes(status->notes));
    return object;
}

/* ---- histograms ---- */

static void print_times(const char *name, const uint64_t *buckets, double unit) {
    struct ctl_quantiles found = ctl_quantiles(buckets, DRP_WIRE_BUCKETS);

    if (found.count == 0)
        printf("%-18s  -\n", name);
    else
        printf("%-18s  median %.1f, 99 %% %.1f, at most %.1f ms (%" PRIu64 " times)\n", name,
               (double)found.median / unit, (double)found.p99 / unit, (double)found.max / unit, found.count);
}

static void print_histograms(const struct drp_wire_histograms_reply *histograms) {
    print_times("reaction time", histograms->reaction_us, 1000);
    print_times("gate wait", histograms->gate_us, 1000);
    print_times("refault after", histograms->refault_ms, 1);
    printf("refault ratio       %.1f %% (%" PRIu64 " of %" PRIu64 " spans that pressure dropped from and are seen)\n",
           histograms->dropped_spans ? 100.0 * (double)histograms->refaulted_spans / (double)histograms->dropped_spans
                                     : 0,
           histograms->refaulted_spans, histograms->dropped_spans);
}

static struct json_object *json_histogram(const uint64_t *buckets) {
    struct ctl_quantiles found = ctl_quantiles(buckets, DRP_WIRE_BUCKETS);
    struct json_object *object = json_object_new_object();
    struct json_object *array = json_object_new_array();

    ctl_add(object, "count", found.count);
    ctl_add(object, "median", found.median);
    ctl_add(object, "p99", found.p99);
    ctl_add(object, "max", found.max);
    for (size_t i = 0; i < DRP_WIRE_BUCKETS; i++)
        json_object_array_add(array, json_object_new_uint64(buckets[i]));
    json_object_object_add(object, "buckets", array);
    return object;
}

static void add_histograms(struct json_object *object, const struct drp_wire_histograms_reply *histograms) {
    json_object_object_add(object, "reaction_us", json_histogram(histograms->reaction_us));
    json_object_object_add(object, "gate_us", json_histogram(histograms->gate_us));
    json_object_object_add(object, "refault_ms", json_histogram(histograms->refault_ms));
    ctl_add(object, "dropped_spans", histograms->dropped_spans);
    ctl_add(object, "refaulted_spans", histograms->refaulted_spans);
}

int ctl_status(const struct ctl_options *options) {
    struct drp_wire_header request = {.type = DRP_WIRE_STATUS};
    struct drp_wire_status_reply answer;
    struct json_object *object;
    struct drp *d;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    answer = d->link.packet->message.status_reply;
    request.type = DRP_WIRE_HISTOGRAMS;
    if (r == 0)
        r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    if (r < 0) {
        status = ctl_fail("status", r);
    } else if (options->json) {
        object = json_status(&answer);
        add_histograms(object, &d->link.packet->message.histograms_reply);
        status = ctl_print_json(object);
    } else {
        print_status(&answer);
        print_histograms(&d->link.packet->message.histograms_reply);
        print_notes(answer.notes);
    }
    context_free(d);
    return status;
}
