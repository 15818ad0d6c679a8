/* SPDX-License-Identifier: MIT */
/*
 * The installed service under systemd, which systemd.sh has put there: the first client starts it; settings are read again; it is restarted, ended,
 * and held under a client that has pinned data; a loop that stands still is noticed. Runs in a guest, as root.
 */

#include "service.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define CHUNK 65536
#define PINNED (4 * MIB)
#define BUSY (32 * MIB)
#define RESTARTS 20
#define WAIT_MS 60000
#define SLOWEST_NS UINT64_C(5000000000)

/* One line of a command's output. Its exit status. */
static int shell(const char *command, char *line, size_t size) {
    FILE *pipe = popen(command, "re");
    int status;

    ck_assert_ptr_nonnull(pipe);
    if (!fgets(line, (int)size, pipe))
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    while (fgetc(pipe) != EOF)
        ;
    status = pclose(pipe);
    return status;
}

static void run(const char *command) {
    char line[256];
    int status = shell(command, line, sizeof(line));

    ck_assert_msg(status == 0, "%s: status %d: %s", command, status, line);
}

static void property(const char *name, char *ret, size_t size) {
    char command[128];

    snprintf(command, sizeof(command), "systemctl show --value -p %s droppabled.service", name);
    ck_assert_int_eq(shell(command, ret, size), 0);
}

static bool becomes(const char *name, const char *wanted) {
    uint64_t deadline = now_ms() + WAIT_MS;
    char value[512];

    do {
        property(name, value, sizeof(value));
        if (strstr(value, wanted))
            return true;
        nap_ms(100);
    } while (now_ms() < deadline);
    printf("%s is '%s', not '%s'\n", name, value, wanted);
    return false;
}

/* ---- a client ---- */

static struct drp *d;
static struct drp_region *pinned, *busy;
static uint64_t generation;
static pthread_t toucher;
static _Atomic bool stop;
static _Atomic uint64_t slowest;

static void *touch(void *data) {
    char *area = drp_region_address(busy);

    (void)data;
    for (size_t at = 0; !atomic_load(&stop); at = (at + 97 * CHUNK) % BUSY) {
        uint64_t began = now_ns(), took;

        area[at]++;
        took = now_ns() - began;
        if (took > atomic_load(&slowest))
            atomic_store(&slowest, took);
    }
    return NULL;
}

static void begin(void) {
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&pinned, d, PINNED, NULL), 0);
    ck_assert_int_eq(drp_region_new(&busy, d, BUSY, NULL), 0);
    ck_assert_int_eq(drp_pin(pinned, 0, PINNED, &generation), 0);
    for (size_t i = 0; i < PINNED; i += 8)
        *(uint64_t *)((char *)drp_region_address(pinned) + i) = i + 1;
    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&toucher, NULL, touch, NULL), 0);
}

static void await_reconnect(uint64_t n) {
    uint64_t deadline = now_ms() + WAIT_MS;
    struct drp_stats stats;

    while (drp_get_stats(d, &stats) < 0 || stats.reconnects < n) {
        ck_assert_msg(now_ms() < deadline, "the library does not find the service again");
        nap_ms(5);
    }
}

static void end(void) {
    atomic_store(&stop, true);
    pthread_join(toucher, NULL);
    for (size_t i = 0; i < PINNED; i += 8)
        ck_assert_uint_eq(*(uint64_t *)((char *)drp_region_address(pinned) + i), i + 1);
    ck_assert_uint_eq(drp_generation(pinned, 0, PINNED), generation);
    drp_unpin(pinned, 0, PINNED);
    pinned = drp_region_free(pinned);
    busy = drp_region_free(busy);
    d = drp_free(d);
}

/* ---- tests ---- */

START_TEST(test_activation) {
    struct drp_region_info info;
    char line[512];
    struct stat st;

    property("ActiveState", line, sizeof(line));
    ck_assert_str_eq(line, "inactive");
    ck_assert_int_eq(stat("/run/droppabled.sock", &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0660);
    begin();
    ck_assert(becomes("ActiveState", "active"));
    ck_assert(becomes("StatusText", "1 client, 2 regions"));
    property("StatusText", line, sizeof(line));
    printf("status: %s\n", line);
    ck_assert_int_eq(shell("ps -o user= -C droppabled", line, sizeof(line)), 0);
    ck_assert(strncmp(line, "droppabl", 8) == 0);
    ck_assert_int_eq(
        shell("grep CapEff /proc/$(systemctl show --value -p MainPID droppabled)/status", line, sizeof(line)), 0);
    printf("after start: %s\n", line);
    ck_assert_int_eq(strtoull(strchr(line, ':') + 1, NULL, 16) & (1ULL << 21), 0); /* CAP_SYS_ADMIN */
    ck_assert_int_eq(shell("stat -c '%U %a' /dev/userfaultfd", line, sizeof(line)), 0);
    ck_assert_str_eq(line, "droppable 600");
    ck_assert_int_eq(shell("cat /sys/fs/cgroup/droppable.slice/memory.min", line, sizeof(line)), 0);
    ck_assert_str_eq(line, "33554432");
    drp_region_get_info(busy, &info);
    ck_assert_int_eq(info.interception, DRP_INTERCEPTION_FULL);
    end();
}
END_TEST

START_TEST(test_who_may) {
    char line[512];

    run("useradd -M somebody 2>/dev/null; useradd -M -G droppable member 2>/dev/null; true");
    ck_assert_int_ne(
        shell("setpriv --reuid somebody --regid somebody --clear-groups droppablectl status 2>&1", line, sizeof(line)),
        0);
    ck_assert_ptr_nonnull(strstr(line, "Permission denied"));
    ck_assert_int_eq(
        shell("setpriv --reuid member --regid member --init-groups droppablectl status", line, sizeof(line)), 0);
}
END_TEST

START_TEST(test_reload) {
    char line[512];

    begin();
    run("mkdir -p /etc/droppable && printf '[Limits]\\nRegionsPerClient=2\\n' >/etc/droppable/droppabled.conf");
    run("systemctl reload droppabled");
    for (uint64_t deadline = now_ms() + WAIT_MS;; nap_ms(20)) {
        struct drp_region *more;

        if (drp_region_new(&more, d, CHUNK, NULL) < 0)
            break;
        drp_region_free(more);
        ck_assert(now_ms() < deadline);
    }
    ck_assert(becomes("ActiveState", "active"));
    ck_assert_int_eq(
        shell("journalctl -b -u droppabled -o cat | grep -c \"RegionsPerClient=: '1024' -> '2'\"", line, sizeof(line)),
        0);
    run("rm /etc/droppable/droppabled.conf && systemctl reload droppabled");
    end();
}
END_TEST

START_TEST(test_restarts) {
    begin();
    atomic_store(&slowest, 0);
    for (uint64_t n = 1; n <= RESTARTS; n++) {
        ck_assert_int_eq(drp_drop(busy, 0, BUSY, NULL, NULL), 0);
        if (n % 2)
            run("systemctl restart droppabled");
        else
            run("systemctl kill -s KILL droppabled");
        await_reconnect(n);
    }
    printf("%d restarts, half of them by SIGKILL: the slowest access took %.0f ms\n", RESTARTS, (double)slowest / 1e6);
    ck_assert_uint_lt(slowest, SLOWEST_NS);
    end();
}
END_TEST

START_TEST(test_watchdog) {
    char line[512];
    uint64_t began;

    begin();
    run("mkdir -p /run/systemd/system/droppabled.service.d && "
        "printf '[Service]\\nWatchdogSec=4s\\n' >/run/systemd/system/droppabled.service.d/watchdog.conf && "
        "systemctl daemon-reload && systemctl restart droppabled");
    await_reconnect(1);
    nap_ms(10000); /* well beyond it, under load */
    ck_assert_int_eq(shell("journalctl -b -u droppabled -o cat | grep -c 'Watchdog timeout'", line, sizeof(line)) == 0,
                     0);
    began = now_ms();
    run("kill -STOP $(systemctl show --value -p MainPID droppabled)");
    await_reconnect(2);
    printf("a service that stands still is started again after %llu ms (WatchdogSec=4s)\n",
           (unsigned long long)(now_ms() - began));
    ck_assert_int_eq(shell("journalctl -b -u droppabled -o cat | grep 'Watchdog timeout'", line, sizeof(line)), 0);
    end();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("systemd");
    TCase *tcase = tcase_create("systemd");

    tcase_set_timeout(tcase, 400);
    tcase_add_test(tcase, test_activation);
    tcase_add_test(tcase, test_who_may);
    tcase_add_test(tcase, test_reload);
    tcase_add_test(tcase, test_restarts);
    tcase_add_test(tcase, test_watchdog);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
