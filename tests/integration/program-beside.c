/* SPDX-License-Identifier: MIT */
/*
 * The programs of test-preload in which something happens in the middle of a call: a fork, or a signal, while a piece is moved, or the thread's
 * end; and in which the library's descriptors are closed.
 */

#include "child.h"
#include "fixture.h"
#include "program.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGE ((size_t)4096)
#define SIZE (16 * PAGE)

/* Linux 5.7. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* ---- a signal within mremap ---- */

static volatile sig_atomic_t handled;

/* What collectors and profilers do to memory of their own, which no handler of theirs has to wait for. */
static void use_own_memory(int number) {
    char *p = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *q;

    (void)number;
    child_check(p != MAP_FAILED && mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE) == 0);
    *p = 1;
    q = mremap(p, PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    child_check(q != MAP_FAILED && *q == 1 && madvise(q, PAGE, MADV_DONTNEED) == 0 && *q == 0);
    child_check(munmap(q, 4 * PAGE) == 0 && munmap(p + PAGE, PAGE) == 0);
    handled = 1;
}

static void interrupt(pthread_t thread) {
    uint64_t deadline = now_ms() + 10000;

    handled = 0;
    child_check(signal(SIGUSR1, use_own_memory) != SIG_ERR && pthread_kill(thread, SIGUSR1) == 0);
    while (!handled) {
        child_check(now_ms() < deadline);
        sched_yield();
    }
}

/* ---- fork beside mremap ---- */

struct mover {
    char *from, *to;
    int flags;
    _Atomic pid_t tid;
};

static void *move(void *data) {
    struct mover *mover = data;

    atomic_store(&mover->tid, gettid());
    child_check(mremap(mover->from, SIZE, SIZE, MREMAP_MAYMOVE | mover->flags, mover->to) == mover->to);
    return NULL;
}

/* The system call that a thread sleeps in; -1: none. */
static long call_of(pid_t tid) {
    char path[64], text[64] = "";
    char *end;
    long number;
    int fd;

    snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    child_check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    number = strtol(text, &end, 10);
    return end == text ? -1 : number;
}

static bool is_poll(long number) {
#ifdef SYS_poll
    if (number == SYS_poll)
        return true;
#endif
    return number == SYS_ppoll;
}

static void wait_for_poll(_Atomic pid_t *tid_of) {
    uint64_t deadline = now_ms() + 10000;
    pid_t tid;

    while ((tid = atomic_load(tid_of)) == 0 || !is_poll(call_of(tid))) {
        child_check(now_ms() < deadline);
        sched_yield();
    }
}

static void fork_beside(int socket, int flags) {
    struct mover mover = {.from = program_map(SIZE), .flags = MREMAP_FIXED | flags};
    pthread_t thread;
    int status;
    pid_t pid;

    memset(mover.from, 1, SIZE);
    mover.to = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(mover.to != MAP_FAILED);
    program_show(socket, 'a'); /* the service stops */
    child_check(pthread_create(&thread, NULL, move, &mover) == 0);
    wait_for_poll(&mover.tid); /* the service is stopped: it waits for the reply to what it told of the old place */
    pid = fork();
    if (pid == 0)
        _exit(!is_zero(mover.from, SIZE) || munmap(mover.from, SIZE) < 0);
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    interrupt(thread);
    program_show(socket, 'b'); /* it goes on */
    child_check(pthread_join(thread, NULL) == 0);
    child_check(is_filled(mover.to, 1, SIZE) && munmap(mover.to, SIZE) == 0);
    child_check(!(flags & MREMAP_DONTUNMAP) || (is_zero(mover.from, SIZE) && munmap(mover.from, SIZE) == 0));
}

static bool kernel_leaves_places(void) {
    void *p = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *moved;

    child_check(p != MAP_FAILED);
    moved = mremap(p, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    munmap(p, SIZE);
    return moved != MAP_FAILED && munmap(moved, SIZE) == 0;
}

void program_run_moving(int socket) {
    char *other = program_map(PAGE); /* so that there is always something of ours */

    fork_beside(socket, 0);
    fork_beside(socket, kernel_leaves_places() ? MREMAP_DONTUNMAP : 0);
    child_check(munmap(other, PAGE) == 0);
    program_show(socket, 'c');
}

/* ---- the first mapping beside fork ---- */

static struct {
    pthread_t thread;
    _Atomic pid_t tid;
} first;

static void *map_first(void *data) {
    atomic_store(&first.tid, gettid());
    child_check(munmap(program_map(SIZE), SIZE) == 0);
    return data;
}

/* Another thread connects, and has to wait for the service: within fork(2), before there is a child. */
static void map_within_fork(void) {
    if (atomic_load(&first.tid) == 0) {
        child_check(pthread_create(&first.thread, NULL, map_first, NULL) == 0);
        wait_for_poll(&first.tid);
    }
}

/* The service is stopped. */
void program_run_first(int socket) {
    int status;
    pid_t pid;

    child_check(pthread_atfork(map_within_fork, NULL, NULL) == 0);
    program_show(socket, 'a'); /* the service stops */
    pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(!is_zero(program_map(SIZE), SIZE));
    }
    program_show(socket, 'b'); /* it goes on */
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    child_check(pthread_join(first.thread, NULL) == 0);
}

/* ---- threads that are ended ---- */

static _Atomic bool returned;

/* To be ended at the first call that ends anybody, which none of these is. */
static void *use_cancelled(void *data) {
    char *p = data, *q;

    child_check(pthread_cancel(pthread_self()) == 0);
    child_check(munmap(p, PAGE) == 0 && madvise(p + PAGE, PAGE, MADV_DONTNEED) == 0);
    child_check(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
    q = program_map(SIZE);
    child_check(mremap(q, SIZE, 2 * SIZE, MREMAP_MAYMOVE) != MAP_FAILED);
    atomic_store(&returned, true);
    pthread_testcancel();
    return NULL;
}

void program_run_cancelled(int socket) {
    char *p = program_map(SIZE);
    pthread_t thread;
    void *result;

    memset(p, 1, SIZE);
    child_check(pthread_create(&thread, NULL, use_cancelled, p) == 0);
    child_check(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    child_check(atomic_load(&returned));
    child_check(is_zero(p + PAGE, PAGE) && is_filled(p + 2 * PAGE, 1, SIZE - 2 * PAGE));
    child_check(munmap(p + PAGE, SIZE - PAGE) == 0 && munmap(program_map(SIZE), SIZE) == 0);
    program_show(socket, 'c');
}

/* ---- other descriptors in place of all ---- */

#define DESCRIPTORS 64

/* Refused until the library has seen that its connection is gone. */
static char *map_again(void) {
    uint64_t start = now_ms();
    char *p;

    while ((p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) {
        child_check(now_ms() - start < 5000);
        nap_ms(1);
    }
    return p;
}

/* All that the library has become ours, ends of one connection. The mapping that is left stays as it is, and there may be more. */
void program_run_replaced(int socket) {
    char *p = program_map(SIZE), *more, byte;
    int ends[2], flags[DESCRIPTORS];
    uint64_t start;
    int status;
    pid_t pid;

    memset(p, 1, SIZE);
    child_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0 && send(ends[1], "x", 1, 0) == 1);
    for (int fd = 3; fd < DESCRIPTORS; fd++) {
        flags[fd] = fd != socket && fd != ends[0] && fd != ends[1] ? fcntl(fd, F_GETFD) : -1;
        child_check(flags[fd] < 0 || dup2(ends[0], fd) == fd);
    }
    pid = fork(); /* where they stay open, too */
    if (pid == 0) {
        for (int fd = 3; fd < DESCRIPTORS; fd++)
            child_check(flags[fd] < 0 || fcntl(fd, F_GETFD) >= 0);
        _exit(!is_zero(p, SIZE));
    }
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    start = now_ms();
    child_check(munmap(p + PAGE, PAGE) == 0);
    child_check(now_ms() - start < 5000); /* waits for no reply */
    child_check(recv(ends[1], &byte, 1, 0) < 0 && errno == EAGAIN);
    more = map_again();
    memset(more, 2, SIZE);
    program_show(socket, 'a'); /* the service ends, another one starts */
    for (int fd = 3; fd < DESCRIPTORS; fd++)
        child_check(flags[fd] < 0 || fcntl(fd, F_GETFD) >= 0);
    child_check(recv(ends[0], &byte, 1, 0) == 1 && byte == 'x');
    child_check(is_filled(p, 1, PAGE) && is_filled(p + 2 * PAGE, 1, SIZE - 2 * PAGE) && is_filled(more, 2, SIZE));
    program_show(socket, 'b');
}

/* ---- moves of what was inherited ---- */

#define PIECES ((size_t)40)

static void *map_at(char *at) {
    return mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

#define HALF (8 * PAGE)

/*
 * What was inherited, and what is of the child's own or other memory, in either order: two mappings. The kernel cuts such a range; but it neither moves it nor makes
 * it larger, and what it refuses changes nothing.
 */
static void cut_mixed(char *p, char *to, bool own, bool inherited_first) {
    int flags = (own ? MAP_DROPPABLE : MAP_PRIVATE) | MAP_ANONYMOUS;
    char *other = inherited_first ? p + HALF : p;

    child_check(mmap(other, HALF, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0) == other);
    memset(p, 5, 2 * HALF);
    memset(to, 6, 2 * HALF);
    for (size_t less = 0; less <= PAGE; less += PAGE)
        child_check(mremap(p, 2 * HALF, 2 * HALF - less, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED &&
                    errno == EFAULT);
    child_check(mremap(p, 2 * HALF, 3 * HALF, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    child_check(is_filled(p, 5, 2 * HALF) && is_filled(to, 6, 2 * HALF));
    child_check(mremap(p, 2 * HALF, 2 * HALF, 0) == p && is_filled(p, 5, 2 * HALF));
    child_check(mremap(p, 2 * HALF, 2 * HALF - PAGE, 0) == p && is_filled(p, 5, 2 * HALF - PAGE));
    child_check(madvise(p + 2 * HALF - PAGE, PAGE, MADV_NORMAL) < 0 && errno == ENOMEM); /* a hole */
    child_check(mremap(p, 2 * HALF, PAGE, MREMAP_MAYMOVE) == p && is_filled(p, 5, PAGE));
    child_check(madvise(p + PAGE, PAGE, MADV_NORMAL) < 0 && errno == ENOMEM);
    child_check(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to && is_filled(to, 5, PAGE));
    child_check(munmap(to, PAGE) == 0);
}

static void move_inherited(char *p) {
    size_t size = PIECES * PAGE;
    char *to = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int status;
    pid_t pid;

    memset(p, 2, size);
    /* With something of its own behind it: of two mappings; and that stays what it is. */
    child_check(map_at(p + size) == p + size);
    memset(p + size, 3, PAGE);
    child_check(mremap(p, size + PAGE, size + PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED && errno == EFAULT);
    pid = fork();
    if (pid == 0)
        _exit(!is_zero(p, size + PAGE));
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    child_check(is_filled(p, 2, size) && is_filled(p + size, 3, PAGE));
    child_check(mremap(p, size + PAGE, size, 0) == p); /* only cut */
    child_check(mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to && is_filled(to, 2, size));
    /* What is there now is not ours any more. */
    child_check(mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
    memset(p, 4, size);
    pid = fork();
    if (pid == 0)
        _exit(!is_filled(p, 4, size) || !is_zero(to, size));
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
}

static void be_heir(char *p, char *mixed) {
    for (unsigned i = 0; i < 4; i++) {
        char *to = mmap(NULL, 2 * HALF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        child_check(to != MAP_FAILED);
        cut_mixed(mixed + i * 2 * HALF, to, i & 1, i & 2);
    }
    move_inherited(p);
}

void program_run_inherited(int socket) {
    char *p = mmap(NULL, (PIECES + 1) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *mixed = program_map(4 * 2 * HALF);
    int status;
    pid_t pid;

    (void)socket;
    child_check(p != MAP_FAILED);
    for (size_t i = PIECES; i > 0; i--) /* so that no piece continues another one */
        child_check(map_at(p + (i - 1) * PAGE) == p + (i - 1) * PAGE);
    memset(p, 1, PIECES * PAGE);
    pid = fork();
    if (pid == 0) {
        be_heir(p, mixed);
        _exit(0);
    }
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    child_check(is_filled(p, 1, PIECES * PAGE) && munmap(p, (PIECES + 1) * PAGE) == 0);
    child_check(munmap(mixed, 4 * 2 * HALF) == 0);
}
