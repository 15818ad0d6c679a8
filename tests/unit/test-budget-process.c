/* SPDX-License-Identifier: MIT */
/* Budgets of processes: of all their sessions together, and as long as they live. */

#define _GNU_SOURCE

#include "budget-world.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(unsigned i) {
    manager_remove_session(&manager, &sessions[i]);
}

/* It comes, or comes back, as a session of a process: by number and handle. */
static void come(unsigned i, pid_t pid, int handle) {
    sessions[i].pid = pid;
    close(sessions[i].pidfd);
    sessions[i].pidfd = handle;
    ck_assert_int_eq(manager_add_session(&manager, &sessions[i]), 0);
}

/* A process that waits to be ended. */
static pid_t start_process(void) {
    pid_t pid = fork();

    if (pid == 0)
        for (;;)
            pause();
    ck_assert_int_gt(pid, 0);
    return pid;
}

static void end_process(pid_t pid) {
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* All sessions of a process have its limits together, those that come later, too; what a program says of itself is of that session alone. */
START_TEST(test_process) {
    struct budget_excess excess;

    leave(1);
    leave(2);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 8 * MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_QUOTA, 12 * MIB), 0);
    come(1, 100, open_process(getpid()));
    fill(0, 5 * MIB);
    ck_assert_uint_eq(look().bytes, 0);
    fill(1, 5 * MIB);
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_CLIENT);
    ck_assert_uint_eq(excess.id, 100);
    ck_assert_uint_eq(excess.resident, 10 * MIB);
    ck_assert_uint_eq(excess.bytes, 2 * MIB + 8 * MIB / 64);
    ck_assert(budget_covers(&excess, &regions[0]) && budget_covers(&excess, &regions[1]));
    ck_assert_uint_eq(get(BUDGET_SESSION, 11, LIMIT_BUDGET), 8 * MIB);
    sessions[0].region_bytes = sessions[1].region_bytes = 5 * MIB;
    ck_assert_ptr_null(budget_check_bytes(&manager, &sessions[1], 0, 2 * MIB));
    ck_assert_str_eq(budget_check_bytes(&manager, &sessions[1], 0, 2 * MIB + 4096), "BytesPerClient");
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_PRIORITY, 1), 0);
    ck_assert(budget_priority(&regions[0]) == 1 && budget_priority(&regions[1]) == 1);

    /* The config's, too. */
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 0), 0);
    config.client_budget = 9 * MIB;
    budgets_reload(&manager);
    ck_assert_uint_eq(look().bytes, MIB + 9 * MIB / 64);

    ck_assert_int_eq(set(ALICE, BUDGET_SESSION, 10, LIMIT_BUDGET, 9 * MIB + 1), -EPERM);
    ck_assert_int_eq(set(ROOT, BUDGET_SESSION, 10, LIMIT_BUDGET, 2 * MIB), -EPERM); /* that is for itself to say */
    ck_assert_int_eq(set(ALICE, BUDGET_SESSION, 10, LIMIT_BUDGET, 2 * MIB), 0);
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_SESSION);
    ck_assert(budget_covers(&excess, &regions[0]) && !budget_covers(&excess, &regions[1]));
    ck_assert_uint_eq(get(BUDGET_SESSION, 10, LIMIT_BUDGET), 2 * MIB);
    ck_assert_uint_eq(get(BUDGET_SESSION, 11, LIMIT_BUDGET), 9 * MIB);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 9 * MIB);
    come(2, 102, open_process(getpid()));
}
END_TEST

/* Nobody gets rid of an administrator's word by connecting anew. It ends with the process; the next one with its number is another. */
START_TEST(test_process_comes_back) {
    pid_t pid = start_process();

    leave(0);
    come(0, pid, open_process(pid));
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, (uint64_t)pid, LIMIT_BUDGET, 8 * MIB), 0);
    ck_assert_uint_eq(manager.budgets.n_kept, 1);
    leave(0);
    ck_assert_uint_eq(get(BUDGET_CLIENT, (uint64_t)pid, LIMIT_BUDGET), 8 * MIB);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, (uint64_t)pid, LIMIT_BUDGET, 9 * MIB), -EPERM);
    come(0, pid, open_process(pid));
    ck_assert_uint_eq(get(BUDGET_SESSION, 10, LIMIT_BUDGET), 8 * MIB);
    leave(0);
    end_process(pid);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, (uint64_t)pid, LIMIT_BUDGET, MIB), -ENOENT);
    come(0, pid, open_process(getpid()));
    ck_assert_uint_eq(get(BUDGET_SESSION, 10, LIMIT_BUDGET), LIMIT_INFINITE);
    ck_assert_uint_eq(manager.budgets.n_kept, 1);
    ck_assert(!budgets_tidy(&manager));
    ck_assert_uint_eq(manager.budgets.n_kept, 0);

    /* A session may outlive its process, where a child has its socket. */
    leave(1);
    come(1, 4711, sessions[2].pidfd);
    sessions[2].pidfd = -1;
    pid = start_process();
    sessions[1].pidfd = open_process(pid);
    end_process(pid);
    leave(2);
    come(2, 4711, open_process(getpid()));
    ck_assert_ptr_ne(sessions[1].client, sessions[2].client);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 4711, LIMIT_BUDGET, 3 * MIB), 0);
    ck_assert_uint_eq(get(BUDGET_SESSION, 12, LIMIT_BUDGET), 3 * MIB);
    ck_assert_uint_eq(get(BUDGET_SESSION, 11, LIMIT_BUDGET), LIMIT_INFINITE);
}
END_TEST

/* What its owner set lasts as long as a session does; what is taken back keeps no place; of two users' sessions no user is the owner. */
START_TEST(test_process_kept) {
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 8 * MIB), 0);
    ck_assert_uint_eq(manager.budgets.n_kept, 0);
    leave(0);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, MIB), -ENOENT);
    come(0, 100, open_process(getpid()));
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), LIMIT_INFINITE);

    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 8 * MIB), 0);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 4 * MIB), 0);
    ck_assert_uint_eq(manager.budgets.n_kept, 1);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 0), 0);
    ck_assert_uint_eq(manager.budgets.n_kept, 0);

    leave(2); /* Bob's */
    come(2, 100, open_process(getpid()));
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, MIB), -EPERM);
    ck_assert_int_eq(set(BOB, BUDGET_CLIENT, 100, LIMIT_BUDGET, MIB), -EPERM);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, MIB), 0);
}
END_TEST

/* Processes that are gone make place, wherever they stand among those that live. */
START_TEST(test_process_places) {
    pid_t pids[6];

    for (unsigned i = 0; i < 6; i++) {
        pids[i] = start_process();
        leave(0);
        come(0, pids[i], open_process(pids[i]));
        ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, (uint64_t)pids[i], LIMIT_BUDGET, MIB), 0);
    }
    leave(0);
    for (unsigned i = 0; i < 6; i += 2)
        end_process(pids[i]);
    ck_assert_uint_eq(manager.budgets.n_kept, 6);
    ck_assert(budgets_tidy(&manager));
    ck_assert_uint_eq(manager.budgets.n_kept, 3);
    for (unsigned i = 1; i < 6; i += 2) {
        ck_assert_uint_eq(get(BUDGET_CLIENT, (uint64_t)pids[i], LIMIT_BUDGET), MIB);
        end_process(pids[i]);
    }
    for (unsigned uid = 5000; uid < 6021; uid++)
        ck_assert_int_eq(set(ROOT, BUDGET_USER, uid, LIMIT_BUDGET, MIB), 0);
    ck_assert_uint_eq(manager.budgets.n_kept, 1024);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, 7000, LIMIT_BUDGET, MIB), 0); /* these three had ended */
    ck_assert_uint_eq(manager.budgets.n_kept, 1022);
    ck_assert(!budgets_tidy(&manager));
    come(0, 100, open_process(getpid()));
}
END_TEST

/* A shared region counts once for a process, by whatever number of sessions. */
START_TEST(test_process_shares) {
    static struct region region;
    struct shared shared = {.region = &region};
    struct share shares[3];
    struct budget_excess excess;

    leave(1);
    come(1, 100, open_process(getpid()));
    region = (struct region){.home = &shared.home, .id = 30, .data_fd = regions[0].data_fd};
    shared.home.id = 40;
    LIST_INIT(&shared.home.regions);
    LIST_INIT(&shared.shares);
    LIST_INSERT_HEAD(&shared.home.regions, &region, link);
    ck_assert_int_eq(budget_hold_user(&manager, BOB, &shared.user), 0);
    manager_add_home(&manager, &shared.home);
    LIST_REMOVE(&regions[0], link); /* its object is now the shared region's */
    for (unsigned i = 0; i < 3; i++) {
        LIST_INIT(&sessions[i].shares);
        shares[i] = (struct share){.session = &sessions[i], .shared = &shared, .opened = 1};
        LIST_INSERT_HEAD(&sessions[i].shares, &shares[i], of_session);
        LIST_INSERT_HEAD(&shared.shares, &shares[i], of_shared);
    }
    fill(0, 8 * MIB);
    for (unsigned i = 0; i < 2; i++) { /* from look to look */
        ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 8 * MIB), 0);
        ck_assert_uint_eq(look().bytes, 0);
        ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 7 * MIB), 0);
        excess = look();
        ck_assert_uint_eq(excess.resident, 8 * MIB);
        ck_assert(budget_covers(&excess, &region) && !budget_covers(&excess, &regions[2]));
    }
    ck_assert_uint_eq(sessions[2].client->limits.standing.resident, 8 * MIB); /* whole for each process */
    manager_remove_home(&manager, &shared.home);
    budget_release_user(shared.user);
    for (unsigned i = 0; i < 3; i++)
        LIST_INIT(&sessions[i].shares);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("budget-process");
    TCase *tcase = tcase_create("budget-process");

    tcase_add_checked_fixture(tcase, world_setup, world_teardown);
    tcase_add_test(tcase, test_process);
    tcase_add_test(tcase, test_process_comes_back);
    tcase_add_test(tcase, test_process_kept);
    tcase_add_test(tcase, test_process_places);
    tcase_add_test(tcase, test_process_shares);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
