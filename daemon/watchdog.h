/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_WATCHDOG_H
#define DROPPABLE_DAEMON_WATCHDOG_H

#include <stdint.h>

struct manager;

/* A thousand sessions take 20 us, and each that joins kicks. */
#define WATCHDOG_NS UINT64_C(50000000)

/* By the pressure thread, under the manager's lock, in each turn: once in WATCHDOG_NS it looks. Notes in manager->pressure.quarantined whether anybody is held up. */
void watchdog_look(struct manager *manager);

#endif
