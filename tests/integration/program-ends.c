/* SPDX-License-Identifier: MIT */
/*
 * The programs of test-preload-ends, which begin or end in a way of their own: children that the library hears nothing of, handlers of fork(2) that came before its
 * own, a main() that ends before the program.
 */

#include "child.h"
#include "early-handler.h"
#include "fixture.h"
#include "program.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGE ((size_t)4096)
#define MIB ((size_t)1 << 20)
#define SIZE (16 * PAGE)

static void expect_success(pid_t pid) {
    int status;

    child_check(pid > 0 && waitpid(pid, &status, 0) == pid);
    child_check(status == 0);
}

/* ---- past the library ---- */

/* By an instruction of our own where the library stands before syscall(2). */
static pid_t fork_past(void) {
#ifdef __x86_64__
    long r = SYS_fork;

    child_let_threads_sleep();
    __asm__ volatile("syscall" : "+a"(r) : : "rcx", "r11", "memory");
    return (pid_t)r;
#else
    child_let_threads_sleep();
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
}

/* Memory of its own, of a connection of its own, which its children find empty. */
static void use_own(void) {
    char *own = program_map(SIZE);
    pid_t pid;

    child_check(is_zero(own, SIZE));
    memset(own, 2, SIZE);
    pid = fork();
    if (pid == 0)
        _exit(!is_zero(own, SIZE) || munmap(own, PAGE) < 0);
    expect_success(pid);
    child_check(madvise(own, PAGE, MADV_DONTNEED) == 0 && is_zero(own, PAGE) && is_filled(own + PAGE, 2, SIZE - PAGE));
    child_check(munmap(own, SIZE) == 0);
}

/* The parent's are holes, and nobody's. */
static void use_holes(char *p) {
    char *plain;

    child_check(munmap(p, PAGE) == 0);
    child_check(madvise(p + PAGE, PAGE, MADV_DONTNEED) < 0 && errno == ENOMEM);
    child_check(mremap(p + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    plain = mmap(p + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    child_check(plain == p + 2 * PAGE && madvise(plain, PAGE, MADV_DODUMP) == 0);
}

void program_run_unhandled(int socket) {
    char *p = program_map(SIZE);
    pid_t pid;

    memset(p, 1, SIZE);
    pid = fork_past();
    if (pid == 0) {
        use_holes(p); /* first: what comes may be put there */
        use_own();
        _exit(0);
    }
    expect_success(pid);
    pid = fork_past();
    if (pid == 0) { /* who forks before anything else */
        pid = fork();
        if (pid == 0) {
            use_holes(p);
            use_own();
            _exit(0);
        }
        expect_success(pid);
        use_own();
        _exit(0);
    }
    expect_success(pid);
    child_check(is_filled(p, 1, SIZE));
    program_show(socket, 'u'); /* all is dropped */
    child_check(is_zero(p, SIZE) && munmap(p, SIZE) == 0);
}

/* ---- handlers that came first ---- */

void program_run_early(int socket) {
    volatile char **memory = dlsym(RTLD_DEFAULT, "early_memory");
    char *p = program_map(SIZE);
    pid_t pid;

    (void)socket;
    child_check(memory);
    memset(p, 1, SIZE);
    *memory = p;
    alarm(20); /* where they wait for themselves */
    pid = fork();
    if (pid == 0)
        _exit(!is_zero(p, SIZE));
    expect_success(pid);
    child_check(is_filled(p, 1, PAGE) && is_zero(p + PAGE, PAGE));
}

/* ---- the last thread ---- */

static int last_socket;

static void *outlive(void *data) {
    program_show(last_socket, 'w');
    return data;
}

void program_run_last(int socket) {
    pthread_t thread;

    last_socket = socket;
    memset(program_map(SIZE), 1, SIZE);
    child_check(pthread_create(&thread, NULL, outlive, NULL) == 0);
    pthread_exit(NULL);
}

/* What a handler of exit(3) may count on: the stack of an ordinary thread, signals that nobody has blocked. */
static void at_exit(void) {
    char room[MIB];
    sigset_t blocked;

    memset(room, 1, sizeof(room));
    __asm__ volatile("" : : "r"(room) : "memory");
    child_check(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, SIGUSR1) == 1);
    child_check(!sigismember(&blocked, SIGTERM));
}

void program_run_last_alone(int socket) {
    sigset_t own;

    (void)socket;
    child_check(atexit(at_exit) == 0);
    sigemptyset(&own);
    sigaddset(&own, SIGUSR1);
    child_check(pthread_sigmask(SIG_BLOCK, &own, NULL) == 0);
    memset(program_map(SIZE), 1, SIZE);
    pthread_exit(NULL);
}
