/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_MOVE_H
#define DROPPABLE_DAEMON_MOVE_H

/* Follows a client from cgroup to cgroup. */

#include "completion.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct session;

/* Part of a session; of its pager, or of the loop if it has none. */
struct move {
    struct completion completion;
    _Atomic bool pending; /* the completion is under way */
    _Atomic bool again; /* for want of something the move was not made: the next look tries it again, whatever it finds */
    _Atomic bool wanted; /* the pager shall look, though there is no fault */
    int fd;              /* /proc/PID/cgroup, in the pager's table; -1: not open */
    uint64_t checked;    /* ns: when it was read last */
    uint64_t text;       /* hash of what it said then */
};

void move_init(struct move *move);
/* In the pager: looks if the last look was a second ago. The client's next fault after a move may still be counted where it was. */
void move_check(struct session *session);
/* At the end of the pager. */
void move_deinit(struct move *move);
/* In any thread: a hash of where the process is. false: it is gone. */
bool move_look(pid_t pid, int pidfd, uint64_t *ret_text);
/* In the loop, for a session without a pager: that was found. */
void move_note(struct session *session, uint64_t text);
/* The same, at a request that concerns memory: looks, and has follow.c look from here on. */
void move_check_now(struct session *session);

#endif
