/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_GENERATION_H
#define DROPPABLE_DAEMON_GENERATION_H

/*
 * The daemon's half of the pin/drop protocol (protocol/pages.h has both halves side by side). Only one thread ever writes the
 * generations of a region: its session's dropper.
 */

#include "crash-point.h"
#include "pages.h"

#include <stdbool.h>

/*
 * Claims a chunk for dropping: its generation turns odd, then every mapping's pin count is read. False: pinned; the generation is back
 * at its old value and waiters have to be woken. True: the chunk may be punched and must then be settled. Cells that are NULL hold no pins.
 */
static inline bool generation_claim(_Atomic uint32_t *generation, struct drp_pin_cell *const *cells, unsigned n_cells,
                                    uint64_t cell) {
    uint32_t settled = atomic_load_explicit(generation, memory_order_relaxed);

    atomic_store_explicit(generation, settled + 1, memory_order_seq_cst);
    CRASH_POINT("drop-odd");
    for (unsigned i = 0; i < n_cells; i++)
        if (cells[i] && atomic_load_explicit(&cells[i][cell].count, memory_order_seq_cst) != 0) {
            atomic_store_explicit(generation, settled, memory_order_seq_cst);
            return false;
        }
    return true;
}

/* The chunk is a hole now: next even generation. Waiters have to be woken. */
static inline void generation_settle(_Atomic uint32_t *generation) {
    uint32_t odd = atomic_load_explicit(generation, memory_order_relaxed);

    atomic_store_explicit(generation, odd + 1, memory_order_seq_cst);
}

/* Does somebody wait on a generation of this mapping? To be asked after the store that he waits for. */
static inline bool generation_has_waiters(const struct drp_pin_header *pins) {
    return atomic_load_explicit(&pins->waiters, memory_order_seq_cst) != 0;
}

#endif
