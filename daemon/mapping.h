/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_MAPPING_H
#define DROPPABLE_DAEMON_MAPPING_H

#include "pages.h"
#include "region.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct kernel;

enum mapping_span_state {
    MAPPING_ARMED = 0,        /* registered MISSING: the next missing page reaches the pager */
    MAPPING_DISARMED = 1,     /* registered WP: the kernel fills, events still come */
    MAPPING_UNREGISTERED = 2, /* the kernel fills, no events: huge pages, and kernels without WP on shared memory */
};

/* One session's view of a region. All under the lock of the region's home but for the pin page. */
struct mapping {
    uint64_t id;
    struct region *region;
    struct session *session; /* whose view it is */
    bool intercepted;        /* faults of its extents are seen */

    void *pins;  /* the pin page, PROT_READ */
    int pins_fd; /* the same, until the client has sealed it; then -1. Of the loop */
    bool sealed;
    const struct kernel *kernel;
    struct drp_pin_header *pin_header;
    struct drp_pin_cell *cells; /* of the region's first chunk */
    uint8_t *pins_present;      /* by page of it: bit 0 says that it is there. Of who has the session's lock */
    uint32_t pins_looked;       /* the touched span that was looked at last */
    uint64_t pinning;           /* chunks, of the count that is under way. Under the manager's lock, both */
    uint64_t pinned;            /* bytes, of the last */

    /* By span of the region, one sparse table. */
    void *tables;
    size_t tables_size;
    uint8_t *span_state;    /* enum mapping_span_state */
    uint16_t *span_commit;  /* pages that the kernel may still fill, as counted in the domain's commitment */
    uint32_t disarmed_runs; /* runs of spans that are not armed: each costs two more VMAs */
    uint64_t committed;     /* sum of span_commit in bytes */
    uint32_t disarming_first, disarming_end; /* spans that still count as armed while the pager is disarming them */
    uint32_t refresh;                        /* span at which the next refresh of commitments begins */
    uint32_t scattered;                      /* first touches in a row that did not follow a full span */
    uint32_t burst;                          /* sparse spans that were touched again in a row */
    uint64_t burst_at;                       /* ns: when the last one was */
};

/* Where a piece of a mapping is in the client's address space now. */
struct extent {
    uint64_t address, length;
    struct mapping *mapping;
    uint64_t offset; /* in the region */
};

/* Of a session. A client has 65530 mappings by default, and each of ours may be two while spans of it differ. */
#define EXTENTS_MAX 32768

/* In an order, with the room that is left in one place: what comes or goes beside the last that did moves no other. */
struct extent_array {
    struct extent *entries; /* of EXTENTS_MAX; gap of them, then the room, then the others */
    size_t n, gap;
};

/*
 * The extents of a session, in order of address and, the same ones, in order of mapping and offset. No two overlap, in either. What continues
 * its neighbour in both is one with it. Allocates at init only.
 */
struct extents {
    struct extent_array entries;
    struct extent_array places;
};

static inline struct extent *extent_at(const struct extent_array *array, size_t i) {
    return &array->entries[i < array->gap ? i : i + (EXTENTS_MAX - array->n)];
}

/* As region_tables_most(), of one mapping. */
uint64_t mapping_tables_most(uint64_t size);
/*
 * pin_fd < 0: a new pin page, *ret_pin_fd is its read-write descriptor for the client. Else that page is taken (checked by the caller, sealed), *ret_pin_fd = -1.
 * The kernel's facts outlive the mapping.
 */
int mapping_new(struct mapping **ret, const struct kernel *kernel, struct region *region, struct session *session,
                int pin_fd, int *ret_pin_fd);
struct mapping *mapping_free(struct mapping *mapping);
/*
 * In the loop, under the lock: the client says that its pin page is sealed. Until then he can punch it, and who reads a cell waits for the end of that: so no pin
 * of his counts before, and none is read. -EPERM: it is not sealed.
 */
int mapping_take_seal(struct mapping *mapping);
/*
 * Brings pins_present up to date for touched spans: what no client wrote must not be read, since that would fill it. Takes each look at the
 * kernel off *looks and goes on from there the next time; what was not looked at counts as never pinned, until the dropper looks at
 * the pin itself. Under the session's lock.
 */
void mapping_look_at_pins(struct mapping *mapping, unsigned *looks);
/* The same of a page of the pin page, and some behind it (of 32,768 chunks at once). Returns up to where pages are known. */
#define MAPPING_PINS_AT_ONCE 64
uint64_t mapping_look_at_pin_pages(struct mapping *mapping, uint64_t page, unsigned *looks);
/* Under the lock: is the next missing page of the span certainly seen? */
static inline bool mapping_is_armed(const struct mapping *mapping, uint32_t span) {
    return mapping->intercepted && mapping->span_state[span] == MAPPING_ARMED &&
           !(span >= mapping->disarming_first && span < mapping->disarming_end);
}
/* Changes the state of a span and keeps disarmed_runs. */
void mapping_set_state(struct mapping *mapping, uint32_t span, enum mapping_span_state state);

int extents_init(struct extents *extents);
void extents_deinit(struct extents *extents);
/* -EEXIST: overlaps another; -ENOSPC: too many. None of what is there is changed then. */
int extents_add(struct extents *extents, const struct extent *extent);
/* The extent that holds the address, or NULL. */
const struct extent *extents_find(const struct extents *extents, uint64_t address);
/* The first extent that overlaps [start, end), or NULL. */
const struct extent *extents_overlap(const struct extents *extents, uint64_t start, uint64_t end);
/* Cuts [start, end) out. A cut in the middle of an extent needs a free entry; without one its tail is forgotten. */
void extents_remove(struct extents *extents, uint64_t start, uint64_t end);
/* Moves what lies in [from, from + length) to another address (mremap). */
void extents_move(struct extents *extents, uint64_t from, uint64_t to, uint64_t length);
/* Removes every extent of a mapping. */
void extents_forget(struct extents *extents, const struct mapping *mapping);
/* The first piece of a mapping's bytes [offset, end) that is mapped, by offset. false: none. */
bool extents_next(const struct extents *extents, const struct mapping *mapping, uint64_t offset, uint64_t end,
                  uint64_t *ret_address, uint64_t *ret_length, uint64_t *ret_offset);
/* How many of a mapping's bytes [offset, end) are mapped. */
uint64_t extents_bytes(const struct extents *extents, const struct mapping *mapping, uint64_t offset, uint64_t end);

#endif
