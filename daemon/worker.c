/* SPDX-License-Identifier: MIT */
/*
 * A thread that belongs to one session and may get stuck on that session's client.
 *
 * PUNCH_HOLE takes the object's inode lock; REGISTER, UNREGISTER and ZEROPAGE take the client's mmap_lock; a client can hold either as long
 * as it likes, and the wait cannot be interrupted. So each such thread has a descriptor table of its own, with this one session's
 * descriptors only: when the daemon is killed while the thread is stuck, its table is the only one that stays open, and no other
 * client's userfaultfd is in it.
 *
 * Nobody waits for its start: it is one of the spare threads (worker-pool.c), and becomes a worker by an order, with which its descriptors come.
 * Always: what it gets later comes over control, too. The numbers of descriptors are its table's own, but wake_fd's.
 * Every call that may wait is announced by worker_call_begin(), so that the manager can see it overdue.
 */

#include "worker.h"

#include "kernel.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KICK_TRIES 1000
#define WORKER_TURN_NS 100000 /* the least there is */

union message_control {
    char space[CMSG_SPACE(sizeof(int) * WORKER_KEEP_MAX)];
    struct cmsghdr align;
};

int worker_send_message(int socket, void *data, const int *fds, size_t n_fds) {
    union message_control control = {0};
    struct iovec iov = {.iov_base = &data, .iov_len = sizeof(data)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n_fds > 0) {
        struct cmsghdr *header;

        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
    }
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int worker_receive_message(int socket, void **ret_data, int *ret_fds, size_t n_fds, int flags) {
    union message_control control;
    void *data;
    struct iovec iov = {.iov_base = &data, .iov_len = sizeof(data)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_LEN(sizeof(int) * n_fds)}; /* not one more */
    ssize_t size = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header;

    if (size <= 0)
        return size < 0 ? -errno : -EPIPE;
    if (size != sizeof(data))
        return 0;
    header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(ret_fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    *ret_data = data;
    return 1;
}

/* In the thread. NULL: the other end was closed. */
static struct worker *receive_order(int control) {
    struct pollfd readable = {.fd = control, .events = POLLIN};
    int keep[WORKER_KEEP_MAX] = {-1, -1};
    struct worker *worker;
    void *data;
    int r;

    do {
        (void)poll(&readable, 1, -1);
        r = worker_receive_message(control, &data, keep, WORKER_KEEP_MAX, MSG_DONTWAIT);
    } while (r <= 0 && r != -EPIPE);
    if (r < 0)
        return NULL;
    worker = data;
    memcpy(worker->keep, keep, sizeof(keep));
    return worker;
}

void worker_follow(int control, int wake_fd) {
    struct worker *worker = receive_order(control);

    if (!worker)
        return;
    worker->main(worker);
    /*
     * Control stays open, with what is in it: the kernel closes it with the thread, in which no close waits for a socket that lingers. Whoever
     * sees that it is done joins it: it is not to wait for a CPU then.
     */
    (void)setpriority(PRIO_PROCESS, 0, WORKER_URGENT_NICE);
    atomic_store(&worker->done, true);
    (void)!write(wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

int worker_start(struct worker *worker, worker_main main, struct worker_pool *pool, const int *keep, size_t n_keep,
                 const char *name) {
    struct spare spare;
    int r;

    if (n_keep > WORKER_KEEP_MAX)
        return -EINVAL;
    r = worker_pool_take(pool, &spare);
    if (r < 0)
        return r;
    *worker = (struct worker){.thread = spare.thread,
                              .tid = spare.tid,
                              .nice = getpriority(PRIO_PROCESS, 0),
                              .stack = spare.stack,
                              .stack_size = spare.stack_size,
                              .main = main,
                              .control = spare.control,
                              .handle = spare.handle};
    r = worker_send_message(spare.handle, worker, keep, n_keep);
    if (r < 0) {
        spare_end(&spare);
        *worker = (struct worker)WORKER_NULL;
        return r;
    }
    worker->started = true;
    pthread_setname_np(worker->thread, name);
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
    worker_free_stack(worker->stack, worker->stack_size);
    close(worker->handle);
    *worker = (struct worker)WORKER_NULL;
}

bool worker_kick(const struct worker *worker) {
    return worker_kick_by(worker, worker->handle);
}

bool worker_kick_by(const struct worker *worker, int handle) {
    /* A full socket means that the thread is kicked already. No memory for it does not: nobody would ever kick again for this. */
    for (unsigned i = 0; worker->started && i < KICK_TRIES; i++) {
        ssize_t r = send(handle, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (r >= 0 || (errno != ENOMEM && errno != ENOBUFS && errno != EINTR))
            return true;
        sched_yield();
    }
    return false;
}

int worker_send_fd(const struct worker *worker, int fd, void *data) {
    return worker_send_message(worker->handle, data, &fd, 1);
}

int worker_receive(struct worker *worker, int *ret_fd, void **ret_data) {
    for (;;) {
        int fd = -1, r = worker_receive_message(worker->control, ret_data, &fd, 1, MSG_DONTWAIT);

        if (r > 0 && fd >= 0) {
            *ret_fd = fd;
            return 1;
        }
        if (r < 0 && r != -EINTR)
            return 0;
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

/*
 * The kernel looks at the end of a turn when its timer ticks, 4 ms at 250 Hz, however short the turn is; and whoever asked for short ones comes before
 * those who did not. So the end has to be seen here.
 */
void worker_let_others(struct worker *worker) {
    if (kernel_now() - worker->turn < WORKER_TURN_NS)
        return;
    sched_yield();
    worker_begin_turn(worker);
}

void worker_begin_turn(struct worker *worker) {
    worker->turn = kernel_now();
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
