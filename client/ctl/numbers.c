/* SPDX-License-Identifier: MIT */

/* Sizes with suffixes, as the daemon's configuration has them; and what a histogram of powers of two says in three numbers. */

#include "numbers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int ctl_parse_size(const char *text, uint64_t *ret) {
    static const char suffixes[] = "KMGT";
    const char *suffix;
    unsigned shift = 0;
    uint64_t value;
    char *end;

    if (*text < '0' || *text > '9') /* strtoull(3) takes signs and spaces */
        return -EINVAL;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0)
        return -ERANGE;
    if (*end != '\0') {
        suffix = strchr(suffixes, *end);
        if (!suffix || end[1] != '\0')
            return -EINVAL;
        shift = 10 * (unsigned)(suffix - suffixes + 1);
    }
    if (value > UINT64_MAX >> shift)
        return -ERANGE;
    *ret = value << shift;
    return 0;
}

/* The first bucket at which so many of 100 are counted. */
static uint64_t quantile(const uint64_t *buckets, size_t n, uint64_t count, unsigned percent) {
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += buckets[i];
        if (sum > 0 && sum * 100 >= count * percent)
            return (UINT64_C(1) << i) - 1;
    }
    return 0;
}

struct ctl_quantiles ctl_quantiles(const uint64_t *buckets, size_t n) {
    struct ctl_quantiles found = {0};

    for (size_t i = 0; i < n; i++)
        found.count += buckets[i];
    found.median = quantile(buckets, n, found.count, 50);
    found.p99 = quantile(buckets, n, found.count, 99);
    found.max = quantile(buckets, n, found.count, 100);
    return found;
}
