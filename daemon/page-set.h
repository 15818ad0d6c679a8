/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PAGE_SET_H
#define DROPPABLE_DAEMON_PAGE_SET_H

/* A set of the pages of a span: pure, a word at a time, since every drop and every refill counts and walks such sets. */

#include <stdbool.h>
#include <stdint.h>

#define PAGE_SET_PAGES 512

struct page_set {
    uint64_t bits[PAGE_SET_PAGES / 64];
};

static inline bool page_set_has(const struct page_set *set, unsigned page) {
    return set->bits[page / 64] >> (page % 64) & 1;
}
static inline void page_set_add(struct page_set *set, unsigned page) {
    set->bits[page / 64] |= UINT64_C(1) << (page % 64);
}
void page_set_add_range(struct page_set *set, unsigned first, unsigned count);
void page_set_remove_range(struct page_set *set, unsigned first, unsigned count);
/* Adds what both others have. */
void page_set_add_common(struct page_set *set, const struct page_set *a, const struct page_set *b);
/* Removes what the other has. */
void page_set_remove(struct page_set *set, const struct page_set *other);
bool page_set_is_empty(const struct page_set *set);
unsigned page_set_count(const struct page_set *set);
unsigned page_set_count_range(const struct page_set *set, unsigned first, unsigned count);
/* How many runs of neighbouring members there are. */
unsigned page_set_count_runs(const struct page_set *set);
/* The first run of members at or after *first; false: none. */
bool page_set_next_run(const struct page_set *set, unsigned *first, unsigned *ret_count);

#endif
