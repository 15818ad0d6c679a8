/* SPDX-License-Identifier: MIT */
/*
 * Requests about regions that are the client's own memory. Reading what that memory is waits for the client's locks: it is a job of his dropper, with which
 * the region begins, and ends again if it is not what it should be.
 */

#include "crash-point.h"
#include "handlers-region.h"
#include "handlers.h"
#include "log.h"
#include "native.h"
#include "operation.h"
#include "quota.h"
#include "server.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define NATIVE_CHUNK_SHIFT 16

static uint32_t wire_error(int error) {
    switch (error) {
    case -EINVAL:
        return DRP_WIRE_ERROR_INVALID;
    case -EPERM:
    case -EACCES:
        return DRP_WIRE_ERROR_PERMISSION;
    default:
        return operation_error(error);
    }
}

/* The dropper has let go of it. */
static void refuse_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct region *region = operation->region;
    uint32_t error = wire_error(region->adopt_error);

    CRASH_POINT("native-refused");
    if (operation->connection) { /* else the end of the session frees it */
        pthread_mutex_lock(&operation->manager->lock);
        session_remove_region(operation->session, region);
        operation->manager->n_regions--;
        pthread_mutex_unlock(&operation->manager->lock);
        region_free(region);
    }
    operation_finish(operation, error, NULL, 0);
}

static void refuse(struct operation *operation) {
    struct region *region = operation->region;
    int r;

    if (!operation->session->native_logged && log_allows(&operation->connection->server->failures, kernel_now())) {
        operation->session->native_logged = true;
        log_info("client %s (pid %d): native memory at 0x%" PRIx64 " is not taken: %s", operation->session->name,
                 (int)operation->session->pid, region->native.address, strerror(-region->adopt_error));
    }
    operation->completion.run = refuse_done;
    pthread_mutex_lock(&operation->manager->lock);
    region->dead = true;
    r = dropper_submit_destroy(region->home, region, region_finished, operation);
    if (r >= 0) {
        close(region->data_fd);
        region->data_fd = -1;
    }
    pthread_mutex_unlock(&operation->manager->lock);
    if (r < 0) /* dead, until the session ends */
        operation_finish(operation, wire_error(r), NULL, 0);
}

static void native_done(struct completion *completion) {
    struct operation *operation = operation_of(completion);
    struct drp_wire_id reply = {.id = operation->region->id};

    CRASH_POINT("native-checked");
    if (operation->region->adopt_error < 0 && operation->connection)
        refuse(operation);
    else
        operation_finish(operation, DRP_WIRE_OK, &reply, sizeof(reply));
}

/* What is counted twice would be asked for twice. */
static bool overlaps(const struct session *session, uint64_t address, uint64_t length) {
    const struct region *region;

    LIST_FOREACH (region, &session->home.regions, link)
        if (region->native.address && !region->dead && region->native.address < address + length &&
            address < region->native.address + region->size)
            return true;
    return false;
}

static uint32_t make(struct connection *connection, const struct drp_wire_native *native, struct region **ret) {
    struct manager *manager = connection->server->manager;
    struct region_shape shape = {
        .id = manager->next_id,
        .size = native->length,
        .options = DRP_REGION_NO_PINS | DRP_REGION_NO_SWAP,
        .chunk_shift = NATIVE_CHUNK_SHIFT,
        .priority = native->priority ? native->priority : DRP_PRIORITY_NORMAL,
    };
    uint32_t error;

    if (!manager->native)
        return DRP_WIRE_ERROR_UNSUPPORTED;
    if (overlaps(connection->session, native->address, native->length))
        return DRP_WIRE_ERROR_EXISTS;
    error = quota_check(connection, native->length, region_tables_most(native->length, NATIVE_CHUNK_SHIFT));
    if (error != DRP_WIRE_OK)
        return error;
    if (region_new_native(ret, &shape, native->address, connection->session->pidfd) < 0)
        return DRP_WIRE_ERROR_MEMORY;
    manager->next_id++;
    region_set_worth(connection, *ret, native->budget, native->share);
    (*ret)->native.counting = &connection->session->home.counting;
    (*ret)->native.counting->worker = &connection->session->home.dropper.worker;
    return region_link(connection, *ret);
}

void handle_native(struct connection *connection, struct channel_packet *packet) {
    const struct drp_wire_native *native = &packet->message.native;
    struct operation *operation = operation_new(connection, &native->header, native_done);
    struct region *region;
    uint32_t error;
    int r;

    if (!operation)
        return;
    error = make(connection, native, &region);
    if (error != DRP_WIRE_OK) {
        operation_finish(operation, error, NULL, 0);
        return;
    }
    CRASH_POINT("native-made");
    operation->region = region;
    r = dropper_submit_adopt(region->home, region, packet->fds[0], native_check, region_finished, operation);
    if (r < 0) {
        /* Until the session ends, for the dropper may have heard of it; it is in nobody's way. */
        pthread_mutex_lock(&operation->manager->lock);
        region->dead = true;
        pthread_mutex_unlock(&operation->manager->lock);
        operation_finish(operation, wire_error(r), NULL, 0);
    }
}

void handle_end_native(struct connection *connection, struct channel_packet *packet) {
    const struct region *region = session_find_region(connection->session, packet->message.id.id);

    if (!region || !region->native.address)
        reply_error(connection, packet, DRP_WIRE_ERROR_NOT_FOUND);
    else
        handle_destroy(connection, packet);
}
