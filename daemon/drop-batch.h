/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_DROP_BATCH_H
#define DROPPABLE_DAEMON_DROP_BATCH_H

struct drop_op;
struct home;

/* Drops what the ops name, which it puts into another order. In the dropper's thread. */
void drop_batch_run(struct home *home, struct drop_op *ops, unsigned n);

#endif
