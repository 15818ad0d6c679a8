/* SPDX-License-Identifier: MIT */
/*
 * The filter is installed in the service's process before it executes the program; its listener stays open across that, under its number, until this
 * process has a copy. Calls that wait for others are asked about as well: the answer is to make them.
 */

#include "inject.h"

#include "service.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILTER_MAX 256

/* Later than Debian 12's headers. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef PAGEMAP_SCAN
#define PAGEMAP_SCAN _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 12 * sizeof(uint64_t))
#endif

#define CALL(name, ...)         \
    {                           \
#name, SYS_##name, 0, { \
            __VA_ARGS__         \
        }                       \
    }
#define REQUEST(name, ...)        \
    {                             \
#name, SYS_ioctl, name, { \
            __VA_ARGS__           \
        }                         \
    }

/* Not UFFDIO_WAKE, which cannot fail for a valid range. Not epoll_ctl(2), and no EIO of read(2): where these fail libuv ends the program. Its own trial of a descriptor, in uv_poll_init(), comes before that and is handled. */
const struct inject_kind inject_kinds[] = {
    CALL(accept4, EMFILE, ENOMEM, ECONNABORTED),
    CALL(recvmsg, ENOMEM, EINTR),
    CALL(sendmsg, ENOMEM, EAGAIN),
    CALL(sendto, ENOMEM, ENOBUFS, EAGAIN),
    CALL(getsockopt, ENOMEM),
    CALL(socketpair, EMFILE, ENOMEM),
    CALL(epoll_wait, EINTR),
    CALL(poll, EINTR, ENOMEM),
    CALL(pidfd_open, EMFILE, ENOMEM),
    CALL(openat, EMFILE, ENOMEM, EACCES),
    CALL(read, EINTR),
    CALL(pread64, EINTR, EIO),
    CALL(readlink, ENOMEM),
    CALL(newfstatat, ENOMEM),
    CALL(statx, ENOMEM),
    CALL(fstatfs, EIO),
    CALL(memfd_create, EMFILE, ENOMEM),
    CALL(unlinkat, ENOMEM),
    CALL(ftruncate, ENOSPC, EINTR),
    CALL(fchmod, EIO),
    CALL(fcntl, EMFILE, EINVAL),
    CALL(fallocate, ENOMEM, EINTR, ENOSPC),
    CALL(lseek, EIO),
    CALL(mincore, EAGAIN, ENOMEM),
    CALL(mmap, ENOMEM),
    CALL(mprotect, ENOMEM),
    CALL(clone3, EAGAIN, ENOMEM),
    CALL(close_range, ENOMEM, EMFILE),
    CALL(setpriority, EACCES),
    CALL(sched_setattr, EPERM),
    CALL(sched_setscheduler, EPERM),
    CALL(io_uring_setup, ENOMEM, EMFILE),
    CALL(io_uring_enter, EINTR, EBUSY, ENOMEM),
    CALL(io_uring_register, ENOMEM),
    CALL(inotify_add_watch, ENOSPC),
    CALL(getdents64, ENOMEM),
    CALL(madvise, ENOMEM, EINVAL),
    CALL(process_madvise, ENOMEM, ESRCH, EPERM),
    CALL(pidfd_send_signal, EPERM),
    CALL(munlock, ENOMEM),
    CALL(cachestat, ENOSYS),
    CALL(setsockopt, ENOMEM),
    REQUEST(UFFDIO_API, EINVAL, ENOMEM),
    REQUEST(UFFDIO_REGISTER, ENOMEM, EBUSY),
    REQUEST(UFFDIO_UNREGISTER, ENOMEM),
    REQUEST(UFFDIO_COPY, ENOMEM, EAGAIN, ENOSPC),
    REQUEST(UFFDIO_ZEROPAGE, ENOMEM, EAGAIN, ESRCH),
    REQUEST(UFFDIO_CONTINUE, ENOMEM, EAGAIN),
    REQUEST(UFFDIO_WRITEPROTECT, EAGAIN, ENOMEM),
    REQUEST(PAGEMAP_SCAN, ENOMEM, EINTR),
};
#define N_KINDS (sizeof(inject_kinds) / sizeof(inject_kinds[0]))

static int child_listener; /* its number in the service's process, which shares this memory until it executes */
static int listener = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned counts[N_KINDS];
static int armed = -1, armed_error;
static unsigned armed_nth;
static bool fired;

size_t inject_n_kinds(void) {
    return N_KINDS;
}

/* ---- the filter ---- */

static size_t make_filter(struct sock_filter *filter) {
    size_t n = 0;

    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    /* Of this process itself, before it executes the program. */
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETFD, 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N_KINDS; i++) {
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)inject_kinds[i].number, 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    return n;
}

/* In the process that will be the service. */
static void install(void) {
    struct sock_filter filter[FILTER_MAX];
    struct sock_fprog program = {.filter = filter, .len = (unsigned short)make_filter(filter)};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    child_listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                  SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (child_listener >= 0)
        fcntl(child_listener, F_SETFD, 0);
}

/* ---- answers ---- */

static int answer(const struct seccomp_data *data) {
    int error = 0;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < N_KINDS; i++) {
        const struct inject_kind *kind = &inject_kinds[i];

        if (data->nr != kind->number || (kind->request != 0 && kind->request != data->args[1]))
            continue;
        counts[i]++;
        if (armed == (int)i && counts[i] == armed_nth) {
            error = armed_error;
            fired = true;
        }
        break;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

static void *answer_all(void *data) {
    (void)data;
    for (;;) {
        struct pollfd asked = {.fd = listener, .events = POLLIN};
        struct seccomp_notif question = {0};
        struct seccomp_notif_resp reply = {0};

        if (poll(&asked, 1, -1) < 0 || !(asked.revents & POLLIN))
            break;
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &question) < 0)
            continue; /* who asked is gone */
        reply.id = question.id;
        reply.error = -answer(&question.data);
        if (reply.error == 0)
            reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
    }
    close(listener);
    return NULL;
}

static void begin(int pid) {
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    pthread_t thread;

    service_before_exec(NULL, NULL);
    ck_assert_int_ge(child_listener, 0);
    listener = (int)syscall(SYS_pidfd_getfd, pidfd, child_listener, 0);
    ck_assert_int_ge(listener, 0);
    close(pidfd);
    ck_assert_int_eq(pthread_create(&thread, NULL, answer_all, NULL), 0);
    pthread_detach(thread);
}

bool inject_prepare(void) {
    uint32_t action = SECCOMP_RET_USER_NOTIF;

    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0)
        return false;
    child_listener = -1;
    listener = -1;
    service_before_exec(install, begin);
    return true;
}

void inject_arm(int kind, unsigned nth, int error) {
    pthread_mutex_lock(&lock);
    memset(counts, 0, sizeof(counts));
    armed = kind;
    armed_nth = nth;
    armed_error = error;
    fired = false;
    pthread_mutex_unlock(&lock);
}

bool inject_disarm(void) {
    bool was;

    pthread_mutex_lock(&lock);
    armed = -1;
    was = fired;
    pthread_mutex_unlock(&lock);
    return was;
}

unsigned inject_count(size_t kind) {
    unsigned n;

    pthread_mutex_lock(&lock);
    n = counts[kind];
    pthread_mutex_unlock(&lock);
    return n;
}
