/* SPDX-License-Identifier: MIT */

/*
 * The table of what is measured, theme by theme. Everything that knows a row by name is here: goals, what is left out of the
 * quick form, and which contenders make sense.
 */

#include "rows.h"

#include "touch.h"

#include <string.h>

#define BIT(name) CONTENDER_BIT(CONTENDER_##name)

/* ---- goals ---- */

#define RATIO(over_, under_, statistic_, min_, max_)                                \
    {                                                                               \
        .kind = GOAL_RATIO, .over = CONTENDER_##over_, .under = CONTENDER_##under_, \
        .statistic = STATISTIC_##statistic_, .min = (min_), .max = (max_),          \
    }
#define AT_MOST(over_, under_, max_) RATIO(over_, under_, BEST, 0, max_)
#define AT_LEAST(over_, under_, min_) RATIO(over_, under_, BEST, min_, INFINITY)
#define BROUGHT_BACK_AT_MOST(max_) \
    { .kind = GOAL_BROUGHT_BACK, .over = CONTENDER_LIBRARY, .statistic = STATISTIC_MEDIAN, .max = (max_) }

/* ---- touch ---- */

#define TOUCHING (BIT(NATIVE) | BIT(DONTNEED) | BIT(FREE) | BIT(MEMFD) | BIT(TEXTBOOK) | BIT(LIBRARY) | BIT(PRELOAD))

#define TOUCH(kind_, pattern_text_, order_, huge_text_, huge_, threads_, quick_, ...)                             \
    {                                                                                                             \
        .name = #kind_ "/" pattern_text_ "/" huge_text_ "/" #threads_, .unit = "us/page", .contenders = TOUCHING, \
        .quick = (quick_), .over = CONTENDER_LIBRARY, .under = CONTENDER_NATIVE, .goals = {__VA_ARGS__},          \
        .run = touch_##kind_, .pattern = PATTERN_##order_, .threads = (threads_), .huge = (huge_),                \
    }
#define SMALL(kind_, text_, order_, threads_, quick_, ...) \
    TOUCH(kind_, text_, order_, "4k", false, threads_, quick_, __VA_ARGS__)
#define HUGE(kind_, text_, order_, threads_, quick_, ...) \
    TOUCH(kind_, text_, order_, "huge", true, threads_, quick_, __VA_ARGS__)

#define NO_GOAL \
    { .kind = GOAL_NONE }

/* clang-format off */
const struct row rows[] = {
    SMALL(first, "seq", SEQ, 1, true, NO_GOAL),
    SMALL(first, "seq", SEQ, 2, false, NO_GOAL),
    SMALL(first, "seq", SEQ, 8, false, NO_GOAL),
    SMALL(first, "random", RANDOM, 1, true, AT_MOST(LIBRARY, NATIVE, 2.0)),
    SMALL(first, "random", RANDOM, 2, true, NO_GOAL),
    SMALL(first, "random", RANDOM, 8, false, NO_GOAL),
    SMALL(first, "sparse", SPARSE, 1, true, NO_GOAL),
    SMALL(first, "sparse", SPARSE, 2, false, NO_GOAL),
    SMALL(first, "sparse", SPARSE, 8, false, NO_GOAL),
    SMALL(first, "strided", STRIDED, 1, true, NO_GOAL),
    SMALL(first, "strided", STRIDED, 2, false, NO_GOAL),
    SMALL(first, "strided", STRIDED, 8, false, NO_GOAL),
    HUGE(first, "seq", SEQ, 1, true, NO_GOAL),
    HUGE(first, "seq", SEQ, 2, false, NO_GOAL),
    HUGE(first, "seq", SEQ, 8, false, NO_GOAL),
    HUGE(first, "random", RANDOM, 1, false, NO_GOAL),
    HUGE(first, "random", RANDOM, 2, false, NO_GOAL),
    HUGE(first, "random", RANDOM, 8, false, NO_GOAL),
    HUGE(first, "sparse", SPARSE, 1, false, NO_GOAL),
    HUGE(first, "sparse", SPARSE, 2, false, NO_GOAL),
    HUGE(first, "sparse", SPARSE, 8, false, NO_GOAL),
    HUGE(first, "strided", STRIDED, 1, false, NO_GOAL),
    HUGE(first, "strided", STRIDED, 2, false, NO_GOAL),
    HUGE(first, "strided", STRIDED, 8, false, NO_GOAL),

    SMALL(refill, "seq", SEQ, 1, true, AT_MOST(LIBRARY, NATIVE, 1.0)),
    SMALL(refill, "seq", SEQ, 2, true, NO_GOAL),
    SMALL(refill, "seq", SEQ, 8, false, NO_GOAL),
    SMALL(refill, "random", RANDOM, 1, true, AT_MOST(LIBRARY, NATIVE, 1.2), AT_LEAST(TEXTBOOK, LIBRARY, 10)),
    SMALL(refill, "random", RANDOM, 2, true, NO_GOAL),
    SMALL(refill, "random", RANDOM, 8, true, NO_GOAL),
    SMALL(refill, "sparse", SPARSE, 1, true, AT_MOST(LIBRARY, NATIVE, 5), BROUGHT_BACK_AT_MOST(2)),
    SMALL(refill, "sparse", SPARSE, 2, false, NO_GOAL),
    SMALL(refill, "sparse", SPARSE, 8, false, NO_GOAL),
    SMALL(refill, "strided", STRIDED, 1, true, NO_GOAL),
    SMALL(refill, "strided", STRIDED, 2, false, NO_GOAL),
    SMALL(refill, "strided", STRIDED, 8, false, NO_GOAL),
    HUGE(refill, "seq", SEQ, 1, true, AT_MOST(LIBRARY, NATIVE, 1.3)),
    HUGE(refill, "seq", SEQ, 2, false, NO_GOAL),
    HUGE(refill, "seq", SEQ, 8, false, NO_GOAL),
    HUGE(refill, "random", RANDOM, 1, true, NO_GOAL),
    HUGE(refill, "random", RANDOM, 2, false, NO_GOAL),
    HUGE(refill, "random", RANDOM, 8, false, NO_GOAL),
    HUGE(refill, "sparse", SPARSE, 1, false, NO_GOAL),
    HUGE(refill, "sparse", SPARSE, 2, false, NO_GOAL),
    HUGE(refill, "sparse", SPARSE, 8, false, NO_GOAL),
    HUGE(refill, "strided", STRIDED, 1, false, NO_GOAL),
    HUGE(refill, "strided", STRIDED, 2, false, NO_GOAL),
    HUGE(refill, "strided", STRIDED, 8, false, NO_GOAL),
};
/* clang-format on */

const unsigned row_count = sizeof(rows) / sizeof(rows[0]);

enum statistic row_statistic(const struct row *row) {
    return row->goals[0].kind == GOAL_RATIO ? row->goals[0].statistic : STATISTIC_MEDIAN;
}

int row_theme(const struct row *row) {
    return (int)strcspn(row->name, "/");
}
