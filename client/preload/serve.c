/* SPDX-License-Identifier: MIT */

/*
 * Droppable memory of the service under the semantics of mmap(2), munmap(2) and mremap(2).
 *
 * Each mapping is a range of an arena's object, taken by an offset and mapped where the kernel says; no byte is mapped beyond what was
 * asked for. The program may then unmap any part: the table keeps the pieces that are left, and the memory of the part is
 * freed at once. A call's range may cover ours and other memory: it is walked piece by piece, and the kernel gets what lies between.
 *
 * No lock is held over a call of the client library or the kernel. What takes addresses from us changes the table first
 * and the mapping second; so an address that the kernel gives away again is in the table only if the program unmapped it by hand, and
 * such a piece ends when its place is taken. Bytes are given to the next mapping only when nobody can write to them any more: what
 * ends is first replaced by inaccessible memory, then its pages are freed.
 */

#include "serve.h"

#include "arena.h"
#include "backend.h"
#include "cancel.h"
#include "children.h"
#include "client.h"
#include "raw.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Linux 4.17. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* What every process of these machines has; more only where it is asked for. */
#define LOW_END ((uintptr_t)1 << 47)
#define TRIAL_MAX ((size_t)1 << 30)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;

/*
 * This thread is inside of mmap(2) or mremap(2), whose library allocates: an allocator that takes its memory from us would come
 * back here, and wait for itself. initial-exec: the other models may allocate at the first access.
 */
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

static void init(void) {
    once_error = children_init();
}

/*
 * Not only with the first mapping: which may be another thread's, beside a fork(2) that is under way. The handlers that are registered by then are not run
 * in that child, which would find our locks as that thread left them.
 */
void __attribute__((constructor)) serve_early(void) {
    if (backend_get() == DRP_BACKEND_DAEMON)
        pthread_once(&once, init);
}

/* ---- unmapping ---- */

/* A piece that the kernel would not take away is one still. Nothing of it is lost, unless there is no room in the table: then it is the kernel's. */
static int put_back(const struct piece *piece) {
    struct region_piece told = {
        .address = (void *)piece->start, .length = piece->end - piece->start, .offset = piece->offset};

    if (table_add(piece) == 0)
        piece_announce(piece->arena->region, &told); /* else it stays what it is, unseen */
    return -ENOMEM;
}

/* Is something else put in its place before it ends? Of an arena of one mapping that ends with it nobody has bytes again. */
static bool is_replaced(const struct piece *piece) {
    const struct arena *arena = piece->arena;

    return !arena->inherited && (arena_is_shared(arena) || !table_is_last(arena));
}

/*
 * Ends a piece that the table no longer has, and gives the caller's reference of it back. mapped: it is at its addresses still, which are
 * inaccessible afterwards. -ENOMEM: the kernel has no room for one mapping more, and all is as it was.
 */
static int end_piece(const struct piece *piece, bool mapped) {
    struct arena *arena = piece->arena;
    size_t length = piece->end - piece->start;
    bool freed = false;
    int r = 0;

    if (is_replaced(piece)) {
        freed = arena_has_object(arena);
        piece_end(arena->region, (void *)piece->start, length);
        if (!freed && mapped)
            raw_madvise((void *)piece->start, length, MADV_REMOVE);
        /* With as many mappings as there may be a whole one can go still, and only a hole inside of one cannot. */
        if (mapped &&
            raw_mmap((void *)piece->start, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                     -1, 0) == MAP_FAILED &&
            raw_munmap((void *)piece->start, length) < 0)
            r = put_back(piece);
        if (r == 0 && freed)
            freed = arena_discard(piece) == 0;
    }
    /* Else those bytes are never used again. */
    if (r == 0 && freed)
        arena_give(arena, piece->offset, length);
    arena_release(arena);
    return r;
}

/* What of a range is ours is no longer. mapped: see end_piece(). What the kernel refuses is a hole inside of one mapping: so it is all or nothing. */
static int displace(uintptr_t start, uintptr_t end, bool mapped) {
    struct piece piece;
    int r;

    while ((r = table_cut(start, end, &piece)) > 0) {
        r = end_piece(&piece, mapped);
        if (r < 0)
            break;
    }
    return r;
}

int serve_may_end(uintptr_t start, uintptr_t end) {
    return table_has_flags(start, end, PIECE_SEALED) ? -EPERM : 0;
}

int serve_displace(uintptr_t start, uintptr_t end) {
    int r = serve_may_end(start, end);

    return r < 0 ? r : displace(start, end, true);
}

void serve_taken(const void *address, size_t length) {
    NOT_CANCELLED;
    int saved = errno;
    uintptr_t start, end;

    if (arena_pages(address, length, &start, &end))
        displace(start, end, false);
    errno = saved;
}

static size_t bytes_of_ours(uintptr_t start, uintptr_t end) {
    struct piece piece;
    size_t bytes = 0;

    for (; table_find(start, end, &piece); start = piece.end) {
        uintptr_t from = piece.start > start ? piece.start : start, to = piece.end < end ? piece.end : end;

        bytes += to - from;
        arena_release(piece.arena);
    }
    return bytes;
}

/*
 * Where there is no room for all of it beside what is there, as with RLIMIT_AS, as much more as it will take. Huge pages are no less: none is to be had then,
 * and the kernel says so.
 */
static void *try_elsewhere(size_t *length, size_t ours, int protection, int flags, int fd, long offset) {
    void *p;

    flags &= ~(MAP_FIXED | MAP_POPULATE | MAP_LOCKED);
    p = raw_mmap(NULL, *length, protection, flags, fd, offset);
    if (p != MAP_FAILED || errno != ENOMEM || flags & MAP_HUGETLB)
        return p;
    *length = ours < *length ? *length - ours : ARENA_PAGE;
    return raw_mmap(NULL, *length, protection, flags, fd, offset);
}

/* What a file of huge pages rounds up only goes as a whole. */
static void end_trial(void *p, size_t length) {
    while (raw_munmap(p, length) < 0 && length < TRIAL_MAX)
        length *= 2;
}

/*
 * Something else is about to take these addresses. A range that the kernel will refuse is left alone; whether it refuses something else of
 * what is asked for is tried elsewhere, where nothing of ours is; and stays there meanwhile: so there is one mapping left for the real one.
 */
static int make_room(void *address, size_t length, int protection, int flags, int fd, long offset) {
    uintptr_t start, end;
    void *p;
    int r;

    if (!arena_pages(address, length, &start, &end) || !table_has(start, end))
        return 0;
    if (serve_may_end(start, end) < 0)
        return -EPERM;
    p = try_elsewhere(&length, bytes_of_ours(start, end), protection, flags, fd, offset);
    if (p == MAP_FAILED)
        return -errno;
    r = displace(start, end, true);
    end_trial(p, length);
    return r;
}

void *serve_replace(void *address, size_t length, int protection, int flags, int fd, long offset) {
    NOT_CANCELLED;
    int saved = errno, r = make_room(address, length, protection, flags, fd, offset);

    errno = r < 0 ? -r : saved;
    return r < 0 ? MAP_FAILED : raw_mmap(address, length, protection, flags, fd, offset);
}

/* The kernel refuses a range beyond what a process has, which is more on some machines: it is asked first. */
int serve_munmap(void *address, size_t length) {
    NOT_CANCELLED;
    int saved = errno, r = 0;
    uintptr_t start, end;

    if (arena_pages(address, length, &start, &end) && start < LOW_END && end > LOW_END &&
        raw_munmap((void *)LOW_END, end - LOW_END) < 0)
        return -1;
    if (arena_pages(address, length, &start, &end))
        r = serve_displace(start, end);
    errno = r < 0 ? -r : saved;
    return r < 0 ? -1 : raw_munmap(address, length);
}

/* ---- mapping ---- */

/* As Linux 6.11 checks MAP_DROPPABLE | MAP_ANONYMOUS; what depends on the address is left to the kernel. */
static int check(const void *address, size_t length, int flags, long offset) {
    if (length == 0 || offset & (long)(ARENA_PAGE - 1))
        return -EINVAL;
    if (length > SIZE_MAX / 2)
        return -ENOMEM;
    if (flags & (MAP_LOCKED | MAP_HUGETLB | MAP_GROWSDOWN))
        return -EINVAL;
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) && (uintptr_t)address & (ARENA_PAGE - 1))
        return -EINVAL;
    return 0;
}

/* What mmap(2) says: a service that is not there is a kernel without MAP_DROPPABLE, all else is no memory. */
static int context_error(int error) {
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -EDQUOT || error == -ETIMEDOUT
               ? -ENOMEM
               : -EOPNOTSUPP;
}

static int take_error(int error) {
    return error == -EACCES || error == -EPERM || error == -EAGAIN ? error : -ENOMEM;
}

/* The piece is mapped, inaccessible, and the caller has a reference, which he keeps. On failure nothing of it is left. */
static int enter(const struct piece *piece) {
    struct region_piece told = {
        .address = (void *)piece->start, .length = piece->end - piece->start, .offset = piece->offset};
    int r = table_add(piece);

    if (r < 0) {
        raw_munmap(told.address, told.length);
        arena_give(piece->arena, piece->offset, told.length);
        return r;
    }
    r = piece_announce(piece->arena->region, &told);
    if (r < 0)
        backend_complain(r);
    if (r == 0 && piece->flags & PIECE_PROTECTION &&
        raw_mprotect(told.address, told.length, piece->flags & PIECE_PROTECTION) < 0)
        r = -errno;
    if (r == 0)
        return 0;
    displace(piece->start, piece->end, true);
    raw_munmap(told.address, told.length);
    return take_error(r);
}

static int place(struct piece *piece, void *address, size_t length, int flags) {
    bool replaces = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == MAP_FIXED;
    void *p;
    int r = 0;

    if (replaces)
        r = serve_displace((uintptr_t)address, (uintptr_t)address + length);
    if (r == 0)
        r = piece_map(piece->arena->region, address, flags & (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT),
                      piece->offset, length, &p);
    if (r < 0)
        return r;
    piece->start = (uintptr_t)p;
    piece->end = piece->start + length;
    if (!replaces)
        r = displace(piece->start, piece->end, false); /* what the program unmapped by hand */
    if (r < 0)
        raw_munmap(p, length);
    return r;
}

int serve_map(void *address, const void *behind, size_t length, int protection, int flags, void **ret) {
    struct piece piece = {.flags = protection & PIECE_PROTECTION};
    struct region_piece told;
    struct drp *d;
    int r;

    r = protection & PROT_WRITE ? limit_data(length) : 0;
    if (r < 0)
        return r;
    r = backend_context(&d);
    if (r < 0) {
        backend_complain(r);
        return context_error(r);
    }
    r = arena_take(d, behind, length, &piece.arena, &piece.offset);
    if (r < 0) {
        backend_complain(r);
        return take_error(r);
    }
    r = place(&piece, address, length, flags);
    if (r < 0)
        arena_give(piece.arena, piece.offset, length);
    else
        r = enter(&piece);
    /* Like the kernel, to which a failure of this is none of the mapping. */
    if (r == 0 && (flags & MAP_POPULATE) && !(flags & MAP_NONBLOCK) && piece.flags & PIECE_PROTECTION) {
        told = (struct region_piece){.address = (void *)piece.start, .length = length, .offset = piece.offset};
        piece_populate(piece.arena->region, &told);
    }
    if (r == 0)
        protect_fill_new(piece.start, piece.end);
    arena_release(piece.arena);
    *ret = (void *)piece.start;
    return r;
}

int serve_begin(void) {
    if (inside)
        return -ENOMEM;
    pthread_once(&once, init);
    fork_catch_up();
    if (once_error == 0)
        inside = true;
    return once_error;
}

void serve_end(void) {
    inside = false;
}

void *serve_mmap(void *address, size_t length, int protection, int flags, long offset) {
    NOT_CANCELLED;
    int saved = errno, r = check(address, length, flags, offset);
    void *p = MAP_FAILED;

    if (r == 0)
        r = serve_begin();
    if (r == 0) {
        r = serve_map(address, address, (length + ARENA_PAGE - 1) & ~(ARENA_PAGE - 1), protection, flags, &p);
        serve_end();
    }
    errno = r < 0 ? -r : saved;
    return r < 0 ? MAP_FAILED : p;
}
