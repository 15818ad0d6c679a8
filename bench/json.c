/* SPDX-License-Identifier: MIT */

/*
 * The result file. One object: where and when, then a list of rows, each with its contenders' samples by round, ratios and goals.
 * All that tables and drawings show can be made from it again. Keys stay as they are; new ones may be added.
 */

#include "json.h"

#include "growth.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static const char *const scale_names[SCALE_COUNT] = {"full", "quick", "tiny"};

/* Six digits. What was not measured is null: JSON has no NAN. */
static struct json_object *new_number(double value) {
    char text[32];

    snprintf(text, sizeof(text), "%.6g", value);
    return isfinite(value) ? json_object_new_double_s(value, text) : NULL;
}

static void add_number(struct json_object *object, const char *key, double value) {
    json_object_object_add(object, key, new_number(value));
}

static void add_text(struct json_object *object, const char *key, const char *value) {
    json_object_object_add(object, key, json_object_new_string(value));
}

static struct json_object *add_object(struct json_object *object, const char *key) {
    struct json_object *added = json_object_new_object();

    json_object_object_add(object, key, added);
    return added;
}

static struct json_object *add_array(struct json_object *object, const char *key) {
    struct json_object *added = json_object_new_array();

    json_object_object_add(object, key, added);
    return added;
}

static void append_number(struct json_object *array, double value) {
    json_object_array_add(array, new_number(value));
}

/* ---- writing ---- */

static void add_cpu(struct json_object *object) {
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256], name[200] = "";

    while (file && !*name && fgets(line, sizeof(line), file))
        (void)sscanf(line, "model name : %199[^\n]", name);
    if (file)
        fclose(file);
    add_text(object, "cpu", name);
    json_object_object_add(object, "cpus", json_object_new_int64(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_object_add(object, "memory_bytes",
                           json_object_new_int64(sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)));
}

static void add_place(struct json_object *object, const struct result *result) {
    time_t now = time(NULL);
    struct utsname uts;
    struct tm utc;
    char date[32];

    gmtime_r(&now, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_object_object_add(object, "format", json_object_new_int(1));
    add_text(object, "version", DROPPABLE_VERSION);
    add_text(object, "date", date);
    if (uname(&uts) == 0) {
        add_text(object, "kernel", uts.release);
        add_text(object, "machine", uts.machine);
    }
    add_cpu(object);
    add_text(object, "scale", scale_names[result->scale]);
    add_number(object, "seconds", (double)result->took_ns / 1e9);
    json_object_object_add(object, "service_rss_bytes", json_object_new_uint64(result->service_rss));
    json_object_object_add(object, "service_pss_bytes", json_object_new_uint64(result->service_pss));
}

static void add_cell(struct json_object *object, const struct cell *cell) {
    struct summary summary = result_summary(cell);
    struct json_object *samples;

    if (*cell->missing)
        add_text(object, "missing", cell->missing);
    if (cell->count == 0)
        return;
    samples = add_array(object, "samples");
    for (unsigned i = 0; i < cell->count; i++)
        append_number(samples, cell->samples[i].value);
    add_number(object, "median", summary.median);
    add_number(object, "min", summary.min);
    add_number(object, "max", summary.max);
    add_number(object, "spread", summary.spread);
    for (enum extra extra = 0; extra < EXTRA_COUNT; extra++) {
        if (isnan(result_extra(cell, extra)))
            continue;
        samples = add_array(object, extra_names[extra]);
        for (unsigned i = 0; i < cell->count; i++)
            append_number(samples, cell->samples[i].extra[extra]);
    }
}

static void add_ratio(struct json_object *object, const struct row_result *result) {
    const struct row *row = result->row;
    struct json_object *ratio = add_object(object, "ratio"), *rounds;
    double ratios[ROUNDS_MAX];
    unsigned count = row_is_alone(row) ? 0 : result_ratios(result, row->over, row->under, ratios);

    add_text(ratio, "over", contender_names[row->over]);
    add_text(ratio, "under", contender_names[row->under]);
    rounds = add_array(ratio, "rounds");
    for (unsigned i = 0; i < count; i++)
        append_number(rounds, ratios[i]);
    add_number(ratio, "median", result_ratio(result, row->over, row->under, STATISTIC_MEDIAN));
    add_number(ratio, "best", result_ratio(result, row->over, row->under, STATISTIC_BEST));
}

static void add_goals(struct json_object *object, const struct result *all, const struct row_result *result) {
    static const char *const statistics[] = {
        [STATISTIC_BEST] = "best",
        [STATISTIC_MEDIAN] = "median",
        [STATISTIC_WORST] = "worst",
    };
    struct json_object *goals = add_array(object, "goals");
    char text[160];

    for (unsigned i = 0; i < ROW_GOALS; i++) {
        const struct goal *goal = &result->row->goals[i];
        struct json_object *added;
        double value;

        if (goal->kind == GOAL_NONE)
            continue;
        value = result_goal_value(all, result, goal);
        goal_text(goal, text, sizeof(text));
        added = json_object_new_object();
        add_text(added, "goal", text);
        add_text(added, "statistic", statistics[goal->statistic]);
        add_number(added, "value", value);
        if (!isnan(value))
            json_object_object_add(added, "met", json_object_new_boolean(goal_met(goal, value)));
        json_object_array_add(goals, added);
    }
}

static struct json_object *make_row(const struct result *all, const struct row_result *result) {
    struct json_object *object = json_object_new_object(), *contenders;

    add_text(object, "name", result->row->name);
    add_text(object, "unit", result->row->unit);
    add_text(object, "better", result->row->better == BETTER_LOWER ? "lower" : "higher");
    json_object_object_add(object, "rounds", json_object_new_int((int)result->rounds));
    contenders = add_object(object, "contenders");
    for (unsigned c = 0; c < CONTENDER_COUNT; c++)
        if (result->cells[c].count > 0 || *result->cells[c].missing)
            add_cell(add_object(contenders, contender_names[c]), &result->cells[c]);
    add_ratio(object, result);
    add_goals(object, all, result);
    return object;
}

static struct json_object *make_growth(const struct growth *growth) {
    struct json_object *object = json_object_new_object(), *points;

    add_text(object, "name", growth->curve->name);
    add_text(object, "text", growth->curve->text);
    add_text(object, "contender", contender_names[growth->curve->contender]);
    add_text(object, "unit", growth->curve->unit);
    points = add_array(object, "x");
    for (unsigned i = 0; i < growth->count; i++)
        append_number(points, growth->x[i]);
    points = add_array(object, "y");
    for (unsigned i = 0; i < growth->count; i++)
        append_number(points, growth->y[i]);
    add_number(object, "from", growth->curve->from);
    add_number(object, "exponent", growth->exponent);
    add_number(object, "goal_max", growth->curve->max);
    json_object_object_add(object, "met", json_object_new_boolean(growth_met(growth)));
    return object;
}

/* Takes the object. Its text without the last @cut characters. */
static void write_object(FILE *file, struct json_object *object, size_t cut) {
    size_t length;
    const char *text = json_object_to_json_string_length(object, JSON_C_TO_STRING_NOSLASHESCAPE, &length);

    fwrite(text, 1, length - cut, file);
    json_object_put(object);
}

static void write_growth(FILE *file, const struct result *result) {
    bool first = true;

    fprintf(file, "\n],\"growth\":[");
    for (unsigned i = 0; i < curve_count; i++) {
        struct growth growth;

        growth_fit(result, &curves[i], &growth);
        if (growth.count < GROWTH_POINTS_MIN)
            continue;
        fprintf(file, first ? "\n" : ",\n");
        write_object(file, make_growth(&growth), 0);
        first = false;
    }
}

/* A line for each row, so that a new result can be seen as a difference to the one before. */
int json_write(const struct result *result, const char *path) {
    struct json_object *place = json_object_new_object();
    FILE *file = fopen(path, "we");
    bool first = true, failed;

    if (!file) {
        fprintf(stderr, "droppable-bench: cannot write %s: %m\n", path);
        json_object_put(place);
        return -EIO;
    }
    add_place(place, result);
    write_object(file, place, 1);
    fprintf(file, ",\"rows\":[");
    for (unsigned i = 0; i < row_count; i++)
        if (result->rows[i].selected) {
            fprintf(file, first ? "\n" : ",\n");
            write_object(file, make_row(result, &result->rows[i]), 0);
            first = false;
        }
    write_growth(file, result);
    fprintf(file, "\n]}\n");
    failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed;
    if (failed)
        fprintf(stderr, "droppable-bench: cannot write %s\n", path);
    return failed ? -EIO : 0;
}

/* ---- printing again ---- */

static struct json_object *get(struct json_object *object, const char *key) {
    struct json_object *found = NULL;

    return json_object_object_get_ex(object, key, &found) ? found : NULL;
}

static void print_tsv_number(struct json_object *object, const char *key) {
    struct json_object *number = get(object, key);

    if (number)
        printf("\t%g", json_object_get_double(number));
    else
        printf("\tNaN");
}

/* Of an array, a number for each round. */
static void print_tsv_median(struct json_object *object, const char *key) {
    struct json_object *array = get(object, key);
    double values[ROUNDS_MAX];
    size_t count = 0;

    for (size_t i = 0; array && i < json_object_array_length(array) && count < ROUNDS_MAX; i++)
        values[count++] = json_object_get_double(json_object_array_get_idx(array, i));
    printf(count > 0 ? "\t%g" : "\tNaN", sample_quantile(values, count, 0.5));
}

int json_print_tsv(const char *path) {
    struct json_object *file = json_object_from_file(path), *list = get(file, "rows");

    if (!list) {
        fprintf(stderr, "droppable-bench: %s is no result file: %s\n", path, json_util_get_last_err());
        json_object_put(file);
        return -EINVAL;
    }
    printf("row\tcontender\tunit\tmedian\tmin\tmax\tratio\tbest\tp50\tp99\n");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *row = json_object_array_get_idx(list, i), *ratio = get(row, "ratio");

        json_object_object_foreach(get(row, "contenders"), name, cell) {
            bool is_over = strcmp(name, json_object_get_string(get(ratio, "over"))) == 0;

            printf("%s\t%s\t%s", json_object_get_string(get(row, "name")), name,
                   json_object_get_string(get(row, "unit")));
            print_tsv_number(cell, "median");
            print_tsv_number(cell, "min");
            print_tsv_number(cell, "max");
            print_tsv_number(is_over ? ratio : NULL, "median");
            print_tsv_number(is_over ? ratio : NULL, "best");
            print_tsv_median(cell, extra_names[EXTRA_P50]);
            print_tsv_median(cell, extra_names[EXTRA_P99]);
            printf("\n");
        }
    }
    json_object_put(file);
    return 0;
}

int json_print_curves(const char *path) {
    struct json_object *file = json_object_from_file(path), *list = get(file, "growth");

    if (!list) {
        fprintf(stderr, "droppable-bench: %s has no curves\n", path);
        json_object_put(file);
        return -EINVAL;
    }
    printf("curve\tx\ty\texponent\n");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *curve = json_object_array_get_idx(list, i), *x = get(curve, "x"), *y = get(curve, "y");

        for (size_t p = 0; p < json_object_array_length(x); p++)
            printf("%s\t%g\t%g\t%g\n", json_object_get_string(get(curve, "name")),
                   json_object_get_double(json_object_array_get_idx(x, p)),
                   json_object_get_double(json_object_array_get_idx(y, p)),
                   json_object_get_double(get(curve, "exponent")));
    }
    json_object_put(file);
    return 0;
}
