/* SPDX-License-Identifier: MIT */
#ifndef BENCH_GROWTH_H
#define BENCH_GROWTH_H

/*
 * How costs grow with numbers and sizes: a theme's rows as points of one curve.
 */

#include "result.h"

#define GROWTH_POINTS 16
#define GROWTH_POINTS_MIN 3 /* fewer are no curve: not shown, nor judged */

struct curve {
    const char *name;
    const char *text;  /* what costs, and of what it is a function */
    const char *theme; /* whose rows are the points: x is the row's count or, without one, its size */
    enum contender contender;
    bool of_extra;
    enum extra extra; /* the figure, if it is not the value */
    const char *unit;
    double from; /* points with a lower x are shown, and not fitted */
    double max;  /* goal for the exponent */
};

struct growth {
    const struct curve *curve;
    unsigned count; /* of points */
    double x[GROWTH_POINTS], y[GROWTH_POINTS];
    double exponent; /* NAN: one point */
};

extern const struct curve curves[];
extern const unsigned curve_count;

/* Of GROWTH_POINTS_MIN at least. */
static inline bool growth_met(const struct growth *growth) {
    return growth->exponent <= growth->curve->max;
}

void growth_fit(const struct result *result, const struct curve *curve, struct growth *ret);

#endif
