/* SPDX-License-Identifier: MIT */

/* `drop` and `free`: memory goes because somebody says so, of somebody named or in the policy's order. */

#include "ctl.h"

#include <stdio.h>
#include <string.h>

/* So that a deadline measures the daemon's health and not the size. */
#define FREE_PIECE (UINT64_C(4) << 30)

/* Prints what all requests together did, or why one failed. Exit status. */
static int finish(const struct ctl_options *options, const char *what, int error, const struct drp_wire_drop_reply *sum) {
    struct json_object *object;

    if (error < 0)
        return ctl_fail_for(options, what, error);
    if (!options->json) {
        printf("freed   %10s MiB\npinned  %10s MiB\nfailed  %10s MiB\n", ctl_mib(sum->freed), ctl_mib(sum->pinned),
               ctl_mib(sum->failed));
        if (sum->failed > 0)
            fprintf(stderr, "droppablectl: %s: busy: what failed is held up, or too many drops of it wait\n", what);
        return CTL_OK;
    }
    object = json_object_new_object();
    ctl_add(object, "freed_bytes", sum->freed);
    ctl_add(object, "pinned_bytes", sum->pinned);
    ctl_add(object, "failed_bytes", sum->failed);
    return ctl_print_json(object);
}

/* Sends a request whose reply is that of a drop, and adds that to the sum. */
static int call(struct drp *d, void *request, size_t size, struct drp_wire_drop_reply *sum) {
    const struct drp_wire_drop_reply *reply = &d->link.packet->message.drop_reply;
    int r = link_call(&d->link, request, size, NULL, 0, REQUEST_TIMEOUT_LONG_MS);

    if (r < 0)
        return r;
    sum->freed += reply->freed;
    sum->pinned += reply->pinned;
    sum->failed += reply->failed;
    return 0;
}

int ctl_drop(const struct ctl_options *options) {
    struct drp_wire_control_drop request = {
        .header.type = DRP_WIRE_CONTROL_DROP,
        .scope = options->given & CTL_ALL      ? DRP_SCOPE_ALL
                 : options->given & CTL_REGION ? DRP_SCOPE_REGION
                                               : DRP_SCOPE_PID,
        .id = options->id,
    };
    struct drp_wire_drop_reply sum = {0};
    struct drp *d;
    int status;

    status = ctl_connect(options, &d);
    if (status)
        return status;
    status = finish(options, "drop", call(d, &request, sizeof(request), &sum), &sum);
    context_free(d);
    return status;
}

int ctl_free(const struct ctl_options *options) {
    struct drp_wire_free request = {.header.type = DRP_WIRE_FREE};
    struct drp_wire_drop_reply sum = {0};
    uint64_t asked = 0;
    struct drp *d;
    int status;
    int r;

    if (options->cgroup)
        strcpy(request.path, options->cgroup); /* its length was checked */
    status = ctl_connect(options, &d);
    if (status)
        return status;
    do {
        request.wanted = options->size - asked < FREE_PIECE ? options->size - asked : FREE_PIECE;
        asked += request.wanted;
        r = call(d, &request, sizeof(request), &sum);
    } while (r == 0 && asked < options->size && sum.freed >= asked);
    status = finish(options, "free", r, &sum);
    context_free(d);
    return status;
}
