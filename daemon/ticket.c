/* SPDX-License-Identifier: MIT */
/*
 * Tickets keep the crash contract. A ticket is an open file description of the object, with a lock on one byte: its offset is the era (one
 * for each daemon that had the region) and the mapping. The daemon keeps no copy, so the lock is there exactly as long as the mapper has
 * the region, whatever becomes of daemons. A new daemon counts the eras on, and drops nothing while there is a lock of an earlier one: a
 * mapper whose pins it does not know. It does not matter how long that takes, nor how many daemons die meanwhile.
 *
 * The mappers have the object, and can lock what they like, as long as they live: then nothing is dropped of what is theirs, or a new mapper is
 * refused. So they could by pinning all of it.
 */

#include "ticket.h"

#include "crash-point.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define ERA_SHIFT 32
/* Eras that have locks: more daemons than can have died while somebody was late. */
#define ERAS_MAX 64

static int lock_byte(int fd, uint64_t era, uint64_t mapping) {
    struct flock lock = {.l_type = F_RDLCK,
                         .l_whence = SEEK_SET,
                         .l_start = (off_t)(era << ERA_SHIFT | (mapping & UINT32_MAX)),
                         .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Is there a lock in [start, end), end 0: anywhere behind? *ret_start is where. */
static bool find_lock(int fd, uint64_t start, uint64_t end, uint64_t *ret_start) {
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = end > 0 ? (off_t)(end - start) : 0};

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
        return false;
    *ret_start = (uint64_t)lock.l_start;
    return true;
}

int ticket_next_era(int fd, uint64_t *ret) {
    uint64_t era = 1, at;

    for (unsigned i = 0; find_lock(fd, era << ERA_SHIFT, 0, &at); i++) {
        era = (at >> ERA_SHIFT) > era ? (at >> ERA_SHIFT) + 1 : era + 1;
        if (i == ERAS_MAX || era > INT32_MAX)
            return -EDQUOT;
    }
    *ret = era;
    return 0;
}

bool ticket_is_missing(int fd, uint64_t era) {
    uint64_t at;

    return find_lock(fd, 0, era << ERA_SHIFT, &at);
}

int ticket_make(int fd, uint64_t era, uint64_t mapping, int *ret_ticket) {
    char path[64];
    int ticket, r;

    snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
    ticket = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nobody's lease holds us up */
    if (ticket < 0)
        return -errno;
    r = lock_byte(ticket, era, mapping);
    CRASH_POINT("ticket-made");
    if (r < 0)
        close(ticket);
    else
        *ret_ticket = ticket;
    return r;
}

int ticket_renew(int ticket, uint64_t era, uint64_t mapping) {
    struct flock before = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = (off_t)(era << ERA_SHIFT)};
    int r = lock_byte(ticket, era, mapping);

    CRASH_POINT("ticket-doubled");
    if (r >= 0 && fcntl(ticket, F_OFD_SETLK, &before) < 0)
        r = -errno;
    CRASH_POINT("ticket-renewed");
    return r;
}
