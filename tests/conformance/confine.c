/* SPDX-License-Identifier: MIT */

/*
 * Programs that close, give up or lose what they do not use. Droppable memory is memory: it takes no descriptor, no file,
 * no socket, no thread, no privilege. Each of these comes before the first mapping, or after it.
 */

#include "filter.h"
#include "sections.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SIZE (64 * PAGE)

enum confinement {
    NOTHING,
    CHROOT,
    NOBODY,
    NO_DESCRIPTORS,
    NO_SOCKETS,
    NETWORK,
    NOT_DUMPABLE,
    CLOSED,
    OVERWRITTEN,
    FULL
};

/* socket(2) gets EPERM, and what else it takes to reach a service, as in many a sandbox. */
static void deny_sockets(void) {
    static const struct filter_rule rules[] = {
        {.call = SYS_socket, .error = EPERM},
        {.call = SYS_connect, .error = EPERM},
        {.call = SYS_sendmsg, .error = EPERM},
    };

    if (filter_install(rules, sizeof(rules) / sizeof(rules[0]), NULL) < 0)
        say_result("seccomp", -1);
}

/* All but the one that words go to, as a program does that becomes a service. */
static void close_all(void) {
    int words = say_descriptor();

    close_range(0, (unsigned)words - 1, 0);
    close_range((unsigned)words + 1, ~0U, 0);
}

/* Every number that a program may choose by dup2(2). */
static void overwrite_all(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < 64; i++)
        if (i != say_descriptor() && i != null)
            dup2(null, i);
}

static void use_up_descriptors(void) {
    while (dup(say_descriptor()) >= 0)
        continue;
}

static void confine(long how) {
    const struct rlimit none = {0, 0};

    switch ((enum confinement)how) {
    case NOTHING:
        break;
    case CHROOT:
        if (chroot("/proc/self/fdinfo") < 0 || chdir("/") < 0)
            say_result("chroot", -1);
        break;
    case NOBODY:
        if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
            say_result("setresuid", -1);
        break;
    case NO_DESCRIPTORS:
        setrlimit(RLIMIT_NOFILE, &none);
        break;
    case NO_SOCKETS:
        deny_sockets();
        break;
    case NETWORK:
        if (unshare(CLONE_NEWNET) < 0)
            say_absent();
        break;
    case NOT_DUMPABLE:
        prctl(PR_SET_DUMPABLE, 0);
        break;
    case CLOSED:
        close_all();
        break;
    case OVERWRITTEN:
        overwrite_all();
        break;
    case FULL:
        use_up_descriptors();
        break;
    }
}

static void child_looks(void *data) {
    say("child=%s", seen(data, SIZE));
    say("child-write=%s", written(data, SIZE));
}

/* Everything that the memory is to do. */
static void use(char *p) {
    unsigned char vector[64];
    unsigned n = 0;

    say("write=%s", written(p, SIZE));
    fill(p, SIZE);
    say("read=%s", seen(p, SIZE));
    say_result("dontneed", madvise(p, 8 * PAGE, MADV_DONTNEED));
    say("read=%s rest=%s", seen(p, 8 * PAGE), seen(p + 8 * PAGE, SIZE - 8 * PAGE));
    fill(p, SIZE);
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say_result("mincore", mincore(p, SIZE, vector));
    for (size_t i = 0; i < sizeof(vector); i++)
        n += vector[i] & 1U;
    say("resident=%u read=%s", n, seen(p, SIZE));
    fill(p, SIZE);
    in_child(child_looks, p);
    say("parent=%s", seen(p, SIZE));
    say_result("munmap-part", munmap(p, 8 * PAGE));
    say("read=%s rest=%s", seen(p, PAGE), seen(p + 8 * PAGE, SIZE - 8 * PAGE));
}

static void run_before(const struct check *c) {
    char *place = place_alone(SIZE), *p;

    confine(c->a);
    p = mmap(place, SIZE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0);
    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p != MAP_FAILED)
        use(p);
}

static void run_after(const struct check *c) {
    char *place = place_alone(SIZE), *p = droppable_alone(SIZE), *q;

    fill(p, SIZE);
    confine(c->a);
    use(p);
    q = mmap(place, SIZE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0);
    say_result("second", q == MAP_FAILED ? -1 : 0);
    if (q != MAP_FAILED)
        use(q);
}

/* Memory takes no descriptor's number: the next file gets the one that it would have got. */
static void run_numbers(const struct check *c) {
    int before = dup(0), after, n = 0;

    close(before);
    for (int fd = 0; fd < 1024; fd++)
        n -= fcntl(fd, F_GETFD) >= 0;
    for (long i = 0; i < c->a; i++)
        fill(droppable(SIZE), SIZE);
    after = dup(0);
    say("next=%s", after == before ? "same" : "another");
    close(after);
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    say("more-descriptors=%d", n);
}

/* Nor a thread. */
static void run_threads(const struct check *c) {
    char line[256];
    FILE *file;

    (void)c;
    fill(droppable(SIZE), SIZE);
    file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, "Threads:", 8) == 0)
            say("threads=%d", atoi(line + 8));
    say_result("unshare", unshare(CLONE_NEWUSER)); /* which a process of two threads may not */
}

/* A child of its own is all that wait(2) tells of, and all that signals SIGCHLD. */
static void run_children(const struct check *c) {
    (void)c;
    fill(droppable(SIZE), SIZE);
    say_result("wait", waitpid(-1, NULL, WNOHANG));
}

static void run_blocked_signals(const struct check *c) {
    sigset_t all, after;
    unsigned n = 0;

    (void)c;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV); /* a fault while it is blocked kills */
    sigdelset(&all, SIGBUS);
    sigprocmask(SIG_SETMASK, &all, NULL);
    use(droppable_alone(SIZE));
    sigprocmask(SIG_SETMASK, NULL, &after);
    for (int i = 1; i < 32; i++)
        n += sigismember(&after, i) == 1;
    sigpending(&after);
    for (int i = 1; i < 32; i++)
        if (sigismember(&after, i) == 1)
            say("pending=%s", signal_name(i));
    say("blocked=%u", n);
}

static const struct check checks[] = {
    {"before-nothing", run_before, NOTHING, 0},
    {"before-chroot", run_before, CHROOT, 0},
    {"before-nobody", run_before, NOBODY, 0},
    {"before-no-descriptors", run_before, NO_DESCRIPTORS, 0},
    {"before-no-sockets", run_before, NO_SOCKETS, 0},
    {"before-network-namespace", run_before, NETWORK, 0},
    {"before-not-dumpable", run_before, NOT_DUMPABLE, 0},
    {"before-close-all", run_before, CLOSED, 0},
    {"before-descriptors-used-up", run_before, FULL, 0},
    {"after-nothing", run_after, NOTHING, 0},
    {"after-chroot", run_after, CHROOT, 0},
    {"after-nobody", run_after, NOBODY, 0},
    {"after-no-descriptors", run_after, NO_DESCRIPTORS, 0},
    {"after-no-sockets", run_after, NO_SOCKETS, 0},
    {"after-network-namespace", run_after, NETWORK, 0},
    {"after-not-dumpable", run_after, NOT_DUMPABLE, 0},
    {"after-close-all", run_after, CLOSED, 0},
    {"after-dup2-over-all", run_after, OVERWRITTEN, 0},
    {"after-descriptors-used-up", run_after, FULL, 0},
    {"descriptors-of-one", run_numbers, 1, 0},
    {"descriptors-of-ten", run_numbers, 10, 0},
    {"threads", run_threads, 0, 0},
    {"children", run_children, 0, 0},
    {"blocked-signals", run_blocked_signals, 0, 0},
    {0},
};

const struct section section_confine = {"confine", checks};
