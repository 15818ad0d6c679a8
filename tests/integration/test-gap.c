/* SPDX-License-Identifier: MIT */
/*
 * Between two services: what nobody keeps for clients, and what that costs (docs/design.md, on the descriptor store). Faults that wait for a service
 * that dies go on at once, those of the kernel on behalf of a program's only thread, too; a stopped client keeps all it has, its pins hold, and it
 * is droppable when it runs again; many clients come back in little time.
 */

#include "again.h"
#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#define MIB ((size_t)1 << 20)
#define CHUNK ((size_t)65536)
#define SIZE (4 * MIB)
#define CLIENTS 50
#define REGIONS 4
#define WAIT_MS 30000
#define BAR_NS (UINT64_C(1000000000) * (under_sanitizer() ? 5 : 1))

static void stop(pid_t pid) {
    int status;

    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert(WIFSTOPPED(status));
}

/* Reads from a pipe into memory that was dropped: the kernel's own access, which the service has to answer. */
static void read_into_dropped(int socket, void *data) {
    struct drp_region *region;
    char page[4096], word;
    struct drp *d;
    int ends[2];

    (void)data;
    memset(page, 5, sizeof(page));
    child_check(pipe2(ends, O_CLOEXEC) == 0 && write(ends[1], page, sizeof(page)) == sizeof(page));
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&region, d, SIZE, NULL) == 0);
    memset(drp_region_address(region), 1, SIZE);
    child_check(drp_drop(region, 0, SIZE, NULL, NULL) == 0);
    child_check(child_say(socket, 'd') && child_hear(socket, &word)); /* the service is stopped now */
    child_check(child_say(socket, 'b'));
    child_check(read(ends[0], drp_region_address(region), sizeof(page)) == sizeof(page));
    child_check(is_filled(drp_region_address(region), 5, sizeof(page)));
    child_check(child_say(socket, 'r'));
    drp_region_free(region);
    drp_free(d);
}

START_TEST(test_fault_of_the_kernel) {
    for (struct bar bar = {.what = "a read(2) that waited for the service, after its death", .ns = BAR_NS};
         bar_again(&bar);) {
        struct child child;
        uint64_t killed;

        child_start(&child, read_into_dropped, NULL);
        child_expect(&child, 'd');
        stop(service.pid);
        ck_assert(child_say(child.socket, 'g'));
        child_expect(&child, 'b');
        nap_ms(200); /* let it wait */
        killed = now_ns();
        ck_assert(service_kill(&service, WAIT_MS));
        child_expect(&child, 'r');
        bar.longest_ns = now_ns() - killed;
        service_restart(&service);
        child_end(&child);
        fixture_measure();
    }
}
END_TEST

/* Has regions, the first chunk of each pinned; says so, and once more when a new service has them. */
static void have_regions(int socket, void *data) {
    struct drp_region *regions[REGIONS];
    struct drp_region_info info;
    struct drp_stats stats;
    struct drp *d;
    char word;

    (void)data;
    child_check(drp_new(&d, NULL) == 0);
    for (int i = 0; i < REGIONS; i++) {
        errno = -drp_region_new(&regions[i], d, MIB, NULL); /* of which the check tells */
        child_check(errno == 0);
        child_check(drp_pin(regions[i], 0, CHUNK, NULL) == 0);
        memset(drp_region_address(regions[i]), 3, MIB);
    }
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
    for (stats.reconnects = 0; stats.reconnects == 0; nap_ms(1)) /* before, they are connected to the old one */
        drp_get_stats(d, &stats);
    for (int i = 0; i < REGIONS; i++)
        for (info.connected = false; !info.connected; nap_ms(1))
            drp_region_get_info(regions[i], &info);
    child_check(child_say(socket, 'c') && child_hear(socket, &word));
    for (int i = 0; i < REGIONS; i++)
        child_check(is_filled(drp_region_address(regions[i]), 3, CHUNK));
    child_check(child_say(socket, 'e') && child_hear(socket, &word));
    for (int i = 0; i < REGIONS; i++) {
        child_check(is_zero((char *)drp_region_address(regions[i]) + CHUNK, MIB - CHUNK));
        drp_region_free(regions[i]);
    }
    drp_free(d);
}

START_TEST(test_stopped) {
    const char *const drop[] = {"drop", "--all", NULL};
    struct child child;
    char out[4096];

    child_start(&child, have_regions, NULL);
    child_expect(&child, 'f');
    stop(child.pid);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), drop), 0);
    ck_assert_uint_eq(service_status(&service, "regions"), 0); /* nobody keeps them for it */
    ck_assert_int_eq(kill(child.pid, SIGCONT), 0);
    ck_assert(child_say(child.socket, 'g'));
    child_expect(&child, 'c');
    ck_assert_uint_eq(service_status(&service, "resident_bytes"), REGIONS * MIB);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), drop), 0);
    ck_assert_uint_eq(service_status(&service, "resident_bytes"), REGIONS * CHUNK);
    ck_assert(child_say(child.socket, 'g'));
    child_expect(&child, 'e');
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
    fixture_measure();
}
END_TEST

START_TEST(test_many_come_back) {
    struct child children[CLIENTS];
    uint64_t killed, up;

    for (int i = 0; i < CLIENTS; i++)
        child_start(&children[i], have_regions, NULL);
    for (int i = 0; i < CLIENTS; i++)
        child_expect(&children[i], 'f');
    killed = now_ms();
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    up = now_ms();
    for (int i = 0; i < CLIENTS; i++)
        ck_assert(child_say(children[i].socket, 'g'));
    for (int i = 0; i < CLIENTS; i++)
        child_expect(&children[i], 'c');
    printf("%d clients with %d regions each: a new service after %llu ms, all handed over %llu ms later\n", CLIENTS,
           REGIONS, (unsigned long long)(up - killed), (unsigned long long)(now_ms() - up));
    ck_assert_uint_eq(service_status(&service, "regions"), CLIENTS * REGIONS);
    for (int i = 0; i < CLIENTS; i++)
        child_kill(&children[i]);
    fixture_measure();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gap");
    TCase *tcase = tcase_create("gap");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 120);
    if (may_intercept())
        tcase_add_test(tcase, test_fault_of_the_kernel);
    else
        suite_skip_part("a fault of the kernel in the gap", "no userfaultfd");
    tcase_add_test(tcase, test_stopped);
    tcase_add_test(tcase, test_many_come_back);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
