/* SPDX-License-Identifier: MIT */
/* `droppabled --record FILE`: what a client does is in the trace, in the order in which it was done, and a file that cannot be had is named. */

#include "again.h"
#include "fixture.h"
#include "service.h"
#include "suite.h"
#include "tree.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536
#define SIZE ((size_t)64 * CHUNK)
#define WAIT_MS 5000

static char path[128];

/* The first line behind *at that begins so; *at moves behind it. */
static bool find_line(const char **at, const char *wanted) {
    for (const char *line = *at; line && *line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, wanted, strlen(wanted)) == 0) {
            *at = line + strlen(wanted);
            return true;
        }
    return false;
}

static void expect_line(const char **at, char letter, uint64_t region, const char *rest) {
    char wanted[128];

    snprintf(wanted, sizeof(wanted), "%c %" PRIu64 "%s", letter, region, rest);
    ck_assert_msg(find_line(at, wanted), "no line '%s' in\n%s", wanted, tree_text(path));
}

/* Pins are sampled: the line comes within a tick or two. */
static void wait_for_line(char letter, uint64_t region, const char *rest) {
    uint64_t deadline = now_ms() + WAIT_MS;
    char wanted[128];
    bool found = false;

    snprintf(wanted, sizeof(wanted), "%c %" PRIu64 "%s", letter, region, rest);
    while (!found && now_ms() < deadline) {
        const char *at = tree_text(path);

        found = find_line(&at, wanted);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    ck_assert_msg(found, "no line '%s' in\n%s", wanted, tree_text(path));
}

START_TEST(everything_is_in_it) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = CHUNK};
    const char *const drop_all[] = {"drop", "--all", NULL};
    char *p, out[4096], wanted[128];
    struct service recorded;
    struct drp_region *region;
    struct drp *d;
    const char *at;
    uint64_t id;

    snprintf(path, sizeof(path), "/tmp/test-recording-%d", (int)getpid());
    service_record(path);
    service_start(&recorded, NULL);
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    p = drp_region_address(region);
    memset(p, 1, SIZE);
    at = tree_text(path);
    id = 0;
    for (uint64_t deadline = now_ms() + WAIT_MS; id == 0 && now_ms() < deadline;) {
        at = tree_text(path);
        if (find_line(&at, "R "))
            id = strtoull(at, NULL, 10);
    }
    ck_assert_uint_gt(id, 0);
    ck_assert_int_eq(drp_pin(region, 3 * CHUNK, 2 * CHUNK, NULL), 0);
    ck_assert_int_eq(drp_unpin(region, 3 * CHUNK, 2 * CHUNK), 0);
    wait_for_line('p', id, " 3 2 ");
    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &recorded);) {
        memset(p, 1, 2 * CHUNK);
        ck_assert_int_eq(drp_drop(region, 0, 2 * CHUNK, NULL, NULL), 0);
    }
    p[CHUNK] = 2;
    ck_assert_int_eq(service_ctl(&recorded, out, sizeof(out), drop_all), 0);
    p[10 * CHUNK] = 3;
    region = drp_region_free(region);
    d = drp_free(d);
    service_stop(&recorded);

    at = tree_text(path);
    ck_assert(find_line(&at, "droppable-trace 1\n"));
    ck_assert(find_line(&at, "D "));
    expect_line(&at, 'R', id, " ");
    snprintf(wanted, sizeof(wanted), " %zu 16 2 100\n", SIZE);
    ck_assert_msg(strncmp(strchr(strchr(at, ' ') + 1, ' '), wanted, strlen(wanted)) == 0, "%s", at);
    if (may_intercept())
        expect_line(&at, 'f', id, " 0\n");
    expect_line(&at, 'p', id, " 3 2 ");
    expect_line(&at, 'o', id, " 0 2\n");
    if (may_intercept())
        expect_line(&at, 'r', id, " 1\n");
    expect_line(&at, 'E', id, "\n");
    unlink(path);
}
END_TEST

/* A budget is no demand of the machine, which a replay would have everybody meet. */
START_TEST(budgets_are_told_apart) {
    struct service recorded;
    struct drp_region *region;
    unsigned demands = 0;
    struct drp *d;

    snprintf(path, sizeof(path), "/tmp/test-recording-%d", (int)getpid());
    service_record(path);
    service_start(&recorded, NULL);
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
    memset(drp_region_address(region), 1, SIZE);
    ck_assert_int_eq(drp_region_set_budget(region, SIZE / 2), 0);
    wait_for_line('b', 1, " ");
    region = drp_region_free(region);
    d = drp_free(d);
    service_stop(&recorded);
    for (const char *line = tree_text(path); line && *line; line = strchr(line, '\n'), line += line != NULL) {
        demands += line[0] == 'd';
        ck_assert_msg(line[0] != 'g' || demands > 0, "freed for nobody's demand: %s", line);
        ck_assert_msg(line[0] != 'd' || strncmp(strchr(line + 2, ' '), " 9 ", 3) != 0, "%s", line);
    }
    unlink(path);
}
END_TEST

static int run_daemon(const char *record, char *out, size_t size) {
    char command[512];
    FILE *pipe;
    size_t n;

    snprintf(command, sizeof(command), "%s/droppabled --socket /tmp/test-recording-none --record %s 2>&1",
             getenv("DROPPABLE_TEST_BINDIR"), record);
    pipe = popen(command, "re");
    ck_assert_ptr_nonnull(pipe);
    n = fread(out, 1, size - 1, pipe);
    out[n] = '\0';
    return pclose(pipe);
}

START_TEST(files_that_cannot_be_had) {
    char out[4096];

    ck_assert_int_ne(run_daemon("/nowhere/trace", out, sizeof(out)), 0);
    ck_assert_msg(strstr(out, "--record /nowhere/trace: cannot open it: No such file") != NULL, "%s", out);
    ck_assert_int_ne(run_daemon("/dev/null", out, sizeof(out)), 0);
    ck_assert_msg(strstr(out, "--record /dev/null: not a regular file") != NULL, "%s", out);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("recording");
    TCase *tcase = tcase_create("recording");

    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, everything_is_in_it);
    tcase_add_test(tcase, budgets_are_told_apart);
    tcase_add_test(tcase, files_that_cannot_be_had);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
