/* SPDX-License-Identifier: MIT */
/* The preload library's offset allocator against a naive model: an array that says for each page whose it is. */

#include "offsets.h"

#include "suite.h"

#include <check.h>
#include <stdlib.h>

#define CHUNKS 40
#define CHUNK_PAGES (OFFSETS_CHUNK / OFFSETS_PAGE)
#define PAGES (CHUNKS * CHUNK_PAGES)

static struct offsets offsets;
static int model[PAGES]; /* 0: free */

static void setup(void) {
    ck_assert_int_eq(offsets_init(&offsets, CHUNKS * OFFSETS_CHUNK), 0);
}

static void teardown(void) {
    offsets_deinit(&offsets);
    offsets_deinit(&offsets); /* again is fine */
}

static bool is_free(size_t chunk) {
    for (size_t i = 0; i < CHUNK_PAGES; i++)
        if (model[chunk * CHUNK_PAGES + i])
            return false;
    return true;
}

/* The highest place for so many chunks; CHUNKS: there is none. */
static size_t place_for(size_t wanted) {
    for (size_t i = CHUNKS - wanted + 1; i-- > 0;) {
        size_t n = 0;

        while (n < wanted && is_free(i + n))
            n++;
        if (n == wanted)
            return i;
    }
    return CHUNKS;
}

static bool take(size_t pages, int who, size_t *ret_page) {
    size_t offset = 0, place = place_for((pages + CHUNK_PAGES - 1) / CHUNK_PAGES);
    bool taken = offsets_take(&offsets, pages * OFFSETS_PAGE, false, &offset);

    ck_assert_int_eq(taken, place < CHUNKS);
    if (!taken)
        return false;
    ck_assert_uint_eq(offset, place * OFFSETS_CHUNK);
    *ret_page = offset / OFFSETS_PAGE;
    for (size_t i = 0; i < pages; i++)
        model[*ret_page + i] = who;
    return true;
}

/* These very pages, if they are free, and the chunks after the first are all free, and what is before them in the first is not behind them. */
static void take_at(size_t page, size_t pages, int who) {
    bool fits = page + pages <= PAGES;
    size_t end = (page + pages + CHUNK_PAGES - 1) / CHUNK_PAGES * CHUNK_PAGES;

    for (size_t i = page; fits && i < end; i++)
        fits = !model[i];
    ck_assert_int_eq(offsets_take_at(&offsets, page * OFFSETS_PAGE, pages * OFFSETS_PAGE), fits);
    for (size_t i = 0; fits && i < pages; i++)
        model[page + i] = who;
}

static void give(size_t page, size_t pages) {
    offsets_give(&offsets, page * OFFSETS_PAGE, pages * OFFSETS_PAGE);
    for (size_t i = 0; i < pages; i++)
        model[page + i] = 0;
}

START_TEST(test_downwards) {
    size_t page;

    for (size_t i = 0; i < CHUNKS; i++) {
        ck_assert(take(i % 2 ? 1 : CHUNK_PAGES, 1, &page));
        ck_assert_uint_eq(page, (CHUNKS - 1 - i) * CHUNK_PAGES);
    }
    ck_assert(!take(1, 1, &page));
    give((CHUNKS - 1) * CHUNK_PAGES, CHUNK_PAGES);
    ck_assert(take(1, 2, &page));
    ck_assert_uint_eq(page, (CHUNKS - 1) * CHUNK_PAGES);
}
END_TEST

/* From the other end, where there is room behind. */
START_TEST(test_low) {
    size_t page, offset = 1;

    ck_assert(take(CHUNK_PAGES, 1, &page));
    ck_assert(offsets_take(&offsets, OFFSETS_CHUNK + OFFSETS_PAGE, true, &offset));
    ck_assert_uint_eq(offset, 0);
    ck_assert(offsets_take(&offsets, OFFSETS_CHUNK, true, &offset));
    ck_assert_uint_eq(offset, 2 * OFFSETS_CHUNK);
    offsets_give(&offsets, 0, OFFSETS_CHUNK);
    ck_assert(offsets_take(&offsets, 2 * OFFSETS_CHUNK, true, &offset));
    ck_assert_uint_eq(offset, 3 * OFFSETS_CHUNK);
    ck_assert(!offsets_take(&offsets, CHUNKS * OFFSETS_CHUNK, true, &offset));
    ck_assert(offsets_take(&offsets, OFFSETS_CHUNK, true, &offset));
    ck_assert_uint_eq(offset, 0);
}
END_TEST

START_TEST(test_all_at_once) {
    size_t page;

    ck_assert(take(PAGES, 1, &page));
    ck_assert(!take(1, 1, &page));
    give(0, PAGES);
    ck_assert(take(PAGES - 1, 1, &page));
    ck_assert(!offsets_take(&offsets, OFFSETS_PAGE, false, &page)); /* the last chunk is the first one's */
    give(0, PAGES - 1);
    ck_assert(!offsets_take(&offsets, (PAGES + 1) * OFFSETS_PAGE, false, &page));
}
END_TEST

/* A chunk of which a page is used is nobody else's. */
START_TEST(test_parts) {
    size_t page, other;

    ck_assert(take(3 * CHUNK_PAGES, 1, &page));
    give(page + 5, CHUNK_PAGES); /* parts of two chunks */
    ck_assert(take(CHUNK_PAGES, 2, &other));
    ck_assert_uint_lt(other, page);
    give(page + CHUNK_PAGES + 5, CHUNK_PAGES - 5); /* now the middle one is free */
    ck_assert(take(2, 3, &other));
    ck_assert_uint_eq(other, page + CHUNK_PAGES);
}
END_TEST

/* A mapping that grows page by page needs no more chunks than its pages. */
START_TEST(test_growing) {
    size_t page, other;

    ck_assert(take(5 * CHUNK_PAGES, 1, &page));
    give(page + 1, 5 * CHUNK_PAGES - 1);
    for (size_t i = 1; i < 3 * CHUNK_PAGES; i++)
        take_at(page + i, 1, 1);
    ck_assert(take(2 * CHUNK_PAGES, 2, &other));
    ck_assert_uint_eq(other, page + 3 * CHUNK_PAGES);
    take_at(page + 3 * CHUNK_PAGES, 1, 1); /* it is in the way now */
}
END_TEST

START_TEST(test_random_against_model) {
    unsigned seed = (unsigned)_i + 1;
    size_t page;

    for (int round = 1; round < 20000; round++) {
        size_t first = (size_t)rand_r(&seed) % PAGES, n = 0;

        if (rand_r(&seed) % 3 == 0) {
            take_at(first, 1 + (size_t)rand_r(&seed) % (2 * CHUNK_PAGES), round);
            continue;
        }
        if (rand_r(&seed) % 2) {
            take(1 + (size_t)rand_r(&seed) % (4 * CHUNK_PAGES), round, &page);
            continue;
        }
        while (first + n < PAGES && model[first] && model[first + n] == model[first])
            n++;
        if (n > 0)
            give(first, 1 + (size_t)rand_r(&seed) % n);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("offsets");
    TCase *tcase = tcase_create("offsets");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, test_downwards);
    tcase_add_test(tcase, test_all_at_once);
    tcase_add_test(tcase, test_low);
    tcase_add_test(tcase, test_parts);
    tcase_add_test(tcase, test_growing);
    tcase_add_loop_test(tcase, test_random_against_model, 0, 8);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
