/* SPDX-License-Identifier: MIT */

/*
 * How answers look. People get aligned columns with sizes in MiB; programs get JSON, bytes as integers, keys that stay
 * as they are once released (new ones may come). Names and paths are others' choice: control characters never reach a
 * terminal.
 */

#include "ctl.h"
#include "options.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 9
#define MIB 1048576.0
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *ctl_interception_name(uint32_t interception) {
    return interception == DRP_WIRE_INTERCEPTION_FULL ? "full" : "none";
}

const char *ctl_priority_name(uint32_t priority) {
    return priority == DRP_PRIORITY_LOW ? "low" : priority == DRP_PRIORITY_HIGH ? "high" : "normal";
}

const char *ctl_source_name(uint32_t source) {
    static const char *const names[] = {
        [DRP_SOURCE_SAMPLER] = "sampler",
        [DRP_SOURCE_GATE] = "gate",
        [DRP_SOURCE_PSI_SOME] = "psi_some",
        [DRP_SOURCE_PSI_FULL] = "psi_full",
        [DRP_SOURCE_HIGH] = "memory_high",
        [DRP_SOURCE_MAX_MET] = "memory_max",
        [DRP_SOURCE_THRESHOLD] = "usage_threshold",
        [DRP_SOURCE_LEVEL] = "pressure_level",
        [DRP_SOURCE_BUDGET] = "budget",
        [DRP_SOURCE_HAND] = "hand",
    };

    return source < COUNT(names) && names[source] ? names[source] : "unknown";
}

const char *ctl_mib(uint64_t bytes) {
    static char room[ROOM][32];
    static unsigned next;
    char *text = room[next++ % ROOM];

    if (bytes == UINT64_MAX)
        return "-";
    snprintf(text, sizeof(room[0]), "%.1f", (double)bytes / MIB);
    return text;
}

const char *ctl_clean(const char *from) {
    static char room[ROOM][160];
    static unsigned next;
    char *text = room[next++ % ROOM];

    snprintf(text, sizeof(room[0]), "%s", from);
    ctl_clean_text(text);
    return text;
}

int ctl_print_json(struct json_object *object) {
    int ok;

    ok = printf("%s\n",
                json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)) > 0 &&
         fflush(stdout) == 0;
    json_object_put(object);
    if (!ok)
        perror("droppablectl: cannot write");
    return ok ? CTL_OK : CTL_FAILURE;
}

void ctl_add(struct json_object *object, const char *key, uint64_t value) {
    json_object_object_add(object, key, json_object_new_uint64(value));
}

void ctl_add_limit(struct json_object *object, const char *key, uint64_t value) {
    json_object_object_add(object, key, value == UINT64_MAX ? NULL : json_object_new_uint64(value));
}

struct json_object *ctl_json_text(const char *text, size_t size) {
    char *utf8 = malloc(3 * size + 1);
    struct json_object *object;

    if (!utf8)
        return NULL;
    ctl_make_utf8(text, size, utf8);
    object = json_object_new_string(utf8);
    free(utf8);
    return object;
}

void ctl_add_text(struct json_object *object, const char *key, const char *value) {
    json_object_object_add(object, key, ctl_json_text(value, strlen(value)));
}

void ctl_add_bool(struct json_object *object, const char *key, bool value) {
    json_object_object_add(object, key, json_object_new_boolean(value));
}

void ctl_add_options(struct json_object *object, const char *key, uint64_t options) {
    struct json_object *array = json_object_new_array();
    const char *name;

    while ((name = options_next_name(&options)))
        json_object_array_add(array, json_object_new_string(name));
    json_object_object_add(object, key, array);
}

void ctl_add_sources(struct json_object *object, const char *key, uint64_t sources) {
    struct json_object *array = json_object_new_array();

    for (uint32_t source = DRP_SOURCE_SAMPLER; source <= DRP_SOURCE_LAST; source++)
        if (sources & UINT64_C(1) << source)
            json_object_array_add(array, json_object_new_string(ctl_source_name(source)));
    json_object_object_add(object, key, array);
}
