/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_ARENA_H
#define DROPPABLE_PRELOAD_ARENA_H

/* Where mappings get their bytes from. */

#include "table.h"

struct drp;

#define ARENA_PAGE OFFSETS_PAGE

/* The pages of a range. false: the kernel refuses it, or it is empty. */
bool arena_pages(const void *address, size_t length, uintptr_t *ret_start, uintptr_t *ret_end);

/*
 * Takes so many bytes of an arena, of a new one if there is no room; they read as zeros. Those that continue the mapping which ends at the address, if
 * there is one and they are free. *ret_arena has a reference. Negative errno of the library.
 */
int arena_take(struct drp *d, const void *address, size_t length, struct arena **ret_arena, size_t *ret_offset);
/* Gives bytes back that are not mapped any more and hold nothing. */
void arena_give(struct arena *arena, size_t offset, size_t length);
/* Gives a reference back; the last one of an arena may end it. */
void arena_release(struct arena *arena);

/* Does its descriptor still say its object? Programs close what they do not know. */
bool arena_has_object(const struct arena *arena);
/* Frees a piece's memory: it reads as zeros afterwards. Negative errno. */
int arena_discard(const struct piece *piece);
/* Corrects what mincore(2) said of each page of a piece. Negative errno. */
int arena_resident(const struct piece *piece, unsigned char *vector);

/* In a child after fork(), the lock is taken: all are inherited. */
void arena_fork_child(void);
/* In a child that was made past the handlers: all are the parent's. */
void arena_forget(void);

#endif
