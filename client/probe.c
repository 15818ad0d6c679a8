/* SPDX-License-Identifier: MIT */

/*
 * What this system can do, found by trying: an mmap(2) for the kernel's own droppable memory, a connection for the
 * service. Keeps nothing: the connection, its userfaultfd included, is closed before the call returns.
 */

#include "cancel.h"
#include "choice.h"
#include "client.h"

#include <errno.h>
#include <stdio.h>

static void probe_daemon(struct drp *d, const struct drp_config *config, struct drp_probe *probe) {
    int r = context_connect(d, config);

    if (d->socket_path)
        snprintf(probe->daemon_socket, sizeof(probe->daemon_socket), "%s", d->socket_path);
    if (r == 0)
        r = context_settle(d, &d->link);
    probe->daemon_error = r;
    probe->daemon = r == 0;
    if (r < 0)
        return;
    probe->daemon_regions = d->link.hello.region_options;
    probe->signal_error = probe->daemon_regions & DRP_REGION_SIGNAL ? signal_probe() : -EOPNOTSUPP;
    if (probe->signal_error < 0)
        probe->daemon_regions &= ~DRP_REGION_SIGNAL;
    probe->daemon_interception = (enum drp_interception)atomic_load(&d->interception);
    probe->interception_error = atomic_load(&d->interception_error);
}

int drp_get_probe(const struct drp_config *config, struct drp_probe *ret) {
    NOT_CANCELLED;
    struct drp_probe probe = {0};
    struct drp *d;
    int r;

    r = context_new(&d, config);
    if (r == -EINVAL)
        return r;
    probe.native_error = choice_native_error();
    probe.native = probe.native_error == 0;
    if (r == 0) {
        probe_daemon(d, config, &probe);
        context_free(d);
    } else {
        probe.daemon_error = r;
    }
    *ret = probe;
    return 0;
}
