/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_SOURCE_H
#define DROPPABLE_DAEMON_SOURCE_H

/* What watches domains by the kernel's own events. Of the loop, all of it. */

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

struct manager;
struct source;

struct sources {
    uv_loop_t *loop;
    struct manager *manager;
    uv_work_t start;
    uv_timer_t rest; /* runs only while some file rests after it has fired */
    bool ended;
    bool behind;        /* some domain's source is still to be made, or closed */
    unsigned n_opening; /* sources whose files are being opened */
    LIST_HEAD(source_list, source) list;
};

/* Watches the machine from here on: before privileges are given up, as PSI triggers take CAP_SYS_RESOURCE (before Linux 6.4 any, later short windows). */
int sources_init(struct sources *sources, uv_loop_t *loop, struct manager *manager);
/* Has libuv start its threads, which inherit what privileges there are. */
int sources_start(struct sources *sources);
/* When manager.wake_fd was readable: new domains are watched, those that are gone or retired are let go of, thresholds are moved. Waits for nothing. */
void sources_tidy(struct sources *sources);
/* Closes all of it; nothing is watched any more. The loop has to run on until it has no handles. */
void sources_end(struct sources *sources);

#endif
