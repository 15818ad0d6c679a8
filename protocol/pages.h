/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PROTOCOL_PAGES_H
#define DROPPABLE_PROTOCOL_PAGES_H

/*
 * The shared pages: what daemon and client tell each other without a system call.
 *
 * State page (daemon writes, client maps read-only): one 32-bit generation per chunk. Even: settled. Odd: being dropped.
 * Pin page (client writes, daemon only reads): per chunk the number of pins and the tick of the last use.
 * Clock page (daemon writes, all clients map read-only): the coarse tick that clients copy into their pin cells.
 *
 * Drop, by the daemon:                          Pin, by the client:
 *   generation = odd            (seq_cst)         count += 1                  (seq_cst)
 *   read count of every mapping (seq_cst)         read generation             (seq_cst)
 *   pinned: generation = as before, wake          odd: futex-wait until even
 *   else: punch, generation = next even, wake
 *
 * Each side stores, then loads, both sequentially consistent: at least one of them sees the other (Dekker). So either the
 * daemon sees the pin and leaves the chunk, or the client sees the odd generation and waits.
 *
 * A client that waits says so in its pin page's header (waiters), so that the daemon makes no futex call when nobody waits:
 * again each side stores (waiters / generation) before it loads (generation, in the kernel / waiters).
 */

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define DRP_STATE_MAGIC UINT32_C(0x54535244) /* "DRST" */
#define DRP_CLOCK_MAGIC UINT32_C(0x4b435244) /* "DRCK" */

/* Generations and pin cells start one page into their object. */
#define DRP_PAGES_ARRAY_OFFSET 4096

/* drp_state_header.flags */
#define DRP_STATE_PINS_CLOSED \
    UINT32_C(1) /* the pin quota is used up: drp_pin() answers EDQUOT, standing pins are honoured */
#define DRP_STATE_SOME_CLOSED UINT32_C(2) /* the same for the mappings that drp_state_closed() lists, 0 being none */
#define DRP_STATE_CLOSED_MAX 128

struct drp_state_header {
    uint32_t magic;
    uint32_t chunk_shift;
    uint64_t chunk_count;
    _Atomic uint32_t flags;
    uint32_t reserved;
    _Atomic uint64_t drops; /* counts up after something of the region was dropped, and its generations were settled */
    uint32_t reserved2[8];
};
static_assert(sizeof(struct drp_state_header) == 64, "state page header");

struct drp_pin_header {
    _Atomic uint32_t waiters; /* threads that futex-wait on a generation, or are about to */
    uint32_t reserved[15];
};
static_assert(sizeof(struct drp_pin_header) == 64, "pin page header");

struct drp_pin_cell {
    _Atomic uint32_t count;
    _Atomic uint32_t tick; /* the clock page's tick at the last pin */
};
static_assert(sizeof(struct drp_pin_cell) == 8, "pin cell");

#define DRP_TICK_MS 100 /* a tick of the clock page; it advances at least once a second while clients are there */
#define DRP_PIN_MAX UINT32_C(65536)

struct drp_clock_page {
    uint32_t magic;
    _Atomic uint32_t tick; /* CLOCK_MONOTONIC in units of DRP_TICK_MS */
    uint32_t reserved[14];
};
static_assert(sizeof(struct drp_clock_page) == 64, "clock page");

static inline size_t drp_state_bytes(uint64_t chunks) {
    return DRP_PAGES_ARRAY_OFFSET + ((chunks * sizeof(uint32_t) + 4095) & ~UINT64_C(4095));
}

static inline size_t drp_pin_bytes(uint64_t chunks) {
    return DRP_PAGES_ARRAY_OFFSET + ((chunks * sizeof(struct drp_pin_cell) + 4095) & ~UINT64_C(4095));
}

static inline _Atomic uint32_t *drp_state_generations(void *state) {
    return (_Atomic uint32_t *)((char *)state + DRP_PAGES_ARRAY_OFFSET);
}

/* Behind the header: ids of mappings. */
static inline _Atomic uint64_t *drp_state_closed(void *state) {
    return (_Atomic uint64_t *)((char *)state + sizeof(struct drp_state_header));
}
static_assert(sizeof(struct drp_state_header) + DRP_STATE_CLOSED_MAX * sizeof(uint64_t) <= DRP_PAGES_ARRAY_OFFSET,
              "closed mappings");

static inline struct drp_pin_cell *drp_pin_cells(void *pins) {
    return (struct drp_pin_cell *)((char *)pins + DRP_PAGES_ARRAY_OFFSET);
}

#endif
