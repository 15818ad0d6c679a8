/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_HANDLERS_H
#define DROPPABLE_DAEMON_HANDLERS_H

struct channel_packet;
struct connection;
struct operation;

/* Handles a request that codec_check_request() found well-formed. Replies at once, or leaves connection->operation set and replies later. */
void handlers_dispatch(struct connection *connection, struct channel_packet *packet);
/* The connection is gone: what is under way ends without a reply. */
void handlers_abandon(struct operation *operation);

#endif
