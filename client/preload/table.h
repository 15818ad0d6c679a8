/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_TABLE_H
#define DROPPABLE_PRELOAD_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct drp_region;

/* One mmap(2) that the service answered. */
struct holding {
    struct drp_region *region;
    uint64_t device, inode; /* of the object */
    size_t references;      /* its pieces in the table, and who works on it; under the table's lock */
    bool inherited;         /* of the parent, in a forked child: plain memory */
};

/* A range of addresses that is mapped to a holding's region. */
struct piece {
    uintptr_t start, end;
    struct holding *holding;
};

/* Is there any piece? Without the lock, for the calls that have nothing to do with us. */
static inline bool table_any(void) {
    extern _Atomic size_t table_count;

    return atomic_load_explicit(&table_count, memory_order_relaxed) > 0;
}

/* Adds a holding's first piece. -ENOMEM. The table has one reference then. */
int table_add(uintptr_t start, uintptr_t end, struct holding *holding);
/* The first piece in [start, end), as far as it lies inside. true: *ret has a reference. */
bool table_find(uintptr_t start, uintptr_t end, struct piece *ret);
/*
 * The same, and takes it out of the table; the pieces beside it stay. 1: *ret has a reference; 0: there is none; -ENOMEM: no
 * room for what stays.
 */
int table_cut(uintptr_t start, uintptr_t end, struct piece *ret);
/* Gives a reference back. true: it was the last one, the holding is the caller's. */
bool table_release(struct holding *holding);
/* Is the caller's reference the last one? */
bool table_is_last(const struct holding *holding);
/* The first piece of a region in [start, end), as far as it lies inside, without a reference. */
bool table_next_piece(const struct drp_region *region, uintptr_t start, uintptr_t end, uintptr_t *ret_start,
                      uintptr_t *ret_end);

/* fork(): before it; in the parent; in the child, where all holdings are inherited. */
void table_fork_prepare(void);
void table_fork_parent(void);
void table_fork_child(void);

#endif
