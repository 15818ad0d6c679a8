/* SPDX-License-Identifier: MIT */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

/*
 * What one measurement gives: the row's value, and figures beside it. A figure that was not taken is NAN.
 */

#include <math.h>
#include <stddef.h>

enum extra {
    EXTRA_P50,                  /* of the single operations, in the row's unit; us if that is no time */
    EXTRA_P99,                  /* the same */
    EXTRA_US_PER_PAGE,          /* us per 4 KiB, where the value is something else */
    EXTRA_RESIDENT_BEFORE,      /* bytes, before the drop */
    EXTRA_RESIDENT_AFTER,       /* bytes, after the touch */
    EXTRA_BROUGHT_BACK,         /* after over before */
    EXTRA_FAULTS,               /* that the service intercepted in the timed part */
    EXTRA_REFAULTS,             /* that it took for mistakes of its own, in the timed part */
    EXTRA_SERVICE_CPU_MS,       /* of the service in the timed part */
    EXTRA_HUGE,                 /* share of the resident memory that is mapped by huge pages */
    EXTRA_TOUCHES_PER_MS,       /* of the thread that touches while another one drops */
    EXTRA_MAX,                  /* as EXTRA_P50 */
    EXTRA_SERVICE_US_PER_FAULT, /* of the service's CPU time */
    EXTRA_SERVICE_PSS,          /* bytes, at the end of the timed part */
    EXTRA_SERVICE_RSS,          /* the same */
    EXTRA_SERVICE_THREADS,      /* the same */
    EXTRA_AFTER_DROP,           /* bytes that the service needs more than before, after a drop of all */
    EXTRA_AFTER_FREE,           /* the same, after the end of the region */
    EXTRA_DROPPED,              /* bytes that the service dropped, each time */
    EXTRA_COUNT,
};

struct sample {
    double value;
    double extra[EXTRA_COUNT];
};

extern const char *const extra_names[EXTRA_COUNT];

void sample_init(struct sample *sample);
/* Sorts. The value is the median; p50, p99 and max are beside it. */
void sample_set_distribution(struct sample *sample, double *values, size_t count);

/* Sorts. 0 <= @quantile <= 1; 0.5 is the median, with the mean of the middle two. NAN of none. */
double sample_quantile(double *values, size_t count, double quantile);

#endif
