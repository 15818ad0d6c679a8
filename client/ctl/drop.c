/* SPDX-License-Identifier: MIT */

/* `drop` and `free`: memory goes because somebody says so, of somebody named or in the policy's order. */

#include "ctl.h"

#include <stdio.h>
#include <string.h>

/* Sends a request whose reply is that of a drop, and prints it. */
static int call(const struct ctl_options *options, const char *what, void *request, size_t size) {
    const struct drp_wire_drop_reply *reply;
    struct drp *d;
    int status;
    int r;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    reply = &d->link.packet.message.drop_reply;
    r = link_call(&d->link, request, size, NULL, 0, REQUEST_TIMEOUT_LONG_MS);
    if (r < 0) {
        status = ctl_fail_for(options, what, r);
    } else if (options->json) {
        struct json_object *object = json_object_new_object();

        ctl_add(object, "freed_bytes", reply->freed);
        ctl_add(object, "pinned_bytes", reply->pinned);
        ctl_add(object, "failed_bytes", reply->failed);
        status = ctl_print_json(object);
    } else {
        printf("freed   %10s MiB\npinned  %10s MiB\nfailed  %10s MiB\n", ctl_mib(reply->freed), ctl_mib(reply->pinned),
               ctl_mib(reply->failed));
    }
    context_free(d);
    return status;
}

int ctl_drop(const struct ctl_options *options) {
    struct drp_wire_control_drop request = {
        .header.type = DRP_WIRE_CONTROL_DROP,
        .scope = options->given & CTL_ALL      ? DRP_SCOPE_ALL
                 : options->given & CTL_REGION ? DRP_SCOPE_REGION
                                               : DRP_SCOPE_PID,
        .id = options->id,
    };

    return call(options, "drop", &request, sizeof(request));
}

int ctl_free(const struct ctl_options *options) {
    struct drp_wire_free request = {.header.type = DRP_WIRE_FREE, .wanted = options->size};

    if (options->cgroup)
        strcpy(request.path, options->cgroup); /* its length was checked */
    return call(options, "free", &request, sizeof(request));
}
