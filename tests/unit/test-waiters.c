/* SPDX-License-Identifier: MIT */
/*
 * Who waits at the gate, as the pressure thread looks after it: the real thread, on a machine of files, with a client that has nothing to
 * drop, and waits again as soon as it was let in. Half of the memory is available, and all of that is promised.
 */

#include "gate.h"
#include "manager.h"
#include "session.h"
#include "suite.h"
#include "tree.h"

#include <check.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define MIB (INT64_C(1) << 20)
#define AVAILABLE (512 * MIB)
#define RESERVE (64 * MIB)
#define WAIT_NS UINT64_C(5000000000)
/* Looks may come this often: each millisecond, for a plan, and as often for promises. Without a pause there is one for each wait, of some microseconds. */
#define LOOK_NS UINT64_C(400000)
#define LOOKING_NS UINT64_C(300000000)

static char base[64], proc[80];
static struct manager manager;
static struct session *session;
static struct config config;

static void setup(void) {
    struct cgroup_roots roots = {.proc = proc, .cgroup = base};

    snprintf(base, sizeof(base), "/tmp/test-waiters-XXXXXX");
    tree_make(base);
    snprintf(proc, sizeof(proc), "%s/proc", base);
    tree_write(base, "proc/meminfo", "MemTotal: 1048576 kB\nMemFree: 524288 kB\nMemAvailable: 524288 kB\n");
    config_init(&config);
    config.machine_reserve = RESERVE;
    ck_assert_int_eq(manager_init(&manager, &config), 0);
    meminfo_deinit(&manager.domains.meminfo);
    ck_assert_int_eq(meminfo_init(&manager.domains.meminfo, &roots), 0);
    ck_assert_int_eq(session_new(&session, &manager, 1, 0, 0, 0, -1), 0);
    ck_assert_int_eq(domains_find(&manager.domains, NULL, 0, &session->domain), 0);
    atomic_store(&session->committed, AVAILABLE);
    atomic_store(&session->domain->commitment, AVAILABLE);
    domain_take_look(&manager.domains, session->domain);
    ck_assert_int_eq(manager_add_session(&manager, session), 0);
    manager.n_regions = 1; /* else nobody looks at anything */
    ck_assert_int_eq(manager_start(&manager), 0);
    pthread_mutex_lock(&manager.lock);
    ck_assert_int_eq(plans_reserve(&manager.pressure.plans, 1), 0);
    pthread_mutex_unlock(&manager.lock);
}

static void teardown(void) {
    pressure_stop(&manager.pressure);
    manager_remove_session(&manager, session);
    session_leave_domains(session);
    manager_forget_session(&manager, session);
    session = session_free(session);
    manager_deinit(&manager);
    config_deinit(&config);
    tree_remove(base, "");
}

/* As pager.c does. */
static void wait_at_gate(void) {
    atomic_store(&session->pager.waits_at_gate, true);
    pressure_wake(&manager.pressure);
}

static bool is_let_in(uint64_t wait_ns) {
    uint64_t deadline = kernel_now() + wait_ns;

    while (atomic_load(&session->pager.waits_at_gate) && kernel_now() < deadline)
        sched_yield();
    return !atomic_load(&session->pager.waits_at_gate);
}

/* It asks once; what it asked for stands until it was let in, whatever the first look makes of it: to take promises back, of one who does not give any. */
START_TEST(test_asked_once) {
    ck_assert_int_eq(gate_ask(session->domain, 4096, true), GATE_WAIT);
    wait_at_gate();
    ck_assert(is_let_in(WAIT_NS));
    ck_assert(atomic_load(&session->pager.gate_hopeless));
}
END_TEST

/* Somebody who is let in without hope, and waits again at once, does not have the thread look without end. */
START_TEST(test_again_and_again) {
    uint64_t began, looks, waits = 0, lasted;

    ck_assert_int_eq(gate_ask(session->domain, 4096, true), GATE_WAIT);
    wait_at_gate();
    ck_assert(is_let_in(WAIT_NS));
    began = kernel_now();
    looks = atomic_load(&manager.pressure.looks);
    for (; (lasted = kernel_now() - began) < LOOKING_NS; waits++) {
        wait_at_gate();
        ck_assert(is_let_in(WAIT_NS));
    }
    looks = atomic_load(&manager.pressure.looks) - looks;
    printf("%llu waits, %llu looks in %.1f ms\n", (unsigned long long)waits, (unsigned long long)looks,
           (double)lasted / 1e6);
    ck_assert_uint_gt(waits, 1);
    ck_assert_uint_le(looks, lasted / LOOK_NS);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("waiters");
    TCase *tcase = tcase_create("waiters");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_asked_once);
    tcase_add_test(tcase, test_again_and_again);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
