/* SPDX-License-Identifier: MIT */

/* Names of the figures beside a value, and order statistics. */

#include "sample.h"

#include <stdlib.h>

const char *const extra_names[EXTRA_COUNT] = {
    [EXTRA_P50] = "p50",
    [EXTRA_P99] = "p99",
    [EXTRA_US_PER_PAGE] = "us_per_page",
    [EXTRA_RESIDENT_BEFORE] = "resident_before",
    [EXTRA_RESIDENT_AFTER] = "resident_after",
    [EXTRA_BROUGHT_BACK] = "brought_back",
    [EXTRA_FAULTS] = "intercepted_faults",
    [EXTRA_REFAULTS] = "refaults",
    [EXTRA_SERVICE_CPU_MS] = "service_cpu_ms",
    [EXTRA_HUGE] = "huge",
    [EXTRA_TOUCHES_PER_MS] = "touches_per_ms",
    [EXTRA_MAX] = "worst",
    [EXTRA_SERVICE_US_PER_FAULT] = "service_us_per_fault",
    [EXTRA_SERVICE_PSS] = "service_pss",
    [EXTRA_SERVICE_RSS] = "service_rss",
    [EXTRA_SERVICE_THREADS] = "service_threads",
    [EXTRA_AFTER_DROP] = "service_after_drop",
    [EXTRA_AFTER_FREE] = "service_after_free",
    [EXTRA_DROPPED] = "dropped",
};

void sample_init(struct sample *sample) {
    sample->value = NAN;
    for (unsigned i = 0; i < EXTRA_COUNT; i++)
        sample->extra[i] = NAN;
}

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

double sample_quantile(double *values, size_t count, double quantile) {
    size_t below;
    double at;

    if (count == 0)
        return NAN;
    qsort(values, count, sizeof(*values), compare);
    at = quantile * (double)(count - 1);
    below = (size_t)at;
    if (below + 1 >= count)
        return values[count - 1];
    return values[below] + (at - (double)below) * (values[below + 1] - values[below]);
}

void sample_set_distribution(struct sample *sample, double *values, size_t count) {
    sample->value = sample_quantile(values, count, 0.5);
    sample->extra[EXTRA_P50] = sample->value;
    sample->extra[EXTRA_P99] = sample_quantile(values, count, 0.99);
    sample->extra[EXTRA_MAX] = count > 0 ? values[count - 1] : NAN;
}
