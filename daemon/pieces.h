/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PIECES_H
#define DROPPABLE_DAEMON_PIECES_H

/* Mappings and their pieces come and go, as the client says. In the pager's thread, but for pieces_unlink_mapping(). */

#include "uffd.h"

struct extent;
struct mapping;
struct pager_command;
struct session;

/* PAGER_MAP: links a mapping to its region; with pieces, registers them. */
void pieces_map_mapping(struct session *session, struct pager_command *command);
/* PAGER_UNMAP. */
void pieces_unmap_mapping(struct session *session, struct mapping *mapping);
/* PAGER_MAP_PIECES. result: 0, -EEXIST: one overlaps what is mapped, -ENOSPC: too many. */
void pieces_map(struct session *session, struct pager_command *command);
/* PAGER_UNMAP_PIECES. */
void pieces_unmap(struct session *session, struct pager_command *command);
/* Tells the kernel who fills what of an extent. Where that fails, its touched spans count as disarmed; the first failure is returned. */
enum uffd_outcome pieces_register(struct session *session, const struct extent *extent);
/* Under the lock: the region no longer has this mapping, and its commitments end. */
void pieces_unlink_mapping(struct session *session, struct mapping *mapping);

#endif
