/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_HOLDING_H
#define DROPPABLE_PRELOAD_HOLDING_H

/* What is done with the pieces of the table, by who has a reference. */

#include "table.h"

#define HOLDING_PAGE ((size_t)4096)

/* The pages of a range. false: the kernel refuses it, or it is empty. */
bool holding_pages(const void *address, size_t length, uintptr_t *ret_start, uintptr_t *ret_end);
/* Notes the object of a new holding's region. Negative errno. */
int holding_note_object(struct holding *holding);
/* Gives a reference back; the region ends with the last one. */
void holding_release(struct holding *holding);
/* Where a piece begins in its region, in bytes. */
size_t holding_offset(const struct piece *piece);
/* Frees a piece's memory: it reads as zeros afterwards. Negative errno. */
int holding_discard(const struct piece *piece);
/* Corrects what mincore(2) said of each page of a piece. Negative errno. */
int holding_resident(const struct piece *piece, unsigned char *vector);

#endif
