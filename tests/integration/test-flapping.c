/* SPDX-License-Identifier: MIT */
/*
 * A limit that changes all the time, with somebody to look at it each time. To move a threshold takes the kernel 20 ms: others' requests do not wait
 * for that.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB (UINT64_C(1) << 20)
#define LIMIT (64 * MIB)
#define SPAN (2 * MIB)
#define FLAPS 40
#define SERIES_MS 20000
#define ANSWER_NS (UINT64_C(5000000) * (under_sanitizer() ? 4 : 1))

static struct memcg memcg;

static int compare_times(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* What three of four regions take no longer than, ns. */
static uint64_t flap(int connection) {
    struct raw_region region;
    uint64_t times[FLAPS];

    for (int i = 0; i < FLAPS; i++) {
        child_check(
            memcg_set(&memcg, memcg.version == 1 ? "memory.limit_in_bytes" : "memory.max", i % 2 ? LIMIT : LIMIT / 2));
        times[i] = now_ns();
        raw_region_new(connection, SPAN, &region);
        raw_region_end(connection, &region);
        times[i] = now_ns() - times[i];
    }
    qsort(times, FLAPS, sizeof(times[0]), compare_times);
    fprintf(stderr, "a region takes %.1f ms, at most %.1f ms\n", (double)times[FLAPS / 2] / 1e6,
            (double)times[FLAPS - 1] / 1e6);
    return times[FLAPS * 3 / 4];
}

static void be_flapper(int socket, void *data) {
    uint64_t deadline = now_ms() + SERIES_MS;
    int connection;

    (void)data;
    memcg_enter(&memcg);
    connection = raw_session("flapper");
    while (flap(connection) >= ANSWER_NS)
        child_check(now_ms() < deadline);
    child_say(socket, 'd');
    close(connection);
}

START_TEST(test_limit_flaps) {
    const char *reason = "";
    struct child flapper;

    if (!memcg_make(&memcg, LIMIT, &reason)) {
        suite_skip_part("a limit that flaps", reason);
        return;
    }
    child_start(&flapper, be_flapper, NULL);
    child_expect(&flapper, 'd');
    child_end(&flapper);
    memcg_remove(&memcg);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("flapping");
    TCase *tcase = tcase_create("flapping");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_add_test(tcase, test_limit_flaps);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
