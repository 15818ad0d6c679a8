/* SPDX-License-Identifier: MIT */

/*
 * Pins and generations: the paths that a program takes for every access to its cache.
 *
 * A pin is a count in this mapping's pin page, a generation a word in the daemon's state page. Pinning stores the
 * count, then loads the generation; dropping stores the odd generation, then loads the count, all sequentially
 * consistent, so that at least one side sees the other. An even generation after the increment therefore means: whoever
 * drops from now on sees the pin. An odd one means that a drop may have read the count before us: wait until it is
 * settled, with the count held, so that no second drop begins.
 *
 * A pin and its unpin are one locked instruction each, beside plain loads. What happens rarely (waiting, refusing, more
 * than one chunk) is kept out of line. The tick of last use is stored only when it changes, ten times a second at
 * most: otherwise each pin would dirty the line a second time and hand the daemon's reader a miss.
 *
 * Unpinning subtracts first and looks afterwards. A count of zero is put right again; the daemon takes the passing
 * 0xffffffff for a pin and leaves the chunk for this time, and drp_pin() of another thread refuses it. Only a program
 * that unpins what it did not pin gets there, so the compare-exchange loop that would avoid it is not worth its
 * retries.
 */

#include "pin.h"

#include "client.h"
#include "fence.h"
#include "local.h"
#include "process.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FAST inline __attribute__((always_inline))
#define SLOW __attribute__((noinline, cold))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define ANY_CLOSED (DRP_STATE_PINS_CLOSED | DRP_STATE_SOME_CLOSED)

/* A wake can be missed when the daemon dies or its page is replaced: look again after this time. */
#define WAIT_NS 50000000

void pins_set_state(struct pins *p, void *page, uint64_t chunk_base) {
    p->state = page;
    p->generations = drp_state_generations(page) + chunk_base;
}

void pins_set_pins(struct pins *p, void *page, uint64_t chunk_base) {
    p->header = page;
    p->cells = drp_pin_cells(page) + chunk_base;
}

/* Stored so that who sees a size of 0 sees the real one besides. */
void pins_refuse(struct pins *p) {
    if (atomic_load(&p->unpinnable) == 0) {
        atomic_store(&p->unpinnable, atomic_load(&p->size));
        atomic_store(&p->size, 0);
    }
}

void pins_allow(struct pins *p) {
    size_t size = atomic_load(&p->unpinnable);

    if (size > 0) {
        atomic_store(&p->size, size);
        atomic_store(&p->unpinnable, 0);
    }
}

/* One of both is not 0, and it may change from the one to the other and back between two looks. */
static size_t real_size(const struct pins *p) {
    size_t size = atomic_load(&p->size);

    if (size == 0)
        size = atomic_load(&p->unpinnable);
    return size > 0 ? size : atomic_load(&p->size);
}

SLOW static int fail_range(const struct pins *p, size_t offset, size_t length) {
    if (p->foreign)
        return fork_foreign();
    if (p->native)
        return local_refuse();
    return error_detail(-ERANGE, "offset %zu, length %zu: not inside the region, which has %zu bytes, or empty", offset,
                        length, real_size(p));
}

static FAST bool outside_of(size_t size, size_t offset, size_t length) {
    return length == 0 || offset >= size || length > size - offset;
}

static FAST bool outside_now(const struct pins *p, size_t offset, size_t length) {
    return outside_of(atomic_load_explicit(&p->size, memory_order_acquire), offset, length);
}

/* In a forked child the first range is outside of what is not there yet. */
SLOW static bool outside_after_all(const struct pins *p, size_t offset, size_t length) {
    return !pins_arrive(p) || outside_of(real_size(p), offset, length);
}

static FAST bool outside(const struct pins *p, size_t offset, size_t length) {
    return UNLIKELY(outside_now(p, offset, length)) && outside_after_all(p, offset, length);
}

static FAST size_t first_chunk(const struct pins *p, size_t offset) {
    return offset >> p->chunk_shift;
}

static FAST size_t last_chunk(const struct pins *p, size_t offset, size_t length) {
    return (offset + length - 1) >> p->chunk_shift;
}

/* The generation was loaded before: if it is of another process's page, that has been seen here, too. */
SLOW static bool has_nobody(const struct pins *p) {
    int saved = errno;
    pid_t keeper;
    bool ended;

    if (atomic_load_explicit(&p->gone, memory_order_acquire))
        return true;
    keeper = atomic_load(&p->keeper);
    ended = process_has_ended(keeper, atomic_load(&p->keeper_inode)) && atomic_load(&p->keeper) == keeper;
    errno = saved;
    return ended;
}

/* An odd generation that nobody will settle any more is the next even one. */
static FAST uint32_t settle(const struct pins *p, uint32_t generation) {
    if (UNLIKELY(generation & 1) && has_nobody(p))
        generation++;
    return generation;
}

static FAST uint32_t load_generation(const struct pins *p, size_t chunk, memory_order order) {
    return settle(p, atomic_load_explicit(&p->generations[chunk], order));
}

static FAST void touch(struct pins *p, struct drp_pin_cell *cell) {
    uint32_t tick = atomic_load_explicit(&p->clock->tick, memory_order_relaxed);

    if (UNLIKELY(atomic_load_explicit(&cell->tick, memory_order_relaxed) != tick))
        atomic_store_explicit(&cell->tick, tick, memory_order_relaxed);
}

/*
 * Sleeps while the generation is the given odd one. The count of waiters is stored before the kernel loads the
 * generation, and the daemon loads the count after it stored the generation: it makes the wake call if we sleep.
 */
SLOW static void wait_settled(struct pins *p, size_t chunk, uint32_t generation) {
    struct timespec timeout = {.tv_nsec = WAIT_NS};
    int saved = errno;

    atomic_fetch_add_explicit(&p->header->waiters, 1, memory_order_seq_cst);
    syscall(SYS_futex, &p->generations[chunk], FUTEX_WAIT, generation, &timeout, NULL, 0);
    atomic_fetch_sub_explicit(&p->header->waiters, 1, memory_order_seq_cst);
    errno = saved;
}

void pins_wait_settled(struct pins *p, size_t offset, size_t length) {
    uint32_t generation;

    for (size_t chunk = first_chunk(p, offset); chunk <= last_chunk(p, offset, length); chunk++)
        while ((generation = load_generation(p, chunk, memory_order_seq_cst)) & 1)
            wait_settled(p, chunk, generation);
}

/* Is the quota used up: for all who have the region, or for this mapping of it? */
SLOW static bool is_closed(const struct pins *p) {
    uint32_t flags = atomic_load_explicit(&p->state->flags, memory_order_relaxed);
    uint64_t mapping = atomic_load_explicit(&p->mapping, memory_order_relaxed);
    const _Atomic uint64_t *closed = drp_state_closed(p->state);

    for (size_t i = 0; flags & DRP_STATE_SOME_CLOSED && i < DRP_STATE_CLOSED_MAX; i++)
        if (atomic_load_explicit(&closed[i], memory_order_relaxed) == mapping)
            return true;
    return flags & DRP_STATE_PINS_CLOSED;
}

/* The count is taken, and something is not as usual: over the limit, pins closed, or being dropped. */
SLOW static int pin_slow(struct pins *p, size_t chunk, uint32_t count, uint32_t *ret) {
    struct drp_pin_cell *cell = &p->cells[chunk];
    uint32_t generation;

    if (count >= DRP_PIN_MAX) {
        atomic_fetch_sub_explicit(&cell->count, 1, memory_order_release);
        return error_detail(-EOVERFLOW,
                            "chunk %zu is pinned %u times already: does every drp_pin() have its drp_unpin()?", chunk,
                            DRP_PIN_MAX);
    }
    if (is_closed(p)) {
        atomic_fetch_sub_explicit(&cell->count, 1, memory_order_release);
        return error_detail(
            -EDQUOT,
            "the quota of pinned memory of this process or its user is used up (PinnedPerClient=, PinnedPerUser=): unpin "
            "something first");
    }
    for (;;) {
        generation = settle(p, atomic_load_explicit(&p->generations[chunk], memory_order_seq_cst));
        if (!(generation & 1))
            break;
        wait_settled(p, chunk, generation);
    }
    touch(p, cell);
    *ret = generation + p->bias;
    return 0;
}

static FAST int pin_chunk(struct pins *p, size_t chunk, uint32_t *ret) {
    struct drp_pin_cell *cell = &p->cells[chunk];
    uint32_t count = atomic_fetch_add_explicit(&cell->count, 1, memory_order_seq_cst);
    uint32_t generation = atomic_load_explicit(&p->generations[chunk], memory_order_seq_cst);
    uint32_t flags = atomic_load_explicit(&p->state->flags, memory_order_relaxed);

    if (UNLIKELY(((generation & 1) | (flags & ANY_CLOSED)) != 0 || count >= DRP_PIN_MAX))
        return pin_slow(p, chunk, count, ret);
    touch(p, cell);
    *ret = generation + p->bias;
    return 0;
}

/* Release: what was done with the data comes before the count that lets it go. */
static FAST int unpin_chunk(struct pins *p, size_t chunk) {
    struct drp_pin_cell *cell = &p->cells[chunk];

    if (UNLIKELY(atomic_fetch_sub_explicit(&cell->count, 1, memory_order_release) == 0)) {
        atomic_fetch_add_explicit(&cell->count, 1, memory_order_relaxed);
        return -EINVAL;
    }
    return 0;
}

SLOW static int fail_unpinned(size_t chunk) {
    return error_detail(-EINVAL, "chunk %zu is not pinned", chunk);
}

__attribute__((noinline)) static int pin_many(struct pins *p, size_t first, size_t last, uint64_t *ret_generation) {
    uint64_t sum = 0;
    uint32_t generation;
    size_t chunk;
    int error = 0;

    for (chunk = first; chunk <= last; chunk++) {
        error = pin_chunk(p, chunk, &generation);
        if (error)
            break;
        sum += generation;
    }
    if (error) {
        while (chunk-- > first)
            unpin_chunk(p, chunk);
        return error;
    }
    if (ret_generation)
        *ret_generation = sum;
    return 0;
}

/* All or nothing, for a program that gives the wrong range: what was let go for a moment may be gone. */
__attribute__((noinline)) static int unpin_many(struct pins *p, size_t first, size_t last) {
    int error = 0;

    for (size_t chunk = first; chunk <= last; chunk++)
        if (atomic_load_explicit(&p->cells[chunk].count, memory_order_relaxed) == 0)
            return fail_unpinned(chunk);
    for (size_t chunk = first; chunk <= last; chunk++)
        if (unpin_chunk(p, chunk) < 0)
            error = fail_unpinned(chunk);
    return error;
}

SLOW static int check_pin(const struct pins *p, size_t offset, size_t length) {
    bool refused = atomic_load(&p->unpinnable) > 0;

    if (outside_after_all(p, offset, length))
        return fail_range(p, offset, length);
    return refused
               ? error_detail(-ENOTCONN, "the program has closed descriptors of the library's: until the service has "
                                         "this shared region of it again, it may drop it for others")
               : 0;
}

static FAST int pin(struct pins *p, size_t offset, size_t length, uint64_t *ret_generation) {
    uint32_t generation;
    size_t first;
    int error;

    if (UNLIKELY(outside_now(p, offset, length))) {
        error = check_pin(p, offset, length);
        if (error < 0)
            return error;
    }
    first = first_chunk(p, offset);
    if (UNLIKELY(first != last_chunk(p, offset, length)))
        return pin_many(p, first, last_chunk(p, offset, length), ret_generation);
    error = pin_chunk(p, first, &generation);
    if (UNLIKELY(error))
        return error;
    if (ret_generation)
        *ret_generation = generation;
    return 0;
}

static FAST int unpin(struct pins *p, size_t offset, size_t length) {
    size_t first;

    if (outside(p, offset, length))
        return fail_range(p, offset, length);
    first = first_chunk(p, offset);
    if (UNLIKELY(first != last_chunk(p, offset, length)))
        return unpin_many(p, first, last_chunk(p, offset, length));
    if (UNLIKELY(unpin_chunk(p, first) < 0))
        return fail_unpinned(first);
    return 0;
}

int pins_pin(struct pins *p, size_t offset, size_t length, uint64_t *ret_generation) {
    return pin(p, offset, length, ret_generation);
}

int pins_unpin(struct pins *p, size_t offset, size_t length) {
    return unpin(p, offset, length);
}

int pins_touch(struct pins *p, size_t offset, size_t length) {
    if (outside(p, offset, length))
        return fail_range(p, offset, length);
    for (size_t chunk = first_chunk(p, offset); chunk <= last_chunk(p, offset, length); chunk++)
        touch(p, &p->cells[chunk]);
    return 0;
}

/* Of what nobody knows anything of: compares equal to nothing. */
SLOW static uint64_t fresh_generation(void) {
    static _Atomic uint64_t last;

    return atomic_fetch_add(&last, 1) + 1;
}

uint64_t pins_generation(const struct pins *p, size_t offset, size_t length) {
    uint64_t sum = 0;

    if (outside(p, offset, length))
        return p->native ? fresh_generation() : 0;
    for (size_t chunk = first_chunk(p, offset); chunk <= last_chunk(p, offset, length); chunk++)
        sum += (uint32_t)(load_generation(p, chunk, memory_order_acquire) + p->bias);
    return sum;
}

ssize_t pins_copy_generations(const struct pins *p, size_t offset, size_t length, uint32_t *ret) {
    size_t first;
    size_t count;

    if (outside(p, offset, length))
        return fail_range(p, offset, length);
    first = first_chunk(p, offset);
    count = last_chunk(p, offset, length) - first + 1;
    for (size_t i = 0; i < count; i++)
        ret[i] = load_generation(p, first + i, memory_order_acquire) + p->bias;
    return (ssize_t)count;
}

int pins_lost(const struct pins *p, size_t offset, size_t length, const uint32_t *generations, size_t *ret_offset,
              size_t *ret_length) {
    size_t first;
    size_t count;
    size_t begin;
    size_t end;

    if (outside(p, offset, length))
        return fail_range(p, offset, length);
    first = first_chunk(p, offset);
    count = last_chunk(p, offset, length) - first + 1;
    for (begin = 0; begin < count; begin++)
        if (load_generation(p, first + begin, memory_order_acquire) + p->bias != generations[begin])
            break;
    if (begin == count)
        return 0;
    for (end = begin + 1; end < count; end++)
        if (load_generation(p, first + end, memory_order_acquire) + p->bias == generations[end])
            break;
    *ret_offset = (first + begin) << p->chunk_shift;
    *ret_length = (end - begin) << p->chunk_shift;
    return 1;
}

int pins_read_begin(const struct pins *p, size_t offset, size_t length, uint64_t *ret_generation) {
    uint64_t sum = 0;

    if (outside(p, offset, length))
        return fail_range(p, offset, length);
    for (size_t chunk = first_chunk(p, offset); chunk <= last_chunk(p, offset, length); chunk++) {
        uint32_t generation = load_generation(p, chunk, memory_order_acquire);

        if (generation & 1)
            return error_detail(-EAGAIN, "chunk %zu is being dropped right now", chunk);
        sum += (uint32_t)(generation + p->bias);
    }
    *ret_generation = sum;
    return 0;
}

/*
 * The fence orders the caller's data reads before the loads of the generation: a reader that saw a hole's zeros then sees the odd
 * generation that was stored before the hole was made (Boehm, "Can Seqlocks Get Along With Programming Language Memory
 * Models?", section 4).
 */
bool pins_read_retry(const struct pins *p, size_t offset, size_t length, uint64_t generation) {
    uint64_t sum = 0;

    if (outside(p, offset, length))
        return true;
    fence_reads();
    for (size_t chunk = first_chunk(p, offset); chunk <= last_chunk(p, offset, length); chunk++) {
        uint32_t now = load_generation(p, chunk, memory_order_relaxed);

        if (now & 1)
            return true;
        sum += (uint32_t)(now + p->bias);
    }
    return sum != generation;
}

int drp_pin(struct drp_region *r, size_t offset, size_t length, uint64_t *ret_generation) {
    return pin(&r->pins, offset, length, ret_generation);
}

int drp_unpin(struct drp_region *r, size_t offset, size_t length) {
    return unpin(&r->pins, offset, length);
}

int drp_touch(struct drp_region *r, size_t offset, size_t length) {
    int error = pins_touch(&r->pins, offset, length);

    /* The kernel sees accesses by itself. */
    return UNLIKELY(error < 0) && r->pins.native ? range_check(r, offset, length) : error;
}

uint64_t drp_generation(const struct drp_region *r, size_t offset, size_t length) {
    return pins_generation(&r->pins, offset, length);
}

ssize_t drp_copy_generations(const struct drp_region *r, size_t offset, size_t length, uint32_t *ret) {
    return pins_copy_generations(&r->pins, offset, length, ret);
}

int drp_lost(const struct drp_region *r, size_t offset, size_t length, const uint32_t *generations, size_t *ret_offset,
             size_t *ret_length) {
    return pins_lost(&r->pins, offset, length, generations, ret_offset, ret_length);
}

int drp_read_begin(const struct drp_region *r, size_t offset, size_t length, uint64_t *ret_generation) {
    return pins_read_begin(&r->pins, offset, length, ret_generation);
}

bool drp_read_retry(const struct drp_region *r, size_t offset, size_t length, uint64_t generation) {
    return pins_read_retry(&r->pins, offset, length, generation);
}
