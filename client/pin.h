/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_PIN_H
#define DROPPABLE_CLIENT_PIN_H

/* The client's half of the pin protocol, on mapped pages only: no socket, no lock. See pages.h for the protocol. */

#include "pages.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * One mapping's pages. All pointers belong to the owner of this struct and stay valid while it is used; what is mapped
 * behind generations may be replaced in place by a new daemon's page.
 */
struct pins {
    _Atomic uint32_t *generations;  /* of the region's first chunk; the mapping is read-only */
    struct drp_pin_cell *cells;     /* of the region's first chunk */
    struct drp_state_header *state; /* the mapping is read-only */
    struct drp_pin_header *header;
    struct drp_clock_page *clock; /* the mapping is read-only */
    _Atomic size_t size;          /* of the region in bytes, a multiple of the chunk; stored last, loaded first */
    uint32_t chunk_shift;
    uint32_t bias; /* added to every generation that is reported: 0, or what sets a forked child's apart */
    /*
     * The process that writes the generations has ended, so that nothing can be punched any more: an odd generation
     * is settled and lost, and reported as the next even one.
     */
    _Atomic bool gone;
    /*
     * The number of that process, for who finds an odd generation to look by himself: nobody else watches it any more. 0: it is watched; -1: it has none
     * here, and is waited for until another daemon has the region.
     */
    _Atomic pid_t keeper;
    _Atomic uint64_t keeper_inode; /* of its pidfd, stored before the number: see process.h */
    /*
     * A shared region that the service may drop from for others, while it does not know our pins: size is 0, and this the real one, so that each call looks
     * twice, and drp_pin() fails. 0: it is not so.
     */
    _Atomic size_t unpinnable;
    _Atomic uint64_t mapping; /* its id, by which the service says that the quota of its process, or user, is used up */
    bool foreign;             /* of another process: size is 0, and every call fails */
    bool native;              /* the kernel's own memory, likewise */
    /*
     * A forked child that has not used them yet has no pages here, and size is 0 until pins_arrive(): most children use nothing, they execute
     * something. NULL: they are there.
     */
    _Atomic(struct drp_region *) late;
};

/* The pages as they are mapped; chunk_base: the region's first chunk in them. */
void pins_set_state(struct pins *p, void *page, uint64_t chunk_base);
void pins_set_pins(struct pins *p, void *page, uint64_t chunk_base);

/* Makes a forked child's pages, if that is still to be done. false: there is no memory for them, or they are foreign. Of fork.c. */
bool pins_arrive(const struct pins *p);

/* No pins from now on; and again. Fine if it is so. */
void pins_refuse(struct pins *p);
void pins_allow(struct pins *p);

/* Waits until no chunk that the range touches is being dropped. For signal handlers, too. */
void pins_wait_settled(struct pins *p, size_t offset, size_t length);

/* As the drp_* functions of the same names in droppable.h. */
int pins_pin(struct pins *p, size_t offset, size_t length, uint64_t *ret_generation);
int pins_unpin(struct pins *p, size_t offset, size_t length);
int pins_touch(struct pins *p, size_t offset, size_t length);
uint64_t pins_generation(const struct pins *p, size_t offset, size_t length);
ssize_t pins_copy_generations(const struct pins *p, size_t offset, size_t length, uint32_t *ret);
int pins_lost(const struct pins *p, size_t offset, size_t length, const uint32_t *generations, size_t *ret_offset,
              size_t *ret_length);
int pins_read_begin(const struct pins *p, size_t offset, size_t length, uint64_t *ret_generation);
bool pins_read_retry(const struct pins *p, size_t offset, size_t length, uint64_t generation);

#endif
