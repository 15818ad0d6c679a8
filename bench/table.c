/* SPDX-License-Identifier: MIT */

/*
 * One table for each theme: a line for each row, a column for each contender with the median of its rounds. Below it, who is
 * missing where, and why: a reason is told once for all the rows that it holds for.
 */

#include "table.h"

#include "growth.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROW_WIDTH 22
#define CELL_WIDTH 9

/* What else is told of the contender whose ratio is shown, where it was taken. */
static const struct {
    enum extra extra;
    const char *title;
    uint64_t unit;
} beside[] = {
    {EXTRA_FAULTS, "faults", 1},
    {EXTRA_BROUGHT_BACK, "back x", 1},
    {EXTRA_SERVICE_CPU_MS, "cpu ms", 1},
    {EXTRA_P50, "p50", 1},
    {EXTRA_P99, "p99", 1},
    {EXTRA_MAX, "max", 1},
    {EXTRA_SERVICE_US_PER_FAULT, "cpu us", 1},
    {EXTRA_SERVICE_PSS, "pss MiB", MIB},
    {EXTRA_SERVICE_RSS, "rss MiB", MIB},
    {EXTRA_SERVICE_THREADS, "threads", 1},
    {EXTRA_AFTER_DROP, "dropped", MIB},
    {EXTRA_AFTER_FREE, "freed", MIB},
    {EXTRA_DROPPED, "drop MiB", MIB},
};
#define BESIDE (sizeof(beside) / sizeof(beside[0]))

static bool same_theme(const struct row *a, const struct row *b) {
    return row_theme(a) == row_theme(b) && strncmp(a->name, b->name, (size_t)row_theme(a)) == 0;
}

static void print_number(double value) {
    if (isnan(value))
        printf("%*s", CELL_WIDTH, "-");
    else
        printf("%*.*f", CELL_WIDTH, value >= 1000 ? 0 : value >= 100 ? 1 : value >= 1 ? 2 : 3, value);
}

/* NAN also where it is the row's value itself. */
static double beside_value(const struct row_result *result, unsigned i) {
    const struct cell *cell = &result->cells[result->row->over];
    double value = result_extra(cell, beside[i].extra);

    if (value == result_summary(cell).median)
        return NAN;
    return value / (double)beside[i].unit;
}

static void print_goals(const struct result *all, const struct row_result *result) {
    char text[160];

    for (unsigned i = 0; i < ROW_GOALS; i++) {
        const struct goal *goal = &result->row->goals[i];
        double value = goal->kind == GOAL_NONE ? NAN : result_goal_value(all, result, goal);

        if (goal->kind == GOAL_NONE)
            continue;
        goal_text(goal, text, sizeof(text));
        if (isnan(value))
            printf("  %s: not measured", text);
        else
            printf("  %s: %s (%.2f)", text, goal_met(goal, value) ? "met" : "NOT met", value);
    }
}

static void print_row(const struct result *all, const struct row_result *result, unsigned columns, unsigned extras) {
    const struct row *row = result->row;

    printf("%-*s", ROW_WIDTH, row->name);
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        if (columns & CONTENDER_BIT(c))
            print_number(result_summary(&result->cells[c]).median);
    if (!row_is_alone(row)) {
        print_number(result_ratio(result, row->over, row->under, STATISTIC_MEDIAN));
        print_number(result_ratio(result, row->over, row->under, STATISTIC_BEST));
    }
    for (unsigned i = 0; i < BESIDE; i++)
        if (extras & 1u << i)
            print_number(beside_value(result, i));
    print_goals(all, result);
    printf("\n");
}

/* Whether an earlier row of the theme has told it. */
static bool is_told(const struct result *result, unsigned first, unsigned row, unsigned contender) {
    for (unsigned i = first; i < row; i++)
        if (strcmp(result->rows[i].cells[contender].missing, result->rows[row].cells[contender].missing) == 0)
            return true;
    return false;
}

static void print_missing(const struct result *result, unsigned first, unsigned end, unsigned contender) {
    for (unsigned i = first; i < end; i++) {
        const char *missing = result->rows[i].cells[contender].missing;
        unsigned others = 0;

        if (!*missing || is_told(result, first, i, contender))
            continue;
        for (unsigned j = i + 1; j < end; j++)
            others += strcmp(result->rows[j].cells[contender].missing, missing) == 0;
        printf("  %s: missing in %s", contender_names[contender], rows[i].name);
        if (others > 0)
            printf(" and %u more", others);
        printf(": %s\n", missing);
    }
}

static void print_head(const struct row *row, unsigned columns, unsigned extras) {
    printf("\n%.*s, %s, %s is better; medians", row_theme(row), row->name, row->unit,
           row->better == BETTER_LOWER ? "lower" : "higher");
    if (!row_is_alone(row))
        printf(", ratios %s/%s", contender_names[row->over], contender_names[row->under]);
    if (extras)
        printf(", beside them figures of %s", contender_names[row->over]);
    printf("\n%-*s", ROW_WIDTH, "");
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        if (columns & CONTENDER_BIT(c))
            printf("%*s", CELL_WIDTH, contender_names[c]);
    if (!row_is_alone(row))
        printf("%*s%*s", CELL_WIDTH, "ratio", CELL_WIDTH, "best");
    for (unsigned i = 0; i < BESIDE; i++)
        if (extras & 1u << i)
            printf("%*s", CELL_WIDTH, beside[i].title);
    printf("\n");
}

static void print_theme(const struct result *result, unsigned first, unsigned end) {
    unsigned columns = 0, extras = 0, selected = 0;

    for (unsigned i = first; i < end; i++) {
        selected += result->rows[i].selected;
        for (unsigned c = 0; c < CONTENDER_COUNT; c++)
            if (result->rows[i].cells[c].count > 0)
                columns |= CONTENDER_BIT(c);
        for (unsigned b = 0; b < BESIDE; b++)
            if (!isnan(beside_value(&result->rows[i], b)))
                extras |= 1u << b;
    }
    if (selected == 0)
        return;
    print_head(&rows[first], columns, extras);
    for (unsigned i = first; i < end; i++)
        if (result->rows[i].selected)
            print_row(result, &result->rows[i], columns, extras);
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        print_missing(result, first, end, c);
}

static void print_growth(const struct result *result) {
    bool begun = false;

    for (unsigned i = 0; i < curve_count; i++) {
        struct growth growth;

        growth_fit(result, &curves[i], &growth);
        if (growth.count < GROWTH_POINTS_MIN)
            continue;
        if (!begun)
            printf("\ngrowth: exponents by least squares over best rounds, 0 is constant and 1 linear\n");
        begun = true;
        printf("%-*s%*.2f", ROW_WIDTH, curves[i].name, CELL_WIDTH, growth.exponent);
        printf("  <= %g: %s; %s, %s:", curves[i].max, growth_met(&growth) ? "met" : "NOT met", curves[i].text,
               curves[i].unit);
        for (unsigned p = 0; p < growth.count; p++)
            printf(" %.3g", growth.y[p]);
        printf("\n");
    }
}

static void print_verdict(const struct result *result) {
    unsigned met = 0, missed = 0, unknown = 0;

    for (unsigned i = 0; i < curve_count; i++) {
        struct growth growth;

        growth_fit(result, &curves[i], &growth);
        met += growth.count >= GROWTH_POINTS_MIN && growth_met(&growth);
        missed += growth.count >= GROWTH_POINTS_MIN && !growth_met(&growth);
    }
    for (unsigned i = 0; i < row_count; i++)
        for (unsigned g = 0; result->rows[i].selected && g < ROW_GOALS; g++) {
            const struct goal *goal = &rows[i].goals[g];
            double value = goal->kind == GOAL_NONE ? NAN : result_goal_value(result, &result->rows[i], goal);

            if (goal->kind == GOAL_NONE)
                continue;
            unknown += isnan(value);
            met += !isnan(value) && goal_met(goal, value);
            missed += !isnan(value) && !goal_met(goal, value);
        }
    printf("\ngoals: %u met, %u NOT met, %u not measured\n", met, missed, unknown);
    printf("service after all: Rss %" PRIu64 " KiB, Pss %" PRIu64 " KiB; the run took %.0f s\n",
           result->service_rss / KIB, result->service_pss / KIB, (double)result->took_ns / 1e9);
}

void table_print(const struct result *result) {
    unsigned first = 0;

    for (unsigned i = 1; i <= row_count; i++)
        if (i == row_count || !same_theme(&rows[i], &rows[first])) {
            print_theme(result, first, i);
            first = i;
        }
    print_growth(result);
    print_verdict(result);
}

void table_list(void) {
    char text[160];

    printf("contenders:\n");
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        printf("  %-10s %s\n", contender_names[c], contender_texts[c]);
    printf("rows (* also in the quick form):\n");
    for (unsigned i = 0; i < row_count; i++) {
        printf("%c %-*s %-8s", rows[i].quick ? '*' : ' ', ROW_WIDTH, rows[i].name, rows[i].unit);
        for (unsigned g = 0; g < ROW_GOALS; g++)
            if (rows[i].goals[g].kind != GOAL_NONE) {
                goal_text(&rows[i].goals[g], text, sizeof(text));
                printf("  %s", text);
            }
        printf("\n");
    }
    printf("curves:\n");
    for (unsigned i = 0; i < curve_count; i++)
        printf("  %-*s %-8s  exponent <= %g: %s\n", ROW_WIDTH, curves[i].name, curves[i].unit, curves[i].max,
               curves[i].text);
}
