/* SPDX-License-Identifier: MIT */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

/*
 * What is measured: one row is one measurement of several contenders. A name is theme/...; the theme's rows make one table.
 */

#include "contender.h"
#include "sample.h"
#include "task.h"

#include <stdbool.h>

enum better { BETTER_LOWER, BETTER_HIGHER };

enum statistic {
    STATISTIC_BEST,   /* each side's best round */
    STATISTIC_MEDIAN, /* of the ratios within one round */
    STATISTIC_WORST, /* each side's worst round: for memory, of which a round may find some that another one has left */
};

enum pattern {
    PATTERN_SEQ,     /* every page, in order */
    PATTERN_RANDOM,  /* every page, shuffled */
    PATTERN_SPARSE,  /* one page in 2 MiB */
    PATTERN_STRIDED, /* every 16th page */
};

enum goal_kind {
    GOAL_NONE,
    GOAL_RATIO,        /* of the values of two contenders */
    GOAL_BROUGHT_BACK, /* of one contender: memory after the touch over memory before the drop */
    GOAL_VALUE,        /* of one contender */
    GOAL_EXTRA,        /* of one contender: a figure beside the value */
    GOAL_ROW,          /* of one contender: its value over that in another row */
};

struct goal {
    enum goal_kind kind;
    enum contender over, under;
    enum statistic statistic;
    double min, max; /* 0 and INFINITY: no such bound */
    enum extra extra;
    const char *row; /* the other row's name */
};

#define ROW_GOALS 2
#define TOLERANCE 2.0

struct row {
    const char *name;
    const char *unit;
    enum better better;
    unsigned contenders;  /* CONTENDER_BIT()s */
    bool quick;           /* is in the quick form */
    unsigned rounds;      /* at least so many; 0: as the command line says */
    unsigned rounds_most; /* 0: as the command line says */
    /* The ratio that is shown, and that --compare watches. The same twice: there is none, and --compare watches the value. */
    enum contender over, under;
    double tolerance; /* how many times worse is too much; 0: TOLERANCE */
    struct goal goals[ROW_GOALS];
    /* In the worker. @return 0; a negative errno: no value, @task may have the reason */
    int (*run)(struct task *task, struct sample *ret);
    /* What the theme's function wants to know. */
    enum pattern pattern;
    unsigned threads;
    bool huge;
    uint64_t size;
    unsigned count; /* of clients, regions, pages */
    unsigned variant;
};

extern const struct row rows[];
extern const unsigned row_count;

/* Whether there is nobody to compare with. */
static inline bool row_is_alone(const struct row *row) {
    return row->over == row->under;
}

/* Characters of the name before the first slash. */
int row_theme(const struct row *row);

#endif
