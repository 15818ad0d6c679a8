/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_LOCAL_H
#define DROPPABLE_CLIENT_LOCAL_H

/* Regions whose memory is this process's own: the backends native and none. */

#include <droppable/droppable.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* drp_region_new(); the options are checked, and none is among them that the backend never gives. */
int local_new(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options,
              enum drp_backend backend);
/* drp_drop() of whole chunks; an empty range is nothing. */
int local_drop(struct drp_region *r, size_t start, size_t end, uint64_t *ret_freed, uint64_t *ret_pinned);
/* The error of what sets a budget, share or priority of a region that no service has. */
int local_refuse_limit(const struct drp_region *r);
/* drp_region_get_limits() of such a region. */
void local_get_limits(const struct drp_region *r, struct drp_region_limits *ret);
/* In native.c: tells the service at link of a native region. request_lock held, or the watcher's own link. */
struct link;
int native_register(struct drp_region *r, struct link *link);
/* The same, by the context's connection. */
int native_tell(struct drp_region *r);
/* Does this system give huge pages, and merge equal ones, of private memory? */
bool local_has_huge(void);
bool local_has_merging(void);
/* The error of what is asked of a native region about pins and losses. */
int local_refuse(void);
/* In the fork handler. false: the addresses could not be made what the options say. */
bool local_fork_child(const struct drp_region *r);

#endif
