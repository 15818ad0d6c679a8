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
#include <string.h>

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

double result_extra_by(const struct cell *cell, enum extra extra, enum statistic statistic) {
    double values[ROUNDS_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < cell->count; i++)
        if (!isnan(cell->samples[i].extra[extra]))
            values[count++] = cell->samples[i].extra[extra];
    return sample_quantile(values, count, statistic == STATISTIC_BEST ? 0 : statistic == STATISTIC_WORST ? 1 : 0.5);
}

double result_extra(const struct cell *cell, enum extra extra) {
    return result_extra_by(cell, extra, STATISTIC_MEDIAN);
}

double result_value(const struct row_result *result, enum contender contender, enum statistic statistic) {
    struct summary summary = result_summary(&result->cells[contender]);

    if (statistic == STATISTIC_MEDIAN)
        return summary.median;
    return (statistic == STATISTIC_BEST) == (result->row->better == BETTER_LOWER) ? summary.min : summary.max;
}

unsigned result_ratios(const struct row_result *result, enum contender over, enum contender under, double *ret) {
    const struct cell *a = &result->cells[over], *b = &result->cells[under];
    unsigned count = a->count < b->count ? a->count : b->count;

    for (unsigned i = 0; i < count; i++)
        ret[i] = a->samples[i].value / b->samples[i].value;
    return count;
}

double result_ratio(const struct row_result *result, enum contender over, enum contender under,
                    enum statistic statistic) {
    double ratios[ROUNDS_MAX];

    if (over == under) /* nobody to compare with */
        return NAN;
    if (statistic != STATISTIC_MEDIAN)
        return result_value(result, over, statistic) / result_value(result, under, statistic);
    return sample_quantile(ratios, result_ratios(result, over, under, ratios), 0.5);
}

static const struct row_result *find_row(const struct result *result, const char *name) {
    for (unsigned i = 0; i < row_count; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &result->rows[i];
    return NULL;
}

double result_goal_value(const struct result *result, const struct row_result *row, const struct goal *goal) {
    const struct row_result *other;

    switch (goal->kind) {
    case GOAL_BROUGHT_BACK:
        return result_extra(&row->cells[goal->over], EXTRA_BROUGHT_BACK);
    case GOAL_VALUE:
        return result_value(row, goal->over, goal->statistic);
    case GOAL_EXTRA:
        return result_extra_by(&row->cells[goal->over], goal->extra, goal->statistic);
    case GOAL_ROW:
        other = find_row(result, goal->row);
        if (!other)
            return NAN;
        return result_value(row, goal->over, goal->statistic) / result_value(other, goal->over, goal->statistic);
    case GOAL_RATIO:
        return result_ratio(row, goal->over, goal->under, goal->statistic);
    default:
        return NAN;
    }
}

/* What the goal bounds; the best is not named, as it is the rule. */
static void goal_subject(const struct goal *goal, char *text, size_t size) {
    static const char *const by[] = {
        [STATISTIC_BEST] = "",
        [STATISTIC_MEDIAN] = " (median)",
        [STATISTIC_WORST] = " (worst)",
    };
    const char *over = contender_names[goal->over];

    if (goal->kind == GOAL_BROUGHT_BACK)
        snprintf(text, size, "%s brings back", over);
    else if (goal->kind == GOAL_VALUE)
        snprintf(text, size, "%s%s", over, by[goal->statistic]);
    else if (goal->kind == GOAL_EXTRA)
        snprintf(text, size, "%s%s", extra_names[goal->extra], by[goal->statistic]);
    else if (goal->kind == GOAL_ROW)
        snprintf(text, size, "%s/%s in %s%s", over, over, goal->row, by[goal->statistic]);
    else
        snprintf(text, size, "%s/%s%s", over, contender_names[goal->under], by[goal->statistic]);
}

void goal_text(const struct goal *goal, char *text, size_t size) {
    char what[80], bounds[48];

    goal_subject(goal, what, sizeof(what));
    if (goal->min > 0 && isinf(goal->max))
        snprintf(bounds, sizeof(bounds), ">= %g", goal->min);
    else if (goal->min > 0)
        snprintf(bounds, sizeof(bounds), "in %g..%g", goal->min, goal->max);
    else if (goal->kind == GOAL_EXTRA && goal->max >= (double)MIB)
        snprintf(bounds, sizeof(bounds), "<= %g MiB", goal->max / (double)MIB);
    else
        snprintf(bounds, sizeof(bounds), "<= %g%s", goal->max, goal->kind == GOAL_BROUGHT_BACK ? " x" : "");
    snprintf(text, size, "%s %s", what, bounds);
}
