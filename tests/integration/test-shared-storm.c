/* SPDX-License-Identifier: MIT */
/*
 * What is pinned by anybody is never dropped: processes share regions, pin chunks of their own and one that is everybody's, and are killed while they
 * do, beside drops without a pause. $DROPPABLE_STORM_SECONDS: for so long each; `./run soak` has a minute.
 *
 * Once more with regions that are never swapped, whose object is another one where that can be had.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)32)
#define SIZE (CHUNKS * CHUNK)
#define PROCESSES 4
#define REGIONS 2
#define JOINT_PATTERN 0xc3

static const uint64_t preferred[] = {0, DRP_REGION_NO_SWAP};

static const char *const names[REGIONS] = {"one", "two"};

static struct drp_region *make(struct drp *d, const char *name, uint64_t also) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .preferred = also, .name = name};
    struct drp_region *region;

    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    return region;
}

/* All bytes of each page are the pattern, or all are zero. Returns whether it was the pattern everywhere. */
static bool check_pages(const unsigned char *chunk, int pattern) {
    bool all = true;

    for (size_t page = 0; page < CHUNK; page += 4096) {
        bool whole = is_filled(chunk + page, pattern, 4096);

        child_check(whole || is_zero(chunk + page, 4096));
        all &= whole;
    }
    return all;
}

/* Who holds the joint chunk of which region, and how often another one held it, too; what all of the storm see. */
struct joint {
    _Atomic bool held[REGIONS][PROCESSES];
    _Atomic uint64_t meetings;
};

struct stormer {
    unsigned number;
    struct joint *joint;
};

/* A chunk of its own: the pattern says whose, and no page is torn. */
static void hold_own(struct drp_region *r, size_t chunk, int n) {
    unsigned char *memory = (unsigned char *)drp_region_address(r) + chunk * CHUNK;
    int pattern = 1 + (int)chunk;

    child_check(drp_pin(r, chunk * CHUNK, CHUNK, NULL) == 0);
    if (n == 0)
        memset(memory, 0, CHUNK); /* who was killed may have left a page in the making */
    else if (memory[0] != 0)
        check_pages(memory, pattern);
    memset(memory, pattern, CHUNK);
    for (int i = 0; i < n; i++)
        child_check(check_pages(memory, pattern));
    child_check(drp_unpin(r, chunk * CHUNK, CHUNK) == 0);
}

/* Chunk 0, which all pin and fill with the same: whoever lets go of it, or is killed, it stays for the others. */
static void hold_joint(struct drp_region *r, size_t index, const struct stormer *me, int n) {
    unsigned char *memory = drp_region_address(r);

    child_check(drp_pin(r, 0, CHUNK, NULL) == 0);
    atomic_store(&me->joint->held[index][me->number], true);
    memset(memory, JOINT_PATTERN, CHUNK);
    for (int i = 0; i < n; i++) {
        child_check(is_filled(memory, JOINT_PATTERN, CHUNK));
        for (unsigned other = 0; other < PROCESSES; other++)
            if (other != me->number && atomic_load(&me->joint->held[index][other]))
                atomic_fetch_add(&me->joint->meetings, 1);
    }
    atomic_store(&me->joint->held[index][me->number], false);
    child_check(drp_unpin(r, 0, CHUNK) == 0);
}

static void run_storm(int socket, void *data) {
    const struct stormer *me = data;
    unsigned seed = (unsigned)getpid();
    struct drp_region *regions[REGIONS];
    struct drp *d;

    child_check(drp_new(&d, NULL) == 0);
    for (size_t i = 0; i < REGIONS; i++)
        child_check(drp_region_open(&regions[i], d, names[i], geteuid()) == 0);
    child_check(child_say(socket, 'o'));
    for (unsigned round = 0;; round++) {
        size_t index = (size_t)rand_r(&seed) % REGIONS, row = (size_t)rand_r(&seed) % (CHUNKS / PROCESSES);
        int n = rand_r(&seed) % 30;

        if (row == 0)
            hold_joint(regions[index], index, me, n);
        else
            hold_own(regions[index], me->number + PROCESSES * row, n);
        if (round % 64 == 0)
            drp_drop(regions[index], 0, SIZE, NULL, NULL);
    }
}

/* What a killed one's chunks hold. A page that was being filled is not torn by a drop: made whole before anybody looks. */
static void clear_own(struct drp_region *r, unsigned number) {
    for (size_t chunk = PROCESSES + number; chunk < CHUNKS; chunk += PROCESSES) {
        ck_assert_int_eq(drp_pin(r, chunk * CHUNK, CHUNK, NULL), 0);
        memset((char *)drp_region_address(r) + chunk * CHUNK, 0, CHUNK);
        ck_assert_int_eq(drp_unpin(r, chunk * CHUNK, CHUNK), 0);
    }
}

static void start_stormer(struct child *child, struct stormer *stormer) {
    for (size_t i = 0; i < REGIONS; i++)
        atomic_store(&stormer->joint->held[i][stormer->number], false);
    child_start(child, run_storm, stormer);
    child_expect(child, 'o');
}

/* The long form is part of `./run soak`. */
static unsigned storm_seconds(void) {
    const char *text = getenv("DROPPABLE_STORM_SECONDS");
    int seconds = text ? atoi(text) : 0;

    return seconds > 0 ? (unsigned)seconds : 5;
}

START_TEST(test_storm) {
    const char *const all[] = {"drop", "--all", NULL};
    struct joint *joint = mmap(NULL, sizeof(*joint), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t end = now_ms() + UINT64_C(1000) * storm_seconds(), freed = 0;
    struct stormer stormers[PROCESSES];
    struct child children[PROCESSES];
    struct drp_region *regions[REGIONS];
    unsigned seed = 1, kills = 0, drops = 0;
    char out[4096];
    struct drp *d;

    ck_assert_ptr_ne(joint, MAP_FAILED);
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (size_t i = 0; i < REGIONS; i++)
        regions[i] = make(d, names[i], preferred[_i]);
    for (unsigned i = 0; i < PROCESSES; i++) {
        stormers[i] = (struct stormer){.number = i, .joint = joint};
        start_stormer(&children[i], &stormers[i]);
    }
    while (now_ms() < end) {
        unsigned i = (unsigned)rand_r(&seed) % PROCESSES;
        uint64_t bytes = 0;

        ck_assert_int_eq(drp_drop(regions[(unsigned)rand_r(&seed) % REGIONS], 0, SIZE, &bytes, NULL), 0);
        freed += bytes;
        drops++;
        if (drops % 100 == 50)
            ck_assert_int_eq(service_ctl(&service, out, sizeof(out), all), 0);
        for (unsigned k = 0; k < PROCESSES; k++)
            ck_assert_int_eq(waitpid(children[k].pid, NULL, WNOHANG), 0); /* it found what it must not */
        if (drops % 100 == 0) {
            child_kill(&children[i]);
            kills++;
            for (size_t k = 0; k < REGIONS; k++)
                clear_own(regions[k], i);
            start_stormer(&children[i], &stormers[i]);
        }
    }
    for (unsigned i = 0; i < PROCESSES; i++)
        child_kill(&children[i]);
    printf("%u drops, %u kills, %llu MiB freed, %llu times another one had pinned, too\n", drops, kills,
           (unsigned long long)(freed >> 20), (unsigned long long)atomic_load(&joint->meetings));
    ck_assert_uint_gt(freed, 0);
    ck_assert_uint_gt(atomic_load(&joint->meetings), 0);
    for (size_t i = 0; i < REGIONS; i++)
        drp_region_free(regions[i]);
    drp_free(d);
    munmap(joint, sizeof(*joint));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("shared-storm");
    TCase *tcase = tcase_create("storm");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60 + 2 * storm_seconds());
    tcase_add_loop_test(tcase, test_storm, 0, sizeof(preferred) / sizeof(preferred[0]));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
