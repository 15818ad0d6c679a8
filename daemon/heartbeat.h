/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_HEARTBEAT_H
#define DROPPABLE_DAEMON_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct manager;

/* WATCHDOG=1 and STATUS= for the service manager, where there is one. */
struct heartbeat {
    struct manager *manager;
    uv_timer_t timer;
    bool started;
    bool watched;   /* the manager wants WATCHDOG=1 */
    uint64_t turns; /* of the pressure thread, when it was last woken from here */
    uint64_t due;   /* ns: the next look at what STATUS= tells */
    char status[256];
};

/* READY=1, and from then on the rest. Does not keep the loop running. */
int heartbeat_start(struct heartbeat *heartbeat, uv_loop_t *loop, struct manager *manager);
/* The loop has to run once more. */
void heartbeat_stop(struct heartbeat *heartbeat);

#endif
