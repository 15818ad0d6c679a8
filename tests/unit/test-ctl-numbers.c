/* SPDX-License-Identifier: MIT */
/* How droppablectl reads sizes and what it says of histograms. */

#include "numbers.h"
#include "suite.h"

#include <check.h>
#include <errno.h>

static const struct {
    const char *text;
    int result;
    uint64_t value;
} sizes[] = {
    {"0", 0, 0},
    {"4096", 0, 4096},
    {"1K", 0, 1024},
    {"64M", 0, UINT64_C(64) << 20},
    {"3G", 0, UINT64_C(3) << 30},
    {"16777215T", 0, UINT64_C(16777215) << 40},
    {"16777216T", -ERANGE, 0},
    {"18446744073709551615", 0, UINT64_MAX},
    {"18446744073709551616", -ERANGE, 0},
    {"18014398509481984K", -ERANGE, 0},
    {"", -EINVAL, 0},
    {"K", -EINVAL, 0},
    {"-1", -EINVAL, 0},
    {"+1", -EINVAL, 0},
    {" 1", -EINVAL, 0},
    {"1k", -EINVAL, 0},
    {"1KB", -EINVAL, 0},
    {"1 K", -EINVAL, 0},
    {"1.5G", -EINVAL, 0},
    {"0x10", -EINVAL, 0},
};

START_TEST(test_sizes) {
    uint64_t value = 77;

    ck_assert_msg(ctl_parse_size(sizes[_i].text, &value) == sizes[_i].result, "'%s'", sizes[_i].text);
    ck_assert_uint_eq(value, sizes[_i].result == 0 ? sizes[_i].value : 77);
}
END_TEST

static const struct {
    uint64_t buckets[6];
    struct ctl_quantiles expected;
} histograms[] = {
    {{0}, {0, 0, 0, 0}},
    {{5}, {5, 0, 0, 0}},
    {{0, 1}, {1, 1, 1, 1}},
    {{0, 0, 0, 0, 0, 1}, {1, 31, 31, 31}},
    {{1, 0, 1}, {2, 0, 3, 3}},
    {{49, 0, 50, 1}, {100, 3, 3, 7}},
    {{50, 0, 49, 1}, {100, 0, 3, 7}},
    {{0, 98, 0, 0, 1, 1}, {100, 1, 15, 31}},
};

START_TEST(test_quantiles) {
    struct ctl_quantiles found = ctl_quantiles(histograms[_i].buckets, 6);

    ck_assert_uint_eq(found.count, histograms[_i].expected.count);
    ck_assert_uint_eq(found.median, histograms[_i].expected.median);
    ck_assert_uint_eq(found.p99, histograms[_i].expected.p99);
    ck_assert_uint_eq(found.max, histograms[_i].expected.max);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ctl-numbers");
    TCase *tcase = tcase_create("ctl-numbers");

    tcase_add_loop_test(tcase, test_sizes, 0, (int)(sizeof(sizes) / sizeof(sizes[0])));
    tcase_add_loop_test(tcase, test_quantiles, 0, (int)(sizeof(histograms) / sizeof(histograms[0])));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
