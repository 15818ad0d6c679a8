/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_PAGE_CHECK_H
#define DROPPABLE_TESTS_PAGE_CHECK_H

/* What clients of a test may rely on, checked by them: a page is as it was left, or zeros. For child processes (child.h). */

#include "child.h"
#include "service.h"

#include <droppable/droppable.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_CHECK_CHUNK ((size_t)65536)
/* Not a bar (test-supervised has that): of a machine that is busy with other things. */
#define PAGE_CHECK_HANG_NS UINT64_C(10000000000)

/*
 * Nobody is there, which is to be expected where the service comes and goes. EPROTO: who took a new connection was gone before a hello; ETIMEDOUT:
 * the socket is there, and nobody behind it.
 */
bool is_away(int error);

/* What must work as soon as somebody is there. */
#define UNTIL_DONE(call)               \
    do {                               \
        int r_;                        \
        while (is_away(r_ = (call)))   \
            nap_ms(2);                 \
        errno = -r_;                   \
        child_check(r_ == 0 && #call); \
    } while (0)

/* What may find nobody. */
#define MAY_BE_AWAY(call)                                      \
    do {                                                       \
        int r_ = (call);                                       \
        errno = -r_;                                           \
        if (r_ < 0 && !is_away(r_))                            \
            fprintf(stderr, "in a child: %s\n", drp_detail()); \
        child_check((r_ == 0 || is_away(r_)) && #call);        \
    } while (0)

/* The nth touch of a word that only its thread writes to: true if it is as it was left, or lost. How long that took counts if it is the slowest, ns. */
static inline bool touch_word(volatile uint64_t *word, uint64_t *last, uint64_t n, _Atomic uint64_t *slowest) {
    uint64_t began = now_ns(), value = *word, before = *last, took;

    *word = *last = n;
    took = now_ns() - began;
    if (took > atomic_load(slowest))
        atomic_store(slowest, took);
    return value == before || value == 0;
}

/* Beside hogs, with all pinned that there is, there may be no room. */
static inline int populate(struct drp_region *region, size_t length) {
    int r = drp_populate(region, 0, length);

    return r == -ENOMEM ? 0 : r;
}

/*
 * Does the page hold the value in each word? Else all of it is zeros: it may become so while it is looked at. Anything else ends the child: it is torn, or
 * stale, or another's.
 */
bool page_holds(const void *page, uint64_t value);
/* Writes all of it. false: some of it was dropped meanwhile. */
bool page_fill(void *page, uint64_t value);

/* What was left in a chunk. */
struct chunk_note {
    uint64_t generation, value;
    bool known;
};

/* Pins a chunk (or it is pinned): as it was left, if the generation says so; else each page as it was, or zeros. Then all of it anew; and unpins. */
void chunk_pin_once(struct drp_region *region, size_t chunk, struct chunk_note *note, uint64_t value);

#endif
