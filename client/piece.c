/* SPDX-License-Identifier: MIT */

/*
 * Pieces: ranges of a region that are mapped one by one, anywhere, by who keeps their account (region_next_piece).
 *
 * Like a whole region a piece is mapped inaccessible, kept out of children and core dumps, announced, and made accessible last, by the
 * caller. He enters it into his account before it is announced: if the daemon changes in between, the next one hears of it by the account, too,
 * and telling it twice is no error.
 */

#include "client.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

int piece_map(struct drp_region *r, void *address, int flags, size_t offset, size_t length, void **ret) {
    int error = 0;
    void *p;

    if (!object_holds(r->data_fd, &r->data_object))
        return error_detail(-ENOMEM, "the program has closed the region's descriptor");
    fork_lock();
    p = mmap(address, length, PROT_NONE, MAP_SHARED | flags, r->data_fd, (off_t)(r->object_offset + offset));
    if (p == MAP_FAILED)
        error = -errno;
    else if (madvise(p, length, MADV_DONTFORK) < 0) {
        error = -errno;
        munmap(p, length);
    }
    fork_unlock();
    if (error < 0)
        return error_detail(error, "cannot map %zu bytes of a region: %s", length, strerror(-error));
    madvise(p, length, MADV_DONTDUMP);
    madvise(p, length, MADV_NOHUGEPAGE);
    *ret = p;
    return 0;
}

static void add(struct drp_wire_pieces *request, const struct region_piece *piece) {
    request->pieces[request->count++] =
        (struct drp_wire_piece){.address = (uintptr_t)piece->address, .length = piece->length, .offset = piece->offset};
}

static int call(struct link *link, struct drp_wire_pieces *request) {
    size_t size = offsetof(struct drp_wire_pieces, pieces) + request->count * sizeof(request->pieces[0]);

    return link_call(link, request, size, NULL, 0, REQUEST_TIMEOUT_MS);
}

/* Under request_lock: there is a daemon that has the region. */
static int call_about(struct drp_region *r, uint16_t type, const struct region_piece *piece) {
    struct drp_wire_pieces request = {.header.type = type, .mapping = r->mapping};

    if (!r->known || !atomic_load(&r->connected))
        return error_detail(-ENOTCONN, "the service does not hold this region");
    add(&request, piece);
    return call(&r->context->link, &request);
}

int piece_announce(struct drp_region *r, const struct region_piece *piece) {
    int error = context_lock(r->context);

    if (error < 0)
        return error;
    error = call_about(r, DRP_WIRE_MAP_PIECES, piece);
    context_unlock(r->context);
    return error;
}

/* false: there is no daemon to be told. */
static bool tell_end(struct drp_region *r, const struct region_piece *piece) {
    struct drp *d = r->context;
    bool connected;

    /* Not context_lock(): nobody connects for an end. */
    pthread_mutex_lock(&d->request_lock);
    connected = atomic_load(&d->connected);
    if (connected)
        call_about(r, DRP_WIRE_UNMAP_PIECES, piece);
    pthread_mutex_unlock(&d->request_lock);
    return connected;
}

void piece_end(struct drp_region *r, const void *address, size_t length) {
    struct region_piece piece = {.address = (void *)(uintptr_t)address, .length = length};
    struct drp *d = r->context;

    if (tell_end(r, &piece))
        return;
    /* The next daemon may have heard of it a moment ago: who is handing over has the lock until it can be told. */
    pthread_mutex_lock(&d->regions_lock);
    pthread_mutex_unlock(&d->regions_lock);
    tell_end(r, &piece);
}

int piece_populate(struct drp_region *r, const struct region_piece *piece) {
    return range_populate(r, piece->address, piece->offset, piece->length);
}

/* A refusal leaves pieces that are not intercepted, which is less than the loss of the region. */
static int flush(struct link *link, struct drp_wire_pieces *request) {
    int error = request->count > 0 ? call(link, request) : 0;

    request->count = 0;
    return error == -ENOTCONN || error == -ETIMEDOUT || error == -ECANCELED || error == -EPROTO ? error : 0;
}

int piece_announce_all(struct drp_region *r, struct link *link) {
    struct drp_wire_pieces request = {.header.type = DRP_WIRE_MAP_PIECES, .mapping = r->mapping};
    struct region_piece piece;
    int error = 0;

    for (uintptr_t from = 0; error == 0 && region_piece(r, from, &piece);
         from = (uintptr_t)piece.address + piece.length) {
        add(&request, &piece);
        if (request.count == DRP_WIRE_PIECES_MAX)
            error = flush(link, &request);
    }
    return error == 0 ? flush(link, &request) : error;
}
