/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_RECORD_SAMPLE_H
#define DROPPABLE_DAEMON_RECORD_SAMPLE_H

/* What a recording needs beside events: what regions are, and which chunks were used by pins. */

#include <stdint.h>

struct domain;
struct manager;
struct region;

/* Enters a region that somebody in the domain has just made, and the domains it belongs to. Under the manager's lock. */
void record_region(const struct region *region, const struct domain *domain);
/*
 * Enters the chunks that were pinned in the ticks before this one. By the pressure thread, under the manager's lock. Returns the ns after which
 * it wants to be called again; UINT64_MAX: nothing is recorded.
 */
uint64_t record_sample(struct manager *manager, uint64_t now);

#endif
