/* SPDX-License-Identifier: MIT */
/*
 * Threads that wait to be workers.
 *
 * A new thread has to get a CPU before it has a table of its own, and until then nothing may be closed that it must not have. On a machine that others keep
 * busy that takes milliseconds, and with each client that registers the loop would wait for three of them, and everybody for the loop. So
 * a few, the spares, are there before; another thread, the filler, starts the next ones.
 *
 * A thread begins with a copy of its maker's table, and letting go of that can be a last close, which can wait for a client (vet.c). So the
 * filler has a table of its own, too, and makes all others; it lets go of the main one while the loop waits for that, and so still has all
 * that is in it. For each spare the loop makes a pair of sockets and sends the filler the thread's end.
 *
 * Always: the filler's table holds stderr, wake_fd, its end, and one spare's end at most, of which it is rid before anything can be sent there; a spare's
 * holds stderr, wake_fd and its end. The loop alone orders and takes: no lock. Whoever cannot be started is not tried again before
 * somebody is needed.
 */

#include "worker-pool.h"

#include "worker.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Enough for the deepest worker with a sanitizer's frames; only what is used becomes resident. */
#define WORKER_STACK_SIZE (512 * 1024)

/* ---- a table of one's own ---- */

static int compare_fds(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

static bool contains(const int *fds, size_t n, int fd) {
    for (size_t i = 0; i < n; i++)
        if (fds[i] == fd)
            return true;
    return false;
}

/* Before Linux 5.9: unshare, then close one by one. */
static int own_table_by_hand(const int *keep, size_t n_keep) {
    struct dirent *entry;
    DIR *dir;

    if (unshare(CLONE_FILES) < 0)
        return -errno;
    dir = opendir("/proc/thread-self/fd");
    if (!dir)
        return -errno;
    while ((entry = readdir(dir))) {
        int fd = atoi(entry->d_name);

        if (entry->d_name[0] != '.' && fd != dirfd(dir) && !contains(keep, n_keep, fd))
            close(fd);
    }
    closedir(dir);
    return 0;
}

/* Gives the calling thread a descriptor table of its own that holds just keep[] (sorted in place). */
static int own_table(int *keep, size_t n_keep) {
    unsigned next = 0;

    qsort(keep, n_keep, sizeof(*keep), compare_fds);
    /* The first call copies only what lies below the closed range: cheap also when the main table is large. */
    if (syscall(SYS_close_range, (unsigned)keep[n_keep - 1] + 1, ~0U, CLOSE_RANGE_UNSHARE) < 0)
        return errno == ENOSYS || errno == EINVAL || errno == EPERM ? own_table_by_hand(keep, n_keep) : -errno;
    for (size_t i = 0; i < n_keep; i++) {
        if ((unsigned)keep[i] > next && syscall(SYS_close_range, next, (unsigned)keep[i] - 1, 0) < 0)
            return -errno;
        next = (unsigned)keep[i] + 1;
    }
    return 0;
}

/* From here on the thread is whoever's who waits for this. */
static void tell_table(_Atomic uint32_t *table, int r) {
    atomic_store(table, r < 0 ? 2 : 1);
    syscall(SYS_futex, table, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Has it one? Else it ends. */
static bool await_table(_Atomic uint32_t *table) {
    while (atomic_load(table) == 0)
        syscall(SYS_futex, table, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    return atomic_load(table) == 1;
}

/* ---- one ---- */

static void *spare_thread(void *data) {
    struct spare *spare = data;
    int control = spare->control, wake_fd = spare->wake_fd;
    int keep[] = {STDERR_FILENO, control, wake_fd}; /* sanitizers speak to the first */
    int r;

    spare->tid = gettid();
    pthread_setname_np(pthread_self(), "drp-spare");
    r = own_table(keep, sizeof(keep) / sizeof(keep[0]));
    tell_table(&spare->table, r);
    if (r >= 0)
        worker_follow(control, wake_fd);
    /* The table itself goes with the thread. */
    return NULL;
}

/* Not the C library's, which keeps the stacks of threads that have ended, pages included: many at a time would be remembered for ever. */
static int map_stack(struct spare *spare) {
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    char *stack = mmap(NULL, guard + WORKER_STACK_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (stack == MAP_FAILED)
        return -errno;
    if (mprotect(stack + guard, WORKER_STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
        int r = -errno;

        munmap(stack, guard + WORKER_STACK_SIZE);
        return r;
    }
    spare->stack = stack;
    spare->stack_size = guard + WORKER_STACK_SIZE;
    return 0;
}

void worker_free_stack(void *stack, size_t size) {
    munmap(stack, size);
}

/* Inherits all that the filler is: nobody's signals but SIGUSR2, and that it comes first, since it may be waited for. */
static int spare_spawn(struct spare *spare) {
    pthread_attr_t attr;
    int r;

    r = map_stack(spare);
    if (r < 0)
        return r;
    pthread_attr_init(&attr); /* glibc's cannot fail */
    pthread_attr_setstack(&attr, (char *)spare->stack + spare->stack_size - WORKER_STACK_SIZE, WORKER_STACK_SIZE);
    r = -pthread_create(&spare->thread, &attr, spare_thread, spare);
    pthread_attr_destroy(&attr);
    if (r >= 0 && !await_table(&spare->table)) {
        pthread_join(spare->thread, NULL);
        r = -EMFILE;
    }
    if (r < 0)
        worker_free_stack(spare->stack, spare->stack_size);
    return r;
}

void spare_end(struct spare *spare) {
    close(spare->handle);
    pthread_join(spare->thread, NULL);
    worker_free_stack(spare->stack, spare->stack_size);
}

/* ---- the filler ---- */

static void finish_order(struct worker_pool *pool, struct spare *spare, int error) {
    spare->error = error;
    atomic_store(&spare->state, error < 0 ? SPARE_FAILED : SPARE_READY);
    atomic_fetch_add(&pool->outcomes, 1);
    syscall(SYS_futex, &pool->outcomes, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* An order that waits. false: there will be none. */
static bool receive_order(struct worker_pool *pool, struct spare **ret, int *ret_control) {
    void *data;
    int r;

    do {
        *ret_control = -1;
        r = worker_receive_message(pool->filler_end, &data, ret_control, 1, 0);
    } while (r <= 0 && r != -EPIPE);
    *ret = data;
    return r > 0 && !atomic_load(&pool->stop);
}

static void *fill(void *data) {
    struct worker_pool *pool = data;
    int keep[] = {STDERR_FILENO, pool->wake_fd, pool->filler_end};
    struct spare *spare;
    int r, control;

    (void)setpriority(PRIO_PROCESS, 0, WORKER_URGENT_NICE);
    r = own_table(keep, sizeof(keep) / sizeof(keep[0]));
    tell_table(&pool->table, r);
    while (r >= 0 && receive_order(pool, &spare, &control)) {
        int error = -EMFILE;

        if (control >= 0) {
            spare->control = control;
            error = spare_spawn(spare);
            close(control);
        }
        finish_order(pool, spare, error);
    }
    return NULL;
}

/* ---- in the loop ---- */

static int order(struct worker_pool *pool, struct spare *spare) {
    int pair[2], r;

    if (atomic_load(&spare->state) == SPARE_FAILED)
        close(spare->handle);
    atomic_store(&spare->state, SPARE_NONE);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -errno;
    spare->handle = pair[1];
    spare->wake_fd = pool->wake_fd;
    atomic_store(&spare->table, 0);
    atomic_store(&spare->state, SPARE_ORDERED);
    r = worker_send_message(pool->orders, spare, &pair[0], 1);
    close(pair[0]);
    if (r < 0) {
        atomic_store(&spare->state, SPARE_NONE);
        close(pair[1]);
    }
    return r;
}

/* All that are missing. */
static void order_all(struct worker_pool *pool) {
    pool->error = 0;
    for (size_t i = 0; i < WORKER_POOL_SIZE && pool->error >= 0; i++) {
        uint32_t state = atomic_load(&pool->spares[i].state);

        if (state == SPARE_NONE || state == SPARE_FAILED)
            pool->error = order(pool, &pool->spares[i]);
    }
}

static struct spare *find(struct worker_pool *pool, enum spare_state state) {
    for (size_t i = 0; i < WORKER_POOL_SIZE; i++)
        if (atomic_load(&pool->spares[i].state) == state)
            return &pool->spares[i];
    return NULL;
}

/* One that is ready, as soon as there is one; NULL: all that were ordered failed. */
static struct spare *await_ready(struct worker_pool *pool) {
    for (;;) {
        uint32_t outcomes = atomic_load(&pool->outcomes);
        bool ordered = find(pool, SPARE_ORDERED) != NULL; /* first: what is ready a moment later is found */
        struct spare *spare = find(pool, SPARE_READY);

        if (spare || !ordered)
            return spare;
        syscall(SYS_futex, &pool->outcomes, FUTEX_WAIT_PRIVATE, outcomes, NULL, NULL, 0);
    }
}

static void on_signal(int signal) {
    (void)signal; /* only there to end an interruptible call with EINTR */
}

void worker_pool_init(struct worker_pool *pool, int wake_fd) {
    struct sigaction action = {.sa_handler = on_signal};

    *pool = (struct worker_pool){.wake_fd = wake_fd, .orders = -1};
    sigaction(SIGUSR2, &action, NULL);
}

static int start_filler(struct worker_pool *pool) {
    sigset_t all, old;
    int r;

    atomic_store(&pool->table, 0);
    sigfillset(&all);
    sigdelset(&all, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = -pthread_create(&pool->filler, NULL, fill, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r < 0)
        return r;
    pthread_setname_np(pool->filler, "drp-filler");
    if (await_table(&pool->table))
        return 0;
    pthread_join(pool->filler, NULL);
    return -EMFILE;
}

void worker_pool_start(struct worker_pool *pool) {
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        pool->error = -errno;
        return;
    }
    pool->filler_end = pair[0];
    pool->error = start_filler(pool);
    close(pair[0]);
    if (pool->error < 0) {
        close(pair[1]);
        return;
    }
    pool->orders = pair[1];
    order_all(pool);
}

int worker_pool_error(const struct worker_pool *pool) {
    int error = pool->error;

    for (size_t i = 0; i < WORKER_POOL_SIZE && error >= 0; i++)
        if (atomic_load(&pool->spares[i].state) == SPARE_FAILED)
            error = pool->spares[i].error;
    return error;
}

void worker_pool_deinit(struct worker_pool *pool) {
    if (pool->orders < 0)
        return;
    atomic_store(&pool->stop, true);
    close(pool->orders);
    pool->orders = -1;
    pthread_join(pool->filler, NULL);
    for (size_t i = 0; i < WORKER_POOL_SIZE; i++) {
        struct spare *spare = &pool->spares[i];

        if (atomic_load(&spare->state) == SPARE_READY)
            spare_end(spare);
        else if (atomic_load(&spare->state) != SPARE_NONE)
            close(spare->handle);
    }
}

struct spare *worker_pool_await(struct worker_pool *pool) {
    struct spare *spare = find(pool, SPARE_READY);

    if (spare)
        return spare;
    if (pool->orders < 0)
        worker_pool_start(pool);
    else
        order_all(pool);
    return await_ready(pool);
}

int worker_pool_take(struct worker_pool *pool, struct spare *ret) {
    struct spare *spare = worker_pool_await(pool);

    if (!spare) {
        int r = worker_pool_error(pool);

        return r < 0 ? r : -EAGAIN;
    }
    *ret = *spare;
    atomic_store(&spare->state, SPARE_NONE);
    order_all(pool); /* what cannot be ordered now is the next time */
    return 0;
}
