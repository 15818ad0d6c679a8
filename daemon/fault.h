/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_FAULT_H
#define DROPPABLE_DAEMON_FAULT_H

/* How a missing page is answered. Runs in the pager's thread only; allocates nothing. */

#include "mapping.h"
#include "region.h"

#include <stdbool.h>
#include <stdint.h>

struct pager_command;
struct session;

enum fault_answer {
    FAULT_DONE = 0,
    FAULT_DROPPING, /* a drop of the span is under way: ask again when it is over */
    FAULT_GATED,    /* the gate says wait: ask again when the pressure thread has made room */
};

/* Answers a fault. forced: the wait is over, fill the least and go on. */
enum fault_answer fault_answer(struct session *session, uint64_t address, bool forced);

/* Takes one step of a populate command. FAULT_DONE: the command is finished, its result is set. FAULT_GATED: as above. FAULT_DROPPING: go on. */
enum fault_answer fault_populate(struct session *session, struct pager_command *command);

#endif
