/* SPDX-License-Identifier: MIT */
/* Budgets: who may set them, who is over, and when somebody is asked again. */

#define _GNU_SOURCE

#include "budget-world.h"
#include "suite.h"

#include <check.h>
#include <errno.h>

START_TEST(test_owner_lowers_and_cannot_raise) {
    config.client_budget = 100 * MIB;
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 100 * MIB);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 40 * MIB), 0);
    ck_assert_uint_eq(get(BUDGET_SESSION, 10, LIMIT_BUDGET), 40 * MIB);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 100 * MIB + 1), -EPERM);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, LIMIT_INFINITE), -EPERM);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 40 * MIB);
    ck_assert_int_eq(set(BOB, BUDGET_CLIENT, 100, LIMIT_BUDGET, 10 * MIB), -EPERM);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 101, LIMIT_BUDGET), 100 * MIB); /* nobody else's */

    /* An administrator may, both ways; then that is what the owner may go up to. */
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 200 * MIB), 0);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 200 * MIB);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 50 * MIB), 0);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 150 * MIB), 0);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 150 * MIB);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_BUDGET, 0), 0);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 200 * MIB);

    /* The config's changes reach those for whom nothing was given. */
    config.client_budget = 10 * MIB;
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 200 * MIB);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 101, LIMIT_BUDGET), 10 * MIB);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 0), 0);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), 10 * MIB);
}
END_TEST

static struct config_group sections[] = {
    {.uid = ALICE, .budget = 60 * MIB}, {.path = "/jobs", .quota = 512 * MIB}, {.uid = 4711, .quota = 64 * MIB}};

static void load_sections(size_t n) {
    struct config with = config;

    with.groups = sections;
    with.n_groups = n;
    ck_assert_int_eq(budgets_hold_sections(&manager, &with), 0);
    budgets_take_sections(&manager, &with);
}

/* Of one user or cgroup, in the place of what the config says of all; what an administrator gives goes before it, an owner goes below. */
START_TEST(test_sections) {
    config.user_budget = 100 * MIB;
    load_sections(3);
    ck_assert_uint_eq(manager.budgets.n_kept, 3);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_BUDGET), 60 * MIB);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_QUOTA), config.max_bytes_per_uid);
    ck_assert_uint_eq(get(BUDGET_USER, BOB, LIMIT_BUDGET), 100 * MIB);
    ck_assert_uint_eq(get(BUDGET_USER, 4711, LIMIT_QUOTA), 64 * MIB); /* who is not there yet */
    ck_assert_uint_eq(get(BUDGET_CGROUP, 0, LIMIT_QUOTA), 512 * MIB);

    ck_assert_int_eq(set(ALICE, BUDGET_USER, ALICE, LIMIT_BUDGET, 61 * MIB), -EPERM);
    ck_assert_int_eq(set(ALICE, BUDGET_USER, ALICE, LIMIT_BUDGET, 50 * MIB), 0);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_BUDGET), 50 * MIB);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, ALICE, LIMIT_BUDGET, 200 * MIB), 0);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_BUDGET), 200 * MIB);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, ALICE, LIMIT_BUDGET, 0), 0);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_BUDGET), 60 * MIB);

    fill(0, 40 * MIB);
    fill(1, 40 * MIB);
    ck_assert_uint_eq(look().scope, BUDGET_USER);

    /* What was set at run time outlives the section. */
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_QUOTA, 256 * MIB), 0);
    load_sections(0);
    ck_assert_uint_eq(manager.budgets.n_kept, 1);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_BUDGET), 100 * MIB);
    ck_assert_uint_eq(get(BUDGET_CGROUP, 0, LIMIT_QUOTA), 256 * MIB);
}
END_TEST

START_TEST(test_what_can_be_set) {
    const struct budget_object client = {.scope = BUDGET_CLIENT, .id = 100};
    struct limit_values values = {.mask = LIMIT_BIT(LIMIT_BUDGET) | LIMIT_BIT(LIMIT_SHARE)}, effective;

    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20, LIMIT_QUOTA, MIB), -EINVAL);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, ALICE, LIMIT_SHARE, 5), -EINVAL);
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_PRIORITY, 1), -EINVAL);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, 4095), -ERANGE);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_SHARE, 10001), -ERANGE);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_SHARE, LIMIT_INFINITE), -ERANGE);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_PRIORITY, 4), -ERANGE);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 99, LIMIT_BUDGET, MIB), -ENOENT);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 30, LIMIT_BUDGET, MIB), -ENOENT);
    ck_assert_int_eq(set(ALICE, BUDGET_CGROUP, 0, LIMIT_BUDGET, MIB), -EPERM);
    ck_assert_int_eq(set(ALICE, BUDGET_USER, BOB, LIMIT_BUDGET, MIB), -EPERM);
    ck_assert_int_eq(set(4711, BUDGET_USER, 4711, LIMIT_BUDGET, MIB), -ENOENT);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, UINT32_MAX, LIMIT_BUDGET, MIB), -ENOENT);
    ck_assert_int_eq(budget_set(&manager, ROOT, true, &(struct budget_object){.scope = BUDGET_CGROUP, .path = "jobs"},
                                &values, &effective),
                     -EINVAL);

    /* All of them or none. */
    values.of[LIMIT_BUDGET] = MIB;
    values.of[LIMIT_SHARE] = 101;
    ck_assert_int_eq(budget_set(&manager, ALICE, false, &client, &values, &effective), -EPERM);
    ck_assert_uint_eq(get(BUDGET_CLIENT, 100, LIMIT_BUDGET), LIMIT_INFINITE);
    values.of[LIMIT_SHARE] = 50;
    ck_assert_int_eq(budget_set(&manager, ALICE, false, &client, &values, &effective), 0);
    ck_assert_uint_eq(effective.of[LIMIT_BUDGET], MIB);
    ck_assert_uint_eq(effective.of[LIMIT_SHARE], 50);
}
END_TEST

/* What is set for a user or a cgroup outlives its clients, and is there before them. */
START_TEST(test_kept) {
    ck_assert_int_eq(set(ALICE, BUDGET_USER, ALICE, LIMIT_QUOTA, 7 * MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, 4711, LIMIT_QUOTA, 8 * MIB), 0);
    manager_remove_session(&manager, &sessions[0]);
    manager_remove_session(&manager, &sessions[1]);
    ck_assert_uint_eq(get(BUDGET_USER, ALICE, LIMIT_QUOTA), 7 * MIB);
    ck_assert_uint_eq(get(BUDGET_USER, 4711, LIMIT_QUOTA), 8 * MIB);
    ck_assert_int_eq(manager_add_session(&manager, &sessions[0]), 0);
    ck_assert_int_eq(manager_add_session(&manager, &sessions[1]), 0);

    /* Only so many: half of the places are not for users. */
    for (unsigned uid = 5000; uid < 5511; uid++)
        ck_assert_int_eq(set(ROOT, BUDGET_USER, uid, LIMIT_BUDGET, MIB), 0);
    ck_assert_int_eq(set(BOB, BUDGET_USER, BOB, LIMIT_BUDGET, MIB), -ENOSPC);
    ck_assert_int_eq(set(ALICE, BUDGET_USER, ALICE, LIMIT_BUDGET, MIB), 0); /* has one */
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_BUDGET, MIB), 0);
    for (unsigned uid = 5511; uid < 6021; uid++)
        ck_assert_int_eq(set(ROOT, BUDGET_USER, uid, LIMIT_BUDGET, MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, BOB, LIMIT_BUDGET, MIB), -ENOSPC);
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_BUDGET, 2 * MIB), 0);

    /* What is taken back makes place. */
    ck_assert_int_eq(set(ROOT, BUDGET_USER, 5000, LIMIT_BUDGET, 0), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, BOB, LIMIT_BUDGET, MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, 5000, LIMIT_BUDGET, MIB), -ENOSPC);
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_BUDGET, 0), 0);
    ck_assert_uint_eq(get(BUDGET_CGROUP, 0, LIMIT_BUDGET), LIMIT_INFINITE);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, BOB, LIMIT_BUDGET, 0), 0); /* he has a client */
    ck_assert_int_eq(set(ROOT, BUDGET_USER, 5000, LIMIT_BUDGET, MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_USER, BOB, LIMIT_QUOTA, MIB), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_BUDGET, MIB), -ENOSPC);
}
END_TEST

START_TEST(test_nobody_has_one) {
    struct budget_excess list[BUDGET_AT_ONCE];
    size_t n;

    fill(0, MIB);
    ck_assert_uint_eq(budget_look(&manager, now, list, &n), UINT64_MAX);
    ck_assert(!manager.budgets.active); /* the next is an integer test */
    ck_assert_uint_eq(budget_look(&manager, now, list, &n), UINT64_MAX);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_BUDGET, MIB / 2), 0);
    ck_assert_uint_eq(look().bytes, MIB / 2 + 65536);
}
END_TEST

/* Each scope is found over, covers its own, and nobody else's; who had no turn yet comes first. */
START_TEST(test_scopes) {
    struct budget_excess excess;

    fill(0, 8 * MIB);
    fill(1, 4 * MIB);
    fill(2, 6 * MIB);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20, LIMIT_BUDGET, 7 * MIB), 0);
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_REGION);
    ck_assert_uint_eq(excess.bytes, MIB + 7 * MIB / 64);
    ck_assert_uint_eq(excess.resident, 8 * MIB);
    ck_assert(budget_covers(&excess, &regions[0]) && !budget_covers(&excess, &regions[1]));

    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 102, LIMIT_BUDGET, 4 * MIB), 0);
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_CLIENT);
    ck_assert_uint_eq(excess.id, 102);
    ck_assert(budget_covers(&excess, &regions[2]) && !budget_covers(&excess, &regions[0]));

    ck_assert_int_eq(set(ROOT, BUDGET_USER, ALICE, LIMIT_BUDGET, 8 * MIB), 0);
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_USER);
    ck_assert_uint_eq(excess.bytes, 4 * MIB + 8 * MIB / 64);
    ck_assert(budget_covers(&excess, &regions[0]) && budget_covers(&excess, &regions[1]) &&
              !budget_covers(&excess, &regions[2]));

    ck_assert_int_eq(set(ROOT, BUDGET_CGROUP, 0, LIMIT_BUDGET, 2 * MIB), 0); /* /jobs, with what is below it */
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_CGROUP);
    ck_assert_uint_eq(excess.resident, 12 * MIB);
    ck_assert(budget_covers(&excess, &regions[0]) && budget_covers(&excess, &regions[1]) &&
              !budget_covers(&excess, &regions[2]));
}
END_TEST

/* The config's: of cgroups those that hold clients, and never the machine. */
START_TEST(test_config_of_cgroups) {
    struct budget_excess excess;

    manager_remove_session(&manager, &sessions[1]);
    fill(0, 8 * MIB);
    fill(2, 20 * MIB);
    config.cgroup_budget = 4 * MIB;
    budgets_reload(&manager);
    excess = look();
    ck_assert_int_eq(excess.scope, BUDGET_CGROUP);
    ck_assert_ptr_eq(excess.domain, &cache);
    fill(0, 0);
    ck_assert_uint_eq(look().bytes, 0);
    ck_assert_int_eq(manager_add_session(&manager, &sessions[1]), 0);
}
END_TEST

/* A group of which nothing goes is asked ever less often, and does not hide the others. */
START_TEST(test_pinned_whole) {
    struct budget_excess list[BUDGET_AT_ONCE];
    unsigned asked[2] = {0};
    size_t n;

    fill(0, 8 * MIB);
    fill(1, 2 * MIB);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20 + i, LIMIT_BUDGET, MIB), 0);
    for (uint64_t end = now + 4000 * MS; now < end;) {
        uint64_t wait = budget_look(&manager, now, list, &n);

        ck_assert_uint_gt(wait, 0);
        for (size_t i = 0; i < n; i++) {
            asked[list[i].id - 20]++;
            budget_note_asked(&list[i], now, false);
        }
        now += wait;
    }
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_ge(asked[i], 5);
        ck_assert_uint_le(asked[i], 12);
    }

    /* Once something goes, it is asked again at once. */
    while (look().id != 20)
        ;
    atomic_fetch_add(&regions[0].dropped_bytes, MIB);
    now += 1000 * MS;
    while (look().id != 20)
        ;
    atomic_fetch_add(&regions[0].dropped_bytes, MIB);
    now += MS;
    ck_assert_uint_eq(look().id, 20);
    /* As long as he is giving for the last time, that says nothing. */
    now += MS;
    for (unsigned i = 0; i < 10; i++, now += MS) {
        n = look_at(list);
        ck_assert(n > 0 && list[n - 1].id == 20);
        budget_note_asked(&list[n - 1], now, true);
    }
}
END_TEST

/* So much later, by a look that cost nothing: somebody else may have had the CPU in the middle of one. */
static uint64_t look_in(uint64_t ms, struct budget_excess *ret, size_t *ret_n) {
    uint64_t wait = 0;

    now += ms * MS;
    for (unsigned i = 0; i == 0 || (manager.budgets.not_before != 0 && i < 100); i++) {
        manager.budgets.due = 0;
        wait = budget_look(&manager, now, ret, ret_n);
    }
    return wait;
}

/* What comes while it is not asked is no pin of before: it is asked for, and stands first in need. */
START_TEST(test_grows_above_its_pins) {
    struct budget_excess list[BUDGET_AT_ONCE];
    size_t n;

    fill(0, 8 * MIB);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20, LIMIT_BUDGET, 4 * MIB), 0);
    for (unsigned i = 0; i < 8; i++) {
        now += 1000 * MS;
        ck_assert_uint_eq(look().id, 20);
    }
    for (unsigned i = 0; i < 2; i++) {
        fill(0, 8 * MIB + i * 65536); /* within the margin */
        ck_assert_uint_le(look_in(20, list, &n), 20 * MS);
        ck_assert_uint_eq(n, 0);
        ck_assert_uint_eq(regions[0].budget.standing.over, 0);
    }
    fill(0, 12 * MIB);
    look_in(20, list, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_gt(list[0].bytes, 8 * MIB);
    ck_assert_uint_gt(regions[0].budget.standing.over, 8 * MIB);
    budget_note_asked(&list[0], now, false);
    look_in(20, list, &n);
    ck_assert_uint_eq(n, 0);

    /* What goes of it, and what it gives up itself, is no pin of before either. */
    fill(0, 8 * MIB);
    look_in(20, list, &n);
    ck_assert_uint_eq(n, 0);
    fill(0, 12 * MIB);
    look_in(20, list, &n);
    ck_assert_uint_eq(n, 1);
    budget_note_asked(&list[0], now, false);
    atomic_fetch_add(&regions[0].dropped_bytes, 4 * MIB);
    look_in(20, list, &n);
    ck_assert_uint_eq(n, 1);
}
END_TEST

/* Who is over when: not the largest, but who had his turn the longest time ago. */
START_TEST(test_turns) {
    struct budget_excess list[BUDGET_AT_ONCE], first[BUDGET_AT_ONCE];
    static const enum budget_scope scopes[9] = {BUDGET_REGION, BUDGET_REGION, BUDGET_REGION,
                                                BUDGET_CLIENT, BUDGET_CLIENT, BUDGET_CLIENT,
                                                BUDGET_USER,   BUDGET_USER,   BUDGET_CGROUP};
    static const uint64_t ids[9] = {20, 21, 22, 100, 101, 102, ALICE, BOB, 0};
    unsigned turns[4] = {0};

    fill(0, 64 * MIB);
    fill(1, 8 * MIB);
    fill(2, 4 * MIB);
    for (unsigned i = 0; i < 9; i++)
        ck_assert_int_eq(set(ROOT, scopes[i], ids[i], LIMIT_BUDGET, MIB), 0);
    ck_assert_uint_eq(look_at(first), BUDGET_AT_ONCE);
    for (size_t i = 0; i + 1 < BUDGET_AT_ONCE; i++)
        ck_assert_uint_ge(first[i].bytes, first[i + 1].bytes); /* nobody had his turn */
    for (size_t i = 0; i < BUDGET_AT_ONCE; i++)
        budget_note_asked(&first[i], now, false);
    now += MS;
    ck_assert_uint_eq(look_at(list), BUDGET_AT_ONCE);
    for (size_t i = 0; i < BUDGET_AT_ONCE; i++)
        ck_assert(first[i].scope != list[0].scope || first[i].id != list[0].id);

    /* One at a time, where plans cost much: who fills as fast as he is dropped from does not have all the turns. */
    for (unsigned i = 0; i < 9; i++)
        ck_assert_int_eq(set(ROOT, scopes[i], ids[i], LIMIT_BUDGET, scopes[i] == BUDGET_REGION ? MIB : 0), 0);
    for (unsigned i = 0; i < 30; i++, now += MS) {
        struct budget_excess excess = look();

        turns[excess.id - 20]++;
        atomic_fetch_add(&regions[excess.id - 20].dropped_bytes, MIB); /* and is there again */
    }
    /* Who has more that are over has no more turns of the others'. */
    ck_assert_uint_ge(turns[2], 14);
    ck_assert_uint_ge(turns[0], 7);
    ck_assert_uint_ge(turns[1], 7);
}
END_TEST

/* Regions of one session have one turn together, each of them in its time. */
START_TEST(test_turns_of_regions) {
    static struct region more[20];
    unsigned turns[2] = {0};
    uint64_t last = 0;

    for (unsigned i = 0; i < 20; i++) {
        more[i] = (struct region){.home = &sessions[0].home, .id = 50 + i, .data_fd = regions[0].data_fd};
        LIST_INSERT_HEAD(&sessions[0].home.regions, &more[i], link);
    }
    config.region_budget = MIB;
    fill(0, 8 * MIB);
    fill(1, 2 * MIB);
    budgets_reload(&manager);
    for (unsigned i = 0; i < 20; i++, now += MS) {
        struct budget_excess excess = look();
        struct region *region = excess.id == 21 ? &regions[1] : excess.id == 20 ? &regions[0] : &more[excess.id - 50];

        ck_assert_uint_ne(excess.id, last);
        last = excess.id;
        turns[excess.id == 21]++;
        atomic_fetch_add(&region->dropped_bytes, MIB);
    }
    ck_assert(turns[0] == 10 && turns[1] == 10);
    for (unsigned i = 0; i < 20; i++)
        LIST_REMOVE(&more[i], link);
}
END_TEST

START_TEST(test_when_to_look) {
    struct budget_excess list[BUDGET_AT_ONCE];
    size_t n;

    config.client_budget = 128 * MIB;
    budgets_reload(&manager);
    ck_assert_uint_ge(budget_look(&manager, now, list, &n), 124 * MS); /* 128 MiB at 1 GiB/s */
    ck_assert_uint_le(budget_look(&manager, now, list, &n), 125 * MS);
    ck_assert_uint_eq(budget_look(&manager, now + 100 * MS, list, &n), 25 * MS);
    fill(0, 127 * MIB);
    ck_assert_uint_ge(budget_look(&manager, now + 125 * MS, list, &n), 20 * MS);
    config.client_budget = 1 << 30;
    config.client_budget *= 16;
    manager.budgets.not_before = 0; /* whatever those looks took */
    budgets_reload(&manager);
    ck_assert_uint_eq(budget_look(&manager, now, list, &n), 1000 * MS);
    manager.budgets.not_before =
        now + 7 * MS; /* as after a look that took long: whoever changes his budget all the time waits */
    budgets_reload(&manager);
    ck_assert_uint_eq(budget_look(&manager, now, list, &n), 7 * MS);
    ck_assert_uint_eq(budget_look(&manager, now + 7 * MS, list, &n), 1000 * MS);
    /* These looks cost nothing; but somebody else may have had the CPU in the middle of one. */
    for (unsigned i = 1; manager.budgets.not_before != 0 && i < 100; i++)
        budget_look(&manager, now + i * 10000 * MS, list, &n);
    ck_assert_uint_eq(manager.budgets.not_before, 0);
}
END_TEST

START_TEST(test_share_and_priority) {
    ck_assert_uint_eq(budget_share(&regions[0]), 100);
    ck_assert_uint_eq(budget_priority(&regions[0]), 2);
    ck_assert_int_eq(set(ALICE, BUDGET_REGION, 20, LIMIT_PRIORITY, 3), 0); /* as it could be created */
    ck_assert_uint_eq(budget_priority(&regions[0]), 3);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20, LIMIT_PRIORITY, 2), 0);
    ck_assert_int_eq(set(ALICE, BUDGET_REGION, 20, LIMIT_PRIORITY, 3), -EPERM);
    ck_assert_int_eq(set(ALICE, BUDGET_CLIENT, 100, LIMIT_PRIORITY, 3), 0);
    ck_assert_uint_eq(budget_priority(&regions[0]), 2); /* not around what the administrator said */
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_PRIORITY, 1), 0);
    ck_assert_uint_eq(budget_priority(&regions[0]), 1);
    ck_assert_uint_eq(get(BUDGET_REGION, 20, LIMIT_PRIORITY), 1);

    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_SHARE, 200), 0);
    ck_assert_int_eq(set(ALICE, BUDGET_REGION, 20, LIMIT_SHARE, 50), 0);
    ck_assert_uint_eq(budget_share(&regions[0]), 100);
    ck_assert_int_eq(set(ALICE, BUDGET_REGION, 20, LIMIT_SHARE, 101), -EPERM);
    ck_assert_int_eq(set(ROOT, BUDGET_CLIENT, 100, LIMIT_SHARE, 10000), 0);
    ck_assert_int_eq(set(ROOT, BUDGET_REGION, 20, LIMIT_SHARE, 10000), 0);
    ck_assert_uint_eq(budget_share(&regions[0]), 10000);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("budget");
    TCase *tcase = tcase_create("budget");

    tcase_add_checked_fixture(tcase, world_setup, world_teardown);
    tcase_add_test(tcase, test_owner_lowers_and_cannot_raise);
    tcase_add_test(tcase, test_sections);
    tcase_add_test(tcase, test_what_can_be_set);
    tcase_add_test(tcase, test_kept);
    tcase_add_test(tcase, test_nobody_has_one);
    tcase_add_test(tcase, test_scopes);
    tcase_add_test(tcase, test_config_of_cgroups);
    tcase_add_test(tcase, test_pinned_whole);
    tcase_add_test(tcase, test_grows_above_its_pins);
    tcase_add_test(tcase, test_turns);
    tcase_add_test(tcase, test_turns_of_regions);
    tcase_add_test(tcase, test_when_to_look);
    tcase_add_test(tcase, test_share_and_priority);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
