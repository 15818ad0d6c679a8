/* SPDX-License-Identifier: MIT */

/*
 * The table of what is measured, theme by theme. Everything that knows a row by name is here: goals, what is left out of the
 * quick form, and which contenders make sense.
 */

#include "rows.h"

#include "clients.h"
#include "cost.h"
#include "crowd.h"
#include "drop.h"
#include "extent.h"
#include "floor.h"
#include "latency.h"
#include "lifetime.h"
#include "pins.h"
#include "reaction.h"
#include "signal.h"
#include "steady.h"
#include "touch.h"
#include "watch.h"

#include <string.h>

#define BIT(name) CONTENDER_BIT(CONTENDER_##name)

/* ---- what noise there is ---- */

/*
 * What a round trip to the service takes depends on whether the other processor sleeps: from one run to the next it differs
 * by 3.6 where it is all that is measured.
 */
#define ROUND_TRIPS 5.0
/* Whether threads really meet depends on who else wants the processors: this says something on a quiet machine only. */
#define UNWATCHED INFINITY

/* ---- goals ---- */

#define RATIO(over_, under_, statistic_, min_, max_)                                \
    {                                                                               \
        .kind = GOAL_RATIO, .over = CONTENDER_##over_, .under = CONTENDER_##under_, \
        .statistic = STATISTIC_##statistic_, .min = (min_), .max = (max_),          \
    }
#define AT_MOST(over_, under_, max_) RATIO(over_, under_, BEST, 0, max_)
#define MEDIAN_WITHIN(over_, under_, min_, max_) RATIO(over_, under_, MEDIAN, min_, max_)
#define AT_LEAST(over_, under_, min_) RATIO(over_, under_, BEST, min_, INFINITY)
#define BROUGHT_BACK_AT_MOST(max_) \
    { .kind = GOAL_BROUGHT_BACK, .over = CONTENDER_LIBRARY, .statistic = STATISTIC_MEDIAN, .max = (max_) }

#define VALUE_AT_MOST(contender_, statistic_, max_) \
    { .kind = GOAL_VALUE, .over = CONTENDER_##contender_, .statistic = STATISTIC_##statistic_, .max = (max_) }
#define EXTRA_AT_MOST(extra_, statistic_, max_)                                                                      \
    {                                                                                                                \
        .kind = GOAL_EXTRA, .over = CONTENDER_LIBRARY, .extra = EXTRA_##extra_, .statistic = STATISTIC_##statistic_, \
        .max = (max_),                                                                                               \
    }
#define TIMES_ROW(row_, max_) \
    { .kind = GOAL_ROW, .over = CONTENDER_LIBRARY, .row = (row_), .statistic = STATISTIC_BEST, .max = (max_) }

#define NO_GOAL \
    { .kind = GOAL_NONE }

/* ---- touch ---- */

#define TOUCHING \
    (BIT(NATIVE) | BIT(DONTNEED) | BIT(FREE) | BIT(MEMFD) | BIT(TEXTBOOK) | BIT(SERVER) | BIT(LIBRARY) | BIT(PRELOAD))

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

/* ---- steady ---- */

#define STEADY(name_, huge_, ...)                                                                         \
    {                                                                                                     \
        .name = "steady/" name_, .unit = "ns", .quick = true, .rounds = STEADY_ROUNDS,                    \
        .contenders = BIT(NATIVE) | BIT(DONTNEED) | BIT(MEMFD) | BIT(LIBRARY) | BIT(PRELOAD),             \
        .over = CONTENDER_LIBRARY, .under = CONTENDER_NATIVE, .goals = {__VA_ARGS__}, .run = steady_read, \
        .huge = (huge_),                                                                                  \
    }
#define STEADY_ROUNDS 11

/* ---- pins ---- */

/*
 * Seen with one and the same program: 7.8 or 13 ns of the library, 6.5 or 15.8 of the rival. It is not where the pages lie: within one
 * process, at the same addresses, it goes from 7.2 to 12.5 and back within a second, and other offsets in the pages change nothing. It is
 * as if somebody worked on the core's other thread, on the host: a chain of multiplications, which waits only for itself, takes the same all the time.
 */
#define NEIGHBOUR 5.0
#define PIN(name_, threads_, place_, ...)                                                                     \
    {                                                                                                         \
        .name = "pin/" name_, .unit = "ns", .quick = true, .contenders = BIT(CAS) | BIT(LIBRARY),             \
        .over = CONTENDER_LIBRARY, .under = CONTENDER_CAS, .goals = {__VA_ARGS__}, .run = pins_pair,          \
        .threads = (threads_), .variant = PINS_##place_, .tolerance = (threads_) > 1 ? UNWATCHED : NEIGHBOUR, \
    }
#define READ(name_, threads_)                                                                        \
    {                                                                                                \
        .name = "read/" name_, .unit = "ns", .quick = true, .contenders = BIT(LOAD) | BIT(LIBRARY),  \
        .over = CONTENDER_LIBRARY, .under = CONTENDER_LOAD, .run = pins_read, .threads = (threads_), \
        .variant = PINS_SAME, .tolerance = (threads_) > 1 ? UNWATCHED : 0,                           \
    }

/* ---- drop ---- */

#define DROPPING (BIT(NATIVE) | BIT(PAGEOUT) | BIT(DONTNEED) | BIT(FREE) | BIT(MEMFD) | BIT(LIBRARY) | BIT(PRELOAD))

#define DROP(name_, size_, huge_, quick_, ...)                                                                     \
    {                                                                                                              \
        .name = "drop/" name_, .unit = "GB/s", .better = BETTER_HIGHER, .quick = (quick_), .contenders = DROPPING, \
        .over = CONTENDER_LIBRARY, .under = CONTENDER_MEMFD, .goals = {__VA_ARGS__}, .run = drop_throughput,       \
        .size = (size_), .huge = (huge_), .variant = DROP_QUIET,                                                   \
        .tolerance = (size_) > 0 && (size_) <= 2 * MIB ? ROUND_TRIPS : 0,                                          \
    }
#define BUSY(name_, size_, huge_, quick_)                                                                    \
    {                                                                                                        \
        .name = "drop-busy/" name_, .unit = "GB/s", .better = BETTER_HIGHER, .quick = (quick_),              \
        .contenders = DROPPING, .over = CONTENDER_LIBRARY, .under = CONTENDER_MEMFD, .run = drop_throughput, \
        .size = (size_), .huge = (huge_), .variant = DROP_BUSY, .tolerance = UNWATCHED,                      \
    }

/* ---- lifetime ---- */

#define LIVING (BIT(NATIVE) | BIT(DONTNEED) | BIT(MEMFD) | BIT(LIBRARY) | BIT(PRELOAD))

#define CREATE(name_, size_)                                                                                   \
    {                                                                                                          \
        .name = "create/" name_, .unit = "us", .quick = true, .contenders = LIVING, .over = CONTENDER_LIBRARY, \
        .under = CONTENDER_NATIVE, .run = lifetime_create, .size = (size_), .tolerance = ROUND_TRIPS,          \
    }
/* By unchanged programs: the library's regions are not for that. */
#define PIECES(count_, ...)                                                                                   \
    {                                                                                                         \
        .name = "pieces/" #count_, .unit = "ms", .quick = true, .contenders = BIT(NATIVE) | BIT(PRELOAD),     \
        .over = CONTENDER_PRELOAD, .under = CONTENDER_NATIVE, .goals = {__VA_ARGS__}, .run = lifetime_pieces, \
        .size = 64 * KIB, .count = (count_), .tolerance = ROUND_TRIPS,                                        \
    }
#define FORK(name_, threads_, huge_, ...)                                                                    \
    {                                                                                                        \
        .name = "fork/" name_, .unit = "ms", .quick = true, .contenders = LIVING, .over = CONTENDER_LIBRARY, \
        .under = CONTENDER_NATIVE, .goals = {__VA_ARGS__}, .run = lifetime_fork, .threads = (threads_),      \
        .huge = (huge_), .tolerance = ROUND_TRIPS,                                                           \
    }

/* ---- latency ---- */

#define BESIDE_NATIVE .over = CONTENDER_LIBRARY, .under = CONTENDER_NATIVE
#define ALONE .contenders = BIT(LIBRARY), .over = CONTENDER_LIBRARY, .under = CONTENDER_LIBRARY

#define LATENCY(name_, count_, tolerance_)                                                                              \
    {                                                                                                                   \
        .name = "latency/" name_, .unit = "us", .quick = true, .contenders = BIT(NATIVE) | BIT(LIBRARY) | BIT(PRELOAD), \
        BESIDE_NATIVE, .run = latency_fault, .count = (count_), .tolerance = (tolerance_),                              \
    }

/* ---- numbers ---- */

#define CLIENTS(count_, quick_, ...)                                                                            \
    {                                                                                                           \
        .name = "clients/" #count_, .unit = "us", .quick = (quick_), .contenders = BIT(NATIVE) | BIT(LIBRARY),  \
        BESIDE_NATIVE, .goals = {__VA_ARGS__}, .run = clients_fault, .count = (count_), .tolerance = UNWATCHED, \
    }
#define JOIN(count_)                                                                                   \
    {                                                                                                  \
        .name = "join/" #count_, .unit = "us", .rounds_most = MANY_ROUNDS, ALONE, .run = clients_join, \
        .count = (count_), .tolerance = UNWATCHED,                                                     \
    }
#define CROWD(theme_, run_, count_, contenders_)                                                           \
    {                                                                                                      \
        .name = theme_ "/" #count_, .unit = "us", .contenders = (contenders_), .rounds_most = MANY_ROUNDS, \
        BESIDE_NATIVE, .run = crowd_##run_, .count = (count_), .tolerance = ROUND_TRIPS,                   \
    }
/* For the points of a curve, of which each takes its time. */
#define MANY_ROUNDS 3

/* ---- sizes ---- */

#define EXTENT(step_, name_, size_, quick_, ...)                                                                     \
    {                                                                                                                \
        .name = "size-" #step_ "/" name_, .unit = "us", .quick = (quick_), .contenders = BIT(NATIVE) | BIT(LIBRARY), \
        BESIDE_NATIVE, .goals = {__VA_ARGS__}, .run = extent_##step_, .size = (size_), .tolerance = ROUND_TRIPS,     \
    }
#define EXTENTS(step_, goal_)                                                                             \
    EXTENT(step_, "64k", 64 * KIB, true, NO_GOAL), EXTENT(step_, "1m", MIB, false, NO_GOAL),              \
        EXTENT(step_, "16m", 16 * MIB, false, NO_GOAL), EXTENT(step_, "256m", 256 * MIB, false, NO_GOAL), \
        EXTENT(step_, "4g", 4 * GIB, false, NO_GOAL), EXTENT(step_, "64g", 64 * GIB, false, NO_GOAL),     \
        EXTENT(step_, "1t", 1024 * GIB, true, goal_)

/* Rounds that find what others left need less: so few of them, and the worst counts. */
#define EXTENT_MEMORY(name_, size_, count_, quick_, ...)                                                          \
    {                                                                                                             \
        .name = "size-memory/" name_, .unit = "MiB", .quick = (quick_), .rounds_most = MANY_ROUNDS, ALONE,        \
        .goals = {__VA_ARGS__}, .run = extent_memory, .size = (size_), .count = (count_), .tolerance = UNWATCHED, \
    }
#define SOME_SPANS 16384

/* ---- cost ---- */

/* A time without one beside it is that of this machine. */
#define ANOTHER_MACHINE 5.0

#define COST(name_, unit_, quick_, run_, contenders_, tolerance_)                                                 \
    {                                                                                                             \
        .name = name_, .unit = unit_, .quick = (quick_), .rounds_most = MANY_ROUNDS, .contenders = (contenders_), \
        .over = CONTENDER_LIBRARY, .under = CONTENDER_LIBRARY, .run = cost_##run_, .tolerance = (tolerance_),     \
    }
#define MEMORY(name_, run_, contenders_, tolerance_)                                                          \
    {                                                                                                         \
        .name = name_, .unit = "KiB", .quick = true, .rounds_most = 1, .contenders = (contenders_),           \
        .over = CONTENDER_LIBRARY, .under = CONTENDER_LIBRARY, .run = cost_##run_, .tolerance = (tolerance_), \
    }
#define IDLE(count_, quick_)                                                                           \
    {                                                                                                  \
        .name = "idle/" #count_, .unit = "us/s", .quick = (quick_), .rounds_most = MANY_ROUNDS, ALONE, \
        .run = cost_idle, .count = (count_), .tolerance = UNWATCHED,                                   \
    }

/* ---- floors ---- */

/* 1 us that becomes 2 is the machine's doing, not ours: only shown. */
#define FLOOR(name_, unit_, call_, size_, huge_)                                                                 \
    {                                                                                                            \
        .name = "floor-" name_, .unit = unit_, .contenders = BIT(CALLS), .over = CONTENDER_CALLS,                \
        .under = CONTENDER_CALLS, .run = floor_call, .variant = FLOOR_##call_, .size = (size_), .huge = (huge_), \
        .tolerance = UNWATCHED,                                                                                  \
    }

/* clang-format off */
const struct row rows[] = {
    /* First of all: what others have left would be found and used again. */
    MEMORY("memory/gib", resident, BIT(LIBRARY), UNWATCHED),
    MEMORY("memory/region", region, BIT(LIBRARY), 0),
    MEMORY("memory/client", client, BIT(LIBRARY), 0),

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
    SMALL(refill, "random", RANDOM, 1, true, AT_MOST(LIBRARY, NATIVE, 1.2), RATIO(TEXTBOOK, LIBRARY, MEDIAN, 10, INFINITY)),
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

    STEADY("4k", false, MEDIAN_WITHIN(LIBRARY, NATIVE, 0.95, 1.05)),
    STEADY("huge", true, NO_GOAL),

    PIN("1", 1, SAME, AT_MOST(LIBRARY, CAS, 1.5)),
    PIN("same/2", 2, SAME, NO_GOAL),
    PIN("same/8", 8, SAME, NO_GOAL),
    PIN("apart/2", 2, APART, NO_GOAL),
    PIN("apart/8", 8, APART, NO_GOAL),
    READ("1", 1),
    READ("2", 2),

    /* A part of a huge page is not dropped: no 64 KiB there. */
    DROP("64k/4k", 64 * KIB, false, true, NO_GOAL),
    DROP("2m/4k", 2 * MIB, false, true, NO_GOAL),
    DROP("64m/4k", 64 * MIB, false, true, NO_GOAL),
    DROP("large/4k", 0, false, true, AT_LEAST(LIBRARY, MEMFD, 0.85)),
    DROP("2m/huge", 2 * MIB, true, true, NO_GOAL),
    DROP("64m/huge", 64 * MIB, true, true, NO_GOAL),
    DROP("large/huge", 0, true, true, AT_LEAST(LIBRARY, MEMFD, 0.5)),
    BUSY("64k/4k", 64 * KIB, false, false),
    BUSY("2m/4k", 2 * MIB, false, true),
    BUSY("64m/4k", 64 * MIB, false, false),
    BUSY("large/4k", 0, false, true),
    BUSY("2m/huge", 2 * MIB, true, false),
    BUSY("64m/huge", 64 * MIB, true, false),
    BUSY("large/huge", 0, true, true),

    CREATE("64k", 64 * KIB),
    CREATE("2m", 2 * MIB),
    CREATE("1g", GIB),
    PIECES(2000, VALUE_AT_MOST(PRELOAD, BEST, 1000)),
    FORK("4k", 0, false, AT_MOST(LIBRARY, NATIVE, 1.2), AT_MOST(PRELOAD, NATIVE, 1.2)),
    FORK("threads/4k", 1, false, AT_MOST(LIBRARY, NATIVE, 1.2), AT_MOST(PRELOAD, NATIVE, 1.2)),
    FORK("huge", 0, true, NO_GOAL),

    LATENCY("alone", 0, ROUND_TRIPS),
    LATENCY("storm-1", 1, UNWATCHED),
    LATENCY("storm-8", 8, UNWATCHED),

    CLIENTS(1, true, NO_GOAL),
    CLIENTS(10, false, NO_GOAL),
    CLIENTS(100, true, TIMES_ROW("clients/1", 3)),
    CLIENTS(1000, false, TIMES_ROW("clients/1", 3), EXTRA_AT_MOST(SERVICE_PSS, WORST, 64 * MIB)),
    JOIN(1),
    JOIN(10),
    JOIN(100),
    JOIN(1000),

    CROWD("regions-new", new, 1, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-new", new, 16, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-new", new, 256, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-new", new, 1000, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-fault", fault, 1, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-fault", fault, 16, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-fault", fault, 256, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("regions-fault", fault, 1000, BIT(NATIVE) | BIT(LIBRARY)),
    CROWD("cycle", cycle, 1, BIT(NATIVE) | BIT(LIBRARY) | BIT(PRELOAD)),
    CROWD("cycle", cycle, 16, BIT(NATIVE) | BIT(LIBRARY) | BIT(PRELOAD)),
    CROWD("cycle", cycle, 256, BIT(NATIVE) | BIT(LIBRARY) | BIT(PRELOAD)),
    CROWD("cycle", cycle, 1000, BIT(NATIVE) | BIT(LIBRARY) | BIT(PRELOAD)),

    EXTENTS(new, VALUE_AT_MOST(LIBRARY, BEST, 1000)),
    EXTENTS(first, NO_GOAL),
    EXTENTS(refill, NO_GOAL),
    EXTENTS(free, NO_GOAL),
    EXTENT_MEMORY("64k/new", 64 * KIB, 0, false, NO_GOAL),
    EXTENT_MEMORY("64k/some", 64 * KIB, SOME_SPANS, false, NO_GOAL),
    EXTENT_MEMORY("16m/new", 16 * MIB, 0, false, NO_GOAL),
    EXTENT_MEMORY("16m/some", 16 * MIB, SOME_SPANS, false, NO_GOAL),
    EXTENT_MEMORY("4g/new", 4 * GIB, 0, false, NO_GOAL),
    EXTENT_MEMORY("4g/some", 4 * GIB, SOME_SPANS, false, NO_GOAL),
    EXTENT_MEMORY("64g/some", 64 * GIB, SOME_SPANS, false, NO_GOAL),
    EXTENT_MEMORY("1t/new", 1024 * GIB, 0, true, VALUE_AT_MOST(LIBRARY, WORST, 40)),
    EXTENT_MEMORY("1t/some", 1024 * GIB, SOME_SPANS, false, VALUE_AT_MOST(LIBRARY, WORST, 40)),
    EXTENT_MEMORY("1t/all", 1024 * GIB, 524288, false, VALUE_AT_MOST(LIBRARY, WORST, 40)),

    COST("cpu/refill", "ms/GiB", true, refill, BIT(LIBRARY) | BIT(PRELOAD), ANOTHER_MACHINE),
    COST("cpu/drop", "ms/GiB", true, drop, BIT(LIBRARY) | BIT(PRELOAD), ANOTHER_MACHINE),
    IDLE(1, true),
    IDLE(1000, false),
    {
        .name = "reaction/512m", .unit = "ms", .quick = true, ALONE, .run = reaction_time, .tolerance = UNWATCHED,
    },
    {
        .name = "watch/256m", .unit = "us/s", .quick = true, .rounds_most = MANY_ROUNDS, ALONE,
        .goals = {VALUE_AT_MOST(LIBRARY, MEDIAN, 20000)}, .run = watch_near, .tolerance = UNWATCHED,
    },
    {
        .name = "signal/retry", .unit = "us", .quick = true, ALONE, .goals = {VALUE_AT_MOST(LIBRARY, MEDIAN, 20)},
        .run = signal_retry, .tolerance = ANOTHER_MACHINE,
    },
    FLOOR("fill/1", "us/page", ZERO, PAGE, false),
    FLOOR("fill/16", "us/page", ZERO, 16 * PAGE, false),
    FLOOR("fill/512", "us/page", ZERO, SPAN, false),
    FLOOR("call/arm-1", "us", ARM, SPAN, false),
    FLOOR("call/arm-16", "us", ARM, 16 * SPAN, false),
    FLOOR("call/disarm-1", "us", DISARM, SPAN, false),
    FLOOR("call/disarm-16", "us", DISARM, 16 * SPAN, false),
    FLOOR("call/mincore-4k", "us", MINCORE, SPAN, false),
    FLOOR("call/cachestat-4k", "us", COUNT, SPAN, false),
    FLOOR("call/mincore-huge", "us", MINCORE, SPAN, true),
    FLOOR("call/cachestat-huge", "us", COUNT, SPAN, true),
};
/* clang-format on */

const unsigned row_count = sizeof(rows) / sizeof(rows[0]);

int row_theme(const struct row *row) {
    return (int)strcspn(row->name, "/");
}
