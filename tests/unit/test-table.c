/* SPDX-License-Identifier: MIT */
/* The preload library's table against a naive model: an array that says for each page whose it is. */

#include "table.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#define PAGE ((uintptr_t)4096)
#define PAGES 256
#define HOLDINGS 64
#define BASE ((uintptr_t)1 << 30)

static struct holding holdings[HOLDINGS];
static struct holding *model[PAGES];

static uintptr_t at(size_t page) {
    return BASE + page * PAGE;
}

static struct drp_region *region_of(size_t i) {
    return (struct drp_region *)&holdings[i]; /* only compared */
}

static void setup(void) {
    ck_assert(!table_any());
    for (size_t i = 0; i < HOLDINGS; i++)
        holdings[i] = (struct holding){.region = region_of(i)};
}

static void add(struct holding *holding, size_t first, size_t end) {
    ck_assert_int_eq(table_add(at(first), at(end), holding), 0);
    for (size_t i = first; i < end; i++)
        model[i] = holding;
}

/* Cuts all of a range out. Holdings of which nothing is left have no references then. */
static void cut(size_t first, size_t end) {
    struct piece piece;

    while (table_cut(at(first), at(end), &piece) > 0) {
        ck_assert(piece.start >= at(first) && piece.start < piece.end && piece.end <= at(end));
        for (size_t i = (piece.start - BASE) / PAGE; i < (piece.end - BASE) / PAGE; i++) {
            ck_assert_ptr_eq(model[i], piece.holding);
            model[i] = NULL;
        }
        if (table_is_last(piece.holding))
            for (size_t i = 0; i < PAGES; i++)
                ck_assert_ptr_ne(model[i], piece.holding);
        if (table_release(piece.holding))
            ck_assert_uint_eq(piece.holding->references, 0);
    }
    for (size_t i = first; i < end; i++)
        ck_assert_ptr_null(model[i]);
}

static size_t runs(const struct holding *holding) {
    size_t n = 0;

    for (size_t i = 0; i < PAGES; i++)
        n += model[i] == holding && (i == 0 || model[i - 1] != holding);
    return n;
}

static void check_model(void) {
    struct piece piece;
    bool any = false;

    for (size_t i = 0; i < PAGES; i++) {
        bool found = table_find(at(i) + 1, at(i + 1), &piece);

        ck_assert_ptr_eq(found ? piece.holding : NULL, model[i]);
        any |= found;
        if (!found)
            continue;
        ck_assert(piece.start == at(i) + 1 && piece.end == at(i + 1));
        ck_assert(!table_release(piece.holding));
    }
    ck_assert(table_any() == any);
    for (size_t i = 0; i < HOLDINGS; i++)
        ck_assert_uint_eq(holdings[i].references, runs(&holdings[i]));
}

START_TEST(test_edges) {
    struct piece piece;

    add(&holdings[0], 10, 20);
    ck_assert(!table_find(at(20), at(30), &piece));
    ck_assert(!table_find(at(5), at(10), &piece));
    ck_assert(!table_find(at(15), at(15), &piece)); /* an empty range, inside */
    ck_assert_int_eq(table_cut(at(15), at(15), &piece), 0);
    ck_assert(table_find(at(5), at(11), &piece));
    ck_assert(piece.start == at(10) && piece.end == at(11));
    ck_assert(!table_is_last(&holdings[0]) && !table_release(&holdings[0]));
    cut(0, PAGES);
    check_model();
}
END_TEST

/* Who works on a holding keeps it. */
START_TEST(test_reference_outlives_pieces) {
    struct piece mine, piece;

    add(&holdings[0], 10, 20);
    ck_assert(table_find(at(0), at(PAGES), &mine));
    ck_assert_int_eq(table_cut(at(0), at(PAGES), &piece), 1);
    ck_assert(!table_is_last(&holdings[0]) && !table_release(&holdings[0]));
    ck_assert(table_is_last(&holdings[0]) && table_release(&holdings[0]));
    ck_assert(!table_any());
}
END_TEST

START_TEST(test_pieces_of_a_region) {
    uintptr_t start = 0, end = 0;

    add(&holdings[0], 10, 30);
    cut(14, 20);
    add(&holdings[1], 15, 18); /* in the hole of the other */
    ck_assert(table_next_piece(region_of(0), at(10), at(30), &start, &end) && start == at(10) && end == at(14));
    ck_assert(table_next_piece(region_of(0), at(12), at(30), &start, &end) && start == at(12) && end == at(14));
    ck_assert(table_next_piece(region_of(0), at(14), at(30), &start, &end) && start == at(20) && end == at(30));
    ck_assert(!table_next_piece(region_of(0), at(30), at(30), &start, &end));
    ck_assert(!table_next_piece(region_of(2), at(10), at(30), &start, &end));
    cut(0, PAGES);
    check_model();
}
END_TEST

START_TEST(test_full) {
    static struct holding whole = {0};
    struct piece piece;
    size_t n;

    ck_assert_int_eq(table_add(BASE, BASE + ((uintptr_t)1 << 32), &whole), 0);
    for (n = 1; table_cut(BASE + 2 * n * PAGE, BASE + (2 * n + 1) * PAGE, &piece) > 0; n++)
        ck_assert(!table_release(&whole));
    ck_assert_uint_ge(n, 10000);
    ck_assert_int_eq(table_cut(BASE + 2 * n * PAGE, BASE + (2 * n + 1) * PAGE, &piece), -ENOMEM);
    ck_assert_int_eq(table_add(PAGE, 2 * PAGE, &holdings[0]), -ENOMEM);
    ck_assert_uint_eq(whole.references, n);
    /* What makes no new piece works still. The last one is taken first: the others have not to be moved then. */
    while (n-- > 0) {
        ck_assert_int_eq(table_cut(BASE + 2 * n * PAGE, UINTPTR_MAX, &piece), 1);
        ck_assert(table_release(&whole) == (n == 0));
    }
    ck_assert_int_eq(table_cut(BASE, BASE + PAGE, &piece), 0);
}
END_TEST

/* In a child everything is inherited, and nobody else refers to it. */
START_TEST(test_fork) {
    struct piece piece;

    add(&holdings[0], 10, 20);
    cut(12, 14);
    ck_assert(table_find(at(0), at(PAGES), &piece));
    ck_assert_uint_eq(holdings[0].references, 3);
    table_fork_prepare();
    table_fork_child();
    ck_assert(holdings[0].inherited);
    ck_assert_uint_eq(holdings[0].references, 2);
    cut(0, PAGES);
    check_model();
}
END_TEST

START_TEST(test_random_against_model) {
    unsigned seed = (unsigned)_i + 1;

    for (unsigned round = 0; round < 2000; round++) {
        size_t first = (size_t)rand_r(&seed) % PAGES;
        size_t end = first + 1 + (size_t)rand_r(&seed) % 24;
        struct holding *holding = &holdings[(size_t)rand_r(&seed) % HOLDINGS];

        if (end > PAGES)
            end = PAGES;
        cut(first, end);
        if (rand_r(&seed) % 2 && holding->references == 0)
            add(holding, first, end);
        if (round % 16 == 0)
            check_model();
    }
    cut(0, PAGES);
    check_model();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("table");
    TCase *tcase = tcase_create("table");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, test_edges);
    tcase_add_test(tcase, test_reference_outlives_pieces);
    tcase_add_test(tcase, test_pieces_of_a_region);
    tcase_add_test(tcase, test_full);
    tcase_add_test(tcase, test_fork);
    tcase_add_loop_test(tcase, test_random_against_model, 0, 8);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
