/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_HANDLERS_REGION_H
#define DROPPABLE_DAEMON_HANDLERS_REGION_H

/* What requests about own and about shared regions have in common. */

#include "operation.h"
#include "wire.h"

#include <stdbool.h>
#include <stdint.h>

struct channel_packet;
struct connection;
struct region;

/* Does it have its object and its pages alone? No version has made others; tables of another size would cost address space that is not counted. */
bool region_is_whole(const struct drp_wire_adopt *adopt);
/* What the region's maker says of it, before it is linked. More than the config allows counts as what it allows (limit_value()). */
void region_set_worth(const struct connection *connection, struct region *region, uint64_t budget, uint32_t share);
/* Links a new region of the session; on an error it is freed. */
uint32_t region_link(struct connection *connection, struct region *region);
void region_fill_reply(struct drp_wire_create_reply *reply, const struct region *region);
/* One of the session's mappings, or NULL. */
struct mapping *region_find_mapping(struct session *session, uint64_t id);
/* In another thread: the operation, which is data, goes on in the loop. */
void region_finished(void *data);

/* In handlers-shared.c: an ADOPT of a shared region; what a MAP needs of one, once there is a mapping; and its DESTROY. */
void shared_adopt(struct connection *connection, struct channel_packet *packet);
uint32_t shared_prepare_map(struct operation *operation, const struct channel_packet *packet);
uint32_t shared_take_ticket(struct operation *operation, const struct channel_packet *packet);
void shared_destroy(struct operation *operation);

#endif
