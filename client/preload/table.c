/* SPDX-License-Identifier: MIT */

/*
 * The table: which addresses are ours, as pieces sorted by address, none overlapping. What continues its neighbour, in address, offset and
 * flags, is one piece with it.
 *
 * It is used inside of mmap(2) and munmap(2), by memory allocators and before constructors, so it allocates nothing: the
 * array is of fixed size, as many entries as the kernel gives mappings to a process by default, and costs only what was
 * touched of it. Its lock is held for looking and moving entries, never over a call that could come back here or wait.
 *
 * Signal handlers may call mprotect(2) and the like of the program's own memory, which is good with the kernel, and may have interrupted the
 * lock's holder. So he has all signals blocked, which costs two system calls. Almost all calls are about other memory, and cost nothing of that:
 * whether there is a piece in a range is found out without the lock. Who changes entries makes a counter odd meanwhile; who has read it even and
 * the same before and after has seen the table as it was. What is read in between may be anything, and is only compared.
 *
 * A piece that was found may be unmapped by another thread at once; its arena stays until the reference is given back.
 */

#include "table.h"

#include "fence.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ENTRIES_MAX 65536
#define TRY_SECONDS 1
#define LOOKS_MAX 100 /* without the lock */

static union fork_mutex lock;
static sigset_t holder_signals; /* the mask that the lock's holder had */
static sigset_t forker_signals; /* the same of whose child this is */
static struct piece entries[ENTRIES_MAX];
static struct move *moves;
static _Atomic unsigned changes; /* odd: entries are being changed; written under the lock */
static size_t n_entries;         /* as fork_note.pieces, which a child has not yet when it begins */

int table_init(void) {
    return fork_mutex_init(&lock);
}

/* *ret: the mask before. */
static void block_signals(sigset_t *ret) {
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, ret);
}

void table_lock(void) {
    sigset_t before;

    block_signals(&before);
    pthread_mutex_lock(&lock.mutex);
    holder_signals = before;
}

void table_unlock(void) {
    sigset_t before = holder_signals;

    pthread_mutex_unlock(&lock.mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool table_try_lock(void) {
    struct timespec until;
    sigset_t before;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += TRY_SECONDS;
    block_signals(&before);
    if (pthread_mutex_clocklock(&lock.mutex, CLOCK_MONOTONIC, &until) == 0) {
        holder_signals = before;
        return true;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return false;
}

static void begin_change(void) {
    atomic_store_explicit(&changes, atomic_load_explicit(&changes, memory_order_relaxed) + 1, memory_order_relaxed);
    fence_writes();
}

static void end_change(void) {
    atomic_store_explicit(&changes, atomic_load_explicit(&changes, memory_order_relaxed) + 1, memory_order_release);
}

static size_t count(void) {
    return atomic_load_explicit(&fork_note.pieces, memory_order_relaxed);
}

static void set_count(size_t n) {
    n_entries = n;
    atomic_store_explicit(&fork_note.pieces, n, memory_order_relaxed);
}

/* Index of the first entry that ends after the address. Also without the lock. */
static size_t lower(uintptr_t address) {
    size_t low = 0, high = count();

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (__atomic_load_n(&entries[middle].end, __ATOMIC_RELAXED) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Puts one before index i, with its reference. There is room. */
static void insert(size_t i, const struct piece *piece) {
    size_t n = count();

    memmove(&entries[i + 1], &entries[i], (n - i) * sizeof(entries[0]));
    set_count(n + 1);
    entries[i] = *piece;
    piece->arena->references++;
}

/* Its reference becomes the caller's. */
static void erase(size_t i) {
    size_t n = count() - 1;

    memmove(&entries[i], &entries[i + 1], (n - i) * sizeof(entries[0]));
    set_count(n);
}

static bool continues(const struct piece *first, const struct piece *next) {
    return first->end == next->start && first->arena == next->arena && first->flags == next->flags &&
           first->offset + (first->end - first->start) == next->offset;
}

/* Joins what continues its neighbour, from the one before a range to the one behind it. */
static void join(uintptr_t start, uintptr_t end) {
    size_t i = lower(start);

    if (i > 0)
        i--;
    while (i + 1 < count() && entries[i].start < end)
        if (continues(&entries[i], &entries[i + 1])) {
            entries[i].end = entries[i + 1].end;
            entries[i].arena->references--;
            erase(i + 1);
        } else
            i++;
}

int table_add(const struct piece *piece) {
    int r = -ENOMEM;

    table_lock();
    if (count() < ENTRIES_MAX) {
        begin_change();
        insert(lower(piece->start), piece);
        join(piece->start, piece->end);
        end_change();
        r = 0;
    }
    table_unlock();
    return r;
}

/* The index of the first entry in [start, end), and what of it lies inside. */
static bool find(uintptr_t start, uintptr_t end, size_t *ret_index, struct piece *ret) {
    size_t i = lower(start);

    if (start >= end || i == count() || entries[i].start >= end)
        return false;
    *ret = entries[i];
    if (ret->start < start) {
        ret->offset += start - ret->start;
        ret->start = start;
    }
    if (ret->end > end)
        ret->end = end;
    *ret_index = i;
    return true;
}

bool table_has(uintptr_t start, uintptr_t end) {
    struct piece piece;
    bool has;
    size_t i;

    for (unsigned look = 0; look < LOOKS_MAX; look++) {
        unsigned before = atomic_load_explicit(&changes, memory_order_acquire);

        i = lower(start);
        has = start < end && i < count() && __atomic_load_n(&entries[i].start, __ATOMIC_RELAXED) < end;
        fence_reads();
        if ((before & 1) == 0 && atomic_load_explicit(&changes, memory_order_relaxed) == before)
            return has;
    }
    table_lock(); /* its holder was put to sleep */
    has = find(start, end, &i, &piece);
    table_unlock();
    return has;
}

bool table_find(uintptr_t start, uintptr_t end, struct piece *ret) {
    bool found;
    size_t i;

    if (!table_has(start, end))
        return false;
    table_lock();
    found = find(start, end, &i, ret);
    if (found)
        ret->arena->references++;
    table_unlock();
    return found;
}

/* Splits the entry that holds the address in its middle. There is room. */
static void split(uintptr_t address) {
    size_t i = lower(address);
    struct piece tail;

    if (i == count() || entries[i].start >= address)
        return;
    tail = entries[i];
    tail.offset += address - tail.start;
    tail.start = address;
    entries[i].end = address;
    insert(i + 1, &tail);
}

/* How many entries more splitting at both ends would make. */
static size_t count_splits(uintptr_t start, uintptr_t end) {
    size_t i = lower(start), k = lower(end);

    return (i < count() && entries[i].start < start) + (k < count() && entries[k].start < end);
}

/* Takes a part of entry i out. There is room. The caller has a reference of its arena then. */
static void cut(size_t i, const struct piece *part) {
    struct piece *whole = &entries[i];

    if (whole->start < part->start && part->end < whole->end)
        split(part->end);
    part->arena->references++;
    if (whole->start < part->start)
        whole->end = part->start;
    else if (part->end < whole->end) {
        whole->offset += part->end - part->start;
        whole->start = part->end;
    } else {
        part->arena->references--;
        erase(i);
    }
}

/* Under the lock. */
static int cut_first(uintptr_t start, uintptr_t end, struct piece *ret) {
    size_t i;

    if (!find(start, end, &i, ret))
        return 0;
    if (entries[i].start < ret->start && ret->end < entries[i].end && count() == ENTRIES_MAX)
        return -ENOMEM;
    begin_change();
    cut(i, ret);
    end_change();
    return 1;
}

int table_cut(uintptr_t start, uintptr_t end, struct piece *ret) {
    int r;

    if (!table_has(start, end))
        return 0;
    table_lock();
    r = cut_first(start, end, ret);
    table_unlock();
    return r;
}

int table_begin_move(uintptr_t start, uintptr_t end, struct move *move) {
    int r;

    table_lock();
    r = cut_first(start, end, &move->piece);
    if (r > 0) {
        move->next = moves;
        moves = move;
    }
    table_unlock();
    return r;
}

void table_end_move(struct move *move) {
    table_lock();
    for (struct move **p = &moves; *p; p = &(*p)->next)
        if (*p == move) {
            *p = move->next;
            break;
        }
    table_unlock();
}

int table_set_flags(uintptr_t start, uintptr_t end, int mask, int flags) {
    int r = -ENOMEM;

    if (!table_has(start, end))
        return 0;
    table_lock();
    if (count() + count_splits(start, end) <= ENTRIES_MAX) {
        begin_change();
        split(start);
        split(end);
        for (size_t i = lower(start); i < count() && entries[i].start < end; i++)
            entries[i].flags = (entries[i].flags & ~mask) | flags;
        join(start, end);
        end_change();
        r = 0;
    }
    table_unlock();
    return r;
}

bool table_has_flags(uintptr_t start, uintptr_t end, int flags) {
    bool has = false;

    if (!table_has(start, end))
        return false;
    table_lock();
    for (size_t i = lower(start); !has && i < count() && entries[i].start < end; i++)
        has = entries[i].flags & flags;
    table_unlock();
    return has;
}

size_t table_writable(void) {
    size_t bytes = 0;

    table_lock();
    for (size_t i = 0; i < count(); i++)
        if (entries[i].flags & PROT_WRITE && !entries[i].arena->inherited)
            bytes += entries[i].end - entries[i].start;
    table_unlock();
    return bytes;
}

bool table_is_last(const struct arena *arena) {
    bool last;

    table_lock();
    last = arena->references == 1;
    table_unlock();
    return last;
}

bool table_next_piece(const struct drp_region *region, uintptr_t from, struct region_piece *ret) {
    bool found = false;
    struct piece part;
    size_t i;

    table_lock();
    while (!found && find(from, UINTPTR_MAX, &i, &part)) {
        found = part.arena->region == region;
        from = part.end;
    }
    table_unlock();
    if (found)
        *ret = (struct region_piece){
            .address = (void *)part.start,
            .length = part.end - part.start,
            .offset = part.offset,
            .protection = part.flags & PIECE_PROTECTION,
            .sealed = part.flags & PIECE_SEALED,
        };
    return found;
}

/* ---- fork ---- */

/* Back to where it was, unless that is another's by now: then it has been moved. */
static void take_back(const struct piece *piece) {
    struct piece other;
    size_t i;

    if (piece->flags & PIECE_NO_FORK || count() == ENTRIES_MAX || find(piece->start, piece->end, &i, &other))
        return;
    insert(lower(piece->start), piece);
    join(piece->start, piece->end);
}

void table_fork_child(struct arena *arenas) {
    size_t kept = 0;

    forker_signals = holder_signals;
    atomic_store_explicit(&fork_note.pieces, n_entries, memory_order_relaxed);
    for (struct arena *arena = arenas; arena; arena = arena->next)
        arena->references = 0;
    for (size_t i = 0; i < count(); i++)
        if (!(entries[i].flags & PIECE_NO_FORK)) {
            if (kept != i) /* what stays as it is is not written to */
                entries[kept] = entries[i];
            entries[kept++].arena->references++;
        }
    if (kept != count())
        set_count(kept);
    for (; moves; moves = moves->next)
        take_back(&moves->piece);
}

void table_forget(struct arena *arenas) {
    for (struct arena *arena = arenas; arena; arena = arena->next)
        arena->references = 0;
    moves = NULL;
    atomic_store(&changes, 0);
    set_count(0);
}

void table_fork_child_end(void) {
    pthread_sigmask(SIG_SETMASK, &forker_signals, NULL);
}
