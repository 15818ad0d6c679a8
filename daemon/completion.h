/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_COMPLETION_H
#define DROPPABLE_DAEMON_COMPLETION_H

#include <sys/queue.h>

/* Work that another thread leaves for the loop (manager_complete()). */
struct completion {
    TAILQ_ENTRY(completion) link;
    void (*run)(struct completion *completion);
};
TAILQ_HEAD(completion_list, completion);

#endif
