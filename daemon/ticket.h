/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_TICKET_H
#define DROPPABLE_DAEMON_TICKET_H

/*
 * Tickets of a shared region's mappings: descriptors of its object with a lock. fd is one of the object in the calling thread's table. The mappers can have any
 * number of locks, and the kernel looks at all of them: what looks for locks is called in the region's own thread.
 */

#include <stdbool.h>
#include <stdint.h>

/* The era after all that have tickets. -EDQUOT: somebody has taken the last of them. */
int ticket_next_era(int fd, uint64_t *ret);
/* Has somebody a ticket of an earlier era? */
bool ticket_is_missing(int fd, uint64_t era);
/* For a new mapping. -errno */
int ticket_make(int fd, uint64_t era, uint64_t mapping, int *ret_ticket);
/* A ticket of an earlier era, of a mapping that is handed over, becomes one of this. -errno */
int ticket_renew(int ticket, uint64_t era, uint64_t mapping);

#endif
