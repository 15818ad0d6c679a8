/* SPDX-License-Identifier: MIT */
#ifndef BENCH_RESULT_H
#define BENCH_RESULT_H

/*
 * What was measured: samples by row, contender and round, and what follows from them.
 */

#include "rows.h"
#include "sample.h"

#include <stdbool.h>

#define ROUNDS_MAX 64

struct cell {
    unsigned count;                                   /* samples, one for each round from the first on */
    struct sample *samples;                           /* owned */
    char missing[sizeof(((struct task *)0)->reason)]; /* why there are none, or no more; "" */
};

struct row_result {
    const struct row *row;
    bool selected;
    unsigned rounds;
    struct cell cells[CONTENDER_COUNT];
};

struct result {
    struct row_result *rows; /* row_count of them, owned */
    enum scale scale;
    uint64_t service_rss, service_pss; /* bytes, after all */
    uint64_t took_ns;
};

struct summary {
    unsigned count;
    double median, min, max;
    double spread; /* max / min */
};

int result_init(struct result *result);
void result_deinit(struct result *result);

struct summary result_summary(const struct cell *cell);
/* Median over the rounds of a figure beside the value. */
double result_extra(const struct cell *cell, enum extra extra);

/* Best or worst, or the median of the rounds. NAN: there is none. */
double result_value(const struct row_result *result, enum contender contender, enum statistic statistic);
/* Of a figure beside the value, of which less is better. */
double result_extra_by(const struct cell *cell, enum extra extra, enum statistic statistic);

/* Ratios of two contenders, each within one round. @return number of them */
unsigned result_ratios(const struct row_result *result, enum contender over, enum contender under, double *ret);
/* The median of the ratios, or the ratio of each side's best or worst round. NAN: there is none. */
double result_ratio(const struct row_result *result, enum contender over, enum contender under,
                    enum statistic statistic);

/* What a goal of the row is about. NAN: not measured. */
double result_goal_value(const struct result *result, const struct row_result *row, const struct goal *goal);
static inline bool goal_met(const struct goal *goal, double value) {
    return value >= goal->min && value <= goal->max;
}
/* "library/native <= 1.2", "library/native (median) in 0.95..1.05". */
void goal_text(const struct goal *goal, char *text, size_t size);

#endif
