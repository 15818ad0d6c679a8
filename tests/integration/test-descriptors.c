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
#include "replaced.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define MIB ((size_t)1 << 20)
#define WAIT_MS 10000

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

static struct drp_region *make(struct drp *d, uint64_t required) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = required};
    struct drp_region *r;

    child_check(drp_region_new(&r, d, MIB, &options) == 0);
    return r;
}

static void make_memory(struct memory *m) {
    int n;

    begin_looking();
    child_check(drp_new(&m->d, NULL) == 0);
    m->plain = make(m->d, 0);
    m->shared = make(m->d, DRP_REGION_SHARED);
    m->signal = may_signal() ? make(m->d, DRP_REGION_SIGNAL) : NULL;
    child_check(!m->signal || drp_populate(m->signal, 0, MIB) == 0);
    child_check(drp_get_lost_fd(m->d) >= 0 && drp_region_get_lost_fd(m->plain) >= 0);
    n = end_looking();
    child_check(
        n >=
        14); /* a connection, two ends of one, drops, two eventfds, three of a region and four of the other at least */
    memset(drp_region_address(m->plain), 1, MIB);
    memset(drp_region_address(m->shared), 2, MIB);
    if (m->signal)
        memset(drp_region_address(m->signal), 3, MIB);
    child_check(drp_pin(m->shared, 0, 1, NULL) == 0);
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

/* Others may have it dropped: what is pinned from now on could not be kept. The rest goes on. */
static void check_shared(struct drp_region *r) {
    uint32_t generation;

    child_check(drp_pin(r, 0, 1, NULL) == -ENOTCONN && drp_pin(r, 0, MIB, NULL) == -ENOTCONN);
    child_check(drp_pin(r, MIB, 1, NULL) == -ERANGE && drp_touch(r, 0, MIB) == 0 && drp_touch(r, 1, MIB) == -ERANGE);
    child_check(drp_copy_generations(r, MIB - 1, 1, &generation) == 1);
    child_check(drp_unpin(r, 0, 1) == 0 && drp_unpin(r, 0, 1) == -EINVAL);
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
    check_shared(m.shared);
    check_lost_fd(m.d, fresh);
    pid = fork();
    if (pid == 0) {
        check_files();
        child_check(drp_pin(m.shared, 0, 1, NULL) == 0); /* plain memory */
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

/* Only the connection: the regions, which have all theirs, come to the service again, and what is pinned stays. */
static void replace_connection(int socket, void *data) {
    struct drp_region *r, *shared;
    struct drp *d;

    (void)socket;
    (void)data;
    begin_looking();
    child_check(drp_new(&d, NULL) == 0);
    end_looking();
    r = make(d, 0);
    shared = make(d, DRP_REGION_SHARED);
    child_check(drp_pin(r, 0, 1, NULL) == 0);
    memset(drp_region_address(r), 5, MIB);
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd] && type_of(fd) == SOCK_SEQPACKET)
            put_connection(fd);
    child_check(drp_drop(r, 0, MIB, NULL, NULL) == -ENOTCONN);
    for (uint64_t deadline = now_ms() + WAIT_MS; drp_drop(r, 0, MIB, NULL, NULL) != 0; nap_ms(1))
        child_check(now_ms() < deadline);
    child_check(is_filled(drp_region_address(r), 5, 65536));
    child_check(is_zero((char *)drp_region_address(r) + 65536, MIB - 65536));
    child_check(connected_becomes(shared, true, WAIT_MS) && drp_pin(shared, 0, MIB, NULL) == 0);
    drp_free(d);
    check_all();
}

/* The connection ends, though somebody who was made past the library has a copy of its socket. */
static void keep_copies(int socket, void *data) {
    struct drp_region *r;
    struct drp *d;
    int words[2];
    pid_t pid;
    char word;

    (void)socket;
    (void)data;
    begin_looking();
    child_check(drp_new(&d, NULL) == 0 && end_looking() >= 3 && drp_region_new(&r, d, MIB, NULL) == 0);
    child_check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, words) == 0);
    pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd] && type_of(fd) == SOCK_STREAM)
            close(fd);
    if (pid == 0) {
        close(words[0]);
        (void)!recv(words[1], &word, 1, 0); /* until the other end is closed */
        _exit(0);
    }
    child_check(pid > 0);
    for (uint64_t deadline = now_ms() + WAIT_MS; drp_drop(r, 0, MIB, NULL, NULL) != 0 || !is_connected(r); nap_ms(1))
        child_check(now_ms() < deadline);
    child_check(waitpid(pid, NULL, WNOHANG) == 0);
    close(words[0]);
    child_check(waitpid(pid, NULL, 0) == pid);
    drp_free(d);
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

/* A shared region: what is ours[] then is its four, and nothing of the connection. */
static struct drp_region *make_looked_at(struct drp **ret_d) {
    struct drp_region *r;

    child_check(drp_new(ret_d, NULL) == 0);
    begin_looking();
    r = make(*ret_d, DRP_REGION_SHARED);
    child_check(end_looking() == 4);
    return r;
}

/* Whoever closes any descriptor of a file has none of its locks any more. */
static void keep_locks(int socket, void *data) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct drp_region *r;
    uint64_t offset;
    struct drp *d;
    int status;

    (void)socket;
    (void)data;
    r = make_looked_at(&d);
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd]) {
            put_file(fd);
            child_check(fcntl(fd, F_SETLK, &lock) == 0);
        }
    child_check(drp_region_get_object(r, &offset) == -EBADF && drp_region_get_handle(r) == -EBADF);
    drp_region_free(r);
    drp_free(d);
    if (fork() == 0) {
        for (int fd = 0; fd < NUMBERS; fd++) {
            lock.l_type = F_WRLCK;
            child_check(!ours[fd] || (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_pid == getppid()));
        }
        _exit(0);
    }
    child_check(wait(&status) > 0 && status == 0);
}

/* A handle of the program's in the place of the ticket, which is of the same object. */
static void replace_ticket(int socket, void *data) {
    struct drp_region *r;
    struct stat object, st;
    struct drp *d;
    int handle, ticket = -1;

    (void)socket;
    (void)data;
    r = make_looked_at(&d);
    handle = drp_region_get_handle(r);
    child_check(handle >= 0 && fstat(handle, &object) == 0);
    for (int fd = 0; fd < NUMBERS; fd++) /* the data descriptor is older */
        if (ours[fd] && fstat(fd, &st) == 0 && st.st_ino == object.st_ino && st.st_dev == object.st_dev)
            ticket = fd;
    child_check(ticket >= 0 && dup2(handle, ticket) == ticket);
    if (fork() == 0)
        _exit(fcntl(ticket, F_GETFD) < 0);
    child_check(wait(&handle) > 0 && handle == 0);
    drp_region_free(r);
    child_check(fcntl(ticket, F_GETFD) >= 0);
    drp_free(d);
}

/* What would not signal any more is not dropped: nobody takes it back. */
static void close_userfaultfd(int socket, void *data) {
    struct drp_region *plain, *signal, *shared;
    struct drp *d;

    (void)socket;
    (void)data;
    begin_looking();
    child_check(drp_new(&d, NULL) == 0);
    plain = make(d, 0);
    signal = make(d, DRP_REGION_SIGNAL);
    shared = make(d, DRP_REGION_SIGNAL | DRP_REGION_SHARED);
    end_looking();
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd] && is_kind(fd, "[userfaultfd]"))
            put_epoll(fd);
        else if (ours[fd] && type_of(fd) == SOCK_SEQPACKET)
            put_connection(fd);
    drp_region_free(new_region(d));
    child_check(connected_becomes(plain, true, WAIT_MS)); /* it is offered last */
    child_check(!is_connected(signal) && !is_connected(shared));
    drp_free(d);
    check_all();
}

static uint64_t cpu_ms(void) {
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* By which it looks for the next service. */
static void replace_inotify(int socket, void *data) {
    uint64_t deadline, cpu;
    struct drp_region *r;
    eventfd_t count = 0;
    struct drp *d;
    int number = 0;
    char word;

    (void)data;
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&r, d, MIB, NULL) == 0);
    child_check(child_say(socket, 'k') && child_hear(socket, &word)); /* the service is dead */
    for (deadline = now_ms() + WAIT_MS; !is_kind(number, "inotify"); number = (number + 1) % NUMBERS)
        child_check(now_ms() < deadline);
    close(number);
    cpu = cpu_ms();
    nap_ms(150);
    child_check(dup2(eventfd(5, EFD_NONBLOCK), number) == number);
    nap_ms(150);
    child_check(cpu_ms() - cpu < 75); /* neither has it look for the service without a pause */
    child_check(child_say(socket, 'r') && child_hear(socket, &word) && connected_becomes(r, true, WAIT_MS));
    child_check(eventfd_read(number, &count) == 0 && count == 5);
    drp_free(d);
}

START_TEST(test_inotify) {
    struct child child;

    child_start(&child, replace_inotify, NULL);
    child_expect(&child, 'k');
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert(child_say(child.socket, 'k'));
    child_expect(&child, 'r');
    service_restart(&service);
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
    fixture_measure();
}
END_TEST

/* ---- who may not look ---- */

static const struct filter_rule rules[] = {
    {.call = SYS_fstat, .error = EPERM},
    {.call = SYS_newfstatat, .error = EPERM},
};

/* To the library's thread, too. */
static void forbid_fstat(void) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = 1, .filter = &allow};

    child_check(filter_install(rules, sizeof(rules) / sizeof(rules[0]), NULL) == 0);
    child_check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0);
}

/* What cannot be looked at is the library's. */
static void forbid_looking(int socket, void *data) {
    struct drp_region *r;
    struct drp *d;

    (void)socket;
    (void)data;
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&r, d, MIB, NULL) == 0);
    begin_looking();
    forbid_fstat();
    memset(drp_region_address(r), 6, MIB);
    child_check(drp_drop(r, 0, MIB, NULL, NULL) == 0 && is_zero(drp_region_address(r), MIB));
    drp_free(d);
    child_check(end_looking() == 0);
}

/* The thread ends all the same. */
static void forbid_and_close(int socket, void *data) {
    uint64_t deadline = now_ms() + WAIT_MS;
    char text[4096] = "";
    struct drp *d;

    (void)data;
    child_check(drp_new(&d, NULL) == 0);
    forbid_fstat();
    close_all_but(socket);
    while (!strstr(text, "\nThreads:\t1\n")) {
        int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

        child_check(now_ms() < deadline && fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && close(fd) == 0);
    }
    drp_free(d);
}

START_TEST(test_single) {
    static void (*const runs[])(int socket, void *data) = {replace_connection, keep_copies,     replace_one,
                                                           keep_locks,         replace_ticket,  close_userfaultfd,
                                                           forbid_looking,     forbid_and_close};
    struct child child;

    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        if (runs[i] == close_userfaultfd && !may_signal())
            continue;
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
    tcase_add_test(tcase, test_inotify);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
