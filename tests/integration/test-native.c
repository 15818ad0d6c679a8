/* SPDX-License-Identifier: MIT */
/*
 * The kernel's own droppable memory, of which the service is told: it counts it, and drops from it in the policy's order and down to budgets.
 */

#include "child.h"
#include "connected.h"
#include "fixture.h"
#include "local.h"
#include "memcg.h"
#include "native-memory.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(test_counted) {
    struct drp_region *region = native_make(SIZE, 0, 0);
    uint64_t id = native_id_of(region);
    char backend[16];

    ck_assert_uint_eq(listing_number("regions", "id", id, "size"), SIZE);
    listing_text("regions", "id", id, "backend", backend, sizeof(backend));
    ck_assert_str_eq(backend, "native");
    memset(drp_region_address(region), 1, 8 * MIB);
    native_expect_counted(id, 8 * MIB);
    memset((char *)drp_region_address(region) + 16 * MIB, 1, 3 * PAGE);
    native_expect_counted(id, 8 * MIB + 3 * PAGE);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    native_expect_counted(id, 0);
    drp_region_free(region);
    ck_assert_uint_eq(listing_count("regions"), 0);
}
END_TEST

START_TEST(test_dropped_by_hand) {
    struct drp_region *region = native_make(SIZE, 0, 0);
    char *p = drp_region_address(region), pid[16];
    uint64_t left;

    memset(p, 1, SIZE);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--pid", pid, NULL}), 0);
    left = native_region_resident(region);
    ck_assert_uint_le(left, BATCHES);
    ck_assert_uint_eq(service_status(&service, "dropped_bytes"), SIZE - left);
    for (uint64_t at = 0; at < SIZE; at += PAGE)
        if (p[at])
            left -= PAGE;
        else
            ck_assert(is_zero(p + at, PAGE));
    ck_assert_uint_eq(left, 0);
    drp_region_free(region);
}
END_TEST

START_TEST(test_budget) {
    struct drp_region *region = native_make(SIZE, 0, 8 * MIB);
    uint64_t deadline = now_ms() + WAIT_MS;

    memset(drp_region_address(region), 1, SIZE);
    while (native_region_resident(region) > 8 * MIB)
        ck_assert(now_ms() < deadline);
    ck_assert_int_eq(drp_region_set_budget(region, 2 * MIB), 0);
    while (native_region_resident(region) > 2 * MIB)
        ck_assert(now_ms() < deadline);
    ck_assert_uint_ge(native_region_resident(region), MIB); /* no more than needed */
    drp_region_free(region);
}
END_TEST

START_TEST(test_priority) {
    struct drp_region *low = native_make(SIZE, DRP_PRIORITY_LOW, 0), *high = native_make(SIZE, DRP_PRIORITY_HIGH, 0);

    memset(drp_region_address(low), 1, SIZE);
    memset(drp_region_address(high), 1, SIZE);
    native_expect_counted(native_id_of(low), SIZE);
    native_expect_counted(native_id_of(high), SIZE);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"free", "24M", NULL}), 0);
    ck_assert_uint_eq(native_region_resident(high), SIZE);
    ck_assert_uint_le(native_region_resident(low), 8 * MIB);
    ck_assert_uint_ge(native_region_resident(low), 7 * MIB);
    ck_assert_int_eq(drp_region_set_priority(high, DRP_PRIORITY_NORMAL), 0);
    drp_region_free(low);
    drp_region_free(high);
}
END_TEST

/* A new service is told. */
START_TEST(test_restart) {
    struct drp_region *region = native_make(SIZE, 0, 8 * MIB);
    uint64_t deadline = now_ms() + WAIT_MS;

    memset(drp_region_address(region), 1, 4 * MIB);
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    while (drp_region_set_share(region, 50) < 0)
        ck_assert(now_ms() < deadline);
    native_expect_counted(native_id_of(region), 4 * MIB);
    memset(drp_region_address(region), 1, SIZE);
    while (native_region_resident(region) > 8 * MIB)
        ck_assert(now_ms() < deadline);
    drp_region_free(region);
    native_context = drp_free(native_context);
    fixture_measure();
}
END_TEST

/* So often the pagemap cannot be opened. */
static _Atomic int shortages;

int open(const char *path, int flags, ...) {
    va_list arguments;
    mode_t mode = 0;

    if (strcmp(path, "/proc/self/pagemap") == 0 && atomic_load(&shortages) > 0) {
        atomic_fetch_sub(&shortages, 1);
        errno = EMFILE;
        return -1;
    }
    if (flags & O_CREAT) {
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* When the service is back it is short of descriptors for a while. */
START_TEST(test_shortage) {
    struct drp_region *region = native_make(SIZE, 0, 0);

    ck_assert(service_kill(&service, 10000));
    atomic_store(&shortages, 2);
    service_restart(&service);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    ck_assert_int_eq(atomic_load(&shortages), 0);
    memset(drp_region_address(region), 1, SIZE);
    native_expect_counted(native_id_of(region), SIZE);
    drp_region_free(region);
    native_context = drp_free(native_context);
    fixture_measure();
}
END_TEST

/* One is made while there are no descriptors; so are those that a service is told of which comes late. */
START_TEST(test_made_in_shortage) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = DRP_BACKEND_NATIVE};
    struct drp_region *early, *late;

    atomic_store(&shortages, 2);
    ck_assert_int_eq(drp_region_new(&early, native_context, SIZE, NULL), 0);
    ck_assert_int_lt(atomic_load(&shortages), 2);
    ck_assert(connected_becomes(early, true, WAIT_MS));
    drp_region_free(early);
    native_context = drp_free(native_context);

    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert_int_eq(drp_new(&native_context, &config), 0);
    ck_assert_int_eq(drp_region_new(&early, native_context, SIZE, NULL), 0);
    service_restart(&service);
    fixture_measure();
    atomic_store(&shortages, 1);
    ck_assert_int_eq(drp_region_new(&late, native_context, SIZE, NULL), 0);
    ck_assert(is_connected(late) || is_connected(early));
    ck_assert(connected_becomes(early, true, WAIT_MS) && connected_becomes(late, true, WAIT_MS));
    drp_region_free(early);
    drp_region_free(late);
}
END_TEST

/* Whoever was first, the watcher or who makes the region: the service has it, with its budget. */
START_TEST(test_told_twice) {
    struct drp_region *region = native_make(SIZE, 0, 8 * MIB);
    uint64_t id = native_id_of(region);

    ck_assert_int_eq(native_tell(region), 0);
    ck_assert(is_connected(region) && native_id_of(region) == id);
    drp_region_free(region);
}
END_TEST

/* A child has the memory, empty, and is not the one that the service knows. */
START_TEST(test_fork) {
    struct drp_region *region = native_make(SIZE, 0, 0);
    int status;
    pid_t pid;

    memset(drp_region_address(region), 1, SIZE);
    pid = fork();
    if (pid == 0) {
        child_check(is_zero(drp_region_address(region), SIZE));
        memset(drp_region_address(region), 2, SIZE);
        child_check(drp_region_set_budget(region, MIB) == -EOPNOTSUPP);
        child_check(drp_drop(region, 0, SIZE, NULL, NULL) == 0 && is_zero(drp_region_address(region), SIZE));
        drp_region_free(region);
        drp_free(native_context);
        _exit(0);
    }
    ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
    ck_assert(is_filled(drp_region_address(region), 1, SIZE));
    native_expect_counted(native_id_of(region), SIZE);
    drp_region_free(region);
}
END_TEST

/* A child's own. */
static struct drp_region *fill(void) {
    struct drp_region *region;

    child_check(native_connect() == 0);
    child_check(drp_region_new(&region, native_context, SIZE, NULL) == 0);
    memset(drp_region_address(region), 1, SIZE);
    return region;
}

static struct drp_region *fill_as_nobody(void) {
    child_become_nobody();
    return fill();
}

/* Of the only region of a child's. */
static uint64_t id_of_childs(const struct child *child) {
    uint64_t session = listing_number("sessions", "pid", (uint64_t)child->pid, "id");

    return listing_number("regions", "session", session, "id");
}

/* Another user's process: the service may open none of what is his alone. */
static void be_nobody(int socket, void *data) {
    struct drp_region *region = fill_as_nobody();
    char word;

    (void)data;
    child_check(drp_region_set_budget(region, SIZE) == 0);
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
    child_check(native_region_resident(region) <= BATCHES);
    drp_region_free(region);
    drp_free(native_context);
}

START_TEST(test_nobody) {
    struct child child;
    char pid[16];

    child_start(&child, be_nobody, NULL);
    child_expect(&child, 'f');
    native_expect_counted(id_of_childs(&child), SIZE);
    snprintf(pid, sizeof(pid), "--pid=%d", (int)child.pid);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"drop", pid, NULL}), 0);
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
}
END_TEST

/* Somebody who may not be looked at for a while. */
static void hide(int socket, void *data) {
    struct drp_region *region = fill_as_nobody();
    char word;

    (void)data;
    child_check(prctl(PR_SET_DUMPABLE, 0) == 0 && child_say(socket, 'h') && child_hear(socket, &word));
    child_check(native_region_resident(region) == SIZE);
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0 && child_say(socket, 's') && child_hear(socket, &word));
    child_check(native_region_resident(region) <= BATCHES);
    drp_region_free(region);
    drp_free(native_context);
}

START_TEST(test_hidden) {
    struct child child;
    uint64_t id;
    char text[24];

    child_start(&child, hide, NULL);
    child_expect(&child, 'h');
    id = id_of_childs(&child);
    snprintf(text, sizeof(text), "%llu", (unsigned long long)id);
    native_expect_counted(id, SIZE);
    service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--region", text, NULL});
    native_expect_counted(id, 0);
    ck_assert(child_say(child.socket, 'g'));
    child_expect(&child, 's');
    native_expect_counted(id, SIZE);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--region", text, NULL}), 0);
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
}
END_TEST

/* ---- budgets of more than a region ---- */

#define BUDGET (8 * MIB)

/* Says when it is full, and at each question whether it has all (a), some within the budget (u), or more (o). */
static void answer(int socket, void *data) {
    const struct memcg *memcg = data;
    struct drp_region *region;
    char word;

    if (memcg)
        memcg_enter(memcg);
    region = memcg ? fill() : fill_as_nobody();
    child_check(child_say(socket, 'f'));
    while (child_hear(socket, &word) && word == '?') {
        size_t n = native_region_resident(region);

        child_check(child_say(socket, n == SIZE ? 'a' : n <= BUDGET ? 'u' : 'o'));
    }
    drp_region_free(region);
    drp_free(native_context);
}

/* A child comes under the budget, and ours, which are none of its, keep all. */
static void expect_child_under(struct child *child, struct drp_region *ours) {
    uint64_t deadline = deadline_in(WAIT_MS);
    char word = '\0';

    while (word != 'u') {
        ck_assert_uint_lt(now_ms(), deadline);
        ck_assert(child_say(child->socket, '?') && child_hear(child->socket, &word));
        nap_ms(5);
    }
    ck_assert_uint_eq(native_region_resident(ours), SIZE);
    ck_assert(child_say(child->socket, 'e'));
    child_end(child);
    drp_region_free(ours);
}

static struct drp_region *make_full(void) {
    struct drp_region *region = native_make(SIZE, 0, 0);

    memset(drp_region_address(region), 1, SIZE);
    return region;
}

/* Of the context, and of any client by the service's settings: both regions together, and no more goes than has to. */
START_TEST(test_budget_of_client) {
    struct drp_region *regions[] = {make_full(), make_full()};
    uint64_t deadline = deadline_in(WAIT_MS);
    size_t left;

    if (_i)
        service_reload(&service, "[Budgets]\nClient=8M\n", "settings read again, 1 changed");
    else
        ck_assert_int_eq(drp_set_budget(native_context, BUDGET), 0);
    do {
        ck_assert_uint_lt(now_ms(), deadline);
        left = native_region_resident(regions[0]) + native_region_resident(regions[1]);
    } while (left > BUDGET);
    ck_assert_uint_ge(left, BUDGET / 2);
    drp_region_free(regions[0]);
    drp_region_free(regions[1]);
}
END_TEST

START_TEST(test_budget_of_user) {
    struct drp_region *ours = make_full();
    struct child child;

    child_start(&child, answer, NULL);
    child_expect(&child, 'f');
    ck_assert_int_eq(
        service_ctl(&service, NULL, 0, (const char *const[]){"limit", "--user", "65534", "--budget", "8M", NULL}), 0);
    expect_child_under(&child, ours);
}
END_TEST

START_TEST(test_budget_of_cgroup) {
    struct drp_region *ours;
    const char *reason = "";
    struct memcg memcg;
    struct child child;

    if (!memcg_make(&memcg, 256 * MIB, &reason)) {
        suite_skip_part("budget of a cgroup's native memory", reason);
        return;
    }
    ours = make_full();
    child_start(&child, answer, &memcg);
    child_expect(&child, 'f');
    ck_assert_int_eq(service_ctl(&service, NULL, 0,
                                 (const char *const[]){"limit", "--cgroup", memcg_name(&memcg), "--budget", "8M", NULL}),
                     0);
    expect_child_under(&child, ours);
    memcg_remove(&memcg);
}
END_TEST

/* ---- in need ---- */

#define LIMIT (96 * MIB)

static void fill_much(int socket, void *data) {
    char *more, word;

    memcg_enter(data);
    fill();
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
    more = mmap(NULL, LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(more != MAP_FAILED);
    for (size_t at = 0; at < LIMIT - 24 * MIB; at += PAGE)
        more[at] = 1;
    child_check(child_say(socket, 'm'));
}

/* A cgroup runs short: its native memory goes, and nobody is killed. */
START_TEST(test_pressure) {
    struct child child;
    struct memcg memcg;
    const char *reason;

    if (!memcg_make(&memcg, LIMIT, &reason))
        return;
    child_start(&child, fill_much, &memcg);
    child_expect(&child, 'f');
    native_expect_counted(id_of_childs(&child), SIZE); /* or the kernel may be first */
    ck_assert(child_say(child.socket, 'g'));
    child_expect(&child, 'm');
    child_end(&child);
    ck_assert_uint_eq(memcg_oom_kills(&memcg), 0);
    ck_assert_uint_ge(service_status(&service, "dropped_bytes"), 4 * MIB); /* before the kernel had to */
    memcg_remove(&memcg);
}
END_TEST

/* ---- what a context finds ---- */

/* Who does not pin gets the kernel's memory, with a budget as well: the service enforces it. */
START_TEST(test_auto_budget) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .preferred = DRP_REGION_NO_PINS, .budget = SIZE / 2};
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    ck_assert_int_eq(drp_region_get_backend(region), DRP_BACKEND_NATIVE);
    ck_assert(is_connected(region));
    memset(drp_region_address(region), 1, SIZE);
    for (uint64_t deadline = now_ms() + WAIT_MS; native_region_resident(region) > SIZE / 2; nap_ms(10))
        ck_assert_uint_lt(now_ms(), deadline);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

/* It has no service at first, and finds the one that comes; what was made before is told then. */
START_TEST(test_late_service) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = DRP_BACKEND_NATIVE};
    struct drp_region *early, *late;
    struct drp *d;

    native_context = drp_free(native_context);
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert_int_eq(drp_new(&d, &config), 0);
    ck_assert_int_eq(drp_region_new(&early, d, SIZE, NULL), 0);
    ck_assert(!is_connected(early));
    service_restart(&service);
    fixture_measure();
    ck_assert_int_eq(drp_region_new(&late, d, SIZE, NULL), 0);
    ck_assert(is_connected(late));
    ck_assert(is_connected(early));
    memset(drp_region_address(early), 1, SIZE);
    native_expect_counted(native_id_of(early), SIZE);
    ck_assert_int_eq(drp_region_set_budget(early, SIZE / 2), 0);
    for (uint64_t deadline = now_ms() + WAIT_MS; native_region_resident(early) > SIZE / 2; nap_ms(10))
        ck_assert_uint_lt(now_ms(), deadline);
    drp_region_free(early);
    drp_region_free(late);
    drp_free(d);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("native");
    TCase *tcase = tcase_create("native");

    native_need();
    tcase_add_checked_fixture(tcase, native_setup, native_teardown);
    tcase_set_timeout(tcase, 180);
    tcase_add_test(tcase, test_counted);
    tcase_add_test(tcase, test_dropped_by_hand);
    tcase_add_test(tcase, test_budget);
    tcase_add_test(tcase, test_priority);
    tcase_add_test(tcase, test_restart);
    tcase_add_test(tcase, test_shortage);
    tcase_add_test(tcase, test_made_in_shortage);
    tcase_add_test(tcase, test_told_twice);
    tcase_add_test(tcase, test_fork);
    tcase_add_test(tcase, test_nobody);
    tcase_add_test(tcase, test_hidden);
    tcase_add_loop_test(tcase, test_budget_of_client, 0, 2);
    tcase_add_test(tcase, test_budget_of_user);
    tcase_add_test(tcase, test_budget_of_cgroup);
    tcase_add_test(tcase, test_pressure);
    tcase_add_test(tcase, test_auto_budget);
    tcase_add_test(tcase, test_late_service);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
