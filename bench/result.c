/* SPDX-License-Identifier: MIT */

/*
 * Owns the samples. Ratios are made within one round, where both sides met the same machine, and only then summed up by their
 * median: what slows the whole machine down for a while does not look like a difference. The best of these ratios would be the one in
 * which noise struck the other side alone, so the best is that of each side: noise only ever adds.
 */

#include "result.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int result_init(struct result *result) {
    *result = (struct result){.rows = calloc(row_count, sizeof(*result->rows))};
    if (!result->rows)
        return -ENOMEM;
    for (unsigned i = 0; i < row_count; i++)
        result->rows[i].row = &rows[i];
    return 0;
}

void result_deinit(struct result *result) {
    for (unsigned i = 0; result->rows && i < row_count; i++)
        for (unsigned c = 0; c < CONTENDER_COUNT; c++)
            free(result->rows[i].cells[c].samples);
    free(result->rows);
    result->rows = NULL;
}

struct summary result_summary(const struct cell *cell) {
    struct summary summary = {.count = cell->count, .median = NAN, .min = NAN, .max = NAN, .spread = NAN};
    double values[ROUNDS_MAX];

    for (unsigned i = 0; i < cell->count; i++)
        values[i] = cell->samples[i].value;
    if (cell->count == 0)
        return summary;
    summary.median = sample_quantile(values, cell->count, 0.5);
    summary.min = values[0];
    summary.max = values[cell->count - 1];
    summary.spread = summary.max / summary.min;
    return summary;
}

double result_extra(const struct cell *cell, enum extra extra) {
    double values[ROUNDS_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < cell->count; i++)
        if (!isnan(cell->samples[i].extra[extra]))
            values[count++] = cell->samples[i].extra[extra];
    return sample_quantile(values, count, 0.5);
}

unsigned result_ratios(const struct row_result *result, enum contender over, enum contender under, double *ret) {
    const struct cell *a = &result->cells[over], *b = &result->cells[under];
    unsigned count = a->count < b->count ? a->count : b->count;

    for (unsigned i = 0; i < count; i++)
        ret[i] = a->samples[i].value / b->samples[i].value;
    return count;
}

/* Of one side's rounds. */
static double best_of(const struct row_result *result, enum contender contender) {
    struct summary summary = result_summary(&result->cells[contender]);

    return result->row->better == BETTER_LOWER ? summary.min : summary.max;
}

double result_ratio(const struct row_result *result, enum contender over, enum contender under,
                    enum statistic statistic) {
    double ratios[ROUNDS_MAX];

    if (over == under) /* nobody to compare with */
        return NAN;
    if (statistic == STATISTIC_BEST)
        return best_of(result, over) / best_of(result, under);
    return sample_quantile(ratios, result_ratios(result, over, under, ratios), 0.5);
}

double result_goal_value(const struct row_result *result, const struct goal *goal) {
    if (goal->kind == GOAL_BROUGHT_BACK)
        return result_extra(&result->cells[goal->over], EXTRA_BROUGHT_BACK);
    return result_ratio(result, goal->over, goal->under, goal->statistic);
}

void goal_text(const struct goal *goal, char *text, size_t size) {
    char what[64], bounds[48];

    if (goal->kind == GOAL_BROUGHT_BACK)
        snprintf(what, sizeof(what), "%s brings back", contender_names[goal->over]);
    else
        snprintf(what, sizeof(what), "%s/%s%s", contender_names[goal->over], contender_names[goal->under],
                 goal->statistic == STATISTIC_MEDIAN ? " (median)" : "");
    if (goal->min > 0 && isinf(goal->max))
        snprintf(bounds, sizeof(bounds), ">= %g", goal->min);
    else if (goal->min > 0)
        snprintf(bounds, sizeof(bounds), "in %g..%g", goal->min, goal->max);
    else
        snprintf(bounds, sizeof(bounds), "<= %g%s", goal->max, goal->kind == GOAL_BROUGHT_BACK ? " x" : "");
    snprintf(text, size, "%s %s", what, bounds);
}
