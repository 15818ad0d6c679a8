/* SPDX-License-Identifier: MIT */

/* `limit`: what a region, a process, a user or a cgroup may have; sets what the command line names, and shows all of it. */

#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_bytes(const char *name, uint64_t bytes) {
    if (bytes == UINT64_MAX)
        printf("%-9s %10s\n", name, "infinity");
    else
        printf("%-9s %10s MiB\n", name, ctl_mib(bytes));
}

static void print_limits(const struct drp_wire_limit_reply *reply) {
    if (reply->mask & DRP_LIMIT_BUDGET)
        print_bytes("budget", reply->effective.budget);
    print_bytes("resident", reply->resident);
    if (reply->mask & DRP_LIMIT_QUOTA)
        print_bytes("quota", reply->effective.quota);
    if (reply->mask & DRP_LIMIT_SHARE)
        printf("%-9s %10" PRIu32 "\n", "share", reply->effective.share);
    if (reply->mask & DRP_LIMIT_PRIORITY)
        printf("%-9s %10s\n", "priority", ctl_priority_name(reply->effective.priority));
}

static struct json_object *json_limits(const struct drp_wire_limit_reply *reply) {
    struct json_object *object = json_object_new_object();

    if (reply->mask & DRP_LIMIT_BUDGET)
        ctl_add_limit(object, "budget", reply->effective.budget);
    if (reply->mask & DRP_LIMIT_QUOTA)
        ctl_add_limit(object, "quota", reply->effective.quota);
    if (reply->mask & DRP_LIMIT_SHARE)
        ctl_add(object, "share", reply->effective.share);
    if (reply->mask & DRP_LIMIT_PRIORITY)
        ctl_add_text(object, "priority", ctl_priority_name(reply->effective.priority));
    ctl_add(object, "resident_bytes", reply->resident);
    return object;
}

static uint32_t scope_of(uint32_t given) {
    return given & CTL_REGION ? DRP_LIMIT_REGION
           : given & CTL_PID  ? DRP_LIMIT_CLIENT
           : given & CTL_USER ? DRP_LIMIT_USER
                              : DRP_LIMIT_CGROUP;
}

int ctl_limit(const struct ctl_options *options) {
    struct drp_wire_limit request = {
        .header.type = DRP_WIRE_LIMIT,
        .scope = scope_of(options->given),
        .mask = (options->given & CTL_BUDGET ? DRP_LIMIT_BUDGET : 0) |
                (options->given & CTL_QUOTA ? DRP_LIMIT_QUOTA : 0) | (options->given & CTL_SHARE ? DRP_LIMIT_SHARE : 0) |
                (options->given & CTL_PRIORITY ? DRP_LIMIT_PRIORITY : 0),
        .id = options->id,
        .values = options->values,
    };
    struct drp *d;
    int status;
    int r;

    if (options->cgroup)
        strcpy(request.path, options->cgroup); /* its length was checked */
    status = ctl_connect(options, &d);
    if (status)
        return status;
    r = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    if (r == -EINVAL) {
        fprintf(stderr, "droppablectl: limit: out of range (sizes: 4K to 1024T), or there is no such limit of this\n");
        status = CTL_FAILURE;
    } else if (r < 0)
        status = ctl_fail_for(options, "limit", r);
    else if (options->json)
        status = ctl_print_json(json_limits(&d->link.packet->message.limit_reply));
    else
        print_limits(&d->link.packet->message.limit_reply);
    context_free(d);
    return status;
}
