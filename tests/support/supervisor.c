/* SPDX-License-Identifier: MIT */
/* The other side of sd_notify(3) and sd_listen_fds(3), written down from their manual pages and not by libsystemd: two readings of them must agree. */

#include "supervisor.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define FIRST_PASSED 3
#define ENVIRONMENT_MAX 256
#define END_MS 30000

extern char **environ;

static int bind_socket(int type, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_uint_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    unlink(path);
    ck_assert_msg(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", path, strerror(errno));
    return fd;
}

void supervisor_init(struct supervisor *supervisor, const char *config) {
    *supervisor = (struct supervisor){.notify = -1};
    service_prepare(&supervisor->service, config);
    snprintf(supervisor->notify_path, sizeof(supervisor->notify_path), "%s/notify", supervisor->service.dir);
    supervisor->notify = bind_socket(SOCK_DGRAM, supervisor->notify_path);
}

int supervisor_bind(struct supervisor *supervisor, int type, const char *path) {
    int fd = bind_socket(type, path);

    ck_assert_uint_lt(supervisor->n_passed, SUPERVISOR_PASSED_MAX);
    supervisor->passed[supervisor->n_passed++] = fd;
    return fd;
}

/* ---- the start ---- */

struct start {
    char variables[5][128];
    char *environment[ENVIRONMENT_MAX];
    const char *arguments[8];
    char program[512];
};

static bool is_ours(const char *variable) {
    static const char *const names[] = {"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static void prepare(struct start *start, const struct supervisor *supervisor, const char *socket) {
    const struct service *service = &supervisor->service;
    const char *const arguments[] = {
        program_path("droppabled", start->program, sizeof(start->program)),
        "--log-level",
        "debug",
        "--config",
        service->config,
        socket ? "--socket" : NULL,
        socket,
        NULL,
    };
    size_t n = 0, used = 0;

    memcpy(start->arguments, arguments, sizeof(arguments));
    for (char **variable = environ; *variable; variable++) {
        ck_assert_uint_lt(n + 6, ENVIRONMENT_MAX);
        if (!is_ours(*variable))
            start->environment[n++] = *variable;
    }
    snprintf(start->variables[used++], 128, "NOTIFY_SOCKET=%s", supervisor->notify_path);
    if (supervisor->watchdog_ms > 0)
        snprintf(start->variables[used++], 128, "WATCHDOG_USEC=%llu",
                 (unsigned long long)supervisor->watchdog_ms * 1000);
    if (supervisor->n_passed > 0)
        snprintf(start->variables[used++], 128, "LISTEN_FDS=%zu", supervisor->n_passed);
    for (size_t i = 0; i < used; i++)
        start->environment[n++] = start->variables[i];
    if (supervisor->n_passed > 0)
        start->environment[n++] = start->variables[4]; /* LISTEN_PID=, of the child */
    start->environment[n] = NULL;
}

/* After vfork(): only this, and the descriptors are the child's own. */
static void become_service(const struct supervisor *supervisor, struct start *start, int log, pid_t parent) {
    int high[SUPERVISOR_PASSED_MAX];
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(log, STDERR_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0)
        _exit(126);
    snprintf(start->variables[4], 128, "LISTEN_PID=%d", (int)getpid());
    for (size_t i = 0; i < supervisor->n_passed; i++)
        high[i] = fcntl(supervisor->passed[i], F_DUPFD_CLOEXEC, 100); /* out of the way of the numbers they go to */
    for (size_t i = 0; i < supervisor->n_passed; i++)
        if (dup2(high[i], FIRST_PASSED + (int)i) < 0)
            _exit(126);
    execve(start->program, (char *const *)start->arguments, start->environment);
    _exit(127);
}

void supervisor_start(struct supervisor *supervisor, const char *socket) {
    static struct start start;
    int log = open(supervisor->service.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    pid_t parent = getpid();
    pid_t child;

    ck_assert_msg(log >= 0, "%s: %s", supervisor->service.log, strerror(errno));
    prepare(&start, supervisor, socket);
    child = vfork();
    if (child == 0)
        become_service(supervisor, &start, log, parent);
    ck_assert_msg(child > 0, "vfork: %s", strerror(errno));
    close(log);
    supervisor->service.pid = child;
}

/* ---- messages ---- */

static bool has_line(const char *text, const char *line) {
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, line, strlen(line)) == 0)
            return true;
    }
    return false;
}

bool supervisor_hears(struct supervisor *supervisor, const char *line, char *ret, size_t size, int timeout_ms) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);

    for (;;) {
        struct pollfd input = {.fd = supervisor->notify, .events = POLLIN};
        uint64_t now = now_ms();
        ssize_t n;

        if (poll(&input, 1, now < deadline ? (int)(deadline - now) : 0) <= 0)
            return false;
        n = recv(supervisor->notify, ret, size - 1, MSG_DONTWAIT);
        ck_assert_int_ge(n, 0);
        ret[n] = '\0';
        if (has_line(ret, line))
            return true;
    }
}

void supervisor_drain(struct supervisor *supervisor) {
    char text[1024];

    while (recv(supervisor->notify, text, sizeof(text), MSG_DONTWAIT) >= 0)
        ;
}

void supervisor_end(struct supervisor *supervisor) {
    unlink(supervisor->notify_path);
    close(supervisor->notify);
    for (size_t i = 0; i < supervisor->n_passed; i++)
        close(supervisor->passed[i]);
    if (supervisor->n_passed > 0 && supervisor->service.pid > 0) { /* whoever made a socket removes it */
        int status;

        kill(supervisor->service.pid, SIGTERM);
        ck_assert(service_wait(&supervisor->service, END_MS, &status));
        ck_assert_int_eq(status, 0);
        ck_assert_int_eq(unlink(supervisor->service.socket), 0);
    }
    service_stop(&supervisor->service);
}
