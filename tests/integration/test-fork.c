/* SPDX-License-Identifier: MIT */
/*
 * What children have of a region: zeros of their own, the parent's memory, or nothing; as asked for when it was made and changed since. And
 * that they have nothing else: no mapping and no descriptor of the parent's.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <dirent.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MIB ((size_t)1 << 20)
#define SIZE (8 * MIB)
#define PATTERN 0x5a

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static struct drp *connection;
static struct drp_region *region;
static char *memory;

static void make(uint64_t required) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = required};

    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), 0);
    memory = drp_region_address(region);
    memset(memory, PATTERN, SIZE);
}

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static uint64_t holding(void) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.granted & ~DRP_REGION_NO_SWAP; /* given wherever it can be */
}

/* Runs it in a child that ends without ends of its own. */
static void in_child(void (*run)(void)) {
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        alarm(60);
        run();
        _exit(0);
    }
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

/* ---- what a child is not to have ---- */

/* A shared mapping of the service's, but for the clock page, which says nothing of anybody. */
static bool is_foreign_mapping(const char *line) {
    char *permissions = strchr(line, ' ');

    return permissions && permissions[4] == 's' && !strstr(line, "droppable-clock") &&
           (strstr(line, "droppable-") || strstr(line, " /#") || strstr(line, "memfd:"));
}

static unsigned foreign_mappings(void) {
    FILE *file = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned n = 0;

    child_check(file);
    while (fgets(line, sizeof(line), file))
        n += is_foreign_mapping(line);
    fclose(file);
    return n;
}

/* One of the service's objects, its socket, its process, a userfaultfd. */
static unsigned foreign_descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    char target[256];
    unsigned n = 0;

    child_check(dir);
    while ((entry = readdir(dir))) {
        ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (length <= 0)
            continue;
        target[length] = '\0';
        n += strstr(target, "droppable-") || strncmp(target, "/#", 2) == 0 ||
             (target[0] != '/' && (strstr(target, "userfaultfd") || strstr(target, "pidfd")));
    }
    closedir(dir);
    return n;
}

static sigjmp_buf fault;

static void on_fault(int signal) {
    siglongjmp(fault, signal);
}

/* The signal that an access to an address raises. */
static int signal_at(volatile char *p, bool write) {
    const struct sigaction action = {.sa_handler = on_fault};
    int raised;

    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    raised = sigsetjmp(fault, 1);
    if (raised == 0) {
        if (write)
            *p = 1;
        else
            (void)*p;
    }
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    return raised;
}

/* ---- zeros ---- */

static void library_works(void) {
    struct drp_region *own = NULL;
    uint64_t generation, now;

    child_check(drp_region_new(&own, connection, MIB, NULL) == 0);
    memset(drp_region_address(own), 1, MIB);
    child_check(drp_pin(own, 0, 1, &generation) == 0 && drp_unpin(own, 0, 1) == 0);
    child_check(drp_drop(own, 0, MIB, NULL, NULL) == 0);
    child_check(is_zero(drp_region_address(own), MIB));
    child_check(drp_pin(own, 0, 1, &now) == 0 && now != generation);
    drp_region_free(own);
}

static void has_zeros(void) {
    uint64_t generation;

    child_check(is_zero(memory, SIZE));
    child_check(foreign_mappings() == 0 && foreign_descriptors() == 0);
    memset(memory, 7, SIZE);
    child_check(is_filled(memory, 7, SIZE));
    child_check(drp_unpin(region, 0, 1) == -EINVAL); /* the parent's pin */
    child_check(drp_pin(region, 0, 1, &generation) == 0 && drp_unpin(region, 0, 1) == 0);
}

static void with_grandchild(void) {
    int status;
    pid_t pid;

    has_zeros();
    pid = fork();
    if (pid == 0) {
        has_zeros();
        library_works();
        _exit(0);
    }
    child_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    child_check(is_filled(memory, 7, SIZE));
    library_works();
    pid = fork(); /* of a child that has a connection */
    if (pid == 0) {
        has_zeros();
        library_works();
        _exit(0);
    }
    child_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

START_TEST(test_zeros) {
    make(0);
    ck_assert_int_eq(drp_pin(region, 0, 1, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        in_child(with_grandchild);
    ck_assert(is_filled(memory, PATTERN, SIZE));
    ck_assert_int_eq(drp_unpin(region, 0, 1), 0);
}
END_TEST

/* The same memory, as vfork(2) is: until the child is another program. */
START_TEST(test_vfork_and_exec) {
    int status;
    pid_t pid;

    make(0);
    pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c",
              "! grep -q -e droppable- -e '/#' /proc/$$/maps && ! ls -l /proc/$$/fd | grep -q -e droppable- -e '/#'",
              (char *)NULL);
        _exit(1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert(is_filled(memory, PATTERN, SIZE));
    ck_assert_uint_eq(holding(), 0);
}
END_TEST

/* ---- races ---- */

static atomic_bool stop;

/* Regions come, are filled, and go; so of the children some are made in the middle of each step. */
static void *make_regions(void *data) {
    const uint64_t *required = data;
    unsigned made = 0;

    for (; !atomic_load(&stop); made++) {
        const struct drp_region_options options = {.struct_size = sizeof(options), .required = *required};
        struct drp_region *r = NULL;

        if (drp_region_new(&r, connection, MIB / 4, &options) < 0)
            break;
        memset(drp_region_address(r), PATTERN, MIB / 4);
        drp_region_free(r);
    }
    return (void *)(uintptr_t)made;
}

static void *toggle(void *data) {
    for (uint64_t on = 0; !atomic_load(&stop); on ^= DRP_REGION_FORK_ABSENT)
        if (drp_region_set_options(region, DRP_REGION_FORK_ABSENT, on) < 0)
            return NULL;
    return data;
}

/* Children of a storm: of whatever is mapped nothing is the parent's. */
static void has_nothing(void) {
    int raised = signal_at(memory, false);

    child_check(foreign_mappings() == 0 && foreign_descriptors() == 0);
    child_check(raised == SIGSEGV || (raised == 0 && is_zero(memory, SIZE)));
}

static void has_nothing_and_works(void) {
    has_nothing();
    library_works();
}

static void storm(void (*run)(void), unsigned children) {
    pid_t pids[16];

    for (unsigned i = 0; i < children; i += 16) {
        for (unsigned k = 0; k < 16; k++) {
            pids[k] = fork();
            ck_assert_int_ge(pids[k], 0);
            if (pids[k] == 0) {
                alarm(60);
                run();
                _exit(0);
            }
        }
        for (unsigned k = 0; k < 16; k++) {
            int status;

            ck_assert_int_eq(waitpid(pids[k], &status, 0), pids[k]);
            ck_assert_int_eq(status, 0);
        }
    }
}

START_TEST(test_storm) {
    static const uint64_t modes[] = {0, DRP_REGION_FORK_ABSENT, DRP_REGION_DUMP};
    pthread_t makers[3], toggler;
    void *made;

    if (under_sanitizer())
        return; /* its own locks are not made for children of processes with threads */
    make(0);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&makers[i], NULL, make_regions, (void *)&modes[i]), 0);
    ck_assert_int_eq(pthread_create(&toggler, NULL, toggle, connection), 0);
    storm(has_nothing, 160);
    storm(has_nothing_and_works, 32);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_join(makers[i], &made), 0);
        ck_assert_uint_gt((uintptr_t)made, 10 / patience());
    }
    ck_assert_int_eq(pthread_join(toggler, &made), 0);
    ck_assert_ptr_nonnull(made);
    ck_assert(is_filled(memory, PATTERN, SIZE));
}
END_TEST

/* ---- shared ---- */

static void calls_fail(void) {
    bool lost;
    size_t offset, length;
    uint64_t generation;
    uint32_t word;

    child_check(drp_pin(region, 0, 1, NULL) == -ENOTCONN && strstr(drp_detail(), "fork()"));
    child_check(drp_unpin(region, 0, 1) == -ENOTCONN && drp_touch(region, 0, 1) == -ENOTCONN);
    child_check(drp_generation(region, 0, 1) == 0 && drp_copy_generations(region, 0, 1, &word) == -ENOTCONN);
    child_check(drp_read_begin(region, 0, 1, &generation) == -ENOTCONN && drp_read_retry(region, 0, 1, 0));
    child_check(drp_drop(region, 0, SIZE, NULL, NULL) == -ENOTCONN && drp_populate(region, 0, SIZE) == -ENOTCONN);
    child_check(drp_set_volatile(region, 0, SIZE) == -ENOTCONN);
    child_check(drp_set_nonvolatile(region, 0, SIZE, &lost) == -ENOTCONN);
    child_check(drp_region_take_lost(region, &offset, &length) == -ENOTCONN);
    child_check(drp_region_set_options(region, DRP_REGION_FORK_SHARED, 0) == -ENOTCONN);
    child_check(drp_region_set_share(region, 50) == -ENOTCONN);
}

static void sees_parents(void) {
    child_check(is_filled(memory, PATTERN, SIZE / 2));
    memset(memory + SIZE / 2, 9, SIZE / 2);
    calls_fail();
    library_works();
    child_check(is_filled(memory, PATTERN, SIZE / 2));
}

static void sees_parents_too(void) {
    int status;
    pid_t pid;

    sees_parents();
    pid = fork();
    if (pid == 0) {
        sees_parents();
        drp_region_free(region); /* its own mapping only */
        _exit(0);
    }
    child_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    child_check(is_filled(memory, PATTERN, SIZE / 2));
}

START_TEST(test_shared) {
    uint64_t freed = 0;

    make(DRP_REGION_FORK_SHARED);
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_SHARED);
    in_child(sees_parents_too);
    ck_assert(is_filled(memory + SIZE / 2, 9, SIZE / 2));
    /* What the child brought in goes like all else; it never was the service's to see. */
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    ck_assert_uint_eq(freed, SIZE);
    ck_assert(is_zero(memory, SIZE));
}
END_TEST

static void fills_when_told(int socket, void *data) {
    char word;

    (void)data;
    child_check(is_filled(memory, PATTERN, SIZE));
    child_say(socket, 'r');
    child_check(child_hear(socket, &word) && word == 'd');
    child_check(is_zero(memory, SIZE - MIB) && is_filled(memory + SIZE - MIB, PATTERN, MIB));
    memset(memory, 3, SIZE - MIB);
    child_say(socket, 'f');
    child_check(child_hear(socket, &word) && word == 'e');
    child_check(is_zero(memory, SIZE - MIB) && is_filled(memory + SIZE - MIB, PATTERN, MIB));
}

/* A child that goes on while the parent drops, pins, and gets a new service. */
START_TEST(test_shared_is_dropped) {
    struct child child;
    uint64_t freed = 0, pinned = 0;

    make(DRP_REGION_FORK_SHARED);
    child_start(&child, fills_when_told, NULL);
    child_expect(&child, 'r');
    ck_assert_int_eq(drp_pin(region, SIZE - MIB, MIB, NULL), 0);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, &pinned), 0);
    ck_assert_uint_eq(freed, SIZE - MIB);
    ck_assert_uint_eq(pinned, MIB);
    child_say(child.socket, 'd');
    child_expect(&child, 'f');
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    while (drp_drop(region, 0, SIZE, &freed, &pinned) == -ENOTCONN)
        sched_yield();
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_SHARED);
    ck_assert_uint_eq(freed, SIZE - MIB);
    child_say(child.socket, 'e');
    child_end(&child);
    ck_assert_int_eq(drp_unpin(region, SIZE - MIB, MIB), 0);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* ---- absent ---- */

static void is_absent(void) {
    child_check(signal_at(memory, false) == SIGSEGV && signal_at(memory + SIZE - 1, true) == SIGSEGV);
    child_check(mmap(memory, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
    child_check(foreign_mappings() == 0 && foreign_descriptors() == 0);
    calls_fail();
}

static void is_absent_too(void) {
    int status;
    pid_t pid;

    is_absent();
    pid = fork();
    if (pid == 0) {
        is_absent();
        drp_region_free(region);
        child_check(mmap(memory, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == memory);
        _exit(0);
    }
    child_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    library_works();
}

START_TEST(test_absent) {
    make(DRP_REGION_FORK_ABSENT);
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_ABSENT);
    in_child(is_absent_too);
    ck_assert(is_filled(memory, PATTERN, SIZE));
}
END_TEST

/* ---- toggles ---- */

START_TEST(test_toggles) {
    make(0);
    in_child(with_grandchild);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_FORK_SHARED, DRP_REGION_FORK_SHARED), 0);
    in_child(sees_parents);
    memset(memory, PATTERN, SIZE);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_FORK_ABSENT, DRP_REGION_FORK_ABSENT), -EINVAL);
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_SHARED);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_FORK_SHARED | DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP,
                                            DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP),
                     0);
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP);
    in_child(is_absent);
    ck_assert(service_kill(&service, 10000));
    in_child(is_absent);
    service_restart(&service);
    while (drp_populate(region, 0, SIZE) < 0 || drp_region_set_budget(region, SIZE) == -ENOTCONN)
        sched_yield();
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP, 0), 0);
    ck_assert_uint_eq(holding(), 0);
    in_child(with_grandchild);
    ck_assert(is_filled(memory, PATTERN, SIZE));
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

START_TEST(test_refusals) {
    struct drp_region_options options = {.struct_size = sizeof(options)};

    make(0);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_HUGE, DRP_REGION_HUGE), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_HUGE"));
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_MERGEABLE, DRP_REGION_MERGEABLE), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_MERGEABLE"));
    ck_assert_int_eq(drp_region_set_options(region, UINT64_C(1) << 60, 0), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "0x1000000000000000"));
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_DUMP, DRP_REGION_FORK_SHARED), -EINVAL);
    ck_assert_uint_eq(holding(), 0);
    region = drp_region_free(region);

    options.required = DRP_REGION_MERGEABLE;
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_MERGEABLE"));
    options.required = UINT64_C(1) << 60;
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "0x1000000000000000"));
    options.required = DRP_REGION_FORK_SHARED;
    options.preferred = DRP_REGION_FORK_ABSENT;
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), -EINVAL);
    options.required = DRP_REGION_HUGE;
    options.preferred = DRP_REGION_MERGEABLE | DRP_REGION_FORK_ABSENT;
    if (!status_feature("huge")) { /* no private tmpfs, and shmem_enabled says no */
        ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), -EOPNOTSUPP);
        return;
    }
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), 0);
    ck_assert_uint_eq(holding(), DRP_REGION_HUGE | DRP_REGION_FORK_ABSENT);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_HUGE, 0), 0);
    ck_assert_uint_eq(holding(), DRP_REGION_FORK_ABSENT);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_HUGE, DRP_REGION_HUGE), 0);
    ck_assert_uint_eq(holding(), DRP_REGION_HUGE | DRP_REGION_FORK_ABSENT);
}
END_TEST

/* Of what a child that is made past the library asks for nothing is its parent's. */
static void ask_past_library(void) {
    struct drp_region *own;

    child_check(drp_drop(region, 0, SIZE, NULL, NULL) == -ENOTCONN);
    drp_region_free(region);
    child_check(drp_region_new(&own, connection, MIB, NULL) == 0);
    memset(drp_region_address(own), 1, MIB);
    child_check(drp_drop(own, 0, MIB, NULL, NULL) == 0 && is_zero(drp_region_address(own), MIB));
    drp_free(connection);
}

/* A region of a connection of its own, which is the first that it asks for; and what it has then at the addresses of its parent's stays its own. */
static void begin_past_library(void) {
    struct drp_region *own;
    struct drp *d;
    char *there;

    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&own, d, MIB, NULL) == 0);
    memset(drp_region_address(own), 1, MIB);
    child_check(drp_pin(own, 0, MIB / 2, NULL) == 0);
    child_check(drp_drop(own, 0, MIB, NULL, NULL) == 0);
    there = mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    child_check(there == memory || errno == EEXIST); /* an allocator was quicker, and may be in a part of it only */
    drp_region_free(region);
    child_check(there != memory || *(volatile char *)memory == 0);
    child_check(is_filled(drp_region_address(own), 1, MIB / 2));
    child_check(is_zero((char *)drp_region_address(own) + MIB / 2, MIB / 2));
    drp_free(d);
    drp_free(connection);
}

/* The parent's connection, which it has not used before. */
static void make_past_library(void) {
    struct drp_region *own;

    child_check(drp_region_new(&own, connection, MIB, NULL) == 0);
    memset(drp_region_address(own), 1, MIB);
    child_check(drp_pin(own, 0, MIB / 2, NULL) == 0 && drp_drop(own, 0, MIB, NULL, NULL) == 0);
    child_check(is_filled(drp_region_address(own), 1, MIB / 2) && drp_get_lost_fd(connection) >= 0);
    drp_free(connection);
}

START_TEST(test_past_library) {
    static void (*const runs[])(void) = {ask_past_library, begin_past_library, make_past_library};
    int status;
    pid_t pid;

    make(0);
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        child_let_threads_sleep();
        pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) {
            alarm(60);
            runs[i]();
            _exit(0);
        }
        ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
    }
    ck_assert(is_filled(memory, PATTERN, SIZE));
    ck_assert_uint_eq(listing_count("regions"), 1);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert(is_zero(memory, SIZE));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fork");
    TCase *tcase = tcase_create("fork");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_zeros);
    tcase_add_test(tcase, test_vfork_and_exec);
    tcase_add_test(tcase, test_storm);
    tcase_add_test(tcase, test_shared);
    tcase_add_test(tcase, test_shared_is_dropped);
    tcase_add_test(tcase, test_absent);
    tcase_add_test(tcase, test_toggles);
    tcase_add_test(tcase, test_refusals);
    tcase_add_test(tcase, test_past_library);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
