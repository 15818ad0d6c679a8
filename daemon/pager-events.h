/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PAGER_EVENTS_H
#define DROPPABLE_DAEMON_PAGER_EVENTS_H

/* What a client does with its own memory. In the pager's thread, without the session's lock. */

#include <stdint.h>

struct mapping;
struct session;

/* UFFD_EVENT_REMOVE: the pages at [start, end) were given up. */
void pager_note_remove(struct session *session, uint64_t start, uint64_t end);
/* UFFD_EVENT_REMAP: what was at [from, from + length) is at another address. */
void pager_note_remap(struct session *session, uint64_t from, uint64_t to, uint64_t length);
/* Bytes [offset, end) of a mapping were given up by their owner: nothing of them is to be brought back. */
void pager_forget_pages(struct session *session, struct mapping *mapping, uint64_t offset, uint64_t end);

#endif
