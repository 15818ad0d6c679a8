/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_SUPERVISOR_H
#define DROPPABLE_TESTS_SUPERVISOR_H

/* A service manager, played: the socket that the service notifies, and sockets that are passed to it. No systemd needed. */

#include "service.h"

#include <stdbool.h>
#include <stdint.h>

#define SUPERVISOR_PASSED_MAX 2

struct supervisor {
    struct service service;
    int notify; /* $NOTIFY_SOCKET; -1: none */
    char notify_path[96];
    int passed[SUPERVISOR_PASSED_MAX]; /* from 3 on, in this order */
    size_t n_passed;
    uint64_t watchdog_ms; /* $WATCHDOG_USEC; 0: none */
};

/* The folder, the config, and a socket to be notified by. The service is not started. */
void supervisor_init(struct supervisor *supervisor, const char *config);
/* Binds a unix socket of a type (SOCK_*) to a path of the service's folder, and passes it from the next start on. Returns it, owned. */
int supervisor_bind(struct supervisor *supervisor, int type, const char *path);
/* Starts the service; with --socket where that is given. Waits for nothing. */
void supervisor_start(struct supervisor *supervisor, const char *socket);
/* The next message in which a line begins so; those before it are passed over. false: not in time. */
bool supervisor_hears(struct supervisor *supervisor, const char *line, char *ret, size_t size, int timeout_ms);
/* Forgets what has come until now. */
void supervisor_drain(struct supervisor *supervisor);
/* SIGTERM if it still runs, and removes everything. */
void supervisor_end(struct supervisor *supervisor);

#endif
