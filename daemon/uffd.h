/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_UFFD_H
#define DROPPABLE_DAEMON_UFFD_H

/*
 * The ioctls of userfaultfd(2), with each errno turned into what it means. For the pager's thread only: each may wait for the client's
 * mmap_lock, and is announced to the worker's clock.
 */

#include <stdbool.h>
#include <stdint.h>

struct session;

enum uffd_outcome {
    UFFD_OK = 0,
    UFFD_EVENTS,  /* EAGAIN: an event has to be read first */
    UFFD_CHANGED, /* ENOENT, EINVAL: not one registered VMA any more: split, unmapped or replaced */
    UFFD_MEMORY,  /* ENOMEM: no memory, or (register) no more VMAs */
    UFFD_GONE,    /* ESRCH, ENOSPC: the process is gone */
    UFFD_BUSY,    /* EBUSY: registered with another descriptor */
    UFFD_FAILED,  /* anything else, counted as unexpected */
};

enum uffd_mode { UFFD_MODE_MISSING, UFFD_MODE_WP };

enum uffd_outcome uffd_register(struct session *session, uint64_t start, uint64_t length, enum uffd_mode mode);
enum uffd_outcome uffd_unregister(struct session *session, uint64_t start, uint64_t length);
/* Fills with zero pages what is not there, without waking. *filled grows by the bytes that this made resident. */
enum uffd_outcome uffd_zero(struct session *session, uint64_t start, uint64_t length, uint64_t *filled);
void uffd_wake(struct session *session, uint64_t start, uint64_t length);

#endif
