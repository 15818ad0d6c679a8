/* SPDX-License-Identifier: MIT */
/*
 * Domains of a real service: what tells it that a cgroup runs short, beside its own looks; and that it knows where its clients are charged when
 * they move, and when cgroups are removed. The service's log says which source fired; /proc/self of the test stays outside.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"

#include <check.h>
#include <droppable/droppable.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define LIMIT (64 * MIB)
#define SIZE (16 * MIB)
#define PAGE (4 * KIB)
#define WAIT_MS 5000
#define HIGH "memory.high was crossed"
#define MAX "the limit was met"
#define THRESHOLD "usage is near the limit"
#define LEVEL "reclaim has trouble"
#define UNTIL_KILLED UINT64_MAX

static struct memcg memcg;

static void setup(void) {
    fixture_setup();
}

static void teardown(void) {
    memcg_remove(&memcg);
    fixture_teardown();
}

/* ---- what fires ---- */

/* A client that keeps all of its region pinned: nothing can be dropped for others. */
static void be_client(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    memcg_enter(&memcg);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    child_check(drp_pin(region, 0, SIZE, NULL) == 0);
    memset(drp_region_address(region), 1, SIZE);
    child_check(child_say(socket, 'r'));
    child_check(child_hear(socket, &word));
    drp_free(d);
}

/* Takes memory that nobody can take back, and keeps it. */
static void be_hog(int socket, void *data) {
    uint64_t bytes = *(const uint64_t *)data;
    char word;

    memcg_enter(&memcg);
    for (uint64_t taken = 0; taken < bytes; taken += MIB) {
        char *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        child_check(memory != MAP_FAILED);
        memset(memory, 1, MIB);
        usleep(1000);
    }
    child_check(child_say(socket, 'r'));
    child_check(child_hear(socket, &word));
}

static void expect_source(const char *what) {
    char line[160];

    snprintf(line, sizeof(line), "domain '%s': %s\n", memcg_name(&memcg), what);
    ck_assert_msg(service_log_has(&service, line, WAIT_MS), "the log does not have: %s", line);
}

static bool make_memcg(void) {
    const char *reason = "";

    if (memcg_make(&memcg, LIMIT, &reason))
        return true;
    printf("skipped: %s\n", reason);
    return false;
}

/* Usage comes near the limit; what is in use cannot be dropped. */
START_TEST(test_near_the_limit) {
    struct child client, hog;
    uint64_t bytes = LIMIT - SIZE - 4 * MIB;

    if (!make_memcg())
        return;
    child_start(&client, be_client, NULL);
    child_expect(&client, 'r');
    if (memcg.version == 2)
        ck_assert(memcg_set(&memcg, "memory.high", LIMIT - 12 * MIB));
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    expect_source(memcg.version == 2 ? HIGH : THRESHOLD);
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* The limit is met, and the kernel ends somebody. */
START_TEST(test_at_the_limit) {
    struct child client, hog;
    uint64_t bytes = UNTIL_KILLED;
    int status;

    if (!make_memcg())
        return;
    child_start(&client, be_client, NULL);
    child_expect(&client, 'r');
    child_start(&hog, be_hog, &bytes);
    ck_assert_int_eq(waitpid(hog.pid, &status, 0), hog.pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(hog.socket);
    expect_source(MAX);
    if (memcg.version == 1)
        expect_source(LEVEL);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* A limit that is set while the client is there is watched, too. */
START_TEST(test_limit_is_set_later) {
    struct child client, hog;
    uint64_t bytes = LIMIT / 2 - SIZE - 2 * MIB;

    if (!make_memcg() || memcg.version == 2)
        return;
    child_start(&client, be_client, NULL);
    child_expect(&client, 'r');
    ck_assert(memcg_set(&memcg, "memory.limit_in_bytes", LIMIT / 2));
    usleep(1500000); /* the service looks once a second */
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    expect_source(THRESHOLD);
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("domains");
    TCase *sources = tcase_create("sources");
    SRunner *runner;
    int failed;

    tcase_set_timeout(sources, 60);
    tcase_add_checked_fixture(sources, setup, teardown);
    tcase_add_test(sources, test_near_the_limit);
    tcase_add_test(sources, test_at_the_limit);
    tcase_add_test(sources, test_limit_is_set_later);
    suite_add_tcase(suite, sources);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
