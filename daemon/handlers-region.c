/* SPDX-License-Identifier: MIT */
/*
 * Requests that make and end regions and mappings. As all handlers they run in the loop and never wait: registering, unregistering and
 * letting go of an object are the pager's and the dropper's.
 */

#include "handlers-region.h"

#include "crash-point.h"
#include "handlers.h"
#include "locked.h"
#include "log.h"
#include "means.h"
#include "operation.h"
#include "quota.h"
#include "server.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* ---- CREATE, ADOPT ---- */

/* The dropper starts here: at the first drop memory and CPUs are short. The first look is due now: with no region there was none for up to a second. */
uint32_t region_link(struct connection *connection, struct region *region) {
    struct manager *manager = connection->server->manager;
    int r;

    move_check_now(connection->session);
    if (!connection->session->home.dropper.worker.started)
        (void)worker_pool_await(&manager->pool);
    pthread_mutex_lock(&manager->lock);
    r = plans_reserve(&manager->pressure.plans, manager->n_regions + 1);
    if (r >= 0)
        r = home_need_dropper(&connection->session->home);
    if (r >= 0) {
        session_add_region(connection->session, region);
        manager->n_regions++;
        budget_mark_pins(region);
        if (limit_is_set(&region->budget.of[LIMIT_BUDGET]))
            budgets_reload(manager);
        domain_look_now(connection->session->domain);
    }
    pthread_mutex_unlock(&manager->lock);
    if (r >= 0) {
        pressure_wake(&manager->pressure);
        return DRP_WIRE_OK;
    }
    region_release_object(region);
    region_free(region);
    return DRP_WIRE_ERROR_MEMORY;
}

void region_fill_reply(struct drp_wire_create_reply *reply, const struct region *region) {
    *reply = (struct drp_wire_create_reply){
        .region = region->id,
        .size = region->size,
        .object_offset = region->object_offset,
        .chunk_base = region->chunk_base,
        .chunk_total = region->chunk_total,
        .granted = region->options,
        .chunk_shift = (uint8_t)region->chunk_shift,
    };
}

/* Where the client can attach its segment, so that the lock outlives us; 0: he cannot, or there is no need. */
static uint32_t lend_lock(const struct connection *connection, const struct region *region) {
    if (!region->locked || !connection->session->attaches ||
        locked_lend(region->inode, connection->uid, connection->gid) < 0)
        return 0;
    return connection->server->manager->kernel.ipc_namespace;
}

void region_set_worth(const struct connection *connection, struct region *region, uint64_t budget, uint32_t share) {
    struct limit_values values = {.mask = (budget ? LIMIT_BIT(LIMIT_BUDGET) : 0) | (share ? LIMIT_BIT(LIMIT_SHARE) : 0)};

    values.of[LIMIT_BUDGET] = budget;
    values.of[LIMIT_SHARE] = share;
    limits_apply(&region->budget, &values, is_administrator(connection));
}

/* What was asked becomes what is given. */
static uint32_t shape_region(const struct connection *connection, const struct drp_wire_create *create,
                             struct region_shape *ret) {
    struct region_means means = means_for(connection->server->manager, connection->session);
    uint32_t shift = create->chunk_shift;
    uint64_t size, options;

    if ((create->required | create->preferred) & ~(HANDLERS_KNOWN_OPTIONS & ~DRP_REGION_SHARED))
        return DRP_WIRE_ERROR_UNSUPPORTED;
    if ((create->required & DRP_REGION_HUGE) && (create->required & DRP_REGION_SIGNAL))
        return DRP_WIRE_ERROR_UNSUPPORTED;
    if ((create->required & DRP_REGION_HUGE) && shift != 0 && shift != SPAN_SHIFT)
        return DRP_WIRE_ERROR_INVALID; /* a part of a huge page cannot be dropped whole */
    options = region_choose_options(&means, create->required, create->preferred, create->size, &shift);
    if (create->required & ~options)
        return DRP_WIRE_ERROR_UNSUPPORTED;
    size = (create->size + (UINT64_C(1) << shift) - 1) & ~((UINT64_C(1) << shift) - 1);
    *ret = (struct region_shape){
        .id = connection->server->manager->next_id,
        .size = size,
        .options = options,
        .required = create->required,
        .chunk_shift = shift,
        .priority = create->priority ? create->priority : DRP_PRIORITY_NORMAL,
        .chunk_total = size >> shift,
    };
    return quota_check(connection, size, region_tables_most(size, shift));
}

void handle_create(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_create *create = &packet->message.create;
    struct drp_wire_create_reply reply;
    struct region_shape shape;
    struct region *region;
    uint32_t error = shape_region(connection, create, &shape);
    int fds[2], r;

    if (error != DRP_WIRE_OK) {
        reply_error(connection, packet, error);
        return;
    }
    r = region_new(&region, &connection->server->manager->kernel, &shape, -1, &fds[1]);
    if (r < 0) {
        if (log_allows(&connection->server->failures, kernel_now()))
            log_about(LOG_LEVEL_WARNING, &(struct log_about){SESSION_ABOUT(connection->session), .error = -r},
                      "client %s (pid %d): cannot make a region of %" PRIu64 " bytes: %s", connection->session->name,
                      (int)connection->pid, shape.size, strerror(-r));
        reply_error(connection, packet,
                    operation_error(r) == DRP_WIRE_ERROR_DESCRIPTOR ? DRP_WIRE_ERROR_INTERNAL : operation_error(r));
        return;
    }
    connection->server->manager->next_id++;
    CRASH_POINT("create-made");
    region_set_worth(connection, region, create->budget, create->share);
    fds[0] = fcntl(region->data_fd, F_DUPFD_CLOEXEC, 0);
    error = fds[0] < 0 ? DRP_WIRE_ERROR_MEMORY : region_link(connection, region);
    if (error != DRP_WIRE_OK) {
        close(fds[1]);
        if (fds[0] >= 0)
            close(fds[0]);
        else {
            region_release_object(region);
            region_free(region);
        }
        reply_error(connection, packet, error);
        return;
    }
    region_fill_reply(&reply, region);
    reply.ipc_namespace = lend_lock(connection, region);
    if (region->locked && reply.ipc_namespace == 0)
        reply.granted &= ~DRP_REGION_NO_SWAP; /* not beyond our end */
    connection_reply(connection, create->header.type, create->header.serial, &reply, sizeof(reply), fds, 2);
    CRASH_POINT("create-replied");
}

void region_finished(void *data) {
    struct operation *operation = data;

    manager_complete(operation->manager, &operation->completion);
}

static void adopt_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_create_reply reply;

    region_fill_reply(&reply, operation->region);
    CRASH_POINT("adopt-done");
    operation_finish(operation,
                     operation->region->adopt_error < 0 ? operation_error(operation->region->adopt_error) : DRP_WIRE_OK,
                     &reply, sizeof(reply));
}

bool region_is_whole(const struct drp_wire_adopt *adopt) {
    return adopt->object_offset == 0 && adopt->chunk_base == 0 &&
           adopt->chunk_total == adopt->size >> adopt->chunk_shift;
}

/* Can a daemon have given these options? */
static bool was_given(const struct drp_wire_adopt *adopt) {
    bool small = adopt->chunk_shift != SPAN_SHIFT || (adopt->granted & DRP_REGION_SIGNAL);

    return !(adopt->granted & ~HANDLERS_KNOWN_OPTIONS) && !(small && (adopt->granted & DRP_REGION_HUGE));
}

static uint32_t check_adopt(const struct session *session, const struct drp_wire_adopt *adopt, const int *fds) {
    struct passport passport;

    if (!region_is_whole(adopt) || !was_given(adopt))
        return DRP_WIRE_ERROR_INVALID;
    if (shared_read_passport(fds[0], &passport) >= 0 || /* not one's own */
        kernel_check_data_object(fds[0], adopt->object_offset + adopt->size) < 0 ||
        kernel_check_page_object(fds[1], drp_state_bytes(adopt->chunk_total)) < 0)
        return DRP_WIRE_ERROR_DESCRIPTOR;
    return manager_is_at_object(session, fds[0]) ? DRP_WIRE_ERROR_QUARANTINED : DRP_WIRE_OK;
}

void handle_adopt(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_adopt *adopt = &packet->message.adopt;
    struct manager *manager = connection->server->manager;
    struct region_shape shape = {
        .id = manager->next_id,
        .size = adopt->size,
        .options = adopt->granted & HANDLERS_KNOWN_OPTIONS,
        .chunk_shift = adopt->chunk_shift,
        .priority = adopt->priority ? adopt->priority : DRP_PRIORITY_NORMAL,
        .object_offset = adopt->object_offset,
        .chunk_base = adopt->chunk_base,
        .chunk_total = adopt->chunk_total,
    };
    struct region *region;
    uint32_t error = quota_check(connection, adopt->size, region_tables_most(adopt->size, adopt->chunk_shift));
    struct operation *operation;
    int state_fd = -1, data_fd, r;

    if (adopt->granted & DRP_REGION_SHARED) {
        shared_adopt(connection, packet);
        return;
    }
    if (error == DRP_WIRE_OK)
        error = check_adopt(connection->session, adopt, packet->fds);
    if (error != DRP_WIRE_OK) {
        reply_error(connection, packet, error);
        return;
    }
    data_fd = channel_packet_take(packet, 0);
    if (region_new(&region, &manager->kernel, &shape, data_fd, &state_fd) < 0) {
        close(data_fd);
        reply_error(connection, packet, DRP_WIRE_ERROR_MEMORY);
        return;
    }
    manager->next_id++;
    region_set_worth(connection, region, adopt->budget, adopt->share);
    error = region_link(connection, region);
    if (error != DRP_WIRE_OK) {
        close(state_fd);
        reply_error(connection, packet, error);
        return;
    }
    atomic_store(&region->sweep, true); /* what is resident is not known */
    operation = operation_new(connection, &adopt->header, adopt_done);
    if (!operation) {
        close(state_fd);
        return;
    }
    operation->region = region;
    operation_add_fd(operation, state_fd);
    r = dropper_submit_adopt(region->home, region, packet->fds[1], NULL, region_finished, operation);
    if (r < 0)
        operation_finish(operation, operation_error(r), NULL, 0);
}

/* ---- MAP, UNMAP ---- */

static bool lies_inside(const struct region *region, uint64_t offset, uint64_t length) {
    return offset < region->size && length <= region->size - offset;
}

static void map_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_map_reply reply = {.mapping = operation->mapping->id};

    if (operation->command.result < 0 && operation->connection &&
        log_allows(&operation->connection->server->blind_mappings, kernel_now()))
        log_about(LOG_LEVEL_INFO,
                  &(struct log_about){SESSION_ABOUT(operation->session), .region = operation->region->id,
                                      .error = -operation->command.result},
                  "client %s (pid %d): a mapping is not intercepted: %s", operation->session->name,
                  (int)operation->session->pid, strerror(-operation->command.result));
    CRASH_POINT("map-registered");
    reply.interception = operation->mapping->intercepted ? DRP_WIRE_INTERCEPTION_FULL : DRP_WIRE_INTERCEPTION_NONE;
    if (operation->connection && !operation->region->held)
        home_finish_drops(operation->region);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
    CRASH_POINT("map-replied");
}

static bool is_shared(const struct region *region) {
    return shared_of(region->home) != NULL;
}

/* Does the pager see to it? The mappings of shared regions are not intercepted. */
static bool is_for_pager(const struct operation *operation, const struct region *region) {
    return operation->session->intercepted && !is_shared(region);
}

static uint32_t prepare_map(struct region *region, const struct channel_packet *packet) {
    if (region->n_mappings >= REGION_MAPPINGS_OWN)
        return DRP_WIRE_ERROR_QUOTA;
    if (packet->n_fds > 1)
        return DRP_WIRE_ERROR_DESCRIPTOR;
    return region_reserve_mapping(region, &region->home->lock) < 0 ? DRP_WIRE_ERROR_MEMORY : DRP_WIRE_OK;
}

static uint32_t make_mapping(struct operation *operation, struct channel_packet *packet) {
    const struct drp_wire_map *map = &packet->message.map;
    struct region *region = operation->region;
    int pin_fd = -1, fd = -1;
    uint32_t error;

    if (region->native.address || (map->length > 0 && !lies_inside(region, map->offset, map->length)))
        return DRP_WIRE_ERROR_INVALID;
    error = is_shared(region) ? shared_prepare_map(operation, packet) : prepare_map(region, packet);
    if (error != DRP_WIRE_OK)
        return error;
    if (packet->n_fds > 0) {
        pin_fd = packet->fds[0];
        if (kernel_check_page_object(pin_fd, drp_pin_bytes(region->chunk_total)) < 0 ||
            !kernel_pin_page_is_sealed(&operation->manager->kernel, pin_fd))
            return DRP_WIRE_ERROR_DESCRIPTOR;
    }
    if (map->length > 0 && !operation_make_pieces(operation, 1))
        return DRP_WIRE_ERROR_MEMORY;
    if (mapping_new(&operation->mapping, &operation->manager->kernel, region, operation->session, pin_fd, &fd) < 0)
        return DRP_WIRE_ERROR_MEMORY;
    if (fd >= 0)
        operation_add_fd(operation, fd);
    operation->mapping->id = operation->manager->next_id++;
    error = is_shared(region) ? shared_take_ticket(operation, packet) : DRP_WIRE_OK;
    if (error != DRP_WIRE_OK) {
        operation->mapping = mapping_free(operation->mapping);
        return error;
    }
    if (operation->command.pieces)
        *operation->command.pieces = (struct extent){
            .address = map->address, .length = map->length, .mapping = operation->mapping, .offset = map->offset};
    return DRP_WIRE_OK;
}

void handle_map(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_map *map = &packet->message.map;
    struct operation *operation = operation_new(connection, &map->header, map_done);
    uint32_t error;

    if (!operation)
        return;
    move_check_now(connection->session);
    operation->region = session_find_region(connection->session, map->region);
    error = operation->region ? make_mapping(operation, packet) : DRP_WIRE_ERROR_NOT_FOUND;
    if (error != DRP_WIRE_OK) {
        operation_finish(operation, error, NULL, 0);
        return;
    }
    CRASH_POINT("map-made");
    if (is_for_pager(operation, operation->region)) {
        operation_submit(operation, PAGER_MAP);
        return;
    }
    home_lock(operation->region->home);
    region_add_mapping(operation->region, operation->mapping);
    home_unlock(operation->region->home);
    if (operation->region->held)
        server_tidy_shared(connection->server);
    map_done(&operation->completion);
}

/*
 * The pressure thread may be planning with its pin page: not before it is through. It does not wait for the munmap(2), though, for which the client can make
 * us wait: nobody finds the mapping any more.
 */
static void free_mapping(struct operation *operation, struct mapping *mapping) {
    CRASH_POINT("unmapped");
    pthread_mutex_lock(&operation->manager->lock);
    pthread_mutex_unlock(&operation->manager->lock);
    mapping_free(mapping);
}

static void unmap_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_header reply = {0};

    free_mapping(operation, operation->mapping);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

static void begin_unmap(struct operation *operation) {
    if (is_for_pager(operation, operation->mapping->region)) {
        operation_submit(operation, PAGER_UNMAP);
        return;
    }
    home_lock(operation->mapping->region->home);
    region_remove_mapping(operation->mapping->region, operation->mapping);
    home_unlock(operation->mapping->region->home);
    operation->completion.run(&operation->completion);
}

struct mapping *region_find_mapping(struct session *session, uint64_t id) {
    struct share *share;
    struct region *region;

    LIST_FOREACH (region, &session->home.regions, link)
        for (unsigned i = 0; !region->dead && i < region->n_mappings; i++)
            if (region->mappings[i]->id == id)
                return region->mappings[i];
    LIST_FOREACH (share, &session->shares, of_session) {
        region = share->shared->region;
        for (unsigned i = 0; i < region->n_mappings; i++)
            if (region->mappings[i]->session == session && region->mappings[i]->id == id)
                return region->mappings[i];
    }
    return NULL;
}

void handle_unmap(struct connection *connection, struct channel_packet *packet) {
    struct operation *operation = operation_new(connection, &packet->message.header, unmap_done);

    if (!operation)
        return;
    operation->mapping = region_find_mapping(connection->session, packet->message.id.id);
    if (operation->mapping)
        begin_unmap(operation);
    else
        operation_finish(operation, DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
}

/* ---- MAP_PIECES, UNMAP_PIECES ---- */

static uint32_t piece_error(int error) {
    switch (error) {
    case -EEXIST:
        return DRP_WIRE_ERROR_INVALID;
    case -ENOSPC:
        return DRP_WIRE_ERROR_QUOTA;
    default:
        return operation_error(error);
    }
}

static void map_pieces_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_pieces_reply reply = {.interception = operation->command.n_blind > 0 ? DRP_WIRE_INTERCEPTION_NONE
                                                                                         : DRP_WIRE_INTERCEPTION_FULL};

    operation_finish(operation, operation->command.result < 0 ? piece_error(operation->command.result) : DRP_WIRE_OK,
                     &reply, sizeof(reply));
}

static void unmap_pieces_done(struct completion *completion) {
    struct drp_wire_header reply = {0};

    operation_finish(operation_of(completion), DRP_WIRE_OK, &reply, sizeof(reply));
}

static uint32_t take_pieces(struct operation *operation, const struct drp_wire_pieces *message) {
    struct extent *pieces;

    operation->mapping = region_find_mapping(operation->session, message->mapping);
    if (!operation->mapping)
        return DRP_WIRE_ERROR_NOT_FOUND;
    for (uint32_t i = 0; i < message->count; i++)
        if (message->header.type == DRP_WIRE_MAP_PIECES &&
            !lies_inside(operation->mapping->region, message->pieces[i].offset, message->pieces[i].length))
            return DRP_WIRE_ERROR_INVALID;
    pieces = operation_make_pieces(operation, message->count);
    if (!pieces)
        return DRP_WIRE_ERROR_MEMORY;
    for (uint32_t i = 0; i < message->count; i++)
        pieces[i] = (struct extent){.address = message->pieces[i].address,
                                    .length = message->pieces[i].length,
                                    .mapping = operation->mapping,
                                    .offset = message->pieces[i].offset};
    return DRP_WIRE_OK;
}

static void change_pieces(struct connection *connection, const struct drp_wire_pieces *message,
                          enum pager_command_type type, void (*done)(struct completion *completion)) {
    struct operation *operation = operation_new(connection, &message->header, done);
    uint32_t error;

    if (!operation)
        return;
    error = take_pieces(operation, message);
    if (error != DRP_WIRE_OK)
        operation_finish(operation, error, NULL, 0);
    else if (is_for_pager(operation, operation->mapping->region))
        operation_submit(operation, type);
    else {
        operation->command.n_blind = operation->command.n_pieces;
        done(&operation->completion);
    }
}

void handle_map_pieces(struct connection *connection, struct channel_packet *packet) {
    move_check_now(connection->session);
    change_pieces(connection, &packet->message.pieces, PAGER_MAP_PIECES, map_pieces_done);
}

void handle_unmap_pieces(struct connection *connection, struct channel_packet *packet) {
    change_pieces(connection, &packet->message.pieces, PAGER_UNMAP_PIECES, unmap_pieces_done);
}

/* ---- DESTROY ---- */

/*
 * In this order: no new drops; the dropper, behind the drops under way, lets go of the object; the pager unregisters each
 * mapping, behind the arming under way; the loop frees.
 */
static void destroy_step(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct region *region = operation->region;
    struct drp_wire_header reply = {0};

    if (operation->mapping)
        free_mapping(operation, operation->mapping);
    operation->mapping = NULL;
    if (!operation->connection) { /* the session is ending: that frees the region */
        operation_finish(operation, DRP_WIRE_OK, NULL, 0);
        return;
    }
    if (region->n_mappings > 0) {
        operation->mapping = region->mappings[0];
        begin_unmap(operation);
        return;
    }
    if (operation->session->intercepted && !operation->last) {
        operation->last = true; /* without mappings, too, the pager must be through with it */
        operation_submit(operation, PAGER_UNMAP);
        return;
    }
    pthread_mutex_lock(&operation->manager->lock);
    session_remove_region(operation->session, region);
    operation->manager->n_regions--;
    pthread_mutex_unlock(&operation->manager->lock);
    region_free(region);
    CRASH_POINT("destroy-done");
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

void handle_destroy(struct connection *connection, struct channel_packet *packet) {
    struct operation *operation = operation_new(connection, &packet->message.header, destroy_step);
    struct region *region;
    int r;

    if (!operation)
        return;
    region = session_find_region(connection->session, packet->message.id.id);
    if (!region) {
        operation_finish(operation, DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
        return;
    }
    operation->region = region;
    if (is_shared(region)) {
        shared_destroy(operation);
        return;
    }
    pthread_mutex_lock(&operation->manager->lock);
    r = home_need_dropper(region->home);
    if (r >= 0)
        r = dropper_submit_destroy(region->home, region, region_finished, operation);
    if (r >= 0) {
        region->dead = true;
        CRASH_POINT("destroy-begun");
        close(region->data_fd);
        region->data_fd = -1;
    }
    pthread_mutex_unlock(&operation->manager->lock);
    if (r < 0)
        operation_finish(operation, operation_error(r), NULL, 0);
}
