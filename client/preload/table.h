/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_TABLE_H
#define DROPPABLE_PRELOAD_TABLE_H

#include "client.h"
#include "offsets.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A region of which we map pieces. What is in it beside that is arena.c's. */
struct arena {
    struct drp_region *region;
    struct arena *next;     /* of all, under the table's lock; so the others */
    size_t references;      /* its pieces in the table, and who works on it */
    struct offsets offsets; /* empty: made for one mapping, offsets are not given again */
    bool inherited;         /* of the parent, in a forked child: plain memory */
};

static inline bool arena_is_shared(const struct arena *arena) {
    return arena->offsets.used != NULL;
}

#define PIECE_PROTECTION 7 /* PROT_* */
#define PIECE_NO_FORK 8    /* children have a hole there */
#define PIECE_SEALED 16    /* mseal(2): nothing takes its place */

/* A range of addresses where a range of an arena is mapped. */
struct piece {
    uintptr_t start, end;
    size_t offset; /* in the region; without a meaning where it is inherited */
    struct arena *arena;
    int flags; /* PIECE_* */
};

/* A piece on its way to other addresses, in its mover's frame. The members are the table's until the move has ended. */
struct move {
    struct piece piece; /* as it was */
    struct move *next;
};

/* Is there any piece? Without the lock, for the calls that have nothing to do with us. There is none in a child that was made past the handlers. */
static inline bool table_any(void) {
    return atomic_load_explicit(&fork_note.pieces, memory_order_relaxed) > 0;
}

/*
 * For arena.c: the lock also keeps the list of arenas. Its holder gets no signals, whose handlers may come here: he would wait for
 * himself.
 */
void table_lock(void);
void table_unlock(void);
/* For who may have interrupted its holder: waits a while at most. */
bool table_try_lock(void);
/* Before the first fork(). */
int table_init(void);

/* Adds a piece, of whose arena the caller has a reference, which he keeps. -ENOMEM. */
int table_add(const struct piece *piece);
/* Is there a piece in [start, end)? Without the lock, unless that takes long; also for whoever has interrupted anybody. */
bool table_has(uintptr_t start, uintptr_t end);
/* The first piece in [start, end), as far as it lies inside. true: *ret has a reference, which arena_release() gives back. */
bool table_find(uintptr_t start, uintptr_t end, struct piece *ret);
/*
 * The same, and takes it out of the table; the pieces beside it stay. 1: *ret has a reference; 0: there is none; -ENOMEM: no
 * room for what stays.
 */
int table_cut(uintptr_t start, uintptr_t end, struct piece *ret);
/*
 * The same, for what is moved: a child that is forked until the move ends finds the piece where it was. Whether the kernel has moved it by then it
 * cannot tell, and need not: the call has not returned.
 */
int table_begin_move(uintptr_t start, uintptr_t end, struct move *move);
/* What is at either place is in the table now. */
void table_end_move(struct move *move);
/* Sets those flags of mask in all pieces of a range. -ENOMEM: no room for what has to be split; none is changed. */
int table_set_flags(uintptr_t start, uintptr_t end, int mask, int flags);
/* Has any piece of a range one of those flags? */
bool table_has_flags(uintptr_t start, uintptr_t end, int flags);
/* Bytes of all pieces that may be written to; what is inherited is not among them. */
size_t table_writable(void);
/* Is the caller's reference the last one? */
bool table_is_last(const struct arena *arena);
/* A region_next_piece of client.h. */
bool table_next_piece(const struct drp_region *region, uintptr_t from, struct region_piece *ret);

/*
 * In the child after fork(), which had the lock taken, and gives it back: drops the pieces that children do not have, ends all moves, and counts references anew: who
 * else worked on an arena does not exist here. It gets no signals yet: their handlers may look at memory that is still a hole.
 */
void table_fork_child(struct arena *arenas);
/* When the memory is there. */
void table_fork_child_end(void);
/* In a child that was made past the handlers: it has none of all these. */
void table_forget(struct arena *arenas);

#endif
