/* SPDX-License-Identifier: MIT */

/* What children have: fork(2) of all kinds, vfork(2), clone(2), execve(2), children of children. */

#include "sections.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SIZE (64 * PAGE)

extern char **environ;

static char *filled(void) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    return p;
}

static void look_and_write(void *data) {
    char *p = data;

    say("child=%s", seen(p, SIZE));
    memset(p, 7, SIZE);
    say("child-write=%s", seen(p, SIZE));
}

static void run_fork(const struct check *c) {
    char *p = filled();

    for (long i = 0; i < c->a; i++)
        in_child(look_and_write, p);
    say("parent=%s", seen(p, SIZE));
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say("parent=%s", seen(p, SIZE));
}

static void run_untouched(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    in_child(look_and_write, p);
    say("parent=%s", seen(p, SIZE));
}

static pid_t clone3_by_hand(void) {
    struct clone_args args = {.exit_signal = SIGCHLD};

    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* Without the C library's fork(3), so without its handlers. */
static void run_system_call(const struct check *c) {
    char *p = filled();
    pid_t pid = c->a == 0   ? (pid_t)syscall(SYS_fork)
                : c->a == 1 ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL)
                : c->a == 2 ? clone3_by_hand()
                            : _Fork();

    if (pid == 0) {
        look_and_write(p);
        _exit(0);
    }
    if (pid < 0)
        say_result("fork", pid);
    wait_child(pid);
    say("parent=%s", seen(p, SIZE));
}

static void run_vfork(const struct check *c) {
    char *p = filled();
    pid_t pid;

    (void)c;
    pid = vfork();
    if (pid == 0) {
        p[0] = 7;
        _exit(0);
    }
    wait_child(pid);
    say("first=%s rest=%s", seen(p, PAGE), seen(p + PAGE, SIZE - PAGE));
}

static int in_clone(void *data) {
    char *p = data;

    say("child=%s", seen(p, SIZE));
    p[0] = 7;
    say_result("child-dontneed", madvise(p + PAGE, PAGE, MADV_DONTNEED));
    return 0;
}

static int in_own_memory(void *data) {
    look_and_write(data);
    return 0;
}

/* A child that begins in a function, on a stack of its own. */
static void run_clone(const struct check *c) {
    char *p = filled(), *stack = plain(64 * KIB);
    pid_t pid = clone(in_own_memory, stack + 64 * KIB, SIGCHLD, p);

    (void)c;
    wait_child(pid);
    say("parent=%s", seen(p, SIZE));
    say_result("no-function", clone(NULL, stack + 64 * KIB, SIGCHLD, p));
}

/* CLONE_VM: the same memory. */
static void run_clone_vm(const struct check *c) {
    char *p = filled(), *stack = plain(64 * KIB);
    pid_t pid = clone(in_clone, stack + 64 * KIB, CLONE_VM | SIGCHLD, p);

    (void)c;
    wait_child(pid);
    say("first=%s second=%s rest=%s", seen(p, PAGE), seen(p + PAGE, PAGE), seen(p + 2 * PAGE, SIZE - 2 * PAGE));
}

static void with_children(void *data) {
    look_and_write(data);
    in_child(look_and_write, data);
    say("child=%s", seen(data, SIZE));
}

static void run_grandchild(const struct check *c) {
    char *p = filled();

    (void)c;
    in_child(with_children, p);
    say("parent=%s", seen(p, SIZE));
}

/* A child's own droppable memory, and that it is empty in the child's child. */
static void own_memory(void *data) {
    char *q = filled();

    say("own=%s inherited=%s", seen(q, SIZE), seen(data, SIZE));
    in_child(look_and_write, q);
    say("own=%s", seen(q, SIZE));
    say_result("pageout", madvise(q, SIZE, MADV_PAGEOUT));
    say("own=%s", seen(q, SIZE));
}

static void run_own_in_child(const struct check *c) {
    char *p = filled();

    (void)c;
    in_child(own_memory, p);
    say("parent=%s", seen(p, SIZE));
}

/* What a child does to what it inherited. */
static void drops(void *data) {
    char *p = data;

    fill(p, SIZE);
    say_result("dontneed", madvise(p, 8 * PAGE, MADV_DONTNEED));
    say_result("pageout", madvise(p + 8 * PAGE, 8 * PAGE, MADV_PAGEOUT));
    say_result("free", madvise(p + 16 * PAGE, 8 * PAGE, MADV_FREE));
    say("dropped=%s kept=%s", seen(p, 16 * PAGE), seen(p + 24 * PAGE, SIZE - 24 * PAGE));
    say_result("mlock", mlock(p, SIZE));
    say_result("mprotect", mprotect(p, SIZE, PROT_READ));
    say("write=%s", written(p, PAGE));
    say_result("munmap", munmap(p, 8 * PAGE));
    say("read=%s rest=%s", seen(p, PAGE), seen(p + 24 * PAGE, PAGE));
}

static void run_child_drops(const struct check *c) {
    char *p = filled();

    (void)c;
    in_child(drops, p);
    say("parent=%s", seen(p, SIZE));
}

static void child_remaps(void *data) {
    char *p = data, *q;

    fill(p, SIZE);
    q = mremap(p, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
    say_result("mremap", q == MAP_FAILED ? -1 : 0);
    if (q != MAP_FAILED)
        say("read=%s grown=%s", seen(q, SIZE), seen(q + SIZE, SIZE));
}

static void run_child_remaps(const struct check *c) {
    char *p = filled();

    (void)c;
    in_child(child_remaps, p);
    say("parent=%s", seen(p, SIZE));
}

/* Child and parent take turns; both go on. */
static void run_both(const struct check *c) {
    char *p = filled();
    int go[2], done[2];
    char byte = '.';
    pid_t pid;

    (void)c;
    if (pipe(go) < 0 || pipe(done) < 0)
        say_result("pipe", -1);
    pid = fork();
    if (pid == 0) {
        memset(p, 7, SIZE);
        if (write(done[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1)
            _exit(1);
        say("child=%s", seen(p, SIZE));
        _exit(0);
    }
    if (read(done[0], &byte, 1) != 1)
        say_result("read", -1);
    say("parent=%s", seen(p, SIZE));
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say("parent=%s", seen(p, SIZE));
    say_result("munmap", munmap(p, SIZE));
    if (write(go[1], &byte, 1) != 1)
        say_result("write", -1);
    wait_child(pid);
}

static void executes(void *data) {
    char address[32], fd[16];

    snprintf(address, sizeof(address), "%p", data);
    snprintf(fd, sizeof(fd), "%d", dup(say_descriptor()));
    execl("/proc/self/exe", "conformance", "--after-exec", address, fd, (char *)NULL);
    say_result("execl", -1);
}

static void run_exec(const struct check *c) {
    char *p = filled();

    (void)c;
    in_child(executes, p);
    say("parent=%s", seen(p, SIZE));
}

static void run_spawn(const struct check *c) {
    char *p = filled(), *const arguments[] = {(char *)"true", NULL};
    pid_t pid = -1;

    (void)c;
    errno = posix_spawnp(&pid, "true", NULL, NULL, arguments, environ);
    say_result("posix_spawn", errno ? -1 : 0);
    wait_child(pid);
    say("parent=%s", seen(p, SIZE));
    say("system=%d", system("exit 3") >> 8);
    say("parent=%s", seen(p, SIZE));
}

/* Of many mappings, in pieces. */
static void run_pieces(const struct check *c) {
    char *maps[16];

    (void)c;
    for (size_t i = 0; i < 16; i++) {
        maps[i] = filled();
        /* No gap: anybody's next mapping could come there. */
        mmap(maps[i] + 8 * PAGE, 8 * PAGE, PROT_NONE, PLAIN | MAP_FIXED, -1, 0);
        mprotect(maps[i] + 32 * PAGE, 8 * PAGE, i % 2 ? PROT_READ : PROT_NONE);
    }
    for (unsigned child = 0; child < 2; child++) {
        pid_t pid = fork();

        if (pid == 0) {
            unsigned good = 0, cut = 0, denied = 0;

            for (size_t i = 0; i < 16; i++) {
                good += strcmp(seen(maps[i], 8 * PAGE), "zero") == 0 &&
                        strcmp(seen(maps[i] + 40 * PAGE, PAGE), "zero") == 0;
                cut += strncmp(seen(maps[i] + 8 * PAGE, PAGE), "SIGSEGV", 7) == 0;
                denied += strncmp(written(maps[i] + 32 * PAGE, PAGE), "SIGSEGV", 7) == 0;
            }
            say("zero=%u cut=%u denied=%u", good, cut, denied);
            _exit(0);
        }
        wait_child(pid);
    }
}

static const struct check checks[] = {
    {"once", run_fork, 1, 0},
    {"thrice", run_fork, 3, 0},
    {"untouched", run_untouched, 0, 0},
    {"system-call-fork", run_system_call, 0, 0},
    {"system-call-clone", run_system_call, 1, 0},
    {"system-call-clone3", run_system_call, 2, 0},
    {"_Fork", run_system_call, 3, 0},
    {"vfork", run_vfork, 0, 0},
    {"clone", run_clone, 0, 0},
    {"clone-vm", run_clone_vm, 0, 0},
    {"grandchild", run_grandchild, 0, 0},
    {"own-in-child", run_own_in_child, 0, 0},
    {"child-drops", run_child_drops, 0, 0},
    {"child-remaps", run_child_remaps, 0, 0},
    {"both", run_both, 0, 0},
    {"exec", run_exec, 0, 0},
    {"spawn", run_spawn, 0, 0},
    {"pieces", run_pieces, 0, 0},
    {0},
};

const struct section section_fork = {"fork", checks};
