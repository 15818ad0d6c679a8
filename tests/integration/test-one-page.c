/* SPDX-License-Identifier: MIT */
/*
 * Two processes touch the same page of a shared region at the same moment, the first time since it was dropped: both see the same zeros, and nothing that
 * either writes there is filled over. In a region that both have opened, where the kernel fills for both; and in one that a child has from its
 * parent (DRP_REGION_FORK_SHARED), where the service fills for the parent, and the kernel for the child.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define SIZE ((size_t)4 << 20)
#define PAGES (SIZE / PAGE)
#define ROUNDS 16
#define NAME "page"

/* Shared by both: how many have come to the page of that number, counted over all rounds. */
static _Atomic uint64_t *arrived;

static struct drp *connection;
static struct drp_region *region;

static void meet(uint64_t number) {
    atomic_fetch_add(arrived, 1);
    for (unsigned i = 1; atomic_load(arrived) < 2 * (number + 1); i++)
        if (i % 1024 == 0) /* the other one may have no CPU */
            sched_yield();
}

/* Each page has a counter, somewhere else in it each time. */
static _Atomic uint64_t *counter(char *memory, uint64_t round, size_t page) {
    return (_Atomic uint64_t *)(memory + page * PAGE + (round * 40 + page * 8) % PAGE);
}

static void touch_all(char *memory, uint64_t round) {
    for (size_t page = 0; page < PAGES; page++) {
        meet(round * PAGES + page);
        atomic_fetch_add(counter(memory, round, page), 1);
    }
}

static void touch_when_told(int socket, char *memory) {
    char word;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        child_check(child_hear(socket, &word));
        touch_all(memory, round);
        child_check(child_say(socket, 'd'));
    }
}

static void be_the_other(int socket, void *data) {
    struct drp_region *r;
    struct drp *d;

    (void)data;
    child_check(drp_new(&d, NULL) == 0 && drp_region_open(&r, d, NAME, geteuid()) == 0);
    touch_when_told(socket, drp_region_address(r));
}

static void be_the_child(int socket, void *data) {
    (void)data;
    touch_when_told(socket, drp_region_address(region));
}

static uint64_t drop_all(void) {
    uint64_t freed;

    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    return freed;
}

static void run_rounds(void (*other)(int socket, void *data)) {
    char *memory = drp_region_address(region);
    struct child child;

    child_start(&child, other, NULL);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        drop_all();
        ck_assert(child_say(child.socket, 'g'));
        touch_all(memory, round);
        child_expect(&child, 'd');
        for (size_t page = 0; page < PAGES; page++)
            ck_assert_uint_eq(atomic_load(counter(memory, round, page)), 2);
        ck_assert_uint_eq(drop_all(), SIZE);
    }
    child_end(&child);
}

static void make(uint64_t required, const char *name) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = required, .name = name};

    arrived = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(arrived, MAP_FAILED);
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), 0);
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    munmap(arrived, PAGE);
    fixture_teardown();
}

START_TEST(test_both_opened_it) {
    make(DRP_REGION_SHARED, NAME);
    run_rounds(be_the_other);
}
END_TEST

START_TEST(test_parent_and_child) {
    struct drp_region_info info;
    struct drp_stats stats;

    make(DRP_REGION_FORK_SHARED, NULL);
    drp_region_get_info(region, &info);
    run_rounds(be_the_child);
    ck_assert_int_eq(drp_get_stats(connection, &stats), 0);
    if (info.interception == DRP_INTERCEPTION_FULL) /* else the kernel fills for both here, too */
        ck_assert_uint_gt(stats.intercepted_faults, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("one-page");
    TCase *tcase = tcase_create("one-page");

    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, fixture_setup, teardown);
    tcase_add_test(tcase, test_both_opened_it);
    tcase_add_test(tcase, test_parent_and_child);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
