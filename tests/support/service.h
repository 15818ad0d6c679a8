/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_SERVICE_H
#define DROPPABLE_TESTS_SERVICE_H

/* A private droppabled for a test: its own folder, socket and log. Everything dies with the test (PR_SET_PDEATHSIG). */

#include "clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct service {
    char dir[64];
    char socket[96];
    char log[96];
    char config[96]; /* no huge pages by default, and service_start()'s text */
    pid_t pid;
};

/* Path of a program in $DROPPABLE_TEST_BINDIR; fails the test where there is none. Returns path. */
const char *program_path(const char *name, char *path, size_t size);

/* The folder and the config of service_start(), without the service: pid is -1. */
void service_prepare(struct service *service, const char *config);
/* Starts $DROPPABLE_TEST_BINDIR/droppabled and returns when it accepts connections. config: text of an ini file, or NULL. Sets DROPPABLE_SOCKET. Fails the test otherwise. */
void service_start(struct service *service, const char *config);
/* Services that are started from now on write a trace into the file (borrowed); NULL: none. */
void service_record(const char *path);
/*
 * Between the making of a service's process and its program: run() in that process, which shares this one's memory and is to make system calls only. As
 * soon as it has run, started(pid) here.
 */
void service_before_exec(void (*run)(void), void (*started)(int pid));
/* New settings, in the place of service_start()'s, for the next time that they are read. */
void service_configure(const struct service *service, const char *config);
/* The same, and SIGHUP. Returns when the log has a new line with the text; fails the test otherwise. */
void service_reload(struct service *service, const char *config, const char *text);
/* The same service again, on the same socket, after it ended or was killed. */
void service_restart(struct service *service);
/* SIGTERM, waits, checks exit status 0, that the socket is gone and (sanitizers) that the log has no report; removes the folder. */
void service_stop(struct service *service);
/* SIGKILL and wait (the wait may take as long as a thread of it is stuck; at most wait_ms: false when it is still there then). */
bool service_kill(struct service *service, int wait_ms);
/* Waits for its end and reaps it. false: not in time. */
bool service_wait(struct service *service, int timeout_ms, int *ret_status);
/* Waits for the end of a child, and leaves it to be reaped. false: not in time. */
bool process_ends(pid_t pid, int timeout_ms);
/* Nanoseconds of CPU time of all threads that it has, and had. */
uint64_t process_cpu_ns(pid_t pid);
/* Is there a line with that text in the log? Waits up to timeout_ms (inotify or poll), for what is logged a moment later. */
bool service_log_has(const struct service *service, const char *text, int timeout_ms);

/* `droppablectl ARGS...` against the service; returns its exit status, stdout in out (NUL-terminated). */
int service_ctl(const struct service *service, char *out, size_t size, const char *const *arguments);
/* A number of `droppablectl --json status`, by key. */
uint64_t service_status(const struct service *service, const char *key);

/* Descriptors and threads of the service, all its threads' tables counted. */
size_t service_descriptors(const struct service *service);
size_t service_threads(const struct service *service);
/* What it has of clients: objects and pages, userfaultfds, pidfds, connections (descriptors of the main table); and their threads. */
size_t service_left_of_clients(const struct service *service);
/* Waits until descriptors are back at what they were (a session's end is asynchronous); fails the test with a listing after timeout_ms. */
void service_expect_descriptors(const struct service *service, size_t expected, int timeout_ms);

/* Descriptors of this process. */
size_t own_descriptors(void);
/* Of the calling thread, which may have a table of its own. */
size_t thread_descriptors(void);
/* Are we under a sanitizer (times mean little then)? */
bool under_sanitizer(void);
/* Ends this test program with exit status 77 and the reason on stdout. */
void skip_all(const char *reason) __attribute__((noreturn));

#endif
