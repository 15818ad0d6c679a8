/* SPDX-License-Identifier: MIT */
/*
 * Programs that close descriptors which they do not know, as who becomes a daemon does, and open files of their own with the same numbers: of these the
 * library reads, writes, hands over and closes none. Its memory stays, the next requests connect again, nothing hangs; what is still the library's is
 * closed in time.
 */

#include "child.h"
#include "connected.h"
#include "filter.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MIB ((size_t)1 << 20)
#define NUMBERS 128 /* the library's are below */
#define WAIT_MS 10000
#define FILE_SIZE 64
#define FILE_AT 7

/* ---- what the program has in place of the library's ---- */

static bool ours[NUMBERS];   /* of the library */
static int peers[NUMBERS];   /* of what is there now: the other end of a connection, or 0: a file */
static bool theirs[NUMBERS]; /* of the program, which put it there */

/* From here on new descriptors are the library's. */
static void begin_looking(void) {
    memset(theirs, 0, sizeof(theirs));
    for (int fd = 0; fd < NUMBERS; fd++)
        ours[fd] = fcntl(fd, F_GETFD) >= 0;
}

static int end_looking(void) {
    int n = 0;

    for (int fd = 0; fd < NUMBERS; fd++) {
        ours[fd] = !ours[fd] && fcntl(fd, F_GETFD) >= 0;
        n += ours[fd];
    }
    return n;
}

static void put_file(int number) {
    char text[FILE_SIZE];
    int fd = memfd_create("program", MFD_CLOEXEC);

    memset(text, 'p', sizeof(text));
    child_check(fd >= 0 && write(fd, text, sizeof(text)) == FILE_SIZE && lseek(fd, FILE_AT, SEEK_SET) == FILE_AT);
    child_check(fd == number || (dup2(fd, number) == number && close(fd) == 0));
    theirs[number] = true;
    peers[number] = 0;
}

/* Something is there to be read. */
static void put_connection(int number) {
    int ends[2];

    child_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0 && send(ends[1], "x", 1, 0) == 1);
    peers[number] = fcntl(ends[1], F_DUPFD, 2 * NUMBERS);
    child_check(peers[number] >= 0 && close(ends[1]) == 0);
    child_check(ends[0] == number || (dup2(ends[0], number) == number && close(ends[0]) == 0));
    theirs[number] = true;
}

static void close_all_but(int socket) {
    child_check(close_range(3, (unsigned)socket - 1, 0) == 0 && close_range((unsigned)socket + 1, ~0U, 0) == 0);
}

static void put_all(void) {
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd] && fd % 2)
            put_file(fd);
        else if (ours[fd])
            put_connection(fd);
}

/* In a child that was forked, too; not the connections, whose contents are one for all. */
static void check_files(void) {
    char text[FILE_SIZE + 1];

    for (int fd = 0; fd < NUMBERS; fd++) {
        child_check(!theirs[fd] || fcntl(fd, F_GETFD) >= 0);
        if (!theirs[fd] || peers[fd])
            continue;
        child_check(lseek(fd, 0, SEEK_CUR) == FILE_AT);
        child_check(pread(fd, text, sizeof(text), 0) == FILE_SIZE && is_filled(text, 'p', FILE_SIZE));
    }
}

static void check_all(void) {
    char byte;

    check_files();
    for (int fd = 0; fd < NUMBERS; fd++)
        if (theirs[fd] && peers[fd]) {
            child_check(recv(fd, &byte, 1, 0) == 1 && byte == 'x');
            child_check(recv(fd, &byte, 1, 0) < 0 && errno == EAGAIN);
            child_check(recv(peers[fd], &byte, 1, MSG_DONTWAIT) < 0 &&
                        errno == EAGAIN); /* neither written to nor closed */
        }
}

/* ---- all of them ---- */

struct memory {
    struct drp *d;
    struct drp_region *plain, *shared, *signal; /* the last may be NULL */
};

static void check_memory(const struct memory *m) {
    child_check(is_filled(drp_region_address(m->plain), 1, MIB));
    child_check(is_filled(drp_region_address(m->shared), 2, MIB));
    if (m->signal)
        child_check(is_filled(drp_region_address(m->signal), 3, MIB));
}

static void make_memory(struct memory *m) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SHARED};
    int n;

    begin_looking();
    child_check(drp_new(&m->d, NULL) == 0 && drp_region_new(&m->plain, m->d, MIB, NULL) == 0);
    child_check(drp_region_new(&m->shared, m->d, MIB, &options) == 0);
    options.required = DRP_REGION_SIGNAL;
    m->signal = NULL;
    if (may_signal())
        child_check(drp_region_new(&m->signal, m->d, MIB, &options) == 0 && drp_populate(m->signal, 0, MIB) == 0);
    child_check(drp_get_lost_fd(m->d) >= 0 && drp_region_get_lost_fd(m->plain) >= 0);
    n = end_looking();
    child_check(
        n >=
        14); /* a connection, two ends of one, drops, two eventfds, three of a region and four of the other at least */
    memset(drp_region_address(m->plain), 1, MIB);
    memset(drp_region_address(m->shared), 2, MIB);
    if (m->signal)
        memset(drp_region_address(m->signal), 3, MIB);
}

/* Until the watcher has seen it the connection is no good; the library says so. */
static struct drp_region *new_region(struct drp *d) {
    uint64_t deadline = now_ms() + WAIT_MS;
    struct drp_region *r;
    int error;

    while ((error = drp_region_new(&r, d, MIB, NULL)) == -ENOTCONN && now_ms() < deadline)
        nap_ms(1);
    child_check(error == 0);
    return r;
}

static void check_refusals(const struct memory *m) {
    uint64_t offset;

    child_check(drp_drop(m->plain, 0, MIB, NULL, NULL) == -ENOTCONN);
    child_check(drp_region_get_object(m->plain, &offset) == -EBADF);
    child_check(drp_region_get_handle(m->shared) == -EBADF);
    child_check(drp_pin(m->plain, 0, MIB, NULL) == 0 && drp_unpin(m->plain, 0, MIB) == 0);
    child_check(!m->signal || drp_populate(m->signal, 0, MIB) < 0);
    check_memory(m);
}

static void check_lost_fd(struct drp *d, struct drp_region *r) {
    struct pollfd polled = {.events = POLLIN};

    polled.fd = drp_get_lost_fd(d);
    child_check(polled.fd >= 0 && !(polled.fd < NUMBERS && theirs[polled.fd]));
    memset(drp_region_address(r), 4, MIB);
    child_check(drp_drop(r, 0, MIB, NULL, NULL) == 0 && is_zero(drp_region_address(r), MIB));
    child_check(poll(&polled, 1, WAIT_MS) == 1 && polled.revents == POLLIN);
}

static void replace_all(int socket, void *data) {
    struct drp_region *fresh;
    struct memory m;
    char word;
    pid_t pid;
    int status;

    (void)data;
    make_memory(&m);
    close_all_but(socket);
    put_all();
    check_refusals(&m);
    fresh = new_region(m.d);
    check_lost_fd(m.d, fresh);
    pid = fork();
    if (pid == 0) {
        check_files();
        _exit(!is_zero(drp_region_address(m.plain), MIB));
    }
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    child_check(child_say(socket, 'r') && child_hear(socket, &word)); /* another service */
    child_check(connected_becomes(fresh, true, WAIT_MS) && !is_connected(m.plain));
    check_refusals(&m);
    drp_region_free(m.plain);
    drp_free(m.d);
    check_all();
}

START_TEST(test_replace_all) {
    struct child child;

    child_start(&child, replace_all, NULL);
    child_expect(&child, 'r');
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
    fixture_measure();
}
END_TEST

/* The thread ends, though nothing is left by which it could be told to; and what the service had of this process with it. */
static void close_and_end(int socket, void *data) {
    struct memory m;
    uint64_t start;
    char word;

    (void)data;
    make_memory(&m);
    close_all_but(socket);
    start = now_ms();
    drp_free(m.d);
    child_check(now_ms() - start < WAIT_MS);
    child_check(child_say(socket, 'e') && child_hear(socket, &word));
}

/* Nothing is opened by itself: the next file has the number that it has to have. */
static void close_and_open(int socket, void *data) {
    struct memory m;
    struct pollfd none;

    make_memory(&m);
    close_all_but(socket);
    child_check(child_say(socket, 'c') && child_hear(socket, data)); /* the service has seen the end */
    child_check(poll(&none, 0, 0) == 0 && open("/dev/null", O_RDWR | O_CLOEXEC) == 3);
    drp_free(m.d);
    child_check(fcntl(3, F_GETFD) >= 0);
}

START_TEST(test_close_all) {
    struct child child;
    char word;

    child_start(&child, close_and_open, &word);
    child_expect(&child, 'c');
    ck_assert(status_becomes("sessions", 1, WAIT_MS)); /* droppablectl's */
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
    child_start(&child, close_and_end, NULL);
    child_expect(&child, 'e');
    ck_assert(status_becomes("sessions", 1, WAIT_MS));
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
}
END_TEST

/* ---- one of them ---- */

static int type_of(int fd) {
    socklen_t size = sizeof(int);
    int type = -1;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ? type : -1;
}

/* Only the connection: the regions, which have all theirs, come to the service again, and what is pinned stays. */
static void replace_connection(int socket, void *data) {
    struct drp_region *r;
    struct drp *d;

    (void)socket;
    (void)data;
    begin_looking();
    child_check(drp_new(&d, NULL) == 0);
    end_looking();
    child_check(drp_region_new(&r, d, MIB, NULL) == 0 && drp_pin(r, 0, 1, NULL) == 0);
    memset(drp_region_address(r), 5, MIB);
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd] && type_of(fd) == SOCK_SEQPACKET)
            put_connection(fd);
    child_check(drp_drop(r, 0, MIB, NULL, NULL) == -ENOTCONN);
    for (uint64_t deadline = now_ms() + WAIT_MS; drp_drop(r, 0, MIB, NULL, NULL) != 0; nap_ms(1))
        child_check(now_ms() < deadline);
    child_check(is_filled(drp_region_address(r), 5, 65536));
    child_check(is_zero((char *)drp_region_address(r) + 65536, MIB - 65536));
    drp_free(d);
    check_all();
}

/* Any one of a shared region's: the others are closed at its end. A ticket that is left would keep the region. */
static void replace_one(int socket, void *data) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = "one"};
    struct drp *d;

    (void)socket;
    (void)data;
    child_check(drp_new(&d, NULL) == 0);
    for (int k = 0; k < 4; k++) {
        struct drp_region *r;
        int n = 0;

        begin_looking();
        child_check(drp_region_new(&r, d, MIB, &options) == 0 && end_looking() == 4);
        for (int fd = 0; fd < NUMBERS; fd++)
            if (ours[fd] && n++ == k)
                put_file(fd);
        drp_region_free(r);
        for (int fd = 0; fd < NUMBERS; fd++)
            child_check(!ours[fd] || theirs[fd] == (fcntl(fd, F_GETFD) >= 0));
        check_all();
    }
    drp_free(d);
}

/* ---- who may not look ---- */

/* What cannot be looked at is the library's. */
static void forbid_looking(int socket, void *data) {
    static const struct filter_rule rules[] = {
        {.call = SYS_fstat, .error = EPERM},
        {.call = SYS_newfstatat, .error = EPERM},
    };
    struct drp_region *r;
    struct drp *d;

    (void)socket;
    (void)data;
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&r, d, MIB, NULL) == 0);
    begin_looking();
    child_check(filter_install(rules, sizeof(rules) / sizeof(rules[0]), NULL) == 0);
    memset(drp_region_address(r), 6, MIB);
    child_check(drp_drop(r, 0, MIB, NULL, NULL) == 0 && is_zero(drp_region_address(r), MIB));
    drp_free(d);
    child_check(end_looking() == 0);
}

START_TEST(test_single) {
    static void (*const runs[])(int socket, void *data) = {replace_connection, replace_one, forbid_looking};
    struct child child;

    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        child_start(&child, runs[i], NULL);
        child_end(&child);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("descriptors");
    TCase *tcase = tcase_create("descriptors");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_replace_all);
    tcase_add_test(tcase, test_close_all);
    tcase_add_test(tcase, test_single);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
