/* SPDX-License-Identifier: MIT */
/*
 * A thread that belongs to one session and may get stuck on that session's client.
 *
 * PUNCH_HOLE takes the object's inode lock; REGISTER, UNREGISTER and ZEROPAGE take the client's mmap_lock; a client can hold either as long
 * as it likes, and the wait cannot be interrupted. So each such thread has a descriptor table of its own, with this one session's
 * descriptors only: when the daemon is killed while the thread is stuck, its table is the only one that stays open, and no other
 * client's userfaultfd is in it.
 *
 * Always: the thread's descriptors have the numbers that they had in the main table. What it gets later comes over control.
 * Every call that may wait is announced by worker_call_begin(), so that the manager can see it overdue.
 */

#include "worker.h"

#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Enough for the deepest worker with a sanitizer's frames; only what is used becomes resident. */
#define WORKER_STACK_SIZE (512 * 1024)
#define KICK_TRIES 1000
#define WORKER_TURN_NS 100000 /* the least there is */

static void worker_on_signal(int signal) {
    (void)signal; /* only there to end an interruptible call with EINTR */
}

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

static void *worker_thread(void *data) {
    struct worker *worker = data;
    int keep[sizeof(worker->keep) / sizeof(worker->keep[0]) + 3];
    size_t n = 0;
    int r;

    worker->tid = gettid();
    keep[n++] = STDERR_FILENO; /* sanitizers speak there */
    keep[n++] = worker->control;
    keep[n++] = worker->wake_fd;
    for (size_t i = 0; i < worker->n_keep; i++)
        keep[n++] = worker->keep[i];
    r = own_table(keep, n);
    atomic_store(&worker->ready, r < 0 ? 2 : 1);
    syscall(SYS_futex, &worker->ready, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    if (r < 0)
        return NULL;
    worker->main(worker);
    close(worker->control);
    /* Whoever sees that it is done joins it: it is not to wait for a CPU then. */
    (void)setpriority(PRIO_PROCESS, 0, WORKER_URGENT_NICE);
    atomic_store(&worker->done, true);
    (void)!write(worker->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    /* The table itself goes with the thread. */
    return NULL;
}

/* Not the C library's, which keeps the stacks of threads that have ended, pages included: many at a time would be remembered for ever. */
static int worker_map_stack(struct worker *worker) {
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    char *stack = mmap(NULL, guard + WORKER_STACK_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (stack == MAP_FAILED)
        return -errno;
    if (mprotect(stack + guard, WORKER_STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
        int r = -errno;

        munmap(stack, guard + WORKER_STACK_SIZE);
        return r;
    }
    worker->stack = stack;
    worker->stack_size = guard + WORKER_STACK_SIZE;
    return 0;
}

static void worker_unmap_stack(struct worker *worker) {
    munmap(worker->stack, worker->stack_size);
}

static int worker_spawn(struct worker *worker, const char *name) {
    struct sigaction action = {.sa_handler = worker_on_signal};
    pthread_attr_t attr;
    sigset_t all, old;
    int r;

    sigaction(SIGUSR2, &action, NULL);
    worker->nice = getpriority(PRIO_PROCESS, 0);
    r = worker_map_stack(worker);
    if (r < 0)
        return r;
    pthread_attr_init(&attr); /* glibc's cannot fail */
    pthread_attr_setstack(&attr, (char *)worker->stack + worker->stack_size - WORKER_STACK_SIZE, WORKER_STACK_SIZE);
    sigfillset(&all);
    sigdelset(&all, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    /* Inherited by the thread: whoever starts it waits for it, and on a busy machine it would come last. */
    (void)setpriority(PRIO_PROCESS, 0, WORKER_URGENT_NICE);
    r = pthread_create(&worker->thread, &attr, worker_thread, worker);
    (void)setpriority(PRIO_PROCESS, 0, worker->nice);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (r != 0) {
        worker_unmap_stack(worker);
        return -r;
    }
    pthread_setname_np(worker->thread, name);
    return 0;
}

int worker_start(struct worker *worker, worker_main main, int wake_fd, const int *keep, size_t n_keep, const char *name) {
    int pair[2], r;

    if (n_keep > sizeof(worker->keep) / sizeof(worker->keep[0]))
        return -EINVAL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -errno;
    *worker = (struct worker){.main = main, .control = pair[0], .handle = pair[1], .wake_fd = wake_fd, .n_keep = n_keep};
    memcpy(worker->keep, keep, n_keep * sizeof(*keep));

    r = worker_spawn(worker, name);
    if (r >= 0) {
        while (atomic_load(&worker->ready) == 0)
            syscall(SYS_futex, &worker->ready, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
        if (atomic_load(&worker->ready) == 2) {
            pthread_join(worker->thread, NULL);
            worker_unmap_stack(worker);
            r = -EMFILE;
        }
    }
    close(pair[0]); /* the thread has its own by now */
    if (r < 0) {
        close(pair[1]);
        *worker = (struct worker)WORKER_NULL;
        return r;
    }
    worker->started = true;
    return 0;
}

void worker_stop(struct worker *worker) {
    if (!worker->started)
        return;
    atomic_store_explicit(&worker->stop, true, memory_order_release);
    worker_kick(worker);
    if (!atomic_load(&worker->done))
        pthread_kill(worker->thread, SIGUSR2);
}

void worker_join(struct worker *worker) {
    if (!worker->started)
        return;
    pthread_join(worker->thread, NULL);
    worker_unmap_stack(worker);
    close(worker->handle);
    *worker = (struct worker)WORKER_NULL;
}

void worker_kick(const struct worker *worker) {
    /* A full socket means that the thread is kicked already. No memory for it does not: nobody would ever kick again for this. */
    for (unsigned i = 0; worker->started && i < KICK_TRIES; i++) {
        ssize_t r = send(worker->handle, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (r >= 0 || (errno != ENOMEM && errno != ENOBUFS && errno != EINTR))
            return;
        sched_yield();
    }
}

int worker_send_fd(const struct worker *worker, int fd, void *data) {
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = &data, .iov_len = sizeof(data)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(worker->handle, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int worker_receive(struct worker *worker, int *ret_fd, void **ret_data) {
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    void *data;

    for (;;) {
        struct iovec iov = {.iov_base = &data, .iov_len = sizeof(data)};
        struct msghdr message = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        struct cmsghdr *header;
        ssize_t size;

        size = recvmsg(worker->control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (size <= 0) {
            if (size < 0 && errno == EINTR)
                continue;
            return 0;
        }
        header = CMSG_FIRSTHDR(&message);
        if (size != sizeof(data) || !header || header->cmsg_type != SCM_RIGHTS)
            continue; /* a kick */
        memcpy(ret_fd, CMSG_DATA(header), sizeof(int));
        *ret_data = data;
        return 1;
    }
}

/*
 * Short turns on a CPU, for who only answers others: whoever asks for these is let in sooner, and gets no more of it in all (Linux 6.12; before
 * that it changes nothing).
 */
void worker_calm(const struct worker *worker) {
    /* The first version of struct sched_attr: the kernel's header does not go together with <sched.h>. */
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attr = {.size = sizeof(attr), .policy = SCHED_OTHER, .nice = worker->nice, .runtime = WORKER_TURN_NS};

    if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
        (void)setpriority(PRIO_PROCESS, 0, worker->nice);
}

void worker_set_nice(const struct worker *worker, int nice) {
    (void)setpriority(PRIO_PROCESS, (id_t)worker->tid, nice);
}

void worker_set_realtime(const struct worker *worker, bool realtime) {
    struct sched_param param = {.sched_priority = realtime ? 1 : 0};

    /* Back to SCHED_OTHER the nice value is what it was. */
    (void)sched_setscheduler(worker->tid, realtime ? SCHED_FIFO : SCHED_OTHER, &param);
}

void worker_call_begin(struct worker *worker) {
    atomic_store_explicit(&worker->call_started, kernel_now(), memory_order_relaxed);
}

void worker_call_end(struct worker *worker) {
    atomic_store_explicit(&worker->call_started, 0, memory_order_relaxed);
}

bool worker_overdue(const struct worker *worker, uint64_t now, uint64_t limit_ns) {
    uint64_t started = atomic_load_explicit(&worker->call_started, memory_order_relaxed);

    return started != 0 && now > started && now - started > limit_ns;
}
