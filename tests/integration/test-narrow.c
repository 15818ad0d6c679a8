/* SPDX-License-Identifier: MIT */
/* Programs that have closed what others have open, and those that get no more of something. */

#include "child.h"
#include "connected.h"
#include "filter.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define WAIT_MS 10000
#define NUMBERS 128 /* the library's are below */

/* ---- the standard ones ---- */

static int spare_stderr;
static struct drp *d;
static struct drp_region *plain, *shared, *signals;

static bool standard_are_closed(void) {
    bool closed = true;

    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        closed &= fcntl(fd, F_GETFD) < 0;
    return closed;
}

static bool is_inotify(int fd) {
    char path[64], kind[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, kind, sizeof(kind) - 1);
    kind[n < 0 ? 0 : n] = '\0';
    return strstr(kind, "inotify");
}

static bool watches_directory(void) {
    for (int fd = STDERR_FILENO + 1; fd < NUMBERS; fd++)
        if (is_inotify(fd))
            return true;
    return false;
}

/* The library's thread may be about to change one for another, or look something up. */
static void expect_soon(bool (*is_so)(void)) {
    uint64_t deadline = now_ms() + WAIT_MS;
    bool so;

    while (!(so = is_so()) && now_ms() < deadline)
        nap_ms(1);
    if (!so)
        dup2(spare_stderr, STDERR_FILENO); /* for what is said now */
    child_check(so);
}

/* All kinds of descriptors that it has. */
static void make_all(void) {
    struct drp_region_options options = {.struct_size = sizeof(options)};

    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&plain, d, MIB, &options) == 0);
    options.required = DRP_REGION_SHARED;
    child_check(drp_region_new(&shared, d, MIB, &options) == 0);
    options.required = DRP_REGION_SIGNAL;
    child_check(!may_signal() || drp_region_new(&signals, d, MIB, &options) == 0);
    child_check(drp_get_lost_fd(d) >= 0 && drp_region_get_lost_fd(plain) >= 0);
    memset(drp_region_address(plain), 1, MIB);
}

/* They are the program's also while they are closed: nothing that the library makes or receives gets their numbers. */
static void close_standard(int socket, void *data) {
    (void)data;
    spare_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        close(fd);
    make_all();
    expect_soon(standard_are_closed);
    child_check(child_say(socket, 's')); /* it ends, and another one starts */
    expect_soon(watches_directory);
    expect_soon(standard_are_closed);
    child_check(child_say(socket, 'e'));
    child_check(connected_becomes(plain, true, WAIT_MS) && connected_becomes(shared, true, WAIT_MS));
    child_check(is_filled(drp_region_address(plain), 1, MIB));
    child_check(drp_drop(plain, 0, MIB, NULL, NULL) == 0 && is_zero(drp_region_address(plain), MIB));
    drp_free(d);
    child_check(standard_are_closed());
}

START_TEST(test_standard) {
    struct child child;

    child_start(&child, close_standard, NULL);
    child_expect(&child, 's');
    ck_assert(service_kill(&service, WAIT_MS));
    child_expect(&child, 'e');
    service_restart(&service);
    child_end(&child);
    fixture_measure();
}
END_TEST

/* ---- none to be had ---- */

static void forbid(const struct filter_rule *which, size_t n) {
    child_check(filter_install(which, n, NULL) == 0);
}

/* Not the EAGAIN of what is being dropped. */
static void refuse_threads(int socket, void *data) {
    static const struct filter_rule threads[] = {{.call = SYS_clone3, .error = EAGAIN},
                                                 {.call = SYS_clone, .error = EAGAIN}};
    struct drp *c;

    (void)socket;
    (void)data;
    forbid(threads, 2);
    child_check(drp_new(&c, NULL) == -ENOMEM && strstr(drp_detail(), "thread"));
}

/* What is short for a moment is no region for good that does not signal, nor a kernel that cannot. */
static void refuse_userfaultfd(int socket, void *data) {
    static const struct filter_rule rule = {.call = SYS_userfaultfd, .error = EMFILE};
    struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SIGNAL};
    struct drp_region *r;
    struct drp *c;

    (void)socket;
    (void)data;
    forbid(&rule, 1);
    child_check(drp_new(&c, NULL) == 0);
    child_check(drp_region_new(&r, c, MIB, &options) == -EMFILE && strstr(drp_detail(), strerror(EMFILE)));
    options.preferred = options.required;
    options.required = 0;
    child_check(drp_region_new(&r, c, MIB, &options) == -EMFILE);
    drp_free(c);
}

START_TEST(test_none) {
    struct child child;

    child_start(&child, refuse_threads, NULL);
    child_end(&child);
    child_start(&child, refuse_userfaultfd, NULL);
    child_end(&child);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("narrow");
    TCase *tcase = tcase_create("narrow");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_standard);
    tcase_add_test(tcase, test_none);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
