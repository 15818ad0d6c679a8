/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_RECORD_H
#define DROPPABLE_DAEMON_RECORD_H

/*
 * `droppabled --record FILE`: what the policy sees, as a text that tests/sim replays. docs/trace-format.md tells what is in it.
 *
 * One recorder a process, as there is one log. The record_*() functions may be called from any thread with any lock held: they cost a
 * load while nothing is recorded, and a place in a ring while something is; they never wait. A full ring loses the event, and the trace
 * says how many. A thread of its own writes.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

extern _Atomic bool record_on;

static inline bool record_active(void) {
    return atomic_load_explicit(&record_on, memory_order_relaxed);
}

/* A line of the trace. */
enum record_kind {
    RECORD_DOMAIN,     /* domain, its parent or 0 */
    RECORD_REGION,     /* region, session, domain, bytes, (chunk_shift << 48 | priority << 32 | share) */
    RECORD_END,        /* region */
    RECORD_FAULT,      /* region, chunk */
    RECORD_REFAULT,    /* region, chunk */
    RECORD_PINS,       /* region, first chunk, chunks, tick */
    RECORD_DROP,       /* region, first chunk, chunks */
    RECORD_OWNER_DROP, /* region, first chunk, chunks */
    RECORD_DEMAND,     /* domain, source, bytes */
    RECORD_FREED,      /* domain, bytes */
    RECORD_BUDGET,     /* scope, bytes */
};

/*
 * Opens the file: a new one, or a regular one, which is made empty. Nothing is recorded before record_start(). Negative errno; *ret_what
 * then tells what was wrong.
 */
int record_open(const char *path, const char **ret_what);
/* Starts the writer. Without a file: nothing happens. */
int record_start(void);
/* Ends the recording, with what is in the ring. 0, or the first error of a write; then the trace ends there. */
int record_stop(void);

/* Enters an event. */
void record_event(enum record_kind kind, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);

/* The chunks of a span, first on, whose bits are set were dropped: for pressure, or by their owner. */
void record_drop_runs(bool pressure, uint64_t region, uint64_t first, const uint64_t *bits, unsigned chunks);

static inline void record_fault(uint64_t region, uint64_t chunk, bool again) {
    if (record_active())
        record_event(again ? RECORD_REFAULT : RECORD_FAULT, region, chunk, 0, 0, 0);
}
static inline void record_drop(bool pressure, uint64_t region, uint64_t first, const uint64_t *bits, unsigned chunks) {
    if (record_active())
        record_drop_runs(pressure, region, first, bits, chunks);
}
static inline void record_demand(uint64_t domain, uint64_t source, uint64_t bytes) {
    if (record_active())
        record_event(RECORD_DEMAND, domain, source, bytes, 0, 0);
}
static inline void record_freed(uint64_t domain, uint64_t bytes) {
    if (record_active())
        record_event(RECORD_FREED, domain, bytes, 0, 0, 0);
}
static inline void record_budget(uint64_t scope, uint64_t bytes) {
    if (record_active())
        record_event(RECORD_BUDGET, scope, bytes, 0, 0, 0);
}
static inline void record_end(uint64_t region) {
    if (record_active())
        record_event(RECORD_END, region, 0, 0, 0, 0);
}

#endif
