/* SPDX-License-Identifier: MIT */
/*
 * The crash contract under systemd: the installed service, in a build that has crash points (daemon/crash-point.h), kills itself at one of them under
 * clients that check all they do (crash-load.c); systemd starts the next one, and they go on. At the end nothing is left. In a guest, as root.
 *
 * An emulated guest takes up to a minute for a point, so these are some; test-crash-points has all.
 *
 * Which point, says a file that systemd reads at each start. When a service has ended, a script of the unit's (ExecStopPost=) notes of what it ended and
 * where it was to, and puts the next order there: so an order is for one service, whatever that ends of.
 */

#include "child.h"
#include "crash-load.h"
#include "fixture.h"
#include "installed.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDERS "/run/droppable-crash"
#define VARIABLE "DROPPABLE_CRASH_POINT="
#define REACH_MS 120000
#define ENDS_MAX 4

enum when { WORKING, STARTING, TAKING_OVER, ENDING };

static const struct {
    const char *point;
    enum when when;
} points[] = {
    /* register */
    {"hello-replied", WORKING},
    {"create-made", WORKING},
    {"map-registered", WORKING},
    /* fault */
    {"event-read", WORKING},
    {"fault-chosen", WORKING},
    {"armed", WORKING},
    /* drop */
    {"drop-odd", WORKING},
    {"drop-punched", WORKING},
    {"drop-settled", WORKING},
    /* pin wait */
    {"pin-wait", WORKING},
    {"drop-pinned", WORKING},
    /* reload */
    {"reload-read", WORKING},
    {"reload-swapped", WORKING},
    /* restart */
    {"start-unprivileged", STARTING},
    {"start-listening", STARTING},
    {"adopt-unfinished", TAKING_OVER},
    {"end-disconnected", ENDING},
};

/* ---- the unit ---- */

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "we");

    ck_assert_msg(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

/* For all of the program. */
static void change_unit(void) {
    char program[256], text[1024];

    program_path("droppabled-crash-points", program, sizeof(program));
    snprintf(text, sizeof(text),
             "[Service]\n"
             "ExecStart=\n"
             "ExecStart=%s\n"
             "ExecPaths=%s\n"
             "SystemCallFilter=kill\n" /* itself */
             "EnvironmentFile=-" ORDERS "/order\n"
             "ExecStopPost=+/bin/sh " ORDERS "/ended\n",
             program, program);
    run("mkdir -p " ORDERS " /run/systemd/system/droppabled.service.d && touch " ORDERS "/order");
    write_file("/run/systemd/system/droppabled.service.d/crash.conf", text);
    write_file(ORDERS "/ended", "cd " ORDERS "\n"
                                "echo \"$(cat order) $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS\" >>ends\n"
                                "head -n 1 orders >order\n"
                                "sed -i 1d orders\n");
    run("systemctl daemon-reload && systemctl restart droppabled");
}

static void restore_unit(void) {
    run("rm -r " ORDERS " /run/systemd/system/droppabled.service.d/crash.conf");
    run("systemctl daemon-reload");
    run("systemctl restart droppabled");
}

/* A service without orders, also behind a test that failed, and a start limit that is not near. */
static void setup(void) {
    run(": >" ORDERS
        "/orders; systemctl reset-failed droppabled.socket droppabled.service; systemctl start droppabled.socket");
    run("! grep -q . " ORDERS "/order || systemctl restart droppabled; : >" ORDERS "/ends");
}

/* ---- the end of it ---- */

/* How many services have ended. */
static size_t read_ends(char ends[ENDS_MAX][128]) {
    FILE *file = fopen(ORDERS "/ends", "re");
    size_t n = 0;

    ck_assert_ptr_nonnull(file);
    for (char *newline; n < ENDS_MAX && fgets(ends[n], 128, file) && (newline = strchr(ends[n], '\n')); n++)
        *newline = '\0';
    fclose(file);
    return n;
}

static void terminate_if_up(const char *point) {
    char line[128];

    if (shell(line, sizeof(line), "grep -qx " VARIABLE "%s " ORDERS "/order && systemctl is-active droppabled",
              point) == 0)
        run("systemctl --no-block restart droppabled");
}

/* Short lives, droppablectl, settings that are read again: whoever finds the service dying, waits or has an error. */
static void disturb(void) {
    struct child mortal;
    char line[256];

    child_start(&mortal, crash_load_mortal, NULL);
    child_end(&mortal);
    (void)shell(line, sizeof(line), "droppablectl drop --all 2>&1");
    (void)shell(line, sizeof(line), "systemctl --no-block reload droppabled 2>&1");
}

/* Each service but the first one, which had no orders, has died as it was ordered to: by its own hand. */
static void await_ends(const char *const *ordered, size_t n, enum when when) {
    char ends[ENDS_MAX][128], wanted[128];
    uint64_t deadline = now_ms() + REACH_MS;

    while (read_ends(ends) < 1 + n) {
        ck_assert_msg(now_ms() < deadline, "%s is not reached", ordered[n - 1]);
        if (when == ENDING)
            terminate_if_up(ordered[n - 1]);
        else
            disturb();
        nap_ms(50);
    }
    ck_assert_str_eq(ends[0], " success exited 0");
    for (size_t i = 0; i < n; i++) {
        snprintf(wanted, sizeof(wanted), VARIABLE "%s signal killed KILL", ordered[i]);
        ck_assert_str_eq(ends[1 + i], wanted);
    }
}

static void expect_idle(void) {
    uint64_t deadline = deadline_in(INSTALLED_WAIT_MS);

    while (service_status(&service, "sessions") != 1 || service_status(&service, "regions") != 0)
        ck_assert_msg(now_ms() < deadline, "clients that are gone still count");
    ck_assert_uint_eq(service_status(&service, "resident_bytes"), 0);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
}

START_TEST(test_point) {
    const char *ordered[] = {points[_i].point, points[_i].point}, *point = points[_i].point;
    size_t n = points[_i].when == TAKING_OVER ? 2 : 1;
    uint64_t began = now_ms(), died;
    struct child clients[2];
    char line[128];

    child_start(&clients[0], crash_load_run, NULL);
    child_start(&clients[1], crash_load_guest, NULL);
    child_expect(&clients[0], 'r');
    child_expect(&clients[1], 'r');
    if (n == 2)
        ordered[0] = "drop-claimed"; /* what it leaves is for the next one to settle */
    for (size_t i = 0; i < n; i++)
        run("echo " VARIABLE "%s >>" ORDERS "/orders", ordered[i]);
    run("systemctl --no-block restart droppabled");
    await_ends(ordered, n, points[_i].when);
    died = now_ms();

    ck_assert(property_becomes("ActiveState", "active"));
    property("NRestarts", line, sizeof(line));
    if (points[_i].when != ENDING)
        ck_assert_uint_ge(strtoul(line, NULL, 10), n);
    for (int i = 0; i < 2; i++)
        ck_assert(child_say(clients[i].socket, 'p'));
    for (int i = 0; i < 2; i++)
        child_expect(&clients[i], 'p');
    ck_assert_int_eq(shell(line, sizeof(line), "droppablectl drop --all"), 0);
    ck_assert_uint_gt(service_status(&service, "dropped_bytes"), 0);
    for (int i = 0; i < 2; i++)
        ck_assert(child_say(clients[i].socket, 'e'));
    for (int i = 0; i < 2; i++)
        child_end(&clients[i]);
    expect_idle();
    printf("died at %s after %llu ms, all well after %llu ms more\n", point, (unsigned long long)(died - began),
           (unsigned long long)(now_ms() - died));
}
END_TEST

static bool is_asked_for(const char *point, char *const *asked) {
    if (!*asked)
        return true;
    while (*asked && strcmp(*asked, point) != 0)
        asked++;
    return *asked;
}

/* usage: test-crash-systemd [POINT...] */
int main(int argc, char *argv[]) {
    Suite *suite = suite_create("crash-systemd");
    TCase *tcase = tcase_create("crash");
    int n = (int)(sizeof(points) / sizeof(points[0])), tried = 0, status;

    (void)argc;
    snprintf(service.socket, sizeof(service.socket), "/run/droppabled.sock");
    tcase_set_timeout(tcase, 60);
    tcase_add_unchecked_fixture(tcase, change_unit, restore_unit);
    tcase_add_checked_fixture(tcase, setup, NULL);
    for (int i = 0; i < n; i++)
        if (is_asked_for(points[i].point, argv + 1)) {
            tcase_add_loop_test(tcase, test_point, i, i + 1);
            tried++;
        }
    suite_add_tcase(suite, tcase);
    status = suite_run(suite);
    printf("%s at %d crash points\n", status == 0 ? "died" : "failed", tried);
    return tried > 0 ? status : 1;
}
