/* SPDX-License-Identifier: MIT */
/*
 * Client processes. Each has a socket pair with the test: a closed end wakes the other side, so that nobody waits for the dead. Children
 * leave by _exit(): what the test's process has to do at its end is not theirs.
 */

#include "child.h"

#include "service.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define QUIET_WAIT_MS 1000

static bool thread_runs(const char *tid) {
    char path[64], line[256], *end;
    bool runs = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%.16s/stat", tid);
    f = fopen(path, "re");
    if (!f)
        return false;
    if (fgets(line, sizeof(line), f) && (end = strrchr(line, ')')))
        runs = end[1] == ' ' && end[2] == 'R';
    fclose(f);
    return runs;
}

static bool other_threads_run(void) {
    DIR *tasks = opendir("/proc/self/task");
    bool run = false;

    if (!tasks)
        return false;
    for (struct dirent *task; !run && (task = readdir(tasks));)
        run = task->d_name[0] != '.' && atol(task->d_name) != syscall(SYS_gettid) && thread_runs(task->d_name);
    closedir(tasks);
    return run;
}

/*
 * A sanitizer's allocator has locks that fork(2) does not know: the library's thread, starting, left one locked in the child, which then
 * waited for ever. A thread that holds one runs, or is ready to.
 */
void child_let_threads_sleep(void) {
    if (!under_sanitizer())
        return;
    for (uint64_t deadline = now_ms() + QUIET_WAIT_MS; other_threads_run() && now_ms() < deadline;)
        sched_yield();
}

/* Check has no way to ask for its file, of which it keeps no name. */
void child_leave_check(void) {
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);

    for (int fd = STDERR_FILENO + 1; fd < 64; fd++) {
        char path[32], name[64] = "";

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (readlink(path, name, sizeof(name) - 1) > 0 && strstr(name, "/check_"))
            dup2(nothing, fd);
    }
    close(nothing);
}

void child_start(struct child *child, void (*run)(int socket, void *data), void *data) {
    pid_t parent = getpid();
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    fflush(NULL);
    child_let_threads_sleep();
    child->pid = fork();
    ck_assert_int_ge(child->pid, 0);
    if (child->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(ends[0]);
        run(ends[1], data);
        _exit(0);
    }
    close(ends[1]);
    child->socket = ends[0];
}

void child_become_nobody(void) {
    if (geteuid() != 0)
        return;
    child_check(setgroups(0, NULL) == 0);
    child_check(setresgid(NOBODY, NOBODY, NOBODY) == 0);
    child_check(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    /* A change of uid takes these away. */
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0);
    child_check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
}

bool child_say(int socket, char word) {
    return send(socket, &word, 1, MSG_NOSIGNAL) == 1;
}

bool child_hear(int socket, char *ret_word) {
    struct pollfd readable = {.fd = socket, .events = POLLIN};

    return poll(&readable, 1, CHILD_WAIT_MS * (int)patience()) == 1 && read(socket, ret_word, 1) == 1;
}

void child_expect(const struct child *child, char word) {
    char heard = 0;

    ck_assert_msg(child_hear(child->socket, &heard), "the child %d ended, or says nothing instead of '%c'",
                  (int)child->pid, word);
    ck_assert_int_eq(heard, word);
}

static int child_wait(struct child *child) {
    int status;

    ck_assert_msg(process_ends(child->pid, CHILD_WAIT_MS), "the child %d does not end", (int)child->pid);
    ck_assert_int_eq(waitpid(child->pid, &status, 0), child->pid);
    close(child->socket);
    child->pid = -1;
    return status;
}

void child_end(struct child *child) {
    int status = child_wait(child);

    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with status %#x", (unsigned)status);
}

bool child_survived(struct child *child) {
    int status = child_wait(child);

    ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) == 0, "a child ended with status %#x", (unsigned)status);
    return WIFEXITED(status);
}

void child_kill(struct child *child) {
    kill(child->pid, SIGKILL);
    child_wait(child);
}
