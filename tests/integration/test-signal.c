/* SPDX-License-Identifier: MIT */
/*
 * Signal regions: what was dropped or never populated raises SIGBUS, always, and never reads zeros; what was populated does not.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)64)
#define SIZE (CHUNKS * CHUNK)
#define MIB ((size_t)1 << 20)
#define READERS 4
#define ACCESSES 10000

static struct drp *connection;
static struct drp_region *region;

/* ---- the handler ---- */

static _Thread_local sigjmp_buf *volatile escape; /* where a signalled access goes on; NULL: the handler populates */
static _Thread_local volatile size_t told;        /* the place in the region of the last signal */
static _Thread_local volatile unsigned signals;
static size_t populate_length = PAGE;

static void on_sigbus(int number, siginfo_t *info, void *context) {
    struct drp_region *located;
    size_t offset;

    (void)number;
    (void)context;
    if (drp_locate(info->si_addr, &located, &offset) != 0 || located != region)
        _exit(90);
    signals++;
    told = offset;
    if (escape)
        siglongjmp(*escape, 1);
    if (drp_populate(located, offset / populate_length * populate_length, populate_length) != 0)
        _exit(91);
}

static void catch_signals(void) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    ck_assert_int_eq(sigaction(SIGBUS, &action, NULL), 0);
}

/* Reads a byte. -1: signalled, of just this byte; it is not read again. */
static int peek(size_t offset) {
    sigjmp_buf here;
    int value;

    if (sigsetjmp(here, 1)) {
        escape = NULL;
        return told == offset ? -1 : -2;
    }
    escape = &here;
    value = ((volatile unsigned char *)drp_region_address(region))[offset];
    escape = NULL;
    return value;
}

/* ---- set-up ---- */

static struct drp_region *make(size_t size, uint64_t required, uint64_t preferred) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = required, .preferred = preferred};
    struct drp_region *r;

    ck_assert_msg(drp_region_new(&r, connection, size, &options) == 0, "%s", drp_detail());
    return r;
}

static void connect_service(void) {
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    region = make(SIZE, DRP_REGION_SIGNAL, 0);
    catch_signals();
}

static void start(const char *config) {
    fixture_start(config);
    connect_service();
}

static void setup(void) {
    start(NULL);
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static char *at(size_t offset) {
    return (char *)drp_region_address(region) + offset;
}

static void fill(size_t offset, size_t length, int value) {
    ck_assert_int_eq(drp_populate(region, offset, length), 0);
    memset(at(offset), value, length);
}

static uint64_t drop(void) {
    uint64_t freed;

    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    return freed;
}

/* ---- tests ---- */

START_TEST(test_fresh_and_lost) {
    uint64_t pinned;
    bool lost;

    ck_assert_int_eq(peek(0), -1);
    ck_assert_int_eq(peek(SIZE - 1), -1);
    ck_assert_int_eq(peek(5 * CHUNK + 17), -1);

    /* The pages that the range touches, and no others. */
    ck_assert_int_eq(drp_populate(region, CHUNK + PAGE - 1, 2), 0);
    ck_assert_int_eq(peek(CHUNK), 0);
    ck_assert_int_eq(peek(CHUNK + PAGE), 0);
    ck_assert_int_eq(peek(CHUNK + 2 * PAGE), -1);
    ck_assert_int_eq(peek(CHUNK - 1), -1);

    /* What is there stays. */
    memset(at(CHUNK + PAGE), 7, PAGE);
    fill(4 * CHUNK, CHUNK, 8);
    ck_assert_int_eq(drp_populate(region, 0, SIZE), 0);
    ck_assert(is_zero(at(0), CHUNK + PAGE));
    ck_assert(is_filled(at(CHUNK + PAGE), 7, PAGE));
    ck_assert(is_zero(at(CHUNK + 2 * PAGE), 3 * CHUNK - 2 * PAGE));
    ck_assert(is_filled(at(4 * CHUNK), 8, CHUNK));
    ck_assert(is_zero(at(5 * CHUNK), SIZE - 5 * CHUNK));

    /* What was only populated is dropped, too; what is pinned is not. */
    ck_assert_int_eq(drp_pin(region, 4 * CHUNK, 1, NULL), 0);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, &pinned), 0);
    ck_assert_uint_eq(pinned, CHUNK);
    ck_assert_int_eq(peek(3 * CHUNK), -1);
    ck_assert_int_eq(peek(5 * CHUNK), -1);
    ck_assert(is_filled(at(4 * CHUNK), 8, CHUNK));
    ck_assert_int_eq(drp_unpin(region, 4 * CHUNK, 1), 0);

    /* Volatile and not. */
    ck_assert_int_eq(drp_set_nonvolatile(region, 0, CHUNK, &lost), 0);
    ck_assert(lost);
    fill(0, CHUNK, 9);
    ck_assert_uint_eq(drop(), CHUNK);
    ck_assert(is_filled(at(0), 9, CHUNK));
    ck_assert_int_eq(drp_set_volatile(region, 0, CHUNK), 0);
    ck_assert_uint_eq(drop(), CHUNK);
    ck_assert_int_eq(peek(0), -1);
    ck_assert_int_eq(drp_set_nonvolatile(region, 0, CHUNK, &lost), 0);
    ck_assert(lost);
    ck_assert_int_eq(peek(0), -1);

    ck_assert_int_eq(drp_populate(region, SIZE - 1, 2), -ERANGE);
    ck_assert_int_eq(drp_populate(region, 0, 0), -ERANGE);
}
END_TEST

START_TEST(test_kernel_mode) {
    int pipes[2], zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(zero, 0);
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    for (int round = 0; round < 2; round++) {
        ck_assert(read(zero, at(CHUNK), 10) == -1 && errno == EFAULT);
        ck_assert(write(pipes[1], at(CHUNK), 10) == -1 && errno == EFAULT);
        ck_assert_int_eq(drp_populate(region, CHUNK, 10), 0);
        ck_assert_int_eq(read(zero, at(CHUNK), 10), 10);
        ck_assert_int_eq(write(pipes[1], at(CHUNK), 10), 10);
        ck_assert_uint_eq(drop(), PAGE);
    }
    close(zero);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(test_options) {
    struct drp_region_options options = {.struct_size = sizeof(options),
                                         .required = DRP_REGION_SIGNAL | DRP_REGION_HUGE};
    struct drp_region *other;
    struct drp_region_info info;
    struct drp_probe probe;
    char out[8192], word[8];
    const char *line;

    ck_assert_int_eq(drp_region_new(&other, connection, SIZE, &options), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_SIGNAL"));
    other = make(SIZE, DRP_REGION_SIGNAL, DRP_REGION_HUGE);
    drp_region_get_info(other, &info);
    ck_assert_uint_eq(info.granted & ~DRP_REGION_NO_SWAP, DRP_REGION_SIGNAL);
    ck_assert_int_eq(info.interception, DRP_INTERCEPTION_NONE);
    drp_region_free(other);
    other = make(SIZE, 0, DRP_REGION_SIGNAL);
    drp_region_get_info(other, &info);
    ck_assert_uint_eq(info.granted & ~DRP_REGION_NO_SWAP, DRP_REGION_SIGNAL);
    drp_region_free(other);

    ck_assert_int_eq(drp_get_probe(NULL, &probe), 0);
    ck_assert_int_eq(probe.signal_error, 0);
    ck_assert(probe.daemon_regions & DRP_REGION_SIGNAL);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"probe", NULL}), 0);
    line = strstr(out, "\nsignal ");
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(sscanf(line, " signal %7s", word), 1); /* the first column is the service's */
    ck_assert_str_eq(word, "yes");
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"list", NULL}), 0);
    ck_assert_ptr_nonnull(strstr(out, " signal"));
}
END_TEST

/* Beside an ordinary region, of which the service sees accesses as ever, in every size of chunk, with drops from outside. */
START_TEST(test_drops_of_others) {
    char pid[16], out[4096];
    struct drp_region *ordinary = make(SIZE, 0, 0);

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    for (int round = 0; round < 20; round++) {
        fill(0, SIZE, 1 + round);
        memset(drp_region_address(ordinary), 1 + round, SIZE);
        ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", pid, NULL}), 0);
        for (size_t chunk = 0; chunk < CHUNKS; chunk++)
            ck_assert_int_eq(peek(chunk * CHUNK + (size_t)round * PAGE % CHUNK), -1);
        ck_assert(is_zero(drp_region_address(ordinary), SIZE));
    }
    drp_region_free(ordinary);
}
END_TEST

/* ---- always, and never zeros ---- */

static pthread_barrier_t barrier;
static _Atomic unsigned signalled, wrong;

/* Each byte that a reader looks at is what was written, or signals; after a drop it signals. */
static void *read_lost(void *data) {
    size_t me = (size_t)data;

    for (unsigned round = 0; round * READERS * CHUNKS < ACCESSES; round++) {
        pthread_barrier_wait(&barrier); /* filled: reads race with the drop */
        for (size_t chunk = 0; chunk < CHUNKS; chunk++) {
            int value = peek(chunk * CHUNK + me * PAGE);

            if (value != -1 && value != 1 + (int)(round % 255))
                atomic_fetch_add(&wrong, 1);
        }
        pthread_barrier_wait(&barrier); /* dropped */
        for (size_t chunk = 0; chunk < CHUNKS; chunk++)
            atomic_fetch_add(&signalled, peek(chunk * CHUNK + (me + round) % 16 * PAGE) == -1);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

START_TEST(test_always) {
    char pid[16], out[4096];
    unsigned rounds = 0;
    pthread_t threads[READERS];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, READERS + 1), 0);
    for (size_t i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_lost, (void *)i), 0);
    for (; rounds * READERS * CHUNKS < ACCESSES; rounds++) {
        fill(0, SIZE, 1 + (int)(rounds % 255));
        pthread_barrier_wait(&barrier);
        if (rounds % 4 == 0)
            ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", pid, NULL}),
                             0);
        else
            drop();
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    for (size_t i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    ck_assert_uint_ge(rounds * READERS * CHUNKS, ACCESSES);
    ck_assert_uint_eq(atomic_load(&signalled), rounds * READERS * CHUNKS);
}
END_TEST

/* Within a pin, a populated chunk stays, whatever is dropped around it. */
static _Atomic bool done;

static void *drop_all(void *data) {
    (void)data;
    while (!atomic_load(&done))
        if (drp_drop(region, 0, SIZE, NULL, NULL) < 0)
            atomic_fetch_add(&wrong, 1);
    return NULL;
}

START_TEST(test_pinned) {
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, drop_all, NULL), 0);
    for (int i = 0; i < 5000; i++) {
        size_t offset = (size_t)i % CHUNKS * CHUNK;

        ck_assert_int_eq(drp_pin(region, offset, CHUNK, NULL), 0);
        ck_assert_int_eq(drp_populate(region, offset, CHUNK), 0);
        escape = NULL;
        signals = 0;
        memset(at(offset), 1 + i % 255, CHUNK);
        ck_assert(is_filled(at(offset), 1 + i % 255, CHUNK));
        ck_assert_uint_eq(signals, 0);
        ck_assert_int_eq(drp_unpin(region, offset, CHUNK), 0);
    }
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
}
END_TEST

/* ---- the service's end ---- */

START_TEST(test_restart) {
    struct drp_region_info info;

    fill(0, SIZE / 2, 5);
    fill(SIZE / 2, SIZE / 2, 6);
    ck_assert_int_eq(drp_drop(region, 0, SIZE / 2, NULL, NULL), 0);
    ck_assert(service_kill(&service, 5000));
    for (size_t chunk = 0; chunk < CHUNKS / 2; chunk++)
        ck_assert_int_eq(peek(chunk * CHUNK), -1);
    ck_assert(is_filled(at(SIZE / 2), 6, SIZE / 2));
    ck_assert_int_eq(drp_populate(region, 0, CHUNK), 0); /* nobody is needed for it */
    ck_assert(is_zero(at(0), CHUNK));

    service_restart(&service);
    do
        drp_region_get_info(region, &info);
    while (!info.connected && (nap_ms(5), true));
    ck_assert_uint_eq(info.granted & ~DRP_REGION_NO_SWAP, DRP_REGION_SIGNAL);
    ck_assert_uint_eq(drop(), SIZE / 2 + CHUNK);
    for (size_t chunk = 0; chunk < CHUNKS; chunk++)
        ck_assert_int_eq(peek(chunk * CHUNK), -1);
    region = drp_region_free(region);
    connection = drp_free(connection);
    service_stop(&service);
}
END_TEST

/* ---- children ---- */

static void be_child(int socket, void *data) {
    struct drp_region *parents = region, *located = NULL;
    size_t offset = 0;

    (void)data;
    /* Plain zeros, and no signal, ever. */
    child_check(is_zero(at(0), SIZE));
    child_check(drp_locate(at(7), &located, &offset) == 0 && located == region && offset == 7);
    memset(at(0), 3, SIZE);
    child_check(drp_populate(region, 0, SIZE) == 0);
    child_check(is_filled(at(0), 3, SIZE));

    /* One of its own signals. */
    region = make(SIZE, DRP_REGION_SIGNAL, 0);
    child_check(peek(0) == -1);
    child_check(drp_populate(region, 0, SIZE) == 0);
    child_check(is_zero(at(0), SIZE));
    child_check(drop() == SIZE);
    child_check(peek(CHUNK) == -1);
    drp_region_free(region);
    region = parents;
    child_check(child_say(socket, 'c'));
}

START_TEST(test_fork) {
    struct child child;

    fill(0, SIZE / 2, 7);
    child_start(&child, be_child, NULL);
    child_expect(&child, 'c');
    child_end(&child);
    ck_assert(is_filled(at(0), 7, SIZE / 2));
    ck_assert_int_eq(peek(SIZE / 2), -1);
    ck_assert_uint_eq(drop(), SIZE / 2);
    ck_assert_int_eq(peek(0), -1);
}
END_TEST

/* ---- naive clients ---- */

/* The program moves it, or takes a part of it away: its own loss, and everybody goes on. */
START_TEST(test_moved) {
    char *elsewhere = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct drp_region *other = make(SIZE, DRP_REGION_SIGNAL, 0);
    void *address = drp_region_address(other);

    ck_assert_ptr_ne(elsewhere, MAP_FAILED);
    ck_assert_int_eq(drp_populate(other, 0, SIZE), 0);
    memset(address, 4, SIZE);
    ck_assert_ptr_eq(mremap(address, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere), elsewhere);
    ck_assert(is_filled(elsewhere, 4, SIZE));
    ck_assert_int_eq(drp_populate(other, 0, SIZE), -ENOENT);
    ck_assert_int_eq(drp_drop(other, 0, SIZE, NULL, NULL), 0);
    ck_assert(is_zero(elsewhere, SIZE));
    ck_assert_int_eq(munmap(elsewhere, SIZE), 0);
    drp_region_free(other);

    ck_assert_int_eq(munmap(at(0), SIZE / 2), 0);
    ck_assert_int_eq(peek(SIZE / 2), -1);
}
END_TEST

/* Without privileges, and without a descriptor that the service lends. */
static void be_nobody(int socket, void *data) {
    struct drp *own;
    struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SIGNAL};

    (void)data;
    child_become_nobody();
    child_check(drp_new(&own, NULL) == 0);
    if (!may_signal()) {
        child_check(drp_region_new(&region, own, SIZE, &options) == -EOPNOTSUPP);
        child_check(strstr(drp_detail(), "userfaultfd") != NULL);
        child_check(child_say(socket, 'c'));
        return;
    }
    child_check(drp_region_new(&region, own, SIZE, &options) == 0);
    child_check(peek(0) == -1);
    child_check(drp_populate(region, 0, SIZE) == 0);
    memset(at(0), 3, SIZE);
    child_check(drop() == SIZE);
    child_check(peek(0) == -1);
    child_check(child_say(socket, 'c'));
}

START_TEST(test_unprivileged) {
    struct child child;

    child_start(&child, be_nobody, NULL);
    child_expect(&child, 'c');
    child_end(&child);
}
END_TEST

/* ---- pressure ---- */

/* That nobody is killed with the automatic reserve, too, takes a quiet machine. */
static void setup_reserve(void) {
    start("[Pressure]\nCgroupReserve=32M\n");
}

#define LIMIT (96 * MIB)
#define LARGE (4 * LIMIT)

/* Populates as fast as it can, four times of what there is room for: by chunks outside of the handler, and by pages in it. */
static void be_greedy(int socket, void *data) {
    struct drp *own;
    struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SIGNAL};

    memcg_enter(data);
    child_check(drp_new(&own, NULL) == 0);
    child_check(drp_region_new(&region, own, LARGE, &options) == 0);
    for (size_t offset = 0; offset < LARGE; offset += CHUNK) {
        child_check(drp_populate(region, offset, CHUNK) == 0);
        *at(offset) = 1;
    }
    signals = 0;
    escape = NULL;
    for (size_t offset = 0; offset < LARGE; offset += PAGE)
        *at(offset) = 2;
    child_check(signals > (LARGE - LIMIT) / PAGE / 2);
    child_check(child_say(socket, 'c'));
}

/* The service's commitments do not know of it, and its reserve holds all the same. */
START_TEST(test_pressure) {
    const char *reason = "";
    struct memcg memcg;
    struct child child;

    if (!memcg_make(&memcg, LIMIT, &reason)) {
        suite_skip_part("signals under pressure", reason);
        return;
    }
    child_start(&child, be_greedy, &memcg);
    child_expect(&child, 'c');
    child_end(&child);
    ck_assert_uint_eq(memcg_oom_kills(&memcg), 0);
    ck_assert_uint_eq(service_status(&service, "commitment"), 0);
    memcg_remove(&memcg);
}
END_TEST

/* ---- times ---- */

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The goal is in the bench; here for a machine that does other things, too. */
START_TEST(test_retry_time) {
    static uint64_t ns[CHUNKS * 16];
    size_t n = 0;

    escape = NULL;
    for (size_t offset = 0; offset < SIZE; offset += PAGE) {
        uint64_t start = now_ns();

        *(volatile char *)at(offset) = 1;
        ns[n++] = now_ns() - start;
    }
    ck_assert_uint_eq(signals, n);
    qsort(ns, n, sizeof(ns[0]), compare);
    printf("handler, populate, retry: %.1f us median, %.1f us p90\n", (double)ns[n / 2] / 1e3,
           (double)ns[n * 9 / 10] / 1e3);
    ck_assert_uint_lt(ns[n / 2], under_sanitizer() ? 1000000 : 100000 * patience());
}
END_TEST

int main(void) {
    Suite *suite = suite_create("signal");
    TCase *tcase = tcase_create("signal");

    if (!may_signal()) {
        puts("skipped: no userfaultfd that raises signals");
        return 77;
    }
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_fresh_and_lost);
    tcase_add_test(tcase, test_kernel_mode);
    tcase_add_test(tcase, test_options);
    tcase_add_test(tcase, test_drops_of_others);
    tcase_add_test(tcase, test_always);
    tcase_add_test(tcase, test_pinned);
    tcase_add_test(tcase, test_fork);
    tcase_add_test(tcase, test_moved);
    tcase_add_test(tcase, test_unprivileged);
    tcase_add_test(tcase, test_retry_time);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("pressure");
    tcase_add_checked_fixture(tcase, setup_reserve, teardown);
    tcase_set_timeout(tcase, 60);
    if (!under_sanitizer()) /* its memory does not fit into the cgroup */
        tcase_add_test(tcase, test_pressure);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("restart");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_restart);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
