/* SPDX-License-Identifier: MIT */
/* userfaultfd's ioctls and what their errors mean (Documentation/admin-guide/mm/userfaultfd.rst, ioctl_userfaultfd(2)). */

#include "uffd.h"

#include "session.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

/* Filled at a time, in 50 to 100 us. */
#define STEP_BYTES (UINT64_C(256) << 10)

static enum uffd_outcome uffd_outcome_of(struct session *session, int error) {
    switch (error) {
    case EAGAIN:
        return UFFD_EVENTS;
    case ENOENT:
    case EINVAL:
        return UFFD_CHANGED;
    case ENOMEM:
        return UFFD_MEMORY;
    case ESRCH:
    case ENOSPC:
        return UFFD_GONE;
    case EBUSY:
        return UFFD_BUSY;
    default:
        counter_add(&session->home.counters.unexpected_errors, 1);
        return UFFD_FAILED;
    }
}

static int uffd_call(struct session *session, unsigned long request, void *argument) {
    int r;

    worker_call_begin(&session->pager.worker);
    do
        r = ioctl(session->pager.uffd, request, argument);
    while (r < 0 && errno == EINTR && !worker_stopping(&session->pager.worker));
    r = r < 0 ? errno : 0;
    worker_call_end(&session->pager.worker);
    return r;
}

enum uffd_outcome uffd_register(struct session *session, uint64_t start, uint64_t length, enum uffd_mode mode) {
    struct uffdio_register call = {
        .range = {.start = start, .len = length},
        .mode = mode == UFFD_MODE_WP ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING,
    };
    int error = uffd_call(session, UFFDIO_REGISTER, &call);

    return error == 0 ? UFFD_OK : uffd_outcome_of(session, error);
}

enum uffd_outcome uffd_unregister(struct session *session, uint64_t start, uint64_t length) {
    struct uffdio_range call = {.start = start, .len = length};
    int error = uffd_call(session, UFFDIO_UNREGISTER, &call);

    return error == 0 ? UFFD_OK : uffd_outcome_of(session, error);
}

enum uffd_outcome uffd_zero(struct session *session, uint64_t start, uint64_t length, uint64_t *filled) {
    while (length > 0) {
        struct uffdio_zeropage call = {
            .range = {.start = start, .len = length < STEP_BYTES ? length : STEP_BYTES},
            .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
        };
        int error = uffd_call(session, UFFDIO_ZEROPAGE, &call);
        uint64_t step;

        if (call.zeropage > 0) { /* all, or a part and EAGAIN */
            step = (uint64_t)call.zeropage < length ? (uint64_t)call.zeropage : length;
            *filled += step;
        } else if (error == EEXIST) /* somebody was quicker: that page is fine as it is */
            step = UINT64_C(1) << PAGE_SHIFT;
        else if (error != 0)
            return uffd_outcome_of(session, error);
        else
            return UFFD_OK;
        start += step;
        length -= step;
        if (length > 0)
            worker_let_others(&session->pager.worker);
    }
    return UFFD_OK;
}

void uffd_wake(struct session *session, uint64_t start, uint64_t length) {
    struct uffdio_range call = {.start = start, .len = length};

    /* Takes no lock of the client's, and can only fail for a range that is malformed. */
    if (ioctl(session->pager.uffd, UFFDIO_WAKE, &call) < 0)
        counter_add(&session->home.counters.unexpected_errors, 1);
}
