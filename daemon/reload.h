/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_RELOAD_H
#define DROPPABLE_DAEMON_RELOAD_H

#include "config.h"

#include <uv.h>

struct manager;

/* SIGHUP reads the settings again. */
struct reload {
    struct manager *manager;
    const struct config_source *source; /* borrowed */
    uv_signal_t signal;
};

/* Does not keep the loop running. */
int reload_start(struct reload *reload, uv_loop_t *loop, struct manager *manager, const struct config_source *source);
/* The loop has to run once more. */
void reload_stop(struct reload *reload);

#endif
