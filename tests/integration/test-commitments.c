/* SPDX-License-Identifier: MIT */
/*
 * What the service reckons with and what is there: each page that the kernel may fill unseen is promised, and nothing is promised once
 * all of it is dropped or given back; and whatever came back, in whichever way, can be dropped again.
 */

#include "again.h"
#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define PAGE (4 * KIB)
#define SPAN (2 * MIB)
#define SIZE (16 * SPAN)
#define WAIT_MS 5000
#define RACE_MS 1000
#define DROPS_AT_MOST 3

static struct drp *connection;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void teardown(void) {
    connection = drp_free(connection);
    fixture_teardown();
}

static struct drp_region *make(struct drp *d) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = 64 * KIB};
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, d, SIZE, &options);

    ck_assert_msg(r == 0, "%s", drp_detail());
    return region;
}

static uint64_t resident(struct drp *d) {
    struct drp_stats stats;

    ck_assert_int_eq(drp_get_stats(d, &stats), 0);
    return stats.resident_bytes;
}

/* `drop --all` again and again, as somebody does who wants the memory: few times are enough. Returns what it left. */
static uint64_t drop_everything(void) {
    char out[4096];

    for (unsigned i = 0; i < DROPS_AT_MOST && (i == 0 || resident(connection) > 0); i++)
        ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--all", NULL}), 0);
    return resident(connection);
}

/* What the kernel may still fill, machine-wide; settles where a fill or an event is under way. */
static void expect_commitment(uint64_t expected) {
    ck_assert_msg(status_becomes("commitment", expected, WAIT_MS), "commitment %llu, expected %llu",
                  (unsigned long long)service_status(&service, "commitment"), (unsigned long long)expected);
}

static void write_all(struct drp_region *region) {
    volatile unsigned char *p = drp_region_address(region);

    for (uint64_t i = 0; i < SIZE; i += PAGE)
        p[i] = 0xa5;
}

/* Full, disarmed, and nothing promised: what was dropped whole comes back whole, by the service's own fills. */
static void make_full(struct drp_region *region) {
    uint64_t freed = 0;

    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        write_all(region);
        ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
        ck_assert_uint_eq(freed, SIZE);
    }
    write_all(region);
}

/* The client gives memory up by itself: what the kernel fills unseen is promised from then on, until it is dropped. */
START_TEST(test_removed) {
    struct drp_region *region = make(connection);
    uint64_t freed = 0;

    make_full(region);
    expect_commitment(0);
    ck_assert_int_eq(madvise(drp_region_address(region), SIZE / 2, MADV_REMOVE), 0);
    ck_assert_uint_eq(resident(connection), SIZE / 2);
    expect_commitment(SIZE / 2);
    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        write_all(region);
        ck_assert_uint_eq(resident(connection), SIZE);
        ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
        ck_assert_uint_eq(freed, SIZE);
    }
    expect_commitment(0);
    drp_region_free(region);
    expect_commitment(0);
}
END_TEST

/* A region that ends with promises takes them along; so does one that a drop and touches were at. */
START_TEST(test_freed) {
    struct drp_region *region = make(connection), *other = make(connection);

    make_full(region);
    make_full(other);
    ck_assert_int_eq(madvise(drp_region_address(region), SIZE, MADV_REMOVE), 0);
    expect_commitment(SIZE);
    ck_assert_int_eq(drp_drop(other, 0, SIZE, NULL, NULL), 0);
    write_all(other);
    drp_region_free(region);
    drp_region_free(other);
    expect_commitment(0);
}
END_TEST

static _Atomic bool stop;

/* Somebody else, by hand: without a fork for each drop there are some ten thousand. */
static void *drop_in_a_loop(void *data) {
    int socket = *(int *)data;
    uint64_t n = 0;

    for (; !atomic_load(&stop); n++) {
        struct drp_wire_control_drop request = {.header.type = DRP_WIRE_CONTROL_DROP, .scope = DRP_SCOPE_ALL};

        ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), 0);
    }
    printf("%llu drops beside populating\n", (unsigned long long)n);
    return NULL;
}

/* Fills and drops of the same memory at once: what is there at the end is known to be there. */
START_TEST(test_populate_race) {
    struct drp_region *region = make(connection);
    uint64_t deadline = now_ms() + RACE_MS;
    int socket = raw_hello("dropper");
    pthread_t thread;

    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, drop_in_a_loop, &socket), 0);
    while (now_ms() < deadline)
        ck_assert_int_eq(drp_populate(region, 0, SIZE), 0);
    atomic_store(&stop, true);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    close(socket);
    ck_assert_uint_eq(drop_everything(), 0);
    expect_commitment(0);
    drp_region_free(region);
}
END_TEST

/* mremap(2) of a piece of a dropped region, away and back: empty, and what is then written there is dropped like the rest. */
START_TEST(test_moved) {
    struct drp_region *region = make(connection);
    char *p = drp_region_address(region), *piece = p + 5 * SPAN + 100 * PAGE;
    size_t length = 3 * SPAN / 2;
    char *area = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t freed = 0;

    ck_assert_ptr_ne(area, MAP_FAILED);
    write_all(region);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    ck_assert_uint_eq(freed, SIZE);
    ck_assert_ptr_eq(mremap(piece, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, area), area);
    ck_assert(is_zero(area, length / 2));
    memset(area, 0x33, length / 2);
    /* Armed and disarmed spans are VMAs of their own, and mremap(2) takes one: armed again they are one. */
    ck_assert_uint_eq(drop_everything(), 0);
    ck_assert(area[0] == 0);
    ck_assert_uint_eq(drop_everything(), 0);
    ck_assert_ptr_eq(mremap(area, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, piece), piece);
    ck_assert(is_zero(piece, length));
    memset(piece, 0x5a, length);
    ck_assert(is_filled(piece, 0x5a, length));
    ck_assert_uint_eq(drop_everything(), 0);
    ck_assert(is_zero(piece, length));
    ck_assert_uint_eq(drop_everything(), 0);
    expect_commitment(0);
    drp_region_free(region);
    expect_commitment(0);
}
END_TEST

/* ---- without interception ---- */

static void populate_unseen(int socket, void *data) {
    struct drp_region_info info = {0};
    struct drp_stats stats;
    struct drp_region *region;
    uint64_t freed = 0;
    struct drp *d;

    (void)data;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    drp_region_get_info(region, &info);
    if (info.interception != DRP_INTERCEPTION_NONE) {
        child_say(socket, 's');
        return;
    }
    child_check(drp_populate(region, 0, SIZE) == 0);
    child_check(drp_get_stats(d, &stats) == 0);
    child_check(stats.resident_bytes == SIZE);
    child_check(drp_drop(region, 0, SIZE, &freed, NULL) == 0);
    child_check(freed == SIZE);
    child_check(drp_get_stats(d, &stats) == 0);
    child_check(stats.resident_bytes == 0);
    region = drp_region_free(region);
    d = drp_free(d);
    child_say(socket, 'd');
}

/* What the kernel made resident without anybody's touching it is dropped all the same. */
START_TEST(test_populate_unseen) {
    struct child child;
    char word = 0;

    child_start(&child, populate_unseen, NULL);
    ck_assert(child_hear(child.socket, &word));
    child_end(&child);
    if (word == 's')
        printf("populate without interception: skipped: every user has a full userfaultfd here\n");
    else
        ck_assert_int_eq(word, 'd');
}
END_TEST

int main(void) {
    Suite *suite = suite_create("commitments");
    TCase *tcase = tcase_create("commitments");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    if (may_intercept()) {
        tcase_add_test(tcase, test_removed);
        tcase_add_test(tcase, test_freed);
        tcase_add_test(tcase, test_populate_race);
        tcase_add_test(tcase, test_moved);
    } else
        printf("commitments: left out: no full userfaultfd for this user\n");
    tcase_add_test(tcase, test_populate_unseen);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
