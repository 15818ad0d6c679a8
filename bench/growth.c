/* SPDX-License-Identifier: MIT */

/*
 * The exponent of a curve is the slope of a straight line through its points, both axes logarithmic, by least squares: 0 costs the same
 * whatever is there already, 1 is linear. Each point is the best of its rounds, since noise only ever adds, and the points are measured one
 * after the other.
 *
 * Goals. All these are costs of one more, or of one fault: where that exponent is e, N of them cost N to the 1 + e. A cost that is
 * logarithmic in truth, or one that meets colder caches the more there is, looks like a small exponent: a factor of two from 1 to 1,000 is
 * 0.1, and that is what a fault may have. Making one more may have 0.15, a factor of 2.8, since the kernel's own part of
 * it (descriptors, mappings, threads) grows, too. What is linear in one of these has 1; a list of 1,000 that is walked at each fault, at 60
 * ns for each, was seen as 0.14.
 *
 * For faults by clients the point of a single client is not fitted: it and the thread that serves it have a processor and its caches for
 * themselves, which says nothing of what comes beyond. (The kernel's own fault takes twice as long, too, where ten clients take turns.)
 */

#include "growth.h"

#include <string.h>

#define FAULT_MAX 0.1
#define ONE_MORE_MAX 0.15

#define OF_VALUE(name_, theme_, contender_, max_, text_) \
    { .name = name_, .text = text_, .theme = theme_, .contender = CONTENDER_##contender_, .unit = "us", .max = (max_), }
#define OF_EXTRA(name_, theme_, extra_, max_, text_)                                                     \
    {                                                                                                    \
        .name = name_, .text = text_, .theme = theme_, .contender = CONTENDER_LIBRARY, .of_extra = true, \
        .extra = EXTRA_##extra_, .unit = "us", .from = 10, .max = (max_),                                \
    }

/* clang-format off */
const struct curve curves[] = {
    OF_EXTRA("clients-fault", "clients", P50, FAULT_MAX, "fault, by clients"),
    OF_EXTRA("clients-cpu", "clients", SERVICE_US_PER_FAULT, FAULT_MAX, "service's CPU time of a fault and a drop, by clients"),
    OF_VALUE("clients-join", "join", LIBRARY, ONE_MORE_MAX, "one client more, by clients"),
    OF_VALUE("regions-new", "regions-new", LIBRARY, ONE_MORE_MAX, "one region more, by regions"),
    OF_VALUE("regions-fault", "regions-fault", LIBRARY, FAULT_MAX, "fault, by regions"),
    OF_VALUE("regions-cycle", "cycle", LIBRARY, ONE_MORE_MAX, "a region's life, by regions"),
    OF_VALUE("mappings-cycle", "cycle", PRELOAD, ONE_MORE_MAX, "a mapping's life with preload, by mappings"),
    OF_VALUE("size-new", "size-new", LIBRARY, ONE_MORE_MAX, "making a region, by size"),
    OF_VALUE("size-first", "size-first", LIBRARY, FAULT_MAX, "first touch, by size"),
    OF_VALUE("size-refill", "size-refill", LIBRARY, FAULT_MAX, "fault, by size"),
    OF_VALUE("size-free", "size-free", LIBRARY, ONE_MORE_MAX, "freeing a region, by size"),
};
/* clang-format on */

const unsigned curve_count = sizeof(curves) / sizeof(curves[0]);

static bool is_of_theme(const struct row *row, const char *theme) {
    return (size_t)row_theme(row) == strlen(theme) && strncmp(row->name, theme, strlen(theme)) == 0;
}

static double best(const struct cell *cell, const struct curve *curve) {
    double least = NAN;

    for (unsigned i = 0; i < cell->count; i++)
        least = fmin(least, curve->of_extra ? cell->samples[i].extra[curve->extra] : cell->samples[i].value);
    return least;
}

static double slope(const struct growth *growth) {
    double x_mean = 0, y_mean = 0, above = 0, below = 0, count = 0;

    for (unsigned i = 0; i < growth->count; i++)
        if (growth->x[i] >= growth->curve->from) {
            x_mean += log(growth->x[i]);
            y_mean += log(growth->y[i]);
            count++;
        }
    x_mean /= count;
    y_mean /= count;
    for (unsigned i = 0; i < growth->count; i++)
        if (growth->x[i] >= growth->curve->from) {
            above += (log(growth->x[i]) - x_mean) * (log(growth->y[i]) - y_mean);
            below += (log(growth->x[i]) - x_mean) * (log(growth->x[i]) - x_mean);
        }
    return below > 0 ? above / below : NAN;
}

void growth_fit(const struct result *result, const struct curve *curve, struct growth *ret) {
    *ret = (struct growth){.curve = curve};
    for (unsigned i = 0; i < row_count && ret->count < GROWTH_POINTS; i++) {
        double y = best(&result->rows[i].cells[curve->contender], curve);

        if (!is_of_theme(&rows[i], curve->theme) || !(y > 0))
            continue;
        ret->x[ret->count] = rows[i].count ? rows[i].count : (double)rows[i].size;
        ret->y[ret->count++] = y;
    }
    ret->exponent = slope(ret);
}
