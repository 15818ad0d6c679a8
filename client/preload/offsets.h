/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_OFFSETS_H
#define DROPPABLE_PRELOAD_OFFSETS_H

/*
 * Which bytes of an arena are in use, by pages of chunks. A chunk is given to one taker at a time: it is free when none of its pages is used. The
 * highest free ones are given first, but to what grows, which has room behind it then.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OFFSETS_PAGE ((size_t)4096)
#define OFFSETS_CHUNK ((size_t)64 << 10)

struct offsets {
    uint16_t *used; /* of each chunk, a bit for each page */
    size_t chunks;
    size_t highest; /* all chunks above are in use */
};

/* Of so many bytes, whole chunks. -ENOMEM. */
int offsets_init(struct offsets *offsets, size_t size);
void offsets_deinit(struct offsets *offsets);
/* Takes bytes, whole pages. low: the lowest that are free, for what may grow. false: there is no room. */
bool offsets_take(struct offsets *offsets, size_t length, bool low, size_t *ret_offset);
/*
 * Takes these very bytes, whole pages. They may begin in a chunk of which the pages before are used: what continues a mapping. false: not all
 * of it is free.
 */
bool offsets_take_at(struct offsets *offsets, size_t offset, size_t length);
/* Gives pages back that were taken, all or a part. */
void offsets_give(struct offsets *offsets, size_t offset, size_t length);

#endif
