/* SPDX-License-Identifier: MIT */
/*
 * droppabled: reads options and config, makes what needs privileges, drops them, and runs the loop.
 *
 * The order matters: kernel features, private mounts, the socket and the PSI trigger while everything is allowed; then
 * capabilities go; only then the first thread starts and the first client is heard.
 */

#include "config.h"
#include "crash-point.h"
#include "heartbeat.h"
#include "lock.h"
#include "log.h"
#include "manager.h"
#include "notify.h"
#include "privs.h"
#include "record.h"
#include "reload.h"
#include "report.h"
#include "server.h"

#include <argp.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_USAGE 2
#define DEFAULT_CONFIG "/etc/droppable/droppabled.conf"

const char *argp_program_version = "droppabled " DROPPABLE_VERSION;

struct options {
    struct config_source source;
    int level;
    const char *record;
    int passed; /* a listening socket of the service manager; -1: none */
};

static const struct argp_option option_table[] = {
    {"socket", 's', "PATH", 0,
     "Listen on this unix socket (default: the one that the service manager passes, else $XDG_RUNTIME_DIR/droppabled.sock for an ordinary user, "
     "/run/droppabled.sock for root)",
     0},
    {"config", 'c', "FILE", 0,
     "Read settings from FILE and then from FILE.d/*.conf (default: " DEFAULT_CONFIG
     ", if it exists); SIGHUP reads them again",
     0},
    {"log-level", 'l', "LEVEL", 0, "error, warning, notice, info (default) or debug", 0},
    {"record", 'r', "FILE", 0,
     "Write what the policy sees (sizes, times and numbers, no data) to FILE, until the end: for the simulator", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct options *options = state->input;

    switch (key) {
    case 's':
        options->source.socket_path = argument;
        return 0;
    case 'c':
        options->source.path = argument;
        options->source.optional = false;
        return 0;
    case 'l':
        options->level = log_level_parse(argument);
        if (options->level < 0)
            argp_error(state, "--log-level %s: not one of error, warning, notice, info, debug", argument);
        return 0;
    case 'r':
        options->record = argument;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s': no arguments are taken", argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_table,
    .parser = parse_option,
    .doc =
        "Owns memory for its clients, gives it back to the system under pressure, and fills it with zeros when it is touched again."
        "\vExit status: 0 ended by SIGTERM or SIGINT; 1 could not start or had to stop; 2 wrong options or config.\n"
        "Without root it runs with less and says in its log and in 'droppablectl status' what is missing.",
};

static void raise_descriptor_limit(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void log_start(struct manager *manager, const char *capabilities) {
    struct drp_wire_status_reply status = {0};
    char *line, *rest = status.notes;

    report_status(manager, &status);
    log_about(LOG_LEVEL_NOTICE, &(struct log_about){.id = LOG_ID_LISTENING},
              "listening on %s, fill rate %" PRIu64 " MiB/s, machine's reserve %" PRIu64 " MiB, capabilities kept: %s",
              manager->config->socket_path, status.fill_rate >> 20, status.machine_reserve >> 20, capabilities);
    while ((line = strsep(&rest, "\n")) && *line)
        log_info("%s", line);
}

static int serve(struct manager *manager, const struct options *options) {
    struct heartbeat heartbeat;
    struct reload reload;
    struct server server;
    char capabilities[256];
    uv_loop_t loop;
    int r;

    r = uv_loop_init(&loop);
    if (r < 0)
        return r;
    r = server_init(&server, &loop, manager, options->passed);
    if (r < 0)
        return r;
    CRASH_POINT("start-bound");
    manager->lock_error = lock_program();
    r = privs_drop(manager->kernel.locked, capabilities, sizeof(capabilities));
    if (r < 0) {
        log_error("cannot drop privileges: %s", strerror(-r));
        return r;
    }
    CRASH_POINT("start-unprivileged");
    r = record_start();
    if (r >= 0)
        r = manager_start(manager);
    if (r >= 0)
        r = server_start(&server);
    if (r >= 0)
        r = reload_start(&reload, &loop, manager, &options->source);
    if (r < 0) {
        log_error("cannot start: %s", strerror(-r));
        return r;
    }
    CRASH_POINT("start-listening");
    log_start(manager, capabilities);
    r = heartbeat_start(&heartbeat, &loop, manager);
    if (r < 0)
        log_warning("cannot tell the service manager that we live: %s, ignoring", strerror(-r));
    uv_run(&loop, UV_RUN_DEFAULT);
    heartbeat_stop(&heartbeat);
    reload_stop(&reload);
    uv_run(&loop, UV_RUN_DEFAULT);
    CRASH_POINT("end-threads-gone");
    manager_deinit(manager);
    server_deinit(&server);
    uv_loop_close(&loop);
    r = record_stop();
    if (r < 0)
        log_warning("the trace of --record is not complete: %s, ignoring", strerror(-r));
    return 0;
}

/* While everything is allowed. */
static int open_record(const char *path) {
    const char *what;
    int r = path ? record_open(path, &what) : 0;

    if (r < 0)
        log_error("--record %s: %s: %s", path, what, strerror(-r));
    return r;
}

/* Whose socket? --socket goes over one that was passed, which would then be left without an answer. */
static int take_socket(struct options *options, char **ret_path) {
    struct config_source *source = &options->source;
    int r = notify_take_socket(&options->passed, ret_path);

    if (r <= 0)
        return r;
    if (source->socket_path) {
        log_warning("--socket %s: the socket %s, which was passed, is not listened on, ignoring", source->socket_path,
                    *ret_path);
        close(options->passed);
        options->passed = -1;
        return 0;
    }
    source->socket_path = *ret_path;
    source->passed = true;
    return 0;
}

int main(int argc, char *argv[]) {
    struct options options = {
        .source = {.path = DEFAULT_CONFIG, .optional = true}, .level = LOG_LEVEL_INFO, .passed = -1};
    static struct manager manager;
    struct config config;
    char *error = NULL, *passed_path = NULL;
    int r;

    crash_points_init();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    log_init((enum log_level)options.level);
    /* One arena: a thread for each client must not cost a heap each. */
    mallopt(M_ARENA_MAX, 1);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* until the loop hears it */
    raise_descriptor_limit();
    if (take_socket(&options, &passed_path) < 0)
        return EXIT_FAILURE;
    if (config_load(&config, &options.source, &error) < 0) {
        log_error("%s", error ? error : "no memory to read the config");
        free(error);
        return EXIT_USAGE;
    }
    r = open_record(options.record);
    if (r >= 0) {
        r = manager_init(&manager, &config);
        if (r < 0)
            log_error("cannot start: %s", strerror(-r));
    }
    if (r >= 0)
        r = serve(&manager, &options);
    config_deinit(&config);
    free(passed_path);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
