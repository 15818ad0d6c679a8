/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_BACKEND_H
#define DROPPABLE_PRELOAD_BACKEND_H

#include <stdbool.h>

struct drp;

/* Does the kernel serve? Decided once, by $DROPPABLE_BACKEND or else by trying. */
bool backend_is_native(void);
/* The connection to the service, made at the first call that succeeds; valid for the life of the process. Negative errno. */
int backend_context(struct drp **ret);
/* With $DROPPABLE_DEBUG set: says on stderr why there is no memory, once. The text is drp_detail()'s. */
void backend_complain(int error);
/* In a child after fork(). */
void backend_fork_child(void);

#endif
