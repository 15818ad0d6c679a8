/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_MAPPED_PINS_H
#define DROPPABLE_TESTS_MAPPED_PINS_H

/* The pin page of a region, as its client has it. */

#include "home.h"
#include "kernel.h"
#include "mapping.h"
#include "region.h"

#include <check.h>
#include <sys/mman.h>
#include <unistd.h>

/* A mapping of the session's, nowhere. Returns its cells, for chunks in all; the region's home is there already. */
static inline struct drp_pin_cell *map_pins(struct region *region, struct session *session, uint64_t chunks) {
    static struct kernel facts;
    struct mapping *mapping;
    void *pins;
    int fd;

    ck_assert_int_eq(region_reserve_mapping(region, &region->home->lock), 0);
    ck_assert_int_eq(mapping_new(&mapping, &facts, region, session, -1, &fd), 0);
    pins = mmap(NULL, drp_pin_bytes(chunks), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(pins, MAP_FAILED);
    close(fd);
    region_add_mapping(region, mapping);
    return drp_pin_cells(pins);
}

#endif
