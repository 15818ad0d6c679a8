/* SPDX-License-Identifier: MIT */

/*
 * droppablectl: looks at the service, drops by hand, sets limits, runs a program with a service of its own.
 *
 * This file reads the command line and hands over to one function per verb. Options may stand before or after the verb;
 * all after `run`'s program is the program's. Output goes to stdout, in columns for people or with --json as one
 * object with the keys of docs/droppablectl.md; messages go to stderr.
 */

#include "codec.h"
#include "ctl.h"
#include "numbers.h"

#include <argp.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_COUNT = 'n',
    KEY_SOCKET = 256,
    KEY_JSON,
    KEY_ALL,
    KEY_REGION,
    KEY_PID,
    KEY_USER,
    KEY_CGROUP,
    KEY_BUDGET,
    KEY_QUOTA,
    KEY_SHARE,
    KEY_PRIORITY,
};

#define WHY_COUNT 10

const char *argp_program_version = "droppablectl " DROPPABLE_VERSION;

static const char doc[] =
    "Looks at droppabled, drops memory by hand, says who may have how much, runs a program with a service of its own."
    "\v"
    "Verbs:\n"
    "  status                 counters, features, headroom and times of the service\n"
    "  list                   sessions, regions and domains\n"
    "  why [-n N]             what was dropped last, for what, from whom\n"
    "  drop --all             drops what is not pinned, of everybody\n"
    "  drop --region N        ... of one region, by its number in `list'\n"
    "  drop --pid P           ... of one process\n"
    "  free SIZE              drops so much, the least valuable first\n"
    "  free SIZE --cgroup C   ... of one cgroup\n"
    "  limit --region N       shows what a region may have\n"
    "  limit --pid P, --user U, --cgroup C\n"
    "                         ... a process, a user, a cgroup\n"
    "  limit ... --budget SIZE --quota SIZE --share N --priority P\n"
    "                         sets it; `default' takes back what was set\n"
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
    {"json", KEY_JSON, NULL, 0, "Print JSON (keys: droppablectl(1))", 0},
    {"all", KEY_ALL, NULL, 0, "drop: everything", 1},
    {"region", KEY_REGION, "N", 0, "drop, limit: one region", 1},
    {"pid", KEY_PID, "P", 0, "drop, limit: one process", 1},
    {"user", KEY_USER, "U", 0, "limit: one user, by name or number", 1},
    {"cgroup", KEY_CGROUP, "C", 0, "free, limit: one cgroup, by its path as in /proc/PID/cgroup", 1},
    {"budget", KEY_BUDGET, "SIZE", 0, "limit: bytes that may be resident; or `infinity'", 2},
    {"quota", KEY_QUOTA, "SIZE", 0, "limit: bytes of address space; or `infinity'", 2},
    {"share", KEY_SHARE, "N", 0, "limit: 1 to 10000; of what is equally cold, twice the share loses half as much", 2},
    {"priority", KEY_PRIORITY, "P", 0, "limit: low, normal, high", 2},
    {NULL, KEY_COUNT, "N", 0, "why: at most so many (10)", 3},
    {0},
};

/* What belongs to a verb. one_of: exactly one of these must be given. */
static const struct verb {
    const char *name;
    int (*run)(const struct ctl_options *options);
    uint32_t allowed;
    uint32_t one_of;
    const char *one_of_text;
} verbs[] = {
    {"status", ctl_status, 0, 0, NULL},
    {"list", ctl_list, 0, 0, NULL},
    {"why", ctl_why, CTL_COUNT, 0, NULL},
    {"drop", ctl_drop, CTL_ALL | CTL_REGION | CTL_PID, CTL_WHO, "--all, --region or --pid"},
    {"free", ctl_free, CTL_CGROUP, 0, NULL},
    {"limit", ctl_limit, CTL_REGION | CTL_PID | CTL_USER | CTL_CGROUP | CTL_BUDGET | CTL_QUOTA | CTL_SHARE | CTL_PRIORITY,
     CTL_WHO, "--region, --pid, --user or --cgroup"},
    {"probe", ctl_probe, 0, 0, NULL},
    {"run", ctl_run, 0, 0, NULL},
};

struct command_line {
    struct ctl_options options;
    const struct verb *verb;
};

/* ---- values ---- */

static uint64_t parse_number(struct argp_state *state, const char *option, const char *text, uint64_t min, uint64_t max) {
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < min || value > max)
        argp_error(state, "%s: '%s' is not a number from %llu to %llu", option, text, (unsigned long long)min,
                   (unsigned long long)max);
    return value;
}

static uint64_t parse_size(struct argp_state *state, const char *option, const char *text) {
    uint64_t value = 0;

    if (ctl_parse_size(text, &value) < 0 || value == 0)
        argp_error(state, "%s: '%s' is not a size, such as 4096, 64K, 1G", option, text);
    return value;
}

static uint64_t parse_user(struct argp_state *state, const char *text) {
    const struct passwd *user = *text >= '0' && *text <= '9' ? NULL : getpwnam(text);

    if (!user && (*text < '0' || *text > '9'))
        argp_error(state, "--user: nobody is called '%s'", text);
    return user ? user->pw_uid : parse_number(state, "--user", text, 0, UINT32_MAX - 1);
}

static uint32_t parse_priority(struct argp_state *state, const char *text) {
    for (uint32_t priority = DRP_PRIORITY_LOW; priority <= DRP_PRIORITY_HIGH; priority++)
        if (strcmp(text, ctl_priority_name(priority)) == 0)
            return priority;
    argp_error(state, "--priority: '%s' is none of low, normal, high", text);
    return 0;
}

/* What `limit` sets. 0 takes back what was set. */
static uint64_t parse_limit(struct argp_state *state, int key, const char *text) {
    if (strcmp(text, "default") == 0)
        return 0;
    switch (key) {
    case KEY_SHARE:
        return parse_number(state, "--share", text, 1, 10000);
    case KEY_PRIORITY:
        return parse_priority(state, text);
    default:
        return strcmp(text, "infinity") == 0 ? UINT64_MAX
                                             : parse_size(state, key == KEY_BUDGET ? "--budget" : "--quota", text);
    }
}

/* ---- the line ---- */

static const struct verb *find_verb(struct argp_state *state, const char *name) {
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(name, verbs[i].name) == 0)
            return &verbs[i];
    argp_error(state, "unknown verb '%s'", name);
    return NULL;
}

static error_t parse_argument(struct argp_state *state, struct command_line *line, char *text) {
    if (!line->verb)
        line->verb = find_verb(state, text);
    else if (line->verb->run == ctl_free && line->options.size == 0)
        line->options.size = parse_size(state, "free", text);
    else if (line->verb->run == ctl_run) {
        line->options.program = &state->argv[state->next - 1];
        state->next = state->argc;
    } else
        argp_error(state, "'%s' takes no argument '%s'", line->verb->name, text);
    return 0;
}

static void check_line(struct argp_state *state, const struct command_line *line) {
    const struct ctl_options *options = &line->options;
    const struct verb *verb = line->verb;

    if (!verb) {
        argp_error(state, "a verb is missing");
        return;
    }
    if (options->given & ~verb->allowed)
        argp_error(state, "an option that was given does not belong to '%s'", verb->name);
    if (verb->one_of && __builtin_popcount(options->given & verb->one_of) != 1)
        argp_error(state, "'%s' needs one of %s", verb->name, verb->one_of_text);
    if (verb->run == ctl_free && options->size == 0)
        argp_error(state, "'free' needs a size");
    if (verb->run == ctl_run && !options->program)
        argp_error(state, "'run' needs a program");
}

static error_t parse_option(struct argp_state *state, struct ctl_options *options, int key, char *text) {
    switch (key) {
    case KEY_ALL:
        options->given |= CTL_ALL;
        return 0;
    case KEY_REGION:
        options->given |= CTL_REGION;
        options->id = parse_number(state, "--region", text, 0, UINT64_MAX);
        return 0;
    case KEY_PID:
        options->given |= CTL_PID;
        options->id = parse_number(state, "--pid", text, 1, INT32_MAX);
        return 0;
    case KEY_USER:
        options->given |= CTL_USER;
        options->id = parse_user(state, text);
        return 0;
    case KEY_CGROUP:
        options->given |= CTL_CGROUP;
        options->cgroup = text;
        if (!codec_is_cgroup_path(text) || strlen(text) >= DRP_WIRE_PATH_MAX)
            argp_error(
                state,
                "--cgroup: '%s' is not a path as in /proc/PID/cgroup: '/a/b', no slash at its end, no '//', '.', '..'",
                text);
        return 0;
    case KEY_BUDGET:
        options->given |= CTL_BUDGET;
        options->values.budget = parse_limit(state, key, text);
        return 0;
    case KEY_QUOTA:
        options->given |= CTL_QUOTA;
        options->values.quota = parse_limit(state, key, text);
        return 0;
    case KEY_SHARE:
        options->given |= CTL_SHARE;
        options->values.share = (uint32_t)parse_limit(state, key, text);
        return 0;
    case KEY_PRIORITY:
        options->given |= CTL_PRIORITY;
        options->values.priority = (uint32_t)parse_limit(state, key, text);
        return 0;
    case KEY_COUNT:
        options->given |= CTL_COUNT;
        options->count = parse_number(state, "-n", text, 1, UINT64_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct command_line *line = state->input;

    switch (key) {
    case KEY_SOCKET:
        line->options.socket = text;
        return 0;
    case KEY_JSON:
        line->options.json = true;
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(state, line, text);
    case ARGP_KEY_END:
        check_line(state, line);
        return 0;
    default:
        return parse_option(state, &line->options, key, text);
    }
}

/* ---- for the verbs ---- */

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

int ctl_fail_for(const struct ctl_options *options, const char *what, int error) {
    if (error == -EPERM) {
        fprintf(
            stderr,
            "droppablectl: %s: not permitted: root, the service's user and its ControlGroup= may, owners within what these allow\n",
            what);
        return CTL_FAILURE;
    }
    if (error != -ENOENT)
        return ctl_fail(what, error);
    if (options->given & CTL_CGROUP)
        fprintf(stderr, "droppablectl: %s: the service knows of nobody in cgroup %s\n", what,
                ctl_clean(options->cgroup));
    else
        fprintf(stderr, "droppablectl: %s: the service knows no %s %llu\n", what,
                options->given & CTL_REGION ? "region"
                : options->given & CTL_USER ? "process of user"
                                            : "process",
                (unsigned long long)options->id);
    return CTL_FAILURE;
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
    static const struct argp argp = {option_table, parse, "VERB [ARGUMENT...]", doc, NULL, NULL, NULL};
    struct command_line line = {.options.count = WHY_COUNT};

    argp_err_exit_status = CTL_USAGE;
    if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &line) != 0)
        return CTL_USAGE;
    return line.verb->run(&line.options);
}
