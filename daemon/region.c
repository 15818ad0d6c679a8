/* SPDX-License-Identifier: MIT */
/*
 * A region: a range of a data object, its state page, and what the daemon knows of its spans and chunks.
 *
 * The daemon never has a readable mapping of the data: object_map is PROT_NONE and serves mincore(2) only. The tables
 * cost memory only where they are written; zero is the initial state of everything (span armed, nothing known, chunk not gone).
 */

#include "region.h"

#include "kernel.h"
#include "locked.h"
#include "mapping.h"
#include "pages.h"
#include "sparse-table.h"
#include "worker.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPAN_TAIL_PAGES UINT64_C(16)

/* Tables begin at a line of the cache. */
static size_t round_line(size_t size) {
    return (size + 63) & ~(size_t)63;
}

static int region_make_tables(struct region *region) {
    size_t spans = round_line(region->span_count * sizeof(struct span));
    size_t history = round_line(region->span_count * sizeof(struct page_set));
    size_t ticks = round_line(region->span_count * sizeof(struct policy_span));
    size_t touched = round_line(region->span_count * sizeof(uint32_t));
    char *p;

    region->tables_size = spans + history + ticks + touched + region->chunk_count;
    p = sparse_table_new(region->tables_size);
    if (!p)
        return -ENOMEM;
    region->tables = p;
    region->spans = (struct span *)p;
    region->history = (struct page_set *)(p += spans);
    region->ticks = (struct policy_span *)(p += history);
    region->touched = (_Atomic uint32_t *)(p += ticks);
    region->chunk_flags = (_Atomic uint8_t *)(p + touched);
    return 0;
}

uint64_t region_tables_most(uint64_t size, unsigned chunk_shift) {
    uint64_t spans = (size + SPAN_SIZE - 1) >> SPAN_SHIFT, chunks = size >> chunk_shift;

    return spans * (sizeof(struct span) + sizeof(struct page_set) + sizeof(struct policy_span) + sizeof(uint32_t)) +
           chunks * (sizeof(uint8_t) + sizeof(uint32_t)) + mapping_tables_most(size);
}

static int region_make_state(struct region *region, int *ret_state_fd) {
    size_t size = drp_state_bytes(region->chunk_total);
    struct drp_state_header *header;
    int fd, r;

    r = kernel_page_object("droppable-state", size, 0400, &fd);
    if (r < 0)
        return r;
    region->state = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region->state == MAP_FAILED) {
        region->state = NULL;
        r = -errno;
    } else
        r = kernel_reopen_readonly(fd, ret_state_fd);
    close(fd);
    if (r < 0)
        return r;
    header = region->state;
    header->magic = DRP_STATE_MAGIC;
    header->chunk_shift = region->chunk_shift;
    header->chunk_count = region->chunk_total;
    region->generations = drp_state_generations(region->state) + region->chunk_base;
    return 0;
}

/* Where locked segments have run out, the region may be swapped, unless it must not. */
static int region_new_object(struct region *region, const struct kernel *kernel, uint64_t required) {
    uint64_t size = region->object_offset + region->size;
    int r;

    if (!kernel->noswap && (region->options & DRP_REGION_NO_SWAP)) {
        r = locked_new(size, &region->data_fd, &region->object_map);
        if (r == 0 || (required & DRP_REGION_NO_SWAP))
            return r;
        region->options &= ~DRP_REGION_NO_SWAP;
    }
    return kernel_data_object(kernel, size, region->options & DRP_REGION_HUGE, &region->data_fd);
}

static int region_make_object(struct region *region, const struct kernel *kernel, uint64_t required) {
    struct stat st;
    int r = 0;

    if (region->data_fd < 0)
        r = region_new_object(region, kernel, required);
    else if (kernel->locked) /* what is none is mapped as any other */
        (void)locked_take(region->data_fd, region->object_offset + region->size, &region->object_map);
    if (r < 0)
        return r;
    if (fstat(region->data_fd, &st) < 0)
        return -errno;
    region->inode = st.st_ino;
    region->device = st.st_dev;
    region->locked = region->object_map != NULL;
    if (!region->locked)
        region->object_map =
            mmap(NULL, region->size, PROT_NONE, MAP_SHARED, region->data_fd, (off_t)region->object_offset);
    if (region->object_map == MAP_FAILED) {
        region->object_map = NULL;
        return -errno;
    }
    /* A core has what is mapped, accessible or not: a daemon of an ordinary user is dumpable. */
    return madvise(region->object_map, region->size, MADV_DONTDUMP) < 0 ? -errno : 0;
}

static struct region *region_alloc(const struct region_shape *shape) {
    struct region *region = calloc(1, sizeof(*region));

    if (!region)
        return NULL;
    region->id = shape->id;
    region->size = shape->size;
    region->options = shape->options;
    region->chunk_shift = shape->chunk_shift;
    region->priority = shape->priority;
    region->object_offset = shape->object_offset;
    region->chunk_base = shape->chunk_base;
    region->chunk_total = shape->chunk_total;
    region->chunk_count = shape->size >> shape->chunk_shift;
    region->span_count = (uint32_t)((shape->size + SPAN_SIZE - 1) >> SPAN_SHIFT);
    region->data_fd = -1;
    region->dropper_fd = region->handed_fd = region->native.pagemap = -1;
    return region;
}

int region_new_native(struct region **ret, const struct region_shape *shape, uint64_t address, int pidfd) {
    struct region *region = region_alloc(shape);
    int r;

    if (!region)
        return -ENOMEM;
    region->native.address = address;
    region->chunk_count = (shape->size + (UINT64_C(1) << shape->chunk_shift) - 1) >> shape->chunk_shift;
    r = region_make_tables(region);
    if (r >= 0) {
        region->data_fd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
        r = region->data_fd < 0 ? -errno : 0;
    }
    if (r < 0) {
        region_free(region);
        return r;
    }
    *ret = region;
    return 0;
}

int region_new(struct region **ret, const struct kernel *kernel, const struct region_shape *shape, int data_fd,
               int *ret_state_fd) {
    struct region *region = region_alloc(shape);
    int r;

    if (!region)
        return -ENOMEM;
    region->cachestat = kernel->cachestat;
    region->adopted = data_fd >= 0;
    r = region_make_tables(region);
    if (r >= 0)
        r = region_make_state(region, ret_state_fd);
    if (r >= 0) {
        region->data_fd = data_fd;
        r = region_make_object(region, kernel, shape->required);
        if (r < 0) {
            if (data_fd >= 0)
                region->data_fd = -1; /* stays the caller's */
            close(*ret_state_fd);
        }
    }
    if (r < 0) {
        region_release_object(region);
        region_free(region);
        return r;
    }
    *ret = region;
    return 0;
}

/* Are huge pages at the price of swap? */
static bool is_swap_avoidable(const struct region_means *means) {
    return means->no_swap && !means->no_swap_huge;
}

uint64_t region_choose_options(const struct region_means *means, uint64_t required, uint64_t preferred, uint64_t size,
                               uint32_t *chunk_shift) {
    uint64_t asked = required | preferred, options = asked & ~DRP_REGION_NO_SWAP;

    if (options == 0 && *chunk_shift == 0 && means->huge_by_default && size >= SPAN_SIZE && !is_swap_avoidable(means))
        options = DRP_REGION_HUGE;
    if (options &
        DRP_REGION_SIGNAL) /* the library fills it, with small pages; who cannot go without huge ones gets no signals */
        options &= required & DRP_REGION_HUGE ? ~DRP_REGION_SIGNAL : ~DRP_REGION_HUGE;
    if (!means->huge || (*chunk_shift != 0 && *chunk_shift != SPAN_SHIFT))
        options &= ~DRP_REGION_HUGE; /* a part of a huge page cannot be dropped whole */
    if (!(required & DRP_REGION_HUGE) && (asked & DRP_REGION_NO_SWAP) && is_swap_avoidable(means))
        options &= ~DRP_REGION_HUGE;
    if (options & DRP_REGION_HUGE ? means->no_swap_huge : means->no_swap)
        options |= DRP_REGION_NO_SWAP;
    if (*chunk_shift == 0)
        *chunk_shift = options & DRP_REGION_HUGE ? SPAN_SHIFT : 16;
    return options;
}

void region_unlock(struct region *region) {
    if (region->object_map && region->locked)
        locked_end(region->inode);
}

void region_release_object(struct region *region) {
    if (region->object_map)
        munmap(region->object_map, region->size);
    region->object_map = NULL;
}

struct region *region_free(struct region *region) {
    if (!region)
        return NULL;
    if (region->state)
        munmap(region->state, drp_state_bytes(region->chunk_total));
    sparse_table_free(region->tables, region->tables_size);
    free(region->mappings);
    if (region->data_fd >= 0)
        close(region->data_fd);
    free(region);
    return NULL;
}

static void note_unfinished(struct region *region, uint64_t chunk) {
    unsigned n = region->n_unfinished;

    if (n > 0 &&
        (region->unfinished[n - 1].first + region->unfinished[n - 1].count == chunk || n == REGION_UNFINISHED_MAX)) {
        region->unfinished[n - 1].count = chunk + 1 - region->unfinished[n - 1].first;
        return;
    }
    region->unfinished[n].first = chunk;
    region->unfinished[n].count = 1;
    region->n_unfinished++;
}

int region_adopt_generations(struct region *region, int state_fd) {
    uint64_t start = DRP_PAGES_ARRAY_OFFSET + region->chunk_base * sizeof(uint32_t);
    uint32_t old[4096];
    off_t at;

    /* Read, not mapped: reading a hole through a mapping would fill it. The content is the client's word, and nobody else's loss. */
    for (uint64_t i = 0; i < region->chunk_count;) {
        ssize_t n;

        at = lseek(state_fd, (off_t)(start + i * sizeof(uint32_t)), SEEK_DATA);
        if (at < 0) /* holes up to the end */
            return errno == ENXIO ? 0 : -errno;
        if ((uint64_t)at > start + i * sizeof(uint32_t))
            i = ((uint64_t)at - start) / sizeof(uint32_t);
        n = pread(state_fd, old, sizeof(old), (off_t)(start + i * sizeof(uint32_t)));
        if (n < (ssize_t)sizeof(uint32_t))
            return n < 0 ? -errno : 0;
        for (size_t k = 0; k < (size_t)n / sizeof(uint32_t) && i < region->chunk_count; k++, i++) {
            if (old[k] & 1)
                note_unfinished(region, i);
            if (old[k] != 0) /* untouched parts of the new page stay holes */
                atomic_store_explicit(&region->generations[i], old[k] + (old[k] & 1), memory_order_relaxed);
        }
    }
    return 0;
}

uint64_t region_span_bytes(const struct region *region, uint32_t span) {
    uint64_t start = (uint64_t)span << SPAN_SHIFT;

    return region->size - start < SPAN_SIZE ? region->size - start : SPAN_SIZE;
}

int region_resident(const struct region *region, uint32_t span, struct page_set *ret) {
    uint64_t pages = region_span_bytes(region, span) >> PAGE_SHIFT;
    unsigned char vec[SPAN_PAGES];
    int n = 0;

    *ret = (struct page_set){0};
    if (mincore((char *)region->object_map + ((uint64_t)span << SPAN_SHIFT), pages << PAGE_SHIFT, vec) < 0)
        return -errno;
    for (unsigned i = 0; i < pages; i++)
        if (vec[i] & 1) {
            page_set_add(ret, i);
            n++;
        }
    return n;
}

/* By cachestat(2), where there is one; else negative. */
static int64_t cached_pages(const struct region *region, int fd, uint32_t span, unsigned first, unsigned n) {
    uint64_t at = region->object_offset + ((uint64_t)span << SPAN_SHIFT) + ((uint64_t)first << PAGE_SHIFT);

    return region->cachestat ? kernel_cached_pages(fd, at, (uint64_t)n << PAGE_SHIFT) : -1;
}

int region_look(const struct region *region, int fd, uint32_t span, unsigned first, unsigned n, struct page_set *ret) {
    unsigned total = (unsigned)(region_span_bytes(region, span) >> PAGE_SHIFT);
    int64_t pages = cached_pages(region, fd, span, 0, total), told = pages;

    if (pages > 0 && pages < total && n < total)
        told = cached_pages(region, fd, span, first, n);
    else if (pages == total)
        told = n;
    /* Between the two some may have come. */
    if (told > pages)
        told = -1;
    /* Not by SEEK_HOLE, which walks to the end of the object where that is dense: 6 ms for 1 GiB, where mincore(2) takes 5 us. */
    if (told != 0 && told != n)
        return region_resident(region, span, ret);
    *ret = (struct page_set){0};
    page_set_add_range(ret, first, (unsigned)told);
    return (int)pages;
}

bool region_has_tail(const struct region *region, uint32_t span) {
    unsigned char vec[SPAN_TAIL_PAGES];
    uint64_t bytes = region_span_bytes(region, span), length = SPAN_TAIL_PAGES << PAGE_SHIFT;
    bool all = true;

    if (bytes < length ||
        mincore((char *)region->object_map + ((uint64_t)span << SPAN_SHIFT) + bytes - length, length, vec) < 0)
        return false;
    for (unsigned i = 0; i < SPAN_TAIL_PAGES; i++)
        all &= vec[i] & 1;
    return all;
}

/* The last count; and another one is made, if it is time: the client's regions take turns. */
static uint64_t native_resident_bytes(struct native *native) {
    uint64_t now = kernel_now();

    if (native->counting && now >= atomic_load(&native->not_before)) {
        atomic_store(&native->asked, true);
        if (now >= atomic_load(&native->counting->not_before) && !atomic_exchange(&native->counting->asked, true))
            worker_kick(native->counting->worker);
    }
    return atomic_load(&native->resident);
}

uint64_t region_resident_bytes(const struct region *region) {
    struct stat st;
    uint64_t bytes;

    if (region->native.address)
        return native_resident_bytes((struct native *)&region->native);
    if (fstat(region->data_fd, &st) < 0)
        return 0;
    bytes = (uint64_t)st.st_blocks * 512;
    /* Who has a shared one may make its object longer: what he keeps there is neither to be dropped nor its user's. */
    return region->options & DRP_REGION_SHARED && bytes > region->size ? region->size : bytes;
}

void region_add_mapping(struct region *region, struct mapping *mapping) {
    region->cells[region->n_mappings] = mapping->sealed ? mapping->cells : NULL;
    region->mappings[region->n_mappings++] = mapping; /* the handler sees to it that there is room */
}

void region_remove_mapping(struct region *region, const struct mapping *mapping) {
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (region->mappings[i] == mapping) {
            region->cells[i] = region->cells[--region->n_mappings];
            region->mappings[i--] = region->mappings[region->n_mappings];
        }
}

int region_reserve_mapping(struct region *region, pthread_mutex_t *lock) {
    unsigned max = region->mappings_max > 0 ? region->mappings_max * 2 : REGION_MAPPINGS_OWN;
    struct mapping **mappings, **before;
    struct drp_pin_cell **cells;

    if (region->n_mappings < region->mappings_max)
        return 0;
    if (max > REGION_MAPPINGS_MAX)
        return -EDQUOT;
    mappings = calloc(max, sizeof(*mappings) + sizeof(*cells));
    if (!mappings)
        return -ENOMEM;
    cells = (struct drp_pin_cell **)(mappings + max);
    pthread_mutex_lock(lock);
    for (unsigned i = 0; i < region->n_mappings; i++) {
        mappings[i] = region->mappings[i];
        cells[i] = region->cells[i];
    }
    before = region->mappings;
    region->mappings = mappings;
    region->cells = cells;
    region->mappings_max = max;
    pthread_mutex_unlock(lock);
    free(before);
    return 0;
}

bool region_is_opaque(const struct region *region) {
    if (region->native.address)
        return true;
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (!region->mappings[i]->intercepted)
            return true;
    return atomic_load_explicit(&region->sweep, memory_order_relaxed);
}

void region_touch(struct region *region, uint32_t span, uint32_t tick) {
    atomic_store_explicit(&region->ticks[span].last_fault, tick, memory_order_relaxed);
    atomic_store_explicit(&region->ticks[span].coldest, 0, memory_order_relaxed);
    if (region->spans[span].touched)
        return;
    region->spans[span].touched = true;
    atomic_store_explicit(&region->touched[region->touched_count], span, memory_order_relaxed);
    atomic_fetch_add_explicit(&region->touched_count, 1, memory_order_release);
}
