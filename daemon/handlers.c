/* SPDX-License-Identifier: MIT */
/*
 * What each request does. A handler runs in the loop and never waits: what can wait for the client goes to the pager or the dropper as part
 * of an operation, whose completion comes back to the loop and replies then.
 *
 * An operation outlives its connection if need be: it then ends without a reply. It never outlives its session, since the session's
 * threads finish or give up everything before they end, and completions run before the session is freed.
 */

#include "handlers.h"

#include "codec.h"
#include "log.h"
#include "report.h"
#include "server.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KNOWN_OPTIONS DRP_REGION_HUGE
#define UNFINISHED_RUNS_MAX 64

struct operation {
    struct completion completion;
    struct connection *connection; /* NULL: gone */
    struct session *session;
    struct manager *manager;
    uint16_t type;
    uint32_t serial;
    struct pager_command command;
    struct drop_request request;
    struct region *region;
    struct mapping *mapping;
    int fd; /* to send with the reply, or -1 */
};

/* ---- operations ---- */

static struct operation *operation_new(struct connection *connection, const struct drp_wire_header *header,
                                       void (*run)(struct completion *completion)) {
    struct operation *operation = calloc(1, sizeof(*operation));

    if (!operation) {
        connection_reply_error(connection, header->type, header->serial, DRP_WIRE_ERROR_MEMORY);
        return NULL;
    }
    operation->completion.run = run;
    operation->connection = connection;
    operation->session = connection->session;
    operation->manager = connection->server->manager;
    operation->type = header->type;
    operation->serial = header->serial;
    operation->fd = -1;
    connection->operation = operation;
    return operation;
}

static struct operation *operation_of(struct completion *completion) {
    return (struct operation *)((char *)completion - offsetof(struct operation, completion));
}

/* Replies (message NULL: an error), frees the operation and lets the connection go on. */
static void operation_finish(struct operation *operation, uint32_t error, void *message, size_t size) {
    struct connection *connection = operation->connection;
    size_t n_fds = operation->fd >= 0 && error == DRP_WIRE_OK ? 1 : 0;

    if (operation->fd >= 0 && (n_fds == 0 || !connection))
        close(operation->fd);
    if (connection) {
        connection->operation = NULL;
        if (error == DRP_WIRE_OK)
            connection_reply(connection, operation->type, operation->serial, message, size, &operation->fd, n_fds);
        else
            connection_reply_error(connection, operation->type, operation->serial, error);
        connection_finish_operation(connection);
    }
    free(operation);
}

void handlers_abandon(struct operation *operation) {
    operation->connection = NULL;
}

/* In the pager's thread. */
static void command_done(struct pager_command *command) {
    struct operation *operation = (struct operation *)((char *)command - offsetof(struct operation, command));

    manager_complete(operation->manager, &operation->completion);
}

static void operation_submit(struct operation *operation, enum pager_command_type type) {
    operation->command.type = type;
    operation->command.mapping = operation->mapping;
    operation->command.region = operation->region;
    operation->command.done = command_done;
    pager_submit(operation->session, &operation->command);
}

static uint32_t error_of(int error) {
    switch (error) {
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
    case -EAGAIN:
        return DRP_WIRE_ERROR_MEMORY;
    case -EBADF:
    case -EINVAL:
        return DRP_WIRE_ERROR_DESCRIPTOR;
    case -EOPNOTSUPP:
        return DRP_WIRE_ERROR_NOT_INTERCEPTED;
    case -EDQUOT:
        return DRP_WIRE_ERROR_QUOTA;
    case -ESHUTDOWN:
    case -ETIMEDOUT:
        return DRP_WIRE_ERROR_QUARANTINED;
    default:
        return DRP_WIRE_ERROR_INTERNAL;
    }
}

static void reply_error(struct connection *connection, const struct channel_packet *packet, uint32_t error) {
    connection_reply_error(connection, packet->message.header.type, packet->message.header.serial, error);
}

/* ---- HELLO, UFFD ---- */

static void copy_name(char *to, const char *from, size_t size) {
    for (size_t i = 0; i < size && from[i]; i++)
        to[i] = from[i] >= 0x20 && from[i] <= 0x7e ? from[i] : '?';
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
        .features = hello->features & DRP_FEATURE_ADOPT,
        .session = connection->session->id,
        .region_options = KNOWN_OPTIONS,
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
        return;
    }
    connection_reply(connection, hello->header.type, hello->header.serial, &reply, sizeof(reply), fds, n);
}

static void handle_hello(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_hello *hello = &packet->message.hello;
    struct manager *manager = connection->server->manager;
    struct session *session;
    int r;

    if (hello->version_min > DRP_WIRE_VERSION || hello->version_max < DRP_WIRE_VERSION) {
        reply_error(connection, packet, DRP_WIRE_ERROR_VERSION);
        return;
    }
    r = session_new(&session, manager, manager->next_id++, connection->pid, connection->uid, connection->gid, connection->pidfd);
    if (r < 0) {
        reply_error(connection, packet, DRP_WIRE_ERROR_MEMORY);
        return;
    }
    copy_name(session->name, hello->name, sizeof(hello->name));
    pthread_mutex_lock(&manager->lock);
    r = domains_find(&manager->domains, connection->pid, &session->domain);
    pthread_mutex_unlock(&manager->lock);
    if (r < 0) {
        session->pidfd = -1;
        session_free(session);
        reply_error(connection, packet, DRP_WIRE_ERROR_MEMORY);
        return;
    }
    connection->session = session;
    manager_add_session(manager, session);
    log_debug("client %s (pid %d, uid %u): session %" PRIu64 " in domain '%s'", session->name, (int)session->pid, session->uid,
              session->id, session->domain->path);
    reply_hello(connection, hello);
}

static void handle_uffd(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_uffd *uffd = &packet->message.uffd;
    struct manager *manager = connection->server->manager;
    struct session *session = connection->session;
    struct drp_wire_uffd_reply reply = {.interception = DRP_WIRE_INTERCEPTION_FULL};
    int r = -(int)(uffd->reason & 0xfff);

    if (session->uffd_asked || session->n_regions > 0 || session->dropper.worker.started) {
        connection_end(connection, "uffd sent twice, or after the first region");
        return;
    }
    session->uffd_asked = true;
    if (packet->n_fds == 1) {
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
        log_info("client %s (pid %d): accesses are not intercepted: %s", session->name, (int)session->pid, strerror(-r));
    }
    connection_reply(connection, uffd->header.type, uffd->header.serial, &reply, sizeof(reply), NULL, 0);
}

/* ---- CREATE, ADOPT ---- */

static uint64_t bytes_of_uid(const struct manager *manager, uid_t uid) {
    struct session *session;
    uint64_t bytes = 0;

    LIST_FOREACH(session, &manager->sessions, link)
        if (session->uid == uid)
            bytes += session->region_bytes;
    return bytes;
}

/* Is there room for one more region of that size? */
static uint32_t check_limits(const struct connection *connection, uint64_t size) {
    const struct config *config = connection->server->config;
    const struct session *session = connection->session;

    if (atomic_load(&session->quarantined))
        return DRP_WIRE_ERROR_QUARANTINED;
    if (session->n_regions >= config->max_regions || size > config->max_region_bytes ||
        bytes_of_uid(connection->server->manager, session->uid) + size > config->max_bytes_per_uid)
        return DRP_WIRE_ERROR_QUOTA;
    return DRP_WIRE_OK;
}

static uint32_t link_region(struct connection *connection, struct region *region) {
    struct manager *manager = connection->server->manager;
    int r;

    pthread_mutex_lock(&manager->lock);
    r = pressure_reserve(&manager->pressure, manager->n_regions + 1);
    if (r >= 0) {
        session_add_region(connection->session, region);
        manager->n_regions++;
    }
    pthread_mutex_unlock(&manager->lock);
    if (r >= 0)
        return DRP_WIRE_OK;
    region_release_object(region);
    region_free(region);
    return DRP_WIRE_ERROR_MEMORY;
}

static void fill_create_reply(struct drp_wire_create_reply *reply, const struct region *region) {
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

/* What was asked becomes what is given. */
static uint32_t shape_region(const struct connection *connection, const struct drp_wire_create *create, struct region_shape *ret) {
    uint64_t options = create->required | create->preferred;
    uint32_t shift = create->chunk_shift;
    uint64_t size;

    if (options & ~KNOWN_OPTIONS)
        return DRP_WIRE_ERROR_UNSUPPORTED;
    if ((create->required & DRP_REGION_HUGE) && shift != 0 && shift != SPAN_SHIFT)
        return DRP_WIRE_ERROR_INVALID; /* a part of a huge page cannot be dropped whole */
    if ((options & DRP_REGION_HUGE) && shift != 0 && shift != SPAN_SHIFT)
        options &= ~DRP_REGION_HUGE;
    if (shift == 0)
        shift = options & DRP_REGION_HUGE ? SPAN_SHIFT : 16;
    size = (create->size + (UINT64_C(1) << shift) - 1) & ~((UINT64_C(1) << shift) - 1);
    *ret = (struct region_shape){
        .id = connection->server->manager->next_id,
        .size = size,
        .options = options,
        .chunk_shift = shift,
        .priority = create->priority ? create->priority : DRP_PRIORITY_NORMAL,
        .chunk_total = size >> shift,
    };
    return check_limits(connection, size);
}

static void handle_create(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_create *create = &packet->message.create;
    struct drp_wire_create_reply reply;
    struct region_shape shape;
    struct region *region;
    uint32_t error;
    int fds[2], r;

    error = shape_region(connection, create, &shape);
    if (error != DRP_WIRE_OK) {
        reply_error(connection, packet, error);
        return;
    }
    r = region_new(&region, &connection->server->manager->kernel, &shape, -1, &fds[1]);
    if (r < 0) {
        log_warning("client %s (pid %d): cannot make a region of %" PRIu64 " bytes: %s", connection->session->name,
                    (int)connection->pid, shape.size, strerror(-r));
        reply_error(connection, packet, error_of(r) == DRP_WIRE_ERROR_DESCRIPTOR ? DRP_WIRE_ERROR_INTERNAL : error_of(r));
        return;
    }
    connection->server->manager->next_id++;
    fds[0] = fcntl(region->data_fd, F_DUPFD_CLOEXEC, 0);
    error = fds[0] < 0 ? DRP_WIRE_ERROR_MEMORY : link_region(connection, region);
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
    fill_create_reply(&reply, region);
    connection_reply(connection, create->header.type, create->header.serial, &reply, sizeof(reply), fds, 2);
}

static void handle_adopt(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_adopt *adopt = &packet->message.adopt;
    struct manager *manager = connection->server->manager;
    struct region_shape shape = {
        .id = manager->next_id,
        .size = adopt->size,
        .options = adopt->granted & KNOWN_OPTIONS,
        .chunk_shift = adopt->chunk_shift,
        .priority = adopt->priority ? adopt->priority : DRP_PRIORITY_NORMAL,
        .object_offset = adopt->object_offset,
        .chunk_base = adopt->chunk_base,
        .chunk_total = adopt->chunk_total,
    };
    struct drp_wire_create_reply reply;
    struct region *region;
    uint32_t error = check_limits(connection, adopt->size);
    int state_fd = -1, data_fd;

    if (error == DRP_WIRE_OK && ((adopt->granted & ~KNOWN_OPTIONS) ||
                                 ((adopt->granted & DRP_REGION_HUGE) && adopt->chunk_shift != SPAN_SHIFT)))
        error = DRP_WIRE_ERROR_INVALID;
    if (error == DRP_WIRE_OK && (kernel_check_data_object(packet->fds[0], adopt->object_offset + adopt->size) < 0 ||
                                 kernel_check_page_object(packet->fds[1], drp_state_bytes(adopt->chunk_total)) < 0))
        error = DRP_WIRE_ERROR_DESCRIPTOR;
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
    error = region_adopt_generations(region, packet->fds[1]) < 0 ? DRP_WIRE_ERROR_MEMORY : DRP_WIRE_OK;
    if (error != DRP_WIRE_OK) {
        region_release_object(region);
        region_free(region);
    } else
        error = link_region(connection, region);
    if (error != DRP_WIRE_OK) {
        close(state_fd);
        reply_error(connection, packet, error);
        return;
    }
    region->sweep = true; /* what is resident is not known */
    fill_create_reply(&reply, region);
    connection_reply(connection, adopt->header.type, adopt->header.serial, &reply, sizeof(reply), &state_fd, 1);
}

/* ---- MAP, UNMAP, DESTROY ---- */

/* Drops that the old daemon did not finish are begun anew, now that the pins are known. */
static void finish_old_drops(struct operation *operation) {
    struct region *region = operation->region;
    uint64_t chunk = 0, count;
    unsigned runs = 0;

    pthread_mutex_lock(&operation->manager->lock);
    for (; runs < UNFINISHED_RUNS_MAX && region_take_unfinished(region, &chunk, &count); chunk += count, runs++)
        if (session_need_dropper(operation->session) >= 0)
            dropper_submit(operation->session, region, chunk, chunk + count, UINT64_MAX, false, NULL, NULL);
    pthread_mutex_unlock(&operation->manager->lock);
}

static void map_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_map_reply reply = {.mapping = operation->mapping->id};

    if (operation->command.result < 0)
        log_info("client %s (pid %d): a mapping is not intercepted: %s", operation->session->name, (int)operation->session->pid,
                 strerror(-operation->command.result));
    reply.interception = operation->mapping->intercepted ? DRP_WIRE_INTERCEPTION_FULL : DRP_WIRE_INTERCEPTION_NONE;
    if (operation->connection)
        finish_old_drops(operation);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

static uint32_t make_mapping(struct operation *operation, struct channel_packet *packet) {
    const struct drp_wire_map *map = &packet->message.map;
    struct region *region = operation->region;
    int pin_fd = -1, r;

    if (map->offset >= region->size || map->length > region->size - map->offset)
        return DRP_WIRE_ERROR_INVALID;
    if (region->n_mappings >= REGION_MAPPINGS_MAX)
        return DRP_WIRE_ERROR_QUOTA;
    if (packet->n_fds == 1) {
        pin_fd = packet->fds[0];
        if (kernel_check_page_object(pin_fd, drp_pin_bytes(region->chunk_total)) < 0)
            return DRP_WIRE_ERROR_DESCRIPTOR;
    }
    r = mapping_new(&operation->mapping, region, map->address, map->length, map->offset, pin_fd, &operation->fd);
    if (r < 0)
        return DRP_WIRE_ERROR_MEMORY;
    operation->mapping->id = operation->manager->next_id++;
    return DRP_WIRE_OK;
}

static void handle_map(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_map *map = &packet->message.map;
    struct operation *operation = operation_new(connection, &map->header, map_done);
    uint32_t error;

    if (!operation)
        return;
    operation->region = session_find_region(connection->session, map->region);
    error = operation->region ? make_mapping(operation, packet) : DRP_WIRE_ERROR_NOT_FOUND;
    if (error != DRP_WIRE_OK) {
        operation_finish(operation, error, NULL, 0);
        return;
    }
    if (connection->session->intercepted) {
        operation_submit(operation, PAGER_MAP);
        return;
    }
    session_lock(connection->session);
    region_add_mapping(operation->region, operation->mapping);
    session_unlock(connection->session);
    map_done(&operation->completion);
}

/* The pressure thread may be planning with its pin page: free it under the manager's lock. */
static void free_mapping(struct operation *operation, struct mapping *mapping) {
    pthread_mutex_lock(&operation->manager->lock);
    mapping_free(mapping);
    pthread_mutex_unlock(&operation->manager->lock);
}

static void unmap_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_header reply = {0};

    free_mapping(operation, operation->mapping);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

static void begin_unmap(struct operation *operation) {
    if (operation->session->intercepted) {
        operation_submit(operation, PAGER_UNMAP);
        return;
    }
    session_lock(operation->session);
    region_remove_mapping(operation->mapping->region, operation->mapping);
    session_unlock(operation->session);
    operation->completion.run(&operation->completion);
}

static struct mapping *find_mapping(struct session *session, uint64_t id) {
    struct region *region;

    LIST_FOREACH(region, &session->regions, link)
        for (unsigned i = 0; !region->dead && i < region->n_mappings; i++)
            if (region->mappings[i]->id == id)
                return region->mappings[i];
    return NULL;
}

static void handle_unmap(struct connection *connection, struct channel_packet *packet) {
    struct operation *operation = operation_new(connection, &packet->message.header, unmap_done);

    if (!operation)
        return;
    operation->mapping = find_mapping(connection->session, packet->message.id.id);
    if (operation->mapping)
        begin_unmap(operation);
    else
        operation_finish(operation, DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
}

/*
 * DESTROY, in this order: no new drops; the dropper, behind the drops under way, lets go of the object; the pager unregisters each
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
    pthread_mutex_lock(&operation->manager->lock);
    session_remove_region(operation->session, region);
    operation->manager->n_regions--;
    region_free(region);
    pthread_mutex_unlock(&operation->manager->lock);
    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

/* In the dropper's thread. */
static void region_destroyed(struct region *region) {
    struct operation *operation = region->destroyer;

    manager_complete(operation->manager, &operation->completion);
}

static void handle_destroy(struct connection *connection, struct channel_packet *packet) {
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
    pthread_mutex_lock(&operation->manager->lock);
    region->destroyer = operation;
    r = session_need_dropper(connection->session);
    if (r >= 0)
        r = dropper_submit_destroy(connection->session, region, region_destroyed);
    if (r >= 0) {
        region->dead = true;
        close(region->data_fd);
        region->data_fd = -1;
    }
    pthread_mutex_unlock(&operation->manager->lock);
    if (r < 0)
        operation_finish(operation, error_of(r), NULL, 0);
}

/* ---- DROP, POPULATE, CONTROL_DROP ---- */

static void drop_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_drop_reply reply = {
        .freed = atomic_load(&operation->request.freed),
        .pinned = atomic_load(&operation->request.pinned),
        .failed = atomic_load(&operation->request.failed),
    };

    operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

/* In the thread that finished last. */
static void request_done(struct drop_request *request) {
    struct operation *operation = (struct operation *)((char *)request - offsetof(struct operation, request));

    manager_complete(operation->manager, &operation->completion);
}

static void submit_drop(struct operation *operation, struct region *region, uint64_t first, uint64_t end) {
    struct session *session = region->session;

    if (region->dead)
        return;
    if (atomic_load(&session->quarantined) || session_need_dropper(session) < 0 ||
        dropper_submit(session, region, first, end, UINT64_MAX, false, &operation->request, NULL) < 0)
        counter_add(&operation->request.failed, region_resident_bytes(region));
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
    end = (range->offset + range->length) >> region->chunk_shift;
    drop_request_init(&operation->request, request_done, NULL);
    pthread_mutex_lock(&operation->manager->lock);
    if (first < end)
        submit_drop(operation, region, first, end);
    pthread_mutex_unlock(&operation->manager->lock);
    drop_request_seal(&operation->request);
}

static bool may_control(const struct connection *connection, uid_t owner) {
    return connection->uid == 0 || connection->uid == geteuid() || connection->uid == owner;
}

static void handle_control_drop(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_control_drop *drop = &packet->message.control_drop;
    struct operation *operation = operation_new(connection, &drop->header, drop_done);
    uint32_t error = drop->scope == DRP_SCOPE_ALL ? DRP_WIRE_OK : DRP_WIRE_ERROR_NOT_FOUND;
    struct session *session;
    struct region *region;

    if (!operation)
        return;
    if (drop->scope == DRP_SCOPE_ALL && !may_control(connection, 0)) {
        operation_finish(operation, DRP_WIRE_ERROR_PERMISSION, NULL, 0);
        return;
    }
    drop_request_init(&operation->request, request_done, NULL);
    pthread_mutex_lock(&operation->manager->lock);
    LIST_FOREACH(session, &operation->manager->sessions, link) {
        if (drop->scope == DRP_SCOPE_PID && (uint64_t)session->pid != drop->id)
            continue;
        LIST_FOREACH(region, &session->regions, link) {
            if (drop->scope == DRP_SCOPE_REGION && region->id != drop->id)
                continue;
            if (!may_control(connection, session->uid)) {
                error = DRP_WIRE_ERROR_PERMISSION;
                continue;
            }
            error = DRP_WIRE_OK;
            submit_drop(operation, region, 0, region->chunk_count);
        }
        if (drop->scope == DRP_SCOPE_PID && error == DRP_WIRE_ERROR_NOT_FOUND)
            error = DRP_WIRE_OK; /* a client without regions: nothing to drop */
    }
    pthread_mutex_unlock(&operation->manager->lock);
    if (error != DRP_WIRE_OK)
        operation_finish(operation, error, NULL, 0); /* nothing was submitted */
    else
        drop_request_seal(&operation->request);
}

static void populate_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_populate_reply reply = {.populated = operation->command.filled};

    operation_finish(operation, operation->command.result < 0 ? error_of(operation->command.result) : DRP_WIRE_OK, &reply,
                     sizeof(reply));
}

static void handle_populate(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_range *range = &packet->message.range;
    struct operation *operation = operation_new(connection, &range->header, populate_done);
    struct region *region = session_find_region(connection->session, range->region);

    if (!operation)
        return;
    if (!region || range->offset + range->length > region->size)
        operation_finish(operation, region ? DRP_WIRE_ERROR_INVALID : DRP_WIRE_ERROR_NOT_FOUND, NULL, 0);
    else if (region_is_opaque(region) || region->n_mappings == 0 || (region->options & DRP_REGION_HUGE))
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
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply, sizeof(reply), NULL, 0);
}

static void handle_status(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_status_reply reply = {0};

    report_status(connection->server->manager, &reply);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply, sizeof(reply), NULL, 0);
}

static void handle_list(struct connection *connection, struct channel_packet *packet) {
    struct drp_wire_list_reply reply = {0};

    report_list(connection->server->manager, packet->message.list.cursor, &reply);
    connection_reply(connection, packet->message.header.type, packet->message.header.serial, &reply,
                     offsetof(struct drp_wire_list_reply, entries) + reply.count * sizeof(reply.entries[0]), NULL, 0);
}

void handlers_dispatch(struct connection *connection, struct channel_packet *packet) {
    static void (*const handlers[])(struct connection *connection, struct channel_packet *packet) = {
        [DRP_WIRE_HELLO] = handle_hello,       [DRP_WIRE_UFFD] = handle_uffd,
        [DRP_WIRE_CREATE] = handle_create,     [DRP_WIRE_ADOPT] = handle_adopt,
        [DRP_WIRE_MAP] = handle_map,           [DRP_WIRE_UNMAP] = handle_unmap,
        [DRP_WIRE_DESTROY] = handle_destroy,   [DRP_WIRE_DROP] = handle_drop,
        [DRP_WIRE_POPULATE] = handle_populate, [DRP_WIRE_STATS] = handle_stats,
        [DRP_WIRE_STATUS] = handle_status,     [DRP_WIRE_LIST] = handle_list,
        [DRP_WIRE_CONTROL_DROP] = handle_control_drop,
    };
    uint16_t type = packet->message.header.type;

    static_assert(sizeof(handlers) / sizeof(handlers[0]) == DRP_WIRE_TYPE_MAX + 1, "a handler for each request");
    if ((type == DRP_WIRE_HELLO) != !connection->session)
        connection_end(connection, connection->session ? "state: a second hello" : "state: no hello yet");
    else
        handlers[type](connection, packet);
}
