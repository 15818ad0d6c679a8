/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_LOSS_H
#define DROPPABLE_DAEMON_LOSS_H

#include "completion.h"

#include <stdatomic.h>
#include <stdbool.h>

struct region;
struct session;

/* How a session is told that something of it was dropped. */
struct loss {
    struct completion completion;
    struct session *session;
    int socket; /* ours; -1: nobody wants to know. Of the loop */
    _Atomic bool watched;
    _Atomic bool pending; /* the completion waits for the loop */
};

void loss_init(struct loss *loss, struct session *session);
void loss_deinit(struct loss *loss);
/* In the loop: from now on it is told. *ret_socket: the client's end, of the caller. An earlier one hears no more. -errno */
int loss_watch(struct loss *loss, int *ret_socket);
/* In the dropper's thread, under the home's lock: something of the region was dropped, and is settled. Everybody who has it mapped hears of it. */
void loss_note(struct region *region);

#endif
