/* SPDX-License-Identifier: MIT */
/*
 * SIGHUP: new settings take effect with connections and regions held; a bad file, wherever it lies, changes nothing; what takes a restart
 * says so.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MIB (UINT64_C(1) << 20)
#define SIZE ((size_t)4 << 20)
#define WAIT_MS 10000

static struct drp *d;
static struct drp_region *region;

static void setup(void) {
    fixture_start("[Pressure]\nMachineReserve=32M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
    memset(drp_region_address(region), 7, SIZE);
}

static void teardown(void) {
    ck_assert(is_filled(drp_region_address(region), 7, SIZE));
    region = drp_region_free(region);
    d = drp_free(d);
    fixture_teardown();
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "we");

    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static int make_region(size_t size) {
    struct drp_region *more;
    int r = drp_region_new(&more, d, size, NULL);

    if (r == 0)
        drp_region_free(more);
    return r;
}

START_TEST(test_new_settings) {
    uint64_t generation = drp_generation(region, 0, SIZE);

    ck_assert_uint_eq(service_status(&service, "reserve"), 32 * MIB);
    service_reload(&service, "[Pressure]\nMachineReserve=64M\n[Limits]\nRegionBytes=8M\nRegionsPerClient=2\n",
                   "settings read again, 3 changed");
    ck_assert(service_log_has(&service, "[Pressure] MachineReserve=: '32M' -> '64M'", 0));
    ck_assert(service_log_has(&service, "[Limits] RegionBytes=: '16T' -> '8M'", 0));
    ck_assert_uint_eq(service_status(&service, "reserve"), 64 * MIB);
    ck_assert_int_eq(make_region(8 * MIB), 0);
    ck_assert_int_eq(make_region(8 * MIB + 1), -EDQUOT);
    ck_assert_uint_eq(drp_generation(region, 0, SIZE), generation);
    ck_assert_uint_eq(listing_count("regions"), 1);

    /* Less than there is: what is there stays. */
    service_reload(&service, "[Limits]\nRegionsPerClient=1\nConnections=1\n", "[Limits] RegionsPerClient=: '2' -> '1'");
    ck_assert_int_eq(make_region(4096), -EDQUOT);
    ck_assert(service_log_has(&service, "over the quota: RegionBytes", 0)); /* one line for each client */
    service_reload(&service, "", "[Limits] RegionsPerClient=: '1' -> '1024'");
    ck_assert_int_eq(make_region(8 * MIB + 1), 0);
}
END_TEST

START_TEST(test_bad_file) {
    char folder[128], file[160], word[256];

    service_reload(&service, "[Pressure]\nMachineReserve=64M\n[Limits]\nRegionsPerClient=many\n",
                   ":6: RegionsPerClient=: 'many' is not a number (1..65536): the settings stay as they were");
    ck_assert_uint_eq(service_status(&service, "reserve"), 32 * MIB);
    ck_assert_int_eq(make_region(4096), 0);

    /* In a drop-in, behind a good file. */
    snprintf(folder, sizeof(folder), "%s.d", service.config);
    snprintf(file, sizeof(file), "%s/10-local.conf", folder);
    ck_assert_int_eq(mkdir(folder, 0755), 0);
    write_file(file, "[Limit]\n");
    snprintf(word, sizeof(word), "%s:1: [Limit]: no such section: the settings stay", file);
    service_reload(&service, "[Pressure]\nMachineReserve=64M\n", word);
    ck_assert_uint_eq(service_status(&service, "reserve"), 32 * MIB);

    write_file(file, "[Pressure]\nMachineReserve=96M\n");
    service_reload(&service, "[Pressure]\nMachineReserve=64M\n", "MachineReserve=: '32M' -> '96M'");
    ck_assert_uint_eq(service_status(&service, "reserve"), 96 * MIB);
    unlink(file);
    rmdir(folder);

    unlink(service.config);
    ck_assert_int_eq(kill(service.pid, SIGHUP), 0);
    ck_assert(service_log_has(&service, "No such file or directory: the settings stay as they were", WAIT_MS));
    ck_assert_uint_eq(service_status(&service, "reserve"), 96 * MIB);
}
END_TEST

START_TEST(test_socket) {
    struct stat st;

    ck_assert_int_eq(stat(service.socket, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0666);
    service_reload(&service, "[Daemon]\nSocketMode=0600\n", "SocketMode=: '0666' -> '0600'");
    ck_assert_int_eq(stat(service.socket, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);

    /* Without privileges only a group of its own can be given to it. */
    service_reload(&service, "[Daemon]\nSocketMode=0600\nSocketGroup=54321\n", "SocketGroup=: ");
    ck_assert(service_log_has(&service, "Operation not permitted, which takes a restart, ignoring", 0));
    ck_assert_int_eq(stat(service.socket, &st), 0);
    ck_assert_uint_eq(st.st_gid, getegid());
    service_reload(&service, "[Daemon]\nSocketMode=0600\nSocketGroup=54321\nKillStuckClients=yes\n",
                   "KillStuckClients=: 'no' -> 'yes'");
}
END_TEST

static bool user_budget_is(const char *uid, uint64_t bytes) {
    char out[4096], wanted[64];

    ck_assert_int_eq(
        service_ctl(&service, out, sizeof(out), (const char *const[]){"--json", "limit", "--user", uid, NULL}), 0);
    snprintf(wanted, sizeof(wanted), "\"budget\":%llu", (unsigned long long)bytes);
    return strstr(out, wanted) != NULL;
}

/* What was set at run time goes over the settings, and outlives their change. */
START_TEST(test_run_time_settings_stay) {
    char out[4096];

    service_reload(&service, "[Budgets]\nUser=600M\n", "[Budgets] User=: 'infinity' -> '600M'");
    ck_assert(user_budget_is("4711", 600 * MIB));
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out),
                                 (const char *const[]){"limit", "--user", "4711", "--budget", "500M", NULL}),
                     0);
    service_reload(&service, "[Budgets]\nUser=300M\n", "[Budgets] User=: '600M' -> '300M'");
    ck_assert(user_budget_is("4711", 500 * MIB));
    ck_assert(user_budget_is("4712", 300 * MIB));
}
END_TEST

/* A service that has its socket from the settings. */
START_TEST(test_other_socket) {
    char program[256], config[128], path[160], text[256];
    struct stat st;
    pid_t pid;
    int status;

    snprintf(program, sizeof(program), "%s/droppabled", getenv("DROPPABLE_TEST_BINDIR"));
    snprintf(config, sizeof(config), "%s/other.conf", service.dir);
    snprintf(path, sizeof(path), "%s/other.sock", service.dir);
    snprintf(text, sizeof(text), "[Daemon]\nSocket=%s\n", path);
    write_file(config, text);
    pid = fork();
    if (pid == 0) {
        int log = open(service.log, O_WRONLY | O_APPEND | O_CLOEXEC);

        dup2(log, STDERR_FILENO);
        execl(program, program, "--config", config, (char *)NULL);
        _exit(126);
    }
    snprintf(text, sizeof(text), "listening on %s", path);
    ck_assert(service_log_has(&service, text, WAIT_MS));
    write_file(config, "[Daemon]\nSocket=/nowhere/at.all\n[Limits]\nConnections=77\n");
    ck_assert_int_eq(kill(pid, SIGHUP), 0);
    ck_assert(service_log_has(&service, "Connections=: '4096' -> '77'", WAIT_MS));
    snprintf(text, sizeof(text), "Socket=: '%s' -> '/nowhere/at.all' takes a restart, ignoring", path);
    ck_assert(service_log_has(&service, text, 0));
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_int_lt(stat(path, &st), 0);
    unlink(config);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("reload");
    TCase *tcase = tcase_create("reload");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_new_settings);
    tcase_add_test(tcase, test_bad_file);
    tcase_add_test(tcase, test_socket);
    tcase_add_test(tcase, test_run_time_settings_stay);
    tcase_add_test(tcase, test_other_socket);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
