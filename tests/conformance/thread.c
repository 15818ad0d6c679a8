/* SPDX-License-Identifier: MIT */

/* Threads that share the memory, that stand on it, that synchronize in it, and forks beside them. */

#include "sections.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define THREADS 4
#define SIZE (256 * PAGE)
#define ROUNDS 100

static char *shared;
static _Atomic unsigned good, bad;
static _Atomic bool stop;

/* On all CPUs, where a check otherwise has one. */
static void start(pthread_t *threads, void *(*run)(void *argument)) {
    cpu_set_t all;

    memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)i) != 0)
            _exit(124);
}

static void join(const pthread_t *threads) {
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* Each thread has every fourth page. */
static void *fills(void *argument) {
    for (size_t i = (size_t)argument; i < SIZE / PAGE; i += THREADS) {
        good += strcmp(seen(shared + i * PAGE, PAGE), "zero") == 0;
        fill(shared + i * PAGE, PAGE);
    }
    return NULL;
}

static void run_fills(const struct check *c) {
    pthread_t threads[THREADS];

    (void)c;
    shared = droppable_alone(SIZE);
    start(threads, fills);
    join(threads);
    say("zero=%u read=%s", good, seen(shared, SIZE));
}

/* A page is all old or all zero. */
static void *watches(void *argument) {
    (void)argument;
    while (!stop)
        for (size_t i = 0; i < SIZE; i += PAGE) {
            volatile char *p = shared + i;

            for (size_t j = 0; j < PAGE; j += 64) {
                char byte = p[j];

                if (byte != 0 && byte != FILL)
                    bad++;
            }
        }
    return NULL;
}

static void run_dropped_meanwhile(const struct check *c) {
    pthread_t threads[THREADS];

    shared = droppable_alone(SIZE);
    start(threads, watches);
    for (unsigned i = 0; i < ROUNDS; i++) {
        fill(shared, SIZE);
        good += madvise(shared, SIZE, (int)c->a) == 0;
    }
    stop = true;
    join(threads);
    say("dropped=%u strange=%u", good, bad);
    if (c->a == MADV_DONTNEED) /* the other leaves alone what is being used */
        say("read=%s", seen(shared, SIZE));
}

static void *maps(void *argument) {
    for (size_t i = 0, n = often(ROUNDS); i < n; i++) {
        size_t size = (1 + (i + (size_t)argument) % 40) * PAGE;
        char *p = mmap(NULL, size, READ_WRITE, DROPPABLE, -1, 0);

        if (p == MAP_FAILED)
            continue;
        fill(p, size);
        if (size > PAGE) { /* from then on another thread may have the first page */
            munmap(p, PAGE);
            p += PAGE;
            size -= PAGE;
        }
        good += strcmp(seen(p, size), "data") == 0;
        munmap(p, size);
    }
    return NULL;
}

static void run_maps(const struct check *c) {
    pthread_t threads[THREADS];

    (void)c;
    start(threads, maps);
    join(threads);
    say_count("good", good, THREADS * often(ROUNDS));
}

static void *writes(void *argument) {
    (void)argument;
    while (!stop)
        memset(shared, FILL, SIZE);
    return NULL;
}

/* A child of a process whose threads write all the time. */
static void run_forks(const struct check *c) {
    pthread_t threads[THREADS];

    shared = droppable_alone(SIZE);
    start(threads, c->a ? maps : writes);
    for (unsigned i = 0; i < 20; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            char *own = mmap(NULL, PAGE, READ_WRITE, DROPPABLE, -1, 0);

            _exit(strcmp(seen(shared, SIZE), "zero") != 0 || own == MAP_FAILED || strcmp(written(own, PAGE), "ok") != 0);
        }
        wait_child(pid);
    }
    stop = true;
    join(threads);
    if (c->a)
        say_count("good", good, THREADS * often(ROUNDS));
    else
        say("parent=%s", seen(shared, SIZE));
}

/* ---- futexes in the memory ---- */

static void *wakes(void *argument) {
    _Atomic int *word = argument;
    long n;

    *word = 1;
    do /* until the other one waits */
        n = syscall(SYS_futex, word, stop ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    while (n == 0 && *word == 1);
    return (void *)(n < 0 ? "fails" : "ok");
}

static void run_futex(const struct check *c) {
    _Atomic int *word = (_Atomic int *)droppable_alone(SIZE);
    pthread_t thread;
    void *woke;

    stop = c->a;
    if (pthread_create(&thread, NULL, wakes, (void *)word) != 0)
        _exit(124);
    while (*word == 0)
        sched_yield();
    say_result("wait", syscall(SYS_futex, word, c->a ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
    *word = 2;
    pthread_join(thread, &woke);
    say("wake=%s", (const char *)woke);
}

/* A shared futex is another one after a fork, since the memory is. */
static void run_futex_fork(const struct check *c) {
    _Atomic int *word = (_Atomic int *)droppable_alone(SIZE);
    const struct timespec soon = {.tv_nsec = 300000000};
    pid_t pid;

    (void)c;
    pid = fork();
    if (pid == 0) {
        long r = syscall(SYS_futex, word, FUTEX_WAIT, 0, &soon, NULL, 0);

        say_result("child-wait", r);
        _exit(0);
    }
    for (unsigned woken = 0; waitpid(pid, NULL, WNOHANG) == 0; sched_yield())
        if (syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0) > 0 && woken++ == 0)
            say("woken");
}

static pthread_mutex_t *mutex;
static unsigned *counter;

static void *counts(void *argument) {
    (void)argument;
    for (unsigned i = 0; i < 10000; i++) {
        pthread_mutex_lock(mutex);
        ++*counter;
        pthread_mutex_unlock(mutex);
    }
    return NULL;
}

static void run_mutex(const struct check *c) {
    pthread_t threads[THREADS];
    pthread_mutexattr_t attributes;
    char *p = droppable_alone(SIZE);

    mutex = (pthread_mutex_t *)p;
    counter = (unsigned *)(p + 2 * PAGE);
    pthread_mutexattr_init(&attributes);
    if (c->a)
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(mutex, &attributes);
    start(threads, counts);
    join(threads);
    say("count=%u", *counter);
}

/* ---- standing on it ---- */

static void *stands(void *argument) {
    char local[64 * KIB];

    fill(local, sizeof(local));
    *(bool *)argument = (uintptr_t)local >= (uintptr_t)shared && (uintptr_t)local < (uintptr_t)shared + SIZE;
    return (void *)seen(local, sizeof(local));
}

static void run_stack(const struct check *c) {
    pthread_attr_t attributes;
    pthread_t thread;
    bool inside = false;
    void *word;

    (void)c;
    shared = droppable_alone(SIZE);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, shared, SIZE);
    errno = pthread_create(&thread, &attributes, stands, &inside);
    say_result("create", errno ? -1 : 0);
    pthread_join(thread, &word);
    say("inside=%d read=%s", inside, (const char *)word);
}

static void on_usr1(int signal) {
    char local[PAGE];

    (void)signal;
    fill(local, sizeof(local));
    good = (uintptr_t)local >= (uintptr_t)shared && (uintptr_t)local < (uintptr_t)shared + SIZE;
}

/* The kernel writes the signal's frame there. */
static void run_signal_stack(const struct check *c) {
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
    stack_t stack;

    shared = droppable_alone(SIZE);
    stack = (stack_t){.ss_sp = shared, .ss_size = SIZE};
    say_result("sigaltstack", sigaltstack(&stack, NULL));
    sigaction(SIGUSR1, &action, NULL);
    if (c->a) {
        fill(shared, SIZE);
        say_result("pageout", madvise(shared, SIZE, MADV_PAGEOUT));
    }
    raise(SIGUSR1);
    say("inside=%u", good);
}

static const struct check checks[] = {
    {"fill", run_fills, 0, 0},
    {"dontneed-meanwhile", run_dropped_meanwhile, MADV_DONTNEED, 0},
    {"pageout-meanwhile", run_dropped_meanwhile, MADV_PAGEOUT, 0},
    {"map-and-unmap", run_maps, 0, 0},
    {"fork-beside-writers", run_forks, 0, 0},
    {"fork-beside-mappers", run_forks, 1, 0},
    {"futex-private", run_futex, 0, 0},
    {"futex-shared", run_futex, 1, 0},
    {"futex-fork", run_futex_fork, 0, 0},
    {"mutex", run_mutex, 0, 0},
    {"mutex-shared", run_mutex, 1, 0},
    {"stack", run_stack, 0, 0},
    {"signal-stack", run_signal_stack, 0, 0},
    {"signal-stack-dropped", run_signal_stack, 1, 0},
    {0},
};

const struct section section_thread = {"thread", checks};
