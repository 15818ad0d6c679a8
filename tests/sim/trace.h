/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_SIM_TRACE_H
#define DROPPABLE_SIM_TRACE_H

/* A trace in memory: read from a file (docs/trace-format.md), or made by a generator with the trace_add functions. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum trace_kind {
    TRACE_TOUCH,      /* chunks were accessed, by somebody who did not pin them */
    TRACE_PIN,        /* the same, pinned */
    TRACE_OWNER_DROP, /* their owner does not want them any more */
    TRACE_ASK,        /* bytes of a domain are to be freed */
    TRACE_MEMORY,     /* from now on so many bytes of a domain may be resident; UINT64_MAX: any */
    TRACE_END,        /* the region is gone */
};

struct trace_event {
    uint64_t us;
    uint64_t order; /* of events of the same time */
    enum trace_kind kind;
    uint32_t region; /* index */
    uint64_t domain;
    uint64_t first, count; /* chunks */
    uint64_t bytes;
};

struct trace_region {
    uint64_t id;
    uint64_t session;
    uint64_t domain;
    uint64_t bytes;
    uint64_t chunks;
    unsigned chunk_shift;
    unsigned priority;
    unsigned share;
    bool pins; /* somebody pins in it */
};

#define TRACE_DOMAINS 64

struct trace {
    struct trace_event *events;
    size_t n_events, events_max;
    struct trace_region *regions;
    size_t n_regions, regions_max;
    struct {
        uint64_t domain, parent;
    } domains[TRACE_DOMAINS];
    size_t n_domains;
    uint64_t lost; /* events that the recorder lost */
};

void trace_init(struct trace *trace);
void trace_deinit(struct trace *trace);
/* 0, or negative errno; *ret_line is the line that is wrong, 0 for the file itself. */
int trace_read(struct trace *trace, const char *path, size_t *ret_line);

/* Returns its index. */
uint32_t trace_add_region(struct trace *trace, const struct trace_region *region);
void trace_add(struct trace *trace, const struct trace_event *event);
/* After the last event: they are in order of time from then on. */
void trace_sort(struct trace *trace);
/* Is a domain another one, or within it? */
bool trace_within(const struct trace *trace, uint64_t domain, uint64_t ancestor);

#endif
