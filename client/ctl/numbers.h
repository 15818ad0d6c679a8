/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CTL_NUMBERS_H
#define DROPPABLE_CTL_NUMBERS_H

/* Numbers as people write and read them: pure. */

#include <stddef.h>
#include <stdint.h>

/* "4096", "64K", "1G" -> bytes. -EINVAL: is no size; -ERANGE: too large. */
int ctl_parse_size(const char *text, uint64_t *ret);

struct ctl_quantiles {
    uint64_t count;
    uint64_t median, p99, max; /* the largest value that the bucket can hold; 0 if nothing was counted */
};
/* Of a histogram: bucket 0 counts zeros, bucket i values from 2^(i-1) up to 2^i - 1. */
struct ctl_quantiles ctl_quantiles(const uint64_t *buckets, size_t n);

#endif
