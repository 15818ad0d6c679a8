/* SPDX-License-Identifier: MIT */

/*
 * Memory that is made volatile and non-volatile, and tells whether something was lost meanwhile: vrange's model (LWN 602650), and that of
 * ashmem and XNU's purgeable memory, on top of pins and generations. Non-volatile is one pin, however often it is asked for.
 *
 * One word for each chunk: the generation that it had when it became volatile (even; 0 at first, which all generations are at first), or
 * the one that it is pinned with, made odd. Threads meet in a compare-exchange; who comes second gives his pin back.
 *
 * In a forked child the words are wiped, as the memory is, and no generation there is 0: the first answer is that all is lost.
 */

#include "client.h"
#include "local.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define NONVOLATILE UINT32_C(1)

static size_t table_bytes(const struct drp_region *r) {
    return (r->size >> r->pins.chunk_shift) * sizeof(uint32_t);
}

/* Made when it is first needed. NULL: no memory. */
static _Atomic uint32_t *table(struct drp_region *r) {
    _Atomic uint32_t *words = atomic_load_explicit(&r->volatility, memory_order_acquire), *none = NULL;

    if (words)
        return words;
    words = mmap(NULL, table_bytes(r), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (words == MAP_FAILED)
        return NULL;
    if (madvise(words, table_bytes(r), MADV_WIPEONFORK) < 0 ||
        !atomic_compare_exchange_strong(&r->volatility, &none, words)) {
        munmap(words, table_bytes(r));
        return none;
    }
    return words;
}

void volatile_free(struct drp_region *r) {
    _Atomic uint32_t *words = atomic_load(&r->volatility);

    if (words)
        munmap(words, table_bytes(r));
}

/* true: it was lost. -errno */
static int keep_chunk(struct drp_region *r, _Atomic uint32_t *word, size_t offset) {
    uint32_t was = atomic_load(word);
    uint64_t generation;
    int error;

    if (was & NONVOLATILE)
        return 0;
    error = drp_pin(r, offset, 1, &generation);
    if (error < 0)
        return error;
    while (!(was & NONVOLATILE))
        if (atomic_compare_exchange_weak(word, &was, (uint32_t)generation | NONVOLATILE))
            return was != ((uint32_t)generation & ~NONVOLATILE);
    drp_unpin(r, offset, 1);
    return 0;
}

static void release_chunk(struct drp_region *r, _Atomic uint32_t *word, size_t offset) {
    uint32_t was = atomic_load(word);

    while (was & NONVOLATILE)
        if (atomic_compare_exchange_weak(word, &was, was & ~NONVOLATILE)) {
            drp_unpin(r, offset, 1);
            return;
        }
}

static int prepare(struct drp_region *r, size_t offset, size_t length, _Atomic uint32_t **ret) {
    if (r->pins.foreign)
        return fork_foreign();
    if (r->pins.native)
        return local_refuse();
    if (length == 0 || offset >= r->size || length > r->size - offset)
        return error_detail(-ERANGE, "offset %zu, length %zu: not inside the region, which has %zu bytes, or empty",
                            offset, length, r->size);
    *ret = table(r);
    return *ret ? 0
                : error_detail(-ENOMEM, "no memory to remember what of %zu bytes is volatile: %s", r->size,
                               strerror(errno));
}

int drp_set_nonvolatile(struct drp_region *r, size_t offset, size_t length, bool *ret_lost) {
    unsigned shift = r->pins.chunk_shift;
    _Atomic uint32_t *words;
    bool lost = false;
    int error;

    error = prepare(r, offset, length, &words);
    if (error < 0)
        return error;
    for (size_t chunk = offset >> shift; chunk <= (offset + length - 1) >> shift && error >= 0; chunk++) {
        error = keep_chunk(r, &words[chunk], chunk << shift);
        lost |= error > 0;
    }
    if (ret_lost)
        *ret_lost = lost;
    return error < 0 ? error : 0;
}

int drp_set_volatile(struct drp_region *r, size_t offset, size_t length) {
    unsigned shift = r->pins.chunk_shift;
    _Atomic uint32_t *words;
    int error;

    error = prepare(r, offset, length, &words);
    if (error < 0)
        return error;
    for (size_t chunk = (offset + ((size_t)1 << shift) - 1) >> shift; chunk < (offset + length) >> shift; chunk++)
        release_chunk(r, &words[chunk], chunk << shift);
    return 0;
}
