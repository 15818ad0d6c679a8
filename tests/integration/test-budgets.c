/* SPDX-License-Identifier: MIT */
/*
 * Budgets: who has more is brought back under it within a second, the coldest first, and stays there; nobody else loses anything. Nothing of
 * the machine is short meanwhile.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define MIB (UINT64_C(1) << 20)
#define CHUNK ((size_t)65536)
#define SIZE ((size_t)16 << 20)
#define WAIT_MS 1000
#define READ_AGAIN "settings read again, 1 changed"

static void client(struct drp **ret, struct drp_region **ret_region, size_t size) {
    ck_assert_int_eq(drp_new(ret, NULL), 0);
    ck_assert_int_eq(drp_region_new(ret_region, *ret, size, NULL), 0);
    memset(drp_region_address(*ret_region), 7, size);
}

static uint64_t resident(struct drp *d) {
    struct drp_stats stats;

    ck_assert_int_eq(drp_get_stats(d, &stats), 0);
    return stats.resident_bytes;
}

static uint64_t dropped(struct drp *d) {
    struct drp_stats stats;

    ck_assert_int_eq(drp_get_stats(d, &stats), 0);
    return stats.dropped_bytes;
}

/* Is it under the budget within a second, and then stays as it is, with no more lost than had to be? */
static void check_comes_under(struct drp *d, uint64_t budget, uint64_t had) {
    uint64_t began = now_ms(), deadline = began + WAIT_MS, lost;

    while (resident(d) > budget) {
        ck_assert_msg(now_ms() < deadline, "%llu bytes are resident after a second", (unsigned long long)resident(d));
        nap_ms(1);
    }
    printf("under the budget after %llu ms\n", (unsigned long long)(now_ms() - began));
    while ((lost = dropped(d)) < had - budget) { /* it counts when its slice is settled */
        ck_assert_msg(now_ms() < deadline, "%llu bytes are counted as dropped", (unsigned long long)lost);
        nap_ms(1);
    }
    nap_ms(500); /* the margin's chunk may be the last of the slice, or of the next one */
    lost = dropped(d);
    ck_assert_uint_le(lost, had - budget + budget / 64 + 2 * CHUNK);
    nap_ms(500);
    ck_assert_uint_eq(dropped(d), lost);
}

/* Ticks of the clock page lie between what was before and what comes. */
static void grow_old(void) {
    nap_ms(1500);
}

static void touch(struct drp_region *region, size_t offset, size_t length) {
    for (size_t at = offset; at < offset + length; at += CHUNK) {
        ck_assert_int_eq(drp_pin(region, at, CHUNK, NULL), 0);
        ck_assert_int_eq(drp_unpin(region, at, CHUNK), 0);
    }
}

struct other {
    struct memcg *memcg; /* in another cgroup, */
    bool is_nobody;      /* or of another user */
    size_t size;
};

/* Fills a region, says so, and says at the end whether it lost anything. */
static void fill_and_wait(int socket, void *data) {
    const struct other *other = data;
    struct drp_stats stats;
    struct drp_region *region;
    struct drp *d;
    char word;

    if (other->memcg)
        memcg_enter(other->memcg);
    else if (other->is_nobody)
        child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, other->size, NULL) == 0);
    memset(drp_region_address(region), 7, other->size);
    child_say(socket, 'f');
    while (child_hear(socket, &word) && word == '?') {
        child_check(drp_get_stats(d, &stats) == 0);
        child_say(socket, stats.dropped_bytes == 0 ? '0' : stats.resident_bytes <= 6 * MIB ? 'u' : 'o');
    }
    region = drp_region_free(region);
    d = drp_free(d);
}

static char ask(const struct child *child) {
    char word = '\0';

    child_say(child->socket, '?');
    ck_assert(child_hear(child->socket, &word));
    return word;
}

START_TEST(test_client) {
    struct other other = {.size = SIZE / 4};
    struct drp_region *region;
    struct child child;
    struct drp *d;

    fixture_start(NULL);
    child_start(&child, fill_and_wait, &other);
    child_expect(&child, 'f');
    client(&d, &region, SIZE);
    grow_old();
    touch(region, SIZE / 4, SIZE / 4); /* what is hot lies in the middle */
    service_reload(&service, "[Budgets]\nClient=6M\n", READ_AGAIN);
    check_comes_under(d, 6 * MIB, SIZE);
    ck_assert(is_filled((char *)drp_region_address(region) + SIZE / 4, 7, SIZE / 4));
    ck_assert_int_eq(ask(&child), '0');

    /* Filled again and again, it stays there or comes back. */
    for (int i = 0; i < 3; i++) {
        uint64_t before = dropped(d), left, had;

        memset(drp_region_address(region), 8, SIZE);
        /* What is punched is not resident at once, and counted as dropped when its slice is settled. */
        for (uint64_t deadline = now_ms() + WAIT_MS;; nap_ms(1)) {
            left = resident(d);
            had = left + dropped(d) - before;
            if (left <= 6 * MIB && had >= SIZE)
                break;
            ck_assert_msg(now_ms() < deadline, "%llu bytes are resident after a second, of %llu filled",
                          (unsigned long long)left, (unsigned long long)had);
        }
    }
    ck_assert_int_eq(ask(&child), '0');
    child_say(child.socket, 'e');
    child_end(&child);
    region = drp_region_free(region);
    drp_free(d);
    fixture_teardown();
}
END_TEST

static uint64_t limit_of_process(const char *budget) {
    char out[4096], pid[16];
    const char *at;

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    ck_assert_int_eq(
        service_ctl(&service, out, sizeof(out),
                    (const char *const[]){"--json", "limit", "--pid", pid, budget ? "--budget" : NULL, budget, NULL}),
        0);
    at = strstr(out, "\"budget\":");
    ck_assert_msg(at != NULL, "%s", out);
    return strtoull(at + strlen("\"budget\":"), NULL, 10);
}

/* `why` names whose budget it was. */
static void expect_told(void) {
    char out[16384], wanted[160];

    snprintf(wanted, sizeof(wanted),
             "\"budget\":{\n        \"scope\":\"process\",\n        \"id\":%d,\n        \"bytes\":6291456,\n",
             (int)getpid());
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"--json", "why", NULL}), 0);
    ck_assert_msg(strstr(out, wanted) != NULL, "no %s in\n%s", wanted, out);
    snprintf(wanted, sizeof(wanted), "because     process %d was over the budget of 6.0 MiB, with ", (int)getpid());
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"why", NULL}), 0);
    ck_assert_msg(strstr(out, wanted) != NULL, "no '%s' in\n%s", wanted, out);
}

/* What is set for a process is for all its connections together, and for those that it makes later. */
START_TEST(test_process) {
    struct drp_region *regions[3];
    struct drp *d[3];
    uint64_t deadline;

    fixture_start(NULL);
    for (int i = 0; i < 3; i++)
        client(&d[i], &regions[i], 4 * MIB);
    ck_assert_uint_eq(limit_of_process("6M"), 6 * MIB);
    for (deadline = now_ms() + 3 * WAIT_MS; resident(d[0]) + resident(d[1]) + resident(d[2]) > 6 * MIB; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    expect_told();
    for (int i = 0; i < 3; i++) {
        regions[i] = drp_region_free(regions[i]);
        d[i] = drp_free(d[i]);
    }
    ck_assert(status_becomes("sessions", 1, 10000)); /* the one that asks */
    client(&d[0], &regions[0], SIZE);
    ck_assert_uint_eq(limit_of_process(NULL), 6 * MIB);
    for (deadline = now_ms() + 3 * WAIT_MS; resident(d[0]) > 6 * MIB; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    limit_of_process("default"); /* what is kept has a descriptor */
    for (deadline = now_ms() + 3 * WAIT_MS; resident(d[0]) < SIZE; nap_ms(1)) {
        memset(drp_region_address(regions[0]), 7, SIZE);
        ck_assert_uint_lt(now_ms(), deadline);
    }
    regions[0] = drp_region_free(regions[0]);
    drp_free(d[0]);
    fixture_teardown();
}
END_TEST

/* Of two regions of a client only the one that is over. */
START_TEST(test_region) {
    struct drp_region *region, *small;
    struct drp *d;

    fixture_start(NULL);
    client(&d, &region, SIZE);
    ck_assert_int_eq(drp_region_new(&small, d, 4 * MIB, NULL), 0);
    memset(drp_region_address(small), 7, 4 * MIB);
    service_reload(&service, "[Budgets]\nRegion=4M\n", READ_AGAIN);
    check_comes_under(d, 8 * MIB, SIZE + 4 * MIB);
    ck_assert(is_filled(drp_region_address(small), 7, 4 * MIB));
    region = drp_region_free(region);
    small = drp_region_free(small);
    drp_free(d);
    fixture_teardown();
}
END_TEST

/* Two clients of a user are over together; one of another user is under its own. */
START_TEST(test_user) {
    struct other of_nobody = {.is_nobody = true, .size = 5 * MIB};
    struct drp_region *region, *second_region;
    struct drp *d, *second;
    struct child child;
    char settings[64];
    uint64_t deadline;

    snprintf(settings, sizeof(settings), _i ? "[User %u]\nBudget=6M\n" : "[Budgets]\nUser=6M\n", geteuid());
    fixture_start(NULL);
    child_start(&child, fill_and_wait, &of_nobody);
    child_expect(&child, 'f');
    client(&d, &region, 5 * MIB);
    client(&second, &second_region, 5 * MIB);
    service_reload(&service, settings, READ_AGAIN);
    for (deadline = now_ms() + WAIT_MS; resident(d) + resident(second) > 6 * MIB; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    if (geteuid() == 0)
        ck_assert_int_eq(ask(&child), '0');
    child_say(child.socket, 'e');
    child_end(&child);
    region = drp_region_free(region);
    second_region = drp_region_free(second_region);
    drp_free(d);
    drp_free(second);
    fixture_teardown();
}
END_TEST

START_TEST(test_cgroup) {
    struct drp_region *region;
    const char *reason;
    struct memcg memcg;
    struct other inside = {.memcg = &memcg, .size = SIZE};
    struct child child;
    uint64_t deadline;
    struct drp *d;

    if (!memcg_make(&memcg, 256 * MIB, &reason)) {
        printf("without a cgroup: %s\n", reason);
        return;
    }
    fixture_start(NULL);
    child_start(&child, fill_and_wait, &inside);
    child_expect(&child, 'f');
    client(&d, &region, 5 * MIB); /* in another one */
    ck_assert_int_eq(ask(&child), '0');
    service_reload(&service, "[Budgets]\nCgroup=6M\n", READ_AGAIN);
    for (deadline = now_ms() + WAIT_MS; ask(&child) != 'u'; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_uint_eq(dropped(d), 0);
    child_say(child.socket, 'e');
    child_end(&child);
    region = drp_region_free(region);
    drp_free(d);
    memcg_remove(&memcg);
    fixture_teardown();
}
END_TEST

/* All is pinned: nothing goes, nothing spins, and somebody else is still brought under his. */
START_TEST(test_smaller_than_pins) {
    struct drp_region *region, *other_region;
    uint64_t began, deadline;
    struct drp *d, *other;

    fixture_start(NULL);
    client(&d, &region, SIZE);
    ck_assert_int_eq(drp_pin(region, 0, SIZE, NULL), 0);
    client(&other, &other_region, 8 * MIB);
    service_reload(&service, "[Budgets]\nRegion=6M\n", READ_AGAIN);
    for (deadline = now_ms() + WAIT_MS; resident(other) > 6 * MIB; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    began = process_cpu_ns(service.pid);
    nap_ms(2000);
    began = process_cpu_ns(service.pid) - began;
    printf("a budget that cannot be met: %llu us of CPU time in 2 s\n", (unsigned long long)began / 1000);
    if (!under_sanitizer())
        ck_assert_uint_lt(began, 40000000); /* 2 %: an idle service takes a hundredth of it */
    ck_assert_uint_eq(dropped(d), 0);
    ck_assert(is_filled(drp_region_address(region), 7, SIZE));

    ck_assert_int_eq(drp_unpin(region, 0, SIZE), 0);
    for (deadline = now_ms() + 2 * WAIT_MS; resident(d) > 6 * MIB; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    region = drp_region_free(region);
    other_region = drp_region_free(other_region);
    drp_free(d);
    drp_free(other);
    fixture_teardown();
}
END_TEST

/* A million pins, which take 10 ms to count: the counting has a hundredth of a CPU. */
START_TEST(test_counting_pins) {
    struct raw_region region;
    uint64_t used;
    int socket;

    fixture_start("[Limits]\nPinnedPerUser=1T\n");
    socket = raw_session("raw");
    raw_region_new(socket, 65536 * MIB, &region);
    for (uint64_t i = 0; i < region.size / CHUNK; i++)
        atomic_store_explicit(&region.cells[i].count, 1, memory_order_relaxed);
    nap_ms(500);
    used = process_cpu_ns(service.pid);
    nap_ms(2000);
    used = process_cpu_ns(service.pid) - used;
    printf("counting a million pins: %llu us of CPU time in 2 s\n", (unsigned long long)used / 1000);
    if (!under_sanitizer())
        ck_assert_uint_lt(used, 40000000); /* 2 %: twice what is promised */
    raw_region_end(socket, &region);
    close(socket);
    fixture_teardown();
}
END_TEST

/* What was written through the object, as by a virtual machine whose memory it is, the service has not seen: it looks for it. */
START_TEST(test_unseen) {
    struct drp_region *region;
    uint64_t offset;
    struct drp *d;
    int object;
    char *p;

    fixture_setup();
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
    object = drp_region_get_object(region, &offset);
    p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, object, (off_t)offset);
    ck_assert_ptr_ne(p, MAP_FAILED);
    memset(p, 7, SIZE);
    ck_assert_int_eq(drp_set_budget(d, SIZE / 2), 0);
    check_comes_under(d, SIZE / 2, SIZE);
    munmap(p, SIZE);
    close(object);
    drp_region_free(region);
    drp_free(d);
    fixture_teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("budgets");
    TCase *tcase = tcase_create("budgets");

    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_client);
    tcase_add_test(tcase, test_process);
    tcase_add_test(tcase, test_region);
    tcase_add_loop_test(tcase, test_user, 0, 2);
    tcase_add_test(tcase, test_cgroup);
    tcase_add_test(tcase, test_unseen);
    tcase_add_test(tcase, test_smaller_than_pins);
    tcase_add_test(tcase, test_counting_pins);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
