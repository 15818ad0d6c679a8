/* SPDX-License-Identifier: MIT */

/*
 * Native regions and the service: if there is one, it is told of their addresses, counts what is resident, and drops from them in the policy's order and
 * down to budgets. They are regions all the same without it, so what it does not take is no error, unless a budget was asked for.
 */

#include "client.h"
#include "local.h"

#include <errno.h>

static int refused(int error) {
    switch (error) {
    case -EPERM:
        return error_detail(
            -EOPNOTSUPP,
            "the service may not drop this process's own memory: it needs CAP_SYS_NICE, and CAP_SYS_PTRACE for other "
            "users'");
    case -EINVAL:
        return error_detail(-EOPNOTSUPP, "the service finds no MAP_DROPPABLE memory at the region's addresses");
    case -EDQUOT:
        return error_detail(error, "the region is over a limit of the service: see 'droppablectl limit'");
    default:
        return error;
    }
}

int native_register(struct drp_region *r, struct link *link) {
    struct drp_wire_native request = {
        .header.type = DRP_WIRE_NATIVE,
        .address = (uintptr_t)r->address,
        .length = r->size,
        .budget = atomic_load(&r->budget),
        .share = atomic_load(&r->share),
        .priority = atomic_load(&r->priority),
    };
    int error;

    if (!(link->hello.features & DRP_FEATURE_NATIVE))
        return error_detail(-EOPNOTSUPP, "the service here takes no native regions");
    error = link_call(link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    if (error < 0)
        return refused(error);
    r->known = true;
    atomic_store(&r->id, link->packet->message.id.id);
    atomic_store(&r->connected, true);
    return 0;
}

int native_tell(struct drp_region *r) {
    struct drp *d = r->context;
    int error = context_lock(d);

    if (error < 0)
        return error;
    error = native_register(r, &d->link);
    context_unlock(d);
    return error;
}
