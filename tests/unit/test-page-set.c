/* SPDX-License-Identifier: MIT */
/* Sets of pages: by hand at the edges of words, and by chance against one bool a page. */

#include "page-set.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>

START_TEST(test_page_sets) {
    struct page_set set = {0};
    unsigned first = 0, count;

    ck_assert(!page_set_next_run(&set, &first, &count));
    page_set_add_range(&set, 3, 130);
    page_set_add_range(&set, 511, 1);
    ck_assert_uint_eq(page_set_count(&set), 131);
    ck_assert(page_set_next_run(&set, &first, &count));
    ck_assert_uint_eq(first, 3);
    ck_assert_uint_eq(count, 130);
    first += count;
    ck_assert(page_set_next_run(&set, &first, &count));
    ck_assert_uint_eq(first, 511);
    ck_assert_uint_eq(count, 1);
    first += count;
    ck_assert(!page_set_next_run(&set, &first, &count));
    page_set_remove_range(&set, 64, 64);
    ck_assert_uint_eq(page_set_count_range(&set, 0, 512), 67);
    first = 64;
    ck_assert(page_set_next_run(&set, &first, &count));
    ck_assert_uint_eq(first, 128);
    page_set_add_range(&set, 0, 512);
    first = 0;
    ck_assert(page_set_next_run(&set, &first, &count));
    ck_assert_uint_eq(count, 512);
}
END_TEST

/* The same set, one bool a page. */
struct model {
    bool has[PAGE_SET_PAGES];
};

static void check_same(const struct page_set *set, const struct model *model) {
    unsigned count = 0, runs = 0, first = 0, length, seen = 0;

    for (unsigned i = 0; i < PAGE_SET_PAGES; i++) {
        ck_assert(page_set_has(set, i) == model->has[i]);
        count += model->has[i];
        runs += model->has[i] && (i == 0 || !model->has[i - 1]);
    }
    ck_assert_uint_eq(page_set_count(set), count);
    ck_assert_uint_eq(page_set_count_runs(set), runs);
    ck_assert(page_set_is_empty(set) == (count == 0));
    for (; page_set_next_run(set, &first, &length); first += length, seen++)
        for (unsigned i = first; i < first + length; i++)
            ck_assert(model->has[i]);
    ck_assert_uint_eq(seen, runs);
}

START_TEST(test_random_against_model) {
    struct page_set set = {0}, other = {0}, common = {0};
    struct model model = {0}, second = {0}, both = {0};

    srandom((unsigned)_i + 1);
    for (unsigned step = 0; step < 250; step++) {
        unsigned first = (unsigned)random() % PAGE_SET_PAGES, n = (unsigned)random() % (PAGE_SET_PAGES - first) + 1;
        struct page_set *s = random() % 4 ? &set : &other;
        struct model *m = s == &set ? &model : &second;
        unsigned expected = 0;
        bool add = random() % 2;

        if (random() % 2)
            n = n % 4 + 1 <= PAGE_SET_PAGES - first ? n % 4 + 1 : 1;
        (add ? page_set_add_range : page_set_remove_range)(s, first, n);
        for (unsigned i = first; i < first + n; i++)
            m->has[i] = add;
        check_same(s, m);
        first = (unsigned)random() % PAGE_SET_PAGES;
        for (unsigned i = first; i < PAGE_SET_PAGES; i++)
            expected += model.has[i];
        ck_assert_uint_eq(page_set_count_range(&set, first, PAGE_SET_PAGES - first), expected);
    }
    page_set_add_common(&common, &set, &other);
    for (unsigned i = 0; i < PAGE_SET_PAGES; i++) {
        both.has[i] = model.has[i] && second.has[i];
        model.has[i] = model.has[i] && !second.has[i];
    }
    check_same(&common, &both);
    page_set_remove(&set, &other);
    check_same(&set, &model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("page-set");
    TCase *tcase = tcase_create("page-set");

    tcase_add_test(tcase, test_page_sets);
    tcase_add_loop_test(tcase, test_random_against_model, 0, 8);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
