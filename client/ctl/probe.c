/* SPDX-License-Identifier: MIT */

/* `probe`: what this system can do, backend by feature, and why not. */

#include "choice.h"
#include "ctl.h"

#include <stdio.h>
#include <string.h>

#define N_BACKENDS 3

static const enum drp_backend backends[N_BACKENDS] = {DRP_BACKEND_DAEMON, DRP_BACKEND_NATIVE, DRP_BACKEND_NONE};

/* ---- for people ---- */

/* A reason that several features share is told once. */
static void print_reasons(const struct drp_features *features, enum drp_backend backend) {
    const char *name, *reason, *other_name, *other;

    if (drp_features_get(features, 0, backend, &name, &reason) == 0) {
        printf("%s is not %s: %s\n", choice_name(backend), name, ctl_clean(reason));
        return;
    }
    for (unsigned i = 0; drp_features_get(features, i, backend, &name, &reason) >= 0; i++) {
        bool told = false;

        for (unsigned k = 0; k < i && !told && *reason; k++)
            told = drp_features_get(features, k, backend, &other_name, &other) == 0 && strcmp(other, reason) == 0;
        if (!*reason || told)
            continue;
        printf("%s lacks %s", choice_name(backend), name);
        for (unsigned k = i + 1; drp_features_get(features, k, backend, &other_name, &other) >= 0; k++)
            if (strcmp(other, reason) == 0)
                printf(", %s", other_name);
        printf(": %s\n", ctl_clean(reason));
    }
}

static void print_features(const struct drp_features *features) {
    const char *name = "", *reason;
    int given[N_BACKENDS];

    printf("%-16s", "feature");
    for (int b = 0; b < N_BACKENDS; b++)
        printf(" %-7s", choice_name(backends[b]));
    for (unsigned i = 0;; i++) {
        for (int b = 0; b < N_BACKENDS; b++)
            given[b] = drp_features_get(features, i, backends[b], &name, &reason);
        printf("\n");
        if (given[0] < 0)
            break;
        printf("%-16s", name);
        for (int b = 0; b < N_BACKENDS; b++)
            printf(" %-7s", given[b] ? "yes" : "no");
    }
    for (int b = 0; b < N_BACKENDS; b++)
        print_reasons(features, backends[b]);
}

/* ---- for programs ---- */

/* An errno as number and as text. */
static void add_error(struct json_object *object, const char *key, const char *text_key, int error) {
    json_object_object_add(object, key, json_object_new_int(-error));
    ctl_add_text(object, text_key, error ? strerror(-error) : "");
}

static struct json_object *json_features(const struct drp_features *features) {
    struct json_object *object = json_object_new_object(), *row, *cell;
    const char *name, *reason;
    int given = 0;

    for (unsigned i = 0; given >= 0; i++) {
        row = json_object_new_object();
        for (int b = 0; b < N_BACKENDS; b++) {
            given = drp_features_get(features, i, backends[b], &name, &reason);
            if (given < 0)
                break;
            cell = json_object_new_object();
            ctl_add_bool(cell, "given", given);
            if (!given)
                json_object_object_add(cell, "reason", ctl_json_text(reason, strlen(reason)));
            json_object_object_add(row, choice_name(backends[b]), cell);
        }
        if (given >= 0)
            json_object_object_add(object, name, row);
        else
            json_object_put(row);
    }
    return object;
}

static struct json_object *json_probe(const struct drp_probe *probe, const struct drp_features *features) {
    struct json_object *object = json_object_new_object();
    struct json_object *native = json_object_new_object();
    struct json_object *daemon = json_object_new_object();

    ctl_add_bool(native, "available", probe->native);
    add_error(native, "error", "error_text", probe->native_error);
    ctl_add_bool(daemon, "available", probe->daemon);
    add_error(daemon, "error", "error_text", probe->daemon_error);
    ctl_add_text(daemon, "socket", probe->daemon_socket);
    ctl_add_options(daemon, "options", probe->daemon_regions);
    ctl_add_text(daemon, "interception", ctl_interception_name((uint32_t)probe->daemon_interception));
    add_error(daemon, "interception_error", "interception_error_text", probe->interception_error);
    add_error(daemon, "signal_error", "signal_error_text", probe->signal_error);
    json_object_object_add(object, "native", native);
    json_object_object_add(object, "daemon", daemon);
    json_object_object_add(object, "features", json_features(features));
    return object;
}

int ctl_probe(const struct ctl_options *options) {
    struct drp_config config = {
        .struct_size = sizeof(config),
        .socket_path = options->socket,
        .name = "droppablectl",
    };
    struct drp_features *features = NULL;
    struct drp_probe probe;
    int r, status = CTL_OK;

    r = drp_get_probe(&config, &probe);
    if (r == 0)
        r = drp_features_new(&features, &config);
    if (r < 0)
        return ctl_fail("probe", r);
    if (options->json) {
        status = ctl_print_json(json_probe(&probe, features));
    } else {
        printf("socket %s\n\n", ctl_clean(probe.daemon_socket));
        print_features(features);
    }
    drp_features_free(features);
    return status;
}
