/* SPDX-License-Identifier: MIT */
/* The tree of domains, over small trees of files that stand for a host with cgroup v2: what is charged where, and what may be taken. */

#include "domain.h"

#include "gate.h"
#include "suite.h"
#include "tree.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
    ck_assert_int_eq(domains_init(&domains, &roots, -1, FILL_RATE, (uint64_t)RESERVE, (uint64_t)RESERVE), 0);
}

static void teardown(void) {
    ck_assert(LIST_NEXT(domains.machine, link) == NULL); /* nobody forgot a reference */
    domains_deinit(&domains);
    tree_remove(base, "");
}

static struct domain *find(void) {
    struct cgroup_place place;
    struct domain *domain;

    ck_assert_int_eq(cgroup_locate(&domains.roots, PID, &place), 0);
    ck_assert_int_eq(domains_find(&domains, &place, 1000, &domain), 0);
    cgroup_place_deinit(&place);
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
    domains.nearest = domain;
    domain_unref(domain);
    ck_assert_ptr_null(domains.nearest);
}
END_TEST

/* Where the kernel does not overcommit, shared memory counts, and what is left until its limit is all that there is. */
START_TEST(test_overcommit_never) {
    tree_write(base, "proc/sys/vm/overcommit_memory", "2\n");
    tree_write(base, "proc/sys/vm/admin_reserve_kbytes", "8192\n");
    tree_write(base, "proc/sys/vm/user_reserve_kbytes", "131072\n");
    tree_write(base, "proc/meminfo",
               "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\nCommitLimit: 716800 kB\nCommitted_AS: 307200 kB\n");
    meminfo_deinit(&domains.meminfo);
    ck_assert_int_eq(meminfo_init(&domains.meminfo, &domains.roots), 0);
    ck_assert_int_eq(credit_after_look(domains.machine), (400 - 136) * MIB - RESERVE);
    ck_assert_uint_eq(domains.machine->look.usage, 512 * MIB);
    tree_write(base, "proc/sys/vm/overcommit_memory", "0\n");
    ck_assert_int_eq(credit_after_look(domains.machine), 512 * MIB - RESERVE);
}
END_TEST

/* One that is all of the limit could never be kept: then it is half of it. */
START_TEST(test_reserve_in_small_cgroup) {
    struct domain *domain;

    write_cgroup("/a/b", 6 * MIB, -1, 2 * MIB);
    domain = find();
    ck_assert_uint_eq(domain->controller.limits.reserve, 3 * MIB);
    write_cgroup("/a/b", -1, RESERVE, 2 * MIB);
    domain_take_look(&domains, domain);
    ck_assert_uint_eq(domain->controller.limits.reserve, RESERVE / 2);
    write_cgroup("/a/b", RESERVE + MIB, -1, 2 * MIB);
    domain_take_look(&domains, domain);
    ck_assert_uint_eq(domain->controller.limits.reserve, RESERVE);
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

/* In a container the topmost cgroup that can be seen has a limit; a host's root has none and is the machine. */
START_TEST(test_top) {
    struct domain *domain;

    move_to("/");
    domain = find();
    ck_assert_ptr_eq(domain, domains.machine);
    domain_unref(domain);

    write_cgroup("", 200 * MIB, -1, 50 * MIB);
    domain = find();
    ck_assert_str_eq(domain->path, "/");
    ck_assert_ptr_eq(domain->parent, domains.machine);
    ck_assert_uint_eq(domain->look.headroom, 150 * MIB);
    domain_unref(domain);
    move_to("/a");
    domain = find();
    ck_assert_str_eq(domain->parent->path, "/");
    domain_unref(domain);
}
END_TEST

/* A host with v1: the root's agent tells it from a container's topmost. */
START_TEST(test_top_v1) {
    struct domain *domain;

    tree_write(base, "proc/self/mountinfo", "28 21 0:24 / /v1 rw - cgroup cgroup rw,memory\n");
    tree_write(base, "proc/100/cgroup", "4:memory:/\n");
    tree_write(base, "v1/memory.usage_in_bytes", "1048576\n");
    tree_write(base, "v1/memory.limit_in_bytes", "4194304\n");
    tree_write(base, "v1/memory.stat", "total_inactive_file 0\ntotal_active_file 0\n");
    domain = find();
    ck_assert_uint_eq(domain->look.headroom, 3 * MIB);
    domain_unref(domain);
    tree_write(base, "v1/release_agent", "\n");
    domain = find();
    ck_assert_ptr_eq(domain, domains.machine);
    domain_unref(domain);
}
END_TEST

/* Trees copied from hosts: where a process is, what is above it, and which of these has a limit. */
START_TEST(test_hosts) {
    static const struct {
        const char *host;
        const char *chain[4]; /* up to the machine, "" */
        size_t limited;       /* the one of these with a limit */
        int64_t limit, high;  /* MiB */
    } rows[] = {
        {"v1", {"/jobs/worker", "/jobs", ""}, 0, 256, -1},
        {"hybrid", {"/jobs/worker", "/jobs", ""}, 0, 256, -1},
        {"v2", {"/system.slice/cache.service", "/system.slice", ""}, 0, 256, 240},
        {"nested", {"/init/app", "/init", "/", ""}, 2, 128, -1}, /* a container that has no cgroup namespace */
    };
    char prefix[256], host_proc[300];
    struct cgroup_roots roots = {.proc = host_proc, .cgroup = prefix};
    struct cgroup_place place;
    struct domain *domain, *d;
    struct domains host;
    size_t n = 0;

    snprintf(prefix, sizeof(prefix), "%s/cgroup/%s", TEST_FIXTURES, rows[_i].host);
    snprintf(host_proc, sizeof(host_proc), "%s/proc", prefix);
    ck_assert_int_eq(domains_init(&host, &roots, -1, FILL_RATE, (uint64_t)RESERVE, (uint64_t)RESERVE), 0);
    ck_assert_int_eq(cgroup_locate(&roots, PID, &place), 0);
    ck_assert_int_eq(domains_find(&host, &place, 0, &domain), 0);
    cgroup_place_deinit(&place);
    for (d = domain; d; d = d->parent, n++) {
        ck_assert_str_eq(d->path, rows[_i].chain[n]);
        ck_assert(!d->gone);
        ck_assert(!d->parent || d->look.usage > 0);
        if (d->parent)
            ck_assert_uint_eq(d->look.limit, n == rows[_i].limited ? (uint64_t)(rows[_i].limit * MIB) : CGROUP_NO_LIMIT);
        if (n == rows[_i].limited)
            ck_assert_uint_eq(d->look.high, rows[_i].high < 0 ? CGROUP_NO_LIMIT : (uint64_t)(rows[_i].high * MIB));
    }
    domain_unref(domain);
    domains_deinit(&host);
}
END_TEST

/* ---- coming and going ---- */

START_TEST(test_found_again) {
    struct domain *first = find(), *second = find(), *parent;

    ck_assert_ptr_eq(first, second);
    move_to("/a");
    parent = find();
    ck_assert_ptr_eq(parent, first->parent);
    domain_unref(first);
    domain_unref(second);
    domain_unref(parent);
}
END_TEST

/* Of a chain that is longer than anybody needs the top is watched; the end counts to it. */
START_TEST(test_too_deep) {
    char path[41 * 2 + 1] = "";
    struct domain *domain;
    unsigned depth = 0;

    for (int i = 0; i < 40; i++) {
        strcat(path, "/d");
        write_cgroup(path, -1, -1, 0);
    }
    move_to(path);
    domain = find();
    ck_assert(domains.full);
    for (const struct domain *d = domain; d->parent; d = d->parent)
        depth++;
    ck_assert_uint_eq(depth, 32);
    ck_assert_uint_eq(strlen(domain->path), 64);
    domain_unref(domain);
}
END_TEST

/* One user has half of the room, and without any a cgroup counts to what is there of its ancestors. */
START_TEST(test_no_room) {
    struct cgroup_place other = {.version = 2, .path = (char[]){"/a/c"}};
    char mount[128];
    struct domain *first, *second, *others;

    snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup", base);
    other.mount = mount;
    write_cgroup("/a/c", 100 * MIB, -1, 0);
    domains.max = 4; /* the machine is one of them */
    first = find();
    ck_assert_str_eq(first->path, "/a/b");
    ck_assert(!domains.full);
    move_to("/a/c");
    second = find();
    ck_assert_ptr_eq(second, first->parent);
    ck_assert(domains.full);
    ck_assert_int_eq(domains_find(&domains, &other, 1001, &others), 0);
    ck_assert_str_eq(others->path, "/a/c");
    ck_assert_ptr_eq(others->parent, second);
    domain_unref(second);
    second = find(); /* it is there now, whoever it was made for */
    ck_assert_ptr_eq(second, others);
    domain_unref(second);
    domain_unref(others);
    domain_unref(first);
}
END_TEST

/* Removed and made anew under its name: two domains, and what is left of the first counts to their parent. */
START_TEST(test_vanished) {
    struct domain *first = find(), *second;

    gate_adjust(first, 3 * MIB);
    tree_remove(base, "sys/fs/cgroup/a/b");
    write_cgroup("/a/b", 50 * MIB, -1, 0);
    second = find();
    ck_assert_ptr_ne(first, second);
    ck_assert_ptr_eq(first->parent, second->parent);
    ck_assert(first->gone);
    ck_assert(!second->gone);
    ck_assert_uint_eq(second->look.headroom, 50 * MIB);
    ck_assert_int_eq(credit_after_look(first), INT64_MAX / 4); /* no limit of its own any more */
    ck_assert_uint_eq(gate_room(first), 300 * MIB - RESERVE - 3 * MIB);
    ck_assert(domain_is_within(first, second->parent));
    gate_adjust(first, -3 * MIB);
    ck_assert_ptr_eq(find(), second);
    domain_unref(second);
    domain_unref(second);
    domain_unref(first);
}
END_TEST

/* All of a branch: the new one has a parent of its own, too. */
START_TEST(test_branch_vanished) {
    struct domain *first = find(), *second;

    tree_remove(base, "sys/fs/cgroup/a");
    write_cgroup("/a", 300 * MIB, -1, 0);
    write_cgroup("/a/b", 50 * MIB, -1, 0);
    second = find();
    ck_assert_ptr_ne(first, second);
    ck_assert_ptr_ne(first->parent, second->parent);
    ck_assert(first->parent->gone);
    domain_unref(second);
    domain_unref(first);
}
END_TEST

/* With a source, the last reference leaves it to the loop, which is woken once. */
START_TEST(test_retired) {
    struct domain *domain = find(), *parent = domain->parent;
    uint64_t count;

    domains.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ck_assert_ptr_null(domains_take_retired(&domains));
    domain->source = parent->source = (struct source *)&domains;
    domains.changed = false;
    domain_unref(domain);
    ck_assert_int_eq(read(domains.wake_fd, &count, sizeof(count)), sizeof(count));
    ck_assert_uint_eq(count, 1);
    ck_assert(domains.changed);
    ck_assert_ptr_eq(domains_take_retired(&domains), parent);
    ck_assert_ptr_eq(domains_take_retired(&domains), domain);
    ck_assert_ptr_null(domains_take_retired(&domains));
    ck_assert_ptr_null(domain_free(domain));
    ck_assert_ptr_null(domain_free(parent));
    close(domains.wake_fd);
}
END_TEST

/* Where looks are dense, not each reads the limits; but each reads the usage, and what could not be read is read anew. */
START_TEST(test_limits_known) {
    struct domain *domain = find();

    domain->interval = 4 * UINT64_C(1000000);
    write_cgroup("/a/b", 60 * MIB, -1, 41 * MIB);
    domain_take_look(&domains, domain); /* the first after that of find() */
    ck_assert_uint_eq(domain->look.limit, 100 * MIB);
    ck_assert_uint_eq(domain->look.usage, 41 * MIB);
    domain_take_look(&domains, domain);
    domain_take_look(&domains, domain);
    ck_assert_uint_eq(domain->look.limit, 60 * MIB);
    write_cgroup("/a/b", 50 * MIB, -1, 41 * MIB);
    domain->interval = 0; /* it is in need */
    domain_take_look(&domains, domain);
    ck_assert_uint_eq(domain->look.limit, 50 * MIB);
    domain_unref(domain);
}
END_TEST

/* v1 only, twice the reserve before the limit; the loop is woken when it is to be moved by more than a bit. */
START_TEST(test_threshold) {
    struct domain *domain = find();

    ck_assert_uint_eq(domain_threshold(domain), 0);
    domain->version = 1;
    ck_assert_uint_eq(domain_threshold(domain), 100 * MIB - 2 * RESERVE);
    domain->source = (struct source *)&domains;
    ck_assert(domains.changed);                           /* it is new */
    for (int64_t limit = 100; limit <= 110; limit += 5) { /* 84, 89, 94 of usage */
        domain->threshold = 84 * (uint64_t)MIB;
        domains.changed = false;
        write_cgroup("/a/b", limit * MIB, -1, 40 * MIB);
        domain_take_look(&domains, domain);
        ck_assert_int_eq(domains.changed, limit == 110);
    }
    write_cgroup("/a/b", 2 * RESERVE, -1, 0);
    domain_take_look(&domains, domain);
    ck_assert_uint_eq(domain_threshold(domain), 0);
    domain->source = NULL;
    domain_unref(domain);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("domain");
    TCase *domain = tcase_create("domain");

    tcase_add_checked_fixture(domain, setup, teardown);
    tcase_add_test(domain, test_chain);
    tcase_add_test(domain, test_overcommit_never);
    tcase_add_test(domain, test_reserve_in_small_cgroup);
    tcase_add_test(domain, test_high_weighs_less);
    tcase_add_test(domain, test_top);
    tcase_add_test(domain, test_top_v1);
    tcase_add_loop_test(domain, test_hosts, 0, 4);
    tcase_add_test(domain, test_found_again);
    tcase_add_test(domain, test_too_deep);
    tcase_add_test(domain, test_no_room);
    tcase_add_test(domain, test_vanished);
    tcase_add_test(domain, test_branch_vanished);
    tcase_add_test(domain, test_retired);
    tcase_add_test(domain, test_limits_known);
    tcase_add_test(domain, test_threshold);
    suite_add_tcase(suite, domain);
    return suite_run(suite);
}
