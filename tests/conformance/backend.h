/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CONFORMANCE_BACKEND_H
#define DROPPABLE_CONFORMANCE_BACKEND_H

/* Runs the program conformance on a backend. */

#include <stdbool.h>

/* The environment variable that names whom the program runs as, by number; unset: whoever started it. */
#define BACKEND_USER "CONFORMANCE_USER"

/* The names, ends with NULL. */
extern const char *const backend_names[];

bool backend_known(const char *name);
/* Does this kernel have MAP_DROPPABLE itself? */
bool backend_has_native(void);
/* The path of a file beside this program, or where the build puts it; to free(3). NULL after a message. */
char *backend_file(const char *name);
/* Runs it with the arguments given (ends with NULL, at most 62), and returns what it printed, to free(3); NULL after a message. */
char *backend_run(const char *name, const char *const *arguments);
/* The second half, in a process of its own: `PROGRAM --enter NAME ARGUMENTS...`. Returns only if it fails. */
int backend_enter(char **argv);

#endif
