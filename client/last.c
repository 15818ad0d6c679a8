/* SPDX-License-Identifier: MIT */

/*
 * A program whose main() ends by pthread_exit(3) ends with the last of its threads. To the C library a watcher is one of these, so it has to go when no
 * other is left.
 *
 * Nobody is told that a thread has ended; but the first one's end the library learns of by thread-specific data. From then on each watcher looks from time
 * to time how many threads the kernel counts: the watchers, and the first one, which counts as long as any other does. Whoever of these ends last ends the
 * program, as any thread would: one that is started for it, since handlers of exit(3) may need more stack than a watcher has, and the program's signals.
 */

#include "client.h"

#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAUSE_MS 100

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool has_key;
static _Atomic bool first_ended;
static _Atomic unsigned watchers;
static sigset_t blocked; /* by the first thread, at its end */

static void on_end(void *unused) {
    (void)unused;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    atomic_store(&first_ended, true);
    fork_each(watcher_wake);
}

static void init(void) {
    has_key = pthread_key_create(&key, on_end) == 0;
}

void last_note(void) {
    if (gettid() != getpid())
        return;
    pthread_once(&once, init);
    if (has_key)
        pthread_setspecific(key, &key);
}

static void __attribute__((constructor)) note_early(void) {
    last_note();
}

void last_begin(void) {
    atomic_fetch_add(&watchers, 1);
}

void last_end(void) {
    atomic_fetch_sub(&watchers, 1);
}

/* The only thread is the first one now, whichever it was. */
void last_fork_child(void) {
    atomic_store(&watchers, 0);
    atomic_store(&first_ended, false);
    if (has_key)
        pthread_setspecific(key, &key);
}

int last_pause(void) {
    return atomic_load(&first_ended) ? PAUSE_MS : -1;
}

/* A folder has a link of each in it, besides two of its own. 0: nobody knows. */
static unsigned long count_threads(void) {
    struct stat st;

    return stat("/proc/self/task", &st) == 0 ? st.st_nlink - 2 : 0;
}

bool last_is_alone(void) {
    return atomic_load(&first_ended) && count_threads() == atomic_load(&watchers) + 1UL;
}

/* It is not joined: handlers of exit(3), and the first thread's, may free its context. Its end takes it some microseconds from here. */
static void *run(void *tid) {
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    while (syscall(SYS_tgkill, getpid(), (pid_t)(intptr_t)tid, 0) == 0)
        sched_yield();
    last_end();
    return NULL;
}

void last_succeed(void) {
    pthread_t thread;

    if (!last_is_alone())
        return;
    last_begin(); /* others that end now are no less alone for it */
    if (pthread_create(&thread, NULL, run, (void *)(intptr_t)gettid()) == 0)
        pthread_detach(thread);
    else
        last_end();
}
