/* SPDX-License-Identifier: MIT */
/* Requests about shared regions. In the loop, as all handlers; what has to wait for the region's dropper is an operation. */

#include "handlers-region.h"

#include "crash-point.h"
#include "handlers.h"
#include "log.h"
#include "quota.h"
#include "report.h"
#include "server.h"
#include "shared.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* ---- CREATE_SHARED, OPEN ---- */

/*
 * After a daemon's death a name comes back with a process of its user's, and with no other: whoever once had a region could hand it over, as long
 * as he kept the object, in the place of one that the user has made since.
 */
static void take_name(const struct connection *connection, struct shared *shared, const struct passport *passport) {
    if (!shared->name[0] && may_have(connection, shared->uid))
        shared_take_name(connection->server->manager, shared, passport);
}

/* The region's home, and the maker's share of it. On failure the region is still the caller's. */
static int link_shared(struct connection *connection, const struct passport *passport, struct region *region,
                       int state_fd, struct shared **ret) {
    struct manager *manager = connection->server->manager;
    struct session *session = connection->session;
    int r;

    move_check_now(session);
    pthread_mutex_lock(&manager->lock);
    r = plans_reserve(&manager->pressure.plans, manager->n_regions + 1);
    if (r >= 0)
        r = shared_new(ret, manager, passport, region, state_fd, session->domain);
    if (r >= 0) {
        take_name(connection, *ret, passport);
        r = shared_open(*ret, session);
        budget_mark_pins(region);
        if (limit_is_set(&region->budget.of[LIMIT_BUDGET]))
            budgets_reload(manager);
        if (r < 0) { /* it has its home, and goes with it */
            shared_abandon(*ret);
            r = 0;
            *ret = NULL;
        }
        domain_look_now(session->domain);
    }
    pthread_mutex_unlock(&manager->lock);
    if (r >= 0)
        pressure_wake(&manager->pressure);
    return r;
}

/* The reply is an error, so the caller has no share. */
static void refuse_opened(struct operation *operation, uint32_t error) {
    struct shared *shared = shared_of(operation->region->home);

    if (operation->connection) { /* else all its shares go, or have gone */
        pthread_mutex_lock(&operation->manager->lock);
        shared_close(shared_share_of(shared, operation->session), false);
        pthread_mutex_unlock(&operation->manager->lock);
    }
    operation_finish(operation, error, NULL, 0);
}

/* Replies with the region and its descriptors: the state page and, with OPEN, the object. */
static void reply_region(struct operation *operation) {
    struct region *region = operation->region;
    struct drp_wire_create_reply reply;

    CRASH_POINT("shared-opened");
    region_fill_reply(&reply, region);
    if (region->adopt_error < 0)
        refuse_opened(operation, operation_error(region->adopt_error));
    else
        operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

/* Of whoever came back first. */
static void adopted(struct completion *completion) {
    struct operation *operation = operation_of(completion);

    operation->region->adopting = false;
    reply_region(operation);
}

/* Of the others, behind that. It did not come to its end: somebody holds it up, who need not be this one. */
static void joined(struct completion *completion) {
    struct operation *operation = operation_of(completion);

    if (operation->region->adopting)
        refuse_opened(operation, DRP_WIRE_ERROR_QUARANTINED);
    else
        reply_region(operation);
}

static bool add_copy(struct operation *operation, int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0)
        return false;
    operation_add_fd(operation, copy);
    return true;
}

/* Old state: of whoever hands the region over first; -1: behind that, if it is not finished. */
static void reply_opened(struct connection *connection, const struct drp_wire_header *header, struct shared *shared,
                         int old_state_fd) {
    struct operation *operation = operation_new(connection, header, old_state_fd < 0 ? joined : adopted);
    int r;

    if (!operation)
        return;
    operation->region = shared->region;
    if ((header->type != DRP_WIRE_ADOPT && !add_copy(operation, shared->region->data_fd)) ||
        !add_copy(operation, shared->state_fd)) {
        refuse_opened(operation, DRP_WIRE_ERROR_MEMORY);
        return;
    }
    if (old_state_fd < 0 && !shared->region->adopting) {
        reply_region(operation);
        return;
    }
    r = dropper_submit_adopt(&shared->home, shared->region, old_state_fd, old_state_fd < 0 ? NULL : shared_find_era,
                             region_finished, operation);
    if (r < 0)
        refuse_opened(operation, operation_error(r));
}

/* A region of this object, which is consumed, in a home of its own; the caller has the first share of it. */
static uint32_t found(struct connection *connection, const struct passport *passport, const struct region_shape *shape,
                      int data_fd, uint64_t budget, uint32_t share, struct shared **ret) {
    struct manager *manager = connection->server->manager;
    struct region *region;
    int state_fd;

    if (region_new(&region, &manager->kernel, shape, data_fd, &state_fd) < 0) {
        close(data_fd);
        return DRP_WIRE_ERROR_MEMORY;
    }
    manager->next_id++;
    CRASH_POINT("shared-made");
    region_set_worth(connection, region, budget, share);
    if (link_shared(connection, passport, region, state_fd, ret) < 0) {
        close(state_fd);
        region_release_object(region);
        region_free(region);
        return DRP_WIRE_ERROR_MEMORY;
    }
    return *ret ? DRP_WIRE_OK : DRP_WIRE_ERROR_MEMORY;
}

/* A file of the private tmpfs can be truncated for all who have it, so nobody gets one who did not ask for that. */
static uint64_t choose_options(const struct kernel *kernel, uint64_t asked) {
    return DRP_REGION_SHARED | (asked & DRP_REGION_SIGNAL) | (kernel->noswap ? asked & DRP_REGION_NO_SWAP : 0);
}

/* 0: *ret is made, and the caller has a share of it. Else an error. */
static uint32_t make_shared(struct connection *connection, const struct drp_wire_create_shared *message,
                            struct shared **ret) {
    struct manager *manager = connection->server->manager;
    const struct drp_wire_create *create = &message->create;
    uint32_t shift = create->chunk_shift ? create->chunk_shift : 16;
    uint64_t mask = (UINT64_C(1) << shift) - 1;
    struct region_shape shape = {.id = manager->next_id,
                                 .size = (create->size + mask) & ~mask,
                                 .options = choose_options(&manager->kernel, create->required | create->preferred),
                                 .chunk_shift = shift,
                                 .priority = create->priority ? create->priority : DRP_PRIORITY_NORMAL};
    struct passport passport = {.uid = connection->uid, .gid = connection->gid, .mode = message->mode};
    uint32_t error;
    int data_fd;

    shape.chunk_total = shape.size >> shift;
    passport.options = shape.options;
    passport.size = shape.size;
    strcpy(passport.name, message->name);
    if (create->required & ~shape.options)
        return DRP_WIRE_ERROR_UNSUPPORTED;
    error = quota_check(connection, shape.size, region_tables_most(shape.size, shift));
    if (error != DRP_WIRE_OK)
        return error;
    if (message->name[0] && shared_find(manager, connection->uid, message->name))
        return DRP_WIRE_ERROR_EXISTS;
    if (shared_make_object(&manager->kernel, &passport, &data_fd) < 0)
        return DRP_WIRE_ERROR_MEMORY;
    return found(connection, &passport, &shape, data_fd, create->budget, create->share, ret);
}

void handle_create_shared(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_create_shared *message = &packet->message.create_shared;
    struct shared *shared = NULL;
    uint32_t error = make_shared(connection, message, &shared);

    if (error != DRP_WIRE_OK)
        reply_error(connection, packet, error);
    else
        reply_opened(connection, &message->create.header, shared, -1);
}

static bool may_open(const struct connection *connection, const struct shared *shared) {
    if (may_have(connection, shared->uid))
        return true;
    if (report_in_group(connection->socket, connection->gid, shared->gid))
        return shared->mode & 0060;
    return shared->mode & 0006;
}

/* One share more for who may have it. */
static uint32_t join(struct connection *connection, struct shared *shared) {
    struct manager *manager = connection->server->manager;
    uint32_t error = quota_check(connection, shared->region->size, mapping_tables_most(shared->region->size));
    int r;

    if (error == DRP_WIRE_OK && shared->region->adopting && atomic_load(&shared->home.quarantined))
        error = DRP_WIRE_ERROR_QUARANTINED;
    if (error != DRP_WIRE_OK)
        return error;
    move_check_now(connection->session);
    pthread_mutex_lock(&manager->lock);
    r = plans_reserve(&manager->pressure.plans, manager->n_regions + 1);
    if (r >= 0)
        r = shared_open(shared, connection->session);
    pthread_mutex_unlock(&manager->lock);
    CRASH_POINT("shared-joined");
    return r < 0 ? operation_error(r) : DRP_WIRE_OK;
}

void handle_open(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_open *message = &packet->message.open;
    struct manager *manager = connection->server->manager;
    bool by_object = packet->n_fds == 1;
    struct shared *shared =
        by_object ? shared_find_object(manager, packet->fds[0]) : shared_find(manager, message->uid, message->name);
    uint32_t error;

    if (!shared)
        error = by_object ? DRP_WIRE_ERROR_DESCRIPTOR : DRP_WIRE_ERROR_NOT_FOUND;
    else if (!by_object && !may_open(connection, shared))
        error = DRP_WIRE_ERROR_PERMISSION;
    else
        error = join(connection, shared);
    if (error != DRP_WIRE_OK)
        reply_error(connection, packet, error);
    else
        reply_opened(connection, &message->header, shared, -1);
}

/* ---- ADOPT ---- */

static bool has_shape(const struct region *region, const struct drp_wire_adopt *adopt) {
    return region->size == adopt->size && region->chunk_shift == adopt->chunk_shift &&
           region->options == adopt->granted && region->chunk_total == adopt->chunk_total;
}

static uint32_t check_adopt(const struct drp_wire_adopt *adopt, const struct channel_packet *packet,
                            struct passport *ret) {
    if ((adopt->granted & ~(DRP_REGION_SIGNAL | DRP_REGION_NO_SWAP)) != DRP_REGION_SHARED || !region_is_whole(adopt))
        return DRP_WIRE_ERROR_INVALID;
    if (shared_read_passport(packet->fds[0], ret) < 0 || !shared_is_object(packet->fds[0], ret) ||
        ret->size != adopt->size || kernel_check_page_object(packet->fds[1], drp_state_bytes(adopt->chunk_total)) < 0)
        return DRP_WIRE_ERROR_DESCRIPTOR;
    return adopt->granted == ret->options ? DRP_WIRE_OK : DRP_WIRE_ERROR_INVALID;
}

/*
 * What it is worth beside others is for its user to say: by whichever of his processes said so before. Who has only opened it says nothing, and comes back
 * first as often as not.
 */
static void take_worth(const struct connection *connection, struct shared *shared, const struct drp_wire_adopt *adopt) {
    struct manager *manager = connection->server->manager;
    struct region *region = shared->region;
    const struct limit *limits = region->budget.of;

    if (!may_have(connection, shared->uid))
        return;
    pthread_mutex_lock(&manager->lock);
    region_set_worth(connection, region, limit_is_set(&limits[LIMIT_BUDGET]) ? 0 : adopt->budget,
                     limit_is_set(&limits[LIMIT_SHARE]) ? 0 : adopt->share);
    if (adopt->priority)
        region->priority = adopt->priority;
    if (limit_is_set(&limits[LIMIT_BUDGET]))
        budgets_reload(manager);
    pthread_mutex_unlock(&manager->lock);
}

/* The first one to come back with it makes it anew. */
static uint32_t remake(struct connection *connection, struct channel_packet *packet, const struct passport *passport,
                       struct shared **ret) {
    const struct drp_wire_adopt *adopt = &packet->message.adopt;
    struct region_shape shape = {.id = connection->server->manager->next_id,
                                 .size = adopt->size,
                                 .options = adopt->granted,
                                 .chunk_shift = adopt->chunk_shift,
                                 .priority = DRP_PRIORITY_NORMAL,
                                 .chunk_total = adopt->chunk_total};
    uint32_t error = quota_check(connection, adopt->size, region_tables_most(adopt->size, adopt->chunk_shift));

    if (error == DRP_WIRE_OK && manager_is_at_object(connection->session, packet->fds[0]))
        error = DRP_WIRE_ERROR_QUARANTINED;
    if (error == DRP_WIRE_OK)
        error = found(connection, passport, &shape, channel_packet_take(packet, 0), 0, 0, ret);
    if (error == DRP_WIRE_OK) /* without a mapping nothing is dropped yet, and then not before the others are known */
        (*ret)->region->adopting = (*ret)->region->held = true;
    return error;
}

void shared_adopt(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_adopt *adopt = &packet->message.adopt;
    struct passport passport;
    struct shared *shared = NULL;
    uint32_t error = check_adopt(adopt, packet, &passport);
    bool again = false;

    if (error == DRP_WIRE_OK) {
        shared = shared_find_object(connection->server->manager, packet->fds[0]);
        again = shared != NULL;
        if (again) {
            error = has_shape(shared->region, adopt) ? join(connection, shared) : DRP_WIRE_ERROR_INVALID;
            if (error == DRP_WIRE_OK)
                take_name(connection, shared, &passport);
        } else
            error = remake(connection, packet, &passport, &shared);
        if (error == DRP_WIRE_OK)
            take_worth(connection, shared, adopt);
    }
    if (error != DRP_WIRE_OK)
        reply_error(connection, packet, error);
    else
        reply_opened(connection, &adopt->header, shared, again ? -1 : packet->fds[1]);
    if (!again)
        server_tidy_shared(connection->server); /* from now on it is held */
}

/* ---- MAP, DESTROY ---- */

/* May the session map it once more? Each of its shares is for one mapping. */
uint32_t shared_prepare_map(struct operation *operation, const struct channel_packet *packet) {
    struct region *region = operation->region;
    struct shared *shared = shared_of(region->home);
    const struct share *share = shared_share_of(shared, operation->session);
    unsigned mapped = 0;
    int r;

    for (unsigned i = 0; i < region->n_mappings; i++)
        mapped += region->mappings[i]->session == operation->session;
    if (mapped >= share->opened)
        return DRP_WIRE_ERROR_QUOTA;
    if (packet->n_fds == 1)
        return DRP_WIRE_ERROR_DESCRIPTOR;
    r = shared_reserve_mapping(shared);
    return r < 0 ? operation_error(r) : DRP_WIRE_OK;
}

uint32_t shared_take_ticket(struct operation *operation, const struct channel_packet *packet) {
    const struct shared *shared = shared_of(operation->region->home);
    int fd = -1, r;

    if (packet->n_fds == 2)
        r = shared_renew_ticket(shared, operation->mapping->id, packet->fds[1]);
    else
        r = shared_make_ticket(shared, operation->mapping->id, &fd);
    if (fd >= 0)
        operation_add_fd(operation, fd);
    return r < 0 ? operation_error(r) : DRP_WIRE_OK;
}

void shared_destroy(struct operation *operation) {
    struct shared *shared = shared_of(operation->region->home);
    struct drp_wire_header reply = {0};

    pthread_mutex_lock(&operation->manager->lock);
    shared_close(shared_share_of(shared, operation->session), false);
    pthread_mutex_unlock(&operation->manager->lock);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}
