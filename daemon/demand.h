/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_DEMAND_H
#define DROPPABLE_DAEMON_DEMAND_H

/*
 * What a source of pressure states: where memory is wanted, how much, how badly. What is dropped for it is the policy's business.
 * The numbers go over the wire (protocol/wire.h has the same).
 */

#include <stdint.h>

enum demand_source {
    DEMAND_SAMPLER = 1,  /* a look found the headroom under the reserve */
    DEMAND_GATE = 2,     /* fills wait for room */
    DEMAND_PSI_SOME = 3, /* a PSI trigger: some tasks stall */
    DEMAND_PSI_FULL = 4, /* a PSI trigger: all tasks stall */
    DEMAND_HIGH = 5,     /* v2 memory.events: memory.high was crossed */
    DEMAND_MAX = 6, /* v2 memory.events: memory.max was met, or an OOM kill happened; v1 pressure_level: critical */
    DEMAND_THRESHOLD = 7, /* v1: a usage threshold was crossed */
    DEMAND_LEVEL = 8,     /* v1 memory.pressure_level: medium */
    DEMAND_BUDGET = 9,    /* somebody is over the budget */
    DEMAND_HAND = 10,     /* somebody asked for it */
    DEMAND_SOURCE_MAX = 10,
};

/* A source that only says "look": domain->edges has its bit until the next look. */
#define DEMAND_EDGE(source) (UINT32_C(1) << (source))

enum demand_urgency {
    URGENCY_NONE = 0,  /* a client drops its own */
    URGENCY_TRIM = 1,  /* no task waits for it: budgets, a person's hand */
    URGENCY_STALL = 2, /* tasks are slowed down: memory.high, PSI */
    URGENCY_LIFE = 3,  /* the next allocation may end somebody */
};

#endif
