/* SPDX-License-Identifier: MIT */
/*
 * Reading traces. Lines are in the order in which the recorder met them; what was pinned is known a tick later, and has its own time, so all
 * is sorted at the end.
 */

#include "trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "droppable-trace 1\n"
/*
 * A pin is known to 100 ms. It stands at their beginning, since who pins does so before he touches; and what an owner drops, at the beginning of
 * the 100 ms before, since he does that before he fills it anew.
 */
#define TICK_US 100000
#define NUMBERS_MAX 7

void trace_init(struct trace *trace) {
    *trace = (struct trace){0};
}

void trace_deinit(struct trace *trace) {
    free(trace->events);
    free(trace->regions);
    trace_init(trace);
}

/* A simulator may give up. */
static void *grown(void *array, size_t n, size_t *max, size_t size) {
    if (n < *max)
        return array;
    *max = *max ? *max * 2 : 64;
    array = realloc(array, *max * size);
    if (!array)
        abort();
    return array;
}

uint32_t trace_add_region(struct trace *trace, const struct trace_region *region) {
    trace->regions = grown(trace->regions, trace->n_regions, &trace->regions_max, sizeof(*trace->regions));
    trace->regions[trace->n_regions] = *region;
    trace->regions[trace->n_regions].chunks =
        (region->bytes + (UINT64_C(1) << region->chunk_shift) - 1) >> region->chunk_shift;
    return (uint32_t)trace->n_regions++;
}

void trace_add(struct trace *trace, const struct trace_event *event) {
    trace->events = grown(trace->events, trace->n_events, &trace->events_max, sizeof(*trace->events));
    trace->events[trace->n_events] = *event;
    trace->events[trace->n_events].order = trace->n_events;
    if (event->kind == TRACE_PIN)
        trace->regions[event->region].pins = true;
    trace->n_events++;
}

static int compare_events(const void *a, const void *b) {
    const struct trace_event *x = a, *y = b;

    if (x->us != y->us)
        return x->us < y->us ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void trace_sort(struct trace *trace) {
    if (trace->n_events > 0)
        qsort(trace->events, trace->n_events, sizeof(*trace->events), compare_events);
}

bool trace_within(const struct trace *trace, uint64_t domain, uint64_t ancestor) {
    for (size_t steps = 0; domain != ancestor && steps <= trace->n_domains; steps++) {
        uint64_t parent = 0;

        for (size_t i = 0; i < trace->n_domains; i++)
            if (trace->domains[i].domain == domain)
                parent = trace->domains[i].parent;
        if (parent == 0)
            return false;
        domain = parent;
    }
    return domain == ancestor;
}

/* ---- lines ---- */

static int read_domain(struct trace *trace, const uint64_t *v) {
    for (size_t i = 0; i < trace->n_domains; i++)
        if (trace->domains[i].domain == v[0])
            return 0;
    if (trace->n_domains == TRACE_DOMAINS)
        return -E2BIG;
    trace->domains[trace->n_domains].domain = v[0];
    trace->domains[trace->n_domains++].parent = v[1];
    return 0;
}

static int read_region(struct trace *trace, const uint64_t *v) {
    struct trace_region region = {
        .id = v[0],
        .session = v[1],
        .domain = v[2],
        .bytes = v[3],
        .chunk_shift = (unsigned)v[4],
        .priority = (unsigned)v[5],
        .share = (unsigned)v[6],
    };

    if (v[4] < 12 || v[4] > 21 || v[3] == 0 || v[3] > UINT64_C(1) << 40)
        return -EINVAL;
    trace_add_region(trace, &region);
    return 0;
}

/* An event of a region; what is outside of it, or of a region that the recorder did not see begin, is passed over. */
static void read_chunks(struct trace *trace, enum trace_kind kind, uint64_t us, const uint64_t *v, uint64_t count) {
    struct trace_event event = {.us = us, .kind = kind, .first = v[1], .count = count};

    for (size_t i = 0; i < trace->n_regions; i++)
        if (trace->regions[i].id == v[0]) {
            if (v[1] > trace->regions[i].chunks || count > trace->regions[i].chunks - v[1])
                return;
            event.region = (uint32_t)i;
            trace_add(trace, &event);
            return;
        }
}

static void read_bytes(struct trace *trace, enum trace_kind kind, uint64_t us, uint64_t domain, uint64_t bytes) {
    struct trace_event event = {.us = us, .kind = kind, .domain = domain, .bytes = bytes};

    trace_add(trace, &event);
}

/* A line's numbers are v, n of them. */
static int read_line(struct trace *trace, char letter, const uint64_t *v, int n, uint64_t *us) {
    static const struct {
        char letter;
        int numbers;
    } known[] = {{'t', 1}, {'D', 2}, {'R', 7}, {'E', 1}, {'f', 2}, {'r', 2}, {'a', 3}, {'p', 4},
                 {'x', 3}, {'o', 3}, {'d', 3}, {'g', 2}, {'b', 2}, {'M', 2}, {'L', 1}, {'B', 1}};
    int numbers = -1;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].letter == letter)
            numbers = known[i].numbers;
    if (numbers < 0 || n != numbers)
        return -EINVAL;
    switch (letter) {
    case 't':
        *us = v[0] * 1000;
        return 0;
    case 'D':
        return read_domain(trace, v);
    case 'R':
        return read_region(trace, v);
    case 'E':
        read_chunks(trace, TRACE_END, *us, (const uint64_t[]){v[0], 0}, 0);
        return 0;
    case 'f':
    case 'r':
        read_chunks(trace, TRACE_TOUCH, *us, v, 1);
        return 0;
    case 'a':
        read_chunks(trace, TRACE_TOUCH, *us, v, v[2]);
        return 0;
    case 'p':
        read_chunks(trace, TRACE_PIN, v[3] * 1000, v, v[2]);
        return 0;
    case 'o':
        read_chunks(trace, TRACE_OWNER_DROP, *us > TICK_US ? *us - TICK_US : 0, v, v[2]);
        return 0;
    case 'g':
        read_bytes(trace, TRACE_ASK, *us, v[0], v[1]);
        return 0;
    case 'M':
        read_bytes(trace, TRACE_MEMORY, *us, v[0], v[1]);
        return 0;
    case 'L':
        trace->lost += v[0];
        return 0;
    default: /* x, d and b, and B, tell what the daemon did and why, which is not ours to repeat */
        return 0;
    }
}

int trace_read(struct trace *trace, const char *path, size_t *ret_line) {
    FILE *file = fopen(path, "re");
    uint64_t us = 0;
    char line[256];
    int r = 0;

    *ret_line = 0;
    if (!file)
        return -errno;
    while (r == 0 && fgets(line, sizeof(line), file)) {
        uint64_t v[NUMBERS_MAX] = {0};
        char letter;
        int n;

        if (++*ret_line == 1) {
            r = strcmp(line, MAGIC) == 0 ? 0 : -EINVAL;
            continue;
        }
        if (line[0] == '#' || line[0] == '\n')
            continue;
        n = sscanf(line, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &letter,
                   &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6]);
        r = n < 1 ? -EINVAL : read_line(trace, letter, v, n - 1, &us);
    }
    if (r == 0 && *ret_line == 0)
        r = -EINVAL;
    fclose(file);
    trace_sort(trace);
    return r;
}
