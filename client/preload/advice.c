/* SPDX-License-Identifier: MIT */

/*
 * madvise(2) and mincore(2) on droppable memory of the service: what they say on the kernel's own, tried there.
 *
 * A range is walked: pieces of ours are answered here, what lies between is the kernel's. Both go on behind a hole, and end
 * with ENOMEM then, as the kernel does.
 */

#include "cancel.h"
#include "client.h"
#include "raw.h"
#include "segment.h"
#include "serve.h"

#include <errno.h>
#include <sys/mman.h>

/* Newer than the C library's headers may be. */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

#define HUGE_PAGE ((uintptr_t)2 << 20)

enum answer {
    ANSWER_KERNEL, /* its own advice for shared memory does the same */
    ANSWER_IGNORE, /* succeeds, and is so already or may be left undone */
    ANSWER_DISCARD,
    ANSWER_GUARD, /* of private memory the kernel frees what it guards; of shared memory it stays, and would be there again */
    ANSWER_COLLAPSE,
    ANSWER_FORK,   /* noted for children; the kernel's DOFORK would give them the parent's bytes */
    ANSWER_REFUSE, /* EINVAL */
};

static enum answer answer(int advice) {
    switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_PAGEOUT:
        return ANSWER_DISCARD;
    case MADV_DONTFORK:
    case MADV_DOFORK:
        return ANSWER_FORK;
    /* Kept: the memory may be dropped at any moment in any case. */
    case MADV_FREE:
    case MADV_COLD:
    case MADV_WIPEONFORK: /* a child has zeros here */
    case MADV_DONTDUMP:
    /* The kernel does not merge shared memory, and a huge page that is dropped in parts could be seen torn. */
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
        return ANSWER_IGNORE;
    case MADV_REMOVE:
    case MADV_DODUMP:
    case MADV_KEEPONFORK:
        return ANSWER_REFUSE;
    case MADV_GUARD_INSTALL:
        return ANSWER_GUARD;
    case MADV_COLLAPSE:
        return ANSWER_COLLAPSE;
    default:
        return ANSWER_KERNEL;
    }
}

/*
 * What is discarded by hand tells nobody that the kernel may fill it again, which the service has to reckon with: the daemon finds out by and
 * by. So much is worth the 0.1 ms of telling it.
 */
#define DISCARD_TOLD ((size_t)1 << 20)

/* Whole chunks by the service, so that it knows; the parts at the ends, and all of it when the service is away, by hand. */
static int discard(const struct piece *piece) {
    if (!piece->arena->inherited && piece->end - piece->start >= DISCARD_TOLD)
        drp_drop(piece->arena->region, piece->offset, piece->end - piece->start, NULL, NULL);
    return arena_discard(piece);
}

static int by_kernel(uintptr_t start, uintptr_t end, int advice) {
    return raw_madvise((void *)start, end - start, advice) < 0 ? -errno : 0;
}

/* What is inherited is the child's own: its children have it from the kernel. */
static int forks(const struct piece *piece, bool forks) {
    int r = table_set_flags(piece->start, piece->end, PIECE_NO_FORK, forks ? 0 : PIECE_NO_FORK);

    if (r == 0 && piece->arena->inherited)
        r = by_kernel(piece->start, piece->end, forks ? MADV_DOFORK : MADV_DONTFORK);
    return r;
}

/* What the kernel does not do to sealed memory that cannot be written to, since it would lose what is in it. */
static bool loses(int advice) {
    return advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED || advice == MADV_FREE || advice == MADV_REMOVE ||
           advice == MADV_DONTFORK || advice == MADV_WIPEONFORK || advice == MADV_GUARD_INSTALL;
}

/*
 * There are no huge pages for the reason above, but the advice is good where there could be some: in a mapping that has one whole. So is
 * whatever the kernel would have made of it: it may split them again at once.
 */
static int collapse(const struct piece *piece) {
    uintptr_t block = piece->start & ~(HUGE_PAGE - 1);
    bool fits = serve_covers(block, block + HUGE_PAGE) || serve_covers(block + HUGE_PAGE, block + 2 * HUGE_PAGE);

    return fits ? 0 : -EINVAL;
}

static int advise(const struct piece *piece, int advice) {
    int r;

    if (piece->flags & PIECE_SEALED && !(piece->flags & PROT_WRITE) && loses(advice))
        return -EPERM;
    switch (answer(advice)) {
    case ANSWER_IGNORE:
        return 0;
    case ANSWER_DISCARD:
        return discard(piece);
    case ANSWER_GUARD:
        r = by_kernel(piece->start, piece->end, advice);
        return r < 0 ? r : discard(piece);
    case ANSWER_COLLAPSE:
        return collapse(piece);
    case ANSWER_FORK:
        return forks(piece, advice == MADV_DOFORK);
    case ANSWER_REFUSE:
        return -EINVAL;
    case ANSWER_KERNEL:
        break;
    }
    return by_kernel(piece->start, piece->end, advice);
}

static int advise_pages(uintptr_t start, uintptr_t end, int advice) {
    struct segment s;
    bool holes = false;
    int r;

    for (; segment_first(start, end, &s); start = s.end) {
        r = s.ours ? advise(&s.piece, advice) : by_kernel(s.start, s.end, advice);
        segment_release(&s);
        if (r < 0 && r != -ENOMEM)
            return r;
        holes |= r == -ENOMEM;
    }
    return holes ? -ENOMEM : 0;
}

int serve_madvise(void *address, size_t length, int advice) {
    NOT_CANCELLED;
    int saved = errno, r;
    uintptr_t start, end;

    if (!arena_pages(address, length, &start, &end))
        return raw_madvise(address, length, advice);
    r = advise_pages(start, end, advice);
    errno = r < 0 ? -r : saved;
    return r < 0 ? -1 : 0;
}

/* The kernel judges the arguments, and what is not ours. */
int serve_mincore(void *address, size_t length, unsigned char *vector) {
    NOT_CANCELLED;
    int saved = errno, r = 0;
    uintptr_t start, end;
    struct piece piece;

    if (raw_mincore(address, length, vector) < 0)
        return -1;
    if (!arena_pages(address, length, &start, &end))
        return 0;
    for (uintptr_t at = start; r == 0 && table_find(at, end, &piece); at = piece.end) {
        r = arena_resident(&piece, vector + (piece.start - start) / ARENA_PAGE);
        arena_release(piece.arena);
    }
    errno = r < 0 ? EAGAIN : saved;
    return r < 0 ? -1 : 0;
}
