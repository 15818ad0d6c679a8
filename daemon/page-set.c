/* SPDX-License-Identifier: MIT */
/* A set of the pages of a span. */

#include "page-set.h"

#define WORDS (PAGE_SET_PAGES / 64)

/* The bits of word w that lie in [first, first + count). */
static uint64_t mask_of(unsigned w, unsigned first, unsigned count) {
    unsigned low = w * 64, end = first + count;
    uint64_t mask = UINT64_MAX;

    if (end <= low || first >= low + 64)
        return 0;
    if (first > low)
        mask &= UINT64_MAX << (first - low);
    if (end < low + 64)
        mask &= UINT64_MAX >> (low + 64 - end);
    return mask;
}

void page_set_add_range(struct page_set *set, unsigned first, unsigned count) {
    for (unsigned w = first / 64; w < WORDS && w * 64 < first + count; w++)
        set->bits[w] |= mask_of(w, first, count);
}

void page_set_remove_range(struct page_set *set, unsigned first, unsigned count) {
    for (unsigned w = first / 64; w < WORDS && w * 64 < first + count; w++)
        set->bits[w] &= ~mask_of(w, first, count);
}

void page_set_add_common(struct page_set *set, const struct page_set *a, const struct page_set *b) {
    for (unsigned w = 0; w < WORDS; w++)
        set->bits[w] |= a->bits[w] & b->bits[w];
}

void page_set_remove(struct page_set *set, const struct page_set *other) {
    for (unsigned w = 0; w < WORDS; w++)
        set->bits[w] &= ~other->bits[w];
}

bool page_set_is_empty(const struct page_set *set) {
    uint64_t any = 0;

    for (unsigned w = 0; w < WORDS; w++)
        any |= set->bits[w];
    return any == 0;
}

unsigned page_set_count(const struct page_set *set) {
    return page_set_count_range(set, 0, PAGE_SET_PAGES);
}

unsigned page_set_count_range(const struct page_set *set, unsigned first, unsigned count) {
    unsigned n = 0;

    for (unsigned w = first / 64; w < WORDS && w * 64 < first + count; w++)
        n += (unsigned)__builtin_popcountll(set->bits[w] & mask_of(w, first, count));
    return n;
}

unsigned page_set_count_runs(const struct page_set *set) {
    unsigned runs = 0;
    uint64_t before = 0; /* the last bit of the word before */

    for (unsigned w = 0; w < WORDS; w++) {
        runs += (unsigned)__builtin_popcountll(set->bits[w] & ~(set->bits[w] << 1 | before));
        before = set->bits[w] >> 63;
    }
    return runs;
}

bool page_set_next_run(const struct page_set *set, unsigned *first, unsigned *ret_count) {
    unsigned i = *first, end;

    while (i < PAGE_SET_PAGES && !page_set_has(set, i))
        i = set->bits[i / 64] >> (i % 64) == 0 ? (i / 64 + 1) * 64 : i + 1;
    if (i >= PAGE_SET_PAGES)
        return false;
    for (end = i; end < PAGE_SET_PAGES && page_set_has(set, end);)
        end += end % 64 == 0 && set->bits[end / 64] == UINT64_MAX ? 64 : 1;
    *first = i;
    *ret_count = end - i;
    return true;
}
