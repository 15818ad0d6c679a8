/* SPDX-License-Identifier: MIT */

/*
 * fork(2): by the C library's handlers, or around a call that passes those by, such as _Fork(), clone(3) and syscall(SYS_fork).
 *
 * These may be made by a signal handler, which has interrupted the thread that holds the very locks that keep the tables whole. So they are
 * waited for by such a call for a while only; then the child has holes where the memory was, as it would have without us.
 */

#include "children.h"

#include "arena.h"
#include "backend.h"
#include "client.h"

#include <pthread.h>
#include <stdatomic.h>

static _Atomic bool ready;

static void prepare(void) {
    table_lock();
}

static void parent(void) {
    table_unlock();
}

static void child(void) {
    arena_fork_child();
    backend_fork_child();
}

static void forget(void) {
    arena_forget();
    backend_fork_child();
}

/*
 * Before the client library registers its own: handlers that prepare run in reverse order, so that the table's lock is taken
 * last. Who holds the library's fork lock may come here and wait for the table, never the other way round. In the child they run in this order: the
 * library's brings the memory, and after that there may be signals.
 */
int children_init(void) {
    int r = table_init();

    fork_on_missed(forget);
    if (r == 0)
        r = -pthread_atfork(prepare, parent, child);
    if (r == 0)
        r = fork_init();
    if (r == 0)
        r = -pthread_atfork(NULL, NULL, table_fork_child_end);
    atomic_store(&ready, r == 0);
    return r;
}

bool children_begin(void) {
    bool begun;

    fork_catch_up();
    begun = atomic_load(&ready) && fork_try_lock();
    if (begun && !table_try_lock()) {
        fork_unlock();
        begun = false;
    }
    return begun;
}

void children_end(bool begun, bool is_child) {
    if (!begun)
        return;
    if (is_child) {
        child();
        fork_in_child();
        table_fork_child_end();
    } else {
        table_unlock();
        fork_unlock();
    }
}
