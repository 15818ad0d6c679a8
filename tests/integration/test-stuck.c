/* SPDX-License-Identifier: MIT */
/*
 * Clients that hold up whoever works for them: one floods the service and reads no reply, one holds its object's inode lock, one its
 * mmap_lock, one steals its pager's events. Each is alone with that: an honest client beside it keeps its pace, also when the service is killed while a thread of
 * it is stuck.
 *
 * The inode lock is held by write(2) to the data object from memory behind a userfaultfd of the client's own that nobody answers: the
 * kernel takes the lock, then reads the memory. When that userfaultfd has an event, the lock is held.
 */

#include "again.h"
#include "child.h"
#include "fixture.h"
#include "honest.h"
#include "raw.h"
#include "rest.h"
#include "suite.h"

#include <check.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define SPAN (2 * MIB)
#define STUCK_PLANS 4
#define ASKERS 300
#define HELD_REGIONS 300
#define WAITING_KB 1024
/* Where the others also use up the CPUs, a multiple of it. */
#define LONGEST_NS (UINT64_C(250000000) * (under_sanitizer() ? 8 : 1))
#define RESUME_NS (UINT64_C(1000000000) * (under_sanitizer() ? 5 : 1))

static struct honest honest;

static void setup(void) {
    fixture_setup();
    honest_start(&honest);
}

static void teardown(void) {
    honest_stop(&honest);
    fixture_teardown();
}

/* What the honest client is used to, for comparison. */
static void measure_alone(void) {
    honest_reset(&honest);
    honest_progress(&honest, 300);
    printf("alone: p99 %.1f ms, longest %.1f ms\n", (double)honest_p99_ns(&honest) / 1e6,
           (double)honest_longest_ns(&honest) / 1e6);
    honest_reset(&honest);
}

/* The longest operation since the last time. */
static uint64_t take_longest(const char *what) {
    uint64_t longest = honest_longest_ns(&honest);

    printf("%s: %llu operations, p99 %.1f ms\n", what, (unsigned long long)honest_operations(&honest),
           (double)honest_p99_ns(&honest) / 1e6);
    honest_reset(&honest);
    return longest;
}

/* ---- flood ---- */

static void flood(int socket, void *data) {
    struct drp_wire_header status = {.type = DRP_WIRE_STATUS};
    int connection = raw_hello("flood");
    uint64_t sent = 0;

    (void)data;
    child_say(socket, 'f');
    for (;;) {
        struct pollfd writable = {.fd = connection, .events = POLLOUT}, told = {.fd = socket, .events = POLLIN};

        if (send(connection, &status, sizeof(status), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            sent++;
        else if (poll(&writable, 1, 10) < 0)
            break;
        if (poll(&told, 1, 0) != 0)
            break;
    }
    fprintf(stderr, "flood: %llu requests\n", (unsigned long long)sent);
    close(connection);
}

START_TEST(test_flood) {
    struct child children[4];

    measure_alone();
    for (size_t i = 0; i < 4; i++) {
        child_start(&children[i], flood, NULL);
        child_expect(&children[i], 'f');
    }
    for (struct bar bar = {.what = "flood", .ns = LONGEST_NS}; bar_again(&bar);) {
        honest_progress(&honest, 600);
        bar.longest_ns = take_longest(bar.what);
    }
    for (size_t i = 0; i < 4; i++) {
        child_say(children[i].socket, 'e');
        child_end(&children[i]);
    }
}
END_TEST

/* ---- the inode lock ---- */

struct holder {
    int data_fd;
    char *source; /* armed */
};

static void *write_from_armed(void *data) {
    struct holder *holder = data;

    if (pwrite(holder->data_fd, holder->source, PAGE, 0) < 0)
        perror("pwrite");
    return NULL;
}

/* Its own userfaultfd over one private page. */
static int arm_page(struct holder *holder) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = raw_userfaultfd();

    holder->source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(holder->source != MAP_FAILED);
    child_check(fd >= 0);
    child_check(ioctl(fd, UFFDIO_API, &api) == 0);
    range.range.start = (uintptr_t)holder->source;
    range.range.len = PAGE;
    child_check(ioctl(fd, UFFDIO_REGISTER, &range) == 0);
    return fd;
}

/* A budget of the calling session's own. */
static void set_budget(int connection, uint64_t bytes) {
    struct drp_wire_limit limit = {
        .header.type = DRP_WIRE_LIMIT, .scope = DRP_LIMIT_CLIENT, .mask = DRP_LIMIT_BUDGET, .values.budget = bytes};

    child_check(raw_call(connection, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_OK);
}

static pthread_t hold_lock_of(const struct raw_region *region, struct holder *holder, int *ret_uffd) {
    struct pollfd event = {.events = POLLIN};
    pthread_t thread;

    holder->data_fd = region->data_fd;
    event.fd = *ret_uffd = arm_page(holder);
    child_check(pthread_create(&thread, NULL, write_from_armed, holder) == 0);
    child_check(poll(&event, 1, CHILD_WAIT_MS * (int)patience()) == 1);
    return thread;
}

/* data: so many regions more, NULL: none. Says 'l' while the lock is held; at 'r' lets go and says 'r' when that is done; at anything else ends. */
static void hold_inode_lock(int socket, void *data) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = 65536};
    struct uffdio_zeropage zero = {0};
    struct raw_region region;
    struct holder holder;
    int connection, uffd;
    pthread_t thread;
    char word;

    connection = raw_session("holder");
    for (unsigned i = 0; data && i < *(unsigned *)data; i++)
        child_check(raw_call(connection, &create, sizeof(create), NULL, 0, NULL) == DRP_WIRE_OK);
    raw_region_new(connection, 8 * MIB, &region); /* first in line, as the last to come */
    memset(region.address, 1, 8 * MIB);
    thread = hold_lock_of(&region, &holder, &uffd);
    child_say(socket, 'l');
    child_check(child_hear(socket, &word));
    zero.range.start = (uintptr_t)holder.source;
    zero.range.len = PAGE;
    child_check(ioctl(uffd, UFFDIO_ZEROPAGE, &zero) == 0);
    child_check(pthread_join(thread, NULL) == 0);
    child_say(socket, 'r');
    child_check(child_hear(socket, &word));
    raw_region_end(connection, &region);
    close(connection);
}

static void drop_pid(const struct child *child) {
    char pid[16], out[4096];

    snprintf(pid, sizeof(pid), "%d", (int)child->pid);
    ck_assert_int_eq(
        service_ctl(&service, out, sizeof(out), (const char *const[]){"--json", "drop", "--pid", pid, NULL}), 0);
}

static void expect_quarantine(const struct child *holder) {
    char text[128];

    snprintf(text, sizeof(text),
             "client holder (pid %d): holds up a call for over 1 s (its object's lock): quarantined", (int)holder->pid);
    ck_assert_msg(service_log_has(&service, text, 10000), "not in the log: %s", text);
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)holder->pid, "quarantined"), 1);
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)honest.child.pid, "quarantined"), 0);
    ck_assert_uint_eq(service_status(&service, "quarantined_sessions"), 1);
}

START_TEST(test_inode_lock) {
    struct child holder;

    measure_alone();
    for (struct bar bar = {.what = "inode lock", .ns = LONGEST_NS}; bar_again(&bar);) {
        child_start(&holder, hold_inode_lock, NULL);
        child_expect(&holder, 'l');
        honest_reset(&honest);
        drop_pid(&holder); /* comes back when the session is quarantined */
        expect_quarantine(&holder);
        drop_pid(&holder); /* fails at once */
        honest_progress(&honest, 300);
        bar.longest_ns = take_longest(bar.what);

        child_say(holder.socket, 'r');
        child_expect(&holder, 'r');
        ck_assert(service_log_has(&service, "quarantine lifted", 10000));
        ck_assert(status_becomes("quarantined_sessions", 0, 10000));
        drop_pid(&holder);
        ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)holder.pid, "resident_bytes"), 0);
        child_say(holder.socket, 'e');
        child_end(&holder);
    }
}
END_TEST

static uint64_t physical_memory(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE;
}

/* Says 'l' while the lock is held, and at a word touches a page of each span of another region, of twice the machine's memory. */
static void touch_while_stuck(int socket, void *data) {
    struct raw_region region, sparse;
    struct holder holder;
    int connection, uffd;
    char word;

    (void)data;
    connection = raw_session("holder");
    raw_region_new(connection, 8 * MIB, &region);
    raw_region_new(connection, 2 * physical_memory() / SPAN * SPAN, &sparse);
    memset(region.address, 1, region.size);
    hold_lock_of(&region, &holder, &uffd);
    child_say(socket, 'l');
    child_check(child_hear(socket, &word));
    for (uint64_t at = 0; at < sparse.size; at += SPAN)
        sparse.address[at] = 1;
    child_say(socket, 'd');
    child_check(child_hear(socket, &word));
    close(connection);
    child_hear(socket, &word);
}

/*
 * Of who is stuck nothing can be dropped, and the kernel fills what he touches: but no more than there is may be promised for that. And
 * others have it as soon as he has left, though his object's lock is still held.
 */
START_TEST(test_promises_of_stuck) {
    uint64_t promised, deadline;
    struct child holder;

    child_start(&holder, touch_while_stuck, NULL);
    child_expect(&holder, 'l');
    drop_pid(&holder);
    expect_quarantine(&holder);
    child_say(holder.socket, 't');
    child_expect(&holder, 'd');
    promised = service_status(&service, "commitment");
    printf("%llu MiB promised, of %llu\n", (unsigned long long)(promised / MIB),
           (unsigned long long)(physical_memory() / MIB));
    ck_assert_uint_le(promised, physical_memory());
    child_say(holder.socket, 'c');
    for (deadline = now_ms() + 10000; service_status(&service, "commitment") > promised / 2; usleep(10000))
        ck_assert_msg(now_ms() < deadline, "what was promised to him is kept from others");
    child_kill(&holder);
    ck_assert(status_becomes("regions", 1, 10000));
}
END_TEST

/* It dies instead. */
START_TEST(test_inode_lock_killed) {
    struct child holder;

    child_start(&holder, hold_inode_lock, NULL);
    child_expect(&holder, 'l');
    drop_pid(&holder);
    expect_quarantine(&holder);
    child_kill(&holder);
    ck_assert(status_becomes("regions", 1, 10000));
    ck_assert_uint_eq(service_status(&service, "quarantined_sessions"), 0);
}
END_TEST

static void setup_kill(void) {
    fixture_start("[Daemon]\nKillStuckClients=yes\n");
    honest_start(&honest);
}

START_TEST(test_kill_stuck) {
    struct child holder;
    char word;

    child_start(&holder, hold_inode_lock, NULL);
    child_expect(&holder, 'l');
    drop_pid(&holder);
    ck_assert(service_log_has(&service, "as KillStuckClients= says", 10000));
    ck_assert(!child_hear(holder.socket, &word)); /* ended */
    child_kill(&holder);
    ck_assert(status_becomes("regions", 1, 10000));
    honest_progress(&honest, 30);
}
END_TEST

/* The service is killed while a thread of it is stuck: nobody else may wait for that thread's end, nor the next service for his region. */
START_TEST(test_killed_while_stuck) {
    struct service first;
    struct child holder;
    bool ended;

    for (struct bar bar = {.what = "service killed", .ns = RESUME_NS}; bar_again(&bar);) {
        child_start(&holder, hold_inode_lock, NULL);
        child_expect(&holder, 'l');
        drop_pid(&holder);
        expect_quarantine(&holder);
        honest_progress(&honest, 30);
        honest_reset(&honest);
        ended = service_kill(&service, 200);
        printf("the service %s while its thread is stuck\n", ended ? "ended" : "does not end");
        honest_progress(&honest, 300);
        bar.longest_ns = take_longest(bar.what);
        first = service;
        service_restart(&service);
        for (uint64_t deadline = now_ms() + 30000; honest_reconnects(&honest) < bar.tries; honest_progress(&honest, 1))
            ck_assert_msg(now_ms() < deadline, "the honest client does not reconnect");
        ck_assert(status_becomes("regions", 1, 10000));
        child_kill(&holder);
        if (!ended)
            ck_assert(service_kill(&first, 10000));
        honest_progress(&honest, 30);
    }
}
END_TEST

/* SIGTERM instead: the service leaves its stuck thread behind. */
START_TEST(test_terminated_while_stuck) {
    struct child holder;

    child_start(&holder, hold_inode_lock, NULL);
    child_expect(&holder, 'l');
    drop_pid(&holder);
    expect_quarantine(&holder);
    honest_reset(&honest);
    kill(service.pid, SIGTERM);
    ck_assert(service_log_has(&service, "still holds up a call at the end, leaving it", 20000));
    honest_progress(&honest, 300);
    ck_assert_uint_lt(take_longest("service ended"), RESUME_NS);
    child_kill(&holder);
    ck_assert(service_kill(&service, 10000)); /* reaps it */
    service_restart(&service);
    for (uint64_t deadline = now_ms() + 30000; honest_reconnects(&honest) < 1; honest_progress(&honest, 1))
        ck_assert_msg(now_ms() < deadline, "the honest client does not reconnect");
}
END_TEST

/* With the lock held, has as many drops planned for itself as a plan can have. Says 'l' then. */
static void hold_plan(int socket, void *data) {
    struct raw_region region;
    struct holder holder;
    int connection, uffd;
    char word;

    (void)data;
    connection = raw_session("planned");
    raw_region_new_chunked(connection, 16 * MIB, 12, &region);
    memset(region.address, 1, region.size);
    for (uint64_t chunk = 0; chunk < region.chunk_total; chunk += 2) /* each second one: runs of one chunk */
        atomic_store(&region.cells[chunk].count, 1);
    hold_lock_of(&region, &holder, &uffd);
    set_budget(connection, PAGE);
    child_say(socket, 'l');
    child_hear(socket, &word);
}

/* Neither before nor after their quarantine does anybody else keep what he is to give. */
START_TEST(test_stuck_plans) {
    struct child planned[STUCK_PLANS];
    struct drp_wire_counters counters;
    struct raw_region region;
    int connection = raw_session("over");
    char text[96];

    raw_region_new(connection, 16 * MIB, &region);
    for (size_t i = 0; i < STUCK_PLANS; i++) {
        child_start(&planned[i], hold_plan, NULL);
        child_expect(&planned[i], 'l');
        snprintf(text, sizeof(text), "client planned (pid %d): holds up a call", (int)planned[i].pid);
        ck_assert_msg(service_log_has(&service, text, 10000), "not in the log: %s", text);
    }
    memset(region.address, 1, region.size);
    set_budget(connection, 4 * MIB);
    for (uint64_t deadline = now_ms() + 10000;;) {
        ck_assert_int_eq(raw_stats(connection, &counters), DRP_WIRE_OK);
        if (counters.resident_bytes <= 4 * MIB)
            break;
        ck_assert_msg(now_ms() < deadline, "still over the budget: nothing is dropped");
    }
    for (size_t i = 0; i < STUCK_PLANS; i++)
        child_kill(&planned[i]);
    raw_region_end(connection, &region);
    close(connection);
}
END_TEST

/* On so many connections. */
static void ask_often(pid_t pid, const int *askers) {
    struct drp_wire_control_drop drop = {
        .header = {.type = DRP_WIRE_CONTROL_DROP, .serial = 1}, .scope = DRP_SCOPE_PID, .id = (uint64_t)pid};

    for (int i = 0; i < ASKERS; i++)
        ck_assert_int_eq(channel_send(askers[i], &drop, sizeof(drop), NULL, 0, 0), CHANNEL_OK);
}

/* What is asked of who is stuck waits for him: not as much as anybody likes, and giving it up takes no longer than others have patience. */
START_TEST(test_asked_often) {
    struct child holder;

    unsigned more = HELD_REGIONS;

    measure_alone();
    for (struct bar bar = {.what = "asked often", .ns = LONGEST_NS}; bar_again(&bar);) {
        int askers[ASKERS];
        long before, after;

        child_start(&holder, hold_inode_lock, &more);
        child_expect(&holder, 'l');
        for (int i = 0; i < ASKERS; i++)
            askers[i] = raw_hello("asker");
        before = service_memory_kb(&service);
        ask_often(holder.pid, askers);
        ck_assert(service_log_has(&service, "its object's lock): quarantined", 10000));
        honest_reset(&honest); /* not before: he waited for his own user's other requests */
        honest_progress(&honest, 300);
        after = service_memory_kb(&service);
        for (int i = 0; i < ASKERS; i++)
            close(askers[i]);
        bar.longest_ns = take_longest(bar.what);
        printf("%ld KiB for what waits\n", after - before);
        ck_assert(after - before < WAITING_KB || under_sanitizer()); /* which keeps what is freed */
        child_kill(&holder);
        ck_assert(status_becomes("regions", 1, 10000));
    }
}
END_TEST

/* ---- the mmap_lock ---- */

static void hold_mmap_lock(int socket, void *data) {
    size_t size = *(size_t *)data;
    struct raw_region region;
    int connection = raw_session("mapper");
    struct pollfd told = {.fd = socket, .events = POLLIN};
    uint64_t loops = 0;

    raw_region_new(connection, 8 * MIB, &region);
    memset(region.address, 1, 8 * MIB);
    child_say(socket, 'm');
    for (; poll(&told, 1, 0) == 0; loops++) {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

        child_check(p != MAP_FAILED);
        munmap(p, size);
        memset(region.address, 2, 8 * MIB);
    }
    fprintf(stderr, "mapper: %llu times\n", (unsigned long long)loops);
    raw_region_end(connection, &region);
    close(connection);
}

START_TEST(test_mmap_lock) {
    size_t size = 256 * MIB;
    struct child mapper;

    measure_alone();
    child_start(&mapper, hold_mmap_lock, &size);
    child_expect(&mapper, 'm');
    for (struct bar bar = {.what = "mmap_lock", .ns = 2 * LONGEST_NS}; bar_again(&bar);) {
        for (int i = 0; i < 20; i++) {
            drop_pid(&mapper);
            honest_progress(&honest, 30);
        }
        bar.longest_ns = take_longest(bar.what);
    }
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)honest.child.pid, "quarantined"), 0);
    child_say(mapper.socket, 'e');
    child_end(&mapper);
}
END_TEST

/* ---- the userfaultfd ---- */

static void *steal_events(void *data) {
    raw_steal_events(*(int *)data, 0);
}

static void *fault_for_ever(void *data) {
    struct raw_region *region = data;

    for (unsigned page = 0;; page = (page + 1) % 2048) {
        ((volatile char *)region->address)[page * PAGE] = 1;
        if (page == 2047)
            madvise(region->address, region->size, MADV_REMOVE);
    }
    return NULL;
}

/* Asks for the end of its mapping while all that goes on, and is gone before it has an answer. */
static void steal_and_die(int socket, void *data) {
    struct drp_wire_id unmap = {.header = {.type = DRP_WIRE_UNMAP, .serial = 1}};
    int connection = raw_hello("thief"), fd = raw_userfaultfd();
    struct raw_region region;
    pthread_t threads[2];

    (void)socket;
    child_check(raw_uffd(connection, fd, 0, NULL) == DRP_WIRE_OK);
    raw_region_new(connection, 8 * MIB, &region);
    child_check(pthread_create(&threads[0], NULL, fault_for_ever, &region) == 0);
    child_check(pthread_create(&threads[1], NULL, steal_events, &fd) == 0);
    usleep(20000);
    unmap.id = region.mapping;
    child_check(channel_send(connection, &unmap, sizeof(unmap), NULL, 0, 0) == CHANNEL_OK);
    usleep(*(useconds_t *)data);
    _exit(0);
}

START_TEST(test_stolen_events) {
    static const useconds_t lives[] = {0, 200, 5000, 50000};

    measure_alone();
    for (struct bar bar = {.what = "stolen events", .ns = 4 * LONGEST_NS}; bar_again(&bar);) {
        for (int round = 0; round < 40; round++) {
            struct child thief;

            child_start(&thief, steal_and_die, (void *)&lives[round % 4]);
            child_end(&thief);
        }
        bar.longest_ns = take_longest(bar.what);
    }
    ck_assert(status_becomes("regions", 1, 10000));
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)honest.child.pid, "quarantined"), 0);
}
END_TEST

static void add_stuck(TCase *stuck) {
    tcase_set_timeout(stuck, 180);
    tcase_add_checked_fixture(stuck, setup, teardown);
    tcase_add_test(stuck, test_flood);
    tcase_add_test(stuck, test_inode_lock);
    tcase_add_test(stuck, test_inode_lock_killed);
    tcase_add_test(stuck, test_promises_of_stuck);
    tcase_add_test(stuck, test_stuck_plans);
    tcase_add_test(stuck, test_asked_often);
    tcase_add_test(stuck, test_killed_while_stuck);
    tcase_add_test(stuck, test_terminated_while_stuck);
    tcase_add_test(stuck, test_mmap_lock);
    tcase_add_test(stuck, test_stolen_events);
}

int main(void) {
    Suite *suite = suite_create("stuck");
    TCase *stuck = tcase_create("stuck"), *killing = tcase_create("killing");
    int fd = raw_userfaultfd();

    if (fd < 0)
        skip_all("no userfaultfd for this user: nothing to hold a lock with");
    close(fd);
    add_stuck(stuck);
    suite_add_tcase(suite, stuck);
    tcase_set_timeout(killing, 180);
    tcase_add_checked_fixture(killing, setup_kill, teardown);
    tcase_add_test(killing, test_kill_stuck);
    suite_add_tcase(suite, killing);
    return suite_run(suite);
}
