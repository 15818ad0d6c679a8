/* SPDX-License-Identifier: MIT */
/*
 * The crash contract at each place where it could break: the service kills itself at a named point (daemon/crash-point.h) under clients that
 * check all they do (crash-load.c), a new one comes, and they go on; at the end nothing is left.
 *
 * The points are asked of the program, so none can be forgotten, and one that the load does not reach fails the test. Without a service manager
 * the next service makes a socket of its own. Under one (managed), which passes the socket, only those points are tried in which it has a part. Where
 * regions are locked segments (locked), as before Linux 6.4, those in which these are made, handed over, dropped from and ended; others are tried where they are not.
 */

#include "child.h"
#include "crash-load.h"
#include "suite.h"
#include "supervisor.h"

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define POINTS_MAX 256
#define WAIT_MS 30000
#define REACH_MS 60000
/* Without that much of the point's being passed, something else is tried. */
#define PHASE_MS 1000

static struct supervisor supervisor;
static struct service *service = &supervisor.service;
static bool managed, locked;
static char *points[POINTS_MAX];
static int n_points;

/* ---- the service ---- */

static bool is_up(void) {
    return service->pid > 0;
}

/* Is it dead by now, of the point? Fails the test if it died of anything else. */
static bool has_died(int timeout_ms) {
    int status;

    if (!is_up())
        return true;
    if (!service_wait(service, timeout_ms, &status))
        return false;
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the service ended by itself: %#x",
                  (unsigned)status);
    return true;
}

/* point: NULL, or where it dies. Returns when it serves, or is dead already. */
static void start(const char *point) {
    char message[4096];

    service_configure(service, NULL);
    if (point)
        setenv("DROPPABLE_CRASH_POINT", point, 1);
    supervisor_drain(&supervisor);
    supervisor_start(&supervisor, managed ? NULL : service->socket);
    unsetenv("DROPPABLE_CRASH_POINT");
    for (uint64_t deadline = now_ms() + WAIT_MS; !supervisor_hears(&supervisor, "READY=1", message, sizeof(message), 5);)
        if (has_died(0)) {
            ck_assert_ptr_nonnull(point);
            return;
        } else
            ck_assert_msg(now_ms() < deadline, "the service does not start");
}

static void kill_service(void) {
    if (is_up())
        ck_assert(service_kill(service, WAIT_MS));
}

static void setup(void) {
    supervisor_init(&supervisor, NULL);
    if (managed)
        ck_assert_int_eq(listen(supervisor_bind(&supervisor, SOCK_SEQPACKET, service->socket), 64), 0);
}

static void teardown(void) {
    supervisor_end(&supervisor);
}

/* ---- what a service without clients has ---- */

static void expect_idle(void) {
    uint64_t deadline = now_ms() + WAIT_MS;

    while (service_status(service, "sessions") != 1 || service_status(service, "regions") != 0)
        ck_assert_msg(now_ms() < deadline, "clients that are gone still count");
    ck_assert_uint_eq(service_status(service, "resident_bytes"), 0);
    for (size_t n; (n = service_left_of_clients(service)) != 0; nap_ms(5))
        ck_assert_msg(now_ms() < deadline, "%zu descriptors and threads are left of clients that are gone", n);
}

static int segments(void) {
    struct shm_info info;

    ck_assert_int_ge(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&info), 0);
    return info.used_ids;
}

/* ---- reaching a point ---- */

static bool has_ended(const struct child *child) {
    struct pollfd end = {.fd = child->socket, .events = POLLIN};

    return poll(&end, 1, 0) == 1;
}

/* Who asks a service that dies would wait for the next one, which we are to start. false: it has died. */
static bool live_shortly(void (*run)(int socket, void *data)) {
    struct child child;

    child_start(&child, run, NULL);
    while (!has_ended(&child))
        if (has_died(1)) {
            child_kill(&child);
            return false;
        }
    child_end(&child);
    return true;
}

static void drop_all(int socket, void *data) {
    char out[4096];

    (void)socket;
    (void)data;
    service_ctl(service, out, sizeof(out), (const char *const[]){"drop", "--all", NULL});
}

/* Every second time they are refused. */
static void reload(void) {
    static const char *const settings[] = {"SocketMode=0660\n", "SocketMode=none\n"};
    static unsigned n;

    service_configure(service, settings[n++ % 2]);
    kill(service->pid, SIGHUP);
}

/* Short lives: a client that dies with all it has, droppablectl, new settings. */
static void disturb(void) {
    if (live_shortly(crash_load_mortal) && live_shortly(drop_all) && is_up())
        reload();
}

static bool dies_within(int timeout_ms) {
    for (uint64_t deadline = now_ms() + (uint64_t)timeout_ms; now_ms() < deadline; disturb())
        if (has_died(20))
            return true;
    return has_died(0);
}

/* In a service that takes over: what its predecessor left in the middle of a drop by clients that come back, not by one whose life was short. */
static bool dies_taking_over(const char *point) {
    kill_service();
    start("drop-claimed");
    for (uint64_t deadline = now_ms() + REACH_MS; !has_died(20);)
        ck_assert_msg(now_ms() < deadline, "nothing is dropped");
    start(point);
    return dies_within(PHASE_MS);
}

static bool dies_ending(void) {
    uint64_t deadline = now_ms() + WAIT_MS;
    int status;

    kill(service->pid, SIGTERM);
    while (!service_wait(service, 20, &status))
        ck_assert_msg(now_ms() < deadline, "the service does not end");
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static bool begins_with(const char *text, const char *const *beginnings, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strncmp(text, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return false;
}

/* Where those are is tried last; that they are named saves time and nothing else. */
static bool is_late(const char *point) {
    static const char *const late[] = {"adopt-", "ticket-", "shared-let-go", "end-"};

    return begins_with(point, late, sizeof(late) / sizeof(late[0]));
}

static bool concerns_manager(const char *point) {
    static const char *const steps[] = {"start-",  "end-",     "reload-", "adopt-",
                                        "ticket-", "accepted", "hello",   "drop-claimed"};

    return begins_with(point, steps, sizeof(steps) / sizeof(steps[0]));
}

static bool concerns_segments(const char *point) {
    static const char *const steps[] = {"locked-",       "create-replied", "drop-punched-run",
                                        "adopt-settled", "destroy-done",   "session-taken-down"};

    return begins_with(point, steps, sizeof(steps) / sizeof(steps[0]));
}

static bool has_native(void) {
    void *p = mmap(NULL, 4096, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    return p != MAP_FAILED && munmap(p, 4096) == 0;
}

/* Is it one to be tried here? */
static bool is_meant(const char *point) {
    if (managed)
        return concerns_manager(point);
    if (locked)
        return concerns_segments(point);
    return !begins_with(point, (const char *const[]){"locked-"}, 1) &&
           (has_native() || !begins_with(point, (const char *const[]){"native-"}, 1));
}

/* Those are passed with nobody there. */
static bool is_in_start(const char *point) {
    static const char *const steps[] = {"start-", "locked-"};

    return begins_with(point, steps, sizeof(steps) / sizeof(steps[0]));
}

/* The clients are there all the time. */
static void reach(const char *point) {
    bool dead = !is_late(point) && dies_within(PHASE_MS);

    for (uint64_t deadline = now_ms() + REACH_MS; !dead;) {
        ck_assert_msg(now_ms() < deadline, "%s is not reached", point);
        dead = dies_taking_over(point) || dies_ending();
        if (!dead) {
            start(point);
            dead = dies_within(2 * PHASE_MS);
        }
    }
}

/* ---- the points ---- */

/* Before Check runs: a negative number says that something is wrong with the list. */
static int read_points(void) {
    char program[512], line[128];
    FILE *list;

    setenv("DROPPABLE_CRASH_POINT", "list", 1);
    list = popen(program_path("droppabled", program, sizeof(program)), "re");
    unsetenv("DROPPABLE_CRASH_POINT");
    while (list && n_points < POINTS_MAX && fgets(line, sizeof(line), list)) {
        line[strcspn(line, "\n")] = '\0';
        for (int i = 0; i < n_points; i++)
            if (strcmp(points[i], line) == 0)
                return -1;
        if (is_meant(line))
            points[n_points++] = strdup(line);
    }
    return list && pclose(list) == 0 && n_points > 0 && n_points < POINTS_MAX ? 0 : -1;
}

START_TEST(test_point) {
    const char *point = points[_i];
    struct child clients[2];

    start(point);
    if (!is_up()) /* in its start: again, with clients */
        start(NULL);
    child_start(&clients[0], crash_load_run, NULL);
    child_start(&clients[1], crash_load_guest, NULL);
    if (!is_in_start(point))
        reach(point);
    else {
        child_expect(&clients[0], 'r');
        kill_service();
        start(point);
        ck_assert(!is_up());
    }
    if (locked && is_in_start(point)) { /* once more, of a client's */
        char second[64];

        snprintf(second, sizeof(second), "%s:2", point);
        start(second);
        reach(second);
    }
    start(NULL);
    if (!is_in_start(point))
        child_expect(&clients[0], 'r');
    child_expect(&clients[1], 'r');
    for (int i = 0; i < 2; i++)
        ck_assert(child_say(clients[i].socket, 'p'));
    for (int i = 0; i < 2; i++)
        child_expect(&clients[i], 'p');
    for (int i = 0; i < 2; i++)
        ck_assert(child_say(clients[i].socket, 'e'));
    for (int i = 0; i < 2; i++)
        child_end(&clients[i]);
    expect_idle();
    if (locked)
        ck_assert_int_eq(segments(), 0);
}
END_TEST

/* A sanitizer makes each point take three times as long: a third of them there, and all without. */
static void thin_out(void) {
    int n = 0;

    for (int i = 0; i < n_points; i += 3) {
        char *point = points[n];

        points[n++] = points[i];
        points[i] = point;
    }
    n_points = n;
    suite_skip_part("two of three crash points", "a sanitizer makes each take three times as long");
}

/* usage: test-crash-points [managed | locked] [POINT]; locked takes a kernel without noswap, or one that is made look so (as-kernel) */
int main(int argc, char *argv[]) {
    Suite *suite = suite_create("crash-points");
    TCase *tcase = tcase_create("points");

    managed = argc > 1 && strcmp(argv[1], "managed") == 0;
    locked = argc > 1 && strcmp(argv[1], "locked") == 0;
    if (locked && unshare(CLONE_NEWIPC) < 0)
        skip_all("no IPC namespace of its own can be had, in which to count segments");
    if (argc > 1 + managed + locked)
        points[n_points++] = argv[1 + managed + locked];
    else if (read_points() < 0) {
        fprintf(stderr, "droppabled does not list its crash points, or one of them twice\n");
        return 1;
    } else if (under_sanitizer())
        thin_out();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 150);
    tcase_add_loop_test(tcase, test_point, 0, n_points);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
