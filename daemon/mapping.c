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
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A pin page that is looked at whole (a region of 32 GiB has one of 4 MiB: 7 us), and spans looked at in a larger one. */
#define PINS_SMALL (4 * 1024 * 1024 + 4096)
#define PINS_STEPS 4096

uint64_t mapping_tables_most(uint64_t size) {
    return ((size + SPAN_SIZE - 1) >> SPAN_SHIFT) * (sizeof(uint16_t) + sizeof(uint8_t));
}

/* A new page, which is kept open until it is sealed. */
static int new_pins(struct mapping *mapping, size_t size, int *ret_pin_fd) {
    int fd, r = kernel_pin_page(mapping->kernel, size, &fd);

    if (r < 0)
        return r;
    if (!kernel_pin_page_is_sealed(mapping->kernel, fd)) {
        mapping->pins_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (mapping->pins_fd < 0) {
            r = -errno;
            close(fd);
            return r;
        }
    }
    *ret_pin_fd = fd;
    return 0;
}

static int mapping_map_pins(struct mapping *mapping, int pin_fd, int *ret_pin_fd) {
    size_t size = drp_pin_bytes(mapping->region->chunk_total);
    int fd = pin_fd, r;

    *ret_pin_fd = -1;
    if (fd < 0) {
        r = new_pins(mapping, size, &fd);
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
    mapping->sealed = mapping->pins_fd < 0;
    mapping->pin_header = mapping->pins;
    mapping->cells = drp_pin_cells(mapping->pins) + mapping->region->chunk_base;
    if (pin_fd < 0)
        *ret_pin_fd = fd;
    return 0;
}

int mapping_new(struct mapping **ret, const struct kernel *kernel, struct region *region, struct session *session,
                int pin_fd, int *ret_pin_fd) {
    struct mapping *mapping = calloc(1, sizeof(*mapping));
    size_t commits = region->span_count * sizeof(uint16_t), pages = (drp_pin_bytes(region->chunk_total) + 4095) / 4096;
    int r;

    if (!mapping)
        return -ENOMEM;
    mapping->region = region;
    mapping->session = session;
    mapping->kernel = kernel;
    mapping->pins_fd = -1;
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
    if (mapping->pins_fd >= 0)
        close(mapping->pins_fd);
    sparse_table_free(mapping->tables, mapping->tables_size);
    free(mapping);
    return NULL;
}

int mapping_take_seal(struct mapping *mapping) {
    struct region *region = mapping->region;

    if (mapping->sealed)
        return 0;
    if (!kernel_pin_page_is_sealed(mapping->kernel, mapping->pins_fd))
        return -EPERM;
    close(mapping->pins_fd);
    mapping->pins_fd = -1;
    mapping->sealed = true;
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (region->mappings[i] == mapping)
            region->cells[i] = mapping->cells;
    return 0;
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

    if (!mapping->sealed)
        return;
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

uint64_t mapping_look_at_pin_pages(struct mapping *mapping, uint64_t page, unsigned *looks) {
    uint64_t end = (drp_pin_bytes(mapping->region->chunk_total) + 4095) / 4096;

    if (*looks == 0)
        return page;
    --*looks;
    end = page + MAPPING_PINS_AT_ONCE < end ? page + MAPPING_PINS_AT_ONCE : end;
    if (mincore((char *)mapping->pins + page * 4096, (end - page) * 4096, mapping->pins_present + page) < 0)
        memset(mapping->pins_present + page, 1, end - page);
    return end;
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

/* From so many on, one look at all is cheaper than to move others for each. */
#define MANY 16

int extents_init(struct extents *extents) {
    void *p = mmap(NULL, 2 * EXTENTS_MAX * sizeof(struct extent), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    *extents = (struct extents){.entries.entries = p, .places.entries = (struct extent *)p + EXTENTS_MAX};
    return 0;
}

void extents_deinit(struct extents *extents) {
    if (extents->entries.entries)
        munmap(extents->entries.entries, 2 * EXTENTS_MAX * sizeof(struct extent));
    *extents = (struct extents){0};
}

/* Index of the first extent that ends above the address. */
static size_t extents_lower(const struct extents *extents, uint64_t address) {
    size_t low = 0, high = extents->entries.n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct extent *e = extent_at(&extents->entries, middle);

        if (e->address + e->length <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Index of the first place of the mapping that ends above the offset, or of what follows the mapping. */
static size_t places_lower(const struct extents *extents, const struct mapping *mapping, uint64_t offset) {
    size_t low = 0, high = extents->places.n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct extent *e = extent_at(&extents->places, middle);

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
    const struct extent *e = extent_at(&extents->places, i);

    return i < extents->places.n && e->mapping == mapping && e->offset < end ? e : NULL;
}

const struct extent *extents_find(const struct extents *extents, uint64_t address) {
    size_t i = extents_lower(extents, address);
    const struct extent *e = extent_at(&extents->entries, i);

    return i < extents->entries.n && e->address <= address ? e : NULL;
}

const struct extent *extents_overlap(const struct extents *extents, uint64_t start, uint64_t end) {
    size_t i = extents_lower(extents, start);
    const struct extent *e = extent_at(&extents->entries, i);

    return i < extents->entries.n && e->address < end ? e : NULL;
}

static void array_move_gap(struct extent_array *array, size_t to) {
    size_t room = EXTENTS_MAX - array->n;

    if (to < array->gap)
        memmove(&array->entries[to + room], &array->entries[to], (array->gap - to) * sizeof(*array->entries));
    else
        memmove(&array->entries[array->gap], &array->entries[array->gap + room],
                (to - array->gap) * sizeof(*array->entries));
    array->gap = to;
}

static void array_erase(struct extent_array *array, size_t i, size_t count) {
    array_move_gap(array, i);
    array->n -= count;
}

static void array_insert(struct extent_array *array, size_t i, const struct extent *extent) {
    array_move_gap(array, i);
    array->entries[array->gap++] = *extent;
    array->n++;
}

/* Leaves those for which it is true. */
static void array_filter(struct extent_array *array, bool (*keep)(const struct extent *extent, const void *argument),
                         const void *argument) {
    size_t kept = 0;

    array_move_gap(array, array->n);
    for (size_t i = 0; i < array->n; i++)
        if (keep(&array->entries[i], argument))
            array->entries[kept++] = array->entries[i];
    array->n = array->gap = kept;
}

static void extents_erase(struct extents *extents, size_t i) {
    const struct extent *e = extent_at(&extents->entries, i);

    array_erase(&extents->places, places_lower(extents, e->mapping, e->offset), 1);
    array_erase(&extents->entries, i, 1);
}

/* There is room. */
static void extents_insert(struct extents *extents, size_t i, const struct extent *extent) {
    array_insert(&extents->places, places_lower(extents, extent->mapping, extent->offset), extent);
    array_insert(&extents->entries, i, extent);
}

/* Another shape that neither overlaps a neighbour nor passes one by. */
static void extents_reshape(struct extents *extents, size_t i, const struct extent *extent) {
    struct extent *e = extent_at(&extents->entries, i);

    *extent_at(&extents->places, places_lower(extents, e->mapping, e->offset)) = *extent;
    *e = *extent;
}

static bool continues(const struct extent *first, const struct extent *next) {
    return first->mapping == next->mapping && first->address + first->length == next->address &&
           first->offset + first->length == next->offset;
}

int extents_add(struct extents *extents, const struct extent *extent) {
    size_t i = extents_lower(extents, extent->address);
    struct extent joined = *extent;
    const struct extent *previous, *next;
    bool before, behind;

    if (extents_overlap(extents, extent->address, extent->address + extent->length) ||
        places_overlap(extents, extent->mapping, extent->offset, extent->offset + extent->length))
        return -EEXIST;
    previous = i > 0 ? extent_at(&extents->entries, i - 1) : NULL;
    next = i < extents->entries.n ? extent_at(&extents->entries, i) : NULL;
    before = previous && continues(previous, extent);
    behind = next && continues(extent, next);
    if (!before && !behind && extents->entries.n == EXTENTS_MAX)
        return -ENOSPC;
    if (behind)
        joined.length += next->length;
    if (before) {
        joined.length += previous->length;
        joined.address = previous->address;
        joined.offset = previous->offset;
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

    if (i == extents->entries.n || extent_at(&extents->entries, i)->address >= address)
        return;
    head = tail = *extent_at(&extents->entries, i);
    head.length = address - head.address;
    tail.address = address;
    tail.length -= head.length;
    tail.offset += head.length;
    extents_reshape(extents, i, &head);
    if (extents->entries.n < EXTENTS_MAX)
        extents_insert(extents, i + 1, &tail);
    else /* it is forgotten, and the kernel may fill it unseen */
        tail.mapping->region->strayed = true;
}

struct range {
    uint64_t start, end;
};

static bool is_outside(const struct extent *extent, const void *argument) {
    const struct range *range = argument;

    return extent->address < range->start || extent->address >= range->end;
}

void extents_remove(struct extents *extents, uint64_t start, uint64_t end) {
    size_t first, last;

    extents_split(extents, start);
    extents_split(extents, end);
    first = extents_lower(extents, start);
    last = extents_lower(extents, end);
    if (last - first < MANY)
        for (; last > first; last--)
            extents_erase(extents, last - 1);
    else {
        array_filter(&extents->places, is_outside, &(struct range){start, end});
        array_erase(&extents->entries, first, last - first);
    }
}

/* The entry and the next become one if they are. */
static void extents_join(struct extents *extents, size_t i) {
    struct extent joined;

    if (i + 1 >= extents->entries.n || !continues(extent_at(&extents->entries, i), extent_at(&extents->entries, i + 1)))
        return;
    joined = *extent_at(&extents->entries, i);
    joined.length += extent_at(&extents->entries, i + 1)->length;
    extents_erase(extents, i + 1);
    extents_reshape(extents, i, &joined);
}

static void reverse(struct extent_array *array, size_t first, size_t end) {
    for (; first + 1 < end; first++, end--) {
        struct extent swapped = *extent_at(array, first);

        *extent_at(array, first) = *extent_at(array, end - 1);
        *extent_at(array, end - 1) = swapped;
    }
}

/* Of neighbours [first, middle) and [middle, end), the second come before the first. */
static void array_rotate(struct extent_array *array, size_t first, size_t middle, size_t end) {
    reverse(array, first, middle);
    reverse(array, middle, end);
    reverse(array, first, end);
}

void extents_move(struct extents *extents, uint64_t from, uint64_t to, uint64_t length) {
    struct extent_array *entries = &extents->entries;
    size_t first, last, target;

    if (length == 0 || from == to)
        return;
    extents_split(extents, from);
    extents_split(extents, from + length);
    extents_remove(extents, to, to + length); /* the kernel unmapped what was there */
    first = extents_lower(extents, from);
    last = extents_lower(extents, from + length);
    target = extents_lower(extents, to);
    if (first == last)
        return;
    for (size_t i = first; i < last; i++) { /* their places stay in order */
        struct extent *e = extent_at(entries, i);

        e->address += to - from;
        *extent_at(&extents->places, places_lower(extents, e->mapping, e->offset)) = *e;
    }
    if (target >= last) {
        array_rotate(entries, first, last, target);
        target -= last - first;
    } else
        array_rotate(entries, target, first, last);
    extents_join(extents, target + (last - first) - 1);
    if (target > 0)
        extents_join(extents, target - 1);
}

static bool is_anothers(const struct extent *extent, const void *argument) {
    return extent->mapping != (const struct mapping *)argument;
}

void extents_forget(struct extents *extents, const struct mapping *mapping) {
    array_filter(&extents->places, is_anothers, mapping);
    array_filter(&extents->entries, is_anothers, mapping);
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
