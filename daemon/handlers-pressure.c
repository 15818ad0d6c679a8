/* SPDX-License-Identifier: MIT */
/*
 * Requests about what pressure does: who may have how much (LIMIT), a drop in the policy's order (FREE), what was dropped for whom and why (WHY,
 * HISTOGRAMS).
 */

#include "handlers.h"

#include "budget.h"
#include "container.h"
#include "crash-point.h"
#include "operation.h"
#include "report.h"
#include "server.h"

#include <errno.h>
#include <stddef.h>

/* ---- LIMIT ---- */

static_assert(DRP_LIMIT_REGION == (int)BUDGET_REGION && DRP_LIMIT_CLIENT == (int)BUDGET_CLIENT &&
                  DRP_LIMIT_USER == (int)BUDGET_USER && DRP_LIMIT_CGROUP == (int)BUDGET_CGROUP,
              "scopes have the numbers of the wire");
static_assert(DRP_LIMIT_BUDGET == LIMIT_BIT(LIMIT_BUDGET) && DRP_LIMIT_QUOTA == LIMIT_BIT(LIMIT_QUOTA) &&
                  DRP_LIMIT_SHARE == LIMIT_BIT(LIMIT_SHARE) && DRP_LIMIT_PRIORITY == LIMIT_BIT(LIMIT_PRIORITY),
              "kinds have the bits of the wire");

static uint32_t limit_error(int error) {
    switch (error) {
    case -EPERM:
        return DRP_WIRE_ERROR_PERMISSION;
    case -ENOENT:
        return DRP_WIRE_ERROR_NOT_FOUND;
    case -ERANGE:
    case -EINVAL:
        return DRP_WIRE_ERROR_INVALID;
    case -ENOSPC:
        return DRP_WIRE_ERROR_QUOTA;
    default:
        return DRP_WIRE_ERROR_MEMORY;
    }
}

static uint64_t effective(const struct limit_values *values, enum limit_kind kind) {
    return values->mask & LIMIT_BIT(kind) ? values->of[kind] : 0;
}

/* What it is about, as long as that is the session's own: found without a look at what others have. */
static struct budget_object own_object(const struct connection *connection, const struct drp_wire_limit *limit) {
    struct session *session = connection->session;
    struct budget_object object = {.scope = (enum budget_scope)limit->scope, .id = limit->id, .path = limit->path};

    if (session && limit->scope == DRP_LIMIT_CLIENT && limit->id == 0) {
        object.scope = BUDGET_SESSION;
        object.session = session;
    } else if (session && limit->scope == DRP_LIMIT_REGION)
        object.region = session_find_region(session, limit->id);
    return object;
}

bool is_own_limit(const struct connection *connection, const struct drp_wire_limit *limit) {
    struct budget_object object = own_object(connection, limit);

    return object.session || object.region;
}

static struct region *find_region(struct manager *manager, uint64_t id) {
    struct region *region;
    struct home *home;

    LIST_FOREACH (home, &manager->homes, link) {
        LIST_FOREACH (region, &home->regions, link)
            if (region->id == id)
                return region;
    }
    return NULL;
}

void handle_limit(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_limit *limit = &packet->message.limit;
    struct manager *manager = connection->server->manager;
    struct budget_object object = own_object(connection, limit);
    struct limit_values values = {.mask = limit->mask}, found;
    struct drp_wire_limit_reply reply;
    int r;

    if (object.scope == BUDGET_REGION && !object.region)
        object.region = find_region(manager, limit->id);
    values.of[LIMIT_BUDGET] = limit->values.budget;
    values.of[LIMIT_QUOTA] = limit->values.quota;
    values.of[LIMIT_SHARE] = limit->values.share;
    values.of[LIMIT_PRIORITY] = limit->values.priority;
    r = budget_set(manager, connection->uid, is_administrator(connection), &object, &values, &found);
    if (r < 0) {
        reply_error(connection, packet, limit_error(r));
        return;
    }
    CRASH_POINT("limit-set");
    reply = (struct drp_wire_limit_reply){
        .effective.budget = effective(&found, LIMIT_BUDGET),
        .effective.quota = effective(&found, LIMIT_QUOTA),
        .effective.share = (uint32_t)effective(&found, LIMIT_SHARE),
        .effective.priority = (uint32_t)effective(&found, LIMIT_PRIORITY),
        .resident = report_resident(manager, &object),
        .mask = found.mask,
    };
    connection_reply(connection, limit->header.type, limit->header.serial, &reply, sizeof(reply), NULL, 0);
}

/* ---- FREE ---- */

/* Whose threads do it is not this session's: the operation may outlive it, and never looks at it. */
static void free_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct pressure_hand *hand = &operation->hand;
    struct drp_wire_drop_reply reply = {.freed = hand->freed, .pinned = hand->pinned, .failed = hand->failed};

    pthread_mutex_lock(&operation->manager->lock);
    domain_unref(hand->domain);
    pthread_mutex_unlock(&operation->manager->lock);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

/* In the pressure thread. */
static void hand_done(struct pressure_hand *hand) {
    struct operation *operation = container_of(hand, struct operation, hand);

    manager_complete(operation->manager, &operation->completion);
}

void handle_free(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_free *request = &packet->message.free;
    struct manager *manager = connection->server->manager;
    struct operation *operation;
    struct domain *domain;

    if (!is_administrator(connection)) {
        reply_error(connection, packet, DRP_WIRE_ERROR_PERMISSION);
        return;
    }
    operation = operation_new(connection, &request->header, free_done);
    if (!operation)
        return;
    pthread_mutex_lock(&manager->lock);
    domain = report_domain(manager, request->path);
    if (domain) {
        domain->refs++;
        operation->hand = (struct pressure_hand){.domain = domain, .wanted = request->wanted, .done = hand_done};
        pressure_ask(&manager->pressure, &operation->hand);
    }
    pthread_mutex_unlock(&manager->lock);
    if (!domain)
        operation_finish(operation, DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
}

/* ---- WHY, HISTOGRAMS ---- */

void handle_why(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_why_reply reply = {0};

    report_why(connection->server->manager, packet->message.list.cursor, &reply);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply,
                     offsetof(struct drp_wire_why_reply, entries) + reply.count * sizeof(reply.entries[0]), NULL, 0);
}

void handle_histograms(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_histograms_reply reply = {0};

    report_histograms(connection->server->manager, &reply);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply, sizeof(reply),
                     NULL, 0);
}
