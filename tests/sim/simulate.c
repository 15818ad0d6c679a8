/* SPDX-License-Identifier: MIT */
/*
 * drp-simulate: replays traces through the daemon's policy and through three simple ones, and prints what each has dropped and what was missed of
 * it. Exit status: 0 fine, 1 a trace cannot be read, 2 wrong options.
 */

#include "figures.h"
#include "made.h"

#include <argp.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((double)(UINT64_C(1) << 20))

const char *argp_program_version = "drp-simulate " DROPPABLE_VERSION;

struct options {
    bool json;
    bool made;
    char **files;
};

static const struct argp_option option_table[] = {
    {"json", 'j', NULL, 0, "Print JSON", 0},
    {"made", 'm', NULL, 0, "Replay the traces made by hand, too", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct options *options = state->input;

    (void)argument;
    switch (key) {
    case 'j':
        options->json = true;
        return 0;
    case 'm':
        options->made = true;
        return 0;
    case ARGP_KEY_ARGS:
        options->files = state->argv + state->next;
        return 0;
    case ARGP_KEY_END:
        if (!options->made && state->next == state->argc && !options->files)
            argp_error(state, "nothing to replay: name a file, or --made");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_table,
    .parser = parse_option,
    .args_doc = "[FILE...]",
    .doc =
        "Replays traces of `droppabled --record FILE` through the daemon's policy and others."
        "\vlru+ and min are no rivals: the one sees accesses that no daemon can see, the other those to come (Belady's MIN).",
};

static void print_json(json_object *all, const char *name, const struct figures figures[N_CONTENDERS]) {
    json_object *trace = json_object_new_object();

    for (unsigned i = 0; i < N_CONTENDERS; i++) {
        const struct figures *f = &figures[i];
        json_object *of = json_object_new_object();

        json_object_object_add(of, "freed_bytes", json_object_new_double(f->freed));
        json_object_object_add(of, "refaults", json_object_new_double(f->refaults));
        json_object_object_add(of, "refaulted_bytes", json_object_new_double(f->refaulted));
        json_object_object_add(of, "span_refaults", json_object_new_double(f->span_refaults));
        json_object_object_add(of, "refaults_per_mib", json_object_new_double(figures_rate(f)));
        json_object_object_add(of, "asked_bytes", json_object_new_double(f->asked));
        json_object_object_add(of, "unmet_bytes", json_object_new_double(f->unmet));
        json_object_object_add(of, "plan_us", json_object_new_double(f->plan_us));
        json_object_object_add(of, "plan_most_us", json_object_new_double(f->plan_most_us));
        json_object_object_add(trace, contenders[i].name, of);
    }
    json_object_object_add(all, name, trace);
}

static void print_table(const char *name, const struct figures figures[N_CONTENDERS]) {
    printf("%s\n  %-8s %10s %10s %8s %12s %10s %10s\n", name, "", "freed MiB", "refaults", "spans", "refaults/MiB",
           "unmet MiB", "plan us");
    for (unsigned i = 0; i < N_CONTENDERS; i++) {
        const struct figures *f = &figures[i];

        printf("  %-8s %10.1f %10.0f %8.0f %12.3f %10.1f", contenders[i].name, f->freed / MIB, f->refaults,
               f->span_refaults, figures_rate(f), f->unmet / MIB);
        if (i == CONTENDER_OURS)
            printf(" %10.1f", f->plan_us);
        printf("\n");
    }
}

static void replay(const struct options *options, json_object *all, const char *name, const struct trace *trace) {
    struct figures figures[N_CONTENDERS];

    figures_take(trace, figures);
    if (options->json)
        print_json(all, name, figures);
    else
        print_table(name, figures);
    if (trace->lost > 0)
        fprintf(stderr, "%s: %" PRIu64 " events were lost while it was recorded\n", name, trace->lost);
}

static bool replay_file(const struct options *options, json_object *all, char *path) {
    struct trace trace;
    size_t line;
    int r;

    trace_init(&trace);
    r = trace_read(&trace, path, &line);
    if (r < 0)
        fprintf(stderr, "%s:%zu: %s\n", path, line, strerror(-r));
    else
        replay(options, all, basename(path), &trace);
    trace_deinit(&trace);
    return r >= 0;
}

int main(int argc, char *argv[]) {
    json_object *all = json_object_new_object();
    struct options options = {0};
    bool fine = true;

    argp_err_exit_status = 2;
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    for (unsigned i = 0; options.made && i < N_MADE; i++) {
        struct trace trace;

        trace_init(&trace);
        made_make(&made[i], &trace);
        replay(&options, all, made[i].name, &trace);
        trace_deinit(&trace);
    }
    for (char **file = options.files; file && *file; file++)
        fine &= replay_file(&options, all, *file);
    if (options.json)
        puts(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PRETTY));
    json_object_put(all);
    return fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
