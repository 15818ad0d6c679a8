/* SPDX-License-Identifier: MIT */

/*
 * Budgets, shares and priorities: what a program says of its own memory. The daemon keeps them for as long as it lives; what was asked for
 * is kept here as well, for the next one.
 */

#include "cancel.h"
#include "client.h"
#include "local.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* As it was in the first release. */
#define LIMITS_SIZE_MIN (offsetof(struct drp_region_limits, priority) + sizeof(enum drp_priority))

/* In the program's words UINT64_MAX takes back what was set; on the wire that is 0. */
static uint64_t to_wire(uint64_t budget) {
    return budget == UINT64_MAX ? 0 : budget;
}

static int refused(int error, const char *what) {
    switch (error) {
    case -EPERM:
        return error_detail(error, "%s: more than the service's configuration or its administrator allows", what);
    case -EINVAL:
        return error_detail(error, "%s: out of range", what);
    default:
        return error;
    }
}

static int call(struct link *link, uint32_t scope, uint64_t id, uint32_t mask, const struct drp_wire_limits *values) {
    struct drp_wire_limit request = {
        .header.type = DRP_WIRE_LIMIT, .scope = scope, .mask = mask, .id = id, .values = *values};

    return link_call(link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
}

int drp_set_budget(struct drp *d, uint64_t bytes) {
    NOT_CANCELLED;
    struct drp_wire_limits values = {.budget = to_wire(bytes)};
    int r;

    r = context_lock(d);
    if (r < 0)
        return r;
    r = call(&d->link, DRP_LIMIT_CLIENT, 0, DRP_LIMIT_BUDGET, &values);
    if (r == 0)
        atomic_store(&d->budget, values.budget);
    context_unlock(d);
    return refused(r, "the budget of this process");
}

int limits_hand_over(struct drp *d, struct link *link) {
    struct drp_wire_limits values = {.budget = atomic_load(&d->budget)};

    return values.budget ? call(link, DRP_LIMIT_CLIENT, 0, DRP_LIMIT_BUDGET, &values) : 0;
}

/* Is there, or should there be, a daemon that keeps a region's limits? */
static bool is_served(const struct drp_region *r) {
    return r->backend == DRP_BACKEND_DAEMON || (r->backend == DRP_BACKEND_NATIVE && atomic_load(&r->connected));
}

/* Sets one limit of a region with the daemon and, if that took it, here. */
static int set_in_region(struct drp_region *r, uint32_t mask, const struct drp_wire_limits *values, const char *what) {
    NOT_CANCELLED;
    struct drp *d = r->context;
    int error;

    if (!is_served(r))
        return local_refuse_limit(r);
    error = context_lock(d);
    if (error < 0)
        return error;
    if (atomic_load(&r->connected))
        error = call(&d->link, DRP_LIMIT_REGION, atomic_load(&r->id), mask, values);
    else
        error = error_detail(-ENOTCONN, "the service does not hold this region: it is plain memory");
    if (error == 0 && mask == DRP_LIMIT_BUDGET)
        atomic_store(&r->budget, values->budget);
    if (error == 0 && mask == DRP_LIMIT_SHARE)
        atomic_store(&r->share, values->share);
    if (error == 0 && mask == DRP_LIMIT_PRIORITY)
        atomic_store(&r->priority, (uint8_t)values->priority);
    context_unlock(d);
    return refused(error, what);
}

int drp_region_set_budget(struct drp_region *r, uint64_t bytes) {
    struct drp_wire_limits values = {.budget = to_wire(bytes)};

    return set_in_region(r, DRP_LIMIT_BUDGET, &values, "the budget of the region");
}

int drp_region_set_share(struct drp_region *r, unsigned share) {
    struct drp_wire_limits values = {.share = share};

    if (share < 1 || share > 10000)
        return error_detail(-EINVAL, "a share of %u: 1 to 10000", share);
    return set_in_region(r, DRP_LIMIT_SHARE, &values, "the share of the region");
}

int drp_region_set_priority(struct drp_region *r, enum drp_priority priority) {
    struct drp_wire_limits values = {.priority = (uint32_t)priority};

    if (priority < DRP_PRIORITY_LOW || priority > DRP_PRIORITY_HIGH)
        return error_detail(-EINVAL, "a priority of %d: 1 (low) to 3 (high)", (int)priority);
    return set_in_region(r, DRP_LIMIT_PRIORITY, &values, "the priority of the region");
}

int limits_ask(const struct drp_region *r, struct link *link, struct drp_region_limits *ret) {
    static const struct drp_wire_limits none;
    const struct drp_wire_limit_reply *reply = &link->packet->message.limit_reply;
    int error = call(link, DRP_LIMIT_REGION, atomic_load(&r->id), 0, &none);

    if (error == 0)
        *ret = (struct drp_region_limits){
            .budget = reply->effective.budget,
            .resident = reply->resident,
            .share = reply->effective.share,
            .priority = (enum drp_priority)reply->effective.priority,
        };
    return error;
}

int limits_get(struct drp_region *r, struct drp_region_limits *ret) {
    struct drp *d = r->context;
    int error;

    if (!is_served(r)) {
        local_get_limits(r, ret);
        return 0;
    }
    error = context_lock(d);
    if (error < 0)
        return error;
    if (atomic_load(&r->connected))
        error = limits_ask(r, &d->link, ret);
    else
        error = error_detail(-ENOTCONN, "the service does not hold this region: it is plain memory");
    context_unlock(d);
    return error;
}

int drp_region_get_limits(struct drp_region *r, struct drp_region_limits *ret) {
    NOT_CANCELLED;
    struct drp_region_limits limits;
    size_t size = ret->struct_size;
    int error;

    if (size < LIMITS_SIZE_MIN)
        return error_detail(-EINVAL, "drp_region_limits.struct_size is %zu: set it to sizeof(struct drp_region_limits)",
                            size);
    error = limits_get(r, &limits);
    if (error < 0)
        return error;
    limits.struct_size = size;
    memset(ret, 0, size); /* of a program that is newer than we */
    memcpy(ret, &limits, size < sizeof(limits) ? size : sizeof(limits));
    return 0;
}

/* ---- refusals ---- */

/* The quota of somebody in words, for a sentence. */
static void tell_quota(struct drp *d, uint32_t scope, uint64_t id, char *text, size_t size) {
    static const struct drp_wire_limits none;
    int r = call(&d->link, scope, id, 0, &none);
    uint64_t quota = d->link.packet->message.limit_reply.effective.quota;

    if (r < 0 || quota == UINT64_MAX)
        snprintf(text, size, "any number of");
    else
        snprintf(text, size, "%" PRIu64, quota);
}

int limits_explain(struct drp *d, int error, size_t size) {
    const struct drp_wire_hello_reply *hello = &d->link.hello;
    char of_process[32], of_user[32];

    tell_quota(d, DRP_LIMIT_CLIENT, 0, of_process, sizeof(of_process));
    tell_quota(d, DRP_LIMIT_USER, geteuid(), of_user, sizeof(of_user));
    return error_detail(
        error,
        "a region of %zu bytes is over a limit: %" PRIu64
        " bytes a region, %u regions and %s bytes for this process, %s bytes for its user; see [Limits] of "
        "the service's configuration, and 'droppablectl limit'",
        size, hello->max_region_bytes, hello->max_regions, of_process, of_user);
}
