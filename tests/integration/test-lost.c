/* SPDX-License-Identifier: MIT */
/*
 * Who wants to know what was lost: an eventfd says when, the library says which ranges, each once. Neither a restart of the service nor a client
 * who does not listen changes that.
 */

#include "child.h"
#include "client.h"
#include "connected.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <dlfcn.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)256)
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 10000
#define STORM_ROUNDS 400

static struct drp *connection;
static struct drp_region *region, *other;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, NULL), 0);
    ck_assert_int_eq(drp_region_new(&other, connection, SIZE, NULL), 0);
}

static void teardown(void) {
    region = drp_region_free(region);
    other = drp_region_free(other);
    connection = drp_free(connection);
    fixture_teardown();
}

static void fill(struct drp_region *r, size_t chunk, size_t n) {
    memset((char *)drp_region_address(r) + chunk * CHUNK, 7, n * CHUNK);
}

static void drop(struct drp_region *r, size_t chunk, size_t n) {
    uint64_t freed = 0;

    ck_assert_int_eq(drp_drop(r, chunk * CHUNK, n * CHUNK, &freed, NULL), 0);
    ck_assert_uint_eq(freed, n * CHUNK);
}

static void expect_run(struct drp_region *r, size_t chunk, size_t n) {
    size_t offset = 0, length = 0;

    ck_assert_int_eq(drp_region_take_lost(r, &offset, &length), 1);
    ck_assert_uint_eq(offset, chunk * CHUNK);
    ck_assert_uint_eq(length, n * CHUNK);
}

static void expect_none(struct drp_region *r) {
    size_t offset, length;

    ck_assert_int_eq(drp_region_take_lost(r, &offset, &length), 0);
}

START_TEST(test_events_and_ranges) {
    int all = drp_get_lost_fd(connection), one = drp_region_get_lost_fd(region), two = drp_region_get_lost_fd(other);

    ck_assert_int_ge(all, 0);
    ck_assert_int_ge(one, 0);
    ck_assert_int_ge(two, 0);
    ck_assert_int_eq(drp_get_lost_fd(connection), all);
    ck_assert(!event_comes(all, 0));
    expect_none(region);

    fill(region, 0, CHUNKS);
    ck_assert(!event_comes(all, 0)); /* nothing was dropped */
    drop(region, 3, 2);
    drop(region, 5, 1); /* continues it */
    drop(region, 100, 1);
    drop(region, CHUNKS - 1, 1);
    ck_assert(event_comes(one, WAIT_MS));
    ck_assert(event_comes(all, WAIT_MS));
    ck_assert(!event_comes(two, 0));
    expect_run(region, 3, 3);
    expect_run(region, 100, 1);
    fill(region, 100, 1);
    expect_run(region, CHUNKS - 1, 1);
    expect_none(region);
    expect_none(other);
    drop(region, 100, 1); /* again, and behind the cursor */
    expect_run(region, 100, 1);
    expect_none(region);

    fill(other, 0, 1);
    drop(other, 0, 1);
    ck_assert(event_comes(two, WAIT_MS));
    expect_run(other, 0, 1);
}
END_TEST

/* Before anybody asked, too; and by the service's own decision. */
START_TEST(test_before_and_by_budget) {
    size_t offset, length, sum = 0;
    int fd;

    fill(region, 0, 4);
    drop(region, 1, 2);
    fd = drp_region_get_lost_fd(region);
    ck_assert(event_comes(fd, WAIT_MS));
    expect_run(region, 1, 2);

    fill(region, 0, CHUNKS);
    while (event_comes(fd, 0))
        ;
    ck_assert_int_eq(drp_set_budget(connection, SIZE / 2), 0);
    while (sum < SIZE / 2) {
        ck_assert(event_comes(fd, WAIT_MS));
        while (drp_region_take_lost(region, &offset, &length) == 1)
            sum += length;
    }
}
END_TEST

START_TEST(test_restart) {
    int fd = drp_region_get_lost_fd(region), all = drp_get_lost_fd(connection);
    struct drp_region_info info = {0};
    bool told = false;

    fill(region, 0, CHUNKS);
    drop(region, 0, 1);
    ck_assert(event_comes(fd, WAIT_MS));
    ck_assert(event_comes(all, WAIT_MS));
    expect_run(region, 0, 1);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert(event_comes(all, WAIT_MS)); /* whatever the old one dropped at its end */
    for (uint64_t deadline = now_ms() + WAIT_MS; !info.connected; drp_region_get_info(region, &info))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert(event_comes(fd, WAIT_MS));
    expect_none(region);
    fill(region, 0, CHUNKS);
    drop(region, 7, 3);
    for (uint64_t deadline = now_ms() + WAIT_MS; !told; told = event_comes(fd, 10))
        ck_assert_uint_lt(now_ms(), deadline);
    expect_run(region, 7, 3);
    expect_none(region);
    ck_assert_int_eq(drp_region_get_lost_fd(region), fd);
}
END_TEST

static void be_child(int socket, void *data) {
    int *fds = data;
    struct drp_region *fresh;
    size_t offset, length;

    child_check(drp_region_take_lost(region, &offset, &length) == 1 && offset == 0 && length == SIZE);
    child_check(drp_region_take_lost(region, &offset, &length) == 0);
    child_check(!event_comes(fds[0], 0) && !event_comes(fds[1], 0));
    child_check(drp_get_lost_fd(connection) == fds[0]);
    child_check(drp_region_new(&fresh, connection, SIZE, NULL) == 0);
    memset(drp_region_address(fresh), 1, SIZE);
    child_check(drp_drop(fresh, 0, CHUNK, NULL, NULL) == 0);
    child_check(event_comes(fds[0], WAIT_MS));
    child_say(socket, 'c');
}

START_TEST(test_fork) {
    int fds[2] = {drp_get_lost_fd(connection), drp_region_get_lost_fd(region)};
    struct child child;

    fill(region, 0, CHUNKS);
    expect_none(region);
    child_start(&child, be_child, fds);
    child_expect(&child, 'c');
    child_end(&child);
    ck_assert(!event_comes(fds[0], 0));
    drop(region, 0, 1);
    ck_assert(event_comes(fds[1], WAIT_MS));
    expect_run(region, 0, 1);
}
END_TEST

/* A process that cannot have one more descriptor forks: the child's eventfds are its own all the same. */
START_TEST(test_fork_at_limit) {
    int all = drp_get_lost_fd(connection), one = drp_region_get_lost_fd(region), next = dup(all), status;
    struct rlimit before, tight;
    pid_t pid;

    fill(region, 0, 1);
    drop(region, 0, 1);
    ck_assert(event_comes(all, WAIT_MS) && event_comes(one, WAIT_MS));
    ck_assert_int_eq(eventfd_write(all, 1), 0);
    ck_assert_int_eq(eventfd_write(one, 1), 0);
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)next;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &tight), 0);
    pid = fork();
    if (pid == 0)
        _exit(event_comes(all, 0) + 2 * event_comes(one, 0));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert(event_comes(all, 0) && event_comes(one, 0)); /* the parent's */
}
END_TEST

static void *storm(void *data) {
    _Atomic bool *ended = data;
    unsigned seed = 1;

    for (unsigned i = 0; i < STORM_ROUNDS; i++) {
        size_t chunk = (size_t)rand_r(&seed) % CHUNKS, n = (size_t)rand_r(&seed) % 16 + 1;

        if (chunk + n > CHUNKS)
            n = CHUNKS - chunk;
        fill(region, chunk, n);
        ck_assert_int_eq(drp_drop(region, chunk * CHUNK, n * CHUNK, NULL, NULL), 0);
    }
    atomic_store(ended, true);
    return NULL;
}

/* Beside drops without a pause: in the end all that was dropped has been told, and nothing else. */
START_TEST(test_storm) {
    static uint32_t before[CHUNKS], after[CHUNKS];
    bool told[CHUNKS] = {false};
    _Atomic bool ended = false;
    pthread_t thread;
    size_t offset, length, runs = 0;
    int fd = drp_region_get_lost_fd(region), r = 1;

    ck_assert_int_eq(drp_copy_generations(region, 0, SIZE, before), CHUNKS);
    ck_assert_int_eq(pthread_create(&thread, NULL, storm, &ended), 0);
    while (r == 1 || !atomic_load(&ended)) {
        bool last = atomic_load(&ended);

        if (!last)
            event_comes(fd, 100);
        while ((r = drp_region_take_lost(region, &offset, &length)) == 1) {
            runs++;
            for (size_t i = offset / CHUNK; i < (offset + length) / CHUNK; i++)
                told[i] = true;
        }
        ck_assert_int_eq(r, 0);
        if (last)
            break;
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(drp_copy_generations(region, 0, SIZE, after), CHUNKS);
    for (size_t i = 0; i < CHUNKS; i++)
        ck_assert_int_eq(told[i], before[i] != after[i]);
    printf("%zu runs told beside %d drops\n", runs, STORM_ROUNDS);
}
END_TEST

/* Nobody waits for a client who asks to be told and does not listen, nor for one who hangs up. */
START_TEST(test_deaf) {
    struct drp_wire_header watch = {.type = DRP_WIRE_WATCH};
    struct channel_packet packet;
    struct raw_region deaf;
    int socket = raw_session("deaf"), ear;

    raw_region_new(socket, 4 * MIB, &deaf);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(raw_call(socket, &watch, sizeof(watch), NULL, 0, &packet), DRP_WIRE_OK);
        ck_assert_uint_eq(packet.n_fds, 1);
        ear = channel_packet_take(&packet, 0);
        if (i == 2)
            close(ear);
        for (unsigned j = 0; j < 500; j++) {
            struct drp_wire_drop_reply reply;

            deaf.address[0] = 1;
            ck_assert_int_eq(raw_drop(socket, &deaf, 0, CHUNK, &reply), DRP_WIRE_OK);
            ck_assert_uint_gt(reply.freed, 0);
        }
        if (i < 2)
            close(ear);
    }
    fill(region, 0, 1);
    drop(region, 0, 1);
    ck_assert(event_comes(drp_region_get_lost_fd(region), WAIT_MS));
    raw_region_end(socket, &deaf);
    close(socket);
}
END_TEST

/* ---- beside a hand-over ---- */

/* The helper thread, about to hand a region over, waits until the test says so. */
static _Atomic enum { GO_ON, TO_WAIT, WAITS } hand_over;
/* The service stops when it is about to be asked to tell of drops. */
static _Atomic bool stops_there;
/* Of so many replies to WATCH the descriptor does not fit. */
static _Atomic int shortages;

/* What brings descriptors, as ADOPT does. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    const struct drp_wire_header *header = message->msg_iov[0].iov_base;
    bool begins = message->msg_iov[0].iov_len >= sizeof(*header) && header->type == DRP_WIRE_ADOPT;
    uint64_t deadline = deadline_in(WAIT_MS);

    if (begins && atomic_load(&hand_over) == TO_WAIT) {
        atomic_store(&hand_over, WAITS);
        while (atomic_load(&hand_over) == WAITS && now_ms() < deadline)
            nap_ms(1);
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

/* The helper thread of a connection begins when the service is about to be asked to tell of drops. */
static _Atomic(struct drp *) begins_there;
static _Atomic bool begins_late;

struct beginning {
    void *(*run)(void *data);
    void *data;
};

static void *begin_late(void *data) {
    struct beginning beginning = *(struct beginning *)data;

    free(data);
    for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&begins_late) && now_ms() < deadline;)
        nap_ms(1);
    return beginning.run(beginning.data);
}

int pthread_create(pthread_t *ret, const pthread_attr_t *attributes, void *(*run)(void *data), void *data) {
    int (*c_library)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    struct beginning *beginning = malloc(sizeof(*beginning));

    c_library =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
    *beginning = (struct beginning){run, data};
    return c_library(ret, attributes, begin_late, beginning);
}

/* Until it has seen what there is to be done. */
static void let_begin(struct drp *d) {
    atomic_store(&begins_late, false);
    for (uint64_t deadline = now_ms() + 100; atomic_load(&d->offer_at) == 0 && now_ms() < deadline;)
        nap_ms(1);
}

/* All else. */
ssize_t send(int fd, const void *message, size_t size, int flags) {
    const struct drp_wire_header *header = message;
    bool asks = size >= sizeof(*header) && header->type == DRP_WIRE_WATCH;
    struct ucred peer = {.pid = 0};

    if (asks && atomic_load(&begins_there))
        let_begin(atomic_exchange(&begins_there, NULL));
    if (asks && atomic_load(&stops_there)) {
        /* Not service.pid: whoever starts it may not yet have heard its number. */
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof(peer)}) == 0 && peer.pid > 0)
            kill(peer.pid, SIGSTOP);
        atomic_store(&stops_there, false);
    }
    return syscall(SYS_sendto, fd, message, size, flags, NULL, 0);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    return raw_receive_short(fd, message, flags, DRP_WIRE_WATCH, &shortages);
}

/* The first drop that is told after another service has the regions. */
static void expect_told(int fd) {
    ck_assert(connected_becomes(region, true, WAIT_MS) && connected_becomes(other, true, WAIT_MS));
    ck_assert(event_comes(fd, WAIT_MS)); /* that there is another one */
    fill(region, 0, CHUNKS);
    while (event_comes(fd, 0))
        ;
    drop(region, 1, 1);
    ck_assert(event_comes(fd, WAIT_MS));
    expect_run(region, 1, 1);
}

/* Who asks while the service is away, and in the middle of what the library tells the next one. */
START_TEST(test_asked_beside_hand_over) {
    int fd;

    atomic_store(&hand_over, TO_WAIT);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&hand_over) != WAITS; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    fd = drp_region_get_lost_fd(region);
    ck_assert_int_ge(fd, 0);
    atomic_store(&hand_over, GO_ON);
    expect_told(fd);
}
END_TEST

/* The next service is asked until there is a descriptor for what it sends. */
START_TEST(test_short_of_descriptors) {
    int fd = drp_region_get_lost_fd(region);

    ck_assert_int_ge(fd, 0);
    atomic_store(&shortages, 2);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert(event_comes(fd, WAIT_MS));
    for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&shortages) > 0; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    expect_told(fd);
}
END_TEST

/* A service that stops when it has the regions holds up neither requests nor the end; of a region munmap(2) would wait for it. */
START_TEST(test_stops_after_hand_over) {
    struct drp_stats stats;
    uint64_t begin;

    region = drp_region_free(region);
    other = drp_region_free(other);
    ck_assert_int_ge(drp_get_lost_fd(connection), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    atomic_store(&stops_there, true);
    service_restart(&service);
    for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&stops_there); nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    begin = now_ms();
    ck_assert_int_eq(drp_get_stats(connection, &stats), -ENOTCONN);
    connection = drp_free(connection);
    ck_assert_uint_lt(now_ms() - begin, 5000);
    ck_assert_int_eq(kill(service.pid, SIGCONT), 0);
}
END_TEST

/* A helper thread that begins while somebody asks has nothing to ask, and tells of no drop that there was not. */
START_TEST(test_begins_late) {
    struct drp *late;
    int fd;

    atomic_store(&begins_late, true);
    ck_assert_int_eq(drp_new(&late, NULL), 0);
    atomic_store(&begins_there, late);
    fd = drp_get_lost_fd(late);
    ck_assert_int_ge(fd, 0);
    ck_assert_ptr_null(atomic_load(&begins_there));
    ck_assert(!event_comes(fd, 300)); /* what is due is done after 100 ms */
    drp_free(late);
}
END_TEST

static void be_early_child(int socket, void *data) {
    struct drp_region *fresh;
    int fd = drp_get_lost_fd(connection);
    char word = 0;

    (void)data;
    child_check(fd >= 0);
    child_say(socket, 'a');
    child_check(child_hear(socket, &word) && word == 'g');
    child_check(drp_region_new(&fresh, connection, SIZE, NULL) == 0);
    memset(drp_region_address(fresh), 1, SIZE);
    child_check(drp_drop(fresh, 0, CHUNK, NULL, NULL) == 0);
    child_check(event_comes(fd, WAIT_MS));
    child_say(socket, 'c');
}

/* A child asks while the service is away, and something else makes its connection. */
START_TEST(test_child_asks_early) {
    struct child child;

    ck_assert(service_kill(&service, WAIT_MS));
    child_start(&child, be_early_child, NULL);
    child_expect(&child, 'a');
    service_restart(&service);
    ck_assert(child_say(child.socket, 'g'));
    child_expect(&child, 'c');
    child_end(&child);
    ck_assert(connected_becomes(region, true, WAIT_MS) && connected_becomes(other, true, WAIT_MS));
}
END_TEST

/* How many words the helper thread's next recv(2) is to find. */
static _Atomic int words_wanted, words_found;

ssize_t recv(int fd, void *buffer, size_t size, int flags) {
    int wanted = atomic_exchange(&words_wanted, 0), found = 0;

    for (uint64_t deadline = deadline_in(WAIT_MS); wanted > 0 && found < wanted && now_ms() < deadline; nap_ms(1))
        ck_assert_int_eq(ioctl(fd, FIONREAD, &found), 0);
    if (wanted > 0)
        atomic_store(&words_found, found);
    return syscall(SYS_recvfrom, fd, buffer, size, flags, NULL, NULL);
}

/* The helper thread, told that there is a socket more to look at, takes that word off together with the one that tells it to end. */
START_TEST(test_end_at_once) {
    struct drp *brief;
    int found;

    ck_assert_int_eq(drp_new(&brief, NULL), 0);
    atomic_store(&words_wanted, 2);
    ck_assert_int_ge(drp_get_lost_fd(brief), 0);
    for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&words_wanted) != 0; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline); /* it is to be awake */
    brief = drp_free(brief);
    found = atomic_load(&words_found);
    ck_assert_int_eq(found, 2);
}
END_TEST

/* ---- a program that closes what it does not know ---- */

/* All of the connection's. The helper thread may have seen it, but gets no further until the lock is given back. */
static void close_and_hold(void) {
    const int all[] = {connection->wake[1], connection->wake[0],     connection->link.socket, connection->link.pidfd,
                       connection->lost_fd, connection->lost_socket, region->lost_fd};

    pthread_mutex_lock(&connection->regions_lock);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i] >= 0)
            close(all[i]);
}

/* Who asks right after that, before the helper thread has noticed, for the first time or again: told by the connection that the next request makes. */
START_TEST(test_asked_beside_close) {
    uint64_t deadline = deadline_in(WAIT_MS);
    struct drp_stats stats;
    int fd;

    if (_i > 0)
        ck_assert(drp_get_lost_fd(connection) >= 0 && drp_region_get_lost_fd(region) >= 0);
    close_and_hold();
    fd = _i < 2 ? drp_region_get_lost_fd(region) : drp_get_lost_fd(connection);
    ck_assert_int_ge(fd, 0);
    pthread_mutex_unlock(&connection->regions_lock);
    for (; drp_get_stats(connection, &stats) != 0; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    expect_told(fd);
}
END_TEST

/* Only what the service tells of drops by is closed: who asks again gets another one, at once. */
START_TEST(test_asked_again) {
    int fd = drp_region_get_lost_fd(region);

    ck_assert_int_ge(fd, 0);
    close(connection->lost_socket);
    ck_assert_int_eq(drp_region_get_lost_fd(region), fd);
    fill(region, 0, CHUNKS);
    drop(region, 1, 1);
    ck_assert(event_comes(fd, WAIT_MS));
    expect_run(region, 1, 1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lost");
    TCase *tcase = tcase_create("lost");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_events_and_ranges);
    tcase_add_test(tcase, test_before_and_by_budget);
    tcase_add_test(tcase, test_restart);
    tcase_add_test(tcase, test_fork);
    tcase_add_test(tcase, test_fork_at_limit);
    tcase_add_test(tcase, test_storm);
    tcase_add_test(tcase, test_deaf);
    tcase_add_test(tcase, test_asked_beside_hand_over);
    tcase_add_test(tcase, test_short_of_descriptors);
    tcase_add_test(tcase, test_stops_after_hand_over);
    tcase_add_test(tcase, test_begins_late);
    tcase_add_test(tcase, test_child_asks_early);
    tcase_add_test(tcase, test_end_at_once);
    tcase_add_loop_test(tcase, test_asked_beside_close, 0, 3);
    tcase_add_test(tcase, test_asked_again);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
