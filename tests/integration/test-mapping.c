/* SPDX-License-Identifier: MIT */
/*
 * What clients do to their view of a region while it is dropped: many threads in one span, partial munmap and mremap, madvise; clients that
 * are not intercepted; a service without any privilege.
 *
 * Threads count what went wrong and the test looks at the sum: Check's macros are the test's own thread's.
 */

#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define CHUNK (64 * KIB)
#define PAGE (4 * KIB)
#define SPAN (2 * MIB)

static struct drp *connection;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void teardown(void) {
    connection = drp_free(connection);
    fixture_teardown();
}

static struct drp_region *make(size_t size) {
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, connection, size, NULL);

    ck_assert_msg(r == 0, "%s", drp_detail());
    return region;
}

/* ---- threads ---- */

struct race {
    struct drp_region *region;
    pthread_barrier_t barrier;
    _Atomic bool stop;
    _Atomic unsigned wrong;
    _Atomic unsigned lost;
    _Atomic unsigned next;
};

static void *pin_and_check(void *data) {
    struct race *race = data;
    unsigned chunk = atomic_fetch_add(&race->next, 1);
    unsigned char *p = (unsigned char *)drp_region_address(race->region) + chunk * CHUNK;
    uint64_t generation = UINT64_MAX, now;

    for (unsigned round = 0; !atomic_load(&race->stop); round++) {
        if (drp_pin(race->region, chunk * CHUNK, CHUNK, &now) < 0) {
            atomic_fetch_add(&race->wrong, 1);
            break;
        }
        if (now == generation) { /* not a byte may be different */
            if (!is_filled(p, (int)(chunk + 1), CHUNK))
                atomic_fetch_add(&race->wrong, 1);
        } else {
            if (generation != UINT64_MAX && !is_zero(p, CHUNK)) /* dropped as a whole */
                atomic_fetch_add(&race->wrong, 1);
            memset(p, (int)(chunk + 1), CHUNK);
            generation = now;
            atomic_fetch_add(&race->lost, 1);
        }
        if (!is_filled(p, (int)(chunk + 1), CHUNK)) /* pinned */
            atomic_fetch_add(&race->wrong, 1);
        drp_unpin(race->region, chunk * CHUNK, CHUNK);
        for (uint64_t until = now_ns() + 200000; now_ns() < until;) /* leave the drops a chance */
            ;
    }
    return NULL;
}

/* Each thread has a chunk of its own; one more drops all of them over and over. */
START_TEST(test_pins_against_drops) {
    struct race race = {.region = make(SPAN)};
    pthread_t threads[2];
    uint64_t deadline;

    for (size_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, pin_and_check, &race), 0);
    for (deadline = now_ms() + 2000; now_ms() < deadline;)
        ck_assert_int_eq(drp_drop(race.region, 0, SPAN, NULL, NULL), 0);
    atomic_store(&race.stop, true);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(race.wrong, 0);
    ck_assert_uint_gt(race.lost, 10); /* drops did come in between */
    drp_region_free(race.region);
}
END_TEST

static void *read_optimistically(void *data) {
    struct race *race = data;
    uint32_t *p = drp_region_address(race->region);
    uint64_t generation;

    while (!atomic_load(&race->stop)) {
        uint32_t first, last;

        if (drp_read_begin(race->region, 0, CHUNK, &generation) < 0)
            continue;
        first = __atomic_load_n(&p[0], __ATOMIC_RELAXED);
        last = __atomic_load_n(&p[CHUNK / 4 - 1], __ATOMIC_RELAXED);
        if (drp_read_retry(race->region, 0, CHUNK, generation))
            atomic_fetch_add(&race->lost, 1);
        else if (first != last) /* the writer writes while pinned only, from the last to the first */
            atomic_fetch_add(&race->wrong, first != 0);
    }
    return NULL;
}

START_TEST(test_optimistic_reader) {
    struct race race = {.region = make(CHUNK)};
    uint32_t *p = drp_region_address(race.region);
    pthread_t thread;
    uint64_t deadline;

    ck_assert_int_eq(pthread_create(&thread, NULL, read_optimistically, &race), 0);
    for (deadline = now_ms() + 1500; now_ms() < deadline;) {
        ck_assert_int_eq(drp_pin(race.region, 0, CHUNK, NULL), 0);
        __atomic_store_n(&p[CHUNK / 4 - 1], 7, __ATOMIC_SEQ_CST);
        __atomic_store_n(&p[0], 7, __ATOMIC_SEQ_CST);
        ck_assert_int_eq(drp_unpin(race.region, 0, CHUNK), 0);
        ck_assert_int_eq(drp_drop(race.region, 0, CHUNK, NULL, NULL), 0);
    }
    atomic_store(&race.stop, true);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(race.wrong, 0);
    drp_region_free(race.region);
}
END_TEST

#define FAULTERS 8
#define ROUNDS 200

static void *fault_in_one_span(void *data) {
    struct race *race = data;
    unsigned me = atomic_fetch_add(&race->next, 1);
    unsigned char *p = drp_region_address(race->region);

    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&race->barrier); /* dropped */
        for (unsigned page = me; page < SPAN / PAGE; page += FAULTERS * 5) {
            if (!is_zero(p + page * PAGE, PAGE))
                atomic_fetch_add(&race->wrong, 1);
            p[page * PAGE + me] = (unsigned char)(me + 1);
        }
        if (p[me * PAGE + me] != me + 1)
            atomic_fetch_add(&race->wrong, 1);
        pthread_barrier_wait(&race->barrier); /* touched */
    }
    return NULL;
}

START_TEST(test_eight_threads_one_span) {
    struct race race = {.region = make(SPAN)};
    pthread_t threads[FAULTERS];

    ck_assert_int_eq(pthread_barrier_init(&race.barrier, NULL, FAULTERS + 1), 0);
    for (size_t i = 0; i < FAULTERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fault_in_one_span, &race), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        ck_assert_int_eq(drp_drop(race.region, 0, SPAN, NULL, NULL), 0);
        pthread_barrier_wait(&race.barrier);
        pthread_barrier_wait(&race.barrier);
    }
    for (size_t i = 0; i < FAULTERS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&race.barrier);
    ck_assert_uint_eq(race.wrong, 0);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
    drp_region_free(race.region);
}
END_TEST

/* ---- the client moves its memory about ---- */

static void rearrange(char *p, char **ret_moved) {
    char *hole;

    ck_assert_int_eq(munmap(p + 4 * MIB, 2 * MIB), 0);
    /* Somebody else's memory in the place of ours. */
    hole = mmap(p + 4 * MIB, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ck_assert_ptr_eq(hole, p + 4 * MIB);
    memset(hole, 0x77, MIB);
    ck_assert_int_eq(madvise(p, MIB, MADV_DONTNEED), 0);
    ck_assert_int_eq(madvise(p + 8 * MIB, MIB, MADV_REMOVE), 0);
    ck_assert(is_zero(p + 8 * MIB, MIB));
    *ret_moved = mremap(p + 12 * MIB, 2 * MIB, 2 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED,
                        mmap(NULL, 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ck_assert_ptr_ne(*ret_moved, MAP_FAILED);
    ck_assert_int_eq(munmap(p + 15 * MIB + 5 * PAGE, 3 * PAGE), 0); /* a hole inside of a chunk */
}

/* What is left of the region after that. */
static const struct {
    uint64_t offset, length;
} left[] = {{0, 4 * MIB}, {6 * MIB, 6 * MIB}, {14 * MIB, MIB + 5 * PAGE}, {15 * MIB + 8 * PAGE, MIB - 8 * PAGE}};

static void check_rearranged(char *p, char *moved, bool zero, int value) {
    for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
        ck_assert_msg(zero ? is_zero(p + left[i].offset, left[i].length)
                           : is_filled(p + left[i].offset, value, left[i].length),
                      "piece %zu", i);
    ck_assert(zero ? is_zero(moved, 2 * MIB) : is_filled(moved, value, 2 * MIB));
    ck_assert(is_filled(p + 4 * MIB, 0x77, MIB));
    ck_assert(is_zero(p + 5 * MIB, MIB));
}

static void work_on_rearranged(struct drp_region *region, char *p, char *moved) {
    uint64_t freed;

    for (int round = 1; round < 10; round++) {
        for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
            memset(p + left[i].offset, round, left[i].length);
        memset(moved, round, 2 * MIB);
        check_rearranged(p, moved, false, round);
        ck_assert_int_eq(drp_drop(region, 0, 16 * MIB, &freed, NULL), 0);
        ck_assert_uint_ge(freed, 14 * MIB - 3 * PAGE);
        check_rearranged(p, moved, true, 0);
    }
}

START_TEST(test_rearranged_while_filled) {
    struct drp_region *region = make(16 * MIB);
    char *p = drp_region_address(region), *moved;
    uint64_t freed;

    memset(p, 0x11, 16 * MIB);
    rearrange(p, &moved);
    ck_assert(is_filled(p, 0x11, 4 * MIB));
    ck_assert(is_filled(moved, 0x11, 2 * MIB));
    ck_assert_int_eq(drp_drop(region, 0, 16 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, 16 * MIB); /* what is unmapped is still the object's; what was removed was read */
    check_rearranged(p, moved, true, 0);
    work_on_rearranged(region, p, moved);
    drp_region_free(region);
    munmap(moved, 2 * MIB);
}
END_TEST

START_TEST(test_rearranged_while_dropped) {
    struct drp_region *region = make(16 * MIB);
    char *p = drp_region_address(region), *moved;

    memset(p, 0x11, 16 * MIB);
    ck_assert_int_eq(drp_drop(region, 0, 16 * MIB, NULL, NULL), 0);
    rearrange(p, &moved);
    check_rearranged(p, moved, true, 0);
    work_on_rearranged(region, p, moved);
    drp_region_free(region);
    munmap(moved, 2 * MIB);
}
END_TEST

START_TEST(test_unmapped_whole) {
    struct drp_region *region = make(4 * MIB), *other = make(4 * MIB);
    char *p = drp_region_address(region), *q = drp_region_address(other);
    uint64_t freed;

    memset(p, 1, 4 * MIB);
    memset(q, 2, 4 * MIB);
    ck_assert_int_eq(munmap(p, 4 * MIB), 0);
    ck_assert_int_eq(drp_drop(region, 0, 4 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, 4 * MIB);
    ck_assert_int_eq(drp_drop(other, 0, 4 * MIB, &freed, NULL), 0);
    ck_assert(is_zero(q, 4 * MIB));
    drp_region_free(region);
    memset(q, 3, 4 * MIB);
    ck_assert(is_filled(q, 3, 4 * MIB));
    drp_region_free(other);
}
END_TEST

/* ---- without interception ---- */

START_TEST(test_not_intercepted) {
    struct drp_wire_drop_reply reply;
    struct drp_wire_counters counters;
    struct raw_region region;
    int socket = raw_hello("blind");
    uint32_t interception = 99, before;
    char text[4096];

    ck_assert_int_eq(raw_uffd(socket, -1, EPERM, &interception), DRP_WIRE_OK);
    ck_assert_uint_eq(interception, DRP_WIRE_INTERCEPTION_NONE);
    raw_region_new(socket, 8 * MIB, &region);
    before = region.generations[3];
    for (int round = 1; round <= 5; round++) {
        memset(region.address, round, 8 * MIB);
        region.cells[5].count = 1;
        ck_assert_int_eq(raw_drop(socket, &region, 0, 8 * MIB, &reply), DRP_WIRE_OK);
        ck_assert_uint_eq(reply.freed, 8 * MIB - CHUNK);
        ck_assert_uint_eq(reply.pinned, CHUNK);
        ck_assert(is_zero(region.address, 5 * CHUNK));
        ck_assert(is_filled(region.address + 5 * CHUNK, round, CHUNK));
        region.cells[5].count = 0;
    }
    ck_assert_uint_eq(region.generations[3], before + 10);
    ck_assert_uint_eq(region.generations[5], before);
    ck_assert_int_eq(raw_stats(socket, &counters), DRP_WIRE_OK);
    ck_assert_uint_eq(counters.intercepted_faults, 0);
    ck_assert_uint_eq(listing_number("sessions", "id", listing_number("regions", "id", region.id, "session"), "reason"),
                      EPERM);
    listing_text("sessions", "reason", EPERM, "interception", text, sizeof(text));
    ck_assert_str_eq(text, "none");
    listing_text("sessions", "reason", EPERM, "name", text, sizeof(text));
    ck_assert_str_eq(text, "blind");
    ck_assert_int_eq(service_ctl(&service, text, sizeof(text), (const char *const[]){"list", NULL}), 0);
    ck_assert_msg(strstr(text, "blind (not intercepted: Operation not permitted)") != NULL, "%s", text);
    raw_region_end(socket, &region);
    close(socket);
}
END_TEST

/* ---- without privileges ---- */

static void run_as_nobody(int socket, void *data) {
    struct drp_region *region = NULL;
    struct drp_region_info info;
    uint64_t freed, pinned;
    struct drp *d;
    char *p;

    (void)socket;
    (void)data;
    child_become_nobody();
    if (getenv("DROPPABLE_TEST_BINDIR") && access(getenv("DROPPABLE_TEST_BINDIR"), X_OK) < 0) {
        printf("nobody may not read %s: not tried\n", getenv("DROPPABLE_TEST_BINDIR"));
        return;
    }
    service_start(&service, NULL);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, 8 * MIB, NULL) == 0);
    p = drp_region_address(region);
    for (int round = 1; round <= 5; round++) {
        memset(p, round, 8 * MIB);
        child_check(drp_pin(region, CHUNK, CHUNK, NULL) == 0);
        child_check(drp_drop(region, 0, 8 * MIB, &freed, &pinned) == 0);
        child_check(freed == 8 * MIB - CHUNK && pinned == CHUNK);
        child_check(is_zero(p, CHUNK) && is_filled(p + CHUNK, round, CHUNK) && is_zero(p + 2 * CHUNK, 6 * MIB));
        child_check(drp_unpin(region, CHUNK, CHUNK) == 0);
    }
    child_check(listing_number("sessions", "pid", (uint64_t)getpid(), "uid") == getuid());
    drp_region_get_info(region, &info);
    printf("as uid %u: intercepted: %d\n", getuid(), (int)info.interception);
    region = drp_region_free(region);
    d = drp_free(d);
    service_stop(&service);
}

START_TEST(test_ordinary_user) {
    struct child child;

    child_start(&child, run_as_nobody, NULL);
    child_end(&child);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("mapping");
    TCase *mapping = tcase_create("mapping"), *alone = tcase_create("alone");

    tcase_set_timeout(mapping, 120);
    tcase_add_checked_fixture(mapping, setup, teardown);
    tcase_add_test(mapping, test_pins_against_drops);
    tcase_add_test(mapping, test_optimistic_reader);
    tcase_add_test(mapping, test_eight_threads_one_span);
    tcase_add_test(mapping, test_rearranged_while_filled);
    tcase_add_test(mapping, test_rearranged_while_dropped);
    tcase_add_test(mapping, test_unmapped_whole);
    tcase_add_test(mapping, test_not_intercepted);
    suite_add_tcase(suite, mapping);
    tcase_set_timeout(alone, 120);
    tcase_add_test(alone, test_ordinary_user);
    suite_add_tcase(suite, alone);
    return suite_run(suite);
}
