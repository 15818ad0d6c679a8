/* SPDX-License-Identifier: MIT */

/* See the header. A look for room walks over two bytes for each chunk: 32 KiB of them for an arena of 1 GiB. */

#include "offsets.h"

#include <errno.h>
#include <stdlib.h>

int offsets_init(struct offsets *offsets, size_t size) {
    size_t chunks = size / OFFSETS_CHUNK;

    *offsets = (struct offsets){.used = calloc(chunks, sizeof(uint16_t)), .chunks = chunks, .highest = chunks - 1};
    return offsets->used ? 0 : -ENOMEM;
}

void offsets_deinit(struct offsets *offsets) {
    free(offsets->used);
    *offsets = (struct offsets){0};
}

#define CHUNK_PAGES (OFFSETS_CHUNK / OFFSETS_PAGE)

/* The pages of a chunk that lie in [offset, end). */
static uint16_t pages_of(size_t chunk, size_t offset, size_t end) {
    size_t start = chunk * OFFSETS_CHUNK, first = offset > start ? (offset - start) / OFFSETS_PAGE : 0;
    size_t behind = end < start + OFFSETS_CHUNK ? (end - start) / OFFSETS_PAGE : CHUNK_PAGES;

    return (uint16_t)((1u << behind) - (1u << first));
}

static size_t last_chunk(size_t offset, size_t length) {
    return (offset + length - 1) / OFFSETS_CHUNK;
}

static void mark(struct offsets *offsets, size_t offset, size_t length) {
    for (size_t i = offset / OFFSETS_CHUNK; i <= last_chunk(offset, length); i++)
        offsets->used[i] |= pages_of(i, offset, offset + length);
}

static bool find(struct offsets *offsets, size_t wanted, size_t *ret_chunk) {
    size_t run = 0;

    while (offsets->highest > 0 && offsets->used[offsets->highest] > 0)
        offsets->highest--;
    for (size_t i = offsets->highest + 1; i-- > 0;) {
        run = offsets->used[i] == 0 ? run + 1 : 0;
        if (run == wanted) {
            *ret_chunk = i;
            return true;
        }
    }
    return false;
}

static bool find_low(const struct offsets *offsets, size_t wanted, size_t *ret_chunk) {
    size_t run = 0;

    for (size_t i = 0; i <= offsets->highest; i++) {
        run = offsets->used[i] == 0 ? run + 1 : 0;
        if (run == wanted) {
            *ret_chunk = i + 1 - wanted;
            return true;
        }
    }
    return false;
}

bool offsets_take(struct offsets *offsets, size_t length, bool low, size_t *ret_offset) {
    size_t wanted = (length + OFFSETS_CHUNK - 1) / OFFSETS_CHUNK, chunk;

    if (!(low ? find_low(offsets, wanted, &chunk) : find(offsets, wanted, &chunk)))
        return false;
    *ret_offset = chunk * OFFSETS_CHUNK;
    mark(offsets, *ret_offset, length);
    return true;
}

bool offsets_take_at(struct offsets *offsets, size_t offset, size_t length) {
    size_t first = offset / OFFSETS_CHUNK;

    if (last_chunk(offset, length) >= offsets->chunks || offsets->used[first] >> (offset % OFFSETS_CHUNK / OFFSETS_PAGE))
        return false;
    for (size_t i = first + 1; i <= last_chunk(offset, length); i++)
        if (offsets->used[i])
            return false;
    mark(offsets, offset, length);
    return true;
}

void offsets_give(struct offsets *offsets, size_t offset, size_t length) {
    for (size_t i = offset / OFFSETS_CHUNK; i <= last_chunk(offset, length); i++) {
        offsets->used[i] &= (uint16_t)~pages_of(i, offset, offset + length);
        if (offsets->used[i] == 0 && i > offsets->highest)
            offsets->highest = i;
    }
}
