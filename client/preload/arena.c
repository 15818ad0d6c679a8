/* SPDX-License-Identifier: MIT */

/*
 * Arenas: regions from which mappings get ranges of bytes, each by an offset; so thousands of mappings cost a few descriptors. The first
 * has 64 MiB, each next one four times as much as the one before. A mapping of that size or more, or one for which the service refuses an arena,
 * has a region of its own.
 *
 * Offsets are given from the highest down (offsets.c): so does
 * the kernel with addresses, and what continues its neighbour in both is one mapping for it, one piece for us, and one extent for the daemon.
 * One arena that is empty is kept, for programs that map and unmap in turns.
 *
 * Memory is freed, and looked at, through the object's descriptor and not by its address. MADV_REMOVE at an address that the
 * table is wrong about (a system call made by hand passed it by) could punch a hole into somebody's file, and mincore(2) takes
 * every page for resident in a process that could not open the object by its mode. Programs also close descriptors that they
 * do not know, and open others with the same number: each use looks first whether it still is the object.
 */

#include "arena.h"

#include "client.h"
#include "raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE_FIRST ((size_t)64 << 20)
#define SIZE_MAX_SHARED ((size_t)4 << 30)
/* SEEK_HOLE walks through all of a dense object, 6 us a MiB, for a piece of it, too; a page each is 0.3 us. */
#define SEEK_HOLE_WORTH ((off_t)16 << 20)

static struct arena *arenas; /* under the table's lock */

bool arena_pages(const void *address, size_t length, uintptr_t *ret_start, uintptr_t *ret_end) {
    uintptr_t start = (uintptr_t)address;
    uintptr_t end = start + ((length + ARENA_PAGE - 1) & ~(ARENA_PAGE - 1));

    if (start & (ARENA_PAGE - 1) || end <= start)
        return false;
    *ret_start = start;
    *ret_end = end;
    return true;
}

/* ---- life ---- */

static void end_arena(struct arena *arena) {
    drp_region_free(arena->region);
    offsets_deinit(&arena->offsets);
    free(arena);
}

/* Not in the list yet; with the caller's reference. whole: for one mapping. */
static int make_arena(struct arena **ret, struct drp *d, size_t size, bool whole) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = OFFSETS_CHUNK};
    struct arena *arena = calloc(1, sizeof(*arena));
    int r = arena ? 0 : -ENOMEM;

    if (r == 0 && !whole)
        r = offsets_init(&arena->offsets, size);
    if (r == 0)
        r = region_new_unmapped(&arena->region, d, size, &options, table_next_piece);
    if (r < 0) {
        if (arena)
            end_arena(arena);
        return r;
    }
    arena->references = 1;
    *ret = arena;
    return 0;
}

/* ---- bytes ---- */

/* A service that did not take it over knows nothing of it. */
static bool is_usable(const struct arena *arena) {
    return arena_is_shared(arena) && !arena->inherited && atomic_load(&arena->region->connected) &&
           arena_has_object(arena);
}

/* grows: a mapping ends there, but what is behind it is not free. */
static bool take_behind(const void *address, size_t length, struct arena **ret_arena, size_t *ret_offset, bool *grows) {
    uintptr_t end = (uintptr_t)address;
    struct piece piece;
    bool taken = false;

    *grows = false;
    if (end < ARENA_PAGE || !table_find(end - ARENA_PAGE, end, &piece))
        return false;
    if (is_usable(piece.arena)) {
        *ret_arena = piece.arena;
        *ret_offset = piece.offset + ARENA_PAGE;
        table_lock();
        taken = offsets_take_at(&piece.arena->offsets, *ret_offset, length);
        table_unlock();
        *grows = !taken;
    }
    if (!taken)
        arena_release(piece.arena);
    return taken;
}

/* Of those that are there. *ret_next is the size that a new one should have. */
static bool take_here(size_t length, bool low, struct arena **ret_arena, size_t *ret_offset, size_t *ret_next) {
    bool found = false;

    *ret_next = SIZE_FIRST;
    table_lock();
    for (struct arena *arena = arenas; arena && !found; arena = arena->next) {
        if (arena->inherited || !arena_is_shared(arena))
            continue; /* no step of the ladder */
        if (*ret_next < SIZE_MAX_SHARED)
            *ret_next *= 4;
        found = is_usable(arena) && offsets_take(&arena->offsets, length, low, ret_offset);
        if (found) {
            arena->references++;
            *ret_arena = arena;
        }
    }
    table_unlock();
    return found;
}

/* The first mapping has room behind it, since it is what grows in most programs that grow anything. There is room. */
static void take_first(struct arena *arena, size_t length, bool low, size_t *ret_offset) {
    size_t end = (arena->region->size / 8 * 7) & ~(OFFSETS_CHUNK - 1);
    size_t whole = (length + OFFSETS_CHUNK - 1) & ~(OFFSETS_CHUNK - 1);

    *ret_offset = end - whole;
    if (low || whole > end || !offsets_take_at(&arena->offsets, *ret_offset, length))
        offsets_take(&arena->offsets, length, low, ret_offset);
}

/* Nobody else has it before it is in the list. */
static void link_arena(struct arena *arena, size_t length, bool low, size_t *ret_offset) {
    table_lock();
    if (arena_is_shared(arena))
        take_first(arena, length, low, ret_offset);
    arena->next = arenas;
    arenas = arena;
    table_unlock();
}

int arena_take(struct drp *d, const void *address, size_t length, struct arena **ret_arena, size_t *ret_offset) {
    int r = -EDQUOT;
    size_t size;
    bool low;

    if (take_behind(address, length, ret_arena, ret_offset, &low))
        return 0;
    *ret_offset = 0;
    if (length < SIZE_FIRST) {
        if (take_here(length, low, ret_arena, ret_offset, &size))
            return 0;
        for (; r == -EDQUOT && size >= SIZE_FIRST; size /= 4)
            r = make_arena(ret_arena, d, size, false);
    }
    if (r == -EDQUOT)
        r = make_arena(ret_arena, d, (length + OFFSETS_CHUNK - 1) & ~(OFFSETS_CHUNK - 1), true);
    if (r == 0)
        link_arena(*ret_arena, length, low, ret_offset);
    return r;
}

void arena_give(struct arena *arena, size_t offset, size_t length) {
    if (!arena_is_shared(arena))
        return;
    table_lock();
    offsets_give(&arena->offsets, offset, length);
    table_unlock();
}

/* Under the lock: is there another one that is empty? */
static bool has_spare(const struct arena *but) {
    for (const struct arena *arena = arenas; arena; arena = arena->next)
        if (arena != but && arena->references == 0 && !arena->inherited)
            return true;
    return false;
}

void arena_release(struct arena *arena) {
    bool ends;

    table_lock();
    ends = --arena->references == 0 && (arena->inherited || !arena_is_shared(arena) || has_spare(arena));
    for (struct arena **p = &arenas; ends && *p; p = &(*p)->next)
        if (*p == arena) {
            *p = arena->next;
            break;
        }
    table_unlock();
    if (ends)
        end_arena(arena);
}

/* ---- memory ---- */

bool arena_has_object(const struct arena *arena) {
    return !arena->inherited && object_holds(arena->region->data_fd, &arena->region->data_object);
}

int arena_discard(const struct piece *piece) {
    const struct drp_region *region = piece->arena->region;
    size_t length = piece->end - piece->start;
    int r;

    if (arena_has_object(piece->arena))
        r = fallocate(region->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(region->object_offset + piece->offset), (off_t)length);
    else
        r = raw_madvise((void *)piece->start, length, piece->arena->inherited ? MADV_DONTNEED : MADV_REMOVE);
    return r < 0 ? -errno : 0;
}

/* The offset of the descriptor, which the service has too, means nothing to either side. */
int arena_resident(const struct piece *piece, unsigned char *vector) {
    const struct drp_region *region = piece->arena->region;
    off_t start = (off_t)(region->object_offset + piece->offset);
    off_t end = start + (off_t)(piece->end - piece->start), hole;

    if (!arena_has_object(piece->arena))
        return 0;
    memset(vector, 0, (size_t)(end - start) / ARENA_PAGE);
    for (off_t at = start; at < end; at = hole) {
        at = lseek(region->data_fd, at, SEEK_DATA);
        if (at < 0)
            return errno == ENXIO ? 0 : -errno; /* no data from here on */
        if (at >= end)
            return 0;
        hole = end - start < SEEK_HOLE_WORTH ? at + (off_t)ARENA_PAGE : lseek(region->data_fd, at, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        if (hole > end)
            hole = end;
        memset(vector + (at - start) / (off_t)ARENA_PAGE, 1, (size_t)(hole - at) / ARENA_PAGE);
    }
    return 0;
}

static void inherit_all(void) {
    for (struct arena *arena = arenas; arena; arena = arena->next)
        arena->inherited = true;
}

void arena_fork_child(void) {
    inherit_all();
    table_fork_child(arenas);
}

void arena_forget(void) {
    inherit_all();
    table_forget(arenas);
}
