/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_NOTICES_H
#define DROPPABLE_DAEMON_NOTICES_H

#include "log.h"

struct manager;

/* How often it tells: a user has clients enough to fill the log. All zeros at the start. */
struct notices {
    struct log_limit quarantines, pins;
};

/* In the loop, after another thread woke it: logs what that found out about sessions, and does what the config says of it. */
void notices_tell(struct notices *notices, struct manager *manager);

#endif
