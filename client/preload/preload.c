/* SPDX-License-Identifier: MIT */

/*
 * libdroppable-preload: gives programs that call mmap(MAP_DROPPABLE) the service's memory on kernels without it, unchanged:
 *
 *     LD_PRELOAD=libdroppable-preload.so program
 *
 * These functions stand before the C library's. Almost every call has nothing to do with droppable memory, so each one
 * first asks the cheapest question that tells: mmap(2) looks at the type bits, the others whether there is anything of ours
 * at all. They work before any constructor has run, since memory allocators call them then.
 */

#include "backend.h"
#include "by-hand.h"
#include "children.h"
#include "raw.h"
#include "serve.h"
#include "table.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
/* Linux 4.17. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Linux 5.7. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Without MAP_ANONYMOUS it is an error on every kernel, which says best which one. */
static inline int is_droppable(int flags) {
    return (flags & (MAP_TYPE | MAP_ANONYMOUS)) == (MAP_DROPPABLE | MAP_ANONYMOUS);
}

/* MAP_FIXED_NOREPLACE wins where both are set. */
static inline int replaces(int flags) {
    return (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == MAP_FIXED;
}

static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    void *p;

    if (UNLIKELY(is_droppable(flags)))
        switch (backend_get()) {
        case DRP_BACKEND_DAEMON:
            return serve_mmap(address, length, protection, flags, offset);
        case DRP_BACKEND_NONE:
            return backend_map_plain(address, length, protection, flags, offset);
        default:
            break;
        }
    if (UNLIKELY(replaces(flags)) && table_any())
        return serve_replace(address, length, protection, flags, fd, offset);
    p = raw_mmap(address, length, protection, flags, fd, offset);
    if (UNLIKELY(table_any()) && p != MAP_FAILED)
        serve_taken(p, length);
    return p;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return map(address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    return map(address, length, protection, flags, fd, offset);
}

int munmap(void *address, size_t length) {
    return UNLIKELY(table_any()) ? serve_munmap(address, length) : raw_munmap(address, length);
}

int madvise(void *address, size_t length, int advice) {
    return UNLIKELY(table_any()) ? serve_madvise(address, length, advice) : raw_madvise(address, length, advice);
}

int mincore(void *address, size_t length, unsigned char *vector) {
    return UNLIKELY(table_any()) ? serve_mincore(address, length, vector) : raw_mincore(address, length, vector);
}

static void *remap(void *address, size_t had, size_t wanted, int flags, void *to) {
    return UNLIKELY(table_any()) ? serve_mremap(address, had, wanted, flags, to)
                                 : raw_mremap(address, had, wanted, flags, to);
}

void *mremap(void *address, size_t had, size_t wanted, int flags, ...) {
    void *to = NULL;
    va_list more;

    if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
        va_start(more, flags);
        to = va_arg(more, void *);
        va_end(more);
    }
    return remap(address, had, wanted, flags, to);
}

int mprotect(void *address, size_t length, int protection) {
    return UNLIKELY(table_any()) ? serve_mprotect(address, length, protection, -1)
                                 : raw_mprotect(address, length, protection);
}

/* A key of -1 is mprotect(2). */
int pkey_mprotect(void *address, size_t length, int protection, int key) {
    if (UNLIKELY(table_any()))
        return serve_mprotect(address, length, protection, key);
    return key == -1 ? raw_mprotect(address, length, protection) : raw_pkey_mprotect(address, length, protection, key);
}

int mlock(const void *address, size_t length) {
    return UNLIKELY(table_any()) ? serve_mlock(address, length, 0) : raw_mlock(address, length);
}

int mlock2(const void *address, size_t length, unsigned int flags) {
    return UNLIKELY(table_any()) ? serve_mlock(address, length, (int)flags) : raw_mlock2(address, length, (int)flags);
}

/* Not only where there is something of ours: it may be about what comes. */
int mlockall(int flags) {
    return serve_mlockall(flags);
}

int munlockall(void) {
    return serve_munlockall();
}

ssize_t process_madvise(int pidfd, const struct iovec *ranges, size_t n, int advice, unsigned flags) {
    return UNLIKELY(table_any()) ? serve_process_madvise(pidfd, ranges, n, advice, flags)
                                 : raw_process_madvise(pidfd, ranges, n, advice, flags);
}

int remap_file_pages(void *address, size_t length, int protection, size_t page, int flags) {
    return UNLIKELY(table_any()) ? serve_remap_file_pages(address, length, protection, page, flags)
                                 : raw_remap_file_pages(address, length, protection, page, flags);
}

/* Of C libraries that are newer than ours. */
int mseal(void *address, size_t length, unsigned long flags);
int mseal(void *address, size_t length, unsigned long flags) {
    return UNLIKELY(table_any()) ? serve_mseal(address, length, flags) : raw_mseal(address, length, flags);
}

/* Of almost all requests, what is looked at is the number. */
int ioctl(int fd, unsigned long request, ...) {
    void *argument;
    va_list more;

    va_start(more, request);
    argument = va_arg(more, void *);
    va_end(more);
    if (UNLIKELY(request == UFFDIO_REGISTER || request == UFFDIO_UNREGISTER || request == UFFDIO_COPY ||
                 request == UFFDIO_ZEROPAGE) &&
        table_any())
        return serve_userfaultfd(fd, request, argument);
    return raw_ioctl(fd, request, argument);
}

/* ---- children ---- */

typedef int clone_function(int (*run)(void *), void *stack, int flags, void *data, ...);

static pid_t (*_Atomic c_library_fork)(void);
static clone_function *_Atomic c_library_clone;

/* Before anybody calls them from a signal handler, where a symbol cannot be looked up. */
static void __attribute__((constructor)) find_fork(void) {
    if (!c_library_fork)
        c_library_fork = (pid_t(*)(void))dlsym(RTLD_NEXT, "_Fork");
    if (!c_library_clone)
        c_library_clone = (clone_function *)dlsym(RTLD_NEXT, "clone");
}

pid_t _Fork(void) {
    bool begun;
    pid_t pid;

    find_fork();
    if (!c_library_fork) {
        errno = ENOSYS;
        return -1;
    }
    begun = children_begin();
    pid = c_library_fork();
    children_end(begun, pid == 0);
    return pid;
}

struct start {
    int (*run)(void *data);
    void *data;
    bool begun;
};

static int run_in_child(void *data) {
    const struct start *start = data;

    children_end(start->begun, true);
    return start->run(start->data);
}

/*
 * Who has the same memory, as a thread, has it as it is. For children with the same descriptors, whose ours must not be closed, with a thread area that may
 * be anything, or for whom the parent waits, nothing can be done: they have holes.
 */
int clone(int (*run)(void *), void *stack, int flags, void *data, ...) {
    bool ours = run && !(flags & BY_HAND_LEAVES);
    struct start start = {.run = run, .data = data};
    pid_t *parent_tid, *child_tid;
    va_list more;
    void *tls;
    int r;

    va_start(more, data);
    parent_tid = va_arg(more, pid_t *);
    tls = va_arg(more, void *);
    child_tid = va_arg(more, pid_t *);
    va_end(more);
    find_fork();
    if (!c_library_clone) {
        errno = ENOSYS;
        return -1;
    }
    if (!ours)
        return c_library_clone(run, stack, flags, data, parent_tid, tls, child_tid);
    start.begun = children_begin();
    r = c_library_clone(run_in_child, stack, flags, &start, parent_tid, tls, child_tid);
    children_end(start.begun, false);
    return r;
}

static long make_by_hand(long number, long a, long b, long c, long d, long e, long f) {
    bool begun = children_begin();
    long r = syscall(number, a, b, c, d, e, f);

    children_end(begun, r == 0);
    return r;
}

/* ---- handlers of fork(2) ---- */

/* What pthread_atfork(3) of whatever library calls. */
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *object);
int __wrap___register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *object);

typedef int atfork_function(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *object);

static atfork_function *_Atomic c_library_atfork;

/* Once: dlsym(3) takes a lock that dlopen(3) holds while constructors run, which may wait for whoever calls us. */
static void __attribute__((constructor)) find_atfork(void) {
    if (!c_library_atfork)
        c_library_atfork = (atfork_function *)dlsym(RTLD_NEXT, "__register_atfork");
}

/* Ours: as the C library has it. */
int __wrap___register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *object) {
    find_atfork();
    return c_library_atfork ? c_library_atfork(prepare, parent, child, object) : ENOMEM;
}

/*
 * In a child handlers run in the order of their registration: one that came before ours, as of a library's constructor, would find holes where the
 * memory is. Before the fork it is the reverse order, and it would find our locks taken.
 */
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *object) {
    serve_early();
    return __wrap___register_atfork(prepare, parent, child, object);
}

/* ---- syscall(2) ---- */

/* A pointer is what the kernel would have taken the number for. */
#define POINTER(number) ((void *)(number)) /* NOLINT */

long by_hand_serve(long number, long a, long b, long c, long d, long e, long f) {
    switch (number) {
    case SYS_mmap:
        return (long)map(POINTER(a), (size_t)b, (int)c, (int)d, (int)e, f);
    case SYS_munmap:
        return munmap(POINTER(a), (size_t)b);
    case SYS_mremap:
        return (long)remap(POINTER(a), (size_t)b, (size_t)c, (int)d, POINTER(e));
    case SYS_mprotect:
        return mprotect(POINTER(a), (size_t)b, (int)c);
    case SYS_pkey_mprotect:
        return pkey_mprotect(POINTER(a), (size_t)b, (int)c, (int)d);
    case SYS_madvise:
        return madvise(POINTER(a), (size_t)b, (int)c);
    case SYS_process_madvise:
        return process_madvise((int)a, POINTER(b), (size_t)c, (int)d, (unsigned)e);
    case SYS_mincore:
        return mincore(POINTER(a), (size_t)b, POINTER(c));
    case SYS_mlock:
        return mlock(POINTER(a), (size_t)b);
    case SYS_mlock2:
        return mlock2(POINTER(a), (size_t)b, (unsigned)c);
    case SYS_mlockall:
        return mlockall((int)a);
    case SYS_munlockall:
        return munlockall();
    case SYS_remap_file_pages:
        return remap_file_pages(POINTER(a), (size_t)b, (int)c, (size_t)d, (int)e);
    case SYS_mseal:
        return mseal(POINTER(a), (size_t)b, (unsigned long)c);
    default: /* fork(2), clone(2), clone3(2) */
        return make_by_hand(number, a, b, c, d, e, f);
    }
}
