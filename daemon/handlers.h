/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_HANDLERS_H
#define DROPPABLE_DAEMON_HANDLERS_H

#include "wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct channel_packet;
struct connection;

#define HANDLERS_KNOWN_OPTIONS                                 \
    (DRP_REGION_HUGE | DRP_REGION_SIGNAL | DRP_REGION_SHARED | \
     DRP_REGION_NO_SWAP) /* DRP_REGION_* that this daemon knows */

/* Handles a request that codec_check_request() found well-formed. Replies at once, or leaves connection->operation set and replies later. */
void handlers_dispatch(struct connection *connection, struct channel_packet *packet);

#define HANDLERS_LOOK offsetof(struct drp_wire_limit, values)
/*
 * Is a request about everybody's memory, so that it costs the more the more others have? Of LIMIT only what is not the session's own. start: its first
 * HANDLERS_LOOK bytes, not checked yet.
 */
bool handlers_is_for_all(const struct connection *connection, const union drp_wire_message *start);

/* Answers the request with an error. */
void reply_error(struct connection *connection, const struct channel_packet *packet, uint32_t error);

/* Whose the memory is: the owner's; root and the daemon's own user have it anyway. */
bool may_have(const struct connection *connection, uid_t owner);
/* Root, the daemon's own user, the members of ControlGroup=. Theirs are the verbs of droppablectl, not others' memory. */
bool is_administrator(const struct connection *connection);
/* The owner, or an administrator. */
bool may_control(const struct connection *connection, uid_t owner);

/* In handlers-region.c, for the table in handlers.c. */
void handle_create(struct connection *connection, struct channel_packet *packet);
void handle_adopt(struct connection *connection, struct channel_packet *packet);
void handle_map(struct connection *connection, struct channel_packet *packet);
void handle_unmap(struct connection *connection, struct channel_packet *packet);
void handle_map_pieces(struct connection *connection, struct channel_packet *packet);
void handle_unmap_pieces(struct connection *connection, struct channel_packet *packet);
void handle_destroy(struct connection *connection, struct channel_packet *packet);

/* In handlers-shared.c, likewise. */
void handle_create_shared(struct connection *connection, struct channel_packet *packet);
void handle_open(struct connection *connection, struct channel_packet *packet);

/* In handlers-native.c, likewise. */
void handle_native(struct connection *connection, struct channel_packet *packet);
void handle_end_native(struct connection *connection, struct channel_packet *packet);

/* In handlers-pressure.c, likewise. */
void handle_limit(struct connection *connection, struct channel_packet *packet);
void handle_free(struct connection *connection, struct channel_packet *packet);
void handle_why(struct connection *connection, struct channel_packet *packet);
/* Is it what a program says of itself? limit: its first HANDLERS_LOOK bytes, not checked yet. */
bool is_own_limit(const struct connection *connection, const struct drp_wire_limit *limit);
void handle_histograms(struct connection *connection, struct channel_packet *packet);

#endif
