/* SPDX-License-Identifier: MIT */

/* See the header. A look for room walks over a byte for each chunk: 16 KiB of them for an arena of 1 GiB. */

#include "offsets.h"

#include <errno.h>
#include <stdlib.h>

int offsets_init(struct offsets *offsets, size_t size) {
    size_t chunks = size / OFFSETS_CHUNK;

    *offsets = (struct offsets){.used = calloc(chunks, 1), .chunks = chunks, .highest = chunks - 1};
    return offsets->used ? 0 : -ENOMEM;
}

void offsets_deinit(struct offsets *offsets) {
    free(offsets->used);
    *offsets = (struct offsets){0};
}

/* What of [offset, offset + length) lies in its first chunk: pages. */
static size_t first_pages(size_t offset, size_t length) {
    size_t left = OFFSETS_CHUNK - offset % OFFSETS_CHUNK;

    return (length < left ? length : left) / OFFSETS_PAGE;
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

bool offsets_take(struct offsets *offsets, size_t length, size_t *ret_offset) {
    size_t chunk, pages;

    if (!find(offsets, (length + OFFSETS_CHUNK - 1) / OFFSETS_CHUNK, &chunk))
        return false;
    *ret_offset = chunk * OFFSETS_CHUNK;
    for (; length > 0; length -= pages * OFFSETS_PAGE) {
        pages = first_pages(0, length);
        offsets->used[chunk++] = (uint8_t)pages;
    }
    return true;
}

void offsets_give(struct offsets *offsets, size_t offset, size_t length) {
    while (length > 0) {
        size_t pages = first_pages(offset, length), chunk = offset / OFFSETS_CHUNK;

        offsets->used[chunk] = (uint8_t)(offsets->used[chunk] - pages);
        if (offsets->used[chunk] == 0 && chunk > offsets->highest)
            offsets->highest = chunk;
        offset += pages * OFFSETS_PAGE;
        length -= pages * OFFSETS_PAGE;
    }
}
