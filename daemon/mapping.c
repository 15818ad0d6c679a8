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

int mapping_new(struct mapping **ret, struct region *region, struct session *session, int pin_fd, int *ret_pin_fd) {
    struct mapping *mapping = calloc(1, sizeof(*mapping));
    size_t commits = region->span_count * sizeof(uint16_t), pages = (drp_pin_bytes(region->chunk_total) + 4095) / 4096;
    int r;

    if (!mapping)
        return -ENOMEM;
    mapping->region = region;
    mapping->session = session;
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

/* ---- extents ---- */

int extents_init(struct extents *extents) {
    void *p = mmap(NULL, 2 * EXTENTS_MAX * sizeof(struct extent), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    *extents = (struct extents){.entries = p, .places = (struct extent *)p + EXTENTS_MAX};
    return 0;
}

void extents_deinit(struct extents *extents) {
    if (extents->entries)
        munmap(extents->entries, 2 * EXTENTS_MAX * sizeof(struct extent));
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

/* Index of the first place of the mapping that ends above the offset, or of what follows the mapping. */
static size_t places_lower(const struct extents *extents, const struct mapping *mapping, uint64_t offset) {
    size_t low = 0, high = extents->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct extent *e = &extents->places[middle];

        if (e->mapping < mapping || (e->mapping == mapping && e->offset + e->length <= offset))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first place of [offset, end), or NULL. */
static const struct extent *places_overlap(const struct extents *extents, const struct mapping *mapping,
                                           uint64_t offset, uint64_t end) {
    size_t i = places_lower(extents, mapping, offset);
    const struct extent *e = &extents->places[i];

    return i < extents->n && e->mapping == mapping && e->offset < end ? e : NULL;
}

const struct extent *extents_find(const struct extents *extents, uint64_t address) {
    size_t i = extents_lower(extents, address);

    return i < extents->n && extents->entries[i].address <= address ? &extents->entries[i] : NULL;
}

const struct extent *extents_overlap(const struct extents *extents, uint64_t start, uint64_t end) {
    size_t i = extents_lower(extents, start);

    return i < extents->n && extents->entries[i].address < end ? &extents->entries[i] : NULL;
}

/* Takes an entry out of one of the arrays, of n. */
static void array_erase(struct extent *array, size_t n, size_t i) {
    memmove(&array[i], &array[i + 1], (n - 1 - i) * sizeof(*array));
}

static void array_insert(struct extent *array, size_t n, size_t i, const struct extent *extent) {
    memmove(&array[i + 1], &array[i], (n - i) * sizeof(*array));
    array[i] = *extent;
}

static void extents_erase(struct extents *extents, size_t i) {
    const struct extent *e = &extents->entries[i];

    array_erase(extents->places, extents->n, places_lower(extents, e->mapping, e->offset));
    array_erase(extents->entries, extents->n, i);
    extents->n--;
}

/* There is room. */
static void extents_insert(struct extents *extents, size_t i, const struct extent *extent) {
    array_insert(extents->places, extents->n, places_lower(extents, extent->mapping, extent->offset), extent);
    array_insert(extents->entries, extents->n, i, extent);
    extents->n++;
}

/* Another shape that neither overlaps a neighbour nor passes one by. */
static void extents_reshape(struct extents *extents, size_t i, const struct extent *extent) {
    struct extent *e = &extents->entries[i];

    extents->places[places_lower(extents, e->mapping, e->offset)] = *extent;
    *e = *extent;
}

static bool continues(const struct extent *first, const struct extent *next) {
    return first->mapping == next->mapping && first->address + first->length == next->address &&
           first->offset + first->length == next->offset;
}

int extents_add(struct extents *extents, const struct extent *extent) {
    size_t i = extents_lower(extents, extent->address);
    struct extent joined = *extent;
    bool before, behind;

    if (extents_overlap(extents, extent->address, extent->address + extent->length) ||
        places_overlap(extents, extent->mapping, extent->offset, extent->offset + extent->length))
        return -EEXIST;
    before = i > 0 && continues(&extents->entries[i - 1], extent);
    behind = i < extents->n && continues(extent, &extents->entries[i]);
    if (!before && !behind && extents->n == EXTENTS_MAX)
        return -ENOSPC;
    if (behind)
        joined.length += extents->entries[i].length;
    if (before) {
        joined.length += extents->entries[i - 1].length;
        joined.address = extents->entries[i - 1].address;
        joined.offset = extents->entries[i - 1].offset;
    }
    if (before && behind)
        extents_erase(extents, i);
    if (before)
        extents_reshape(extents, i - 1, &joined);
    else if (behind)
        extents_reshape(extents, i, &joined);
    else
        extents_insert(extents, i, &joined);
    return 0;
}

/* Splits the extent that holds the address in its middle, so that one begins there. */
static void extents_split(struct extents *extents, uint64_t address) {
    size_t i = extents_lower(extents, address);
    struct extent head, tail;

    if (i == extents->n || extents->entries[i].address >= address)
        return;
    head = tail = extents->entries[i];
    head.length = address - head.address;
    tail.address = address;
    tail.length -= head.length;
    tail.offset += head.length;
    extents_reshape(extents, i, &head);
    if (extents->n < EXTENTS_MAX) /* else the tail is forgotten */
        extents_insert(extents, i + 1, &tail);
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

static size_t array_forget(struct extent *array, size_t n, const struct mapping *mapping) {
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (array[i].mapping != mapping)
            array[kept++] = array[i];
    return kept;
}

void extents_forget(struct extents *extents, const struct mapping *mapping) {
    array_forget(extents->places, extents->n, mapping);
    extents->n = array_forget(extents->entries, extents->n, mapping);
}

bool extents_next(const struct extents *extents, const struct mapping *mapping, uint64_t offset, uint64_t end,
                  uint64_t *ret_address, uint64_t *ret_length, uint64_t *ret_offset) {
    const struct extent *e = places_overlap(extents, mapping, offset, end);
    uint64_t first, last;

    if (!e || offset >= end)
        return false;
    first = offset > e->offset ? offset : e->offset;
    last = end < e->offset + e->length ? end : e->offset + e->length;
    *ret_address = e->address + (first - e->offset);
    *ret_length = last - first;
    *ret_offset = first;
    return true;
}

uint64_t extents_bytes(const struct extents *extents, const struct mapping *mapping, uint64_t offset, uint64_t end) {
    uint64_t address, length, sum = 0;

    for (; extents_next(extents, mapping, offset, end, &address, &length, &offset); offset += length)
        sum += length;
    return sum;
}
