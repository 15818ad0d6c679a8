/* SPDX-License-Identifier: MIT */
/*
 * A mapping: one session's view of a region, with its pin page and the state of its spans; and the extents, which say where the pieces of
 * all mappings of a session are in the client's address space.
 *
 * The client unmaps and moves its memory as it likes; UNMAP and REMAP events keep the extents true. An extent that is forgotten too
 * early costs interception only: faults of unknown addresses are answered with one zero page, as the kernel would.
 * Nothing here allocates after init: the pager runs it.
 */

#include "mapping.h"

#include "kernel.h"
#include "sparse-table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A pin page that is looked at whole (a region of 32 GiB has one of 4 MiB: 7 us), and spans looked at in a larger one. */
#define PINS_SMALL (4 * 1024 * 1024 + 4096)
#define PINS_STEPS 4096

static int mapping_map_pins(struct mapping *mapping, int pin_fd, int *ret_pin_fd) {
    size_t size = drp_pin_bytes(mapping->region->chunk_total);
    int fd = pin_fd, r;

    *ret_pin_fd = -1;
    if (fd < 0) {
        r = kernel_page_object("droppable-pins", size, 0600, &fd);
        if (r < 0)
            return r;
    }
    mapping->pins = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping->pins == MAP_FAILED) {
        mapping->pins = NULL;
        r = -errno;
        if (pin_fd < 0)
            close(fd);
        return r;
    }
    mapping->pin_header = mapping->pins;
    mapping->cells = drp_pin_cells(mapping->pins) + mapping->region->chunk_base;
    if (pin_fd < 0)
        *ret_pin_fd = fd;
    return 0;
}

int mapping_new(struct mapping **ret, struct region *region, uint64_t address, uint64_t length, uint64_t offset,
                int pin_fd, int *ret_pin_fd) {
    struct mapping *mapping = calloc(1, sizeof(*mapping));
    size_t commits = region->span_count * sizeof(uint16_t), pages = (drp_pin_bytes(region->chunk_total) + 4095) / 4096;
    int r;

    if (!mapping)
        return -ENOMEM;
    mapping->region = region;
    mapping->address = address;
    mapping->length = length;
    mapping->offset = offset;
    mapping->tables_size = commits + region->span_count + pages;
    mapping->tables = sparse_table_new(mapping->tables_size);
    if (!mapping->tables) {
        free(mapping);
        return -ENOMEM;
    }
    mapping->span_commit = mapping->tables;
    mapping->span_state = (uint8_t *)mapping->tables + commits;
    mapping->pins_present = mapping->span_state + region->span_count;
    r = mapping_map_pins(mapping, pin_fd, ret_pin_fd);
    if (r < 0) {
        mapping_free(mapping);
        return r;
    }
    *ret = mapping;
    return 0;
}

struct mapping *mapping_free(struct mapping *mapping) {
    if (!mapping)
        return NULL;
    if (mapping->pins)
        munmap(mapping->pins, drp_pin_bytes(mapping->region->chunk_total));
    sparse_table_free(mapping->tables, mapping->tables_size);
    free(mapping);
    return NULL;
}

/* Looks at the pages that hold a span's pins, unless they are known to be there: they stay. */
static void look_at_span_pins(struct mapping *mapping, uint32_t span, unsigned *looks) {
    unsigned shift = SPAN_SHIFT - mapping->region->chunk_shift;
    uint64_t chunk = (uint64_t)span << shift, count = UINT64_C(1) << shift;
    uintptr_t start = (uintptr_t)&mapping->cells[chunk] - (uintptr_t)mapping->pins, end;

    if (count > mapping->region->chunk_count - chunk)
        count = mapping->region->chunk_count - chunk;
    end = start + count * sizeof(struct drp_pin_cell);
    for (uintptr_t page = start / 4096; page <= (end - 1) / 4096 && *looks > 0; page++) {
        if (mapping->pins_present[page] & 1)
            continue;
        --*looks;
        if (mincore((char *)mapping->pins + page * 4096, 4096, &mapping->pins_present[page]) < 0)
            mapping->pins_present[page] = 1;
    }
}

void mapping_look_at_pins(struct mapping *mapping, unsigned *looks) {
    const struct region *region = mapping->region;
    size_t size = drp_pin_bytes(region->chunk_total);
    uint32_t n = atomic_load_explicit(&region->touched_count, memory_order_acquire);

    if (size <= PINS_SMALL) { /* all at once */
        if (*looks == 0)
            return;
        --*looks;
        if (mincore(mapping->pins, size, mapping->pins_present) < 0)
            memset(mapping->pins_present, 1, (size + 4095) / 4096);
        return;
    }
    for (unsigned steps = 0; steps < n && steps<PINS_STEPS && * looks> 0; steps++) {
        mapping->pins_looked = mapping->pins_looked + 1 < n ? mapping->pins_looked + 1 : 0;
        look_at_span_pins(mapping, atomic_load_explicit(&region->touched[mapping->pins_looked], memory_order_relaxed),
                          looks);
    }
}

void mapping_set_state(struct mapping *mapping, uint32_t span, enum mapping_span_state state) {
    bool was = mapping->span_state[span] != MAPPING_ARMED, is = state != MAPPING_ARMED;
    int neighbours = 0;

    mapping->span_state[span] = (uint8_t)state;
    if (was == is)
        return;
    if (span > 0 && mapping->span_state[span - 1] != MAPPING_ARMED)
        neighbours++;
    if (span + 1 < mapping->region->span_count && mapping->span_state[span + 1] != MAPPING_ARMED)
        neighbours++;
    /* A new run, one that grows, or two that meet; and the other way round. */
    if (is)
        mapping->disarmed_runs = (uint32_t)((int)mapping->disarmed_runs + 1 - neighbours);
    else
        mapping->disarmed_runs = (uint32_t)((int)mapping->disarmed_runs - 1 + neighbours);
}

int extents_init(struct extents *extents) {
    void *p = mmap(NULL, EXTENTS_MAX * sizeof(struct extent), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    *extents = (struct extents){.entries = p};
    return 0;
}

void extents_deinit(struct extents *extents) {
    if (extents->entries)
        munmap(extents->entries, EXTENTS_MAX * sizeof(struct extent));
    *extents = (struct extents){0};
}

/* Index of the first extent that ends above the address. */
static size_t extents_lower(const struct extents *extents, uint64_t address) {
    size_t low = 0, high = extents->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct extent *e = &extents->entries[middle];

        if (e->address + e->length <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct extent *extents_find(const struct extents *extents, uint64_t address) {
    size_t i = extents_lower(extents, address);

    return i < extents->n && extents->entries[i].address <= address ? &extents->entries[i] : NULL;
}

const struct extent *extents_overlap(const struct extents *extents, uint64_t start, uint64_t end) {
    size_t i = extents_lower(extents, start);

    return i < extents->n && extents->entries[i].address < end ? &extents->entries[i] : NULL;
}

static void extents_erase(struct extents *extents, size_t i) {
    extents->n--;
    memmove(&extents->entries[i], &extents->entries[i + 1], (extents->n - i) * sizeof(struct extent));
}

int extents_add(struct extents *extents, const struct extent *extent) {
    size_t i = extents_lower(extents, extent->address);

    if (i < extents->n && extents->entries[i].address < extent->address + extent->length)
        return -EEXIST;
    if (extents->n == EXTENTS_MAX)
        return -ENOSPC;
    memmove(&extents->entries[i + 1], &extents->entries[i], (extents->n - i) * sizeof(struct extent));
    extents->entries[i] = *extent;
    extents->n++;
    return 0;
}

/* Splits the extent that holds the address in its middle, so that one begins there. */
static void extents_split(struct extents *extents, uint64_t address) {
    size_t i = extents_lower(extents, address);
    struct extent *e = &extents->entries[i], tail;

    if (i == extents->n || e->address >= address)
        return;
    tail = *e;
    e->length = address - e->address;
    tail.address = address;
    tail.length -= e->length;
    tail.offset += e->length;
    extents_add(extents, &tail); /* without room for it the tail is forgotten */
}

void extents_remove(struct extents *extents, uint64_t start, uint64_t end) {
    size_t i;

    extents_split(extents, start);
    extents_split(extents, end);
    for (i = extents_lower(extents, start); i < extents->n && extents->entries[i].address < end;)
        extents_erase(extents, i);
}

void extents_move(struct extents *extents, uint64_t from, uint64_t to, uint64_t length) {
    size_t i;

    if (length == 0 || from == to)
        return;
    extents_split(extents, from);
    extents_split(extents, from + length);
    extents_remove(extents, to, to + length); /* the kernel unmapped what was there */
    while ((i = extents_lower(extents, from)) < extents->n && extents->entries[i].address < from + length) {
        struct extent moved = extents->entries[i];

        extents_erase(extents, i);
        moved.address = moved.address - from + to;
        extents_add(extents, &moved);
    }
}

void extents_forget(struct extents *extents, const struct mapping *mapping) {
    for (size_t i = 0; i < extents->n;)
        if (extents->entries[i].mapping == mapping)
            extents_erase(extents, i);
        else
            i++;
}

bool extents_next(const struct extents *extents, const struct mapping *mapping, uint64_t offset, uint64_t end,
                  size_t *cursor, uint64_t *ret_address, uint64_t *ret_length, uint64_t *ret_offset) {
    const struct extent *whole = *cursor == 0 ? extents_find(extents, mapping->address) : NULL;
    size_t i = *cursor, stop = extents->n;

    if (whole && whole->mapping == mapping && whole->length == mapping->length) {
        i = (size_t)(whole - extents->entries);
        stop = i + 1; /* there is no other */
    }
    for (; i < stop; i++) {
        const struct extent *e = &extents->entries[i];
        uint64_t first = offset > e->offset ? offset : e->offset;
        uint64_t last = end < e->offset + e->length ? end : e->offset + e->length;

        if (e->mapping != mapping || first >= last)
            continue;
        *ret_address = e->address + (first - e->offset);
        *ret_length = last - first;
        *ret_offset = first;
        *cursor = stop == extents->n ? i + 1 : extents->n;
        return true;
    }
    *cursor = extents->n;
    return false;
}
