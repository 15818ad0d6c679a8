/* SPDX-License-Identifier: MIT */

/*
 * What a program asks for by hand, of a range of a region: to drop it, to make it resident.
 *
 * A request goes out in pieces, each with a deadline of its own, so that the deadline measures the daemon's health and
 * not the size of the range.
 */

#include "cancel.h"
#include "client.h"
#include "local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE UINT64_C(4096)
#define POPULATE_PIECE (UINT64_C(64) << 20)
#define DROP_PIECE (UINT64_C(4) << 30)

/* Linux 5.14. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

int range_check(const struct drp_region *r, size_t offset, size_t length) {
    if (r->pins.foreign)
        return fork_foreign();
    if (length == 0 || offset >= r->size || length > r->size - offset)
        return error_detail(-ERANGE, "offset %zu, length %zu: not inside the region, which has %zu bytes, or empty",
                            offset, length, r->size);
    return 0;
}

/* One request about a piece of a region; *ret is its reply. */
static int range_call(struct drp_region *r, uint16_t type, uint64_t offset, uint64_t length,
                      struct drp_wire_drop_reply *ret) {
    struct drp *d = r->context;
    struct drp_wire_range request = {.header.type = type, .offset = offset, .length = length};
    int error;

    error = context_lock(d);
    if (error < 0)
        return error;
    if (atomic_load(&r->connected)) {
        request.region = atomic_load(&r->id);
        error = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_LONG_MS);
        if (error == 0 && ret)
            *ret = d->link.packet->message.drop_reply;
    } else {
        error = error_detail(-ENOTCONN,
                             "the service does not hold this region: it was made before fork(), or the service could "
                             "not take it over; it is plain memory");
    }
    context_unlock(d);
    return error;
}

int drp_drop(struct drp_region *r, size_t offset, size_t length, uint64_t *ret_freed, uint64_t *ret_pinned) {
    NOT_CANCELLED;
    uint64_t mask = (UINT64_C(1) << r->pins.chunk_shift) - 1;
    struct drp_wire_drop_reply reply;
    uint64_t freed = 0;
    uint64_t pinned = 0;
    uint64_t start;
    uint64_t end;
    int error;

    error = range_check(r, offset, length);
    if (error < 0)
        return error;
    end = (offset + length) & ~mask;
    if (r->backend != DRP_BACKEND_DAEMON)
        return local_drop(r, (offset + mask) & ~mask, end, ret_freed, ret_pinned);
    for (start = (offset + mask) & ~mask; start < end; start += DROP_PIECE) {
        error = range_call(r, DRP_WIRE_DROP, start, end - start < DROP_PIECE ? end - start : DROP_PIECE, &reply);
        if (error < 0)
            return error;
        if (reply.failed > 0)
            return error_detail(-ETIMEDOUT,
                                "the service could not free %llu bytes: its calls are held up, or too many drops wait",
                                (unsigned long long)reply.failed);
        freed += reply.freed;
        pinned += reply.pinned;
    }
    if (ret_freed)
        *ret_freed = freed;
    if (ret_pinned)
        *ret_pinned = pinned;
    return 0;
}

/* By the kernel. */
static int populate_here(char *p, uint64_t length) {
    int error;

    /* Not fallocate(2): SEEK_DATA takes what it allocates for a hole until it is touched, and the service could not drop it. */
    error = madvise(p, length, MADV_POPULATE_WRITE) < 0 ? errno : 0;
    /* What may only be read: a hole of shared memory gets its page by that, too. */
    if (error == EINVAL)
        error = madvise(p, length, MADV_POPULATE_READ) < 0 ? errno : 0;
    if (error == EINVAL) { /* before 5.14 */
        for (uint64_t i = 0; i < length; i += PAGE)
            (void)*(volatile char *)(p + i);
        error = 0;
    }
    return error ? error_detail(-error, "the kernel cannot populate %llu bytes: %s", (unsigned long long)length,
                                strerror(error))
                 : 0;
}

int range_populate(struct drp_region *r, void *address, uint64_t offset, uint64_t length) {
    NOT_CANCELLED;
    for (uint64_t at = 0; at < length; at += POPULATE_PIECE) {
        uint64_t piece = length - at < POPULATE_PIECE ? length - at : POPULATE_PIECE;
        int error = range_call(r, DRP_WIRE_POPULATE, offset + at, piece, NULL);

        /* Away, or without interception: nobody but the kernel can. */
        if (error == -ENOTCONN || error == -EOPNOTSUPP)
            error = populate_here((char *)address + at, piece);
        if (error < 0)
            return error;
    }
    return 0;
}

int drp_populate(struct drp_region *r, size_t offset, size_t length) {
    uint64_t start = offset & ~(PAGE - 1);
    int error;

    if (r->signal_fd >= 0)
        return signal_populate(r, offset, length);
    error = range_check(r, offset, length);
    if (error < 0)
        return error;
    length = ((offset + length + PAGE - 1) & ~(PAGE - 1)) - start;
    return r->backend == DRP_BACKEND_DAEMON ? range_populate(r, (char *)r->address + start, start, length)
                                            : populate_here((char *)r->address + start, length);
}
