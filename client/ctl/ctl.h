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

/* Options that belong to some verbs only; ctl_options.given has one bit for each. */
enum ctl_option {
    CTL_ALL = 1,
    CTL_REGION = 2,
    CTL_PID = 4,
    CTL_USER = 8,
    CTL_CGROUP = 16,
    CTL_BUDGET = 32,
    CTL_QUOTA = 64,
    CTL_SHARE = 128,
    CTL_PRIORITY = 256,
    CTL_COUNT = 512,
};
#define CTL_WHO (CTL_ALL | CTL_REGION | CTL_PID | CTL_USER | CTL_CGROUP)

struct ctl_options {
    const char *socket; /* NULL: the library's search order */
    bool json;
    uint32_t given;                /* CTL_* */
    uint64_t id;                   /* --region, --pid, --user */
    const char *cgroup;            /* --cgroup */
    struct drp_wire_limits values; /* limit: what is given of it */
    uint64_t count;                /* why: -n */
    uint64_t size;                 /* free: bytes; 0: none given */
    char **program;                /* run: NULL-terminated */
};

/* ---- main.c ---- */

/* Prints why a call of the library failed, with its detail. Returns the exit status for it. */
int ctl_fail(const char *what, int error);
/* The same for what names somebody with CTL_WHO, where two of the daemon's errors say more than their errno does. */
int ctl_fail_for(const struct ctl_options *options, const char *what, int error);
/* Connects. 0, or an exit status (the message is printed). */
int ctl_connect(const struct ctl_options *options, struct drp **ret);

/* ---- the verbs. Each returns an exit status. ---- */

int ctl_status(const struct ctl_options *options);
int ctl_probe(const struct ctl_options *options);
int ctl_list(const struct ctl_options *options);
int ctl_drop(const struct ctl_options *options);
int ctl_free(const struct ctl_options *options);
int ctl_limit(const struct ctl_options *options);
int ctl_why(const struct ctl_options *options);
int ctl_run(const struct ctl_options *options);

/* ---- print.c ---- */

/* Prints a JSON object on stdout and frees it. Exit status. */
int ctl_print_json(struct json_object *object);
/* "12.3" from bytes; "-" for UINT64_MAX. The text is valid for eight more calls. */
const char *ctl_mib(uint64_t bytes);
/*
 * What is in from, with control characters as '?': programs choose their names. Valid for eight more calls; cut at 159 bytes.
 */
const char *ctl_clean(const char *from);
const char *ctl_priority_name(uint32_t priority);
const char *ctl_interception_name(uint32_t interception);
/* enum drp_wire_source: a key ("psi_some"). */
const char *ctl_source_name(uint32_t source);

/* Text of others' choice as UTF-8. */
struct json_object *ctl_json_text(const char *text, size_t size);
void ctl_add(struct json_object *object, const char *key, uint64_t value);
/* What has no limit is null. */
void ctl_add_limit(struct json_object *object, const char *key, uint64_t value);
void ctl_add_text(struct json_object *object, const char *key, const char *value);
void ctl_add_bool(struct json_object *object, const char *key, bool value);
/* DRP_REGION_* as an array of names. */
void ctl_add_options(struct json_object *object, const char *key, uint64_t options);
/* A mask of 1 << enum drp_wire_source as an array of names. */
void ctl_add_sources(struct json_object *object, const char *key, uint64_t sources);

#endif
