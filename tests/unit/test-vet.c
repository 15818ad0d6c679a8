/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of clients whose last close waits: sockets that linger, and for an ending thread as well files of a file system that does not answer. Neither
 * who hands them over waits, nor does anything of them stay, and that also where no thread is to be had for a while. Skips what needs a network, or to mount,
 * where there is none.
 */

#include "vet.h"

#include "fuse.h"
#include "service.h"
#include "suite.h"
#include "worker.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCKETS 100
#define PACKETS 8
#define MANY 1000
/* More than the few that have a thread each, and more than two collectors take; and the threads that they may take. */
#define HANGING 500
#define HANGING_THREADS 12
#define LINGER_S 100
#define WAIT_MS 20000
#define CALL_NS (UINT64_C(1000000000) * (under_sanitizer() ? 4 : 1))
#define UID 4711

static struct worker_pool pool;
static struct vets vets;
static int peers[SOCKETS];
static unsigned n_peers;

static void setup(void) {
    vets_init(&vets);
    worker_pool_init(&pool, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ck_assert_int_ge(pool.wake_fd, 0);
    worker_pool_start(&pool);
    n_peers = 0;
}

static void teardown(void) {
    for (unsigned i = 0; i < n_peers; i++)
        close(peers[i]);
    worker_pool_deinit(&pool);
    close(pool.wake_fd);
}

static void shrink(int socket, int buffer) {
    int size = 4096;

    ck_assert_int_eq(setsockopt(socket, SOL_SOCKET, buffer, &size, sizeof(size)), 0);
}

/* A TCP socket whose close(2) waits until the peer reads, or goes. -1: no network. */
static int make_lingering(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct linger linger = {.l_onoff = 1, .l_linger = LINGER_S};
    socklen_t size = sizeof(address);
    static const char bytes[65536];

    shrink(listening, SO_RCVBUF);
    shrink(fd, SO_SNDBUF);
    if (bind(listening, (struct sockaddr *)&address, size) < 0 || listen(listening, 1) < 0 ||
        getsockname(listening, (struct sockaddr *)&address, &size) < 0 ||
        connect(fd, (struct sockaddr *)&address, size) < 0) {
        close(listening);
        close(fd);
        return -1;
    }
    peers[n_peers] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(peers[n_peers++], 0);
    close(listening);
    while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    return fd;
}

/* A client's socket in which an UFFD waits with a lingering one. -1: no network. */
static int make_unread(void) {
    struct drp_wire_uffd uffd = {.header = {.type = DRP_WIRE_UFFD, .serial = 1}};
    int pair[2], fd = make_lingering();

    if (fd < 0)
        return -1;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(channel_send(pair[1], &uffd, sizeof(uffd), &fd, 1, 0), CHANNEL_OK);
    close(fd);
    close(pair[1]);
    return pair[0];
}

/* The same with a file, which is not to be written to before. */
static int make_unread_file(const struct fuse_system *fuse) {
    struct drp_wire_uffd uffd = {.header = {.type = DRP_WIRE_UFFD, .serial = 1}};
    int pair[2], fd = fuse_open(fuse);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(channel_send(pair[1], &uffd, sizeof(uffd), &fd, 1, 0), CHANNEL_OK);
    close(fd);
    close(pair[1]);
    return pair[0];
}

/* Until nothing is left, or not in time. Returns how long one call took at most, ns. */
static uint64_t tidy(bool *ret_left) {
    uint64_t deadline = now_ms() + WAIT_MS, longest = 0;

    do {
        uint64_t began = now_ns(), took;

        vet_tidy(&vets, &pool);
        took = now_ns() - began;
        longest = took > longest ? took : longest;
        nap_ms(1);
    } while (vets_are_left(&vets) && now_ms() < deadline);
    *ret_left = vets_are_left(&vets);
    return longest;
}

/* threads: that there were before; 0: does not matter. */
static void expect_nothing_left(size_t threads) {
    uint64_t deadline = now_ms() + WAIT_MS;
    bool left;

    ck_assert_uint_lt(tidy(&left), CALL_NS);
    ck_assert(!left);
    /* Not one is hidden in its end. */
    while (threads > 0 && service_threads(&(struct service){.pid = getpid()}) > threads) {
        ck_assert_uint_lt(now_ms(), deadline);
        nap_ms(1);
    }
}

/* Of the spares as well. */
static size_t await_threads(void) {
    uint64_t deadline = now_ms() + WAIT_MS;

    for (size_t i = 0; i < WORKER_POOL_SIZE; i++)
        for (; atomic_load(&pool.spares[i].state) != SPARE_READY; nap_ms(1))
            ck_assert_uint_lt(now_ms(), deadline);
    return service_threads(&(struct service){.pid = getpid()});
}

START_TEST(test_close) {
    size_t threads = await_threads();
    unsigned all;

    for (unsigned i = 0; i < SOCKETS; i++) {
        int socket = make_unread();

        if (socket < 0) {
            suite_skip_part("unread", "no network");
            return;
        }
        vet_close_socket(&vets, socket, UID);
        if (i % 3 == 0)
            vet_tidy(&vets, &pool);
    }
    expect_nothing_left(threads);
    ck_assert_uint_eq(vets_count_stuck(&vets, UID, UINT_MAX, &all), 0);
    ck_assert_uint_eq(all, 0);
}
END_TEST

/* In the threads that they are given to, for as long as their owner likes: few of them, and another's sockets are closed meanwhile. */
START_TEST(test_hanging) {
    size_t threads = await_threads(), descriptors = own_descriptors();
    uint64_t deadline = now_ms() + WAIT_MS;
    int sockets[HANGING], pair[2], soiled;
    struct fuse_system fuse;
    unsigned all = 0;

    if (fuse_start(&fuse) < 0) {
        suite_skip_part("hanging", "no file system can be mounted");
        return;
    }
    for (unsigned i = 0; i < HANGING; i++)
        sockets[i] = make_unread_file(&fuse);
    soiled = fuse_open(&fuse);
    fuse_detach(&fuse);
    fuse_soil(soiled);
    for (unsigned i = 0; i < HANGING; i++) {
        uint64_t began = now_ns();

        vet_close_socket(&vets, sockets[i], UID);
        vet_tidy(&vets, &pool);
        ck_assert_uint_lt(now_ns() - began, CALL_NS);
    }
    for (; vets_count_stuck(&vets, UID, UINT_MAX, &all) < HANGING; nap_ms(1)) {
        vet_tidy(&vets, &pool);
        ck_assert_uint_lt(now_ms(), deadline);
    }
    ck_assert_uint_eq(all, HANGING);
    ck_assert_uint_le(service_threads(&(struct service){.pid = getpid()}), threads + HANGING_THREADS);
    ck_assert_uint_le(own_descriptors(), descriptors + 1 + HANGING_THREADS);

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    vet_close_socket(&vets, pair[0], UID + 1);
    vet_tidy(&vets, &pool);
    ck_assert_int_eq(read(pair[1], &(char){0}, 1), 0);
    close(pair[1]);
    for (; vets_count_stuck(&vets, UID + 1, UINT_MAX, &all) > 0; nap_ms(1)) {
        vet_tidy(&vets, &pool);
        ck_assert_uint_lt(now_ms(), deadline);
    }

    fuse_end(&fuse);
    close(soiled);
    expect_nothing_left(threads);
    ck_assert_uint_eq(own_descriptors(), descriptors);
}
END_TEST

/* Then it stays open, and whoever hands it over does not wait either. */
START_TEST(test_no_thread) {
    struct rlimit before, none;
    int socket = make_unread();
    size_t descriptors;
    bool left;

    if (socket < 0) {
        suite_skip_part("no thread", "no network");
        return;
    }
    worker_pool_deinit(&pool);
    worker_pool_init(&pool, pool.wake_fd);
    descriptors = own_descriptors();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    vet_close_socket(&vets, socket, UID);
    vet_tidy(&vets, &pool);
    ck_assert(vets_are_left(&vets));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_uint_lt(tidy(&left), CALL_NS);
    ck_assert(!left);
    worker_pool_deinit(&pool);
    ck_assert_uint_eq(own_descriptors(), descriptors - 1);
}
END_TEST

/* Those that were taken out of it: he may send more at once, and later. */
START_TEST(test_packets) {
    size_t threads = await_threads();

    for (unsigned i = 0; i < PACKETS; i++) {
        struct channel_packet packet;
        int socket = make_unread();
        uint64_t began = now_ns();
        struct vet *vet;

        if (socket < 0) {
            suite_skip_part("packets", "no network");
            return;
        }
        if (i == PACKETS - 1)
            nap_ms(1100);
        ck_assert_int_eq(vet_receive(&vets, &pool, socket, UID, VET_USERFAULTFD, &packet, &vet), VET_FOREIGN);
        ck_assert_uint_lt(now_ns() - began, 2 * CALL_NS);
        close(socket);
    }
    expect_nothing_left(threads);
}
END_TEST

/* An OPEN with a memfd. */
static int receive_open(uid_t uid, struct channel_packet *packet, struct vet **ret) {
    struct drp_wire_open request = {.header = {.type = DRP_WIRE_OPEN, .serial = 1}};
    int pair[2], fd = memfd_create("test-vet", MFD_CLOEXEC), r;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(channel_send(pair[1], &request, sizeof(request), &fd, 1, 0), CHANNEL_OK);
    close(fd);
    r = vet_receive(&vets, &pool, pair[0], uid, VET_SHARED_MEMORY, packet, ret);
    close(pair[0]);
    close(pair[1]);
    return r;
}

/* However many threads one user's packets have: he waits, and the others do not. */
START_TEST(test_other_user) {
    static struct channel_packet packets[MANY], other;
    static struct vet *of[MANY];
    struct vet *of_other;
    unsigned n = 0;
    int r;

    while (n < MANY && (r = receive_open(UID, &packets[n], &of[n])) == VET_OK)
        n++;
    ck_assert_uint_gt(n, 0);
    ck_assert_int_eq(r, VET_LATER);
    ck_assert_int_eq(receive_open(UID + 1, &other, &of_other), VET_OK);
    channel_packet_close(&other);
    vet_release(of_other);
    while (n-- > 0) {
        channel_packet_close(&packets[n]);
        vet_release(of[n]);
    }
    expect_nothing_left(0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("vet");
    TCase *tcase = tcase_create("vet");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_close);
    tcase_add_test(tcase, test_hanging);
    tcase_add_test(tcase, test_no_thread);
    tcase_add_test(tcase, test_packets);
    tcase_add_test(tcase, test_other_user);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
