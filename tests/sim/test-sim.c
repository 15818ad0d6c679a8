/* SPDX-License-Identifier: MIT */
/*
 * The policy on traces: what must hold on those made by hand, and what comes of the recorded ones. First that the simulator itself does what it
 * says: how it reads a trace, and how an access, a fault and a drop change its world.
 */

#include "figures.h"
#include "made.h"
#include "world.h"

#include <check.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((double)(UINT64_C(1) << 20))
#define CHUNK 65536
/* Traces that are in the tree. */
#define RECORDED 5

/* ---- traces ---- */

static int read_text(const char *text, struct trace *trace, size_t *line) {
    char path[] = "/tmp/test-sim-XXXXXX";
    int fd = mkstemp(path), r;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    trace_init(trace);
    r = trace_read(trace, path, line);
    unlink(path);
    return r;
}

#define HEAD "droppable-trace 1\nB 5\nD 2 1\nD 1 0\nR 7 3 2 4194304 16 2 100\n"

START_TEST(test_reads) {
    struct trace trace;
    size_t line;

    ck_assert_int_eq(read_text(HEAD "# a comment\nt 20\nf 7 1\nr 7 2\nx 7 1 1\nd 2 1 99\ng 2 77\nb 2 88\np 7 4 3 0\n"
                                    "a 7 9 2\no 7 9 2\nM 1 5\nL 8\nE 7\nf 9 9\nf 7 64\n",
                               &trace, &line),
                     0);
    ck_assert_uint_eq(trace.n_regions, 1);
    ck_assert_uint_eq(trace.regions[0].chunks, 64);
    ck_assert(trace.regions[0].pins);
    ck_assert_uint_eq(trace.lost, 8);
    ck_assert_uint_eq(trace.n_events, 8);              /* not those of an unknown region or chunk */
    ck_assert_int_eq(trace.events[0].kind, TRACE_PIN); /* in the order of time: at the beginning of its tick */
    ck_assert_uint_eq(trace.events[0].us, 0);
    ck_assert_uint_eq(trace.events[0].count, 3);
    ck_assert_int_eq(trace.events[1].kind, TRACE_OWNER_DROP); /* before what is filled anew in this tick */
    ck_assert_int_eq(trace.events[2].kind, TRACE_TOUCH);
    ck_assert_uint_eq(trace.events[2].us, 20000);
    ck_assert_int_eq(trace.events[4].kind, TRACE_ASK);
    ck_assert_uint_eq(trace.events[4].bytes, 77);
    ck_assert(trace_within(&trace, 2, 1));
    ck_assert(!trace_within(&trace, 1, 2));
    trace_deinit(&trace);
}
END_TEST

START_TEST(test_names_the_wrong_line) {
    static const struct {
        const char *text;
        size_t line;
    } rows[] = {
        {"", 0},
        {"droppable-trace 2\n", 1},
        {HEAD "f 7\n", 6},
        {HEAD "f 7 1 1\n", 6},
        {HEAD "z 1\n", 6},
        {HEAD "t 5\nhello\n", 7},
        {HEAD "R 8 3 2 1 11 2 100\n", 6},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct trace trace;
        size_t line = 99;

        ck_assert_int_eq(read_text(rows[i].text, &trace, &line), -EINVAL);
        ck_assert_uint_eq(line, rows[i].line);
        trace_deinit(&trace);
    }
}
END_TEST

/* ---- the world ---- */

static struct figures play(const char *text, unsigned contender) {
    struct figures figures[N_CONTENDERS];
    struct trace trace;
    size_t line;

    ck_assert_int_eq(read_text(text, &trace, &line), 0);
    figures_take(&trace, figures);
    trace_deinit(&trace);
    return figures[contender];
}

/* Two chunks are used, the older one is dropped, then missed once. */
START_TEST(test_refault_is_counted_once) {
    static const char text[] = HEAD "t 1000\na 7 1 1\nt 5000\na 7 40 1\nt 9000\ng 2 65536\nt 9500\na 7 1 1\na 7 1 1\n";

    for (unsigned i = 0; i < N_CONTENDERS; i++) {
        struct figures figures = play(text, i);

        ck_assert_double_eq_tol(figures.freed, CHUNK, 1);
        if (i != CONTENDER_RANDOM) /* MIN knows that nobody comes back for the younger one */
            ck_assert_double_eq(figures.refaults, i == CONTENDER_MIN ? 0 : 1);
        ck_assert_double_le(figures.refaults, 1);
        ck_assert_double_eq(figures.unmet, 0);
    }
}
END_TEST

/* What nobody wants back is no refault: dropped by its owner, or of a region that is gone. */
START_TEST(test_owners_drop) {
    struct figures figures = play(HEAD "a 7 1 1\nt 500\ng 2 65536\nt 1000\no 7 1 1\na 7 1 1\n", CONTENDER_OURS);

    ck_assert_double_eq(figures.refaults, 0);
    figures = play(HEAD "a 7 1 1\nt 500\no 7 1 1\nt 600\ng 2 65536\na 7 1 1\nE 7\ng 2 65536\n", CONTENDER_LRU);
    ck_assert_double_eq(figures.refaults, 0);
    ck_assert_double_eq(figures.unmet, 2 * CHUNK);
    ck_assert_double_eq(figures.unmet_resident, 0);
}
END_TEST

/* One fault brings back the memory of all that was dropped of the span, and the data of none. */
START_TEST(test_fault_brings_back_the_span) {
    static const char text[] = HEAD "a 7 0 8\nt 1000\ng 2 524288\nt 2000\na 7 0 1\ng 2 9999999\nt 3000\na 7 1 2\n";

    for (unsigned i = 0; i < N_CONTENDERS; i++) {
        struct figures figures = play(text, i);

        ck_assert_double_eq_tol(figures.freed, 16 * CHUNK, 1);
        ck_assert_double_eq_tol(figures.refaults, 3, 0.001);
        ck_assert_double_eq(figures.unmet_resident, 0);
    }
}
END_TEST

/* Without a pin an access to what is there is seen by nobody: only the rival that sees all knows that chunk 1 was used last. */
START_TEST(test_eyes) {
    static const char text[] = HEAD "t 1000\na 7 1 1\nt 2000\na 7 40 1\nt 9000\na 7 1 1\ng 2 65536\nt 9500\na 7 1 1\n";
    static const char pinned[] = HEAD "p 7 1 1 1000\np 7 40 1 2000\np 7 1 1 9000\nt 9200\ng 2 65536\np 7 1 1 9500\n";

    ck_assert_double_eq(play(text, CONTENDER_LRU).refaults, 1);
    ck_assert_double_eq(play(text, CONTENDER_OURS).refaults, 1);
    ck_assert_double_eq(play(text, CONTENDER_ALL_SEEING).refaults, 0);
    ck_assert_double_eq(play(pinned, CONTENDER_LRU).refaults, 0);
    ck_assert_double_eq(play(pinned, CONTENDER_OURS).refaults, 0);
}
END_TEST

START_TEST(test_memory_is_a_demand) {
    struct figures figures = play(HEAD "M 1 2097152\na 7 0 64\n", CONTENDER_FIFO);

    ck_assert_double_eq(figures.unmet, 0);
    ck_assert_double_ge(figures.freed, 2 * MIB);
}
END_TEST

/* ---- made by hand ---- */

static const struct figures *take_made(unsigned index) {
    static struct figures figures[N_CONTENDERS];
    struct trace trace;

    trace_init(&trace);
    made_make(&made[index], &trace);
    figures_take(&trace, figures);
    trace_deinit(&trace);
    for (unsigned i = 0; i < N_CONTENDERS; i++)
        printf("%s, %s: %.0f MiB freed, %.0f refaults\n", made[index].name, contenders[i].name, figures[i].freed / MIB,
               figures[i].refaults);
    fflush(stdout);
    ck_assert_msg(figures[CONTENDER_OURS].unmet == 0 || figures[CONTENDER_OURS].unmet_resident == 0,
                  "%s: %.0f MiB not found, though %.0f MiB were there", made[index].name,
                  figures[CONTENDER_OURS].unmet / MIB, figures[CONTENDER_OURS].unmet_resident / MIB);
    return figures;
}

/*
 * Who is asked again for what comes back frees more, so this counts what was missed. Nowhere 5 % more than LRU, but for a few: ages are known to
 * 100 ms and go by buckets. Nobody is better than MIN, where memory is of a fixed size and what a fault brings back is dropped first.
 */
static void expect_between(const struct figures *figures) {
    ck_assert_double_le(figures[CONTENDER_OURS].refaults, figures[CONTENDER_LRU].refaults * 1.05 + 4);
    for (unsigned i = 0; i < N_CONTENDERS; i++)
        ck_assert_double_ge(figures[i].refaults, figures[CONTENDER_MIN].refaults);
}

/* What protection is for: a quarter of LRU's at most, where that misses all or much. */
static void expect_protects(const struct figures *figures) {
    expect_between(figures);
    ck_assert_double_le(figures[CONTENDER_OURS].refaults, figures[CONTENDER_LRU].refaults / 4);
}

/* The hot ones are used every 200 ms, so each that is dropped is a refault, and the cold ones never are. */
static void expect_hot_cold(const struct figures *figures) {
    const struct figures *ours = &figures[CONTENDER_OURS];

    expect_between(figures);
    ck_assert_double_gt(ours->freed, 0);
    ck_assert_double_le(ours->refaulted, ours->freed / 10);
}

/* Priorities and shares, which the others do not know, are not compared with theirs. */
static void expect_priorities(const struct figures *figures) {
    const struct figures *ours = &figures[CONTENDER_OURS];

    ck_assert_double_eq(ours->of_region[0], 28 * MIB);
    ck_assert_double_eq(ours->of_region[1], 0);
}

static void expect_shares(const struct figures *figures) {
    const struct figures *ours = &figures[CONTENDER_OURS];

    ck_assert_double_ge(ours->of_region[0], 2.5 * ours->of_region[1]);
    ck_assert_double_le(ours->of_region[0], 3.5 * ours->of_region[1]);
}

static void expect_phases(const struct figures *figures) {
    const struct figures *ours = &figures[CONTENDER_OURS];

    expect_between(figures);
    ck_assert_double_le(ours->of_region[1], ours->freed / 10);
}

static void expect_idle(const struct figures *figures) {
    const struct figures *ours = &figures[CONTENDER_OURS];

    expect_between(figures);
    ck_assert_double_ge(ours->of_region[0], ours->freed * 9 / 10);
}

START_TEST(test_made) {
    static void (*const expect[N_MADE])(const struct figures *figures) = {
        [MADE_LOOP] = expect_protects,         [MADE_STREAM] = expect_protects,   [MADE_WHOLE] = expect_protects,
        [MADE_ZIPF_SCANS] = expect_between,    [MADE_HOT_COLD] = expect_hot_cold, [MADE_PHASES] = expect_phases,
        [MADE_PRIORITIES] = expect_priorities, [MADE_SHARES] = expect_shares,     [MADE_IDLE] = expect_idle,
    };

    expect[_i](take_made((unsigned)_i));
}
END_TEST

/* ---- recorded ---- */

/* The bar, in its words: "Recorded traces: fewest refaults per freed byte of the four (LRU, FIFO, random, ours)". Also: all that was asked for is
 * found. */
static void expect_replay(const char *path) {
    struct figures figures[N_CONTENDERS];
    struct trace trace;
    double ours, rate;
    size_t line;

    trace_init(&trace);
    ck_assert_msg(trace_read(&trace, path, &line) == 0, "%s:%zu: cannot be read", path, line);
    ck_assert_msg(trace.lost == 0, "%s: %zu events are missing", path, (size_t)trace.lost);
    figures_take(&trace, figures);
    trace_deinit(&trace);
    ours = figures_rate(&figures[CONTENDER_OURS]);
    ck_assert_double_gt(figures[CONTENDER_OURS].freed, 64 * MIB); /* else it shows nothing */
    for (unsigned i = CONTENDER_LRU; i < N_CONTENDERS; i++) {
        rate = figures_rate(&figures[i]);
        printf("%s: %.3f refaults per MiB, %s %.3f: %+.0f %%\n", strrchr(path, '/') + 1, ours, contenders[i].name, rate,
               rate > 0 ? (ours / rate - 1) * 100 : 0);
    }
    fflush(stdout);
    ck_assert_msg(figures[CONTENDER_OURS].unmet == 0 || figures[CONTENDER_OURS].unmet_resident == 0,
                  "%s: %.0f MiB not found", path, figures[CONTENDER_OURS].unmet / MIB);
    for (unsigned i = CONTENDER_LRU; i <= CONTENDER_RANDOM; i++)
        ck_assert_double_lt(ours, figures_rate(&figures[i]));
}

START_TEST(test_recorded) {
    const char *tree = getenv("DROPPABLE_TEST_SOURCEDIR");
    char pattern[4096];
    glob_t paths;

    snprintf(pattern, sizeof(pattern), "%s/tests/sim/traces/*.trace", tree ? tree : ".");
    ck_assert_int_eq(glob(pattern, 0, NULL, &paths), 0);
    ck_assert_uint_eq(paths.gl_pathc, RECORDED);
    expect_replay(paths.gl_pathv[_i]);
    globfree(&paths);
}
END_TEST

static void add_case(Suite *suite, const char *name, const TTest *test, int end) {
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test, 0, end);
    suite_add_tcase(suite, tcase);
}

int main(void) {
    Suite *suite = suite_create("sim");
    SRunner *runner;
    int failed;

    add_case(suite, "reads", test_reads, 1);
    add_case(suite, "wrong-line", test_names_the_wrong_line, 1);
    add_case(suite, "refault", test_refault_is_counted_once, 1);
    add_case(suite, "owner", test_owners_drop, 1);
    add_case(suite, "span", test_fault_brings_back_the_span, 1);
    add_case(suite, "eyes", test_eyes, 1);
    add_case(suite, "memory", test_memory_is_a_demand, 1);
    add_case(suite, "made", test_made, N_MADE);
    add_case(suite, "recorded", test_recorded, RECORDED);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
