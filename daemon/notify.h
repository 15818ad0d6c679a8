/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_NOTIFY_H
#define DROPPABLE_DAEMON_NOTIFY_H

/* What the service manager is told, and what it passes on: the protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). */

#include <stdbool.h>
#include <stdint.h>

/* Does a service manager listen? */
bool notify_is_heard(void);
/* How often it wants to hear WATCHDOG=1, in ns; 0: not at all. */
uint64_t notify_watchdog(void);
/* What may get lost, as there is more to come: lines of "NAME=VALUE". Never waits. */
void notify_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A change of state. Waits for a busy manager, for NOTIFY_WAIT_MS at most. */
void notify_state(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* RELOADING=1; READY=1 has to follow. */
void notify_reloading(void);

#define NOTIFY_WAIT_MS 1000

/*
 * The listening socket that was passed, non-blocking and close-on-exec, for the caller to close; *ret_path is its path ("@name" for an abstract
 * one), malloc'd. 1; 0: none was passed; negative errno: what was passed will not do, which is logged.
 */
int notify_take_socket(int *ret_fd, char **ret_path);

#endif
