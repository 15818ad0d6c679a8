/* SPDX-License-Identifier: MIT */

/*
 * conformance: asks what mmap(MAP_DROPPABLE) does, and prints one line for each check: "section.name: words".
 *
 * It is a plain client: it knows mmap(2) and no droppable library, so that what serves it is decided by who starts it. What it
 * prints depends on nothing but that: no address, no time, no number that differs between two runs.
 *
 * Each check runs in a process of its own, so that one that dies or hangs costs its own line alone.
 */

#include "sections.h"

#include <argp.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define CHECK_SECONDS "60" /* unless CONFORMANCE_SECONDS says otherwise */
#define LINE_SIZE 4096

static const struct section *const sections[] = {
    &section_map,    &section_place, &section_advice, &section_lock, &section_protect, &section_resident,
    &section_unmap,  &section_remap, &section_size,   &section_fork, &section_thread,  &section_calls,
    &section_others, &section_smaps, &section_core,   &section_misc, &section_confine, NULL,
};
static const struct section *only[64];
static size_t n_only;

static long now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads words until all who could say some have ended. false: they did not in time. */
static bool hear(int fd, char *line, size_t size) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    const char *seconds = getenv("CONFORMANCE_SECONDS");
    long deadline = now_ms() + strtol(seconds ? seconds : CHECK_SECONDS, NULL, 10) * 1000;
    size_t length = 0;

    for (;;) {
        long left = deadline - now_ms();
        ssize_t n;

        line[length] = '\0';
        if (left <= 0 || poll(&poll_fd, 1, (int)left) <= 0)
            return false;
        n = read(fd, line + length, size - length - 1);
        if (n <= 0)
            return true;
        length += (size_t)n;
    }
}

/*
 * One CPU: what MADV_PAGEOUT does not find on its list of pages, since another CPU has yet to put it there, the kernel leaves
 * alone.
 */
static void stay_here(void) {
    cpu_set_t here;

    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    sched_setaffinity(0, sizeof(here), &here);
}

static void run_check(const struct section *section, const struct check *check) {
    char line[LINE_SIZE];
    int fds[2], status = 0;
    bool in_time;
    pid_t pid;

    fflush(stdout);
    if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        perror("conformance");
        exit(2);
    }
    if (pid == 0) {
        setpgid(0, 0);
        stay_here();
        close(fds[0]);
        say_init(fds[1]);
        check->run(check);
        _exit(0);
    }
    setpgid(pid, pid);
    close(fds[1]);
    in_time = hear(fds[0], line, sizeof(line));
    if (!in_time)
        kill(-pid, SIGKILL); /* the group is the check's own */
    waitpid(pid, &status, 0);
    close(fds[0]);
    printf("%s.%s:%s", section->name, check->name, line);
    if (!in_time)
        printf(" hangs");
    else if (WIFSIGNALED(status))
        printf(" killed=%s", signal_name(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        printf(" exit=%d", WEXITSTATUS(status));
    printf("\n");
}

static void run_section(const struct section *section) {
    for (const struct check *check = section->checks; check->name; check++)
        run_check(section, check);
}

static void list(void) {
    for (size_t i = 0; sections[i]; i++) {
        size_t n = 0;

        while (sections[i]->checks[n].name)
            n++;
        printf("%-10s %4zu\n", sections[i]->name, n);
    }
    exit(0);
}

static error_t parse(int key, char *argument, struct argp_state *state) {
    switch (key) {
    case 's':
        for (size_t i = 0; sections[i]; i++)
            if (strcmp(sections[i]->name, argument) == 0 && n_only < sizeof(only) / sizeof(only[0])) {
                only[n_only++] = sections[i];
                return 0;
            }
        argp_error(state, "no section '%s' (see --list)", argument);
        return EINVAL;
    case 'l':
        list();
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What becomes of droppable memory over execve(2): the fork section runs this program as that. */
static void after_exec(char **argv) {
    const char *address = (const char *)strtoul(argv[2], NULL, 16); /* NOLINT */
    int pipe_fds[2];

    say_init(atoi(argv[3]));
    if (pipe(pipe_fds) == 0)
        say_result("after-exec", write(pipe_fds[1], address, 1));
    _exit(0);
}

int main(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"section", 's', "NAME", 0, "Only this section (may be given more than once)", 0},
        {"list", 'l', NULL, 0, "Names the sections, with their numbers of checks", 0},
        {0},
    };
    static const struct argp argp = {
        options, parse, NULL, "Says what mmap(MAP_DROPPABLE) does here, a line for each check.", NULL, NULL, NULL};

    if (argc == 4 && strcmp(argv[1], "--after-exec") == 0)
        after_exec(argv);
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    for (size_t i = 0; i < n_only; i++)
        run_section(only[i]);
    for (size_t i = 0; n_only == 0 && sections[i]; i++)
        run_section(sections[i]);
    return fflush(stdout) == 0 ? 0 : 2;
}
