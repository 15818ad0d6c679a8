/* SPDX-License-Identifier: MIT */

/*
 * droppable-bench: times the service beside the kernel's own droppable memory and others, interleaved in one run.
 *
 * This file reads the command line and hands over: the driver measures, table and json tell, compare judges. The same program
 * is also each contender's worker.
 */

#include "compare.h"
#include "driver.h"
#include "json.h"
#include "service.h"
#include "table.h"
#include "worker.h"

#include <droppable/droppable.h>

#include <argp.h>
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 5

enum { EXIT_REGRESSION = 1, EXIT_USAGE = 2, EXIT_NO_SERVICE = 3 };
enum {
    KEY_JSON = 256,
    KEY_ROWS,
    KEY_CONTENDERS,
    KEY_ROUNDS,
    KEY_QUICK,
    KEY_TINY,
    KEY_LIST,
    KEY_COMPARE,
    KEY_TSV,
    KEY_CURVES,
    KEY_WORKER
};

const char *argp_program_version = "droppable-bench " DROPPABLE_VERSION;

static const char doc[] =
    "Times droppable memory beside the kernel's own and others. Run it under a service of its own: "
    "droppablectl run -- droppable-bench."
    "\v"
    "Each round of a row measures every contender once, so that all meet the same noise. Shown are the medians of the rounds; "
    "`ratio', the median of the ratios within one round; and `best', the ratio of each side's best round, which noise moves least: "
    "goals are judged by it, unless --list says that they are by the median.\n"
    "\n"
    "--compare looks at ratios only, which hold on other machines too. A row has become worse if both its median and its best "
    "ratio are twice as bad as the baseline's, and are so again when it is measured once more. Where round trips between processes "
    "are all that is measured it is five times, and where threads contend nothing is compared. Where nobody is beside the service, "
    "as with its memory, the value itself is compared.\n"
    "\n"
    "Growth: the rows of a theme that differ in a number or a size are points of a curve; its exponent is 0 if that number costs "
    "nothing, and 1 if it is linear.\n"
    "\n"
    "Exit status: 0 fine, also where goals are not met; 1 a ratio has become worse, or something failed; 2 usage; "
    "3 the service cannot be reached.";

static const struct argp_option option_table[] = {
    {"rows", KEY_ROWS, "REGEX", 0, "Only rows whose name matches", 0},
    {"contenders", KEY_CONTENDERS, "REGEX", 0, "Only contenders whose name matches", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "Rounds of each row (5; steady rows have 11 at least)", 0},
    {"quick", KEY_QUICK, NULL, 0, "Fewer rows, smaller memory", 0},
    {"tiny", KEY_TINY, NULL, 0, "Memory so small that the figures mean nothing: shows that all works", 0},
    {"list", KEY_LIST, NULL, 0, "List contenders and rows", 1},
    {"json", KEY_JSON, "FILE", 0, "Write all samples", 1},
    {"compare", KEY_COMPARE, "BASELINE", 0, "Compare ratios with those of a file that --json wrote", 1},
    {"tsv", KEY_TSV, "FILE", 0, "Measure nothing: print a file that --json wrote as a table for gnuplot", 1},
    {"curves", KEY_CURVES, "FILE", 0, "Measure nothing: print the growth curves of such a file, for gnuplot", 1},
    {"worker", KEY_WORKER, "NAME", OPTION_HIDDEN, NULL, 0},
    {0},
};

struct command_line {
    enum scale scale;
    unsigned rounds; /* 0: by scale */
    const char *rows, *contenders;
    const char *json, *compare, *tsv, *curves, *worker;
    bool list;
};

static unsigned parse_rounds(struct argp_state *state, const char *text) {
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || value < 1 || value > ROUNDS_MAX)
        argp_error(state, "--rounds: '%s' is not a number (1..%d)", text, ROUNDS_MAX);
    return (unsigned)value;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct command_line *line = state->input;

    switch (key) {
    case KEY_ROWS:
        line->rows = text;
        return 0;
    case KEY_CONTENDERS:
        line->contenders = text;
        return 0;
    case KEY_ROUNDS:
        line->rounds = parse_rounds(state, text);
        return 0;
    case KEY_QUICK:
        line->scale = SCALE_QUICK;
        return 0;
    case KEY_TINY:
        line->scale = SCALE_TINY;
        return 0;
    case KEY_LIST:
        line->list = true;
        return 0;
    case KEY_JSON:
        line->json = text;
        return 0;
    case KEY_COMPARE:
        line->compare = text;
        return 0;
    case KEY_TSV:
        line->tsv = text;
        return 0;
    case KEY_CURVES:
        line->curves = text;
        return 0;
    case KEY_WORKER:
        line->worker = text;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "no argument '%s' is known", text);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* NULL: everything. An expression that cannot be compiled ends the program. */
static void compile(regex_t *regex, const char *option, const char *text) {
    char error[128];
    int r = regcomp(regex, text ? text : "", REG_EXTENDED | REG_NOSUB);

    if (r == 0)
        return;
    regerror(r, regex, error, sizeof(error));
    fprintf(stderr, "droppable-bench: %s: '%s': %s\n", option, text, error);
    exit(EXIT_USAGE);
}

/* @return number of selected rows */
static unsigned choose(struct result *result, struct plan *plan, const struct command_line *line) {
    regex_t row_regex, contender_regex;
    unsigned selected = 0;

    compile(&row_regex, "--rows", line->rows);
    compile(&contender_regex, "--contenders", line->contenders);
    for (unsigned i = 0; i < row_count; i++) {
        result->rows[i].selected =
            (rows[i].quick || line->scale != SCALE_QUICK) && regexec(&row_regex, rows[i].name, 0, NULL, 0) == 0;
        selected += result->rows[i].selected;
    }
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        if (regexec(&contender_regex, contender_names[c], 0, NULL, 0) == 0)
            plan->contenders |= CONTENDER_BIT(c);
    regfree(&row_regex);
    regfree(&contender_regex);
    return selected;
}

/*
 * Compares with the baseline. What seems worse is measured once more before it is believed: noise that lasts as long as a row
 * does is not rare.
 */
static int guard(const struct result *result, const struct plan *plan, const char *baseline) {
    bool *worse = calloc(row_count, sizeof(*worse));
    struct result again;
    int status = EXIT_REGRESSION, r;

    if (!worse || result_init(&again) < 0) {
        free(worse);
        return EXIT_REGRESSION;
    }
    r = compare_print(result, baseline, worse);
    if (r > 0) {
        printf("once more:\n");
        for (unsigned i = 0; i < row_count; i++)
            again.rows[i].selected = worse[i];
        driver_run(&again, plan);
        table_print(&again);
        r = compare_print(&again, baseline, worse);
    }
    if (r == 0)
        status = 0;
    result_deinit(&again);
    free(worse);
    return status;
}

static int measure(struct result *result, struct plan *plan, const struct command_line *line) {
    int r = service_find(&plan->service), status = 0;

    if (r < 0) {
        fprintf(stderr,
                "droppable-bench: no service at $DROPPABLE_SOCKET: %s; use droppablectl run -- droppable-bench\n",
                strerror(-r));
        return EXIT_NO_SERVICE;
    }
    driver_run(result, plan);
    result->scale = plan->scale;
    table_print(result);
    if (line->json && json_write(result, line->json) < 0)
        status = EXIT_REGRESSION;
    if (line->compare && guard(result, plan, line->compare) != 0)
        status = EXIT_REGRESSION;
    return status;
}

int main(int argc, char **argv) {
    static const struct argp argp = {option_table, parse, NULL, doc, NULL, NULL, NULL};
    struct command_line line = {0};
    struct plan plan = {0};
    struct result result;
    int status;

    argp_err_exit_status = EXIT_USAGE;
    if (argp_parse(&argp, argc, argv, 0, NULL, &line) != 0)
        return EXIT_USAGE;
    if (line.worker)
        return worker_main(line.worker);
    if (line.tsv)
        return json_print_tsv(line.tsv) < 0 ? EXIT_REGRESSION : 0;
    if (line.curves)
        return json_print_curves(line.curves) < 0 ? EXIT_REGRESSION : 0;
    if (line.list) {
        table_list();
        return 0;
    }
    plan.scale = line.scale;
    plan.rounds = line.rounds ? line.rounds : line.scale == SCALE_TINY ? 1 : ROUNDS;
    if (result_init(&result) < 0)
        return EXIT_REGRESSION;
    if (choose(&result, &plan, &line) == 0 || plan.contenders == 0) {
        fprintf(stderr, "droppable-bench: no row or no contender of that name; see --list\n");
        status = EXIT_USAGE;
    } else {
        status = measure(&result, &plan, &line);
    }
    result_deinit(&result);
    return status;
}
