/* SPDX-License-Identifier: MIT */

/*
 * mprotect(2) and mlock(2) and their kin.
 *
 * The kernel protects; the table notes it for children. Locking is all the kernel's, too, which judges the range, the limits and who may;
 * but droppable memory is not locked, only brought in: what is ours of the range is unlocked again. It is dropped all the same while it is locked.
 */

#include "cancel.h"
#include "raw.h"
#include "segment.h"
#include "serve.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* Linux 4.4. */
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

static _Atomic bool locks_future;

/* ---- protection ---- */

/* key: of pkey_mprotect(2); -1: none. */
static int by_kernel(const struct segment *s, int protection, int key) {
    void *start = (void *)s->start;
    size_t length = s->end - s->start;

    return (key < 0 ? raw_mprotect(start, length, protection) : raw_pkey_mprotect(start, length, protection, key)) < 0
               ? -errno
               : 0;
}

/* Becomes memory that can be written to, and is none yet. */
static bool becomes_writable(const struct segment *s, int protection) {
    return s->ours && protection & PROT_WRITE && !(s->piece.flags & PROT_WRITE) && !s->piece.arena->inherited;
}

/* Noted first: there may be no room for that. */
static int protect(const struct segment *s, int protection, int key) {
    int r = becomes_writable(s, protection) ? limit_data(s->end - s->start) : 0;

    if (r < 0)
        return r;
    r = s->ours ? table_set_flags(s->start, s->end, PIECE_PROTECTION, protection & PIECE_PROTECTION) : 0;

    if (r < 0)
        return r;
    r = by_kernel(s, protection, key);
    if (r < 0 && s->ours)
        table_set_flags(s->start, s->end, PIECE_PROTECTION, s->piece.flags & PIECE_PROTECTION);
    return r;
}

int serve_mprotect(void *address, size_t length, int protection, int key) {
    NOT_CANCELLED;
    int saved = errno, r = 0;
    uintptr_t start, end;
    struct segment s;

    if (!arena_pages(address, length, &start, &end))
        return key < 0 ? raw_mprotect(address, length, protection) : raw_pkey_mprotect(address, length, protection, key);
    for (; r == 0 && segment_first(start, end, &s); start = s.end) {
        r = protect(&s, protection, key);
        segment_release(&s);
    }
    errno = r < 0 ? -r : saved;
    return r < 0 ? -1 : 0;
}

/* ---- locks ---- */

/* fill: as if it had been locked without MLOCK_ONFAULT. */
static int unlock_ours(uintptr_t start, uintptr_t end, bool fill) {
    struct segment s;
    int r = 0;

    for (; segment_first(start, end, &s); start = s.end) {
        if (!s.ours)
            continue;
        if (fill && r == 0 && raw_mlock((void *)s.start, s.end - s.start) < 0)
            r = -errno;
        raw_munlock((void *)s.start, s.end - s.start);
        segment_release(&s);
    }
    return r;
}

int serve_mlock(const void *address, size_t length, int flags) {
    int r = flags == 0 ? raw_mlock(address, length) : raw_mlock2(address, length, flags);
    int error = r < 0 ? -errno : 0, saved = errno, filled;
    uintptr_t start = (uintptr_t)address & ~(ARENA_PAGE - 1);
    uintptr_t end = ((uintptr_t)address + length + ARENA_PAGE - 1) & ~(ARENA_PAGE - 1);

    filled = unlock_ours(start, end, error == 0 && flags & MLOCK_ONFAULT);
    if (error == 0)
        error = filled;
    errno = error < 0 ? -error : saved;
    return error < 0 ? -1 : 0;
}

int serve_mlockall(int flags) {
    int saved;

    if (raw_mlockall(flags) < 0)
        return -1;
    saved = errno;
    atomic_store(&locks_future, (flags & MCL_FUTURE) != 0);
    if (flags & MCL_CURRENT)
        unlock_ours(0, UINTPTR_MAX & ~(ARENA_PAGE - 1), flags & MCL_ONFAULT);
    errno = saved;
    return 0;
}

int serve_munlockall(void) {
    atomic_store(&locks_future, false);
    return raw_munlockall();
}

void protect_fill_new(uintptr_t start, uintptr_t end) {
    if (atomic_load(&locks_future))
        unlock_ours(start, end, true);
}
