/* SPDX-License-Identifier: MIT */
/*
 * The crash contract: a client that dies leaves nothing; a client that is stopped is dropped from all the same; a service that dies, however
 * it dies, makes nobody wait, changes no byte that is pinned, and its successor goes on where it ended.
 *
 * Time is measured around every access batch of every thread while the service is killed: the longest one is the longest hang.
 */

#include "again.h"
#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define CHUNK (64 * KIB)
#define PAGE (4 * KIB)
#define SECOND_NS (UINT64_C(1000000000) * (under_sanitizer() || patience() > 1 ? 5 : 1))
#define RESTARTS 5

/* ---- the client dies ---- */

static void fill_and_wait(int socket, void *data) {
    uint64_t size = *(uint64_t *)data;
    struct drp_region *region = NULL;
    struct drp *d;
    char word;

    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, size, NULL) == 0);
    memset(drp_region_address(region), 0x3c, size);
    child_check(drp_pin(region, 0, CHUNK, NULL) == 0);
    child_say(socket, 'f');
    while (child_hear(socket, &word) && word == 'c') { /* check: is everything but the pinned chunk gone? */
        child_check(is_filled(drp_region_address(region), 0x3c, CHUNK));
        child_check(is_zero((char *)drp_region_address(region) + CHUNK, size - CHUNK));
        child_say(socket, 'g');
    }
    _exit(0);
}

START_TEST(test_client_killed) {
    uint64_t size = 128 * MIB, full, killed;
    struct child child;

    for (int round = 0; round < 3; round++)
        for (struct bar bar = {.what = "memory of the dead", .ns = SECOND_NS}; bar_again(&bar);) {
            child_start(&child, fill_and_wait, &size);
            child_expect(&child, 'f');
            ck_assert_uint_eq(service_status(&service, "resident_bytes"), size);
            full = shmem_bytes();
            killed = now_ns();
            child_kill(&child);
            /* Other processes of this machine use shared memory as well: most of it is what can be said. */
            while (shmem_bytes() > full - size * 3 / 4)
                ck_assert_msg(now_ns() < killed + 20 * SECOND_NS, "Shmem was %llu MiB and is %llu MiB",
                              (unsigned long long)(full / MIB), (unsigned long long)(shmem_bytes() / MIB));
            ck_assert(status_becomes("resident_bytes", 0, 20000));
            bar.longest_ns = now_ns() - killed;
            ck_assert(status_becomes("regions", 0, 0));
            fixture_expect_idle();
        }
}
END_TEST

START_TEST(test_client_stopped) {
    char pid[16], out[4096];
    uint64_t size = 32 * MIB;
    struct child child;
    int status;

    child_start(&child, fill_and_wait, &size);
    child_expect(&child, 'f');
    ck_assert_int_eq(kill(child.pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(child.pid, &status, WUNTRACED), child.pid);
    snprintf(pid, sizeof(pid), "%d", (int)child.pid);
    ck_assert_int_eq(
        service_ctl(&service, out, sizeof(out), (const char *const[]){"--json", "drop", "--pid", pid, NULL}), 0);
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)child.pid, "resident_bytes"), CHUNK);
    ck_assert_uint_eq(service_status(&service, "dropped_bytes"), size - CHUNK);
    ck_assert_uint_eq(service_status(&service, "quarantined_sessions"), 0);
    ck_assert_int_eq(kill(child.pid, SIGCONT), 0);
    ck_assert(child_say(child.socket, 'c'));
    child_expect(&child, 'g');
    ck_assert(child_say(child.socket, 'e'));
    child_end(&child);
}
END_TEST

/* ---- the service dies ---- */

#define TOUCHERS 2
#define REGION_CHUNKS 256 /* 16 MiB */
#define PINNED_CHUNKS 4

struct storm {
    struct drp *connection;
    struct drp_region *region;
    _Atomic bool stop;
    _Atomic uint64_t longest_ns;
    _Atomic uint64_t batches;
    _Atomic unsigned wrong; /* values */
    _Atomic int error;      /* of a drop, the last but -ENOTCONN */
    _Atomic unsigned next;
};

static void note_time(struct storm *storm, uint64_t started) {
    uint64_t took = now_ns() - started, longest = atomic_load(&storm->longest_ns);

    while (took > longest && !atomic_compare_exchange_weak(&storm->longest_ns, &longest, took))
        ;
    atomic_fetch_add(&storm->batches, 1);
}

/* Touches one page of each chunk of its half, over and over: it must hold what was written last, or zeros. */
static void *touch(void *data) {
    struct storm *storm = data;
    unsigned me = atomic_fetch_add(&storm->next, 1);
    char *p = drp_region_address(storm->region);

    for (uint64_t round = 1; !atomic_load(&storm->stop); round++) {
        uint64_t started = now_ns();

        for (unsigned chunk = PINNED_CHUNKS + me; chunk < REGION_CHUNKS; chunk += TOUCHERS) {
            volatile uint64_t *word = (volatile uint64_t *)(p + chunk * CHUNK + (round % 16) * PAGE);
            uint64_t value = *word;

            if (value != 0 && value != chunk * 1000000u + round % 16)
                atomic_fetch_add(&storm->wrong, 1);
            *word = chunk * 1000000u + round % 16;
        }
        note_time(storm, started);
    }
    return NULL;
}

/* Drops all the time, so that the others fault all the time; while the service is away that fails, soon. */
static void *drop(void *data) {
    struct storm *storm = data;

    while (!atomic_load(&storm->stop)) {
        uint64_t started = now_ns();
        int r = drp_drop(storm->region, 0, REGION_CHUNKS * CHUNK, NULL, NULL);

        if (r < 0 && r != -ENOTCONN)
            atomic_store(&storm->error, r);
        note_time(storm, started);
        if (r == -ENOTCONN)
            usleep(1000);
    }
    return NULL;
}

static void expect_reconnected(struct storm *storm, uint64_t times) {
    uint64_t deadline = now_ms() + 20 * SECOND_NS / 1000000;
    struct drp_region_info info;
    struct drp_stats stats;

    do {
        ck_assert_msg(now_ms() < deadline, "the library does not reconnect");
        usleep(1000);
        drp_get_stats(storm->connection, &stats);
        drp_region_get_info(storm->region, &info);
    } while (stats.reconnects < times || !info.connected);
}

static void check_pinned(struct storm *storm) {
    for (int chunk = 0; chunk < PINNED_CHUNKS; chunk++)
        ck_assert_msg(is_filled((char *)drp_region_address(storm->region) + (size_t)chunk * CHUNK, 0xa0 + chunk, CHUNK),
                      "pinned chunk %d changed", chunk);
}

/* The new service drops, and honours the pins of before. */
static void check_next_drop(struct storm *storm) {
    uint64_t freed, pinned;
    char *p = drp_region_address(storm->region);

    memset(p + PINNED_CHUNKS * CHUNK, 0x5d, (REGION_CHUNKS - PINNED_CHUNKS) * CHUNK);
    ck_assert_int_eq(drp_drop(storm->region, 0, REGION_CHUNKS * CHUNK, &freed, &pinned), 0);
    ck_assert_uint_eq(pinned, PINNED_CHUNKS * CHUNK);
    ck_assert_uint_eq(freed, (REGION_CHUNKS - PINNED_CHUNKS) * CHUNK);
    ck_assert(is_zero(p + PINNED_CHUNKS * CHUNK, (REGION_CHUNKS - PINNED_CHUNKS) * CHUNK));
    check_pinned(storm);
}

static void terminate_service(void) {
    int status;

    kill(service.pid, SIGTERM);
    ck_assert_int_eq(waitpid(service.pid, &status, 0), service.pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    service.pid = -1;
}

static void storm_begin(struct storm *storm) {
    *storm = (struct storm){0};
    ck_assert_int_eq(drp_new(&storm->connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&storm->region, storm->connection, REGION_CHUNKS * CHUNK, NULL), 0);
    for (int chunk = 0; chunk < PINNED_CHUNKS; chunk++)
        memset((char *)drp_region_address(storm->region) + (size_t)chunk * CHUNK, 0xa0 + chunk, CHUNK);
    ck_assert_int_eq(drp_pin(storm->region, 0, PINNED_CHUNKS * CHUNK, NULL), 0);
}

/* Waits until that many more batches are done. */
static void let_it_work(struct storm *storm, uint64_t batches) {
    uint64_t target = atomic_load(&storm->batches) + batches, deadline = now_ms() + 30000;

    while (atomic_load(&storm->batches) < target) {
        ck_assert_msg(now_ms() < deadline, "threads hang");
        usleep(1000);
    }
}

/* The restart's number counts those before. */
static void storm_restart(struct storm *storm, void (*end_service)(void), uint64_t restart) {
    pthread_t threads[TOUCHERS + 1];

    atomic_store(&storm->stop, false);
    atomic_store(&storm->next, 0);
    for (size_t i = 0; i < TOUCHERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, touch, storm), 0);
    ck_assert_int_eq(pthread_create(&threads[TOUCHERS], NULL, drop, storm), 0);
    let_it_work(storm, 30);
    end_service();
    let_it_work(storm, 30); /* without a service */
    check_pinned(storm);
    service_restart(&service);
    expect_reconnected(storm, restart);
    let_it_work(storm, 30);
    atomic_store(&storm->stop, true);
    for (size_t i = 0; i < TOUCHERS + 1; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(storm->wrong, 0);
    /* On a machine so busy that a call takes a second of the clock a session is quarantined, and for that moment drops fail. */
    if (storm->error == -ETIMEDOUT && service_log_has(&service, "quarantined", 0))
        atomic_store(&storm->error, 0);
    ck_assert_msg(storm->error == 0, "a drop beside it: %s", strerror(-storm->error));
    check_next_drop(storm);
}

static void run_storm(void (*end_service)(void)) {
    uint64_t generation, restart = 0;
    struct storm storm;

    storm_begin(&storm);
    generation = drp_generation(storm.region, 0, PINNED_CHUNKS * CHUNK);
    for (struct bar bar = {.what = "accesses beside restarts", .ns = SECOND_NS}; bar_again(&bar);) {
        atomic_store(&storm.longest_ns, 0);
        for (int i = 0; i < RESTARTS; i++) {
            storm_restart(&storm, end_service, ++restart);
            ck_assert_uint_eq(drp_generation(storm.region, 0, PINNED_CHUNKS * CHUNK), generation);
        }
        bar.longest_ns = storm.longest_ns;
    }
    ck_assert_int_eq(drp_unpin(storm.region, 0, PINNED_CHUNKS * CHUNK), 0);
    drp_region_free(storm.region);
    drp_free(storm.connection);
}

static void kill_service(void) {
    ck_assert(service_kill(&service, 5000));
}

START_TEST(test_service_killed) {
    run_storm(kill_service);
}
END_TEST

START_TEST(test_service_terminated) {
    run_storm(terminate_service);
}
END_TEST

/* Nobody is there for a while: memory is plain memory, requests say so, regions can be freed. */
START_TEST(test_service_away) {
    struct drp_region *region = NULL, *second = NULL;
    struct drp_region_info info;
    struct drp_stats stats;
    struct drp *d;
    char *p;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, MIB, NULL), 0);
    ck_assert_int_eq(drp_region_new(&second, d, MIB, NULL), 0);
    p = drp_region_address(region);
    memset(p, 1, MIB / 2);
    kill_service();
    memset(p, 2, MIB);
    ck_assert(is_filled(p, 2, MIB));
    ck_assert_int_eq(drp_drop(region, 0, MIB, NULL, NULL), -ENOTCONN);
    ck_assert_int_eq(drp_get_stats(d, &stats), -ENOTCONN);
    ck_assert_int_eq(drp_pin(region, 0, MIB, NULL), 0);
    second = drp_region_free(second);
    ck_assert_int_eq(drp_region_new(&second, d, MIB, NULL), -ENOTCONN);
    service_restart(&service);
    for (uint64_t deadline = now_ms() + 20000; drp_get_stats(d, &stats) < 0 || stats.reconnects < 1;)
        ck_assert(now_ms() < deadline);
    ck_assert(is_filled(p, 2, MIB));
    ck_assert_uint_eq(listing_count("regions"), 1);
    ck_assert_int_eq(drp_unpin(region, 0, MIB), 0);
    ck_assert_int_eq(drp_region_new(&second, d, MIB, NULL), 0);
    drp_region_get_info(region, &info);
    ck_assert(info.connected);
    drp_region_free(region);
    drp_region_free(second);
    drp_free(d);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("crash");
    TCase *crash = tcase_create("crash");

    tcase_set_timeout(crash, 180);
    tcase_add_checked_fixture(crash, fixture_setup, fixture_teardown);
    tcase_add_test(crash, test_client_killed);
    tcase_add_test(crash, test_client_stopped);
    tcase_add_test(crash, test_service_killed);
    tcase_add_test(crash, test_service_terminated);
    tcase_add_test(crash, test_service_away);
    suite_add_tcase(suite, crash);
    return suite_run(suite);
}
