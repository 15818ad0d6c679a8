/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CTL_CTL_H
#define DROPPABLE_CTL_CTL_H

/* What droppablectl's modules share. */

#include "client.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILURE = 1,
    CTL_USAGE = 2,
    CTL_UNREACHABLE = 3,
    /* `run`, as env(1) has them */
    CTL_RUN_FAILURE = 125,
    CTL_RUN_NOT_EXECUTABLE = 126,
    CTL_RUN_NOT_FOUND = 127,
};

struct ctl_options {
    const char *socket; /* NULL: the library's search order */
    bool json;
    uint32_t scope; /* drop: enum drp_wire_scope; 0: none given */
    uint64_t id;
    char **program; /* run: NULL-terminated */
};

/* ---- main.c ---- */

/* Prints why a call of the library failed, with its detail. Returns the exit status for it. */
int ctl_fail(const char *what, int error);
/* Connects. 0, or an exit status (the message is printed). */
int ctl_connect(const struct ctl_options *options, struct drp **ret);

/* ---- status.c: the verbs that ask the daemon. Each returns an exit status. ---- */

int ctl_status(const struct ctl_options *options);
int ctl_list(const struct ctl_options *options);
int ctl_drop(const struct ctl_options *options);
int ctl_probe(const struct ctl_options *options);

/* ---- print.c ---- */

/* Prints a JSON object on stdout and frees it. Exit status. */
int ctl_print_json(struct json_object *object);
/* "12.3" from bytes; "-" for UINT64_MAX. The text is valid for eight more calls. */
const char *ctl_mib(uint64_t bytes);
/*
 * The text with control characters as '?': programs choose their names. Valid for eight more calls; cut at 159 bytes.
 */
const char *ctl_clean(const char *text);
void ctl_print_status(const struct drp_wire_status_reply *status);
struct json_object *ctl_json_status(const struct drp_wire_status_reply *status);
void ctl_print_list(const struct drp_wire_entry *entries, size_t n);
struct json_object *ctl_json_list(const struct drp_wire_entry *entries, size_t n);
void ctl_print_probe(const struct drp_probe *probe);
struct json_object *ctl_json_probe(const struct drp_probe *probe);

/* ---- run.c ---- */

int ctl_run(const struct ctl_options *options);

#endif
