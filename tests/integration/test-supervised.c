/* SPDX-License-Identifier: MIT */
/*
 * Under a service manager: what it is told and when, a watchdog that hears of a loop or a sampler that stands still and of nothing else, and
 * sockets that are passed. The manager is the test's own (supervisor.c).
 */

#include "again.h"
#include "child.h"
#include "raw.h"
#include "restart-load.h"
#include "suite.h"
#include "supervisor.h"

#include <check.h>
#include <dirent.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MIB (UINT64_C(1) << 20)
#define WAIT_MS 30000
#define WATCHDOG_MS 400
#define HOLD_WATCHDOG_MS 800
#define RESTARTS 20
/* Emulated, or under a sanitizer: 5 s. */
#define HANG_NS (UINT64_C(1000000000) * (under_sanitizer() || patience() > 1 ? 5 : 1))

static struct supervisor supervisor;
static struct service *service = &supervisor.service;
static char message[4096];

static void setup(void) {
    supervisor_init(&supervisor, NULL);
}

static void teardown(void) {
    supervisor_end(&supervisor);
}

static void expect_message(const char *line) {
    if (!supervisor_hears(&supervisor, line, message, sizeof(message), WAIT_MS)) {
        service_log_has(service, "", 0);
        ck_abort_msg("the service manager is not told %s", line);
    }
}

static void expect_text(const char *text) {
    ck_assert_msg(strstr(message, text) != NULL, "no '%s' in '%s'", text, message);
}

/* ---- what it is told ---- */

START_TEST(test_life) {
    struct drp_region *region;
    char *monotonic;
    struct drp *d;
    int status;

    supervisor_start(&supervisor, service->socket);
    expect_message("READY=1");
    expect_text("STATUS=0 clients, 0 regions, 0 MiB resident");
    ck_assert(service_log_has(service, "listening on ", 0)); /* ready is after that */

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, 4 * MIB, NULL), 0);
    memset(drp_region_address(region), 1, 4 * MIB);
    expect_message("STATUS=1 client, 1 region, 4 MiB resident, 0 MiB dropped");
    ck_assert_int_eq(drp_drop(region, 0, 4 * MIB, NULL, NULL), 0);
    expect_message("STATUS=1 client, 1 region, 0 MiB resident, 4 MiB dropped");

    for (int round = 0; round < 2; round++) { /* the second one fails */
        uint64_t now = now_ns() / 1000;

        service_reload(service, round == 0 ? "[Limits]\nConnections=7\n" : "[Limits]\nConnections=none\n",
                       round == 0 ? "settings read again" : "the settings stay as they were");
        expect_message("RELOADING=1");
        monotonic = strstr(message, "MONOTONIC_USEC=");
        ck_assert_ptr_nonnull(monotonic);
        ck_assert_uint_ge(strtoull(monotonic + strlen("MONOTONIC_USEC="), NULL, 10), now);
        ck_assert_uint_le(strtoull(monotonic + strlen("MONOTONIC_USEC="), NULL, 10), now_ns() / 1000);
        expect_message("READY=1");
    }
    drp_region_free(region);
    drp_free(d);
    kill(service->pid, SIGTERM);
    expect_message("STOPPING=1");
    ck_assert(service_wait(service, WAIT_MS, &status));
    ck_assert_int_eq(status, 0);
    ck_assert(!supervisor_hears(&supervisor, "WATCHDOG=1", message, sizeof(message), 0)); /* nobody asked for it */
}
END_TEST

/* ---- the watchdog ---- */

static pid_t thread_of(const char *wanted) {
    char path[320], name[32];
    struct dirent *entry;
    pid_t tid = -1;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)service->pid);
    tasks = opendir(path);
    ck_assert_ptr_nonnull(tasks);
    while (tid < 0 && (entry = readdir(tasks))) {
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)service->pid, entry->d_name);
        file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file) && strncmp(name, wanted, strlen(wanted)) == 0)
            tid = (pid_t)atoi(entry->d_name);
        if (file)
            fclose(file);
    }
    closedir(tasks);
    ck_assert_msg(tid > 0, "the service has no thread %s", wanted);
    return tid;
}

/* One thread of the service stands still, the others go on. */
static void hold(pid_t tid) {
    int status;

    ck_assert_msg(ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0, "ptrace: %s", strerror(errno));
    ck_assert_int_eq(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), 0);
    ck_assert_int_eq(waitpid(tid, &status, __WALL), tid);
    ck_assert(WIFSTOPPED(status));
}

static void let_go(pid_t tid) {
    ck_assert_int_eq(ptrace(PTRACE_DETACH, tid, NULL, NULL), 0);
}

static void expect_silence_without(const char *name) {
    pid_t tid = name ? thread_of(name) : service->pid;

    hold(tid);
    nap_ms(WATCHDOG_MS / 2); /* it may have said so just before, or have been about to */
    supervisor_drain(&supervisor);
    ck_assert_msg(!supervisor_hears(&supervisor, "WATCHDOG=1", message, sizeof(message), 2 * WATCHDOG_MS),
                  "%s stands still, and the watchdog is told that all is well", name ? name : "the loop");
    let_go(tid);
    expect_message("WATCHDOG=1");
}

START_TEST(test_watchdog) {
    struct drp_region *region;
    struct drp *d;
    pid_t pager, dropper;

    supervisor.watchdog_ms = WATCHDOG_MS;
    supervisor_start(&supervisor, service->socket);
    expect_message("READY=1");
    for (int i = 0; i < 4; i++)
        expect_message("WATCHDOG=1"); /* without a client, the sampler sleeps */

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, 4 * MIB, NULL), 0);
    expect_silence_without("drp-pressure");
    expect_silence_without(NULL);

    /* A client can hold up its own threads: no reason to restart. */
    pager = thread_of("drp-pager");
    dropper = thread_of("drp-dropper");
    hold(pager);
    hold(dropper);
    supervisor_drain(&supervisor);
    for (int i = 0; i < 8; i++)
        expect_message("WATCHDOG=1");
    let_go(pager);
    let_go(dropper);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

/* ---- a pager that its client holds up ---- */

struct held {
    struct raw_region region;
    int connection, uffd; /* the userfaultfd is the pager's, too */
    pthread_t toucher;
};

static void *touch_first(void *data) {
    struct held *held = data;

    *(volatile char *)held->region.address = 1;
    return NULL;
}

/* Lets it go on until it is about to read events, with one there. */
static void stop_before_read(pid_t pager) {
    struct __ptrace_syscall_info info;
    int status;

    do {
        ck_assert_int_eq(ptrace(PTRACE_SYSCALL, pager, NULL, NULL), 0);
        ck_assert_int_eq(waitpid(pager, &status, __WALL), pager);
        ck_assert(WIFSTOPPED(status));
        ck_assert_int_gt(ptrace(PTRACE_GET_SYSCALL_INFO, pager, (void *)sizeof(info), &info), 0);
    } while (info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr != SYS_read);
}

/*
 * The client makes the userfaultfd blocking and takes the event away, between the pager's poll(2), which told of it, and its read(2), which waits from then
 * on. A client that tries often enough has it so without being told when.
 */
static void hold_up(struct held *held) {
    struct uffd_msg event;
    pid_t pager;

    held->connection = raw_hello("holder");
    ck_assert_int_eq(raw_uffd(held->connection, held->uffd, 0, NULL), DRP_WIRE_OK);
    raw_region_new(held->connection, 4 * MIB, &held->region);
    pager = thread_of("drp-pager");
    hold(pager);
    ck_assert_int_eq(ptrace(PTRACE_SETOPTIONS, pager, NULL, (void *)PTRACE_O_TRACESYSGOOD), 0);
    ck_assert_int_eq(pthread_create(&held->toucher, NULL, touch_first, held), 0);
    stop_before_read(pager);
    ck_assert_int_eq(fcntl(held->uffd, F_SETFL, 0), 0);
    ck_assert_int_eq(read(held->uffd, &event, sizeof(event)), sizeof(event));
    let_go(pager);
}

static void hold_no_more(struct held *held) {
    struct uffdio_range page = {.start = (uintptr_t)held->region.address, .len = 4096};

    ck_assert_int_eq(ioctl(held->uffd, UFFDIO_WAKE, &page), 0); /* it faults again, which the pager reads */
    ck_assert_int_eq(pthread_join(held->toucher, NULL), 0);
}

/* Longer than the watchdog's period, and than what quarantines it. */
START_TEST(test_held_up_by_client) {
    pid_t before;
    struct held held;
    int status;

    held.uffd = raw_userfaultfd();
    if (held.uffd < 0) {
        suite_skip_part("a service held up by a client", "no userfaultfd for this user");
        return;
    }
    supervisor.watchdog_ms = HOLD_WATCHDOG_MS;
    supervisor_start(&supervisor, service->socket);
    expect_message("READY=1");
    before = service->pid;
    hold_up(&held);
    ck_assert(service_log_has(service, "holds up a call for over 1 s (its address space's lock): quarantined", WAIT_MS));
    supervisor_drain(&supervisor);
    for (int i = 0; i < 4; i++)
        ck_assert_msg(
            supervisor_hears(&supervisor, "WATCHDOG=1", message, sizeof(message), HOLD_WATCHDOG_MS * (int)patience()),
            "a client holds its pager up, and the service is to be restarted for it");
    ck_assert_uint_eq(service_status(service, "quarantined_sessions"), 1);
    hold_no_more(&held);
    ck_assert(service_log_has(service, "quarantine lifted", WAIT_MS));
    ck_assert_int_eq(raw_drop(held.connection, &held.region, 0, 4 * MIB, NULL), DRP_WIRE_OK);
    ck_assert(!service_wait(service, 0, &status) && service->pid == before);
    raw_region_end(held.connection, &held.region);
    close(held.connection);
    close(held.uffd);
}
END_TEST

/* A manager that does not read, as one that waits for memory: nobody waits for it. */
START_TEST(test_manager_held_up) {
    struct drp *d = NULL;
    int status;

    supervisor.watchdog_ms = 40; /* its queue has room for ten */
    supervisor_start(&supervisor, service->socket);
    expect_message("READY=1");
    nap_ms(1000);
    for (struct bar bar = {.what = "to connect", .ns = UINT64_C(1000000000)}; bar_again(&bar);) {
        uint64_t began = now_ns();

        d = drp_free(d);
        ck_assert_int_eq(drp_new(&d, NULL), 0);
        bar.longest_ns = now_ns() - began;
    }
    kill(service->pid, SIGTERM);
    ck_assert(service_wait(service, WAIT_MS, &status));
    ck_assert_int_eq(status, 0);
    drp_free(d);
}
END_TEST

/* ---- sockets that are passed ---- */

/* As the manager does: nobody is started before somebody knocks. */
static void start_on_demand(int listener) {
    struct pollfd knock = {.fd = listener, .events = POLLIN};

    ck_assert_int_eq(poll(&knock, 1, WAIT_MS), 1);
    supervisor_start(&supervisor, NULL);
}

static int passed_listener(void) {
    int fd = supervisor_bind(&supervisor, SOCK_SEQPACKET, service->socket);

    ck_assert_int_eq(listen(fd, 16), 0);
    return fd;
}

static void first_client(int socket, void *data) {
    struct drp *d;
    char word;

    (void)data;
    child_check(drp_new(&d, NULL) == 0);
    child_check(child_say(socket, 'c') && child_hear(socket, &word));
    drp_free(d);
}

START_TEST(test_activation) {
    int listener = passed_listener(), status;
    struct stat before, after;
    struct child child;

    ck_assert_int_eq(chmod(service->socket, 0660), 0);
    ck_assert_int_eq(stat(service->socket, &before), 0);
    for (int round = 0; round < 2; round++) {
        child_start(&child, first_client, NULL);
        start_on_demand(listener);
        child_expect(&child, 'c');
        /* The socket is the manager's: neither removed nor changed. */
        service_reload(service, "[Daemon]\nSocketMode=0600\nSocket=/nowhere/at.all\n", "settings read again");
        ck_assert(child_say(child.socket, 'e'));
        child_end(&child);
        kill(service->pid, SIGTERM);
        ck_assert(service_wait(service, WAIT_MS, &status));
        ck_assert_int_eq(status, 0);
        ck_assert_int_eq(stat(service->socket, &after), 0);
        ck_assert_uint_eq(after.st_ino, before.st_ino);
        ck_assert_uint_eq(after.st_mode, before.st_mode);
    }
    unlink(service->socket);
}
END_TEST

/* What is given by hand goes first, and the one that was passed is nobody's. */
START_TEST(test_socket_given) {
    char other[128];

    snprintf(other, sizeof(other), "%s/passed", service->dir);
    ck_assert_int_eq(listen(supervisor_bind(&supervisor, SOCK_SEQPACKET, other), 16), 0);
    supervisor_start(&supervisor, service->socket);
    expect_message("READY=1");
    ck_assert(service_log_has(service, "which was passed, is not listened on, ignoring", 0));
    ck_assert_int_eq(service_status(service, "sessions"), 1);
    unlink(other);
    close(supervisor.passed[0]);
    supervisor.n_passed = 0;
}
END_TEST

static const struct {
    int type;
    bool listening;
    int n;
    const char *error;
} bad_sockets[] = {
    {SOCK_STREAM, true, 1, "not a listening unix socket of packets"},
    {SOCK_DGRAM, false, 1, "not a listening unix socket of packets"},
    {SOCK_SEQPACKET, false, 1, "not a listening unix socket of packets"},
    {SOCK_SEQPACKET, true, 2, "2 sockets were passed"},
};

START_TEST(test_bad_socket) {
    char path[128];
    int status;

    for (int i = 0; i < bad_sockets[_i].n; i++) {
        int fd;

        snprintf(path, sizeof(path), "%s/bad%d", service->dir, i);
        fd = supervisor_bind(&supervisor, bad_sockets[_i].type, path);
        unlink(path);
        if (bad_sockets[_i].listening)
            ck_assert_int_eq(listen(fd, 16), 0);
    }
    supervisor_start(&supervisor, NULL);
    ck_assert(service_wait(service, WAIT_MS, &status));
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    ck_assert_msg(service_log_has(service, bad_sockets[_i].error, 0), "%s", bad_sockets[_i].error);
}
END_TEST

/* ---- restarts ---- */

/* The round's number counts those before. */
static void restart_under_load(int listener, const struct load *load, uint64_t round) {
    int status;

    supervisor_drain(&supervisor);
    ck_assert_int_eq(drp_drop(load->busy, 0, drp_region_size(load->busy), NULL, NULL), 0);
    kill(service->pid, round % 2 ? SIGKILL : SIGTERM);
    ck_assert(service_wait(service, WAIT_MS, &status));
    ck_assert(round % 2 ? WIFSIGNALED(status) : status == 0);
    start_on_demand(listener); /* by the library's reconnect */
    load_await_reconnect(load, round);
    load_check(load);
    ck_assert_uint_eq(service_status(service, "unexpected_errors"), 0);
}

START_TEST(test_restarts) {
    int listener = passed_listener();
    uint64_t round = 0;
    struct load load;

    supervisor_start(&supervisor, NULL);
    load_begin(&load, 8 * MIB, 64 * MIB);
    for (struct bar bar = {.what = "accesses beside 20 restarts", .ns = HANG_NS}; bar_again(&bar);) {
        (void)load_slowest();
        for (int i = 0; i < RESTARTS; i++)
            restart_under_load(listener, &load, ++round);
        bar.longest_ns = load_slowest();
    }
    load_end(&load);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("supervised");
    TCase *tcase = tcase_create("supervised");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_life);
    tcase_add_test(tcase, test_watchdog);
    tcase_add_test(tcase, test_held_up_by_client);
    tcase_add_test(tcase, test_manager_held_up);
    tcase_add_test(tcase, test_activation);
    tcase_add_test(tcase, test_socket_given);
    tcase_add_loop_test(tcase, test_bad_socket, 0, sizeof(bad_sockets) / sizeof(bad_sockets[0]));
    tcase_add_test(tcase, test_restarts);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
