/* SPDX-License-Identifier: MIT */
/*
 * The channel over a real socket pair. Each test counts this process's descriptors before and after: whatever a peer
 * sends, the count must come out as the outcome says.
 */

#include "channel.h"
#include "suite.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define MANY 253 /* the most that the kernel takes (SCM_MAX_FD) */

static int ends[2];
static unsigned at_start;

static unsigned count_fds(void) {
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void setup(void) {
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    at_start = count_fds();
}

static void teardown(void) {
    ck_assert_uint_eq(count_fds(), at_start);
    close(ends[0]);
    close(ends[1]);
}

/* What a peer that does not use the channel may send: any size, any number of copies of fd. */
static void send_raw(const void *data, size_t size, int fd, size_t n_fds) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MANY * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        for (size_t i = 0; i < n_fds; i++)
            memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &fd, sizeof(int));
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    ck_assert_int_eq(sendmsg(ends[0], &header, MSG_NOSIGNAL), (ssize_t)size);
}

static ino_t inode(int fd) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

START_TEST(descriptors_pass) {
    static struct channel_packet packet;
    struct drp_wire_header header = {.type = DRP_WIRE_STATS, .serial = 42};
    int fds[DRP_WIRE_MAX_FDS][2], sent[DRP_WIRE_MAX_FDS];

    for (int i = 0; i < DRP_WIRE_MAX_FDS; i++) {
        ck_assert_int_eq(pipe(fds[i]), 0);
        sent[i] = fds[i][0];
    }
    for (size_t n = 0; n <= DRP_WIRE_MAX_FDS; n++) {
        ck_assert_int_eq(channel_send(ends[0], &header, sizeof(header), n ? sent : NULL, n, 0), CHANNEL_OK);
        ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
        ck_assert_uint_eq(packet.size, sizeof(header));
        ck_assert_mem_eq(&packet.message, &header, sizeof(header));
        ck_assert_uint_eq(packet.n_fds, n);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_eq(inode(packet.fds[i]), inode(sent[i]));
            ck_assert_int_ne(packet.fds[i], sent[i]);
            ck_assert_int_eq(fcntl(packet.fds[i], F_GETFD), FD_CLOEXEC);
            ck_assert_int_eq(fcntl(sent[i], F_GETFD), 0); /* still ours */
        }
        channel_packet_close(&packet);
        ck_assert_uint_eq(packet.n_fds, 0);
    }
    for (int i = 0; i < DRP_WIRE_MAX_FDS; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
}
END_TEST

START_TEST(take_and_close) {
    static struct channel_packet packet;
    char byte = 'x';
    int fd;

    send_raw(&byte, 1, ends[0], 3);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.n_fds, 3);
    fd = channel_packet_take(&packet, 1);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(packet.fds[1], -1);
    ck_assert_int_eq(channel_packet_take(&packet, 1), -1); /* taken is taken */
    ck_assert_int_eq(channel_packet_take(&packet, 3), -1);
    ck_assert_int_eq(channel_packet_take(&packet, SIZE_MAX), -1);
    channel_packet_close(&packet);
    ck_assert_uint_eq(count_fds(), at_start + 1);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    channel_packet_close(&packet); /* nothing left: no second close of a number that may be in use again */
    ck_assert_int_eq(channel_packet_take(&packet, 0), -1);
    close(fd);
}
END_TEST

START_TEST(surplus_descriptors) {
    static const size_t counts[] = {DRP_WIRE_MAX_FDS + 1, 7, 8, 9, 10, 20, MANY};
    static struct channel_packet packet;
    char byte = 'x';

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        send_raw(&byte, 1, ends[0], counts[i]);
        ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_TRUNCATED);
        ck_assert_uint_eq(packet.n_fds, 0);
        ck_assert_uint_eq(count_fds(), at_start);
    }
    /* The socket is as good as before; ending the connection is the caller's decision. */
    send_raw(&byte, 1, ends[0], 0);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
}
END_TEST

/* Credentials come first in the control data and must not push out the descriptors. */
START_TEST(credentials_skipped) {
    static struct channel_packet packet;
    int on = 1;
    char byte = 'x';

    ck_assert_int_eq(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    send_raw(&byte, 1, ends[0], DRP_WIRE_MAX_FDS);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.n_fds, DRP_WIRE_MAX_FDS);
    channel_packet_close(&packet);
    send_raw(&byte, 1, ends[0], 0);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.n_fds, 0);
    send_raw(&byte, 1, ends[0], MANY);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_TRUNCATED);
}
END_TEST

START_TEST(pidfd_closed) {
#ifdef SO_PASSPIDFD
    const int option = SO_PASSPIDFD;
#else
    const int option = 76; /* asm-generic, Linux 6.5; older C libraries do not name it */
#endif
    static struct channel_packet packet;
    int on = 1;
    char byte = 'x';

    if (setsockopt(ends[1], SOL_SOCKET, option, &on, sizeof(on)) < 0)
        return; /* a kernel without: no pidfd can come */
    send_raw(&byte, 1, ends[0], DRP_WIRE_MAX_FDS);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.n_fds, DRP_WIRE_MAX_FDS);
    channel_packet_close(&packet);
}
END_TEST

/* Out of descriptors here: not the sender's fault, and what did come is closed. The message is there. */
START_TEST(own_table_full) {
    static struct channel_packet packet;
    struct rlimit before, tight;
    char byte = 'x';
    int highest = dup(ends[0]);

    ck_assert_int_ge(highest, 0);
    close(highest);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int room = 0; room < 2; room++) {
        tight = before;
        tight.rlim_cur = (rlim_t)(highest + room);
        send_raw(&byte, 1, ends[0], 3);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &tight), 0);
        ck_assert_int_eq(channel_receive(ends[1], &packet, 0), -EMFILE);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        ck_assert(packet.n_fds == 0 && packet.size == 1 && packet.message.bytes[0] == byte);
        ck_assert_uint_eq(count_fds(), at_start);
    }
}
END_TEST

START_TEST(sizes) {
    static char data[DRP_WIRE_MAX_SIZE + 1];
    static struct channel_packet packet;

    memset(data, 0x5a, sizeof(data));
    send_raw(data, DRP_WIRE_MAX_SIZE, ends[0], 1);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.size, DRP_WIRE_MAX_SIZE);
    ck_assert_mem_eq(packet.message.bytes, data, DRP_WIRE_MAX_SIZE);
    channel_packet_close(&packet);

    send_raw(data, DRP_WIRE_MAX_SIZE + 1, ends[0], 0);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_TRUNCATED);
    send_raw(data, DRP_WIRE_MAX_SIZE + 1, ends[0], DRP_WIRE_MAX_FDS);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_TRUNCATED);
    ck_assert_uint_eq(packet.n_fds, 0);
    ck_assert_uint_eq(packet.size, 0);
}
END_TEST

START_TEST(two_packets_stay_two) {
    static struct channel_packet packet;

    send_raw("first", 5, ends[0], 1);
    send_raw("second", 6, ends[0], 2);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.size, 5);
    ck_assert_uint_eq(packet.n_fds, 1);
    channel_packet_close(&packet);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.size, 6);
    ck_assert_uint_eq(packet.n_fds, 2);
    channel_packet_close(&packet);
}
END_TEST

START_TEST(empty_packet) {
    static struct channel_packet packet;

    send_raw("", 0, ends[0], 0);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_CLOSED);
    send_raw("", 0, ends[0], 3);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_CLOSED);
    ck_assert_uint_eq(packet.n_fds, 0);
    send_raw("", 0, ends[0], MANY);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_CLOSED);
}
END_TEST

START_TEST(end_of_connection) {
    static struct channel_packet packet;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(channel_send(pair[0], "last", 4, NULL, 0, 0), CHANNEL_OK);
    close(pair[0]);
    /* What was sent before is still delivered. */
    ck_assert_int_eq(channel_receive(pair[1], &packet, 0), CHANNEL_OK);
    ck_assert_int_eq(channel_receive(pair[1], &packet, 0), CHANNEL_CLOSED);
    ck_assert_int_eq(channel_receive(pair[1], &packet, MSG_DONTWAIT), CHANNEL_CLOSED);
    /* No SIGPIPE: the test would die of it. */
    ck_assert_int_eq(channel_send(pair[1], "x", 1, NULL, 0, 0), CHANNEL_CLOSED);
    ck_assert_int_eq(channel_send(pair[1], "x", 1, pair + 1, 1, MSG_DONTWAIT), CHANNEL_CLOSED);
    close(pair[1]);
}
END_TEST

/* A peer that goes with our packet unread makes the kernel say ECONNRESET. */
START_TEST(reset) {
    static struct channel_packet packet;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(channel_send(pair[1], "unread", 6, ends, 1, 0), CHANNEL_OK);
    close(pair[0]);
    ck_assert_int_eq(channel_receive(pair[1], &packet, 0), CHANNEL_CLOSED);
    ck_assert_uint_eq(packet.n_fds, 0);
    close(pair[1]);
}
END_TEST

START_TEST(again) {
    static char data[DRP_WIRE_MAX_SIZE];
    static struct channel_packet packet;
    unsigned sent = 0, received = 0;
    int r;

    ck_assert_int_eq(channel_receive(ends[1], &packet, MSG_DONTWAIT), CHANNEL_AGAIN);
    ck_assert_int_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_AGAIN);
    while ((r = channel_send(ends[0], data, sizeof(data), ends, 1, MSG_DONTWAIT)) == CHANNEL_OK) {
        ck_assert_uint_lt(sent, 1000000);
        sent++;
    }
    ck_assert_int_eq(r, CHANNEL_AGAIN);
    ck_assert_uint_gt(sent, 0);
    while ((r = channel_receive(ends[1], &packet, 0)) == CHANNEL_OK) {
        ck_assert_uint_eq(packet.n_fds, 1);
        channel_packet_close(&packet);
        received++;
    }
    ck_assert_int_eq(r, CHANNEL_AGAIN);
    ck_assert_uint_eq(received, sent);
}
END_TEST

static void alarm_and_answer(int signal) {
    static unsigned calls;

    (void)signal;
    if (++calls == 3 && write(ends[0], "x", 1) != 1)
        _exit(2);
}

/* Signals without SA_RESTART interrupt the wait; the third one brings the packet. */
START_TEST(interrupted) {
    static struct channel_packet packet;
    struct sigaction action = {.sa_handler = alarm_and_answer};
    struct itimerval every = {.it_interval = {.tv_usec = 5000}, .it_value = {.tv_usec = 5000}}, none = {0};

    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &every, NULL), 0);
    ck_assert_int_eq(channel_receive(ends[1], &packet, 0), CHANNEL_OK);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &none, NULL), 0);
    ck_assert_uint_eq(packet.size, 1);
}
END_TEST

START_TEST(refused_and_unexpected) {
    static char data[DRP_WIRE_MAX_SIZE + 1];
    static struct channel_packet packet;
    int fds[DRP_WIRE_MAX_FDS + 1];
    int bad = -1, file;

    for (size_t i = 0; i < DRP_WIRE_MAX_FDS + 1; i++)
        fds[i] = ends[0];
    ck_assert_int_eq(channel_send(ends[0], data, 0, NULL, 0, 0), -EINVAL);
    ck_assert_int_eq(channel_send(ends[0], data, sizeof(data), NULL, 0, 0), -EINVAL);
    ck_assert_int_eq(channel_send(ends[0], data, 1, fds, DRP_WIRE_MAX_FDS + 1, 0), -EINVAL);
    ck_assert_int_eq(channel_send(ends[0], data, 1, &bad, 1, 0), -EBADF);
    ck_assert_int_eq(channel_receive(ends[1], &packet, MSG_DONTWAIT), CHANNEL_AGAIN); /* nothing of that went out */

    ck_assert_int_eq(channel_receive(-1, &packet, 0), -EBADF);
    ck_assert_int_eq(channel_send(-1, data, 1, NULL, 0, 0), -EBADF);
    file = open("/dev/null", O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(channel_receive(file, &packet, 0), -ENOTSOCK);
    ck_assert_uint_eq(packet.n_fds, 0);
    close(file);
}
END_TEST

static Suite *make_suite(void) {
    Suite *suite = suite_create("channel");
    TCase *tcase = tcase_create("channel");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, descriptors_pass);
    tcase_add_test(tcase, take_and_close);
    tcase_add_test(tcase, surplus_descriptors);
    tcase_add_test(tcase, credentials_skipped);
    tcase_add_test(tcase, pidfd_closed);
    tcase_add_test(tcase, own_table_full);
    tcase_add_test(tcase, sizes);
    tcase_add_test(tcase, two_packets_stay_two);
    tcase_add_test(tcase, empty_packet);
    tcase_add_test(tcase, end_of_connection);
    tcase_add_test(tcase, reset);
    tcase_add_test(tcase, again);
    tcase_add_test(tcase, interrupted);
    tcase_add_test(tcase, refused_and_unexpected);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_run(make_suite());
}
