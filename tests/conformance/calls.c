/* SPDX-License-Identifier: MIT */

/*
 * System calls that read or write the memory, each on memory in every state: never touched, filled, dropped, and
 * inaccessible in three ways.
 *
 * A call "into" is to write FILL into the memory, a call "from" to read it; where it is possible, what the other end got is told.
 */

#include "sections.h"

#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define SIZE (16 * PAGE)

enum state { FRESH, FILLED, DROPPED, READ_ONLY, NONE, UNMAPPED };

static char *memory_in(enum state state) {
    char *p = droppable_alone(SIZE);

    if (state != FRESH)
        fill(p, SIZE);
    if (state == DROPPED)
        madvise(p, SIZE, MADV_PAGEOUT);
    if (state == READ_ONLY || state == NONE)
        mprotect(p, SIZE, state == NONE ? PROT_NONE : PROT_READ);
    if (state == UNMAPPED)
        munmap(p, SIZE);
    return p;
}

/* Full of FILL. */
static char *source(void) {
    static char bytes[SIZE] __attribute__((aligned(4096)));

    fill(bytes, SIZE);
    return bytes;
}

static int full_pipe(void) {
    int fds[2];

    if (pipe(fds) < 0 || write(fds[1], source(), SIZE) != (ssize_t)SIZE)
        say_result("pipe", -1);
    return fds[0];
}

static int full_file(int flags) {
    int fd = scratch_file(flags);

    if (fd < 0 && flags & O_DIRECT)
        say_absent();
    if (fd < 0 || pwrite(fd, source(), SIZE, 0) != (ssize_t)SIZE)
        say_result("file", -1);
    return fd;
}

static int full_socket(int type) {
    int fds[2];

    if (socketpair(AF_UNIX, type, 0, fds) < 0 || send(fds[1], source(), SIZE, 0) != (ssize_t)SIZE)
        say_result("socketpair", -1);
    return fds[0];
}

/* ---- into ---- */

static ssize_t into_read(char *p) {
    return read(full_pipe(), p, SIZE);
}

static ssize_t into_read_file(char *p) {
    int fd = full_file(0);

    return lseek(fd, 0, SEEK_SET) < 0 ? -1 : read(fd, p, SIZE);
}

static ssize_t into_pread(char *p) {
    return pread(full_file(0), p, SIZE, 0);
}

static ssize_t into_direct(char *p) {
    return pread(full_file(O_DIRECT), p, SIZE, 0);
}

static ssize_t into_readv(char *p) {
    struct iovec vector[2] = {{p, 3 * PAGE + 5}, {p + 3 * PAGE + 5, SIZE - 3 * PAGE - 5}};

    return readv(full_pipe(), vector, 2);
}

static ssize_t into_preadv2(char *p) {
    struct iovec vector = {p, SIZE};

    return preadv2(full_file(0), &vector, 1, 0, RWF_HIPRI);
}

static ssize_t into_recv(char *p) {
    return recv(full_socket(SOCK_STREAM), p, SIZE, MSG_WAITALL);
}

static ssize_t into_recv_datagram(char *p) {
    return recv(full_socket(SOCK_DGRAM), p, SIZE, 0);
}

static ssize_t into_recvmsg(char *p) {
    struct iovec vector = {p, SIZE};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};

    return recvmsg(full_socket(SOCK_SEQPACKET), &message, 0);
}

static ssize_t into_vm_read(char *p) {
    struct iovec local = {p, SIZE}, remote = {source(), SIZE};

    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
}

static ssize_t into_vm_write(char *p) {
    struct iovec local = {source(), SIZE}, remote = {p, SIZE};

    return process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
}

static ssize_t into_proc_mem(char *p) {
    return pwrite(open("/proc/self/mem", O_RDWR | O_CLOEXEC), source(), SIZE, (off_t)(uintptr_t)p);
}

static ssize_t into_random(char *p) {
    ssize_t n = getrandom(p, SIZE, 0);

    if (n > 0) /* what it reads cannot be told */
        fill(p, SIZE);
    return n;
}

static ssize_t into_stat(char *p) {
    ssize_t r = fstat(0, (struct stat *)p) == 0 ? (ssize_t)sizeof(struct stat) : -1;

    if (r > 0)
        fill(p, SIZE);
    return r;
}

static ssize_t into_clock(char *p) {
    ssize_t r = syscall(SYS_clock_gettime, CLOCK_MONOTONIC, p);

    if (r == 0)
        fill(p, SIZE);
    return r;
}

static ssize_t into_pipe(char *p) {
    ssize_t r = pipe((int *)p);

    if (r == 0)
        fill(p, SIZE);
    return r;
}

static ssize_t into_ioctl(char *p) {
    ssize_t r = ioctl(full_pipe(), FIONREAD, p);

    if (r == 0)
        fill(p, SIZE);
    return r;
}

/* ---- io_uring ---- */

static struct io_uring ring;

static void start_ring(void) {
    if (io_uring_queue_init(8, &ring, 0) < 0)
        say_absent();
}

static ssize_t ring_result(void) {
    struct io_uring_cqe *cqe;
    int r = io_uring_submit_and_wait(&ring, 1);

    if (r >= 0)
        r = io_uring_peek_cqe(&ring, &cqe);
    if (r >= 0)
        r = cqe->res;
    errno = r < 0 ? -r : 0;
    return r < 0 ? -1 : r;
}

static ssize_t into_ring_from(char *p, int fd, bool always_async) {
    struct io_uring_sqe *sqe;

    start_ring();
    sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read(sqe, fd, p, SIZE, 0);
    if (always_async)
        sqe->flags |= IOSQE_ASYNC;
    return ring_result();
}

static ssize_t into_ring(char *p) {
    return into_ring_from(p, full_file(0), false);
}

static ssize_t into_ring_worker(char *p) {
    return into_ring_from(p, full_file(0), true);
}

static ssize_t into_ring_direct(char *p) {
    return into_ring_from(p, full_file(O_DIRECT), false);
}

static int register_buffer(char *p) {
    struct iovec vector = {p, SIZE};
    int r;

    start_ring();
    r = io_uring_register_buffers(&ring, &vector, 1);
    errno = r < 0 ? -r : 0;
    say_result("register", r);
    return r;
}

static ssize_t into_ring_fixed_from(char *p, int fd) {
    if (register_buffer(p) < 0)
        return -1;
    io_uring_prep_read_fixed(io_uring_get_sqe(&ring), fd, p, SIZE, 0, 0);
    return ring_result();
}

static ssize_t into_ring_fixed(char *p) {
    return into_ring_fixed_from(p, full_file(0));
}

static ssize_t into_ring_fixed_direct(char *p) {
    return into_ring_fixed_from(p, full_file(O_DIRECT));
}

/* ---- from ---- */

/* What the other end got. */
static void say_got(int fd, ssize_t n) {
    static char bytes[SIZE];
    ssize_t got = n > 0 ? read(fd, bytes, SIZE) : 0;

    if (got > 0)
        say("got=%s", seen(bytes, (size_t)got));
}

static ssize_t from_write(char *p) {
    int fds[2];
    ssize_t n;

    if (pipe(fds) < 0)
        return -1;
    n = write(fds[1], p, SIZE);
    say_got(fds[0], n);
    return n;
}

static ssize_t from_writev(char *p) {
    struct iovec vector[2] = {{p, 3 * PAGE + 5}, {p + 3 * PAGE + 5, SIZE - 3 * PAGE - 5}};
    int fds[2];
    ssize_t n;

    if (pipe(fds) < 0)
        return -1;
    n = writev(fds[1], vector, 2);
    say_got(fds[0], n);
    return n;
}

static ssize_t from_pwrite_to(char *p, int flags) {
    int fd = scratch_file(flags);
    static char bytes[SIZE] __attribute__((aligned(4096)));
    ssize_t n;

    if (fd < 0)
        say_absent();
    n = pwrite(fd, p, SIZE, 0);
    if (n > 0 && pread(fd, bytes, SIZE, 0) == n)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

static ssize_t from_pwrite(char *p) {
    return from_pwrite_to(p, 0);
}

static ssize_t from_direct(char *p) {
    return from_pwrite_to(p, O_DIRECT);
}

static ssize_t from_send(char *p) {
    int fds[2];
    ssize_t n;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        return -1;
    n = send(fds[1], p, SIZE, 0);
    say_got(fds[0], n);
    return n;
}

static ssize_t from_sendmsg(char *p) {
    struct iovec vector = {p, SIZE};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    int fds[2];
    ssize_t n;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) < 0)
        return -1;
    n = sendmsg(fds[1], &message, 0);
    say_got(fds[0], n);
    return n;
}

static ssize_t splice_out(char *p, unsigned flags) {
    struct iovec vector = {p, SIZE};
    int fds[2];
    ssize_t n;

    if (pipe(fds) < 0)
        return -1;
    n = vmsplice(fds[1], &vector, 1, flags);
    say_got(fds[0], n);
    return n;
}

static ssize_t from_vmsplice(char *p) {
    return splice_out(p, 0);
}

static ssize_t from_vmsplice_gift(char *p) {
    return splice_out(p, SPLICE_F_GIFT);
}

/* Through the pipe into a file: the pipe holds pages of the memory. */
static ssize_t from_splice(char *p) {
    struct iovec vector = {p, SIZE};
    int fds[2], fd = scratch_file(0);
    static char bytes[SIZE];
    ssize_t n;

    if (pipe(fds) < 0 || fd < 0)
        return -1;
    n = vmsplice(fds[1], &vector, 1, 0);
    if (n > 0)
        n = splice(fds[0], NULL, fd, NULL, SIZE, 0);
    if (n > 0 && pread(fd, bytes, SIZE, 0) == n)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

static ssize_t from_vm_read(char *p) {
    static char bytes[SIZE];
    struct iovec local = {bytes, SIZE}, remote = {p, SIZE};
    ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

    if (n > 0)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

static ssize_t from_vm_write(char *p) {
    static char bytes[SIZE];
    struct iovec local = {p, SIZE}, remote = {bytes, SIZE};
    ssize_t n = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);

    if (n > 0)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

static ssize_t from_proc_mem(char *p) {
    static char bytes[SIZE];
    ssize_t n = pread(open("/proc/self/mem", O_RDONLY | O_CLOEXEC), bytes, SIZE, (off_t)(uintptr_t)p);

    if (n > 0)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

static ssize_t from_open(char *p) {
    return open(p, O_RDONLY | O_CLOEXEC);
}

static ssize_t from_setsockopt(char *p) {
    return setsockopt(full_socket(SOCK_STREAM), SOL_SOCKET, SO_KEEPALIVE, p, sizeof(int));
}

static ssize_t from_nanosleep(char *p) {
    return syscall(SYS_nanosleep, p, NULL);
}

static ssize_t from_ring_to(char *p, int flags) {
    int fd = scratch_file(flags);
    static char bytes[SIZE] __attribute__((aligned(4096)));
    ssize_t n;

    if (fd < 0)
        say_absent();
    start_ring();
    io_uring_prep_write(io_uring_get_sqe(&ring), fd, p, SIZE, 0);
    n = ring_result();
    if (n > 0 && pread(fd, bytes, SIZE, 0) == n)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

static ssize_t from_ring(char *p) {
    return from_ring_to(p, 0);
}

static ssize_t from_ring_direct(char *p) {
    return from_ring_to(p, O_DIRECT);
}

static ssize_t from_ring_fixed(char *p) {
    int fd = scratch_file(0);
    static char bytes[SIZE];
    ssize_t n;

    if (register_buffer(p) < 0)
        return -1;
    io_uring_prep_write_fixed(io_uring_get_sqe(&ring), fd, p, SIZE, 0, 0);
    n = ring_result();
    if (n > 0 && pread(fd, bytes, SIZE, 0) == n)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

/* The buffer is registered, then the memory is dropped: the kernel holds the old pages. */
static ssize_t from_ring_fixed_dropped(char *p) {
    int fd = scratch_file(0);
    static char bytes[SIZE];
    ssize_t n;

    if (register_buffer(p) < 0)
        return -1;
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    io_uring_prep_write_fixed(io_uring_get_sqe(&ring), fd, p, SIZE, 0, 0);
    n = ring_result();
    if (n > 0 && pread(fd, bytes, SIZE, 0) == n)
        say("got=%s", seen(bytes, (size_t)n));
    return n;
}

/* nanosleep(2) from bytes that are no time, and open(2) of a path of FILL: EINVAL and ENAMETOOLONG are as telling as success. */
static const struct call {
    const char *name;
    ssize_t (*make)(char *p);
} calls[] = {
    {"read", into_read},
    {"read-file", into_read_file},
    {"pread", into_pread},
    {"pread-direct", into_direct},
    {"readv", into_readv},
    {"preadv2", into_preadv2},
    {"recv", into_recv},
    {"recv-datagram", into_recv_datagram},
    {"recvmsg", into_recvmsg},
    {"vm-read-into", into_vm_read},
    {"vm-write-into", into_vm_write},
    {"proc-mem-into", into_proc_mem},
    {"getrandom", into_random},
    {"fstat", into_stat},
    {"clock_gettime", into_clock},
    {"pipe", into_pipe},
    {"ioctl", into_ioctl},
    {"uring-read", into_ring},
    {"uring-read-worker", into_ring_worker},
    {"uring-read-direct", into_ring_direct},
    {"uring-read-fixed", into_ring_fixed},
    {"uring-read-fixed-direct", into_ring_fixed_direct},
    {"write", from_write},
    {"writev", from_writev},
    {"pwrite", from_pwrite},
    {"pwrite-direct", from_direct},
    {"send", from_send},
    {"sendmsg", from_sendmsg},
    {"vmsplice", from_vmsplice},
    {"vmsplice-gift", from_vmsplice_gift},
    {"splice", from_splice},
    {"vm-read-from", from_vm_read},
    {"vm-write-from", from_vm_write},
    {"proc-mem-from", from_proc_mem},
    {"open", from_open},
    {"setsockopt", from_setsockopt},
    {"nanosleep", from_nanosleep},
    {"uring-write", from_ring},
    {"uring-write-direct", from_ring_direct},
    {"uring-write-fixed", from_ring_fixed},
    {"uring-write-fixed-dropped", from_ring_fixed_dropped},
};

static void run_call(const struct check *c) {
    char *p = memory_in((enum state)c->b);

    say_number("call", calls[c->a].make(p));
    if (c->b != NONE && c->b != UNMAPPED)
        say("memory=%s", seen(p, SIZE));
}

#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

static const char *const states[] = {"fresh", "filled", "dropped", "read-only", "none", "unmapped"};

#define N_STATES (sizeof(states) / sizeof(states[0]))

static struct check checks[N_CALLS * N_STATES + 1];
static char names[N_CALLS * N_STATES][64];

static void __attribute__((constructor)) make_table(void) {
    size_t n = 0;

    for (size_t i = 0; i < N_CALLS; i++)
        for (size_t j = 0; j < N_STATES; j++, n++) {
            char *end = stpcpy(names[n], calls[i].name);

            *end++ = '-';
            strcpy(end, states[j]);
            checks[n] = (struct check){names[n], run_call, (long)i, (long)j};
        }
}

const struct section section_calls = {"calls", checks};
