/* SPDX-License-Identifier: MIT */

/*
 * Native regions and the service: if there is one, it is told of their addresses, counts what is resident, and drops from them in the policy's order and
 * down to budgets. They are regions all the same without it, so what it does not take is no error, unless a budget was asked for.
 */

#include "client.h"
#include "local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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

/* With the pagemap, which is opened, sent and closed under the fork lock, as the userfaultfd is: no child gets it. */
static int send_native(struct link *link, struct drp_wire_native *request) {
    int pagemap, error;

    fork_lock();
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        error = error_detail(error_is_shortage(-errno) ? -errno : -EOPNOTSUPP,
                             "the service counts native regions by /proc/self/pagemap, which cannot be opened: %s",
                             strerror(errno));
    else {
        error = link_send(link, request, sizeof(*request), &pagemap, 1, 0);
        close(pagemap);
    }
    fork_unlock();
    return error;
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
    error = send_native(link, &request);
    if (error < 0)
        return error;
    error = link_wait(link, DRP_WIRE_NATIVE, REQUEST_TIMEOUT_MS);
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
    if (!r->known) /* by the watcher, or whoever else made the connection */
        error = native_register(r, &d->link);
    context_unlock(d);
    return error;
}
