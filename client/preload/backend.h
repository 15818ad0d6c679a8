/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_BACKEND_H
#define DROPPABLE_PRELOAD_BACKEND_H

#include <droppable/droppable.h>
#include <stddef.h>

/* Who serves; never DRP_BACKEND_AUTO. Decided once, by $DROPPABLE_BACKEND or else by trying. */
enum drp_backend backend_get(void);
/* mmap(2) of droppable memory with DRP_BACKEND_NONE: ordinary memory that children find empty, and core dumps have not. */
void *backend_map_plain(void *address, size_t length, int protection, int flags, long offset);
/* The connection to the service, made at the first call that succeeds; valid for the life of the process. Negative errno. */
int backend_context(struct drp **ret);
/* With $DROPPABLE_DEBUG set: says on stderr why there is no memory, once. The text is drp_detail()'s. */
void backend_complain(int error);
/* In a child after fork(). */
void backend_fork_child(void);

#endif
