/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_CHOICE_H
#define DROPPABLE_CLIENT_CHOICE_H

/* Who has the memory. Also for the preload library. */

#include <droppable/droppable.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/* As in $DROPPABLE_BACKEND. */
const char *choice_name(enum drp_backend backend);
/* 0: the kernel has MAP_DROPPABLE; -EOPNOTSUPP: it has not; other errors say nothing of that. */
int choice_native_error(void);
/* $DROPPABLE_BACKEND; DRP_BACKEND_AUTO if it is not set. -EINVAL */
int choice_of_user(enum drp_backend *ret);
/* Of a context, as its config asks. -EINVAL; -EOPNOTSUPP: cannot be had. */
int choice_of_context(enum drp_backend asked, enum drp_backend *ret);
/* Of a region that is made in such a context; the options are known to be well-formed. */
enum drp_backend choice_of_region(enum drp_backend backend, const struct drp_region_options *options);

#endif
