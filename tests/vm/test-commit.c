/* SPDX-License-Identifier: MIT */
/*
 * The kernel does not overcommit (vm.overcommit_memory=2), so that shared memory takes from what everybody may have: how much plain memory is to be had
 * beside a client's droppable memory, and how much without? In a virtual machine only. One case (CK_RUN_CASE): commit.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define DROPPABLE (128 * MIB)
#define PERCENT 60
/* What the holder has besides, and what is kept free. */
#define LEFT_MAX (32 * MIB)

static void set_vm(const char *name, unsigned value) {
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/sys/vm/%s", name);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_gt(fprintf(file, "%u\n", value), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* Holds it until it is to end; at any word says how many MiB there are still. */
static void hold(int socket, void *data) {
    uint64_t *there = data;
    struct drp_region *region;
    struct drp_stats stats;
    struct drp *d;
    char word;

    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, DROPPABLE, NULL) == 0);
    memset(drp_region_address(region), 0x5a, DROPPABLE);
    child_check(child_say(socket, 'h'));
    while (child_hear(socket, &word) && word != 'e') {
        child_check(drp_get_stats(d, &stats) == 0);
        *there = stats.resident_bytes;
        child_check(child_say(socket, 'd'));
    }
    drp_free(d);
}

/* Until there is no more; and how much it was. */
static void take_all(int socket, void *data) {
    uint64_t *taken = data;

    for (;; *taken += MIB) {
        volatile char *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED)
            break;
        for (uint64_t at = 0; at < MIB; at += PAGE)
            memory[at] = 1;
    }
    child_check(child_say(socket, 'd'));
}

static uint64_t take_all_there_is(uint64_t *taken) {
    struct child child;

    *taken = 0;
    child_start(&child, take_all, taken);
    child_expect(&child, 'd');
    child_end(&child);
    return *taken;
}

START_TEST(limit_is_met_by_drops) {
    uint64_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), without, with;
    struct child holder;

    ck_assert_ptr_ne(shared, MAP_FAILED);
    set_vm("overcommit_ratio", PERCENT);
    set_vm("overcommit_memory", 2);
    fixture_start(NULL);
    without = take_all_there_is(shared);
    child_start(&holder, hold, shared + 1);
    child_expect(&holder, 'h');
    with = take_all_there_is(shared);
    ck_assert(child_say(holder.socket, 's'));
    child_expect(&holder, 'd');
    printf("commit: %" PRIu64 " MiB of plain memory, beside 128 MiB droppable %" PRIu64 "; of that %" PRIu64
           " MiB are left\n",
           without / MIB, with / MIB, shared[1] / MIB);
    ck_assert(child_say(holder.socket, 'e'));
    child_end(&holder);
    fixture_teardown();
    set_vm("overcommit_memory", 0);
    ck_assert_uint_gt(without, DROPPABLE);
    ck_assert_uint_ge(with + LEFT_MAX, without);
}
END_TEST

int main(void) {
    const char *own = getenv("DROPPABLE_TEST_OWN_MACHINE");
    Suite *suite = suite_create("commit");
    TCase *tcase = tcase_create("commit");

    if (!own || strcmp(own, "yes") != 0)
        skip_all("takes what everybody may have: only in a virtual machine, by `./run vm`");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, limit_is_met_by_drops);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
