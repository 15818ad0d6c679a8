/* SPDX-License-Identifier: MIT */

/*
 * Compares the ratio of each row with that of a result file. Ratios, since both sides of one meet the same machine and the same
 * noise; a baseline made elsewhere still says something. A row is worse only if its median and its best ratio both are: noise in
 * one round of either run moves the best, or with few rounds the median, and hardly ever both.
 *
 * Where there is nobody beside the service, its memory or its CPU time say the same elsewhere, and are compared themselves.
 *
 * How much worse is too much depends on the row: see `tolerance'. Ours without a value where the baseline has one is worse, too.
 */

#include "compare.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* Ratios of one row in the baseline, or values. */
struct baseline {
    double median, best;
};

static bool get_number(struct json_object *object, const char *key, double *ret) {
    struct json_object *number;

    if (!json_object_object_get_ex(object, key, &number) || !number)
        return false;
    *ret = json_object_get_double(number);
    return *ret > 0;
}

static bool names_contender(struct json_object *ratio, const char *key, enum contender contender) {
    struct json_object *name;

    return json_object_object_get_ex(ratio, key, &name) &&
           strcmp(json_object_get_string(name), contender_names[contender]) == 0;
}

/* Median and best of the contender's own rounds. */
static bool get_value(struct json_object *entry, const struct row *row, struct baseline *ret) {
    struct json_object *contenders, *cell;

    return json_object_object_get_ex(entry, "contenders", &contenders) &&
           json_object_object_get_ex(contenders, contender_names[row->over], &cell) &&
           get_number(cell, "median", &ret->median) &&
           get_number(cell, row->better == BETTER_LOWER ? "min" : "max", &ret->best);
}

static bool find_row(struct json_object *list, const struct row *row, struct baseline *ret) {
    struct json_object *name, *ratio;

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);

        if (!json_object_object_get_ex(entry, "name", &name) || strcmp(json_object_get_string(name), row->name) != 0)
            continue;
        if (row_is_alone(row))
            return get_value(entry, row, ret);
        return json_object_object_get_ex(entry, "ratio", &ratio) && names_contender(ratio, "over", row->over) &&
               names_contender(ratio, "under", row->under) && get_number(ratio, "median", &ret->median) &&
               get_number(ratio, "best", &ret->best);
    }
    return false;
}

/* How many times as bad as then; below 1: better. */
static double worsening(const struct row *row, double then, double now) {
    return row->better == BETTER_LOWER ? now / then : then / now;
}

static double now_by(const struct row_result *result, enum statistic statistic) {
    const struct row *row = result->row;

    return row_is_alone(row) ? result_value(result, row->over, statistic)
                             : result_ratio(result, row->over, row->under, statistic);
}

static bool is_worse(const struct row_result *result, const struct baseline *baseline) {
    const struct row *row = result->row;
    double median = now_by(result, STATISTIC_MEDIAN), best = now_by(result, STATISTIC_BEST);
    double tolerance = row->tolerance > 0 ? row->tolerance : TOLERANCE;

    if (isnan(median)) {
        if (*result->cells[row->over].missing == '\0')
            return false; /* the other side is missing: this kernel has it not */
        printf("  WORSE %s: no %s any more: %s\n", row->name, contender_names[row->over],
               result->cells[row->over].missing);
        return true;
    }
    if (worsening(row, baseline->median, median) < tolerance || worsening(row, baseline->best, best) < tolerance)
        return false;
    printf("  WORSE %s: %s%s%s was %.2f (best %.2f), is %.2f (best %.2f)\n", row->name, contender_names[row->over],
           row_is_alone(row) ? "" : "/", row_is_alone(row) ? "" : contender_names[row->under], baseline->median,
           baseline->best, median, best);
    return true;
}

int compare_print(const struct result *result, const char *path, bool *worse) {
    struct json_object *file = json_object_from_file(path), *list;
    unsigned compared = 0, unknown = 0;
    struct baseline baseline;
    int count = 0;

    if (!file || !json_object_object_get_ex(file, "rows", &list)) {
        fprintf(stderr, "droppable-bench: %s is no result file: %s\n", path, json_util_get_last_err());
        json_object_put(file);
        return -EINVAL;
    }
    printf("\ncompared with %s:\n", path);
    for (unsigned i = 0; i < row_count; i++) {
        if (!result->rows[i].selected)
            continue;
        if (!find_row(list, &rows[i], &baseline)) {
            unknown++;
            continue;
        }
        compared++;
        worse[i] = is_worse(&result->rows[i], &baseline);
        count += worse[i];
    }
    printf("  %u ratios compared, %d worse, %u rows without a ratio in the baseline\n", compared, count, unknown);
    json_object_put(file);
    return count;
}
