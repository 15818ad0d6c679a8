/* SPDX-License-Identifier: MIT */
/*
 * A batch of drops, without its thread: what two jobs have in common is dropped once, what is pinned or held not at all, how long arming is waited
 * for, and how the thread runs.
 */

#include "drop-batch.h"

#include "home.h"
#include "manager.h"
#include "mapped-pins.h"
#include "session.h"
#include "suite.h"

#include <check.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK (UINT64_C(1) << 16)
#define CHUNKS (SPAN_SIZE / CHUNK)

static struct drp_clock_page clock_page;
static struct manager manager;
static struct session session; /* whose mapping it is; the home is nobody's */
static struct home home;
static struct region *region;
static struct drp_pin_cell *cells; /* as the client has them */
static char *memory;

static void setup(void) {
    const struct region_shape shape = {.id = 1, .size = SPAN_SIZE, .chunk_shift = 16, .chunk_total = CHUNKS};
    const struct kernel kernel = {.mount_small = -1, .mount_huge = -1};
    int state_fd;

    manager.clock = &clock_page;
    session.loss.socket = -1;
    home_init(&home, &manager, 1, NULL);
    ck_assert_int_eq(region_new(&region, &kernel, &shape, -1, &state_fd), 0);
    close(state_fd);
    region->dropper_fd = region->data_fd; /* the same table */
    region->home = &home;
    LIST_INSERT_HEAD(&home.regions, region, link);
    cells = map_pins(region, &session, CHUNKS);
    memory = mmap(NULL, SPAN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, region->data_fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    memset(memory, 1, SPAN_SIZE);
}

static void teardown(void) {
    munmap(memory, SPAN_SIZE);
    munmap((char *)cells - DRP_PAGES_ARRAY_OFFSET, drp_pin_bytes(CHUNKS));
    home_deinit(&home);
}

static void nothing(struct drop_request *request) {
    (void)request;
}

/* As the dropper takes the span for a job of all of it, or of a part. */
static void take(struct drop_op *op, struct drop_job *job, struct drop_request *request, uint64_t first, uint64_t end) {
    drop_request_init(request, nothing, NULL);
    *job = (struct drop_job){
        .region = region, .next = end, .end = end, .under_way = end - first, .limit = UINT64_MAX, .request = request};
    *op = (struct drop_op){.job = job, .region = region, .first_chunk = first, .end_chunk = end};
}

/* Both were asked before either was begun: all claims of a slice come before its punches. */
START_TEST(test_same_span_twice) {
    struct drop_request requests[2];
    struct drop_job jobs[2];
    struct drop_op ops[2];

    take(&ops[0], &jobs[0], &requests[0], 0, CHUNKS);
    take(&ops[1], &jobs[1], &requests[1], CHUNKS / 2, CHUNKS);
    cells[1].count = cells[CHUNKS - 1].count = 1;
    drop_batch_run(&home, ops, 2);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
        bool pinned = chunk == 1 || chunk == CHUNKS - 1;

        /* Claimed once: else it would have been even, and so for the taking, between the second claim and the punch. */
        ck_assert_uint_eq(region->generations[chunk], pinned ? 0 : 2);
        ck_assert_int_eq(memory[chunk * CHUNK], pinned);
    }
    ck_assert_uint_eq(requests[0].freed, (CHUNKS - 2) * CHUNK);
    ck_assert_uint_eq(requests[1].freed, 0);
    ck_assert_uint_eq(requests[0].pinned, 2 * CHUNK);
    ck_assert_uint_eq(requests[1].pinned, CHUNK);
    ck_assert_uint_eq(jobs[0].under_way + jobs[1].under_way, 0);
}
END_TEST

/* While pins are still to come: not even what nobody is seen to pin, and no generation moves. */
START_TEST(test_held) {
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;

    region->held = true;
    take(&op, &job, &request, 0, CHUNKS);
    drop_batch_run(&home, &op, 1);
    ck_assert_uint_eq(request.freed, 0);
    ck_assert_uint_eq(request.pinned, SPAN_SIZE);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        ck_assert_uint_eq(region->generations[chunk], 0);
    ck_assert_int_eq(memory[0], 1);
}
END_TEST

/*
 * What was dropped is touched again: a mistake, which protects the span whoever asked. Only if a domain was short it is the domain's, who then takes
 * less at the next stall: what a client drops down to a budget of his own is nobody else's.
 */
START_TEST(test_whose_mistake) {
    struct domain machine = {0}, domain = {.parent = &machine};
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;
    bool needed = _i;

    session.manager = session.home.manager = &manager;
    session.domain = &domain;
    region->mappings[0]->intercepted = true; /* and armed: else nobody sees it */
    manager.decisions = (struct decisions){0};
    atomic_store(&clock_page.tick, 1000);
    for (unsigned round = 1; round <= 2; round++) {
        memset(memory, 1, SPAN_SIZE);
        take(&op, &job, &request, 0, CHUNKS);
        job.pooled = true;
        job.needed = needed && round == 1;
        drop_batch_run(&home, &op, 1);
        ck_assert_uint_eq(request.freed, SPAN_SIZE);
        session_note_refault(&session, region, 3);
        session_note_refault(&session, region, 4); /* the same drop */
        ck_assert_uint_eq(domain.refaults, needed);
        ck_assert_uint_eq(machine.refaults, needed);
        ck_assert_uint_eq(policy_span_level(&region->ticks[0]), round);
        ck_assert_uint_eq(manager.decisions.refaulted_spans, round);
    }
    session.domain = NULL;
}
END_TEST

/* ---- arming ---- */

#define ARM_WAIT_NS UINT64_C(100000000)

/* There is a pager, which does not run, and the span is one that the kernel fills. */
static void await_pager(void) {
    home_init(&session.home, &manager, 2, &session);
    home.session = &session;
    home.dropper.worker.tid = session.pager.worker.tid = INT_MAX; /* nobody's priority is changed */
    session.intercepted = true;
    region->mappings[0]->intercepted = true;
}

/* Drops the span. Returns how long that took. */
static uint64_t drop_unarmed(enum demand_urgency urgency) {
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;
    uint64_t start;

    mapping_set_state(region->mappings[0], 0, MAPPING_DISARMED);
    memset(memory, 1, SPAN_SIZE);
    take(&op, &job, &request, 0, CHUNKS);
    job.pooled = true;
    home.dropper.pooled_urgency = urgency;
    start = kernel_now();
    drop_batch_run(&home, &op, 1);
    start = kernel_now() - start;
    ck_assert_uint_eq(request.freed, SPAN_SIZE);
    return start;
}

/* The pager is held up: a drop that nobody needs waits for it, one in need hardly does, and none for ever. */
START_TEST(test_arming_is_waited_for) {
    static const uint64_t least[] = {ARM_WAIT_NS, ARM_WAIT_NS, 2000000, 500000};
    enum demand_urgency urgency = (enum demand_urgency)_i;
    uint64_t best = UINT64_MAX;

    await_pager();
    for (unsigned i = 1; i <= 10; i++) {
        uint64_t took = drop_unarmed(urgency);

        ck_assert_uint_ge(took, least[urgency]);
        ck_assert_uint_eq(atomic_load(&home.counters.unarmed_drops), i);
        ck_assert_uint_eq(atomic_load(&session.pager.arm_sequence) & 1, 1);
        best = took < best ? took : best;
        atomic_store(&session.pager.arm_sequence, 0);
        if (best < least[urgency] + ARM_WAIT_NS / 2)
            break;
    }
    ck_assert_uint_lt(best, least[urgency] + ARM_WAIT_NS / 2); /* the best: others may have had the CPU */
}
END_TEST

/* While the pager has not even done what it was asked before. */
START_TEST(test_arming_is_asked_once) {
    uint64_t best = UINT64_MAX;

    await_pager();
    ck_assert_uint_ge(drop_unarmed(URGENCY_NONE), ARM_WAIT_NS);
    for (unsigned i = 0; i < 10 && best >= ARM_WAIT_NS / 2; i++) {
        uint64_t took = drop_unarmed(URGENCY_NONE);

        best = took < best ? took : best;
    }
    ck_assert_uint_lt(best, ARM_WAIT_NS / 2);
}
END_TEST

/* As the pager does it. */
static void *arm_once(void *data) {
    struct pager *pager = data;

    while (!(atomic_load(&pager->arm_sequence) & 1))
        sched_yield();
    session_lock(&session);
    mapping_set_state(region->mappings[0], 0, MAPPING_ARMED);
    session_unlock(&session);
    atomic_fetch_add(&pager->arm_sequence, 1);
    syscall(SYS_futex, &pager->arm_sequence, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    return NULL;
}

START_TEST(test_arming_comes_in_time) {
    uint64_t best = UINT64_MAX;

    await_pager();
    for (unsigned i = 0; i < 10 && best >= ARM_WAIT_NS; i++) {
        pthread_t thread;
        uint64_t took;

        ck_assert_int_eq(pthread_create(&thread, NULL, arm_once, &session.pager), 0);
        took = drop_unarmed(URGENCY_NONE);
        pthread_join(thread, NULL);
        best = took < best ? took : best;
        if (took < ARM_WAIT_NS)
            ck_assert_uint_eq(atomic_load(&home.counters.unarmed_drops), i);
    }
    ck_assert_uint_lt(best, ARM_WAIT_NS);
}
END_TEST

/* ---- what is found out ---- */

static struct drop_request drop_for_pressure(void) {
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;

    take(&op, &job, &request, 0, CHUNKS);
    job.pooled = true;
    drop_batch_run(&home, &op, 1);
    return request;
}

/* Whether it was wanted again is known of what was armed, and only that counts. */
START_TEST(test_unseen) {
    struct drop_request request = drop_for_pressure();

    ck_assert_uint_eq(request.freed, SPAN_SIZE);
    ck_assert_uint_eq(request.unseen, SPAN_SIZE);
    ck_assert_uint_eq(manager.decisions.dropped_spans, 0);
    ck_assert_uint_eq(region->ticks[0].last_drop, 0);
    memset(memory, 1, SPAN_SIZE);
    region->mappings[0]->intercepted = true; /* and armed */
    request = drop_for_pressure();
    ck_assert_uint_eq(request.freed, SPAN_SIZE);
    ck_assert_uint_eq(request.unseen, 0);
    ck_assert_uint_eq(manager.decisions.dropped_spans, 1);
}
END_TEST

static uint64_t noted_by_drop(void) {
    struct drop_request request = drop_for_pressure();

    return request.noted;
}

/* That nothing is there has the next plan name others; a second time in a tick that is nothing new. */
START_TEST(test_empty) {
    clock_page.tick = 7;
    drop_for_pressure();
    clock_page.tick = 8;
    ck_assert_uint_eq(noted_by_drop(), 1);
    ck_assert_uint_eq(region->ticks[0].last_fault, 8);
    ck_assert_uint_eq(noted_by_drop(), 0);
    clock_page.tick = 9;
    ck_assert_uint_eq(noted_by_drop(), 1);
}
END_TEST

/* ---- how the thread runs ---- */

static bool may_be_realtime(void) {
    struct sched_param param = {.sched_priority = 1}, ordinary = {0};
    bool may = sched_setscheduler(0, SCHED_FIFO, &param) == 0;

    ck_assert_int_eq(sched_setscheduler(0, SCHED_OTHER, &ordinary), 0);
    return may;
}

/* The batch's op is of a queued job of that urgency. */
static void queue(struct drop_op *op, struct drop_job *job, struct drop_request *request, enum demand_urgency urgency) {
    memset(memory, 1, SPAN_SIZE);
    take(op, job, request, 0, CHUNKS);
    job->pooled = true;
    TAILQ_INSERT_TAIL(&home.dropper.jobs, job, link);
    home.dropper.n_pooled = 1;
    home.dropper.pooled_urgency = urgency;
}

/* What a client asks for, and for a budget, which he can set himself as often as he likes, runs as anybody; for what tasks wait for before all of them. */
START_TEST(test_priority) {
    enum demand_urgency urgency = (enum demand_urgency)_i;
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;
    int nice = getpriority(PRIO_PROCESS, 0);
    bool may = may_be_realtime();

    home.dropper.worker.tid = gettid();
    queue(&op, &job, &request, urgency);
    drop_batch_run(&home, &op, 1);
    ck_assert_int_eq(getpriority(PRIO_PROCESS, 0), nice);
    if (may)
        ck_assert_int_eq(sched_getscheduler(0), urgency >= URGENCY_STALL ? SCHED_FIFO : SCHED_OTHER);
    dropper_set_urgency(&home, URGENCY_NONE);
    ck_assert_int_eq(sched_getscheduler(0), SCHED_OTHER);
    TAILQ_REMOVE(&home.dropper.jobs, &job, link);
}
END_TEST

/* A slice that nobody needed becomes as urgent as what waits behind it, and never less; a client's own drop is none. */
START_TEST(test_hurry) {
    struct drop_request request;
    struct drop_job job;
    struct drop_op op;
    bool may = may_be_realtime();

    home.dropper.worker.tid = gettid();
    ck_assert(!dropper_hurry(&home, URGENCY_LIFE));
    ck_assert_int_eq(home.dropper.urgency, URGENCY_NONE);
    queue(&op, &job, &request, URGENCY_TRIM);
    ck_assert(dropper_hurry(&home, URGENCY_TRIM));
    ck_assert_int_eq(sched_getscheduler(0), SCHED_OTHER);
    ck_assert(dropper_hurry(&home, URGENCY_LIFE));
    ck_assert_int_eq(home.dropper.urgency, URGENCY_LIFE);
    if (may)
        ck_assert_int_eq(sched_getscheduler(0), SCHED_FIFO);
    ck_assert(dropper_hurry(&home, URGENCY_STALL));
    ck_assert_int_eq(home.dropper.pooled_urgency, URGENCY_LIFE);
    drop_batch_run(&home, &op, 1);
    ck_assert_int_eq(home.dropper.urgency, URGENCY_LIFE); /* the queue is not empty */
    dropper_set_urgency(&home, URGENCY_NONE);
    atomic_store(&home.dropper.worker.stop, true);
    ck_assert(dropper_hurry(&home, URGENCY_LIFE));
    ck_assert_int_eq(home.dropper.urgency, URGENCY_NONE);
    atomic_store(&home.dropper.worker.stop, false);
    home.dropper.n_pooled = 0; /* a client's own drop */
    ck_assert(!dropper_hurry(&home, URGENCY_LIFE));
    ck_assert_int_eq(home.dropper.urgency, URGENCY_NONE);
    TAILQ_REMOVE(&home.dropper.jobs, &job, link);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("drop-batch");
    TCase *tcase = tcase_create("drop-batch");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_same_span_twice);
    tcase_add_test(tcase, test_held);
    tcase_add_loop_test(tcase, test_whose_mistake, 0, 2);
    tcase_add_loop_test(tcase, test_arming_is_waited_for, URGENCY_NONE, URGENCY_LIFE + 1);
    tcase_add_test(tcase, test_arming_is_asked_once);
    tcase_add_test(tcase, test_arming_comes_in_time);
    tcase_add_test(tcase, test_unseen);
    tcase_add_test(tcase, test_empty);
    tcase_add_loop_test(tcase, test_priority, URGENCY_NONE, URGENCY_LIFE + 1);
    tcase_add_test(tcase, test_hurry);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
