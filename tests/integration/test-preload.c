/* SPDX-License-Identifier: MIT */
/*
 * Programs that know nothing of droppable but mmap(2), under the preload library: this test runs itself as such a program (program.c),
 * and looks from outside at what the service holds, so that it is certainly the service that answered.
 */

#include "child.h"
#include "fixture.h"
#include "preloaded.h"
#include "program.h"
#include "rest.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE UINT64_C(4096)
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define TEXT_SIZE (64 * 1024)

START_TEST(test_memory) {
    struct child child = preloaded_start("memory");

    child_expect(&child, 'd');
    ck_assert_uint_eq(listing_count("regions"), 2); /* one for many, and a large one */
    ck_assert_uint_eq(preloaded_resident(&child), 8 * MIB + 4 * PAGE);
    ck_assert_uint_eq(listing_number("regions", "size", 64 * MIB, "chunk_size"), 64 * KIB);
    ck_assert_uint_eq(listing_number("regions", "size", 65 * MIB, "chunk_size"), 64 * KIB);
    preloaded_drop_all();
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_expect(&child, 'e');
    ck_assert_uint_eq(listing_count("regions"), 1); /* kept for the next mapping */
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

/* Waits for the letter, compares what is resident, and lets the program go on. */
static void expect_pages(const struct child *child, char word, uint64_t pages) {
    child_expect(child, word);
    ck_assert_uint_eq(preloaded_resident(child), pages * PAGE);
    preloaded_go_on(child);
}

START_TEST(test_parts) {
    struct child child = preloaded_start("parts");

    expect_pages(&child, 'a', 256);
    expect_pages(&child, 'b', 156);
    expect_pages(&child, 'c', 154);
    expect_pages(&child, 'd', 150);
    expect_pages(&child, 'e', 9 + 40 + 41 + 64);
    child_expect(&child, 'f');
    /* The next daemon is handed what is left of them, and only that. */
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    ck_assert(status_becomes("regions", 1, 10000));
    for (uint64_t deadline = deadline_in(10000); service_status(&service, "resident_bytes") > 0; preloaded_drop_all())
        ck_assert(now_ms() < deadline);
    preloaded_go_on(&child);
    expect_pages(&child, 'g', 9 + 40 + 41 + 64);
    child_expect(&child, 'h');
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_end(&child);
    ck_assert(!service_log_has(&service, "a mapping is not intercepted", 0)); /* nothing foreign was handed over */
    fixture_measure();
}
END_TEST

START_TEST(test_remap) {
    struct child child = preloaded_start("remap");

    child_expect(&child, 'a');
    ck_assert_uint_eq(preloaded_resident(&child), 3 * MIB);
    preloaded_drop_all();
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_expect(&child, 'b');
    ck_assert_uint_eq(preloaded_resident(&child), MIB + PAGE);
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    ck_assert(status_becomes("regions", 1, 10000));
    preloaded_go_on(&child);
    child_expect(&child, 'c');
    for (uint64_t deadline = deadline_in(10000); service_status(&service, "resident_bytes") > 0; preloaded_drop_all())
        ck_assert(now_ms() < deadline);
    preloaded_go_on(&child);
    expect_pages(&child, 'd', 257);
    expect_pages(&child, 'e', 0);
    child_end(&child);
    fixture_measure();
}
END_TEST

/* The service stands still from one word of the program to the next. */
static void stop_for(const struct child *child) {
    child_expect(child, 'a');
    ck_assert_int_eq(kill(service.pid, SIGSTOP), 0);
    preloaded_go_on(child);
    child_expect(child, 'b');
    ck_assert_int_eq(kill(service.pid, SIGCONT), 0);
    preloaded_go_on(child);
}

/* The service does not answer while a thread moves a piece, is interrupted, and another one forks. */
START_TEST(test_moving) {
    struct child child = preloaded_start("moving");

    for (unsigned i = 0; i < 2; i++)
        stop_for(&child);
    child_expect(&child, 'c');
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

/* Its first mapping is made by another thread, beside a fork(2) that has begun, and waits for the service: the child does not. */
START_TEST(test_first) {
    struct child child = preloaded_start("first");

    stop_for(&child);
    child_end(&child);
}
END_TEST

/* A thread that is to be ended is, but within no call about memory. */
START_TEST(test_cancelled) {
    struct child child = preloaded_start("cancelled");

    child_expect(&child, 'c');
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

/* A child moves what it inherited in many pieces, which are one mapping to its kernel. */
START_TEST(test_inherited) {
    struct child child = preloaded_start("inherited");

    child_end(&child);
}
END_TEST

/* The program has put descriptors of its own in place of the library's: none is written to, read or closed, and there is memory to be had. */
START_TEST(test_replaced) {
    struct child child = preloaded_start("replaced");

    child_expect(&child, 'a');
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    ck_assert(status_becomes("sessions", 2, 10000)); /* the program's, that it made anew, and droppablectl's */
    preloaded_go_on(&child);
    child_expect(&child, 'b');
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

static void watch_advice(const char *name) {
    struct child child = preloaded_start(name);

    child_expect(&child, 'a');
    preloaded_go_on(&child);
    child_expect(&child, 'b');
    ck_assert_uint_eq(preloaded_resident(&child), 216 * PAGE);
    preloaded_go_on(&child);
    child_end(&child);
}

START_TEST(test_advice) {
    watch_advice("advice");
}
END_TEST

START_TEST(test_nobody) {
    watch_advice("nobody");
}
END_TEST

START_TEST(test_fork) {
    struct child child = preloaded_start("fork");

    child_expect(&child, 'f');
    ck_assert(status_becomes("sessions", 2, 10000)); /* the program's, droppablectl's */
    ck_assert_uint_eq(listing_count("regions"), 1);
    ck_assert_uint_eq(preloaded_resident(&child), MIB + 48 * PAGE);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

START_TEST(test_threads) {
    struct child child = preloaded_start("threads");

    child_expect(&child, 't');
    ck_assert(status_becomes("regions", 1, 10000));
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

static size_t descriptors(pid_t pid) {
    char path[64];
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* 2,000 mappings of 64 KiB: what they cost, that they are dropped and seen, and that the next daemon has them too. */
START_TEST(test_many) {
    struct child child = preloaded_start("many");
    size_t before, ours, unused;

    child_expect(&child, 'l');                          /* connected, and one page mapped */
    service_at_rest(&service, 10000, &unused, &unused); /* what it opens to watch the program's cgroups is open */
    before = descriptors(service.pid);
    ours = descriptors(child.pid);
    preloaded_go_on(&child);
    child_expect(&child, 'm');
    printf("2000 mappings: %zu descriptors in the service, %zu in the client\n", descriptors(service.pid) - before,
           descriptors(child.pid) - ours);
    ck_assert_uint_le(descriptors(service.pid) - before, 16);
    ck_assert_uint_le(descriptors(child.pid) - ours, 16);
    ck_assert_uint_eq(preloaded_resident(&child), 2000 * 64 * KIB);
    preloaded_drop_all();
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_expect(&child, 'n'); /* filled again, a child had zeros */
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    ck_assert(status_becomes("regions", 2, 10000));
    preloaded_go_on(&child);
    child_expect(&child, 'o'); /* all of it is still there */
    preloaded_drop_all();
    preloaded_go_on(&child);
    child_expect(&child, 'p'); /* and was gone then; half of it is unmapped */
    ck_assert_uint_eq(preloaded_resident(&child), 1000 * 64 * KIB);
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    ck_assert(status_becomes("regions", 2, 10000));
    preloaded_go_on(&child);
    child_expect(&child, 'r');
    /* Nothing is there, and nothing the kernel's to fill unseen: all is armed. */
    for (uint64_t deadline = deadline_in(10000);
         service_status(&service, "resident_bytes") > 0 || service_status(&service, "commitment") > 0;
         preloaded_drop_all())
        ck_assert(now_ms() < deadline);
    ck_assert_uint_eq(service_status(&service, "intercepted_faults"), 0);
    preloaded_go_on(&child);
    child_expect(&child, 's');
    /* One for each of 63 spans: all pieces were told. */
    ck_assert(!may_intercept() || service_status(&service, "intercepted_faults") >= 60);
    preloaded_go_on(&child);
    child_expect(&child, 'q');
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    ck_assert_uint_eq(service_status(&service, "regions"), 1);
    preloaded_go_on(&child);
    child_end(&child);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
}
END_TEST

/* Threads map, touch, cut and unmap, while all of it is dropped time and again. */
START_TEST(test_storm) {
    struct child child = preloaded_start("storm");
    struct pollfd word = {.fd = child.socket, .events = POLLIN};
    uint64_t deadline = deadline_in(200000);

    child_expect(&child, 's');
    preloaded_go_on(&child);
    while (poll(&word, 1, 0) == 0) {
        preloaded_drop_all();
        ck_assert(now_ms() < deadline);
    }
    child_expect(&child, 't');
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

static void setup_limits(void) {
    fixture_start("[Limits]\nRegionBytes=4M\n");
}

START_TEST(test_limit) {
    struct child child = preloaded_start("limit");

    child_expect(&child, 'l');
    ck_assert_uint_eq(listing_count("regions"), 0);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

/* ---- against the kernel's own ---- */

static bool kernel_has_it(void) {
    void *p = mmap(NULL, PAGE, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return false;
    munmap(p, PAGE);
    return true;
}

/* Runs a program that ends by itself. Its exit status; what it wrote is in ret. */
static int output_of(const char *name, const char *backend, char *ret) {
    char path[128];
    struct preloaded program = {.name = name, .backend = backend, .output = path};
    struct child child;
    int fd, status;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/output", service.dir);
    child_start(&child, preloaded_run, &program);
    ck_assert_int_eq(waitpid(child.pid, &status, 0), child.pid);
    close(child.socket);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    n = read(fd, ret, TEXT_SIZE - 1);
    ck_assert_int_ge(n, 0);
    ret[n] = '\0';
    close(fd);
    unlink(path);
    ck_assert_msg(WIFEXITED(status), "%s ended with status %#x: %s", name, (unsigned)status, ret);
    return WEXITSTATUS(status);
}

/* Line by line, so that a difference is named. */
static void compare(char *ours, char *kernels) {
    char *save_ours, *save_kernels, *a = strtok_r(ours, "\n", &save_ours), *b = strtok_r(kernels, "\n", &save_kernels);
    char context[128] = "";

    while (a && b) {
        if (*a != ' ')
            snprintf(context, sizeof(context), "%s", a);
        ck_assert_msg(strcmp(a, b) == 0, "after '%s': here '%s', kernel '%s'", context, a, b);
        a = strtok_r(NULL, "\n", &save_ours);
        b = strtok_r(NULL, "\n", &save_kernels);
    }
    ck_assert_msg(!a && !b, "one says more than the other");
}

START_TEST(test_same_words) {
    static char ours[TEXT_SIZE], kernels[TEXT_SIZE];

    ck_assert_int_eq(output_of("say", "daemon", ours), 0);
    ck_assert(!may_intercept() || service_status(&service, "filled_bytes") > 0); /* it was the service */
    if (!kernel_has_it()) {
        printf("this kernel has no MAP_DROPPABLE to compare with\n");
        return;
    }
    ck_assert_int_eq(output_of("say", NULL, kernels), 0);
    compare(ours, kernels);
}
END_TEST

/* ---- under fire ---- */

#define DROPS 20

static void say_and_expect(const struct child *child, char word) {
    ck_assert(child_say(child->socket, word));
    child_expect(child, word);
}

/* Kills the service, and starts it again; what waits for it goes on meanwhile, and the next one can drop again. */
static void kill_and_restart(const struct child *child) {
    ck_assert(service_kill(&service, 10000));
    say_and_expect(child, 'p');
    service_restart(&service);
    for (uint64_t deadline = deadline_in(10000); service_status(&service, "dropped_bytes") == 0; preloaded_drop_all())
        ck_assert(now_ms() < deadline);
    preloaded_drop_all(); /* the one before may have come to some spans before the service knew of the mapping, and spared them */
    say_and_expect(child, 'l');
}

/* A program that checks all that it finds, while all is dropped 20 times, and the service is killed twice. */
static void fire_at(const struct preloaded *program) {
    struct child child;

    child_start(&child, preloaded_run, (void *)program);
    child_expect(&child, 'a');
    for (unsigned i = 0; i < DROPS; i++) {
        preloaded_drop_all();
        say_and_expect(&child, 'l');
        if (i % 7 == 6)
            kill_and_restart(&child);
    }
    preloaded_drop_all();
    say_and_expect(&child, 'l');
    ck_assert_uint_gt(service_status(&service, "dropped_bytes"), 64 * MIB);
    ck_assert(child_say(child.socket, '.'));
    child_end(&child);
    fixture_measure();
}

START_TEST(test_checked) {
    fire_at(&(struct preloaded){.name = "checked", .backend = "daemon"});
}
END_TEST

START_TEST(test_checked_pins) {
    fire_at(&(struct preloaded){.name = "checked-pins"});
}
END_TEST

/* ---- backends ---- */

static int try_backend(const char *backend, bool *ret_served) {
    struct preloaded program = {.name = "try", .backend = backend};
    struct child child;
    int status;
    char word;

    child_start(&child, preloaded_run, &program);
    if (child_hear(child.socket, &word)) {
        *ret_served = service_status(&service, "regions") > 0;
        preloaded_go_on(&child);
    }
    ck_assert_int_eq(waitpid(child.pid, &status, 0), child.pid);
    close(child.socket);
    ck_assert(WIFEXITED(status));
    ck_assert(status_becomes("regions", 0, 10000)); /* the next one's are counted */
    return WEXITSTATUS(status);
}

START_TEST(test_backends) {
    bool has = kernel_has_it(), served = false;

    ck_assert_int_eq(try_backend("daemon", &served), 0);
    ck_assert(served);
    ck_assert_int_eq(try_backend("", &served), 0);
    ck_assert(served == !has);
    served = false;
    ck_assert_int_eq(try_backend("native", &served) == 0, has);
    ck_assert(!served);
    ck_assert_int_eq(try_backend("auto", &served), 0);
    ck_assert(served == !has);
    served = false;
    ck_assert_int_eq(try_backend("none", &served), 0);
    ck_assert(!served);
    ck_assert_int_eq(try_backend("nonsense", &served), EOPNOTSUPP);

    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "/nowhere/socket", 1), 0);
    ck_assert_int_eq(try_backend("daemon", &served), EOPNOTSUPP);
    ck_assert_int_eq(try_backend("", &served), has ? 0 : EOPNOTSUPP);
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", service.socket, 1), 0);
}
END_TEST

/* Plain memory, without any service: children find zeros, core dumps nothing. */
START_TEST(test_plain) {
    static char text[TEXT_SIZE];

    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "/nowhere/socket", 1), 0);
    ck_assert_int_eq(output_of("plain", "none", text), 0);
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", service.socket, 1), 0);
    ck_assert_str_eq(text, "");
}
END_TEST

/* It says nothing by itself, and once why if asked to. */
START_TEST(test_debug) {
    static char text[TEXT_SIZE];

    ck_assert_int_eq(output_of("try", "nonsense", text), EOPNOTSUPP);
    ck_assert_str_eq(text, "");
    ck_assert_int_eq(setenv("DROPPABLE_DEBUG", "1", 1), 0);
    ck_assert_int_eq(output_of("try", "nonsense", text), EOPNOTSUPP);
    unsetenv("DROPPABLE_DEBUG");
    ck_assert_ptr_nonnull(strstr(text, "DROPPABLE_BACKEND=nonsense: not one of auto, daemon, native, none"));
    ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
}
END_TEST

static Suite *preload_suite(void) {
    Suite *suite = suite_create("preload");
    TCase *tcase = tcase_create("programs"), *limits = tcase_create("limits"), *fire = tcase_create("fire");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_memory);
    tcase_add_test(tcase, test_parts);
    tcase_add_test(tcase, test_remap);
    tcase_add_test(tcase, test_moving);
    tcase_add_test(tcase, test_first);
    tcase_add_test(tcase, test_cancelled);
    tcase_add_test(tcase, test_replaced);
    tcase_add_test(tcase, test_inherited);
    tcase_add_test(tcase, test_advice);
    tcase_add_test(tcase, test_nobody);
    tcase_add_test(tcase, test_fork);
    tcase_add_test(tcase, test_threads);
    tcase_add_test(tcase, test_many);
    tcase_add_test(tcase, test_same_words);
    tcase_add_test(tcase, test_backends);
    tcase_add_test(tcase, test_plain);
    tcase_add_test(tcase, test_debug);
    suite_add_tcase(suite, tcase);

    tcase_add_checked_fixture(limits, setup_limits, fixture_teardown);
    tcase_set_timeout(limits, 60);
    tcase_add_test(limits, test_limit);
    suite_add_tcase(suite, limits);

    tcase_add_checked_fixture(fire, fixture_setup, fixture_teardown);
    tcase_set_timeout(fire, 240);
    tcase_add_test(fire, test_storm);
    tcase_add_test(fire, test_checked);
    tcase_add_test(fire, test_checked_pins);
    suite_add_tcase(suite, fire);
    return suite;
}

int main(int argc, char **argv) {
    SRunner *runner;
    int failed;

    program_main(argc, argv);
    runner = srunner_create(preload_suite());
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
