/* SPDX-License-Identifier: MIT */

/*
 * `why`: the last drops for pressure, for somebody who was woken by them: when, what ran short and how short, who said so, what was taken
 * from whom, how long it took, and how much of it was wanted again.
 */

#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A time of the daemon's wall clock. */
struct told {
    struct drp_wire_decision decision;
    uint64_t began_ms, ended_ms; /* since 1970 */
};

/* ---- words ---- */

static const char *source_text(uint32_t source) {
    static const char *const texts[] = {
        [DRP_SOURCE_SAMPLER] = "a look found less than the reserve free",
        [DRP_SOURCE_GATE] = "accesses waited for room",
        [DRP_SOURCE_PSI_SOME] = "some tasks stalled for memory (PSI)",
        [DRP_SOURCE_PSI_FULL] = "all tasks stalled for memory (PSI)",
        [DRP_SOURCE_HIGH] = "memory.high was crossed",
        [DRP_SOURCE_MAX_MET] = "memory.max was met",
        [DRP_SOURCE_THRESHOLD] = "a threshold of usage was crossed",
        [DRP_SOURCE_LEVEL] = "the kernel reported pressure (memory.pressure_level)",
        [DRP_SOURCE_BUDGET] = "somebody was over the budget", /* unless it is known who */
        [DRP_SOURCE_HAND] = "somebody asked for it (droppablectl free)",
    };

    return source < sizeof(texts) / sizeof(texts[0]) && texts[source] ? texts[source] : "unknown";
}

static const char *urgency_name(uint32_t urgency) {
    return urgency == DRP_URGENCY_LIFE ? "life" : urgency == DRP_URGENCY_STALL ? "stall" : "trim";
}

static const char *urgency_text(uint32_t urgency) {
    return urgency == DRP_URGENCY_LIFE    ? "the next allocation could have ended a program"
           : urgency == DRP_URGENCY_STALL ? "programs were slowed down"
                                          : "nobody waited for it";
}

/* Of a budget: a key, and what is before its number. */
static const struct {
    const char *name, *text;
} scopes[] = {
    {NULL, NULL},
    [DRP_LIMIT_REGION] = {"region", "region"},
    [DRP_LIMIT_CLIENT] = {"process", "process"},
    [DRP_LIMIT_USER] = {"user", "user"},
    [DRP_LIMIT_CGROUP] = {"cgroup", "the cgroup of domain"},
    [DRP_BUDGET_SESSION] = {"session", "session"},
};

/* ---- for people ---- */

static void print_when(const struct told *told) {
    time_t seconds = (time_t)(told->began_ms / 1000);
    struct tm local;
    char text[64] = "";

    if (localtime_r(&seconds, &local))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
    printf("#%" PRIu64 "  %s.%03u  (%" PRIu64 " s ago)  %s\n", told->decision.number, text,
           (unsigned)(told->began_ms % 1000), told->decision.began_ms / 1000,
           told->decision.path[0] ? ctl_clean(told->decision.path) : "the machine");
}

static void print_victims(const struct drp_wire_decision *d) {
    const char *before = "    from        ";

    for (uint32_t i = 0; i < d->n_victims; i++) {
        const struct drp_wire_victim *victim = &d->victims[i];

        printf("%s%s (pid %u): %s MiB, session %" PRIu64 ", most of it of region %" PRIu64 "\n", before,
               ctl_clean(victim->name), victim->pid, ctl_mib(victim->planned), victim->session, victim->region);
        before = "                ";
    }
    if (d->others)
        printf("%sothers: %s MiB\n", before, ctl_mib(d->others));
}

/* Of some memory accesses are not seen, and so not that they find it gone. */
static void print_regrets(const struct drp_wire_decision *d) {
    if (!d->refaults && d->unseen > 0 && d->unseen >= d->freed) {
        printf("    regretted   unknown: accesses to it are not seen\n");
        return;
    }
    if (d->refaults)
        printf("    regretted   %" PRIu64 " times something of it was wanted again soon", d->refaults);
    else
        printf("    regretted   nothing of it was wanted again soon");
    if (d->unseen)
        printf("; unknown for %s MiB", ctl_mib(d->unseen));
    printf("\n");
}

static void print_because(const struct drp_wire_decision *d) {
    if (d->budget_scope == 0)
        printf("    because     %s; %s\n", source_text(d->source), urgency_text(d->urgency));
    else
        printf("    because     %s %" PRIu64 " was over %s budget of %s MiB, with %s MiB; %s\n",
               scopes[d->budget_scope].text, d->budget_id,
               d->budget_scope == DRP_BUDGET_SESSION ? "its program's own" : "the", ctl_mib(d->budget),
               ctl_mib(d->budget_resident), urgency_text(d->urgency));
}

static void print_decision(const struct told *told) {
    const struct drp_wire_decision *d = &told->decision;

    print_when(told);
    print_because(d);
    printf("    wanted      %s MiB", ctl_mib(d->demand));
    if (d->headroom != UINT64_MAX && d->source != DRP_SOURCE_BUDGET) /* where there is a limit that it was about */
        printf("; %s MiB of %s MiB were free, %s MiB are to be", ctl_mib(d->headroom), ctl_mib(d->limit),
               ctl_mib(d->reserve));
    printf("\n");
    printf("    dropped     %s MiB of %s MiB planned, in %u slices", ctl_mib(d->freed), ctl_mib(d->planned), d->slices);
    if (d->pinned)
        printf("; %s MiB stayed, being pinned", ctl_mib(d->pinned));
    if (d->failed)
        printf("; %s MiB could not be dropped", ctl_mib(d->failed));
    printf("\n");
    print_victims(d);
    if (d->reaction_ns)
        printf("    took        %.1f ms until the first was free, %" PRIu64 " ms in all\n",
               (double)d->reaction_ns / 1000000, told->ended_ms - told->began_ms);
    print_regrets(d);
}

/* ---- for programs ---- */

static struct json_object *json_victims(const struct drp_wire_decision *d) {
    struct json_object *array = json_object_new_array();

    for (uint32_t i = 0; i < d->n_victims; i++) {
        struct json_object *object = json_object_new_object();

        ctl_add(object, "pid", d->victims[i].pid);
        ctl_add_text(object, "name", d->victims[i].name);
        ctl_add(object, "session", d->victims[i].session);
        ctl_add(object, "region", d->victims[i].region);
        ctl_add(object, "planned_bytes", d->victims[i].planned);
        json_object_array_add(array, object);
    }
    return array;
}

/* Whose it was; null: nobody's, or not known. */
static struct json_object *json_budget(const struct drp_wire_decision *d) {
    struct json_object *object = d->budget_scope ? json_object_new_object() : NULL;

    if (!object)
        return NULL;
    ctl_add_text(object, "scope", scopes[d->budget_scope].name);
    ctl_add(object, "id", d->budget_id);
    ctl_add(object, "bytes", d->budget);
    ctl_add(object, "resident_bytes", d->budget_resident);
    return object;
}

static struct json_object *json_decision(const struct told *told) {
    const struct drp_wire_decision *d = &told->decision;
    struct json_object *object = json_object_new_object();

    ctl_add(object, "number", d->number);
    ctl_add(object, "began_ms", told->began_ms);
    ctl_add(object, "ended_ms", told->ended_ms);
    ctl_add_text(object, "source", ctl_source_name(d->source));
    ctl_add_text(object, "source_text", source_text(d->source));
    json_object_object_add(object, "budget", json_budget(d));
    ctl_add_text(object, "urgency", urgency_name(d->urgency));
    ctl_add(object, "domain", d->domain);
    ctl_add_text(object, "path", d->path);
    ctl_add_limit(object, "limit", d->limit);
    ctl_add_limit(object, "headroom", d->headroom);
    ctl_add(object, "reserve", d->reserve);
    ctl_add(object, "demand_bytes", d->demand);
    ctl_add(object, "planned_bytes", d->planned);
    ctl_add(object, "freed_bytes", d->freed);
    ctl_add(object, "pinned_bytes", d->pinned);
    ctl_add(object, "failed_bytes", d->failed);
    ctl_add(object, "slices", d->slices);
    ctl_add_limit(object, "reaction_us", d->reaction_ns ? d->reaction_ns / 1000 : UINT64_MAX);
    ctl_add(object, "refaults", d->refaults);
    ctl_add(object, "unseen_bytes", d->unseen);
    json_object_object_add(object, "victims", json_victims(d));
    ctl_add(object, "others_planned_bytes", d->others);
    return object;
}

/* ---- from the daemon ---- */

/* The newest, at most so many; newest first. *ret is malloc'd in any case, or NULL. */
static int fetch(struct drp *d, uint64_t max, struct told **ret, size_t *ret_n) {
    const struct drp_wire_why_reply *reply = &d->link.packet->message.why_reply;
    struct drp_wire_list request = {.header.type = DRP_WIRE_WHY};
    int r;

    do {
        struct told *told;

        r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
        if (r < 0)
            return r;
        told = realloc(*ret, (*ret_n + DRP_WIRE_WHY_MAX) * sizeof(*told));
        if (!told)
            return error_detail(-ENOMEM, "more than %zu decisions", *ret_n);
        *ret = told;
        for (uint32_t i = 0; i < reply->count && *ret_n < max; i++)
            told[(*ret_n)++] = (struct told){.decision = reply->entries[i],
                                             .began_ms = reply->now_ms - reply->entries[i].began_ms,
                                             .ended_ms = reply->now_ms - reply->entries[i].ended_ms};
        request.cursor = reply->next;
    } while (request.cursor != 0 && *ret_n < max);
    return 0;
}

static int show(const struct ctl_options *options, const struct told *told, size_t n) {
    struct json_object *object, *array;

    if (!options->json) {
        for (size_t i = n; i-- > 0;) { /* the newest is read first where it is the last line */
            print_decision(&told[i]);
            if (i > 0)
                printf("\n");
        }
        if (n == 0)
            printf("Nothing was dropped for want of memory.\n");
        return CTL_OK;
    }
    object = json_object_new_object();
    array = json_object_new_array();
    for (size_t i = 0; i < n; i++)
        json_object_array_add(array, json_decision(&told[i]));
    json_object_object_add(object, "decisions", array);
    return ctl_print_json(object);
}

int ctl_why(const struct ctl_options *options) {
    struct told *told = NULL;
    struct drp *d;
    size_t n = 0;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    r = fetch(d, options->count, &told, &n);
    status = r < 0 ? ctl_fail("why", r) : show(options, told, n);
    free(told);
    context_free(d);
    return status;
}
