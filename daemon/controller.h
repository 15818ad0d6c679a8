/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CONTROLLER_H
#define DROPPABLE_DAEMON_CONTROLLER_H

/*
 * How much to drop, and when to look again: pure, as policy.h, which says from whom. One controller for each domain.
 *
 * A deficit is what misses to the reserve. Dropped is a little more than that, so that one page less is no new demand; twice as much
 * with each look in a row that finds a deficit, up to a slice: somebody who takes memory at 2 GB/s takes 2 MiB while a drop is
 * handed over. Without a deficit only a stall makes it drop: a small share of what is droppable, twice as much with each one in a
 * row, a twentieth in all, half as much whenever what was dropped is wanted again; and whole chunks, never more than the shares add up to.
 */

#include "demand.h"

#include <stdbool.h>
#include <stdint.h>

struct controller_limits {
    uint64_t reserve;   /* bytes to keep free */
    uint64_t margin;    /* dropped beyond the reserve */
    uint64_t slice;     /* at most so much before looking again, unless much more is missing */
    uint64_t fill_rate; /* bytes per second */
};

struct controller {
    struct controller_limits limits;
    unsigned deficits;     /* looks in a row that found less than the reserve */
    uint64_t last_deficit; /* ns */
    unsigned stalls;       /* in a row */
    uint64_t last_stall;   /* ns */
    unsigned given;        /* shares of CONTROLLER_SHARE_WHOLE, since it was calm */
    int64_t due;           /* bytes of these that were not dropped, being less than a chunk; less than 0: more was */
    unsigned backoff;      /* the share is halved so many times */
    uint64_t refaults;     /* mistakes counted when the last share was dropped */
    bool took_back;        /* the last look at waiters left it at taking commitments back */
};

/* What a look at a domain found. */
struct controller_view {
    uint64_t now;           /* ns */
    uint64_t headroom;      /* bytes until somebody is killed; UINT64_MAX: no limit */
    uint64_t headroom_high; /* until all are slowed down; UINT64_MAX: no such limit */
    int64_t commitment;     /* what disarmed spans may fill unasked */
    int64_t credit;         /* what fills may take; may be negative */
    uint64_t wanted;        /* bytes that fills wait for */
    uint32_t edges;         /* DEMAND_EDGE()s since the last look */
    uint64_t refaults;      /* mistakes so far */
};

struct controller_answer {
    uint64_t demand;    /* bytes to free; 0: none */
    uint64_t total;     /* what misses in all, of which demand is a slice */
    uint64_t missing;   /* the same, without the margin */
    uint64_t enough;    /* with it, also where nothing is missing without: of slices under way no more is needed */
    unsigned share;     /* of 1024 parts of what is droppable to free, at most a slice; only if demand is 0 */
    uint64_t take_back; /* bytes of commitments to take back */
    uint64_t next;      /* ns until the next look */
    enum demand_source source;
    enum demand_urgency urgency;
};

#define CONTROLLER_SHARE_WHOLE 1024
/* memory.high slows down, memory.max kills: of the first a part of the reserve is kept free. */
#define CONTROLLER_HIGH_PART 4

void controller_init(struct controller *controller, uint64_t fill_rate);
struct controller_answer controller_look(struct controller *controller, const struct controller_view *view);

/*
 * The bytes that are to be dropped for a share now: whole chunks, at most a slice. What is less than a chunk is due with the next share, so that a chunk
 * is never more than the shares it is dropped for. chunk: the largest that there is.
 */
uint64_t controller_due(struct controller *controller, unsigned share, uint64_t droppable, uint64_t chunk);
/* So many were planned for it. */
void controller_note_given(struct controller *controller, uint64_t bytes);

/*
 * What one plan is for: what is missing, between 16 MiB and 1 GiB. What it turns out not to need is left when a look sees that. One plan drops whole
 * spans where several would take the older chunks of each first, and then what lies between; and from one to the next three threads wake each other.
 */
uint64_t controller_slice(const struct controller_limits *limits, uint64_t missing);

/* The reserve that fits: fill rate x (wake-up + punch of a slice), at least 4 MiB, at most an eighth of the limit. */
uint64_t controller_auto_reserve(uint64_t fill_rate, uint64_t limit);
/*
 * The same for the machine: at least a 32nd of its memory, up to 64 MiB. MemAvailable is an estimate, and the last of it is the kernel's own:
 * the service is held up in reclaim before it is used up.
 */
uint64_t controller_machine_reserve(uint64_t fill_rate, uint64_t total);

#endif
