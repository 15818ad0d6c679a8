/* SPDX-License-Identifier: MIT */

/*
 * Who serves: the kernel or the service.
 *
 * $DROPPABLE_BACKEND (native, daemon) is the user's word. Without it the kernel's own MAP_DROPPABLE is taken where there is
 * one, since it costs a program the least. The answer never changes: a program must not see two kinds of memory.
 *
 * The context is never freed: it goes with the process. A forked child keeps the parent's, which connects again by itself.
 */

#include "backend.h"

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

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define ENOTSUPP_KERNEL 524 /* the kernel's own, which must not reach programs and does */
#define TRY_BYTES 4096

enum backend { BACKEND_UNDECIDED, BACKEND_NATIVE, BACKEND_SERVICE };

static _Atomic int decided;
static _Atomic bool complained;
static struct drp *_Atomic context;
static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;

/* Memory that is short at this moment says nothing about the kernel. */
static bool kernel_has_it(void) {
    int saved = errno;
    bool has = true;
    void *p;

    p = raw_mmap(NULL, TRY_BYTES, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED)
        raw_munmap(p, TRY_BYTES);
    else
        has = errno != EINVAL && errno != EOPNOTSUPP && errno != ENOTSUPP_KERNEL;
    errno = saved;
    return has;
}

static enum backend decide(void) {
    const char *word = getenv("DROPPABLE_BACKEND");

    if (word && *word)
        return strcmp(word, "native") == 0 ? BACKEND_NATIVE : BACKEND_SERVICE; /* drp_new() refuses other words */
    return kernel_has_it() ? BACKEND_NATIVE : BACKEND_SERVICE;
}

bool backend_is_native(void) {
    int backend = atomic_load_explicit(&decided, memory_order_relaxed);
    int undecided = BACKEND_UNDECIDED;

    if (backend == BACKEND_UNDECIDED) {
        backend = (int)decide();
        if (!atomic_compare_exchange_strong(&decided, &undecided, backend))
            backend = undecided; /* another thread was first */
    }
    return backend == BACKEND_NATIVE;
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
