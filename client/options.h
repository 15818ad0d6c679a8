/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_OPTIONS_H
#define DROPPABLE_CLIENT_OPTIONS_H

/* DRP_REGION_*: their names, who gives them, what they do to a mapping. */

#include <droppable/droppable.h>
#include <stddef.h>
#include <stdint.h>

/* How a region's mapping is in this process and its children: given by the library and the kernel, whatever the service knows. */
#define OPTIONS_LOCAL (DRP_REGION_FORK_SHARED | DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP)

/* About fields of drp_region_options: whether they have to be met. Given by whoever keeps them, and judged by what he says holds. */
#define OPTIONS_LIMITS (DRP_REGION_BUDGET | DRP_REGION_SHARE | DRP_REGION_PRIORITY)
#define OPTIONS_VALUES (OPTIONS_LIMITS | DRP_REGION_CHUNK_SIZE)

#define OPTIONS_TEXT_SIZE 512

/* The option's name for people, as in `droppablectl list`; the next bit of *bits, which is taken out. NULL: none left that has a name. */
const char *options_next_name(uint64_t *bits);
/* The constants' names, "DRP_REGION_HUGE, DRP_REGION_DUMP". Returns text, of OPTIONS_TEXT_SIZE. */
char *options_text(uint64_t bits, char *text);

/* What a program asks for when it makes a region (NULL: nothing), if it makes sense. -EOPNOTSUPP, -EINVAL. */
int options_read(struct drp_region_options *to, const struct drp_region_options *from);
/* Without those that a backend never gives, anywhere. */
uint64_t options_can(enum drp_backend backend, uint64_t bits);
/* Why not; NULL: it may. */
const char *options_why_not(enum drp_backend backend, uint64_t bit);
/* -EOPNOTSUPP: the backend never gives one of them. */
int options_check_backend(enum drp_backend backend, uint64_t required);
/* The service gives only some of them. */
int options_check_given(uint64_t required, uint64_t given);

struct drp_region;
struct link;

/*
 * Of OPTIONS_VALUES those that hold as they were asked for are the region's from now on. limits: what holds, of which the budget, the share and the
 * priority count; the chunk is the region's. -EOPNOTSUPP: a required one does not hold.
 */
int options_judge(struct drp_region *r, const struct drp_region_options *asked, const struct drp_region_limits *limits);

/*
 * Tells the service of those of OPTIONS_LOCAL that hold, unless it knows: for who looks, and so that it does not free what children have. That it is
 * refused or lost changes nothing here. Without request_lock. 0 or a negative errno.
 */
int options_tell(struct drp_region *r);
/* The same for a region that was just handed over to the daemon at link. With request_lock, or before the link is that of requests. */
int options_hand_over(struct drp_region *r, struct link *link);
/* Makes a mapped region be as these bits of options say. Fork lock held. */
int options_apply(const struct drp_region *r, uint64_t bits);

#endif
