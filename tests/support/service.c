/* SPDX-License-Identifier: MIT */
/*
 * A private droppabled for a test. The service is a child of the thread that starts it and dies with that thread; a test that fails
 * therefore leaves nothing behind but its folder in /tmp, with the log.
 *
 * Programs are started with posix_spawn-like care: the test may have threads, and the library under test has fork handlers that must not
 * see these children. So it is vfork() for the service, whose child sets PR_SET_PDEATHSIG, and posix_spawn() for droppablectl.
 *
 * Every wait is for an event (inotify, pidfd) and has a deadline. Only the service's own descriptors have no event; these are looked at
 * every few milliseconds.
 */

#include "service.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 30000
#define STOP_MS 30000
#define CTL_MS 60000
#define LOG_TAIL 16384

extern char **environ;

/* ---- this process ---- */

bool under_sanitizer(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#else
    return false;
#endif
#else
    return false;
#endif
}

void skip_all(const char *reason) {
    printf("SKIP: %s\n", reason);
    fflush(stdout);
    exit(77);
}

const char *program_path(const char *name, char *path, size_t size) {
    const char *bindir = getenv("DROPPABLE_TEST_BINDIR");

    snprintf(path, size, "%s/%s", bindir ? bindir : "build/dev/bin", name);
    if (access(path, X_OK) < 0)
        ck_abort_msg("%s: %s: set DROPPABLE_TEST_BINDIR to where the programs were built", path, strerror(errno));
    return path;
}

static int left_ms(uint64_t deadline) {
    uint64_t now = now_ms();

    return now < deadline ? (int)(deadline - now) : 0;
}

/* ---- the log ---- */

/* The log from an offset on; malloc'd, NUL-terminated. */
static char *log_read(const struct service *service, off_t offset) {
    int fd = open(service->log, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t n = 0;
    char *text;

    ck_assert_msg(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", service->log, strerror(errno));
    if (offset > st.st_size)
        offset = st.st_size;
    text = malloc((size_t)(st.st_size - offset) + 1);
    ck_assert_ptr_nonnull(text);
    for (ssize_t r; n < st.st_size - offset; n += r) {
        r = pread(fd, text + n, (size_t)(st.st_size - offset - n), offset + n);
        if (r <= 0)
            break;
    }
    text[n] = '\0';
    close(fd);
    return text;
}

static off_t log_size(const struct service *service) {
    struct stat st;

    return stat(service->log, &st) == 0 ? st.st_size : 0;
}

static void log_show(const struct service *service) {
    off_t size = log_size(service);
    char *text = log_read(service, size > LOG_TAIL ? size - LOG_TAIL : 0);

    printf("---- %s\n%s----\n", service->log, text);
    fflush(stdout);
    free(text);
}

static bool log_contains(const struct service *service, off_t offset, const char *text) {
    char *log = log_read(service, offset);
    bool found = strstr(log, text) != NULL;

    free(log);
    return found;
}

/* A pidfd, or -1 before Linux 5.3. */
static int open_process(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    ck_assert(fd >= 0 || errno == ENOSYS);
    return fd;
}

uint64_t process_cpu_ns(pid_t pid) {
    struct timespec time;
    clockid_t clock;

    ck_assert_int_eq(clock_getcpuclockid(pid, &clock), 0);
    ck_assert_int_eq(clock_gettime(clock, &time), 0);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

bool process_ends(pid_t pid, int timeout_ms) {
    struct pollfd end = {.fd = open_process(pid), .events = POLLIN};
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);
    siginfo_t info = {0};
    bool ended;

    if (end.fd >= 0) {
        ended = poll(&end, 1, left_ms(deadline)) == 1;
        close(end.fd);
        return ended;
    }
    for (;;) { /* no event there */
        ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
        if (info.si_pid != 0 || now_ms() >= deadline)
            return info.si_pid != 0;
        nap_ms(1);
    }
}

/* Waits for a text behind offset; pidfd: -1, or a process whose end means that it won't come. */
static bool log_wait(const struct service *service, off_t offset, const char *text, int pidfd, int timeout_ms) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);
    int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool found, over = false;

    ck_assert_int_ge(notify, 0);
    ck_assert_int_ge(inotify_add_watch(notify, service->log, IN_MODIFY), 0);
    while (!(found = log_contains(service, offset, text)) && !over) {
        struct pollfd polls[2] = {{.fd = notify, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};

        over = poll(polls, 2, left_ms(deadline)) == 0 || polls[1].revents;
        while (read(notify, events, sizeof(events)) > 0)
            ;
    }
    close(notify);
    return found;
}

bool service_log_has(const struct service *service, const char *text, int timeout_ms) {
    return log_wait(service, 0, text, -1, timeout_ms);
}

/* ---- life ---- */

static const char *record;

void service_record(const char *path) {
    record = path;
}

static void (*run_before_exec)(void);
static void (*run_started)(int pid);

void service_before_exec(void (*run)(void), void (*started)(int pid)) {
    run_before_exec = run;
    run_started = started;
}

static void service_exec(const struct service *service) {
    char program[512];
    const char *arguments[] = {program_path("droppabled", program, sizeof(program)),
                               "--socket",
                               service->socket,
                               "--log-level",
                               "debug",
                               "--config",
                               service->config,
                               record ? "--record" : NULL,
                               record,
                               NULL};
    int log = open(service->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    pid_t parent = getpid();
    pid_t child;

    ck_assert_msg(log >= 0, "%s: %s", service->log, strerror(errno));
    child = vfork();
    if (child == 0) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || dup2(log, STDERR_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0)
            _exit(126);
        if (run_before_exec)
            run_before_exec();
        execve(program, (char *const *)arguments, environ);
        _exit(127);
    }
    ck_assert_msg(child > 0, "vfork: %s", strerror(errno));
    close(log);
    ((struct service *)service)->pid = child;
    if (run_started)
        run_started(child);
}

void service_restart(struct service *service) {
    off_t before = log_size(service);
    int pidfd;

    service_exec(service);
    pidfd = open_process(service->pid);
    if (!log_wait(service, before, "listening on", pidfd, START_MS)) {
        log_show(service);
        ck_abort_msg("droppabled does not start");
    }
    if (pidfd >= 0)
        close(pidfd);
}

void service_configure(const struct service *service, const char *config) {
    FILE *file = fopen(service->config, "we");

    ck_assert_ptr_nonnull(file);
    /* Counts of pages and chunks must not depend on a setting of the machine; the last assignment wins. */
    ck_assert_int_ge(fprintf(file, "[Daemon]\nSystemHugePages=no\n%s", config ? config : ""), 0);
    ck_assert_int_eq(fclose(file), 0);
}

void service_prepare(struct service *service, const char *config) {
    *service = (struct service){.pid = -1};
    strcpy(service->dir, "/tmp/droppable-test-XXXXXX");
    ck_assert_msg(mkdtemp(service->dir) != NULL, "%s: %s", service->dir, strerror(errno));
    ck_assert_int_eq(chmod(service->dir, 0755), 0); /* clients may be of another uid */
    snprintf(service->socket, sizeof(service->socket), "%s/socket", service->dir);
    snprintf(service->log, sizeof(service->log), "%s/log", service->dir);
    snprintf(service->config, sizeof(service->config), "%s/config", service->dir);
    service_configure(service, config);
    setenv("DROPPABLE_SOCKET", service->socket, 1);
}

void service_start(struct service *service, const char *config) {
    service_prepare(service, config);
    service_restart(service);
}

void service_reload(struct service *service, const char *config, const char *text) {
    off_t before = log_size(service);

    service_configure(service, config);
    ck_assert_int_eq(kill(service->pid, SIGHUP), 0);
    if (!log_wait(service, before, text, -1, START_MS)) {
        log_show(service);
        ck_abort_msg("the log has no '%s'", text);
    }
}

bool service_wait(struct service *service, int timeout_ms, int *ret_status) {
    bool ended = process_ends(service->pid, timeout_ms);

    if (ended) {
        ck_assert_int_eq(waitpid(service->pid, ret_status, 0), service->pid);
        service->pid = -1;
    }
    return ended;
}

bool service_kill(struct service *service, int wait_ms) {
    int status;

    ck_assert_int_gt(service->pid, 0);
    kill(service->pid, SIGKILL);
    return service_wait(service, wait_ms, &status);
}

static void service_check_log(const struct service *service) {
    static const char *const reports[] = {"ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
                                          "runtime error:", "WARNING: ThreadSanitizer"};

    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++)
        if (log_contains(service, 0, reports[i])) {
            log_show(service);
            ck_abort_msg("a sanitizer reports: %s", reports[i]);
        }
}

static void service_remove(const struct service *service) {
    unlink(service->socket);
    unlink(service->log);
    unlink(service->config);
    rmdir(service->dir);
}

void service_stop(struct service *service) {
    int status = 0;

    if (service->pid > 0) {
        kill(service->pid, SIGTERM);
        if (!service_wait(service, STOP_MS, &status)) {
            log_show(service);
            kill(service->pid, SIGKILL);
            ck_abort_msg("droppabled does not end on SIGTERM");
        }
        service_check_log(service);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            log_show(service);
            ck_abort_msg("droppabled ended with status %#x", (unsigned)status);
        }
        ck_assert_msg(access(service->socket, F_OK) < 0, "droppabled left its socket behind");
    }
    service_check_log(service);
    service_remove(service);
}

/* ---- droppablectl ---- */

/* Reads until the end of the pipe; false: not before the deadline. What has no room is thrown away. */
static bool read_all(int fd, char *out, size_t size, uint64_t deadline) {
    size_t have = 0;

    for (;;) {
        struct pollfd input = {.fd = fd, .events = POLLIN};
        char rest[4096];
        ssize_t n;

        if (poll(&input, 1, left_ms(deadline)) <= 0)
            return false;
        if (out && have + 1 < size)
            n = read(fd, out + have, size - 1 - have);
        else
            n = read(fd, rest, sizeof(rest));
        if (n <= 0)
            return n == 0;
        if (out && have + 1 < size)
            out[have += (size_t)n] = '\0';
    }
}

int service_ctl(const struct service *service, char *out, size_t size, const char *const *arguments) {
    uint64_t deadline = deadline_in(CTL_MS);
    const char *all[32] = {NULL, "--socket", service->socket};
    posix_spawn_file_actions_t actions;
    char program[512];
    int ends[2], status;
    size_t n = 3;
    pid_t pid;

    all[0] = program_path("droppablectl", program, sizeof(program));
    for (; *arguments; arguments++) {
        ck_assert_uint_lt(n + 1, sizeof(all) / sizeof(all[0]));
        all[n++] = *arguments;
    }
    if (out)
        *out = '\0';
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    ck_assert_int_eq(posix_spawn(&pid, program, &actions, NULL, (char *const *)all, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (!read_all(ends[0], out, size, deadline)) {
        kill(pid, SIGKILL);
        log_show(service);
        ck_abort_msg("droppablectl %s does not end", all[3]);
    }
    close(ends[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

uint64_t service_status(const struct service *service, const char *key) {
    char out[16384], quoted[80];
    const char *found;
    int status;

    status = service_ctl(service, out, sizeof(out), (const char *const[]){"--json", "status", NULL});
    if (status != 0) {
        log_show(service);
        ck_abort_msg("droppablectl --json status: exit status %d", status);
    }
    snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    found = strstr(out, quoted);
    ck_assert_msg(found != NULL, "droppablectl --json status has no '%s':\n%s", key, out);
    return strtoull(found + strlen(quoted), NULL, 10);
}

/* ---- descriptors and threads ---- */

/* Kernel threads that io_uring adds come and go by themselves. */
static bool is_kernel_worker(pid_t pid, const char *task) {
    char path[64], name[32] = "";
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)pid, task);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* gone */
    if (read(fd, name, sizeof(name) - 1) < 0)
        name[0] = '\0';
    close(fd);
    return strncmp(name, "iou-", 4) == 0;
}

static size_t count_folder(const char *path, bool show) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    size_t n = 0;

    while (folder && (entry = readdir(folder))) {
        char link[512], target[256];
        ssize_t length;

        if (entry->d_name[0] == '.')
            continue;
        n++;
        if (!show)
            continue;
        snprintf(link, sizeof(link), "%.128s/%.64s", path, entry->d_name);
        length = readlink(link, target, sizeof(target) - 1);
        printf("  %s -> %.*s\n", link, length > 0 ? (int)length : 1, length > 0 ? target : "?");
    }
    if (folder)
        closedir(folder);
    return n;
}

/* Of each thread; those that share a table are counted once each, which is good enough to compare. */
static size_t count_tasks(pid_t pid, bool descriptors, bool show) {
    struct dirent *entry;
    char path[64];
    size_t n = 0;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    while (tasks && (entry = readdir(tasks))) {
        if (entry->d_name[0] == '.' || is_kernel_worker(pid, entry->d_name))
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/fd", (int)pid, entry->d_name);
        n += descriptors ? count_folder(path, show) : 1;
    }
    if (tasks)
        closedir(tasks);
    return n;
}

size_t service_descriptors(const struct service *service) {
    return count_tasks(service->pid, true, false);
}

size_t service_threads(const struct service *service) {
    return count_tasks(service->pid, false, false);
}

/* The service is our child: is it still there? Does not reap it. */
static bool service_ended(const struct service *service) {
    siginfo_t info = {0};

    return service->pid > 0 &&
           (waitid(P_PID, (id_t)service->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid != 0);
}

/* What the service holds of a process where there are no pidfds. */
static bool is_process(const char *path) {
    const char *number = path + strlen("/proc/");

    return strncmp(path, "/proc/", strlen("/proc/")) == 0 && *number && strspn(number, "0123456789") == strlen(number);
}

/* Entries of a folder of /proc/PID, of which the text (a link, or the file comm) begins with one of these. */
static size_t count(const struct service *service, const char *folder, const char *const *beginnings,
                    size_t n_beginnings) {
    char path[320], text[128];
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)service->pid, folder);
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir))) {
        bool is_link = entry->d_type == DT_LNK;
        ssize_t size;
        int fd = -1;

        snprintf(path, sizeof(path), "/proc/%d/%s/%.16s%s", (int)service->pid, folder, entry->d_name,
                 is_link ? "" : "/comm");
        if (!is_link)
            fd = open(path, O_RDONLY | O_CLOEXEC);
        size = is_link ? readlink(path, text, sizeof(text) - 1) : read(fd, text, sizeof(text) - 1);
        text[size > 0 ? size : 0] = '\0';
        if (fd >= 0)
            close(fd);
        for (size_t i = 0; i < n_beginnings; i++)
            n += strncmp(text, beginnings[i], strlen(beginnings[i])) == 0;
        n += is_link && is_process(text);
    }
    closedir(dir);
    return n;
}

/* Its ends of connections have its socket's path. */
static size_t connections(const struct service *service) {
    char line[512], path[256];
    FILE *table = fopen("/proc/net/unix", "re");
    unsigned state;
    size_t n = 0;

    ck_assert_ptr_nonnull(table);
    while (fgets(line, sizeof(line), table))
        n += sscanf(line, "%*s %*s %*s %*s %*s %x %*s %255s", &state, path) == 2 && state == 3 &&
             strcmp(path, service->socket) == 0;
    fclose(table);
    return n;
}

size_t service_left_of_clients(const struct service *service) {
    static const char *const descriptors[] = {
        "/memfd:", "/#", "/droppable", "/SYSV", "anon_inode:[userfaultfd]", "anon_inode:[pidfd]"};
    static const char *const threads[] = {"drp-pager", "drp-dropper", "drp-vet"};
    const size_t own = 1; /* the clock page */

    return connections(service) + count(service, "fd", descriptors, sizeof(descriptors) / sizeof(descriptors[0])) -
           own + count(service, "task", threads, sizeof(threads) / sizeof(threads[0]));
}

void service_expect_descriptors(const struct service *service, size_t expected, int timeout_ms) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);
    size_t n;

    while ((n = service_descriptors(service)) != expected) {
        if (service_ended(service)) {
            log_show(service);
            ck_abort_msg("the service ended by itself");
        }
        if (now_ms() >= deadline) {
            count_tasks(service->pid, true, true);
            log_show(service);
            ck_abort_msg("the service has %zu descriptors, not %zu", n, expected);
        }
        nap_ms(5);
    }
}

size_t own_descriptors(void) {
    return count_folder("/proc/self/fd", false) - 1; /* less that of the folder itself */
}

size_t thread_descriptors(void) {
    return count_folder("/proc/thread-self/fd", false) - 1;
}
