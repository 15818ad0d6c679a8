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

/*
 * Answers a fault. forced: the wait is over, fill the least and go on.
 */
enum fault_answer fault_answer(struct session *session, uint64_t address, bool forced);

/* Takes one step of a populate command. FAULT_DONE: the command is finished, its result is set. FAULT_GATED: as above. FAULT_DROPPING: go on. */
enum fault_answer fault_populate(struct session *session, struct pager_command *command);

/*
 * Measures at most max spans whose commitment is not used up, and takes back what the kernel has filled meanwhile. Returns the bytes
 * taken back. rearm: arms them, too, so that all of it is taken back, until wanted bytes are reached.
 */
uint64_t fault_refresh_commitments(struct session *session, unsigned max, bool rearm, uint64_t wanted);

/* Arms a span in all its mappings. Returns the bytes of commitments that this gave back. Without the session's lock. */
uint64_t fault_arm(struct session *session, struct region *region, uint32_t span);

#endif
