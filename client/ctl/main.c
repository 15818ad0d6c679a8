/* SPDX-License-Identifier: MIT */

/*
 * droppablectl: looks at the service, drops by hand, runs a program with a service of its own.
 *
 * This file reads the command line and hands over to one function per verb. Options may stand before or after the verb;
 * all after `run`'s program is the program's. Output goes to stdout, in columns for people or with --json as one
 * object with the keys of docs/droppablectl.md; messages go to stderr.
 */

#include "ctl.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_SOCKET = 256, KEY_JSON, KEY_ALL, KEY_REGION, KEY_PID };

const char *argp_program_version = "droppablectl " DROPPABLE_VERSION;

static const char doc[] =
    "Looks at droppabled, drops memory by hand, runs a program with a service of its own."
    "\v"
    "Verbs:\n"
    "  status                 counters, features and headroom of the service\n"
    "  list                   sessions, regions and domains\n"
    "  drop --all             drops what is not pinned, of everybody\n"
    "  drop --region N        ... of one region, by its number in `list'\n"
    "  drop --pid P           ... of one process\n"
    "  probe                  what kernel and service can do here, and why not\n"
    "  run [--] PROGRAM ...   starts a private service for PROGRAM's life\n"
    "\n"
    "Exit status: 0 ok, 1 failure, 2 usage, 3 the service cannot be reached. `run': the status of PROGRAM, 128+N "
    "if signal N ended it, 125 if there is no service, 126 if PROGRAM cannot be executed, 127 if it is not found.\n"
    "\n"
    "The socket is --socket, else $DROPPABLE_SOCKET, else $XDG_RUNTIME_DIR/droppabled.sock, else /run/droppabled.sock. "
    "`run' takes droppabled from $DROPPABLED, from beside droppablectl, or from $PATH.";

static const struct argp_option option_table[] = {
    {"socket", KEY_SOCKET, "PATH", 0, "Socket of the service", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON (keys: docs/droppablectl.md)", 0},
    {"all", KEY_ALL, NULL, 0, "drop: everything", 1},
    {"region", KEY_REGION, "N", 0, "drop: one region", 1},
    {"pid", KEY_PID, "P", 0, "drop: one process", 1},
    {0},
};

struct command_line {
    struct ctl_options options;
    const char *verb;
};

static uint64_t parse_number(struct argp_state *state, const char *option, const char *text) {
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0')
        argp_error(state, "--%s: '%s' is not a number", option, text);
    return value;
}

static void set_scope(struct argp_state *state, struct ctl_options *options, uint32_t scope, uint64_t id) {
    if (options->scope)
        argp_error(state, "give one of --all, --region and --pid only");
    options->scope = scope;
    options->id = id;
}

static error_t parse_argument(struct argp_state *state, struct command_line *line, char *text) {
    if (!line->verb) {
        line->verb = text;
        return 0;
    }
    if (strcmp(line->verb, "run") != 0)
        argp_error(state, "'%s' takes no argument '%s'", line->verb, text);
    line->options.program = &state->argv[state->next - 1];
    state->next = state->argc;
    return 0;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct command_line *line = state->input;
    struct ctl_options *options = &line->options;

    switch (key) {
    case KEY_SOCKET:
        options->socket = text;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_ALL:
        set_scope(state, options, DRP_SCOPE_ALL, 0);
        return 0;
    case KEY_REGION:
        set_scope(state, options, DRP_SCOPE_REGION, parse_number(state, "region", text));
        return 0;
    case KEY_PID: {
        uint64_t pid = parse_number(state, "pid", text);

        if (pid < 1 || pid > INT32_MAX)
            argp_error(state, "--pid: %s is not the number of a process", text);
        set_scope(state, options, DRP_SCOPE_PID, pid);
        return 0;
    }
    case ARGP_KEY_ARG:
        return parse_argument(state, line, text);
    case ARGP_KEY_END:
        if (!line->verb)
            argp_error(state, "a verb is missing");
        if (strcmp(line->verb, "drop") == 0 && !options->scope)
            argp_error(state, "'drop' needs --all, --region or --pid");
        if (strcmp(line->verb, "drop") != 0 && options->scope)
            argp_error(state, "--all, --region and --pid belong to 'drop'");
        if (strcmp(line->verb, "run") == 0 && !options->program)
            argp_error(state, "'run' needs a program");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int ctl_fail(const char *what, int error) {
    const char *detail = drp_detail();

    /* The detail says it all where there is one. */
    fprintf(stderr, "droppablectl: %s: %s\n", what, *detail ? detail : drp_strerror(error));
    switch (error) {
    case -ENOENT:
    case -ECONNREFUSED:
    case -ENOTCONN:
    case -ETIMEDOUT:
    case -EPROTO:
        return CTL_UNREACHABLE;
    default:
        return CTL_FAILURE;
    }
}

int ctl_connect(const struct ctl_options *options, struct drp **ret) {
    struct drp_config config = {
        .struct_size = sizeof(config),
        .socket_path = options->socket,
        .name = "droppablectl",
    };
    struct drp *d;
    int r;

    r = context_new(&d, &config);
    if (r < 0)
        return ctl_fail("no service", r);
    r = context_connect(d, &config);
    if (r < 0) {
        context_free(d);
        ctl_fail("no service", r);
        return CTL_UNREACHABLE;
    }
    *ret = d;
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(const struct ctl_options *options);
    } verbs[] = {
        {"status", ctl_status}, {"list", ctl_list}, {"drop", ctl_drop}, {"probe", ctl_probe}, {"run", ctl_run},
    };
    static const struct argp argp = {option_table, parse, "VERB [ARGUMENT...]", doc, NULL, NULL, NULL};
    struct command_line line = {0};

    argp_err_exit_status = CTL_USAGE;
    if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &line) != 0)
        return CTL_USAGE;
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(line.verb, verbs[i].name) == 0)
            return verbs[i].run(&line.options);
    fprintf(stderr, "droppablectl: unknown verb '%s'; see droppablectl --help\n", line.verb);
    return CTL_USAGE;
}
