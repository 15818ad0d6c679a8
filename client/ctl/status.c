/* SPDX-License-Identifier: MIT */

/*
 * The verbs that ask the service: one connection, one or a few requests, then the answer as text or as JSON. The
 * connection is the library's, without the watcher and without regions. Numbers are the daemon's own; nothing is
 * computed here.
 */

#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int ctl_status(const struct ctl_options *options) {
    struct drp_wire_header request = {.type = DRP_WIRE_STATUS};
    struct drp *d;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    if (r < 0)
        status = ctl_fail("status", r);
    else if (options->json)
        status = ctl_print_json(ctl_json_status(&d->link.packet.message.status_reply));
    else
        ctl_print_status(&d->link.packet.message.status_reply);
    context_free(d);
    return status;
}

/* All pages of the list. 0 or negative errno; *ret is malloc'd in either case, or NULL. */
static int fetch_list(struct drp *d, struct drp_wire_entry **ret, size_t *ret_n) {
    const struct drp_wire_list_reply *reply = &d->link.packet.message.list_reply;
    struct drp_wire_list request = {.header.type = DRP_WIRE_LIST};
    int r;

    do {
        struct drp_wire_entry *entries;

        r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
        if (r < 0)
            return r;
        entries = realloc(*ret, (*ret_n + DRP_WIRE_LIST_MAX) * sizeof(*entries));
        if (!entries)
            return error_detail(-ENOMEM, "the list has more than %zu entries", *ret_n);
        *ret = entries;
        for (uint32_t i = 0; i < reply->count; i++)
            entries[(*ret_n)++] = reply->entries[i];
        request.cursor = reply->next;
    } while (request.cursor != 0);
    return 0;
}

int ctl_list(const struct ctl_options *options) {
    struct drp_wire_entry *entries = NULL;
    struct drp *d;
    size_t n = 0;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    r = fetch_list(d, &entries, &n);
    if (r < 0)
        status = ctl_fail("list", r);
    else if (options->json)
        status = ctl_print_json(ctl_json_list(entries, n));
    else
        ctl_print_list(entries, n);
    free(entries);
    context_free(d);
    return status;
}

/* Two of the daemon's errors say more here than their errno does. */
static int drop_fail(const struct ctl_options *options, int error) {
    if (error == -ENOENT) {
        fprintf(stderr, "droppablectl: drop: the service knows no %s %llu\n",
                options->scope == DRP_SCOPE_REGION ? "region" : "process", (unsigned long long)options->id);
        return CTL_FAILURE;
    }
    if (error == -EPERM) {
        fprintf(stderr, "droppablectl: drop: not permitted; root, the service's user and the owner may\n");
        return CTL_FAILURE;
    }
    return ctl_fail("drop", error);
}

int ctl_drop(const struct ctl_options *options) {
    struct drp_wire_control_drop request = {
        .header.type = DRP_WIRE_CONTROL_DROP,
        .scope = options->scope,
        .id = options->id,
    };
    const struct drp_wire_drop_reply *reply;
    struct drp *d;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    reply = &d->link.packet.message.drop_reply;
    r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_LONG_MS);
    if (r < 0) {
        status = drop_fail(options, r);
    } else if (options->json) {
        struct json_object *object = json_object_new_object();

        json_object_object_add(object, "freed_bytes", json_object_new_uint64(reply->freed));
        json_object_object_add(object, "pinned_bytes", json_object_new_uint64(reply->pinned));
        json_object_object_add(object, "failed_bytes", json_object_new_uint64(reply->failed));
        status = ctl_print_json(object);
    } else {
        printf("freed   %10s MiB\npinned  %10s MiB\nfailed  %10s MiB\n", ctl_mib(reply->freed), ctl_mib(reply->pinned),
               ctl_mib(reply->failed));
    }
    context_free(d);
    return status;
}

int ctl_probe(const struct ctl_options *options) {
    struct drp_config config = {
        .struct_size = sizeof(config),
        .socket_path = options->socket,
        .name = "droppablectl",
    };
    struct drp_probe probe;
    int r;

    r = drp_get_probe(&config, &probe);
    if (r < 0)
        return ctl_fail("probe", r);
    if (options->json)
        return ctl_print_json(ctl_json_probe(&probe));
    ctl_print_probe(&probe);
    return CTL_OK;
}
