/* SPDX-License-Identifier: MIT */
/* A batch of drops, without its thread: what two jobs have in common is dropped once, and what is pinned or held not at all. */

#include "drop-batch.h"

#include "home.h"
#include "manager.h"
#include "mapping.h"
#include "session.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK (UINT64_C(1) << 16)
#define CHUNKS (SPAN_SIZE / CHUNK)

static struct drp_clock_page clock_page;
static struct manager manager;
static struct session session; /* whose mapping it is; the home is nobody's */
static struct home home;
static struct region *region;
static struct drp_pin_cell *cells; /* as the client has them */
static char *memory;

static void map_pins(void) {
    struct mapping *mapping;
    void *pins;
    int fd;

    ck_assert_int_eq(region_reserve_mapping(region, &home.lock), 0);
    ck_assert_int_eq(mapping_new(&mapping, region, &session, -1, &fd), 0);
    pins = mmap(NULL, drp_pin_bytes(CHUNKS), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(pins, MAP_FAILED);
    close(fd);
    cells = drp_pin_cells(pins);
    region_add_mapping(region, mapping);
}

static void setup(void) {
    const struct region_shape shape = {.id = 1, .size = SPAN_SIZE, .chunk_shift = 16, .chunk_total = CHUNKS};
    const struct kernel kernel = {.mount_small = -1, .mount_huge = -1};
    int state_fd;

    manager.clock = &clock_page;
    session.loss.socket = -1;
    home_init(&home, &manager, 1, NULL);
    ck_assert_int_eq(region_new(&region, &kernel, &shape, -1, &state_fd), 0);
    close(state_fd);
    region->dropper_fd = region->data_fd; /* the same table */
    region->home = &home;
    LIST_INSERT_HEAD(&home.regions, region, link);
    map_pins();
    memory = mmap(NULL, SPAN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, region->data_fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    memset(memory, 1, SPAN_SIZE);
}

static void teardown(void) {
    munmap(memory, SPAN_SIZE);
    munmap((char *)cells - DRP_PAGES_ARRAY_OFFSET, drp_pin_bytes(CHUNKS));
    home_deinit(&home);
}

static void nothing(struct drop_request *request) {
    (void)request;
}

/* As the dropper takes the span for a job of all of it, or of a part. */
static void take(struct drop_op *op, struct drop_job *job, struct drop_request *request, uint64_t first, uint64_t end) {
    drop_request_init(request, nothing, NULL);
    *job = (struct drop_job){.region = region, .next = end, .end = end, .limit = UINT64_MAX, .request = request};
    *op = (struct drop_op){.job = job, .region = region, .first_chunk = first, .end_chunk = end};
}

/* Both were asked before either was begun: all claims of a slice come before its punches. */
START_TEST(test_same_span_twice) {
    struct drop_request requests[2];
    struct drop_job jobs[2];
    struct drop_op ops[2];

    take(&ops[0], &jobs[0], &requests[0], 0, CHUNKS);
    take(&ops[1], &jobs[1], &requests[1], CHUNKS / 2, CHUNKS);
    cells[1].count = cells[CHUNKS - 1].count = 1;
    drop_batch_run(&home, ops, 2);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
        bool pinned = chunk == 1 || chunk == CHUNKS - 1;

        /* Claimed once: else it would have been even, and so for the taking, between the second claim and the punch. */
        ck_assert_uint_eq(region->generations[chunk], pinned ? 0 : 2);
        ck_assert_int_eq(memory[chunk * CHUNK], pinned);
    }
    ck_assert_uint_eq(requests[0].freed, (CHUNKS - 2) * CHUNK);
    ck_assert_uint_eq(requests[1].freed, 0);
    ck_assert_uint_eq(requests[0].pinned, 2 * CHUNK);
    ck_assert_uint_eq(requests[1].pinned, CHUNK);
}
END_TEST

/* While pins are still to come: not even what nobody is seen to pin, and no generation moves. */
START_TEST(test_held) {
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;

    region->held = true;
    take(&op, &job, &request, 0, CHUNKS);
    drop_batch_run(&home, &op, 1);
    ck_assert_uint_eq(request.freed, 0);
    ck_assert_uint_eq(request.pinned, SPAN_SIZE);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        ck_assert_uint_eq(region->generations[chunk], 0);
    ck_assert_int_eq(memory[0], 1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("drop-batch");
    TCase *tcase = tcase_create("drop-batch");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_same_span_twice);
    tcase_add_test(tcase, test_held);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
