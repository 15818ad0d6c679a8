/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_NEED_H
#define DROPPABLE_DAEMON_NEED_H

#include "plan.h"

#include <stddef.h>
#include <stdint.h>

#define NEED_SLICES 2

/*
 * Hands out what a domain needs, demand->bytes of it: who is over a budget gives first. At most so many slices, 1 or NEED_SLICES. Returns their
 * number; 0: nothing to drop was found, unless plans->busy says that it is being dropped. By the pressure thread, under the manager's lock.
 */
size_t need_hand_out(struct plans *plans, const struct plan_demand *demand, uint32_t tick, struct plan_slice **ret,
                     size_t max);

#endif
