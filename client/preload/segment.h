/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_SEGMENT_H
#define DROPPABLE_PRELOAD_SEGMENT_H

/* A call's range may cover ours and other memory: what begins at its start is one of the two, and the rest is looked at next. */

#include "arena.h"

struct segment {
    uintptr_t start, end;
    bool ours;
    struct piece piece; /* if it is ours, with a reference */
};

/* The first segment of [start, end). false: the range is empty. */
static inline bool segment_first(uintptr_t start, uintptr_t end, struct segment *ret) {
    bool found;

    if (start >= end)
        return false;
    found = table_find(start, end, &ret->piece);
    ret->ours = found && ret->piece.start == start;
    ret->start = start;
    ret->end = ret->ours ? ret->piece.end : found ? ret->piece.start : end;
    if (found && !ret->ours)
        arena_release(ret->piece.arena);
    return true;
}

static inline void segment_release(const struct segment *segment) {
    if (segment->ours)
        arena_release(segment->piece.arena);
}

#endif
