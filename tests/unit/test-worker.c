/* SPDX-License-Identifier: MIT */
/* Workers and the threads that wait to be one: what is in their tables, that nobody waits for them, and that nothing is left of those that could not be had. */

#include "worker.h"

#include "container.h"
#include "service.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 20000
#define ROUNDS 300

struct task {
    struct worker worker;
    size_t descriptors; /* in its table */
    ino_t inode;        /* of the first that it was started with */
};

static struct worker_pool pool;

static void setup(void) {
    worker_pool_init(&pool, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ck_assert_int_ge(pool.wake_fd, 0);
}

static void teardown(void) {
    worker_pool_deinit(&pool);
    close(pool.wake_fd);
}

static void await_full(void) {
    uint64_t deadline = now_ms() + WAIT_MS;

    for (size_t i = 0; i < WORKER_POOL_SIZE; i++)
        for (; atomic_load(&pool.spares[i].state) != SPARE_READY; nap_ms(1))
            ck_assert_uint_lt(now_ms(), deadline);
}

/* A limit of this process that leaves no room for more. */
static struct rlimit limit_descriptors(void) {
    struct rlimit before, none;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    return before;
}

/* Until it is told to end. */
static void run(struct worker *worker) {
    struct task *task = container_of(worker, struct task, worker);
    struct pollfd control = {.fd = worker->control, .events = POLLIN};
    struct stat st;

    if (fstat(worker->keep[0], &st) == 0)
        task->inode = st.st_ino;
    task->descriptors = thread_descriptors();
    while (!worker_stopping(worker))
        (void)poll(&control, 1, -1);
}

static void end(struct worker *worker) {
    uint64_t deadline = now_ms() + WAIT_MS, count;

    worker_stop(worker);
    while (!atomic_load(&worker->done)) {
        struct pollfd wake = {.fd = pool.wake_fd, .events = POLLIN};

        ck_assert_uint_lt(now_ms(), deadline);
        (void)poll(&wake, 1, 100);
        (void)!read(pool.wake_fd, &count, sizeof(count));
    }
    worker_join(worker);
    ck_assert(!worker->started);
}

/* Only what is its own, though others were open when it was started, and when what starts it was; and that also when the starter's copy is closed at once. */
START_TEST(test_table) {
    int fd = memfd_create("test-worker", MFD_CLOEXEC), other = memfd_create("test-other", MFD_CLOEXEC);
    struct task task = {0};
    struct stat st;

    if (_i)
        worker_pool_start(&pool);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(worker_start(&task.worker, run, &pool, &fd, 1, "test"), 0);
    close(fd);
    end(&task.worker);
    ck_assert_uint_eq(task.inode, st.st_ino);
    ck_assert_uint_eq(task.descriptors, 4); /* stderr, control, wake_fd */
    close(other);
}
END_TEST

/* Whatever is open here, and closed while spares are started: no thread has a copy, of which its close would be the last. */
START_TEST(test_no_copies) {
    worker_pool_start(&pool);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct task task = {0};
        struct pollfd ended = {.events = POLLIN};
        int pair[2];

        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        ck_assert_int_eq(worker_start(&task.worker, run, &pool, NULL, 0, "test"), 0);
        close(pair[1]);
        ended.fd = pair[0];
        ck_assert_int_eq(poll(&ended, 1, 0), 1);
        ck_assert(ended.revents & POLLHUP);
        close(pair[0]);
        end(&task.worker);
    }
}
END_TEST

/* As many as are ready are had where no more can be made, and nobody waits for anything; then there is none, and an error that says so; then others come in their place. */
START_TEST(test_ready) {
    static struct task tasks[WORKER_POOL_SIZE + 1];
    struct rlimit before;

    worker_pool_start(&pool);
    for (unsigned round = 0; round < 3; round++) {
        await_full();
        ck_assert_int_eq(worker_pool_error(&pool), 0);
        before = limit_descriptors();
        for (size_t i = 0; i < WORKER_POOL_SIZE; i++)
            ck_assert_int_eq(worker_start(&tasks[i].worker, run, &pool, NULL, 0, "test"), 0);
        ck_assert_int_eq(worker_start(&tasks[WORKER_POOL_SIZE].worker, run, &pool, NULL, 0, "test"), -EMFILE);
        ck_assert(!tasks[WORKER_POOL_SIZE].worker.started);
        ck_assert_int_eq(worker_pool_error(&pool), -EMFILE);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        ck_assert_int_eq(worker_start(&tasks[WORKER_POOL_SIZE].worker, run, &pool, NULL, 0, "test"), 0);
        for (size_t i = 0; i <= WORKER_POOL_SIZE; i++)
            end(&tasks[i].worker);
    }
}
END_TEST

/* The pool could not be started: that is tried again when somebody is needed, and nothing is left of what failed. */
START_TEST(test_start_fails) {
    struct rlimit before = limit_descriptors();
    struct task task = {0};
    size_t descriptors;
    int r;

    worker_pool_start(&pool);
    r = worker_start(&task.worker, run, &pool, NULL, 0, "test");
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    descriptors = own_descriptors();
    ck_assert_int_eq(r, -EMFILE);
    ck_assert_int_eq(worker_pool_error(&pool), -EMFILE);
    ck_assert(!task.worker.started);
    ck_assert_int_eq(worker_start(&task.worker, run, &pool, NULL, 0, "test"), 0);
    end(&task.worker);
    worker_pool_deinit(&pool);
    ck_assert_uint_eq(own_descriptors(), descriptors);
}
END_TEST

/* So many threads of this process may be there. false: not for this user. */
static bool limit_threads(unsigned n) {
    struct rlimit limit;

    if (geteuid() == 0) {
        uid_t uid = (uid_t)(100000 + getpid() % 100000); /* with no other threads, and root knows no limit */

        if (setresuid(uid, uid, uid) < 0)
            return false;
    } else if (getuid() < 100000)
        return false;
    ck_assert_int_eq(getrlimit(RLIMIT_NPROC, &limit), 0);
    limit.rlim_cur = n;
    ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &limit), 0);
    return true;
}

/* A quota of threads: what there is is had, then there is an error that says so, and more as soon as there may be more. */
START_TEST(test_quota) {
    static struct task tasks[WORKER_POOL_SIZE];
    unsigned had = _i < 2 ? 0 : (unsigned)_i - 2; /* beside this thread and the filler */

    if (under_sanitizer() || !limit_threads((unsigned)_i))
        return;
    worker_pool_start(&pool);
    for (unsigned i = 0; i < had; i++)
        ck_assert_int_eq(worker_start(&tasks[i].worker, run, &pool, NULL, 0, "test"), 0);
    ck_assert_int_eq(worker_start(&tasks[had].worker, run, &pool, NULL, 0, "test"), -EAGAIN);
    ck_assert_int_eq(worker_pool_error(&pool), -EAGAIN);
    limit_threads(100);
    for (unsigned i = had; i < WORKER_POOL_SIZE; i++)
        ck_assert_int_eq(worker_start(&tasks[i].worker, run, &pool, NULL, 0, "test"), 0);
    await_full();
    ck_assert_int_eq(worker_pool_error(&pool), 0);
    for (unsigned i = 0; i < WORKER_POOL_SIZE; i++)
        end(&tasks[i].worker);
}
END_TEST

/* Told to end before it has begun. */
START_TEST(test_stopped_at_once) {
    size_t descriptors = own_descriptors();

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct task task = {0};

        ck_assert_int_eq(worker_start(&task.worker, run, &pool, NULL, 0, "test"), 0);
        end(&task.worker);
    }
    worker_pool_deinit(&pool); /* also with spares that are only about to start */
    ck_assert_uint_eq(own_descriptors(), descriptors);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("worker");
    TCase *tcase = tcase_create("worker");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_table, 0, 2);
    tcase_add_test(tcase, test_no_copies);
    tcase_add_test(tcase, test_ready);
    tcase_add_test(tcase, test_start_fails);
    tcase_add_loop_test(tcase, test_quota, 1, 6);
    tcase_add_test(tcase, test_stopped_at_once);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
