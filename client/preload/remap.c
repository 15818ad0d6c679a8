/* SPDX-License-Identifier: MIT */

/*
 * mremap(2) of droppable memory of the service, and onto it.
 *
 * What is kept stays the same bytes of the same arena: its pages move with the mapping, by the kernel. The daemon hears of the end before and of
 * the new place afterwards, so it counts as new there. What is added comes from wherever there is room, so what the program takes for one
 * mapping can be of several pieces: a range that is ours without a hole is one here. What a child inherited is plain memory: the
 * kernel does all of it.
 */

#include "backend.h"
#include "cancel.h"
#include "client.h"
#include "raw.h"
#include "segment.h"
#include "serve.h"

#include <errno.h>
#include <sys/mman.h>

/* Linux 5.7, 4.17. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Pieces of an inherited range that are taken out before the kernel moves it. */
#define INHERITED_MAX 16

struct request {
    uintptr_t from, to; /* to: where, or a hint */
    size_t had, wanted; /* bytes, whole pages */
    int flags;
};

static size_t round_up(size_t length) {
    return (length + ARENA_PAGE - 1) & ~(ARENA_PAGE - 1);
}

/* Bytes that stay, where they are or elsewhere. */
static size_t kept(const struct request *r) {
    return r->wanted < r->had ? r->wanted : r->had;
}

/* Nothing of it is moved, and nothing is added. */
static bool is_cut(const struct request *r) {
    return !(r->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && r->wanted <= r->had;
}

static bool overlap(const struct request *r) {
    return r->from < r->to + r->wanted && r->to < r->from + r->had;
}

/* Does the kernel refuse it for how it is asked, whatever is mapped? */
static bool is_malformed(const struct request *r) {
    bool fixed = r->flags & MREMAP_FIXED, stays = r->flags & MREMAP_DONTUNMAP;

    return r->flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) ||
           ((fixed || stays) && !(r->flags & MREMAP_MAYMOVE)) || (stays && r->had != r->wanted) ||
           (r->from | (fixed ? r->to : 0)) & (ARENA_PAGE - 1) || r->wanted == 0 || r->had == 0 ||
           r->from + r->had < r->from || r->wanted > SIZE_MAX / 2 ||
           (fixed && (r->to + r->wanted < r->to || overlap(r)));
}

/* ---- moving ---- */

/* By the kernel, and in the table. *ret_moved: it is at the new place, also if it fails. */
static int move_piece(const struct piece *from, uintptr_t to, bool stays, bool *ret_moved) {
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (stays ? MREMAP_DONTUNMAP : 0), error = 0, r;
    size_t length = from->end - from->start;
    struct piece piece = *from;
    struct region_piece told;

    piece_end(piece.arena->region, (void *)piece.start, length);
    if (raw_mremap((void *)piece.start, length, length, flags, (void *)to) == MAP_FAILED)
        error = -errno;
    else {
        piece.start = to;
        piece.end = to + length;
    }
    told = (struct region_piece){.address = (void *)piece.start, .length = length, .offset = piece.offset};
    r = table_add(&piece);
    if (r == 0)
        piece_announce(piece.arena->region, &told); /* else it stays what it is, unseen */
    *ret_moved = error == 0 && r == 0;
    return error < 0 ? error : r;
}

/*
 * They go to another place, which is a reservation of ours. *ret_done: bytes that are at the new place, also if it fails. Other threads may fork
 * meanwhile: at no moment is there nothing of a piece for the child.
 */
static int move_pieces(const struct request *request, int protection, size_t *ret_done) {
    uintptr_t end = request->from + request->had;
    bool stays = request->flags & MREMAP_DONTUNMAP, moved;
    int r = 0;

    *ret_done = 0;
    while (r == 0 && *ret_done < request->had) {
        uintptr_t at = request->from + *ret_done;
        struct move move;
        void *p;

        r = table_begin_move(at, end, &move);
        if (r <= 0)
            return r < 0 ? r : -EFAULT;
        r = move_piece(&move.piece, request->to + *ret_done, stays, &moved);
        if (moved)
            *ret_done = move.piece.end - request->from;
        /* The kernel has left the old mapping, of the same bytes; it keeps the place until others are there. */
        if (r == 0 && stays)
            r = serve_map((void *)at, NULL, move.piece.end - at, protection, MAP_FIXED, &p);
        table_end_move(&move);
        arena_release(move.piece.arena);
    }
    return r;
}

/* Finds the new place and holds it. */
static int reserve(struct request *request) {
    bool fixed = request->flags & MREMAP_FIXED;
    void *p;
    int r = 0;

    if (fixed)
        r = serve_displace(request->to, request->to + request->wanted);
    if (r < 0)
        return r;
    p = raw_mmap((void *)request->to, request->wanted, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (fixed ? MAP_FIXED : 0), -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    request->to = (uintptr_t)p;
    return 0;
}

/* What was moved stays there if the rest cannot be: where it was may be somebody else's by now. */
static int move(struct request *request, int protection) {
    uintptr_t behind = request->from + request->had;
    size_t done = 0;
    void *p;
    int r = reserve(request);

    if (r == 0 && request->wanted > request->had)
        r = serve_map((void *)(request->to + request->had), (void *)behind, request->wanted - request->had, protection,
                      MAP_FIXED, &p);
    else if (r < 0)
        return r;
    if (r == 0)
        r = move_pieces(request, protection, &done);
    if (r < 0)
        serve_munmap((void *)(request->to + done), request->wanted - done);
    return r;
}

/* ---- the call ---- */

static int cut_tail(struct request *request) {
    uintptr_t start = request->from + request->wanted;

    if (request->wanted >= request->had)
        return 0;
    if (serve_munmap((void *)start, request->had - request->wanted) < 0)
        return -errno;
    request->had = request->wanted;
    return 0;
}

/* At the end of what is there. -EEXIST: there is something else, also where the kernel takes the address for a hint (before Linux 4.17). */
static int extend(uintptr_t behind, size_t length, int protection) {
    void *p;
    int r = serve_map((void *)behind, (void *)behind, length, protection, MAP_FIXED_NOREPLACE, &p);

    if (r == 0 && (uintptr_t)p != behind) {
        serve_munmap(p, length);
        r = -EEXIST;
    }
    return r;
}

/* What stays of it is ours, and it is no mere cut. Its result is request->to. */
static int remap(struct request *request, int protection) {
    bool elsewhere = request->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP);
    uintptr_t behind = request->from + request->had;
    int r = cut_tail(request);

    if (r < 0)
        return r;
    if (elsewhere)
        return move(request, protection);
    r = extend(behind, request->wanted - request->had, protection);
    if (r == -EEXIST && request->flags & MREMAP_MAYMOVE) {
        request->to = 0;
        return move(request, protection);
    }
    request->to = request->from;
    return r == -EEXIST ? -ENOMEM : r;
}

/* Of the table. */
struct taken {
    struct piece pieces[INHERITED_MAX];
    unsigned n;
};

/* Puts it back, if it is still there; the references end. */
static int give_back(const struct taken *taken, bool there) {
    int r = 0, added;

    for (unsigned i = 0; i < taken->n; i++) {
        added = there ? table_add(&taken->pieces[i]) : 0;
        if (added < 0)
            r = added;
        arena_release(taken->pieces[i].arena);
    }
    return r;
}

/* As many as there is room for. */
static int take_out(const struct request *request, struct taken *ret) {
    uintptr_t end = request->from + request->had;

    for (ret->n = 0; ret->n < INHERITED_MAX; ret->n++) {
        int r = table_cut(request->from, end, &ret->pieces[ret->n]);

        if (r < 0)
            give_back(ret, true);
        if (r <= 0)
            return r;
    }
    return 0;
}

/* There were more: the kernel has moved these, too. What is not inherited is another thread's, who was quick. */
static void forget_rest(const struct request *request) {
    uintptr_t start = request->from, end = request->from + request->had;
    struct piece piece;
    bool inherited;

    for (; table_find(start, end, &piece); start = piece.end) {
        inherited = piece.arena->inherited;
        arena_release(piece.arena);
        if (inherited && table_cut(piece.start, piece.end, &piece) > 0)
            arena_release(piece.arena);
    }
}

/* By the kernel; no mere cut. Out of the table first: what it takes from these addresses it may give to another thread at once. */
static int remap_inherited(struct request *request, const struct piece *first) {
    bool stays = request->flags & MREMAP_DONTUNMAP;
    struct piece piece = *first;
    struct taken taken = {.n = 0};
    int r = cut_tail(request), error = 0;
    void *p;

    if (r == 0 && request->flags & MREMAP_FIXED)
        r = serve_displace(request->to, request->to + request->wanted);
    if (r == 0 && !stays)
        r = take_out(request, &taken);
    if (r < 0)
        return r;
    p = raw_mremap((void *)request->from, request->had, request->wanted, request->flags, (void *)request->to);
    if (p == MAP_FAILED)
        error = -errno;
    else if (taken.n == INHERITED_MAX)
        forget_rest(request);
    r = give_back(&taken, p == MAP_FAILED);
    if (error < 0 || r < 0)
        return error < 0 ? error : r;
    request->to = (uintptr_t)p;
    piece.start = request->to;
    piece.end = piece.start + request->wanted;
    return table_add(&piece);
}

bool serve_covers(uintptr_t start, uintptr_t end) {
    struct segment s;

    for (; segment_first(start, end, &s); start = s.end) {
        segment_release(&s);
        if (!s.ours)
            return false;
    }
    return true;
}

/* What the kernel moves, or makes larger, is one mapping: ours are one for the program, what it inherited is another one. */
static bool is_one_mapping(uintptr_t start, uintptr_t end, bool inherited) {
    struct segment s;
    bool is_one = true;

    for (; is_one && segment_first(start, end, &s); start = s.end) {
        is_one = s.ours && s.piece.arena->inherited == inherited;
        segment_release(&s);
    }
    return is_one;
}

/* The place that is asked for may be taken. */
static int may_displace(const struct request *r) {
    return r->flags & MREMAP_FIXED ? serve_may_end(r->to, r->to + r->wanted) : 0;
}

/*
 * It begins in other memory, and may go on in ours, or replace ours: then what will be refused is refused before anything of ours ends. Of what begins with
 * nothing says the kernel so itself, if it is told to change nothing. 1: the rest is the kernel's.
 */
static int judge_other(struct request *request) {
    uintptr_t behind = request->from + kept(request), end = request->from + request->had;
    int r;

    if (is_malformed(request))
        return 1;
    if (!is_cut(request) && table_has(request->from, behind))
        return -EFAULT;
    if (raw_mremap((void *)request->from, ARENA_PAGE, ARENA_PAGE, 0, NULL) == MAP_FAILED)
        return -errno;
    r = may_displace(request);
    if (r == 0 && table_has(behind, end))
        r = cut_tail(request);
    if (r == 0 && request->flags & MREMAP_FIXED)
        r = serve_displace(request->to, request->to + request->wanted);
    return r < 0 ? r : 1;
}

/* It begins with a piece of ours. The kernel cuts whatever mappings there are; else they are looked at before anything changes. */
static int judge_ours(struct request *request, const struct piece *first) {
    bool inherited = first->arena->inherited;
    int r;

    /* Of nothing: a second mapping of shared memory, which this is not for the program. */
    if (is_malformed(request))
        return request->had == 0 ? -EINVAL : 1;
    r = serve_may_end(request->from, request->from + request->had);
    if (r == 0)
        r = may_displace(request);
    if (r < 0)
        return r;
    if (is_cut(request)) {
        request->to = request->from;
        return cut_tail(request);
    }
    if (!is_one_mapping(request->from, request->from + kept(request), inherited))
        return -EFAULT;
    return inherited ? remap_inherited(request, first) : remap(request, first->flags & PIECE_PROTECTION);
}

/* 0: request->to; 1: the kernel's. */
static int judge(struct request *request) {
    struct piece first;
    int r;

    if (!table_find(request->from, request->from + (request->had ? request->had : ARENA_PAGE), &first))
        return judge_other(request);
    r = first.start == request->from ? judge_ours(request, &first) : judge_other(request);
    arena_release(first.arena);
    return r;
}

static bool concerns_us(const struct request *r) {
    return table_has(r->from, r->from + (r->had ? r->had : ARENA_PAGE)) ||
           (r->flags & MREMAP_FIXED && table_has(r->to, r->to + r->wanted));
}

void *serve_mremap(void *address, size_t had, size_t wanted, int flags, void *to) {
    NOT_CANCELLED;
    struct request request = {
        .from = (uintptr_t)address,
        .to = (uintptr_t)to,
        .had = round_up(had),
        .wanted = round_up(wanted),
        .flags = flags,
    };
    int saved = errno, r = 1;

    /* Else it is the kernel's, also for who comes here from inside. */
    if (concerns_us(&request))
        r = serve_begin();
    if (r == 0) {
        r = judge(&request);
        serve_end();
    }
    errno = r < 0 ? -r : saved;
    if (r > 0) {
        to = raw_mremap(address, request.had == round_up(had) ? had : request.had, wanted, flags, to);
        if (to != MAP_FAILED && to != address)
            serve_taken(to, wanted);
        return to;
    }
    return r < 0 ? MAP_FAILED : (void *)request.to;
}
