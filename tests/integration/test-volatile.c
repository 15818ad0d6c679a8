/* SPDX-License-Identifier: MIT */
/*
 * Ranges that are made volatile and non-volatile: non-volatile ones stay, volatile ones may go, and whether something went is told once,
 * to whoever asks next.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)64)
#define SIZE (CHUNKS * CHUNK)
#define THREADS 4
#define ROUNDS 2000

static struct drp *connection;
static struct drp_region *region;

static void connect_service(void) {
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, NULL), 0);
}

static void setup(void) {
    fixture_setup();
    connect_service();
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static unsigned char *at(size_t chunk) {
    return (unsigned char *)drp_region_address(region) + chunk * CHUNK;
}

static bool keep(size_t chunk, size_t n) {
    bool lost = false;

    ck_assert_int_eq(drp_set_nonvolatile(region, chunk * CHUNK, n * CHUNK, &lost), 0);
    return lost;
}

static void let_go(size_t chunk, size_t n) {
    ck_assert_int_eq(drp_set_volatile(region, chunk * CHUNK, n * CHUNK), 0);
}

/* Everything that can be; the chunks that could not. */
static size_t drop(void) {
    uint64_t pinned = 0;

    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, &pinned), 0);
    return pinned / CHUNK;
}

START_TEST(test_kept_and_lost) {
    ck_assert(!keep(0, CHUNKS));
    memset(at(0), 7, SIZE);
    ck_assert_uint_eq(drop(), CHUNKS);
    let_go(8, 16);
    ck_assert(!keep(8, 8)); /* nothing was dropped in between */
    ck_assert_uint_eq(drop(), CHUNKS - 8);
    ck_assert(is_filled((char *)at(0), 7, 16 * CHUNK));
    ck_assert(is_zero((char *)at(16), 8 * CHUNK));
    ck_assert(!keep(0, 16));
    ck_assert(keep(15, 2));  /* one of them was */
    ck_assert(!keep(15, 2)); /* and was told */
    ck_assert(keep(0, CHUNKS));
    ck_assert_uint_eq(drop(), CHUNKS);
}
END_TEST

START_TEST(test_once_and_whole_chunks) {
    memset(at(0), 7, SIZE);
    ck_assert(!keep(0, 4));
    ck_assert(!keep(0, 4));
    let_go(0, 4); /* once is enough */
    ck_assert_uint_eq(drop(), 0);
    memset(at(0), 7, SIZE);

    /* Kept: every chunk that the range touches. Let go: those inside. */
    ck_assert_int_eq(drp_set_nonvolatile(region, CHUNK - 1, 2, NULL), 0);
    ck_assert_uint_eq(drop(), 2);
    ck_assert_int_eq(drp_set_volatile(region, 1, 2 * CHUNK - 1), 0);
    ck_assert_uint_eq(drop(), 1);
    ck_assert_int_eq(drp_set_volatile(region, 1, CHUNK - 1), 0);
    ck_assert_uint_eq(drop(), 1);

    /* A pin besides is one. */
    ck_assert_int_eq(drp_pin(region, 0, CHUNK, NULL), 0);
    let_go(0, CHUNKS);
    ck_assert_uint_eq(drop(), 1);
    ck_assert_int_eq(drp_unpin(region, 0, CHUNK), 0);
    ck_assert_uint_eq(drop(), 0);

    ck_assert_int_eq(drp_set_nonvolatile(region, SIZE - 1, 2, NULL), -ERANGE);
    ck_assert_int_eq(drp_set_nonvolatile(region, 0, 0, NULL), -ERANGE);
    ck_assert_int_eq(drp_set_volatile(region, SIZE, 1), -ERANGE);
}
END_TEST

static _Atomic size_t losses;

/* Each round: mine is what I left there, or I am told that it was lost. */
static void *work(void *data) {
    size_t chunk = (size_t)data;
    uint64_t generation;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (i % 16 == 0) /* of a chunk that all work on */
            keep(THREADS, 1);
        if (keep(chunk, 1)) {
            atomic_fetch_add(&losses, 1);
            memset(at(chunk), (int)chunk + 1, CHUNK);
        }
        ck_assert_uint_eq(at(chunk)[i * 31 % CHUNK], chunk + 1);
        generation = drp_generation(region, chunk * CHUNK, CHUNK);
        let_go(chunk, 1);
        if (i % 64 == 0) { /* until it is gone, which it may be at once */
            while (drp_generation(region, chunk * CHUNK, CHUNK) == generation)
                sched_yield();
        }
        if (i % 16 == 15)
            let_go(THREADS, 1);
    }
    return NULL;
}

static void *drop_all_the_time(void *data) {
    _Atomic bool *stop = data;

    while (!atomic_load(stop))
        drop();
    return NULL;
}

START_TEST(test_threads) {
    pthread_t threads[THREADS], dropper;
    _Atomic bool stop = false;

    for (size_t i = 0; i < THREADS; i++)
        memset(at(i), (int)i + 1, CHUNK);
    ck_assert_int_eq(pthread_create(&dropper, NULL, drop_all_the_time, &stop), 0);
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    atomic_store(&stop, true);
    ck_assert_int_eq(pthread_join(dropper, NULL), 0);
    printf("%zu of %d rounds had lost something\n", atomic_load(&losses), THREADS * ROUNDS);
    ck_assert_uint_ge(atomic_load(&losses),
                      THREADS * (ROUNDS / 64) / 2); /* some were seen being dropped, and saved by the pin */
    let_go(0, CHUNKS);
    memset(at(0), 7, SIZE);
    ck_assert_uint_eq(drop(), 0); /* as many unpins as pins */
}
END_TEST

static void be_child(int socket, void *data) {
    bool lost = false;

    (void)data;
    child_check(drp_set_nonvolatile(region, 0, CHUNK, &lost) == 0 && lost);
    child_check(*at(0) == 0);
    memset(at(0), 9, CHUNK);
    child_check(drp_set_volatile(region, 0, CHUNK) == 0);
    child_check(drp_set_nonvolatile(region, 0, CHUNK, &lost) == 0 && !lost);
    child_check(*at(0) == 9);
    child_say(socket, 'c');
}

START_TEST(test_fork) {
    struct child child;

    ck_assert(!keep(0, CHUNKS));
    memset(at(0), 7, SIZE);
    child_start(&child, be_child, NULL);
    child_expect(&child, 'c');
    child_end(&child);
    ck_assert_uint_eq(drop(), CHUNKS);
    ck_assert(!keep(0, CHUNKS));
    ck_assert(is_filled((char *)at(0), 7, SIZE));
}
END_TEST

/* At the quota nothing more is kept, and what is kept stays. */
START_TEST(test_quota) {
    int r = -EDQUOT;

    fixture_start("[Limits]\nPinnedPerClient=1M\n");
    connect_service();
    ck_assert(!keep(0, CHUNKS));
    memset(at(0), 7, SIZE);
    ck_assert(service_log_has(&service, "the quota of pinned memory is used up: PinnedPerClient", 5000));
    let_go(0, 1);
    ck_assert_int_eq(drp_set_nonvolatile(region, 0, SIZE, NULL), -EDQUOT);
    ck_assert_uint_eq(drop(), CHUNKS - 1);
    let_go(0, CHUNKS - 1);
    for (uint64_t deadline = now_ms() + 5000; r == -EDQUOT; r = drp_set_nonvolatile(region, CHUNK, CHUNK, NULL))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_int_eq(r, 0);
    ck_assert_uint_eq(drop(), 2);
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("volatile");
    TCase *tcase = tcase_create("volatile");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_kept_and_lost);
    tcase_add_test(tcase, test_once_and_whole_chunks);
    tcase_add_test(tcase, test_threads);
    tcase_add_test(tcase, test_fork);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("quota");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_quota);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
