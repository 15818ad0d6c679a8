/* SPDX-License-Identifier: MIT */
/* The tree of domains, over small trees of files that stand for a host with cgroup v2: what is charged where, and what may be taken. */

#include "domain.h"

#include "config.h"
#include "gate.h"
#include "tree.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB (INT64_C(1) << 20)
#define PID 100
#define FILL_RATE (UINT64_C(1) << 30)
#define RESERVE (8 * MIB)

static char base[64], proc[80];
static struct domains domains;

static void write_value(const char *path, const char *file, int64_t value) {
    char name[256], text[32];

    snprintf(name, sizeof(name), "sys/fs/cgroup%s/%s", path, file);
    if (value < 0)
        snprintf(text, sizeof(text), "max\n");
    else
        snprintf(text, sizeof(text), "%" PRId64 "\n", value);
    tree_write(base, name, text);
}

/* A v2 cgroup, or new values of it; -1: no limit. Nothing of it can be reclaimed. */
static void write_cgroup(const char *path, int64_t max, int64_t high, int64_t current) {
    char name[256];

    write_value(path, "memory.max", max);
    write_value(path, "memory.high", high);
    write_value(path, "memory.current", current);
    snprintf(name, sizeof(name), "sys/fs/cgroup%s/memory.stat", path);
    tree_write(base, name, "inactive_file 0\nactive_file 0\nslab_reclaimable 0\n");
}

/* The process of all tests is there. */
static void move_to(const char *path) {
    char text[256];

    snprintf(text, sizeof(text), "0::%s\n", path);
    tree_write(base, "proc/100/cgroup", text);
}

static void setup(void) {
    struct cgroup_roots roots = {.proc = proc, .cgroup = base};

    snprintf(base, sizeof(base), "/tmp/test-domain-XXXXXX");
    tree_make(base);
    snprintf(proc, sizeof(proc), "%s/proc", base);
    tree_write(base, "proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n");
    tree_write(base, "proc/self/mountinfo", "28 21 0:24 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n");
    tree_write(base, "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    tree_write(base, "sys/fs/cgroup/memory.stat", "inactive_file 0\nactive_file 0\n");
    write_cgroup("/a", 400 * MIB, -1, 100 * MIB);
    write_cgroup("/a/b", 100 * MIB, -1, 40 * MIB);
    move_to("/a/b");
    ck_assert_int_eq(domains_init(&domains, &roots, FILL_RATE, (uint64_t)RESERVE, (uint64_t)RESERVE), 0);
}

static void teardown(void) {
    ck_assert(LIST_NEXT(domains.machine, link) == NULL); /* nobody forgot a reference */
    domains_deinit(&domains);
    tree_remove(base, "");
}

static struct domain *find(void) {
    struct domain *domain;

    ck_assert_int_eq(domains_find(&domains, PID, &domain), 0);
    return domain;
}

static int64_t credit_after_look(struct domain *domain) {
    domain_take_look(&domains, domain);
    return atomic_load(&domain->credit);
}

/* ---- what may be taken ---- */

/* Limits of all ancestors count, and the machine's memory. */
START_TEST(test_chain) {
    struct domain *domain = find();

    ck_assert_str_eq(domain->path, "/a/b");
    ck_assert_str_eq(domain->parent->path, "/a");
    ck_assert_ptr_eq(domain->parent->parent, domains.machine);
    ck_assert_uint_eq(domain->look.headroom, 60 * MIB);
    ck_assert_uint_eq(domain->parent->look.headroom, 300 * MIB);
    ck_assert_uint_eq(domains.machine->look.headroom, 512 * MIB);
    ck_assert_uint_eq(gate_room(domain), 60 * MIB - RESERVE);
    write_cgroup("/a", 400 * MIB, -1, 390 * MIB);
    ck_assert_int_eq(credit_after_look(domain->parent), 10 * MIB - RESERVE);
    ck_assert_uint_eq(gate_room(domain), 10 * MIB - RESERVE);
    domain_unref(domain);
}
END_TEST

/* memory.high is kept free of by a quarter of the reserve only: a crossing costs stall and no life. */
START_TEST(test_high_weighs_less) {
    static const struct {
        int64_t max, high, credit;
    } rows[] = {
        {100, -1, 60 - 8},   {-1, 100, 60 - 2}, {100, 100, 60 - 8}, /* the same distance: max decides */
        {100, 95, 60 - 8}, /* 5 below it: still the larger part of the reserve does */
        {100, 93, 53 - 2}, /* 7 below it */
        {100, 30, 0 - 2},  /* over it */
        {-1, -1, INT64_MAX},
    };
    struct domain *domain = find();

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t credit, expected = rows[i].credit == INT64_MAX ? INT64_MAX / 4 : rows[i].credit * MIB;

        write_cgroup("/a/b", rows[i].max < 0 ? -1 : rows[i].max * MIB, rows[i].high < 0 ? -1 : rows[i].high * MIB,
                     40 * MIB);
        credit = credit_after_look(domain);
        ck_assert_msg(credit == expected, "row %zu: %" PRId64, i, credit);
    }
    gate_adjust(domain, 5 * MIB); /* a promise counts before both */
    write_cgroup("/a/b", 200 * MIB, 100 * MIB, 40 * MIB);
    ck_assert_int_eq(credit_after_look(domain), (60 - 2 - 5) * MIB);
    gate_adjust(domain, -5 * MIB);
    domain_unref(domain);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("domain");
    TCase *domain = tcase_create("domain");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(domain, setup, teardown);
    tcase_add_test(domain, test_chain);
    tcase_add_test(domain, test_high_weighs_less);
    suite_add_tcase(suite, domain);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
