/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_QUOTA_H
#define DROPPABLE_DAEMON_QUOTA_H

/* Whether there may be one more region, by every limit that counts regions, or bytes of them. In the loop. */

#include <stdint.h>

struct connection;

/* May the client have one more of that size, with tables of so many bytes at most (region_tables_most())? DRP_WIRE_OK, or why not. */
uint32_t quota_check(const struct connection *connection, uint64_t size, uint64_t tables);

#endif
