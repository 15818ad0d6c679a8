/* SPDX-License-Identifier: MIT */

/* Other processes that look at, change or advise on the memory: process_vm_readv(2), /proc/PID/mem, ptrace(2), process_madvise(2). */

#include "sections.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define SIZE (16 * PAGE)

/* Linux 6.1. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { FRESH, FILLED, DROPPED };

static char *memory_in(long state) {
    char *p = droppable_alone(SIZE);

    if (state != FRESH)
        fill(p, SIZE);
    if (state == DROPPED)
        madvise(p, SIZE, MADV_PAGEOUT);
    return p;
}

struct request {
    char *p;
    pid_t parent;
    int advice;
};

static void reads_parent(void *data) {
    const struct request *request = data;
    static char bytes[SIZE];
    struct iovec local = {bytes, SIZE}, remote = {request->p, SIZE};
    ssize_t n = process_vm_readv(request->parent, &local, 1, &remote, 1, 0);

    say_number("vm_readv", n);
    if (n > 0)
        say("got=%s", seen(bytes, (size_t)n));
    /* Its own copy is empty. */
    remote.iov_base = request->p;
    n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    say_number("own", n);
    if (n > 0)
        say("got=%s", seen(bytes, (size_t)n));
}

static void writes_parent(void *data) {
    const struct request *request = data;
    static char bytes[SIZE];
    struct iovec local = {bytes, SIZE}, remote = {request->p, SIZE};

    fill(bytes, SIZE);
    say_number("vm_writev", process_vm_writev(request->parent, &local, 1, &remote, 1, 0));
}

static int memory_of(pid_t pid) {
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void proc_reads_parent(void *data) {
    const struct request *request = data;
    static char bytes[SIZE];
    ssize_t n = pread(memory_of(request->parent), bytes, SIZE, (off_t)(uintptr_t)request->p);

    say_number("read", n);
    if (n > 0)
        say("got=%s", seen(bytes, (size_t)n));
}

static void proc_writes_parent(void *data) {
    const struct request *request = data;
    static char bytes[SIZE];

    fill(bytes, SIZE);
    say_number("write", pwrite(memory_of(request->parent), bytes, SIZE, (off_t)(uintptr_t)request->p));
}

static void run_by_child(const struct check *c) {
    static void (*const does[])(void *) = {reads_parent, writes_parent, proc_reads_parent, proc_writes_parent};
    struct request request = {.p = memory_in(c->b), .parent = getpid()};

    in_child(does[c->a], &request);
    say("memory=%s", seen(request.p, SIZE));
}

static const int advices[] = {MADV_COLD,     MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE,
                              MADV_DONTNEED, MADV_FREE,    MADV_REMOVE};

static void advises_parent(void *data) {
    const struct request *request = data;
    struct iovec range = {request->p, SIZE};
    int fd = (int)syscall(SYS_pidfd_open, request->parent, 0);

    say_number("process_madvise", syscall(SYS_process_madvise, fd, &range, 1, request->advice, 0));
}

/* This kernel does not know it for a process's own plain memory either. */
static void skip_absent(int advice) {
    struct iovec nothing = {plain(PAGE), 0};
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    if (advice != MADV_REMOVE && syscall(SYS_process_madvise, fd, &nothing, 1, advice, 0) < 0 && errno == EINVAL)
        say_absent();
    munmap(nothing.iov_base, PAGE);
    close(fd);
}

static void run_advised_by_child(const struct check *c) {
    struct request request = {.p = memory_in(FILLED), .parent = getpid(), .advice = advices[c->a]};

    in_child(advises_parent, &request);
    say("memory=%s", seen(request.p, SIZE));
    say("write=%s", written(request.p, SIZE));
}

static void run_advised_by_itself(const struct check *c) {
    char *p = memory_in(FILLED);
    struct iovec ranges[2] = {{p + 8 * PAGE, 4 * PAGE}, {p, 4 * PAGE}};
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    skip_absent(advices[c->a]);
    say_number("process_madvise", syscall(SYS_process_madvise, fd, ranges, 2, advices[c->a], 0));
    say("first=%s second=%s rest=%s", seen(p + 8 * PAGE, 4 * PAGE), seen(p, 4 * PAGE), seen(p + 12 * PAGE, 4 * PAGE));
}

/* Vectors that cannot be read, or are too long, or have a length that is none: refused before anything is done. */
static void run_advised_vector(const struct check *c) {
    static struct iovec many[1025];
    char *p = memory_in(FILLED), *pages = plain(2 * PAGE);
    struct iovec *half = (struct iovec *)(void *)(pages + PAGE) - 1, wrong[2] = {{p, PAGE}, {p, (size_t)-1}};
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    (void)c;
    skip_absent(MADV_PAGEOUT);
    for (size_t i = 0; i < 1025; i++)
        many[i] = (struct iovec){p, PAGE};
    *half = (struct iovec){p, PAGE};
    mprotect(pages + PAGE, PAGE, PROT_NONE);
    say_number("null", syscall(SYS_process_madvise, fd, NULL, 1, MADV_PAGEOUT, 0));
    say_number("inaccessible", syscall(SYS_process_madvise, fd, pages + PAGE, 1, MADV_PAGEOUT, 0));
    say_number("half", syscall(SYS_process_madvise, fd, half, 2, MADV_PAGEOUT, 0));
    say_number("many", syscall(SYS_process_madvise, fd, many, 1025, MADV_PAGEOUT, 0));
    say_number("length", syscall(SYS_process_madvise, fd, wrong, 2, MADV_PAGEOUT, 0));
    say("read=%s", seen(p, SIZE));
}

/* ---- by a debugger ---- */

static void run_debugged(const struct check *c) {
    char *p = memory_in(c->b); /* at the same address in the child, which makes it anew */
    bool peeked;
    int status;
    long word;
    pid_t pid;

    munmap(p, SIZE);
    pid = fork();
    if (pid == 0) {
        if (mmap(p, SIZE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0) != p)
            _exit(1);
        if (c->b != FRESH)
            fill(p, SIZE);
        if (c->b == DROPPED)
            madvise(p, SIZE, MADV_PAGEOUT);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        say("tracee=%s", seen(p, SIZE));
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (WIFSTOPPED(status)) {
        errno = 0;
        word = ptrace(PTRACE_PEEKDATA, pid, p, NULL);
        peeked = errno == 0;
        say_result("peek", peeked ? 0 : -1);
        if (peeked)
            say("word=%s", word == 0 ? "zero" : word == 0x5a5a5a5a5a5a5a5a ? "data" : "other");
        for (size_t i = 0; i < PAGE; i += sizeof(word))
            if (ptrace(PTRACE_POKEDATA, pid, p + i, 0x5a5a5a5a5a5a5a5aL) < 0) {
                say_result("poke", -1);
                break;
            }
        ptrace(PTRACE_CONT, pid, NULL, NULL);
    }
    wait_child(pid);
}

static const struct check checks[] = {
    {"read-fresh", run_by_child, 0, FRESH},
    {"read-filled", run_by_child, 0, FILLED},
    {"read-dropped", run_by_child, 0, DROPPED},
    {"write-fresh", run_by_child, 1, FRESH},
    {"write-filled", run_by_child, 1, FILLED},
    {"write-dropped", run_by_child, 1, DROPPED},
    {"proc-read-fresh", run_by_child, 2, FRESH},
    {"proc-read-filled", run_by_child, 2, FILLED},
    {"proc-read-dropped", run_by_child, 2, DROPPED},
    {"proc-write-fresh", run_by_child, 3, FRESH},
    {"proc-write-filled", run_by_child, 3, FILLED},
    {"proc-write-dropped", run_by_child, 3, DROPPED},
    {"debugger-fresh", run_debugged, 0, FRESH},
    {"debugger-filled", run_debugged, 0, FILLED},
    {"debugger-dropped", run_debugged, 0, DROPPED},
    {"advise-cold", run_advised_by_child, 0, 0},
    {"advise-pageout", run_advised_by_child, 1, 0},
    {"advise-willneed", run_advised_by_child, 2, 0},
    {"advise-collapse", run_advised_by_child, 3, 0},
    {"advise-dontneed", run_advised_by_child, 4, 0},
    {"advise-free", run_advised_by_child, 5, 0},
    {"advise-remove", run_advised_by_child, 6, 0},
    {"advise-itself-cold", run_advised_by_itself, 0, 0},
    {"advise-itself-pageout", run_advised_by_itself, 1, 0},
    {"advise-itself-willneed", run_advised_by_itself, 2, 0},
    {"advise-itself-collapse", run_advised_by_itself, 3, 0},
    {"advise-itself-dontneed", run_advised_by_itself, 4, 0},
    {"advise-itself-free", run_advised_by_itself, 5, 0},
    {"advise-itself-remove", run_advised_by_itself, 6, 0},
    {"advise-itself-vector", run_advised_vector, 0, 0},
    {0},
};

const struct section section_others = {"others", checks};
