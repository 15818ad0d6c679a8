/* SPDX-License-Identifier: MIT */
/*
 * What each request does, but for those about regions and mappings (handlers-region.c) and about pressure (handlers-pressure.c). A handler runs in the loop and never waits: what can
 * wait for the client goes to the pager or the dropper as part of an operation, whose completion comes back to the loop and replies then.
 */

#include "handlers.h"

#include "codec.h"
#include "container.h"
#include "crash-point.h"
#include "handlers-region.h"
#include "log.h"
#include "means.h"
#include "operation.h"
#include "report.h"
#include "server.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

void reply_error(struct connection *connection, const struct channel_packet *packet, uint32_t error) {
    connection_reply_error(connection, packet->message.header.type, packet->message.header.serial, error);
}

/* ---- HELLO, UFFD ---- */

static void copy_name(char *to, const char *from, size_t size) {
    for (size_t i = 0; i < size && from[i]; i++) {
        to[i] = '?';
        if (from[i] >= 0x20 && from[i] <= 0x7e)
            to[i] = from[i];
    }
}

static bool lends_uffd(const struct connection *connection) {
    const struct server *server = connection->server;

    return server->manager->kernel.uffd_device >= 0 && server->config->lend_gid != (gid_t)-1 &&
           report_in_group(connection->socket, connection->gid, server->config->lend_gid);
}

static void reply_hello(struct connection *connection, const struct drp_wire_hello *hello) {
    const struct manager *manager = connection->server->manager;
    struct drp_wire_hello_reply reply = {
        .version = DRP_WIRE_VERSION,
        .features = hello->features & DRP_FEATURES_KNOWN & ~(manager->native ? 0 : DRP_FEATURE_NATIVE),
        .session = connection->session->id,
        .region_options = means_options(&manager->kernel),
        .max_region_bytes = connection->server->config->max_region_bytes,
        .max_regions = connection->server->config->max_regions,
        .daemon_pid = (uint32_t)getpid(),
    };
    int fds[2];
    size_t n = 0;

    fds[n++] = fcntl(manager->clock_fd, F_DUPFD_CLOEXEC, 0);
    if (lends_uffd(connection)) {
        fds[n++] = fcntl(manager->kernel.uffd_device, F_DUPFD_CLOEXEC, 0);
        reply.flags |= DRP_HELLO_LENT_UFFD;
    }
    if (fds[0] < 0 || fds[n - 1] < 0) {
        for (size_t i = 0; i < n; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        connection_reply_error(connection, hello->header.type, hello->header.serial, DRP_WIRE_ERROR_MEMORY);
        connection_end(connection, NULL);
        return;
    }
    connection_reply(connection, hello->header.type, hello->header.serial, &reply, sizeof(reply), fds, n);
}

static void handle_hello(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_hello *hello = &packet->message.hello;
    struct manager *manager = connection->server->manager;
    struct session *session;
    int r;

    if (connection->refused || hello->version_min > DRP_WIRE_VERSION || hello->version_max < DRP_WIRE_VERSION) {
        reply_error(connection, packet, connection->refused ? DRP_WIRE_ERROR_QUOTA : DRP_WIRE_ERROR_VERSION);
        connection_end(connection, connection->refused ? NULL : "no common protocol version");
        return;
    }
    r = session_new(&session, manager, manager->next_id++, connection->pid, connection->uid, connection->gid,
                    connection->pidfd);
    if (r < 0) {
        reply_error(connection, packet, DRP_WIRE_ERROR_MEMORY);
        connection_end(connection, NULL);
        return;
    }
    copy_name(session->name, hello->name, sizeof(hello->name));
    r = session_find_domain(session, &session->domain);
    if (r >= 0)
        r = manager_add_session(manager, session);
    if (r < 0) {
        pthread_mutex_lock(&manager->lock);
        domain_unref(session->domain);
        pthread_mutex_unlock(&manager->lock);
        session->pidfd = -1;
        session_free(session);
        reply_error(connection, packet, DRP_WIRE_ERROR_MEMORY);
        connection_end(connection, NULL);
        return;
    }
    session->attaches = hello->features & DRP_FEATURE_LOCKED;
    connection->session = session;
    log_about(LOG_LEVEL_DEBUG, &(struct log_about){SESSION_ABOUT(session)},
              "client %s (pid %d, uid %u): session %" PRIu64 " in domain '%s'", session->name, (int)session->pid,
              session->uid, session->id, session->domain->path);
    CRASH_POINT("hello");
    reply_hello(connection, hello);
    CRASH_POINT("hello-replied");
}

static void handle_uffd(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_uffd *uffd = &packet->message.uffd;
    struct manager *manager = connection->server->manager;
    struct session *session = connection->session;
    struct drp_wire_uffd_reply reply = {.interception = DRP_WIRE_INTERCEPTION_FULL};
    int r = -(int)(uffd->reason & 0xfff);

    if (session->uffd_asked || session->n_regions > 0 || session->home.dropper.worker.started) {
        connection_end(connection, "uffd sent twice, or after the first region");
        return;
    }
    session->uffd_asked = true;
    if (packet->n_fds == 1) {
        (void)worker_pool_await(&manager->pool);
        pthread_mutex_lock(&manager->lock); /* the pressure thread looks at workers */
        r = session_take_uffd(session, channel_packet_take(packet, 0));
        pthread_mutex_unlock(&manager->lock);
        if (r == -EBADF || r == -EINVAL) {
            reply_error(connection, packet, DRP_WIRE_ERROR_DESCRIPTOR);
            return;
        }
    }
    if (r < 0) {
        session->no_interception = -r;
        reply.interception = DRP_WIRE_INTERCEPTION_NONE;
        if (log_allows(&connection->server->blind_clients, kernel_now()))
            log_about(LOG_LEVEL_INFO, &(struct log_about){SESSION_ABOUT(session), .error = -r},
                      "client %s (pid %d): accesses are not intercepted: %s", session->name, (int)session->pid,
                      strerror(-r));
    }
    connection_reply(connection, uffd->header.type, uffd->header.serial, &reply, sizeof(reply), NULL, 0);
}

/* ---- DROP, POPULATE, CONTROL_DROP ---- */

static void drop_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_drop_reply reply = {
        .freed = atomic_load(&operation->request.freed),
        .pinned = atomic_load(&operation->request.pinned),
        .failed = atomic_load(&operation->request.failed),
    };

    CRASH_POINT("drop-done");
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

/* In the thread that finished last. */
static void request_done(struct drop_request *request) {
    struct operation *operation = container_of(request, struct operation, request);

    manager_complete(operation->manager, &operation->completion);
}

static void submit_drop(struct operation *operation, struct region *region, uint64_t first, uint64_t end) {
    struct home *home = region->home;

    if (region->dead)
        return;
    if (atomic_load(&home->quarantined) || home_need_dropper(home) < 0 ||
        dropper_submit(home, region, first, end, URGENCY_NONE, &operation->request, false) < 0)
        counter_add(&operation->request.failed, region_resident_bytes(region));
}

/* In the loop, which alone changes that. */
static bool has_mapped(const struct session *session, const struct region *region) {
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (region->mappings[i]->session == session)
            return true;
    return false;
}

static void handle_drop(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_range *range = &packet->message.range;
    struct operation *operation = operation_new(connection, &range->header, drop_done);
    struct region *region = session_find_region(connection->session, range->region);
    uint64_t first, end;

    if (!operation)
        return;
    if (!region || range->offset + range->length > region->size) {
        operation_finish(operation, region ? DRP_WIRE_ERROR_INVALID : DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
        return;
    }
    /* The chunks that lie inside the range. */
    first = (range->offset + region_chunk_size(region) - 1) >> region->chunk_shift;
    end = range->offset + range->length == region->size ? region->chunk_count
                                                        : (range->offset + range->length) >> region->chunk_shift;
    drop_request_init(&operation->request, request_done, NULL);
    operation->request.limited = !has_mapped(connection->session, region);
    pthread_mutex_lock(&operation->manager->lock);
    if (first < end)
        submit_drop(operation, region, first, end);
    pthread_mutex_unlock(&operation->manager->lock);
    CRASH_POINT("drop-queued");
    drop_request_seal(&operation->request);
}

bool may_have(const struct connection *connection, uid_t owner) {
    return connection->uid == owner || connection->uid == 0 || connection->uid == geteuid();
}

bool is_administrator(const struct connection *connection) {
    gid_t group = connection->server->config->control_gid;

    return may_have(connection, 0) ||
           (group != (gid_t)-1 && report_in_group(connection->socket, connection->gid, group));
}

bool may_control(const struct connection *connection, uid_t owner) {
    return connection->uid == owner || is_administrator(connection);
}

static bool is_meant(const struct drp_wire_control_drop *drop, const struct home *home) {
    return drop->scope != DRP_SCOPE_PID || (home->session && (uint64_t)home->session->pid == drop->id);
}

/* Before anything is done: is there what is to be dropped, and may all of it? A client without regions is somebody, too. */
static uint32_t check_control_drop(const struct connection *connection, const struct drp_wire_control_drop *drop) {
    const struct manager *manager = connection->server->manager;
    const struct region *region;
    const struct home *home;
    bool found = false;

    if (drop->scope == DRP_SCOPE_ALL)
        return is_administrator(connection) ? DRP_WIRE_OK : DRP_WIRE_ERROR_PERMISSION;
    LIST_FOREACH (home, &manager->homes, link) {
        bool here = drop->scope == DRP_SCOPE_PID && is_meant(drop, home);

        LIST_FOREACH (region, &home->regions, link)
            here |= drop->scope == DRP_SCOPE_REGION && region->id == drop->id;
        if (here && !may_control(connection, home_uid(home)))
            return DRP_WIRE_ERROR_PERMISSION;
        found |= here;
    }
    return found ? DRP_WIRE_OK : DRP_WIRE_ERROR_NOT_FOUND;
}

static void handle_control_drop(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_control_drop *drop = &packet->message.control_drop;
    struct operation *operation;
    struct region *region;
    struct home *home;
    uint32_t error = check_control_drop(connection, drop);

    if (error != DRP_WIRE_OK) {
        reply_error(connection, packet, error);
        return;
    }
    operation = operation_new(connection, &drop->header, drop_done);
    if (!operation)
        return;
    drop_request_init(&operation->request, request_done, NULL);
    operation->request.limited = !is_administrator(connection);
    pthread_mutex_lock(&operation->manager->lock);
    LIST_FOREACH (home, &operation->manager->homes, link) {
        LIST_FOREACH (region, &home->regions, link)
            if (is_meant(drop, home) && (drop->scope != DRP_SCOPE_REGION || region->id == drop->id))
                submit_drop(operation, region, 0, region->chunk_count);
    }
    pthread_mutex_unlock(&operation->manager->lock);
    drop_request_seal(&operation->request);
}

static void populate_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_populate_reply reply = {.populated = operation->command.filled};

    operation_finish(operation, operation->command.result < 0 ? operation_error(operation->command.result) : DRP_WIRE_OK,
                     &reply, sizeof(reply));
}

static bool is_filled_by_us(struct region *region) {
    bool seen;

    home_lock(region->home);
    seen = region->n_mappings > 0 && !region_is_opaque(region);
    home_unlock(region->home);
    return seen && !(region->options & DRP_REGION_HUGE);
}

static void handle_populate(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_range *range = &packet->message.range;
    struct operation *operation = operation_new(connection, &range->header, populate_done);
    struct region *region = session_find_region(connection->session, range->region);

    if (!operation)
        return;
    if (!region || range->offset + range->length > region->size)
        operation_finish(operation, region ? DRP_WIRE_ERROR_INVALID : DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
    else if (!is_filled_by_us(region))
        operation_finish(operation, DRP_WIRE_ERROR_NOT_INTERCEPTED, NULL, 0); /* the kernel fills these itself */
    else {
        operation->region = region;
        operation->command.offset = range->offset & ~UINT64_C(4095);
        operation->command.end = (range->offset + range->length + 4095) & ~UINT64_C(4095);
        operation_submit(operation, PAGER_POPULATE);
    }
}

/* ---- STATS, STATUS, LIST ---- */

static void handle_stats(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_stats_reply reply = {0};

    report_session(connection->session, &reply.counters);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply, sizeof(reply),
                     NULL, 0);
}

/* ---- WATCH ---- */

static void handle_watch(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_header *header = &packet->message.header;
    struct drp_wire_header reply = {0};
    int socket, r;

    r = loss_watch(&connection->session->loss, &socket);
    CRASH_POINT("watch");
    if (r < 0)
        connection_reply_error(connection, header->type, header->serial, DRP_WIRE_ERROR_MEMORY);
    else
        connection_reply(connection, header->type, header->serial, &reply, sizeof(reply), &socket, 1);
}

/* ---- TELL_OPTIONS ---- */

/* The codec lets no other bits through than those that the client's mapping can have. */
static void handle_tell_options(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_options *message = &packet->message.options;
    struct region *region = session_find_region(connection->session, message->region);
    struct drp_wire_header reply = {0};

    if (!region) {
        reply_error(connection, packet, DRP_WIRE_ERROR_NOT_FOUND);
        return;
    }
    if (region->home->session)
        region->told = message->options;
    else
        shared_share_of(shared_of(region->home), connection->session)->told = message->options;
    if (message->options & DRP_REGION_FORK_SHARED)
        atomic_store(&region->inherited, true);
    CRASH_POINT("options-told");
    connection_reply(connection, message->header.type, message->header.serial, &reply, sizeof(reply), NULL, 0);
}

/* ---- SEAL_PINS ---- */

static void handle_seal_pins(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_header *header = &packet->message.header;
    struct mapping *mapping = region_find_mapping(connection->session, packet->message.id.id);
    struct drp_wire_header reply = {0};
    int r;

    if (!mapping) {
        reply_error(connection, packet, DRP_WIRE_ERROR_NOT_FOUND);
        return;
    }
    home_lock(mapping->region->home);
    r = mapping_take_seal(mapping);
    home_unlock(mapping->region->home);
    CRASH_POINT("pins-sealed");
    if (r < 0)
        reply_error(connection, packet, DRP_WIRE_ERROR_DESCRIPTOR);
    else
        connection_reply(connection, header->type, header->serial, &reply, sizeof(reply), NULL, 0);
}

/* ---- STATUS, LIST ---- */

static void handle_status(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_status_reply reply = {0};

    report_status(connection->server->manager, &reply);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply, sizeof(reply),
                     NULL, 0);
}

static void handle_list(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_list_reply reply = {0};

    report_list(connection->server->manager, packet->message.list.cursor, &reply);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply,
                     offsetof(struct drp_wire_list_reply, entries) + reply.count * sizeof(reply.entries[0]), NULL, 0);
}

bool handlers_is_for_all(const struct connection *connection, const union drp_wire_message *start) {
    uint16_t type = start->header.type;

    return type == DRP_WIRE_STATUS || type == DRP_WIRE_LIST || type == DRP_WIRE_CONTROL_DROP ||
           (type == DRP_WIRE_LIMIT && !is_own_limit(connection, &start->limit));
}

void handlers_dispatch(struct connection *connection, struct channel_packet *packet) {
    static void (*const handlers[])(struct connection * connection, struct channel_packet * packet) = {
        [DRP_WIRE_HELLO] = handle_hello,
        [DRP_WIRE_UFFD] = handle_uffd,
        [DRP_WIRE_CREATE] = handle_create,
        [DRP_WIRE_ADOPT] = handle_adopt,
        [DRP_WIRE_MAP] = handle_map,
        [DRP_WIRE_UNMAP] = handle_unmap,
        [DRP_WIRE_DESTROY] = handle_destroy,
        [DRP_WIRE_DROP] = handle_drop,
        [DRP_WIRE_POPULATE] = handle_populate,
        [DRP_WIRE_STATS] = handle_stats,
        [DRP_WIRE_STATUS] = handle_status,
        [DRP_WIRE_LIST] = handle_list,
        [DRP_WIRE_CONTROL_DROP] = handle_control_drop,
        [DRP_WIRE_LIMIT] = handle_limit,
        [DRP_WIRE_FREE] = handle_free,
        [DRP_WIRE_WHY] = handle_why,
        [DRP_WIRE_HISTOGRAMS] = handle_histograms,
        [DRP_WIRE_MAP_PIECES] = handle_map_pieces,
        [DRP_WIRE_UNMAP_PIECES] = handle_unmap_pieces,
        [DRP_WIRE_WATCH] = handle_watch,
        [DRP_WIRE_CREATE_SHARED] = handle_create_shared,
        [DRP_WIRE_OPEN] = handle_open,
        [DRP_WIRE_NATIVE] = handle_native,
        [DRP_WIRE_END_NATIVE] = handle_end_native,
        [DRP_WIRE_TELL_OPTIONS] = handle_tell_options,
        [DRP_WIRE_SEAL_PINS] = handle_seal_pins,
    };
    uint16_t type = packet->message.header.type;

    static_assert(sizeof(handlers) / sizeof(handlers[0]) == DRP_WIRE_TYPE_MAX + 1, "a handler for each request");
    if ((type == DRP_WIRE_HELLO) != !connection->session)
        connection_end(connection, connection->session ? "state: a second hello" : "state: no hello yet");
    else
        handlers[type](connection, packet);
}
