/* SPDX-License-Identifier: MIT */

/*
 * The table: which addresses are ours, as pieces sorted by address, none overlapping.
 *
 * It is used inside of mmap(2) and munmap(2), by memory allocators and before constructors, so it allocates nothing: the
 * array is of fixed size, as many entries as the kernel gives mappings to a process by default, and costs only what was
 * touched of it. Its lock is held for looking and moving entries, never over a call that could come back here or wait.
 *
 * A piece that was found may be unmapped by another thread at once; its holding stays until the reference is given back.
 */

#include "table.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define ENTRIES_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct piece entries[ENTRIES_MAX];
_Atomic size_t table_count; /* written under the lock */

static size_t count(void) {
    return atomic_load_explicit(&table_count, memory_order_relaxed);
}

static void set_count(size_t n) {
    atomic_store_explicit(&table_count, n, memory_order_relaxed);
}

/* Index of the first entry that ends after the address. */
static size_t lower(uintptr_t address) {
    size_t low = 0, high = count();

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (entries[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Makes room for one before index i. */
static struct piece *insert(size_t i) {
    size_t n = count();

    memmove(&entries[i + 1], &entries[i], (n - i) * sizeof(entries[0]));
    set_count(n + 1);
    return &entries[i];
}

static void erase(size_t i) {
    size_t n = count() - 1;

    memmove(&entries[i], &entries[i + 1], (n - i) * sizeof(entries[0]));
    set_count(n);
}

int table_add(uintptr_t start, uintptr_t end, struct holding *holding) {
    int r = -ENOMEM;

    pthread_mutex_lock(&lock);
    if (count() < ENTRIES_MAX) {
        *insert(lower(start)) = (struct piece){.start = start, .end = end, .holding = holding};
        holding->references = 1;
        r = 0;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

/* The index of the first entry in [start, end), and what of it lies inside. */
static bool find(uintptr_t start, uintptr_t end, size_t *ret_index, struct piece *ret) {
    size_t i = lower(start);

    if (start >= end || i == count() || entries[i].start >= end)
        return false;
    *ret = entries[i];
    if (ret->start < start)
        ret->start = start;
    if (ret->end > end)
        ret->end = end;
    *ret_index = i;
    return true;
}

bool table_find(uintptr_t start, uintptr_t end, struct piece *ret) {
    bool found;
    size_t i;

    pthread_mutex_lock(&lock);
    found = find(start, end, &i, ret);
    if (found)
        ret->holding->references++;
    pthread_mutex_unlock(&lock);
    return found;
}

/* The reference of a piece that goes becomes the caller's. */
static int cut(size_t i, const struct piece *part) {
    struct piece *whole = &entries[i];
    struct piece tail = *whole;
    bool before = whole->start < part->start, after = part->end < whole->end;

    if (!before && !after) {
        erase(i);
        return 1;
    }
    if (before && after) {
        if (count() == ENTRIES_MAX)
            return -ENOMEM;
        whole->holding->references++;
        tail.start = part->end;
        *insert(i + 1) = tail;
    }
    whole->holding->references++;
    if (before)
        entries[i].end = part->start;
    else
        entries[i].start = part->end;
    return 1;
}

int table_cut(uintptr_t start, uintptr_t end, struct piece *ret) {
    struct piece part;
    int r = 0;
    size_t i;

    pthread_mutex_lock(&lock);
    if (find(start, end, &i, &part))
        r = cut(i, &part);
    pthread_mutex_unlock(&lock);
    if (r > 0)
        *ret = part;
    return r;
}

bool table_release(struct holding *holding) {
    bool last;

    pthread_mutex_lock(&lock);
    last = --holding->references == 0;
    pthread_mutex_unlock(&lock);
    return last;
}

bool table_is_last(const struct holding *holding) {
    bool last;

    pthread_mutex_lock(&lock);
    last = holding->references == 1;
    pthread_mutex_unlock(&lock);
    return last;
}

bool table_next_piece(const struct drp_region *region, uintptr_t start, uintptr_t end, uintptr_t *ret_start,
                      uintptr_t *ret_end) {
    bool found = false;
    struct piece part;
    size_t i;

    pthread_mutex_lock(&lock);
    while (!found && find(start, end, &i, &part)) {
        found = part.holding->region == region;
        start = part.end;
    }
    pthread_mutex_unlock(&lock);
    if (found) {
        *ret_start = part.start;
        *ret_end = part.end;
    }
    return found;
}

/* ---- fork ---- */

void table_fork_prepare(void) {
    pthread_mutex_lock(&lock);
}

void table_fork_parent(void) {
    pthread_mutex_unlock(&lock);
}

/* Who else worked on a holding does not exist here. */
void table_fork_child(void) {
    for (size_t i = 0; i < count(); i++) {
        entries[i].holding->inherited = true;
        entries[i].holding->references = 0;
    }
    for (size_t i = 0; i < count(); i++)
        entries[i].holding->references++;
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}
