/* SPDX-License-Identifier: MIT */

/*
 * Which region an address belongs to, for signal handlers: no lock, no allocation, no loop that another thread could prolong.
 *
 * A table of slots for the whole process, which only grows: blocks twice as large as all before, never freed. A slot is a sequence lock: odd while it is
 * written. Who finds one that is being written, or was meanwhile, passes it over: it is not the slot of the region that he asks for, since that one is
 * in use, so nobody is making or freeing it.
 *
 * Writers hold the fork lock, so a child finds the table as it was between two changes.
 */

#include "client.h"

#include <errno.h>
#include <stdlib.h>

#define FIRST_BLOCK 64
#define BLOCKS 24

struct slot {
    _Atomic uint32_t sequence;
    _Atomic uintptr_t start, end; /* start == end: free */
    _Atomic(struct drp_region *) region;
};

static struct slot first_block[FIRST_BLOCK];
static _Atomic(struct slot *) blocks[BLOCKS] = {first_block};

static size_t block_size(unsigned i) {
    return i == 0 ? FIRST_BLOCK : (size_t)FIRST_BLOCK << (i - 1);
}

static void write_slot(struct slot *slot, uintptr_t start, uintptr_t end, struct drp_region *region) {
    uint32_t sequence = atomic_load_explicit(&slot->sequence, memory_order_relaxed);

    atomic_store_explicit(&slot->sequence, sequence + 1, memory_order_relaxed);
    /* Release: who sees one of these sees the odd number, too. */
    atomic_store_explicit(&slot->start, start, memory_order_release);
    atomic_store_explicit(&slot->end, end, memory_order_release);
    atomic_store_explicit(&slot->region, region, memory_order_release);
    atomic_store_explicit(&slot->sequence, sequence + 2, memory_order_release);
}

static struct slot *find_free(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct slot *block = atomic_load_explicit(&blocks[i], memory_order_relaxed);

        if (!block) {
            block = calloc(block_size(i), sizeof(*block));
            if (block)
                atomic_store_explicit(&blocks[i], block, memory_order_release);
            return block;
        }
        for (size_t k = 0; k < block_size(i); k++)
            if (!atomic_load_explicit(&block[k].region, memory_order_relaxed))
                return &block[k];
    }
    return NULL;
}

int locate_add(struct drp_region *r) {
    struct slot *slot = find_free();

    if (!slot)
        return error_detail(-ENOMEM, "no memory for a region");
    write_slot(slot, (uintptr_t)r->address, (uintptr_t)r->address + r->size, r);
    return 0;
}

void locate_remove(const struct drp_region *r) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct slot *block = atomic_load_explicit(&blocks[i], memory_order_relaxed);

        for (size_t k = 0; block && k < block_size(i); k++)
            if (atomic_load_explicit(&block[k].region, memory_order_relaxed) == r) {
                write_slot(&block[k], 0, 0, NULL);
                return;
            }
    }
}

static bool look(struct slot *slot, uintptr_t address, struct drp_region **ret, size_t *ret_offset) {
    uint32_t sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    uintptr_t start = atomic_load_explicit(&slot->start, memory_order_acquire);
    uintptr_t end = atomic_load_explicit(&slot->end, memory_order_acquire);
    struct drp_region *region = atomic_load_explicit(&slot->region, memory_order_acquire);

    if (address < start || address >= end || (sequence & 1) ||
        atomic_load_explicit(&slot->sequence, memory_order_relaxed) != sequence)
        return false;
    *ret = region;
    *ret_offset = address - start;
    return true;
}

int drp_locate(const void *address, struct drp_region **ret_region, size_t *ret_offset) {
    struct drp_region *region;
    size_t offset;

    for (unsigned i = 0; i < BLOCKS; i++) {
        struct slot *block = atomic_load_explicit(&blocks[i], memory_order_acquire);

        for (size_t k = 0; block && k < block_size(i); k++)
            if (look(&block[k], (uintptr_t)address, &region, &offset)) {
                if (ret_region)
                    *ret_region = region;
                if (ret_offset)
                    *ret_offset = offset;
                return 0;
            }
    }
    return -ERANGE;
}
