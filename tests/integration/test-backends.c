/* SPDX-License-Identifier: MIT */
/*
 * The same program with each backend: what all of them do, what one does not do and says so, and who is chosen when nobody said.
 */

#include "child.h"
#include "filter.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define CHUNK ((size_t)65536)
#define SIZE (4 * MIB)

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

static const enum drp_backend backends[] = {DRP_BACKEND_DAEMON, DRP_BACKEND_NATIVE, DRP_BACKEND_NONE};

#define N_BACKENDS (int)(sizeof(backends) / sizeof(backends[0]))

static struct drp *connection;
static struct drp_region *region;
static unsigned char *memory;

static bool kernel_has_it(void) {
    void *p = mmap(NULL, 4096, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p != MAP_FAILED)
        munmap(p, 4096);
    return p != MAP_FAILED;
}

static int connect_to(enum drp_backend backend) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = backend};

    return drp_new(&connection, &config);
}

static int make(uint64_t required, uint64_t preferred) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = required, .preferred = preferred};
    int error = drp_region_new(&region, connection, SIZE, &options);

    memory = error == 0 ? drp_region_address(region) : NULL;
    return error;
}

static void end(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
}

/* A region of the backend. false: this kernel has none. */
static bool begin(enum drp_backend backend) {
    if (backend == DRP_BACKEND_NATIVE && !kernel_has_it())
        return false;
    ck_assert_int_eq(connect_to(backend), 0);
    ck_assert_int_eq(make(0, 0), 0);
    ck_assert_int_eq((int)drp_region_get_backend(region), (int)backend);
    return true;
}

static void teardown(void) {
    end();
    fixture_teardown();
}

static uint64_t granted(void) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.granted;
}

/* ---- what all of them do ---- */

START_TEST(test_memory) {
    struct drp_region *found = NULL;
    struct drp_region_info info;
    uint64_t freed = 1, pinned = 1;
    size_t offset = 0;

    if (!begin(backends[_i]))
        return;
    drp_region_get_info(region, &info);
    ck_assert_ptr_eq(info.address, memory);
    ck_assert_uint_eq(info.size, SIZE);
    ck_assert(info.connected || backends[_i] != DRP_BACKEND_DAEMON);
    ck_assert(!info.connected || backends[_i] != DRP_BACKEND_NONE);
    ck_assert_int_eq(drp_locate(memory + 5 * CHUNK, &found, &offset), 0);
    ck_assert(found == region && offset == 5 * CHUNK);
    ck_assert(is_zero(memory, SIZE));
    memset(memory, 7, SIZE);
    ck_assert_int_eq(drp_touch(region, 0, SIZE), 0);
    ck_assert_int_eq(drp_touch(region, 0, SIZE + 1), -ERANGE);
    ck_assert_int_eq(drp_drop(region, CHUNK, CHUNK, &freed, &pinned), 0);
    ck_assert(freed == CHUNK && pinned == 0);
    ck_assert(is_filled(memory, 7, CHUNK) && is_zero(memory + CHUNK, CHUNK) &&
              is_filled(memory + 2 * CHUNK, 7, SIZE - 2 * CHUNK));
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert(is_zero(memory, SIZE));
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert_int_eq(drp_populate(region, CHUNK + 1, CHUNK), 0);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    ck_assert_uint_ge(freed, CHUNK + 4096);
    ck_assert_int_eq(drp_drop(region, SIZE, 1, NULL, NULL), -ERANGE);
    ck_assert_int_eq(drp_populate(region, 0, SIZE + 1), -ERANGE);
}
END_TEST

static void expect_zeros_below(int depth) {
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        child_check(is_zero(memory, SIZE));
        memset(memory, 0x33, SIZE);
        if (depth > 0)
            expect_zeros_below(depth - 1);
        child_check(is_filled(memory, 0x33, SIZE));
        region = drp_region_free(region);
        connection = drp_free(connection);
        _exit(0);
    }
    child_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

START_TEST(test_children) {
    if (!begin(backends[_i]))
        return;
    memset(memory, 0x55, SIZE);
    expect_zeros_below(1);
    ck_assert(is_filled(memory, 0x55, SIZE));
}
END_TEST

static bool accessible(void) {
    int fds[2];
    bool can;

    child_check(pipe(fds) == 0);
    can = write(fds[1], memory, 1) == 1;
    close(fds[0]);
    close(fds[1]);
    return can;
}

static void expect_absent(bool absent) {
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        child_check(accessible() == !absent);
        child_check(!absent || drp_drop(region, 0, SIZE, NULL, NULL) == -ENOTCONN);
        _exit(0);
    }
    ck_assert(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

START_TEST(test_absent_children) {
    if (!begin(backends[_i]))
        return;
    memset(memory, 0x55, SIZE);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_FORK_ABSENT, DRP_REGION_FORK_ABSENT), 0);
    expect_absent(true);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_FORK_ABSENT, 0), 0);
    expect_absent(false);
    ck_assert(is_filled(memory, 0x55, SIZE));
}
END_TEST

/* ---- what a backend does not give ---- */

struct wish {
    uint64_t bit;
    bool given[3]; /* as backends[] */
};

static const struct wish wishes[] = {
    {DRP_REGION_SHARED, {true, false, false}},      {DRP_REGION_SIGNAL, {true, false, true}},
    {DRP_REGION_FORK_SHARED, {true, false, false}}, {DRP_REGION_FORK_ABSENT, {true, true, true}},
    {DRP_REGION_DUMP, {true, false, true}},         {DRP_REGION_NO_PINS, {true, true, true}},
};

START_TEST(test_wishes) {
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]) && begin(backends[_i]); i++, end()) {
        const struct wish *w = &wishes[i];
        bool here = w->bit != DRP_REGION_SIGNAL || may_signal(), given = w->given[_i] && here;

        region = drp_region_free(region);
        ck_assert_int_eq(make(w->bit, 0), given ? 0 : -EOPNOTSUPP);
        if (!region)
            ck_assert_ptr_nonnull(
                strstr(drp_detail(), w->given[_i] ? "cannot be given here" : "cannot be given by the backend"));
        region = drp_region_free(region);
        ck_assert_int_eq(make(0, w->bit), 0);
        if (w->bit != DRP_REGION_NO_PINS) /* a permission */
            ck_assert((granted() & w->bit ? w->bit : 0) == (given ? w->bit : 0));
    }
}
END_TEST

START_TEST(test_mergeable) {
    bool can = access("/sys/kernel/mm/ksm/run", F_OK) == 0;

    ck_assert(begin(DRP_BACKEND_NONE));
    region = drp_region_free(region);
    ck_assert_int_eq(make(0, DRP_REGION_MERGEABLE), 0);
    ck_assert(((granted() & DRP_REGION_MERGEABLE) != 0) == can);
    region = drp_region_free(region);
    ck_assert_int_eq(make(DRP_REGION_MERGEABLE, 0), can ? 0 : -EOPNOTSUPP);
}
END_TEST

START_TEST(test_native_refuses) {
    size_t offset, length;
    uint32_t generations[SIZE / 4096];
    uint64_t generation;
    bool lost;

    if (!begin(DRP_BACKEND_NATIVE))
        return;
    ck_assert_uint_eq(granted(), DRP_REGION_NO_PINS | DRP_REGION_NO_SWAP);
    ck_assert_int_eq(drp_pin(region, 0, 1, &generation), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "'native'"));
    ck_assert_int_eq(drp_unpin(region, 0, 1), -EOPNOTSUPP);
    ck_assert_int_eq(drp_read_begin(region, 0, 1, &generation), -EOPNOTSUPP);
    ck_assert(drp_read_retry(region, 0, 1, 0));
    ck_assert_int_eq(drp_lost(region, 0, 1, generations, &offset, &length), -EOPNOTSUPP);
    ck_assert_int_eq((int)drp_copy_generations(region, 0, SIZE, generations), -EOPNOTSUPP);
    ck_assert_uint_ne(drp_generation(region, 0, 1), drp_generation(region, 0, 1));
    ck_assert_int_eq(drp_set_nonvolatile(region, 0, 1, &lost), -EOPNOTSUPP);
    ck_assert_int_eq(drp_set_volatile(region, 0, SIZE), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_take_lost(region, &offset, &length), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_get_lost_fd(region), -EOPNOTSUPP);
    ck_assert_int_eq(drp_get_lost_fd(connection), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_set_options(region, DRP_REGION_DUMP, DRP_REGION_DUMP), -EOPNOTSUPP);
}
END_TEST

/* What the refusals stand on. Where a kernel does better one day, this says so. */
START_TEST(test_native_cannot_be_locked) {
    if (!begin(DRP_BACKEND_NATIVE))
        return;
    memset(memory, 7, SIZE);
    ck_assert_int_eq(mlock(memory, SIZE), 0);
    ck_assert_int_eq(madvise(memory, SIZE, MADV_PAGEOUT), 0);
    ck_assert(!is_filled(memory, 7, SIZE));
}
END_TEST

START_TEST(test_private_memory) {
    uint64_t offset;

    if (!begin(backends[_i]) || backends[_i] == DRP_BACKEND_DAEMON)
        return;
    ck_assert_int_eq(drp_region_get_object(region, &offset), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_get_handle(region), -EINVAL);
}
END_TEST

/* Who does without a service has no budgets. */
static void expect_no_limits(void) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .budget = MIB};
    struct drp_region *other;

    ck_assert_int_eq(drp_set_budget(connection, MIB), -ENOTCONN);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "no service"));
    ck_assert_int_eq(drp_region_set_budget(region, MIB), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_new(&other, connection, SIZE, &options), -EOPNOTSUPP);
}

/* ---- none ---- */

START_TEST(test_none_pins) {
    uint64_t first, second, freed, pinned;
    size_t offset, length;
    bool lost = true;

    ck_assert(begin(DRP_BACKEND_NONE));
    ck_assert_int_eq(drp_set_nonvolatile(region, 8 * CHUNK, CHUNK, &lost), 0);
    ck_assert(!lost);
    ck_assert_int_eq(drp_pin(region, 0, 2 * CHUNK, &first), 0);
    memset(memory, 7, SIZE);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, &pinned), 0);
    ck_assert(pinned == 3 * CHUNK && freed == SIZE - 3 * CHUNK);
    ck_assert(is_filled(memory, 7, 2 * CHUNK) && is_zero(memory + 2 * CHUNK, CHUNK) &&
              is_filled(memory + 8 * CHUNK, 7, CHUNK));
    ck_assert_uint_eq(drp_generation(region, 0, 2 * CHUNK), first);
    ck_assert_int_eq(drp_region_take_lost(region, &offset, &length), 1);
    ck_assert(offset == 2 * CHUNK && length == 6 * CHUNK);
    ck_assert_int_eq(drp_unpin(region, 0, 2 * CHUNK), 0);
    ck_assert_int_eq(drp_unpin(region, 0, 1), -EINVAL);
    ck_assert_int_eq(drp_drop(region, 0, CHUNK, &freed, NULL), 0);
    ck_assert_uint_eq(freed, CHUNK);
    ck_assert_int_eq(drp_pin(region, 0, 1, &second), 0);
    ck_assert_uint_ne(second, first);
    ck_assert_int_eq(drp_region_set_priority(region, DRP_PRIORITY_HIGH), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_set_budget(region, MIB), -EOPNOTSUPP);
}
END_TEST

static bool told(int fd) {
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
}

START_TEST(test_none_tells) {
    int all, one;

    ck_assert(begin(DRP_BACKEND_NONE));
    all = drp_get_lost_fd(connection);
    one = drp_region_get_lost_fd(region);
    ck_assert(all >= 0 && one >= 0 && !told(all) && !told(one));
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert(!told(all) && !told(one)); /* there was nothing */
    memset(memory, 7, CHUNK);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert(told(all) && told(one));
}
END_TEST

static void *drop_always(void *data) {
    for (const _Atomic bool *stop = data; !*stop;)
        ck_assert_int_eq(drp_drop(region, 0, 4 * CHUNK, NULL, NULL), 0);
    return NULL;
}

/* Two threads that drop, one that pins: what is pinned is whole, and a loss is told. */
START_TEST(test_none_races) {
    static _Atomic bool stop;
    pthread_t threads[2];
    uint64_t generation, again, last = 0;
    unsigned losses = 0;

    ck_assert(begin(DRP_BACKEND_NONE));
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, drop_always, &stop), 0);
    for (unsigned i = 0; i < 2000 || losses < 10; i++) {
        size_t at = (i % 4) * CHUNK;

        if (i % 4 == 0)
            last = drp_generation(region, 0, 4 * CHUNK);
        ck_assert_int_eq(drp_pin(region, at, CHUNK, &generation), 0);
        memset(memory + at, (int)(i & 0x7f) + 1, CHUNK);
        ck_assert_int_eq(drp_pin(region, at, CHUNK, &again), 0);
        ck_assert_uint_eq(again, generation);
        ck_assert_int_eq(drp_unpin(region, at, CHUNK), 0);
        ck_assert(is_filled(memory + at, (int)(i & 0x7f) + 1, CHUNK));
        ck_assert_int_eq(drp_unpin(region, at, CHUNK), 0);
        losses += drp_generation(region, 0, 4 * CHUNK) != last;
    }
    stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

static sigjmp_buf retry;

static void handle(int signal) {
    siglongjmp(retry, signal);
}

static bool signals_at(size_t offset) {
    if (sigsetjmp(retry, 1) == 0) {
        (void)*(volatile unsigned char *)(memory + offset);
        return false;
    }
    return true;
}

START_TEST(test_none_signals) {
    if (!may_signal())
        return; /* test_wishes knows what is said then */
    ck_assert(begin(DRP_BACKEND_NONE));
    region = drp_region_free(region);
    ck_assert_int_eq(make(DRP_REGION_SIGNAL, 0), 0);
    signal(SIGBUS, handle);
    ck_assert(signals_at(0));
    ck_assert_int_eq(drp_populate(region, 0, CHUNK), 0);
    memset(memory, 7, CHUNK);
    ck_assert(!signals_at(0) && signals_at(CHUNK));
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert(signals_at(0));
}
END_TEST

/* ---- choosing ---- */

static int word(const char *text) {
    int r;

    ck_assert_int_eq(setenv("DROPPABLE_BACKEND", text, 1), 0);
    r = drp_new(&connection, NULL);
    unsetenv("DROPPABLE_BACKEND");
    if (r == 0)
        ck_assert_int_eq(make(0, 0), 0);
    return r;
}

START_TEST(test_words) {
    static const char *const names[] = {"daemon", "native", "none"};

    for (int i = 0; i < N_BACKENDS; i++, end()) {
        ck_assert_int_eq(word(names[i]), backends[i] == DRP_BACKEND_NATIVE && !kernel_has_it() ? -EOPNOTSUPP : 0);
        if (region)
            ck_assert_int_eq((int)drp_region_get_backend(region), (int)backends[i]);
    }
    ck_assert_int_eq(word("auto"), 0);
    ck_assert_int_eq((int)drp_region_get_backend(region), (int)DRP_BACKEND_DAEMON);
    end();
    ck_assert_int_eq(word("nothing"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DROPPABLE_BACKEND=nothing"));
    ck_assert_int_eq(connect_to((enum drp_backend)17), -EINVAL);
    /* The program's word counts first. */
    ck_assert_int_eq(setenv("DROPPABLE_BACKEND", "none", 1), 0);
    ck_assert(begin(DRP_BACKEND_DAEMON));
    unsetenv("DROPPABLE_BACKEND");
}
END_TEST

/* The kernel's memory, where neither pins nor anything that it has not are asked for. */
START_TEST(test_auto) {
    enum drp_backend kernel = kernel_has_it() ? DRP_BACKEND_NATIVE : DRP_BACKEND_DAEMON;

    ck_assert_int_eq(connect_to(DRP_BACKEND_AUTO), 0);
    ck_assert_int_eq(make(0, 0), 0);
    ck_assert_int_eq((int)drp_region_get_backend(region), (int)DRP_BACKEND_DAEMON);
    region = drp_region_free(region);
    ck_assert_int_eq(make(0, DRP_REGION_NO_PINS), 0);
    ck_assert_int_eq((int)drp_region_get_backend(region), (int)kernel);
    memset(memory, 7, SIZE);
    ck_assert(service_kill(&service, 10000)); /* which is nothing to it */
    ck_assert(kernel == DRP_BACKEND_DAEMON || drp_populate(region, 0, SIZE) == 0);
    expect_absent(false);
    service_restart(&service);
    region = drp_region_free(region);
    while (make(0, DRP_REGION_NO_PINS | DRP_REGION_DUMP) == -ENOTCONN)
        nap_ms(5);
    ck_assert_int_eq((int)drp_region_get_backend(region), (int)DRP_BACKEND_DAEMON);
    end();
    fixture_measure();
}
END_TEST

START_TEST(test_hidden) {
    ck_assert_int_eq(filter_install(&filter_no_droppable, 1, NULL), 0);
    ck_assert_int_eq(connect_to(DRP_BACKEND_NATIVE), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "MAP_DROPPABLE"));
    ck_assert_ptr_nonnull(strstr(drp_detail(), "'daemon'"));
    ck_assert_int_eq(word("native"), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DROPPABLE_BACKEND=native"));
    ck_assert_int_eq(connect_to(DRP_BACKEND_AUTO), 0);
    ck_assert_int_eq(make(0, DRP_REGION_NO_PINS), 0);
    ck_assert_int_eq((int)drp_region_get_backend(region), (int)DRP_BACKEND_DAEMON);
}
END_TEST

/* The library reads the pagemap: another thread shall fork meanwhile, if it can; it does. */
enum { AT_REST, ARMED, TO_FORK, FORKED };
static _Atomic int reading = AT_REST;

ssize_t pread(int fd, void *buffer, size_t size, off_t offset) {
    int armed = ARMED;

    if (atomic_compare_exchange_strong(&reading, &armed, TO_FORK))
        for (uint64_t deadline = now_ms() + 200; atomic_load(&reading) == TO_FORK && now_ms() < deadline;)
            nap_ms(1);
    return syscall(SYS_pread64, fd, buffer, size, offset);
}

static bool has_pagemap(void) {
    char path[64], target[64] = "";

    for (int fd = 0; fd < 256; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "/pagemap"))
            return true;
    }
    return false;
}

static void *fork_beside(void *data) {
    int *status = data;
    pid_t pid;

    for (uint64_t deadline = deadline_in(10000); atomic_load(&reading) != TO_FORK; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    pid = fork();
    if (pid == 0)
        _exit(has_pagemap());
    atomic_store(&reading, FORKED);
    ck_assert_int_eq(waitpid(pid, status, 0), pid);
    return NULL;
}

/* By which a child could see its parent's memory, whatever becomes of the child. */
START_TEST(test_no_pagemap_for_children) {
    pthread_t thread;
    int status = -1;

    ck_assert(begin(DRP_BACKEND_NONE));
    memset(memory, 1, SIZE);
    ck_assert_int_eq(pthread_create(&thread, NULL, fork_beside, &status), 0);
    atomic_store(&reading, ARMED);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(status, 0);
    ck_assert(is_zero(memory, SIZE));
}
END_TEST

/* A service that is not there is an error for who needs one, and none for the others. */
START_TEST(test_no_service) {
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "/nowhere/socket", 1), 0);
    ck_assert_int_eq(connect_to(DRP_BACKEND_AUTO), -ENOENT);
    ck_assert_int_eq(connect_to(DRP_BACKEND_DAEMON), -ENOENT);
    for (int i = 1; i < N_BACKENDS; i++, end())
        if (begin(backends[i]))
            expect_no_limits();
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", service.socket, 1), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("backends");
    TCase *tcase = tcase_create("backends");

    tcase_add_checked_fixture(tcase, fixture_setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_memory, 0, N_BACKENDS);
    tcase_add_loop_test(tcase, test_children, 0, N_BACKENDS);
    tcase_add_loop_test(tcase, test_absent_children, 0, N_BACKENDS);
    tcase_add_loop_test(tcase, test_wishes, 0, N_BACKENDS);
    tcase_add_loop_test(tcase, test_private_memory, 0, N_BACKENDS);
    tcase_add_test(tcase, test_mergeable);
    tcase_add_test(tcase, test_native_refuses);
    tcase_add_test(tcase, test_native_cannot_be_locked);
    tcase_add_test(tcase, test_none_pins);
    tcase_add_test(tcase, test_none_tells);
    tcase_add_test(tcase, test_none_races);
    tcase_add_test(tcase, test_none_signals);
    tcase_add_test(tcase, test_words);
    tcase_add_test(tcase, test_auto);
    tcase_add_test(tcase, test_hidden);
    tcase_add_test(tcase, test_no_service);
    tcase_add_test(tcase, test_no_pagemap_for_children);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
