/* SPDX-License-Identifier: MIT */
/* Sweeps by a dropper's thread: where they begin and end, what they pass over, and what is known after them; and the samples of pins. */

#include "sweep.h"

#include "home.h"
#include "manager.h"
#include "mapped-pins.h"
#include "service.h"
#include "session.h"
#include "suite.h"

#include <check.h>
#include <semaphore.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SIZE (4 * SPAN_SIZE)
#define CHUNK (UINT64_C(1) << 16)
#define CHUNKS (SIZE / CHUNK)
#define CREATED 1000
#define NOW 5000
#define WAIT_MS 20000

static struct drp_clock_page clock_page;
static struct manager manager;
static struct session session; /* whose mapping it is; the home is nobody's */
static struct home home;
static struct region *region;
static struct drp_pin_cell *cells; /* as the client has them */
static unsigned char *memory;
static sem_t done;

static void make_region(void) {
    const struct region_shape shape = {.id = 1, .size = SIZE, .chunk_shift = 16, .chunk_total = CHUNKS};
    const struct kernel kernel = {.mount_small = -1, .mount_huge = -1};
    int state_fd;

    ck_assert_int_eq(region_new(&region, &kernel, &shape, -1, &state_fd), 0);
    close(state_fd);
    region->home = &home;
    sweep_init(region, CREATED);
    LIST_INSERT_HEAD(&home.regions, region, link);
    cells = map_pins(region, &session, CHUNKS);
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, region->data_fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    memset(memory, 1, SIZE);
}

static void setup(void) {
    manager.clock = &clock_page;
    clock_page.tick = NOW;
    session.loss.socket = -1;
    ck_assert_int_eq(sem_init(&done, 0, 0), 0);
    worker_pool_init(&manager.pool, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    worker_pool_start(&manager.pool);
    home_init(&home, &manager, 1, NULL);
    make_region();
    ck_assert_int_eq(home_need_dropper(&home), 0);
}

static void teardown(void) {
    uint64_t deadline = now_ms() + WAIT_MS;

    munmap(memory, SIZE);
    munmap((char *)cells - DRP_PAGES_ARRAY_OFFSET, drp_pin_bytes(CHUNKS));
    for (; !home_stopped(&home); nap_ms(1)) {
        home_stop(&home, false);
        ck_assert_uint_lt(now_ms(), deadline);
    }
    home_deinit(&home);
    worker_pool_deinit(&manager.pool);
    close(manager.pool.wake_fd);
}

static void await_done(void) {
    struct timespec deadline;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += WAIT_MS / 1000;
    ck_assert_int_eq(sem_timedwait(&done, &deadline), 0);
}

static void request_done(struct drop_request *request) {
    (void)request;
    sem_post(&done);
}

/* As a plan asks for it: so much of it, or until so much of all is free. */
static struct drop_request sweep_until(uint64_t limit, uint64_t wanted, uint32_t before) {
    struct drop_request request;

    drop_request_init(&request, request_done, NULL);
    request.wanted = wanted;
    ck_assert_int_eq(dropper_submit_sweep(&home, region, limit, before, clock_page.tick, URGENCY_LIFE, &request), 0);
    drop_request_seal(&request);
    await_done();
    return request;
}

static struct drop_request sweep(uint64_t limit, uint32_t before) {
    return sweep_until(limit, UINT64_MAX, before);
}

static uint64_t freed_by_sweep(uint64_t limit, uint32_t before) {
    struct drop_request request = sweep(limit, before);

    return request.freed;
}

static uint64_t noted_by_sweep(uint64_t limit, uint32_t before) {
    struct drop_request request = sweep(limit, before);

    return request.noted;
}

/* As their owner drops them. */
static void drop(uint64_t first, uint64_t count) {
    struct drop_request request;

    drop_request_init(&request, request_done, NULL);
    ck_assert_int_eq(dropper_submit(&home, region, first, first + count, URGENCY_NONE, &request, false), 0);
    drop_request_seal(&request);
    await_done();
}

static void adopted(void *data) {
    sem_post(data);
}

/* Exactly these are gone; and they are there again. */
static void expect_gone(uint64_t first, uint64_t count) {
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        ck_assert_msg((memory[chunk * CHUNK] == 0) == (chunk >= first && chunk < first + count), "chunk %u",
                      (unsigned)chunk);
    memset(memory, 1, SIZE);
}

/* ---- the hand ---- */

/* Each begins where the one before ended, whatever else is dropped, and takes no more than what is wanted. */
START_TEST(test_hand) {
    ck_assert_uint_eq(freed_by_sweep(3 * CHUNK, UINT32_MAX), 3 * CHUNK);
    expect_gone(0, 3);
    drop(100, 1);
    expect_gone(100, 1);
    sweep(2 * CHUNK, UINT32_MAX);
    expect_gone(3, 2);
    ck_assert_int_eq(dropper_submit_adopt(&home, region, -1, NULL, adopted, &done), 0);
    await_done();
    sweep(40 * CHUNK, UINT32_MAX);
    expect_gone(5, 40);
    sweep_until(60 * CHUNK, CHUNK, UINT32_MAX); /* others freed the rest: no more than a span too much */
    ck_assert_uint_gt(region->hand.at, 45);
    ck_assert_uint_le(region->hand.at, 64);
    memset(memory, 1, SIZE);
    region->hand.at = CHUNKS - 1;
    ck_assert_uint_eq(freed_by_sweep(4 * CHUNK, UINT32_MAX), 4 * CHUNK);
    ck_assert_int_eq(memory[SIZE - CHUNK], 0);
    memset(memory + SIZE - CHUNK, 1, CHUNK);
    expect_gone(0, 3);
    ck_assert_uint_eq(region->hand.at, 3);
}
END_TEST

/* Who gives a slice has not grown young by that: a round ago is when the hand was at a place. */
START_TEST(test_rounds) {
    sweep(CHUNK, UINT32_MAX);
    ck_assert_uint_eq(region->hand.round_before, CREATED);
    ck_assert_uint_eq(region->hand.round, NOW);
    clock_page.tick = NOW + 100;
    sweep(CHUNK, UINT32_MAX);
    ck_assert_uint_eq(region->hand.round_before, CREATED);
    ck_assert_uint_eq(region->hand.round, NOW);
    region->hand.at = CHUNKS - 1;
    sweep(2 * CHUNK, UINT32_MAX);
    ck_assert_uint_eq(region->hand.round_before, NOW);
    ck_assert_uint_eq(region->hand.round, NOW + 100);
    clock_page.tick = NOW + 200;
    atomic_store(&region->sweep, true);
    sweep(SIZE, UINT32_MAX); /* it was everywhere */
    ck_assert_uint_eq(region->hand.round_before, NOW + 200);
    ck_assert_uint_eq(region->hand.round, NOW + 200);
    ck_assert(!atomic_load(&region->sweep));
}
END_TEST

/* What was used lately stays, what was never pinned does not. */
START_TEST(test_passes_over) {
    struct drop_request request;

    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        cells[chunk].tick = chunk % 2 ? NOW - 10 : NOW - 1000;
    cells[0].tick = UINT32_MAX; /* ahead of the clock: as young as can be */
    cells[1].tick = 0;
    cells[2].count = 1;
    region->hand.at = 7;
    request = sweep(SIZE, NOW - 100);
    ck_assert_uint_eq(request.freed, (CHUNKS / 2 - 2 + 1) * CHUNK);
    ck_assert_uint_eq(request.pinned, CHUNK);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        ck_assert_int_eq(memory[chunk * CHUNK], chunk == 0 || chunk == 2 || (chunk % 2 && chunk != 1));
    ck_assert_uint_eq(region->hand.floor, NOW - 10); /* nothing older is left */
    ck_assert_uint_eq(request.noted, 1);
    ck_assert_uint_eq(noted_by_sweep(SIZE, NOW - 100), 0); /* in the same tick that is nothing new */
    sweep(SIZE, UINT32_MAX);
    ck_assert_int_eq(memory[0], 0);
    ck_assert_int_eq(memory[2 * CHUNK], 1);
    ck_assert_uint_eq(region->hand.floor, NOW);
}
END_TEST

/* What stays although nothing is passed over cannot be dropped, for a while. */
START_TEST(test_stuck) {
    cells[2].count = cells[9].count = 1;
    sweep(SIZE / 2, UINT32_MAX);
    ck_assert_uint_eq(sweep_stuck(region, SIZE / 2, NOW), 0);
    sweep(SIZE, NOW);
    ck_assert_uint_eq(sweep_stuck(region, 2 * CHUNK, NOW), 0);
    memset(memory, 1, SIZE);
    sweep(SIZE, UINT32_MAX);
    ck_assert_uint_eq(sweep_stuck(region, 2 * CHUNK, NOW), 2 * CHUNK);
    ck_assert_uint_eq(sweep_stuck(region, SIZE, NOW + 5), 2 * CHUNK); /* what comes may go */
    ck_assert_uint_eq(sweep_stuck(region, CHUNK, NOW + 5), CHUNK);
    ck_assert_uint_eq(sweep_stuck(region, CHUNK, NOW + 11), 0);
}
END_TEST

/* Of what it passes over it does not even ask whether it is there, where pins are known to have been written. */
START_TEST(test_skip) {
    struct drop_job job = {.region = region, .sweep = true, .end = CHUNKS, .before = NOW - 100, .passed = NOW};
    struct sweep_budget looks = {SWEEP_CELLS, SWEEP_LOOKS, false};

    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        cells[chunk].tick = NOW - 10;
    cells[50].tick = NOW - 1000;
    sweep_skip(&job);
    ck_assert_uint_eq(job.next, 0);
    sweep_sample(region, 1, NOW, &looks);
    sweep_skip(&job);
    ck_assert_uint_eq(job.next, 50);
    ck_assert_uint_eq(job.passed, NOW - 10);
    job.next++;
    sweep_skip(&job);
    ck_assert_uint_eq(job.next, CHUNKS);
    ck_assert_uint_eq(freed_by_sweep(SIZE, NOW - 100), CHUNK);
    expect_gone(50, 1);
}
END_TEST

/* ---- samples ---- */

static struct sweep_budget budget(void) {
    return (struct sweep_budget){SWEEP_CELLS, SWEEP_LOOKS, false};
}

START_TEST(test_sample) {
    struct sweep_budget looks = budget();

    sweep_sample(region, 1, NOW, &looks);
    ck_assert_uint_eq(region->sample.n, POLICY_SAMPLES);
    ck_assert_uint_eq(region->sample.n_used + region->sample.pinned, 0);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
        cells[chunk].tick = chunk < CHUNKS / 2 ? NOW : 0;
        cells[chunk].count = chunk >= CHUNKS / 4 && chunk < CHUNKS / 2;
    }
    sweep_sample(region, 2, NOW, &looks); /* not twice in a tick */
    ck_assert_uint_eq(region->sample.n_used, 0);
    sweep_sample(region, 3, NOW + 1, &looks);
    ck_assert_uint_eq(region->sample.n_used, POLICY_SAMPLES / 4);
    ck_assert_uint_eq(region->sample.pinned, POLICY_SAMPLES / 4);
    ck_assert_uint_eq(region->sample.used[0], NOW);
    ck_assert(!looks.short_of);
}
END_TEST

/* In time each chunk is looked at. */
START_TEST(test_samples_differ) {
    unsigned found = 0;

    cells[77].tick = NOW;
    for (uint32_t i = 0; i < 8 * CHUNKS / POLICY_SAMPLES; i++) {
        struct sweep_budget looks = budget();

        sweep_sample(region, 1 + i, NOW + i, &looks);
        found += region->sample.n_used;
    }
    ck_assert_uint_ge(found, 4);
    ck_assert_uint_le(found, 12);
}
END_TEST

/* Many regions take turns: none is looked at a second time before all were once. */
START_TEST(test_budget) {
    struct sweep_budget looks = {POLICY_SAMPLES - 1, SWEEP_LOOKS, false};

    cells[0].tick = NOW;
    sweep_sample(region, 1, NOW, &looks);
    ck_assert(looks.short_of);
    ck_assert_uint_eq(region->sample.n, 0);
    looks = budget();
    sweep_sample(region, 1, NOW, &looks); /* the round goes on */
    ck_assert_uint_eq(looks.cells, SWEEP_CELLS - POLICY_SAMPLES);
    sweep_sample(region, 1, NOW + 1, &looks);
    ck_assert_uint_eq(looks.cells, SWEEP_CELLS - POLICY_SAMPLES);
    ck_assert(!looks.short_of);
}
END_TEST

/* A page that is not sealed may be made to hang who reads it. */
START_TEST(test_not_sealed) {
    struct sweep_budget looks = budget();

    cells[0].tick = cells[CHUNKS - 1].tick = NOW;
    region->mappings[0]->sealed = false;
    sweep_sample(region, 1, NOW, &looks);
    ck_assert_uint_eq(looks.looks, SWEEP_LOOKS);
    ck_assert_uint_eq(region->sample.n_used, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sweep");
    TCase *tcase = tcase_create("sweep");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_hand);
    tcase_add_test(tcase, test_rounds);
    tcase_add_test(tcase, test_passes_over);
    tcase_add_test(tcase, test_stuck);
    tcase_add_test(tcase, test_skip);
    tcase_add_test(tcase, test_sample);
    tcase_add_test(tcase, test_samples_differ);
    tcase_add_test(tcase, test_budget);
    tcase_add_test(tcase, test_not_sealed);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
