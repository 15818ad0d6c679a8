/* SPDX-License-Identifier: MIT */

/*
 * conformance-compare: runs the program conformance on backends, and tells where they differ from the reference, line by line.
 *
 * The reference is what this kernel's own MAP_DROPPABLE does or, where there is none or --against says so, a recording (the one beside
 * this program). A line
 * that is "absent" on one side only is a difference on the same kernel; beside a recording it is a kernel that is too old to be
 * asked, and counted as that.
 *
 * What cannot be equal is in the file expected-differences, beside this program too. That is held both ways: a line that is in it and does not differ
 * fails as one that differs and is not.
 *
 * Exit status: 0 those lines differ that are expected to, 1 others do, 2 it could not be told, 77 there is nothing to compare with.
 */

#include "backend.h"
#include "expected.h"
#include "lines.h"

#include <argp.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define RECORDING "native-6.18.txt"
#define EXPECTED "expected-differences"
#define MAX_BACKENDS 8
#define MAX_SECTIONS 30

enum { EXIT_SAME, EXIT_DIFFERENT, EXIT_TROUBLE, EXIT_SKIP = 77 };
enum verdict {
    SAME,
    EXPLAINED, /* differs, as is expected */
    DIFFERENT,
    VANISHED, /* does not differ, though that was expected */
    ABSENT,
    N_VERDICTS
};

static struct options {
    const char *backends[MAX_BACKENDS];
    size_t n_backends;
    const char *sections[MAX_SECTIONS];
    size_t n_sections;
    const char *against, *json, *record;
    bool all;
} options;

struct compared {
    const char *backend;
    struct lines lines;
};

static struct lines reference;
static struct expected expected_differences; /* of the daemon's */
static struct compared compared[MAX_BACKENDS];

/* ---- comparing ---- */

/* words: what the backend said; NULL: nothing. */
static enum verdict judge(const struct compared *c, const char *check, const char *expected, const char *words) {
    bool explained = strcmp(c->backend, "daemon") == 0 && expected_reason(&expected_differences, check);

    if (expected && words && strcmp(expected, words) == 0)
        return explained && strcmp(words, "absent") != 0 ? VANISHED : SAME;
    if (options.against && expected && words && (strcmp(expected, "absent") == 0 || strcmp(words, "absent") == 0))
        return ABSENT;
    return explained ? EXPLAINED : DIFFERENT;
}

static bool is_wanted(const char *check) {
    size_t length = lines_section(check);

    for (size_t i = 0; i < options.n_sections; i++)
        if (strlen(options.sections[i]) == length && strncmp(check, options.sections[i], length) == 0)
            return true;
    return options.n_sections == 0;
}

static bool in_section(const char *check, const char *section) {
    return lines_section(check) == lines_section(section) && strncmp(check, section, lines_section(section)) == 0;
}

/* section: NULL, or the name of any of its checks. Lines that one side lacks differ. */
static void count(const struct compared *c, const char *section, unsigned ret[N_VERDICTS]) {
    const struct lines *lines = &c->lines;

    memset(ret, 0, N_VERDICTS * sizeof(*ret));
    for (size_t i = 0; i < reference.n; i++) {
        const struct line *line = &reference.lines[i];

        if (is_wanted(line->check) && (!section || in_section(line->check, section)))
            ret[judge(c, line->check, line->words, lines_find(lines, line->check))]++;
    }
    for (size_t i = 0; i < lines->n; i++)
        if ((!section || in_section(lines->lines[i].check, section)) && !lines_find(&reference, lines->lines[i].check))
            ret[DIFFERENT]++;
}

/* ---- telling ---- */

static bool begins_section(size_t i) {
    return is_wanted(reference.lines[i].check) &&
           (i == 0 || !in_section(reference.lines[i].check, reference.lines[i - 1].check));
}

static void print_row(const char *name, size_t length, const char *section) {
    printf("%-10.*s", (int)length, name);
    for (size_t i = 0; i < options.n_backends; i++) {
        unsigned n[N_VERDICTS];

        count(&compared[i], section, n);
        printf("   %5u %9u %9u %6u", n[SAME], n[EXPLAINED], n[DIFFERENT] + n[VANISHED], n[ABSENT]);
    }
    printf("\n");
}

static void print_table(void) {
    printf("%-10s", "");
    for (size_t i = 0; i < options.n_backends; i++)
        printf("   %-32s", compared[i].backend);
    printf("\n%-10s", "section");
    for (size_t i = 0; i < options.n_backends; i++)
        printf("   %5s %9s %9s %6s", "same", "explained", "different", "absent");
    printf("\n");
    for (size_t i = 0; i < reference.n; i++)
        if (begins_section(i))
            print_row(reference.lines[i].check, lines_section(reference.lines[i].check), reference.lines[i].check);
    print_row("all", 3, NULL);
}

/* Calls tell() for each line that differs or was to; a line that one side lacks is NULL there. */
static void each_difference(const struct compared *c, void *data,
                            void (*tell)(void *data, enum verdict verdict, const char *check, const char *expected,
                                         const char *words)) {
    for (size_t i = 0; i < reference.n; i++) {
        const struct line *line = &reference.lines[i];
        const char *words = lines_find(&c->lines, line->check);
        enum verdict verdict = judge(c, line->check, line->words, words);

        if (is_wanted(line->check) && verdict != SAME && verdict != ABSENT)
            tell(data, verdict, line->check, line->words, words);
    }
    for (size_t i = 0; i < c->lines.n; i++)
        if (!lines_find(&reference, c->lines.lines[i].check))
            tell(data, DIFFERENT, c->lines.lines[i].check, NULL, c->lines.lines[i].words);
}

static void print_difference(void *data, enum verdict verdict, const char *check, const char *expected,
                             const char *words) {
    if (verdict == EXPLAINED && !options.all)
        return;
    printf("%s %s", (const char *)data, check);
    if (verdict == EXPLAINED)
        printf(" (%s)", expected_reason(&expected_differences, check));
    printf("%s\n  - %s\n  + %s\n", verdict == VANISHED ? " does not differ any more, which was expected" : "",
           expected ? expected : "(no line)", words ? words : "(no line)");
}

static void add_difference(void *data, enum verdict verdict, const char *check, const char *expected, const char *words) {
    json_object *object = json_object_new_object();

    json_object_object_add(object, "check", json_object_new_string(check));
    json_object_object_add(object, "reference", expected ? json_object_new_string(expected) : NULL);
    json_object_object_add(object, "here", words ? json_object_new_string(words) : NULL);
    if (verdict == EXPLAINED)
        json_object_object_add(object, "explained",
                               json_object_new_string(expected_reason(&expected_differences, check)));
    json_object_array_add(data, object);
}

/* For people: how many lines differ, hidden or not. */
static void print_sum(const struct compared *c) {
    unsigned n[N_VERDICTS], all = 0;

    count(c, NULL, n);
    for (size_t i = 0; i < N_VERDICTS; i++)
        all += n[i];
    printf("%s: %u of %u lines differ, of which %u are explained in docs/differences.md", c->backend,
           n[DIFFERENT] + n[EXPLAINED], all, n[EXPLAINED]);
    if (n[VANISHED] > 0)
        printf("; %u are explained there that do not differ", n[VANISHED]);
    printf("\n");
}

static json_object *counts_json(const struct compared *c, const char *section) {
    static const char *const names[] = {"same", "explained", "different", "vanished", "absent"};
    json_object *object = json_object_new_object();
    unsigned n[N_VERDICTS];

    count(c, section, n);
    for (size_t i = 0; i < N_VERDICTS; i++)
        json_object_object_add(object, names[i], json_object_new_int64(n[i]));
    return object;
}

static json_object *backend_json(const struct compared *c) {
    json_object *object = counts_json(c, NULL), *list = json_object_new_object(), *lines = json_object_new_array();

    json_object_object_add(object, "backend", json_object_new_string(c->backend));
    for (size_t i = 0; i < reference.n; i++)
        if (begins_section(i)) {
            char name[64];

            snprintf(name, sizeof(name), "%.*s", (int)lines_section(reference.lines[i].check), reference.lines[i].check);
            json_object_object_add(list, name, counts_json(c, reference.lines[i].check));
        }
    json_object_object_add(object, "sections", list);
    each_difference(c, lines, add_difference);
    json_object_object_add(object, "differences", lines);
    return object;
}

static int write_json(void) {
    json_object *object = json_object_new_object(), *list = json_object_new_array();
    struct utsname name;
    int r;

    uname(&name);
    json_object_object_add(object, "kernel", json_object_new_string(name.release));
    json_object_object_add(object, "reference", json_object_new_string(options.against ? options.against : "native"));
    for (size_t i = 0; i < options.n_backends; i++)
        json_object_array_add(list, backend_json(&compared[i]));
    json_object_object_add(object, "backends", list);
    if (strcmp(options.json, "-") == 0)
        r = puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY)) < 0 ? -1 : 0;
    else
        r = json_object_to_file_ext(options.json, object, JSON_C_TO_STRING_PRETTY);
    json_object_put(object);
    if (r < 0)
        fprintf(stderr, "conformance-compare: cannot write %s\n", options.json);
    return r;
}

/* ---- running ---- */

static char *run(const char *backend) {
    const char *arguments[2 * MAX_SECTIONS + 1];
    size_t n = 0;

    for (size_t i = 0; i < options.n_sections; i++) {
        arguments[n++] = "--section";
        arguments[n++] = options.sections[i];
    }
    arguments[n] = NULL;
    return backend_run(backend, arguments);
}

static int parse_output(struct lines *lines, char *text, const char *from) {
    int r = text ? lines_init(lines, text) : -EIO;

    if (r < 0)
        fprintf(stderr, "conformance-compare: %s: %s\n", from, strerror(-r));
    return r;
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t size = 0;
    ssize_t n = file ? getdelim(&text, &size, '\0', file) : -1;

    if (file)
        fclose(file);
    if (n >= 0)
        return text;
    fprintf(stderr, "conformance-compare: cannot read %s: %s\n", path, strerror(errno));
    free(text);
    return NULL;
}

/* "# kernel 6.18 ...": a recording tells which kernels' own memory it is good for. */
static bool is_of_this_kernel(const char *text) {
    const char *mark = strstr(text, "# kernel ");
    unsigned theirs[2], ours[2];
    struct utsname name;

    return mark && uname(&name) == 0 && sscanf(mark, "# kernel %u.%u", &theirs[0], &theirs[1]) == 2 &&
           sscanf(name.release, "%u.%u", &ours[0], &ours[1]) == 2 && theirs[0] == ours[0] && theirs[1] == ours[1];
}

static int record(void) {
    FILE *file = fopen(options.record, "we");
    struct utsname name;
    unsigned major, minor;
    char *text = NULL;
    int r = -1;

    uname(&name);
    if (file && sscanf(name.release, "%u.%u", &major, &minor) == 2)
        text = run("native");
    if (text)
        r = fprintf(file,
                    "# What Linux's own MAP_DROPPABLE says to tests/conformance. Generated, not written:\n"
                    "# ./run conformance --record FILE\n# kernel %u.%u\n%s",
                    major, minor, text) < 0
                ? -1
                : 0;
    else
        fprintf(stderr, "conformance-compare: cannot record: %s\n", file ? "no output" : strerror(errno));
    free(text);
    if (file && fclose(file) != 0)
        r = -1;
    return r < 0 ? EXIT_TROUBLE : EXIT_SAME;
}

static bool compares(const char *backend) {
    for (size_t i = 0; i < options.n_backends; i++)
        if (strcmp(options.backends[i], backend) == 0)
            return true;
    return false;
}

static int load_expected(void) {
    char *path = backend_file(EXPECTED);
    int r = path ? expected_init(&expected_differences, path, getenv(BACKEND_USER) != NULL) : -ENOENT;

    free(path);
    return r;
}

static int prepare(void) {
    char *text;

    if (compares("daemon") && load_expected() < 0)
        return EXIT_TROUBLE;

    if (!backend_has_native()) {
        if (compares("native")) {
            printf("this kernel has no MAP_DROPPABLE\n");
            return EXIT_SKIP;
        }
        if (!options.against)
            options.against = backend_file(RECORDING);
        if (!options.against)
            return EXIT_TROUBLE;
    }
    text = options.against ? read_file(options.against) : run("native");
    if (text && options.against && compares("native") && !is_of_this_kernel(text)) {
        printf("%s is of another kernel than this one\n", options.against);
        free(text);
        return EXIT_SKIP;
    }
    return parse_output(&reference, text, "reference") < 0 ? EXIT_TROUBLE : EXIT_SAME;
}

static int compare(void) {
    int result = prepare();
    unsigned n[N_VERDICTS];

    for (size_t i = 0; result == EXIT_SAME && i < options.n_backends; i++) {
        compared[i].backend = options.backends[i];
        if (parse_output(&compared[i].lines, run(options.backends[i]), options.backends[i]) < 0)
            result = EXIT_TROUBLE;
    }
    if (result != EXIT_SAME)
        return result;
    if (options.json && write_json() < 0)
        return EXIT_TROUBLE;
    for (size_t i = 0; i < options.n_backends; i++) {
        count(&compared[i], NULL, n);
        if (n[DIFFERENT] + n[VANISHED] > 0)
            result = EXIT_DIFFERENT;
        if (!options.json || strcmp(options.json, "-") != 0)
            each_difference(&compared[i], (void *)compared[i].backend, print_difference);
    }
    if (!options.json || strcmp(options.json, "-") != 0) {
        print_table();
        for (size_t i = 0; i < options.n_backends; i++)
            print_sum(&compared[i]);
    }
    return result;
}

/* ---- options ---- */

static error_t parse(int key, char *argument, struct argp_state *state) {
    switch (key) {
    case 'b':
        if (!backend_known(argument) || options.n_backends == MAX_BACKENDS)
            argp_error(state, "no backend '%s' (native, daemon, none)", argument);
        options.backends[options.n_backends++] = argument;
        return 0;
    case 's':
        if (options.n_sections == MAX_SECTIONS)
            argp_error(state, "too many sections");
        options.sections[options.n_sections++] = argument;
        return 0;
    case 'a':
        options.against = argument;
        return 0;
    case 'e':
        options.all = true;
        return 0;
    case 'j':
        options.json = argument ? argument : "-";
        return 0;
    case 'r':
        options.record = argument;
        return 0;
    case 'u':
        if (strspn(argument, "0123456789") != strlen(argument) || setenv(BACKEND_USER, argument, 1) < 0)
            argp_error(state, "'%s' is no number of a user", argument);
        return 0;
    case ARGP_KEY_END:
        if (options.n_backends == 0)
            options.backends[options.n_backends++] = "daemon";
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv) {
    static const struct argp_option table[] = {
        {"backend", 'b', "NAME", 0, "Compare this one: native, daemon (the default), none; may be given more than once",
         0},
        {"section", 's', "NAME", 0, "Only this section; may be given more than once", 0},
        {"against", 'a', "FILE", 0, "Compare with a recording, not with this kernel's own memory", 0},
        {"user", 'u', "UID", 0, "The program, not the service, runs as this user", 0},
        {"explained", 'e', NULL, 0, "Print the lines that are expected to differ, too", 0},
        {"json", 'j', "FILE", OPTION_ARG_OPTIONAL, "Write the result as JSON, without FILE instead of text", 0},
        {"record", 'r', "FILE", 0, "Only write what this kernel's own memory says into FILE", 0},
        {0},
    };
    static const struct argp argp = {table,
                                     parse,
                                     NULL,
                                     "Tells where droppable memory of a backend differs from the kernel's own.\v"
                                     "Exit status: 0 the lines differ that are expected to, 1 others do, 2 trouble, 77 "
                                     "nothing to compare with.",
                                     NULL,
                                     NULL,
                                     NULL};
    int result;

    if (argc >= 3 && strcmp(argv[1], "--enter") == 0)
        return backend_enter(argv);
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    result = options.record ? record() : compare();
    for (size_t i = 0; i < options.n_backends; i++)
        lines_deinit(&compared[i].lines);
    lines_deinit(&reference);
    expected_deinit(&expected_differences);
    return fflush(stdout) == 0 ? result : EXIT_TROUBLE;
}
