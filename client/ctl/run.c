/* SPDX-License-Identifier: MIT */

/*
 * `run`: a program with a service of its own, for as long as the program runs; no privileges, nothing to set up.
 *
 * Owns a private directory with the socket, the daemon and the program, and leaves none of them behind: the daemon is
 * ended after the program, and by the kernel if this process is killed. The daemon has a process group of its own, so
 * that the terminal's Ctrl-C reaches the program alone, which may handle it and go on.
 *
 * INT, TERM, HUP and CHLD are blocked here from the start and taken one after the other by sigwaitinfo(2): no handler,
 * no race. Signals sent to this process go on to the program; those of the terminal it got itself.
 */

#include "ctl.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_TRIES 1000
#define START_WAIT_NS 10000000 /* between two tries: ten seconds in all */
#define END_TRIES 500

struct run {
    char directory[PATH_MAX - 16];
    char socket[PATH_MAX];
    pid_t daemon; /* 0: ended and reaped */
    pid_t program;
    sigset_t before; /* the signal mask that we were started with */
    sigset_t waited;
};

static int make_directory(struct run *run) {
    const char *parent = secure_getenv("XDG_RUNTIME_DIR");
    int n = -1;

    if (parent && *parent == '/') {
        n = snprintf(run->directory, sizeof(run->directory), "%s/droppable-XXXXXX", parent);
        if (n > 0 && (size_t)n < sizeof(run->directory) && !mkdtemp(run->directory))
            n = -1;
    }
    if (n < 0) {
        snprintf(run->directory, sizeof(run->directory), "/tmp/droppable-XXXXXX");
        if (!mkdtemp(run->directory)) {
            perror("droppablectl: run: cannot make a private directory in $XDG_RUNTIME_DIR or /tmp");
            run->directory[0] = '\0';
            return -1;
        }
    }
    snprintf(run->socket, sizeof(run->socket), "%s/sock", run->directory);
    if (strlen(run->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        fprintf(stderr, "droppablectl: run: %s is too long for a socket; set XDG_RUNTIME_DIR to a shorter path\n",
                run->socket);
        return -1;
    }
    return 0;
}

/* Whatever the daemon left in its directory, then the directory. */
static void remove_directory(struct run *run) {
    DIR *dir = run->directory[0] ? opendir(run->directory) : NULL;
    struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    if (rmdir(run->directory) < 0)
        fprintf(stderr, "droppablectl: run: cannot remove %s: %s, ignoring\n", run->directory, strerror(errno));
}

/* The daemon to start: $DROPPABLED, beside this program, in the build tree, or the name alone for $PATH. */
static void find_daemon(char *path, size_t size) {
    static const char *const places[] = {"droppabled", "../daemon/droppabled", "../sbin/droppabled"};
    const char *given = secure_getenv("DROPPABLED");
    char self[PATH_MAX];
    ssize_t n;

    if (given && *given) {
        snprintf(path, size, "%s", given);
        return;
    }
    n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        *(strrchr(self, '/') + 1) = '\0';
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
            int length = snprintf(path, size, "%s%s", self, places[i]);

            if (length > 0 && (size_t)length < size && access(path, X_OK) == 0)
                return;
        }
    }
    snprintf(path, size, "droppabled");
}

static int start_daemon(struct run *run) {
    pid_t parent = getpid();
    char path[PATH_MAX];

    find_daemon(path, sizeof(path));
    run->daemon = fork();
    if (run->daemon < 0) {
        perror("droppablectl: run: fork");
        run->daemon = 0;
        return -1;
    }
    if (run->daemon > 0)
        return 0;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(CTL_RUN_FAILURE);
    sigprocmask(SIG_SETMASK, &run->before, NULL);
    execlp(path, path, "--socket", run->socket, (char *)NULL);
    fprintf(stderr, "droppablectl: run: cannot start %s: %s; set DROPPABLED to its path\n", path, strerror(errno));
    _exit(CTL_RUN_FAILURE);
}

static bool accepts(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool ok;

    memcpy(address.sun_path, path, strlen(path) + 1);
    ok = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool daemon_ended(struct run *run) {
    if (run->daemon > 0 && waitpid(run->daemon, NULL, WNOHANG) == run->daemon)
        run->daemon = 0;
    return run->daemon == 0;
}

/* A signal that comes meanwhile stays pending; TERM and the like end the wait. */
static bool interrupted(void) {
    sigset_t pending;

    sigpending(&pending);
    return sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) || sigismember(&pending, SIGHUP);
}

static int wait_daemon(struct run *run) {
    const struct timespec pause = {.tv_nsec = START_WAIT_NS};

    for (unsigned i = 0; i < START_TRIES; i++) {
        if (accepts(run->socket))
            return 0;
        if (daemon_ended(run)) {
            fprintf(stderr, "droppablectl: run: the service ended before it was ready\n");
            return -1;
        }
        if (interrupted())
            return -1;
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "droppablectl: run: the service was not ready in time\n");
    return -1;
}

static int start_program(struct run *run, char **program) {
    int error;

    run->program = fork();
    if (run->program < 0) {
        perror("droppablectl: run: fork");
        return -1;
    }
    if (run->program > 0)
        return 0;
    sigprocmask(SIG_SETMASK, &run->before, NULL);
    if (setenv("DROPPABLE_SOCKET", run->socket, 1) == 0)
        execvp(program[0], program);
    error = errno;
    fprintf(stderr, "droppablectl: run: %s: %s\n", program[0], strerror(error));
    _exit(error == ENOENT ? CTL_RUN_NOT_FOUND : CTL_RUN_NOT_EXECUTABLE);
}

/* Until the program has ended. Returns its exit status. */
static int wait_program(struct run *run) {
    siginfo_t info;
    int status;

    for (;;) {
        if (waitpid(run->program, &status, WNOHANG) == run->program)
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (run->daemon > 0 && daemon_ended(run))
            fprintf(stderr, "droppablectl: run: the service ended early; the program goes on with plain memory\n");
        if (sigwaitinfo(&run->waited, &info) < 0)
            continue;
        /* SI_KERNEL: from the terminal, to the whole foreground group. */
        if (info.si_signo != SIGCHLD && info.si_code != SI_KERNEL)
            kill(run->program, info.si_signo);
    }
}

static void end_daemon(struct run *run) {
    const struct timespec pause = {.tv_nsec = START_WAIT_NS};

    if (daemon_ended(run))
        return;
    kill(run->daemon, SIGTERM);
    for (unsigned i = 0; i < END_TRIES; i++) {
        if (daemon_ended(run))
            return;
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "droppablectl: run: the service does not end, killing it\n");
    kill(run->daemon, SIGKILL);
    waitpid(run->daemon, NULL, 0);
}

int ctl_run(const struct ctl_options *options) {
    struct run run = {0};
    int status = CTL_RUN_FAILURE;

    sigemptyset(&run.waited);
    sigaddset(&run.waited, SIGINT);
    sigaddset(&run.waited, SIGTERM);
    sigaddset(&run.waited, SIGHUP);
    sigaddset(&run.waited, SIGCHLD);
    sigprocmask(SIG_BLOCK, &run.waited, &run.before);
    /* An ignored SIGCHLD that we inherited would reap our children for us. */
    signal(SIGCHLD, SIG_DFL);

    if (make_directory(&run) == 0 && start_daemon(&run) == 0 && wait_daemon(&run) == 0 &&
        start_program(&run, options->program) == 0)
        status = wait_program(&run);
    end_daemon(&run);
    remove_directory(&run);
    return status;
}
