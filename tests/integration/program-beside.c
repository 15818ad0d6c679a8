/* SPDX-License-Identifier: MIT */
/* The programs of test-preload in which something happens in the middle of a call: a fork while a piece is moved. */

#include "child.h"
#include "fixture.h"
#include "program.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGE ((size_t)4096)
#define SIZE (16 * PAGE)

/* Linux 5.7. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

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

/* The service is stopped: the mover waits for the reply to what it told of the old place. */
static void wait_for_mover(const struct mover *mover) {
    uint64_t deadline = now_ms() + 10000;
    pid_t tid;

    while ((tid = atomic_load(&mover->tid)) == 0 || !is_poll(call_of(tid))) {
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
    wait_for_mover(&mover);
    pid = fork();
    if (pid == 0)
        _exit(!is_zero(mover.from, SIZE) || munmap(mover.from, SIZE) < 0);
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    program_show(socket, 'b'); /* it goes on */
    child_check(pthread_join(thread, NULL) == 0);
    child_check(is_filled(mover.to, 1, SIZE) && munmap(mover.to, SIZE) == 0);
    child_check(!(flags & MREMAP_DONTUNMAP) || (is_zero(mover.from, SIZE) && munmap(mover.from, SIZE) == 0));
}

void program_run_moving(int socket) {
    fork_beside(socket, 0);
    fork_beside(socket, MREMAP_DONTUNMAP);
    program_show(socket, 'c');
}
