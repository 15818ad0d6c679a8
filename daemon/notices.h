/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_NOTICES_H
#define DROPPABLE_DAEMON_NOTICES_H

struct manager;

/* In the loop, after another thread woke it: logs what that found out about sessions, and does what the config says of it. */
void notices_tell(struct manager *manager);

#endif
