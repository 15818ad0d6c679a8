/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_INTERCEPT_H
#define DROPPABLE_DAEMON_INTERCEPT_H

/*
 * Who fills which spans: arming, disarming, and the commitments that disarmed spans are. Runs in the pager's thread only; allocates nothing.
 */

#include "mapping.h"
#include "region.h"

#include <stdbool.h>
#include <stdint.h>

struct session;

static inline uint64_t span_offset(uint32_t span) {
    return (uint64_t)span << SPAN_SHIFT;
}
static inline unsigned span_pages(const struct region *region, uint32_t span) {
    return (unsigned)(region_span_bytes(region, span) >> PAGE_SHIFT);
}

/* For each piece of a mapping's bytes [first, last) that is in the client's address space now. Takes the lock for each step. */
#define for_each_piece(session, mapping_, first, last, address, length, offset) \
    for (uint64_t cursor_ = 0;                                                  \
         intercept_next_piece(session, mapping_, first, last, &cursor_, &(address), &(length), &(offset));)

bool intercept_next_piece(struct session *session, const struct mapping *mapping, uint64_t first, uint64_t last,
                          uint64_t *cursor, uint64_t *address, uint64_t *length, uint64_t *offset);

/* Under the lock: how many pages of a span would the kernel fill, if it is disarmed and these are there (NULL: none)? */
unsigned intercept_fillable(const struct session *session, const struct mapping *mapping, uint32_t span,
                            const struct page_set *there);

/* Has the waiters of count spans go on. */
void intercept_wake(struct session *session, const struct mapping *mapping, uint32_t first, uint32_t count);

/*
 * Under the lock: may the armed span be disarmed? Then the commitment is made, and intercept_disarm() has to follow. just_filled: pages of it that
 * are certainly there.
 */
bool intercept_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned just_filled);
/*
 * Makes the kernel fill count armed spans from now on, by one call. Waiters still have to be woken. false: of some of them a part may be armed
 * still, though they count as disarmed.
 */
bool intercept_disarm(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count);
/* Under the lock: of an armed span nothing is registered yet. What will be is to be registered as disarmed, and to be committed. */
void intercept_bear_disarmed(struct session *session, struct mapping *mapping, uint32_t span);
/* Under the lock: a span may have come to another state by something the pager was told of too late. It counts as disarmed, wholly committed. */
void intercept_distrust(struct session *session, struct mapping *mapping, uint32_t span);
/* Arms count spans of a region in all its mappings, by one call for each run. Returns the bytes of commitments that this gave back. */
uint64_t intercept_arm(struct session *session, struct region *region, uint32_t first, uint32_t count);

/*
 * Measures at most max spans whose commitment is not used up, and takes back what the kernel has filled meanwhile. Returns the bytes
 * taken back. rearm: arms them, too, so that all of it is taken back, until wanted bytes are reached.
 */
uint64_t intercept_refresh(struct session *session, unsigned max, bool rearm, uint64_t wanted);
/* Scattered touches will not fill these spans, which the kernel fills: policy shall not take each for 2 MiB. */
void intercept_expect_little(struct session *session, struct region *region, uint32_t first, uint32_t count);

#endif
