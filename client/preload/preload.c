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
#include "raw.h"
#include "serve.h"
#include "table.h"

#include <stdarg.h>
#include <sys/mman.h>

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
    if (UNLIKELY(is_droppable(flags)) && !backend_is_native())
        return serve_mmap(address, length, protection, flags, offset);
    if (UNLIKELY(replaces(flags)) && table_any())
        return serve_replace(address, length, protection, flags, fd, offset);
    return raw_mmap(address, length, protection, flags, fd, offset);
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

void *mremap(void *address, size_t had, size_t wanted, int flags, ...) {
    void *to = NULL;
    va_list more;

    if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
        va_start(more, flags);
        to = va_arg(more, void *);
        va_end(more);
    }
    return UNLIKELY(table_any()) ? serve_mremap(address, had, wanted, flags, to)
                                 : raw_mremap(address, had, wanted, flags, to);
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
