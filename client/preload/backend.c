/* SPDX-License-Identifier: MIT */

/*
 * Who serves: the kernel, the service, or nobody, with plain memory.
 *
 * $DROPPABLE_BACKEND is the user's word. Where it leaves that open (auto), the kernel's own MAP_DROPPABLE is taken if there is one, since it costs a
 * program the least and is what it asked for, else the service; plain memory only where it was named. The answer never changes: a program must not see
 * two kinds of memory.
 *
 * The context is never freed: it goes with the process. A forked child keeps the parent's, which connects again by itself.
 */

#include "backend.h"

#include "choice.h"
#include "raw.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNDECIDED (-1)

static _Atomic int decided = UNDECIDED; /* enum drp_backend */
static _Atomic bool complained;
static struct drp *_Atomic context;
static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;

static enum drp_backend decide(void) {
    enum drp_backend backend;

    if (choice_of_user(&backend) < 0)
        return DRP_BACKEND_DAEMON; /* drp_new() refuses the word */
    if (backend != DRP_BACKEND_AUTO)
        return backend;
    /* Memory that is short at this moment says nothing about the kernel. */
    return choice_native_error() == -EOPNOTSUPP ? DRP_BACKEND_DAEMON : DRP_BACKEND_NATIVE;
}

enum drp_backend backend_get(void) {
    int backend = atomic_load_explicit(&decided, memory_order_relaxed);
    int undecided = UNDECIDED;

    if (backend == UNDECIDED) {
        backend = (int)decide();
        if (!atomic_compare_exchange_strong(&decided, &undecided, backend))
            backend = undecided; /* another thread was first */
    }
    return (enum drp_backend)backend;
}

void *backend_map_plain(void *address, size_t length, int protection, int flags, long offset) {
    int saved = errno, type = (flags & ~MAP_TYPE) | MAP_PRIVATE | MAP_NORESERVE;
    void *p;

    /* As the kernel answers to MAP_DROPPABLE. */
    if (flags & (MAP_LOCKED | MAP_HUGETLB | MAP_GROWSDOWN)) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    /* Filled after the advice, which is for what is there by then, too. */
    p = raw_mmap(address, length, protection, type, -1, offset);
    if (p == MAP_FAILED)
        return p;
    if (raw_madvise(p, length, MADV_WIPEONFORK) < 0) {
        raw_munmap(p, length);
        errno = ENOMEM;
        return MAP_FAILED;
    }
    raw_madvise(p, length, MADV_DONTDUMP);
    errno = saved;
    return p;
}

int backend_context(struct drp **ret) {
    struct drp *d = atomic_load_explicit(&context, memory_order_acquire);
    int r = 0;

    if (!d) {
        pthread_mutex_lock(&context_lock);
        d = atomic_load_explicit(&context, memory_order_acquire);
        if (!d)
            r = drp_new(&d, NULL);
        if (r == 0)
            atomic_store_explicit(&context, d, memory_order_release);
        pthread_mutex_unlock(&context_lock);
    }
    if (r < 0)
        return r;
    *ret = d;
    return 0;
}

void backend_complain(int error) {
    const char *debug = getenv("DROPPABLE_DEBUG");
    char text[512];
    int n;

    if (!debug || !*debug || atomic_exchange(&complained, true))
        return;
    n = snprintf(text, sizeof(text), "libdroppable-preload: no droppable memory: %s %s\n", drp_strerror(error),
                 drp_detail());
    if (n >= (int)sizeof(text))
        n = (int)sizeof(text) - 1;
    if (n < 0 || write(STDERR_FILENO, text, (size_t)n) < 0)
        return; /* nobody to tell */
}

/* Another thread may have been connecting, and is not here to end that. */
void backend_fork_child(void) {
    context_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}
