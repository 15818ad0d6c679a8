/* SPDX-License-Identifier: MIT */
/*
 * The installed service under systemd, which systemd.sh has put there: the first client starts it; settings are read again; it is restarted, ended,
 * and held under a client that has pinned data; a loop that stands still is noticed. Runs in a guest: as root for the system's service, as an
 * ordinary user for that of his own manager.
 */

#include "child.h"
#include "fixture.h"
#include "installed.h"
#include "native-memory.h"
#include "restart-load.h"
#include "service.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK 65536
#define RESTARTS 20
#define SLOWEST_NS UINT64_C(5000000000)
#define BEYOND_WATCHDOG_MS 10000

/* MESSAGE_ID, as docs/service.md lists them. */
#define LISTENS "9223a668ef724e7da8cbf14bcfa7b81e"
#define RELOADED "118d9c43f1294123a6c59fcac523927d"
#define OVER_QUOTA "d08fe440dd634903a4c0c4cbaed45297"

static struct load load;

static void begin(void) {
    load_begin(&load, 4 * MIB, 32 * MIB);
}

/* A file as `systemctl edit --runtime` makes one. */
static void edit_unit(const char *section, const char *setting) {
    char folder[256];

    if (geteuid() == 0)
        snprintf(folder, sizeof(folder), "/run/systemd/system/droppabled.service.d");
    else
        snprintf(folder, sizeof(folder), "%s/systemd/user/droppabled.service.d", getenv("XDG_RUNTIME_DIR"));
    run("mkdir -p %s && printf '[%s]\n%s\n' >%s/edit.conf", folder, section, setting, folder);
    run("%s daemon-reload", systemctl());
}

/* What a test left behind, however it ended. The service's own state it keeps. */
static void as_shipped(void) {
    if (geteuid() == 0)
        run("rm -f /etc/droppable/droppabled.conf");
    edit_unit("Unit", "");
    run("%s reset-failed; %s start droppabled.socket", systemctl(), systemctl());
}

/* An entry by the journal's own protocol, where a line of stderr's would have no fields. */
static void check_entry(const char *fields, const char *const *texts) {
    char entry[4096];

    journal_entry(fields, entry, sizeof(entry));
    ck_assert_msg(strstr(entry, "\"_TRANSPORT\":\"journal\""), "%s", entry);
    ck_assert_msg(strstr(entry, "\"SYSLOG_IDENTIFIER\":\"droppabled\""), "%s", entry);
    ck_assert_msg(strstr(entry, "\"PRIORITY\":\"5\""), "%s", entry);
    for (; *texts; texts++)
        ck_assert_msg(strstr(entry, *texts), "no %s in %s", *texts, entry);
}

/* ---- activation ---- */

static void check_activation(const char *path, mode_t mode) {
    char line[512];
    struct stat st;

    property("ActiveState", line, sizeof(line));
    ck_assert_str_eq(line, "inactive");
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, mode);
    begin();
    ck_assert(property_becomes("ActiveState", "active"));
    ck_assert(property_becomes("StatusText", "1 client, 2 regions"));
    property("StatusText", line, sizeof(line));
    printf("status: %s\n", line);
    check_entry("MESSAGE_ID=" LISTENS, (const char *const[]){"\"MESSAGE\":\"listening on ", NULL});
}

/* A line of /proc/PID/NAME of the service, by what it begins with. */
static void of_process(const char *name, const char *beginning, char *ret, size_t size) {
    ck_assert_int_eq(
        shell(ret, size, "grep '^%s' /proc/$(%s show --value -p MainPID droppabled)/%s", beginning, systemctl(), name),
        0);
}

static uint64_t capabilities(const char *set) {
    char line[64];

    of_process("status", set, line, sizeof(line));
    printf("after start: %s\n", line);
    return strtoull(strchr(line, ':') + 1, NULL, 16);
}

/* A file of the service's cgroup, or of the slice's above it. */
static void expect_cgroup(const char *file, const char *wanted) {
    char line[64];

    ck_assert_int_eq(shell(line, sizeof(line), "cat /sys/fs/cgroup/droppable.slice/%s", file), 0);
    ck_assert_str_eq(line, wanted);
}

#define CAP(number) (UINT64_C(1) << (number))

/* Has its tmpfs noswap? */
static bool is_since_6_4(void) {
    unsigned major, minor;
    struct utsname name;

    ck_assert_int_eq(uname(&name), 0);
    ck_assert_int_eq(sscanf(name.release, "%u.%u", &major, &minor), 2);
    return major > 6 || (major == 6 && minor >= 4);
}

/* As docs/service.md has them. What it was given it keeps in its bounding set, from which nothing can be gained. */
static void check_capabilities(void) {
    uint64_t kept = CAP(CAP_SYS_PTRACE) | CAP(CAP_SYS_NICE) | CAP(CAP_KILL);
    uint64_t given = kept | CAP(CAP_SYS_ADMIN) | CAP(CAP_SYS_RESOURCE) | CAP(CAP_CHECKPOINT_RESTORE);

    if (!is_since_6_4())
        kept |= CAP(CAP_CHECKPOINT_RESTORE);
    ck_assert_uint_eq(capabilities("CapEff"), kept);
    ck_assert_uint_eq(capabilities("CapPrm"), kept);
    ck_assert_uint_eq(capabilities("CapInh"), 0);
    ck_assert_uint_eq(capabilities("CapAmb"), 0);
    ck_assert_uint_eq(capabilities("CapBnd"), given);
}

static void check_memory(void) {
    char line[64];

    of_process("oom_score_adj", "", line, sizeof(line));
    ck_assert_str_eq(line, "-900");
    expect_cgroup("memory.min", "33554432");
    expect_cgroup("droppabled.service/memory.min", "33554432");
    expect_cgroup("droppabled.service/memory.swap.max", "0");
}

START_TEST(test_activation) {
    struct drp_region_info info;
    char line[512];

    check_activation("/run/droppabled.sock", 0660);
    ck_assert_int_eq(shell(line, sizeof(line), "ps -o user= -C droppabled"), 0);
    ck_assert(strncmp(line, "droppabl", 8) == 0);
    check_capabilities();
    check_memory();
    ck_assert(status_feature("psi") && status_feature("psi_short")); /* set while it might */
    ck_assert_int_eq(shell(line, sizeof(line), "stat -c '%%U %%a' /dev/userfaultfd"), 0);
    ck_assert_str_eq(line, "droppable 600");
    drp_region_get_info(load.busy, &info);
    ck_assert_int_eq(info.interception, DRP_INTERCEPTION_FULL);
    ck_assert_uint_eq(info.granted & DRP_REGION_NO_SWAP, DRP_REGION_NO_SWAP);
    load_end(&load);
}
END_TEST

START_TEST(test_activation_by_user) {
    struct drp_region_info info;
    char path[128];

    snprintf(path, sizeof(path), "%s/droppabled.sock", getenv("XDG_RUNTIME_DIR"));
    check_activation(path, 0600);
    ck_assert_uint_eq(capabilities("CapEff"), 0);
    ck_assert_uint_eq(capabilities("CapPrm"), 0);
    ck_assert_uint_eq(capabilities("CapAmb"), 0);
    drp_region_get_info(load.busy, &info);
    ck_assert_int_eq(info.interception, DRP_INTERCEPTION_NONE);
    load_end(&load);
}
END_TEST

START_TEST(test_who_may) {
    char line[512];

    ck_assert_int_ne(
        shell(line, sizeof(line), "setpriv --reuid somebody --regid somebody --clear-groups droppablectl status 2>&1"),
        0);
    ck_assert_ptr_nonnull(strstr(line, "Permission denied"));
    ck_assert_int_eq(
        shell(line, sizeof(line), "setpriv --reuid member --regid member --init-groups droppablectl status"), 0);
}
END_TEST

static void be_member(void) {
    const struct passwd *member = getpwnam("member");

    child_check(member && initgroups("member", member->pw_gid) == 0);
    child_check(setresgid(member->pw_gid, member->pw_gid, member->pw_gid) == 0);
    child_check(setresuid(member->pw_uid, member->pw_uid, member->pw_uid) == 0);
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0); /* as it is in who has logged in */
}

/* What a CPU touched last stays; there are four here at most. */
static void hold_native(int socket, void *data) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .budget = SIZE / 4};
    struct drp_region *region;
    size_t left;

    (void)socket, (void)data;
    be_member();
    child_check(native_connect() == 0);
    child_check(drp_region_new(&region, native_context, SIZE, &options) == 0);
    memset(drp_region_address(region), 1, SIZE);
    for (uint64_t deadline = deadline_in(30000); (left = native_region_resident(region)) > SIZE / 4 + MIB / 2;
         nap_ms(20))
        child_check(now_ms() < deadline);
    printf("native memory of an ordinary user: %zu MiB, by its budget %zu KiB\n", SIZE / MIB, left / 1024);
    fflush(stdout);
    drp_region_free(region);
    drp_free(native_context);
}

/* The kernel's own droppable memory of somebody whom the unit's service may not look at by file modes. */
START_TEST(test_native) {
    struct child child;
    void *p = mmap(NULL, 4096, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return; /* before Linux 6.11 */
    munmap(p, 4096);
    child_start(&child, hold_native, NULL);
    child_end(&child);
}
END_TEST

/* ---- a life ---- */

START_TEST(test_reload) {
    static const char line[] = "RegionsPerClient=: .1024. -> .2.";
    unsigned before = journal_count(line);
    char refused[256];

    begin();
    run("mkdir -p /etc/droppable && printf '[Limits]\\nRegionsPerClient=2\\n' >/etc/droppable/droppabled.conf");
    run("%s reload droppabled", systemctl());
    for (uint64_t deadline = now_ms() + INSTALLED_WAIT_MS;; nap_ms(20)) {
        struct drp_region *more;

        if (drp_region_new(&more, load.d, CHUNK, NULL) < 0)
            break;
        drp_region_free(more);
        ck_assert(now_ms() < deadline);
    }
    ck_assert(property_becomes("ActiveState", "active"));
    ck_assert_uint_eq(journal_count(line), before + 1);
    check_entry("MESSAGE_ID=" RELOADED, (const char *const[]){"\"MESSAGE\":\"settings read again", NULL});
    snprintf(refused, sizeof(refused),
             "MESSAGE_ID=" OVER_QUOTA " DROPPABLE_CLIENT=%s DROPPABLE_CLIENT_PID=%d DROPPABLE_CLIENT_UID=0",
             program_invocation_short_name, (int)getpid());
    check_entry(refused, (const char *const[]){"\"MESSAGE\":\"client ", "\"DROPPABLE_CGROUP\":\"/", NULL});
    load_end(&load);
}
END_TEST

/* A service that does not start is given up, and its socket with it, so that nobody waits for ever; clients find the next one. */
START_TEST(test_giving_up) {
    char line[512];

    begin();
    edit_unit("Unit", "StartLimitBurst=3\\nStartLimitIntervalSec=1h");
    run("mkdir -p /etc/droppable && printf '[Limits]\nRegionsPerClient=many\n' >/etc/droppable/droppabled.conf");
    run("systemctl kill -s KILL droppabled");
    ck_assert(property_becomes("ActiveState", "failed"));
    ck_assert_int_eq(shell(line, sizeof(line), "systemctl show --value -p Result droppabled.socket"), 0);
    ck_assert_str_eq(line, "service-start-limit-hit");
    ck_assert_int_ne(shell(line, sizeof(line), "droppablectl status 2>&1"), 0);
    printf("given up: %s\n", line);
    as_shipped();
    load_await_reconnect(&load, 1);
    load_end(&load);
}
END_TEST

START_TEST(test_restarts) {
    uint64_t slowest;

    begin();
    for (uint64_t n = 1; n <= RESTARTS; n++) {
        ck_assert_int_eq(drp_drop(load.busy, 0, drp_region_size(load.busy), NULL, NULL), 0);
        if (n % 2)
            run("%s restart droppabled", systemctl());
        else
            run("%s kill -s KILL droppabled", systemctl());
        load_await_reconnect(&load, n);
        load_check(&load);
        ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
    }
    slowest = load_slowest();
    printf("%d restarts, half of them by SIGKILL: the slowest access took %.0f ms\n", RESTARTS, (double)slowest / 1e6);
    ck_assert_uint_lt(slowest, SLOWEST_NS);
    load_end(&load);
}
END_TEST

/* A thread of the service by its name; the first one is called as the program. */
static pid_t find_thread(const char *name) {
    char line[64];

    ck_assert_int_eq(shell(line, sizeof(line),
                           "cd /proc/$(%s show --value -p MainPID droppabled)/task && grep -lx %s */comm", systemctl(),
                           name),
                     0);
    return (pid_t)strtol(line, NULL, 10);
}

/* Lets one thread stand still, all others run. It is reaped here, too, when its process is killed: its parent waits for that. */
static void hold_thread(pid_t thread) {
    int status;

    ck_assert_int_eq(ptrace(PTRACE_SEIZE, thread, NULL, NULL), 0);
    ck_assert_int_eq(ptrace(PTRACE_INTERRUPT, thread, NULL, NULL), 0);
    ck_assert_int_eq(waitpid(thread, &status, __WALL), thread);
    ck_assert(WIFSTOPPED(status));
}

static void await_thread_end(pid_t thread) {
    int status;

    do
        ck_assert_int_eq(waitpid(thread, &status, __WALL), thread);
    while (!WIFEXITED(status) && !WIFSIGNALED(status));
}

static const struct {
    const char *what, *thread; /* NULL: all of it */
} held[] = {{"a loop", "droppabled"}, {"a sampler", "drp-pressure"}, {"a service", NULL}};

START_TEST(test_watchdog) {
    unsigned before = journal_count("Watchdog timeout");
    uint64_t began;
    pid_t thread = 0;

    begin();
    edit_unit("Service", "WatchdogSec=4s");
    run("%s restart droppabled", systemctl());
    load_await_reconnect(&load, 1);
    nap_ms(BEYOND_WATCHDOG_MS); /* under load: it has to be heard of */
    ck_assert_uint_eq(journal_count("Watchdog timeout"), before);
    began = now_ms();
    if (held[_i].thread)
        hold_thread(thread = find_thread(held[_i].thread));
    else
        run("kill -STOP $(%s show --value -p MainPID droppabled)", systemctl());
    if (thread)
        await_thread_end(thread);
    load_await_reconnect(&load, 2);
    printf("%s that stands still: a new service after %llu ms (WatchdogSec=4s)\n", held[_i].what,
           (unsigned long long)(now_ms() - began));
    ck_assert_uint_eq(journal_count("Watchdog timeout"), before + 1);
    load_end(&load);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("systemd");
    TCase *start = tcase_create("start"), *life = tcase_create("life");
    TCase *restarts = tcase_create("restarts"), *watchdog = tcase_create("watchdog");

    snprintf(service.socket, sizeof(service.socket), "%s/droppabled.sock",
             geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR"));
    tcase_set_timeout(start, 60);
    tcase_set_timeout(life, 60);
    tcase_set_timeout(restarts, 90);
    tcase_set_timeout(watchdog, 60);
    if (geteuid() == 0) {
        tcase_add_test(start, test_activation);
        tcase_add_test(life, test_who_may);
        tcase_add_test(life, test_native);
        tcase_add_test(life, test_reload);
        tcase_add_test(life, test_giving_up);
    } else
        tcase_add_test(start, test_activation_by_user);
    tcase_add_test(restarts, test_restarts);
    tcase_add_loop_test(watchdog, test_watchdog, 0, sizeof(held) / sizeof(held[0]));
    tcase_add_checked_fixture(life, as_shipped, as_shipped);
    tcase_add_checked_fixture(restarts, as_shipped, as_shipped);
    tcase_add_checked_fixture(watchdog, as_shipped, as_shipped);
    suite_add_tcase(suite, start);
    suite_add_tcase(suite, life);
    suite_add_tcase(suite, restarts);
    suite_add_tcase(suite, watchdog);
    return suite_run(suite);
}
