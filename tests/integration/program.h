/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_PROGRAM_H
#define DROPPABLE_TESTS_PROGRAM_H

#include <stddef.h>
#include <sys/mman.h>

/* Linux 6.11: newer than the C library's headers may be. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/* What test-preload runs as programs of their own, which know nothing of droppable but mmap(2). */

/*
 * If the command line asks for it (--program NAME FD), runs that program with its end of a socket pair (see child.h) and does not
 * return.
 */
void program_main(int argc, char **argv);

/*
 * In a child: becomes that program, by a main() that begins with program_main(). backend: $DROPPABLE_BACKEND of the preload library, "" for none;
 * NULL: without the library. output: a file for what it writes, or NULL.
 */
void program_become(const char *name, const char *backend, const char *output, int socket);

/* What is preloaded besides, by the same process: a file's path. */
void program_preload_also(const char *path);

/* For each other: a mapping, zeros; says a letter, and goes on when the test has answered. */
char *program_map(size_t size);
void program_show(int socket, char word);
/* In program-many.c. */
void program_run_many(int socket);
void program_run_storm(int socket);
/* In program-beside.c. */
void program_run_moving(int socket);
void program_run_first(int socket);
void program_run_cancelled(int socket);
void program_run_replaced(int socket);
void program_run_inherited(int socket);
/* In program-ends.c. */
void program_run_unhandled(int socket);
void program_run_early(int socket);
void program_run_last(int socket);
void program_run_last_alone(int socket);
/* In program-checked.c; the second by the library, with pins. */
void program_run_checked(int socket);
void program_run_checked_pins(int socket);

#endif
