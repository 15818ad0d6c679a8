/* SPDX-License-Identifier: MIT */
/*
 * Memory control groups, on small copies of /proc and /sys/fs/cgroup below fixtures/cgroup, one folder per kind of
 * host. v1 holds what a real host with v1 shows; v2's files follow the kernel's formats. What git carries badly
 * (blanks, backslashes in names) is made at run time, and so is the one real control group, where that is allowed.
 */

#include "cgroup-place.h"
#include "suite.h"
#include "tree.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef TEST_FIXTURES
#define TEST_FIXTURES "tests/unit/fixtures"
#endif

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)

struct host {
    char proc[512];
    char prefix[512];
    struct cgroup_roots roots;
};

static const char *host_init(struct host *host, const char *name) {
    snprintf(host->prefix, sizeof(host->prefix), "%s/cgroup/%s", TEST_FIXTURES, name);
    snprintf(host->proc, sizeof(host->proc), "%s/cgroup/%s/proc", TEST_FIXTURES, name);
    host->roots = (struct cgroup_roots){.proc = host->proc, .cgroup = host->prefix};
    return host->prefix;
}

/* ---- where a process is ---- */

struct place_row {
    const char *host;
    pid_t pid;
    int result;
    int version;
    const char *mount; /* below the host's prefix */
    const char *path;
};

static const struct place_row places[] = {
    {"v1", 100, 0, 1, "/sys/fs/cgroup/memory", "/jobs/worker"},
    {"v1", 101, 0, 1, "/sys/fs/cgroup/memory", "/jobs"}, /* two levels of it were removed */
    {"v1", 102, 0, 1, "/sys/fs/cgroup/memory", "/"},
    {"v1", 999, -ENOENT, 0, NULL, NULL},
    {"v2", 100, 0, 2, "/sys/fs/cgroup", "/system.slice/cache.service"},
    {"v2", 101, 0, 2, "/sys/fs/cgroup", "/system.slice/cache.service"}, /* the child has no memory controller */
    {"v2", 102, 0, 2, "/sys/fs/cgroup", "/"},
    {"v2", 103, -EOPNOTSUPP, 0, NULL, NULL}, /* outside of our cgroup namespace */
    {"v2", 104, 0, 2, "/sys/fs/cgroup", "/system.slice"},
    {"v2", 105, -EBADMSG, 0, NULL, NULL},
    {"hybrid", 100, 0, 1, "/sys/fs/cgroup/memory", "/jobs/worker"},
    {"nested", 100, 0, 2, "/sys/fs/cgroup", "/init/app"}, /* by the mount that shows more */
    {"nested", 101, 0, 2, "/sys/fs/cgroup", "/"},
    {"nested", 102, -EOPNOTSUPP, 0, NULL, NULL}, /* a longer name, not a path below */
    {"nested", 103, -EOPNOTSUPP, 0, NULL, NULL},
    {"missing", 100, -EOPNOTSUPP, 0, NULL, NULL}, /* nothing is mounted */
    {"missing", 101, -EOPNOTSUPP, 0, NULL, NULL},
    {"no-controller", 100, -EOPNOTSUPP, 0, NULL, NULL},
    {"truncated", 100, -EBADMSG, 0, NULL, NULL},
};

START_TEST(test_locate) {
    const struct place_row *row = &places[_i];
    struct cgroup_place place = {.version = 77};
    struct host host;
    const char *prefix = host_init(&host, row->host);

    ck_assert_int_eq(cgroup_locate(&host.roots, row->pid, &place), row->result);
    if (row->result < 0) {
        ck_assert_int_eq(place.version, 77);
        return;
    }
    ck_assert_int_eq(place.version, row->version);
    ck_assert_int_eq(strncmp(place.mount, prefix, strlen(prefix)), 0);
    ck_assert_str_eq(place.mount + strlen(prefix), row->mount);
    ck_assert_str_eq(place.path, row->path);
    cgroup_place_deinit(&place);
}
END_TEST

START_TEST(test_escapes) {
    char base[] = "/tmp/test-cgroup-XXXXXX";
    char proc[64];
    struct cgroup_roots roots = {.proc = proc, .cgroup = base};
    struct cgroup_place place;

    tree_make(base);
    snprintf(proc, sizeof(proc), "%s/proc", base);
    tree_write(base, "proc/self/mountinfo",
               "28 21 0:24 /a\\040b\\011 /mnt/control\\040groups\\134x\\9 rw shared:9 master:2 - cgroup2  rw\n");
    tree_write(base, "proc/100/cgroup", "0::/a b\t/my slice: one (deleted)\n");
    tree_write(base, "mnt/control groups\\x\\9/cgroup.controllers", "memory\n");
    /* This name does end in "(deleted)", and the group is there. */
    tree_write(base, "mnt/control groups\\x\\9/my slice: one (deleted)/memory.current", "4096\n");

    ck_assert_int_eq(cgroup_locate(&roots, 100, &place), 0);
    ck_assert_str_eq(place.mount + strlen(base), "/mnt/control groups\\x\\9");
    ck_assert_str_eq(place.path, "/my slice: one (deleted)");
    cgroup_place_deinit(&place);
    tree_remove(base, "");
}
END_TEST

/* Whatever the two files hold: an error or a place, nothing else. */
START_TEST(test_garbage_files) {
    static const char *const mountinfo[] = {
        "",
        "\n\n",
        "28",
        "28 21 0:24 / /sys rw -",
        "28 21 0:24 / /sys rw - cgroup2",
        "28 21 0:24 / /sys rw - cgroup2 x",
        "28 21 0:24 / /sys rw shared:1 cgroup2 x rw",
        "28 21 0:24 \\ \\0 rw - cgroup2 x rw",
        "28 21 0:24   rw - cgroup2 x rw",
        "- - - - - - - - - -",
    };
    static const char *const groups[] = {"", "0", "0:", "0::", "0::/", "0::x", ":::::/", "4:memory:/\n0::/", "::"};
    char base[] = "/tmp/test-cgroup-XXXXXX";
    char proc[64];
    struct cgroup_roots roots = {.proc = proc, .cgroup = base};

    tree_make(base);
    snprintf(proc, sizeof(proc), "%s/proc", base);
    for (size_t i = 0; i < sizeof(mountinfo) / sizeof(mountinfo[0]); i++)
        for (size_t j = 0; j < sizeof(groups) / sizeof(groups[0]); j++) {
            struct cgroup_place place;
            int r;

            tree_write(base, "proc/self/mountinfo", mountinfo[i]);
            tree_write(base, "proc/100/cgroup", groups[j]);
            r = cgroup_locate(&roots, 100, &place);
            ck_assert_msg(r == -EBADMSG || r == -EOPNOTSUPP, "%zu, %zu: %d", i, j, r);
        }
    tree_remove(base, "");
}
END_TEST

START_TEST(test_parent_path) {
    char *parent;

    ck_assert_int_eq(cgroup_parent_path("/a/b c", &parent), 0);
    ck_assert_str_eq(parent, "/a");
    free(parent);
    ck_assert_int_eq(cgroup_parent_path("/a", &parent), 0);
    ck_assert_str_eq(parent, "/");
    free(parent);
    ck_assert_int_eq(cgroup_parent_path("/", &parent), 0);
    ck_assert_ptr_null(parent);
    ck_assert_int_eq(cgroup_parent_path("a/b", &parent), -EINVAL);
    ck_assert_int_eq(cgroup_parent_path("", &parent), -EINVAL);
}
END_TEST

/* ---- looks ---- */

static void look(const char *host_name, int version, const char *mount, const char *path, uint64_t stat_below,
                 struct cgroup_look *ret) {
    struct cgroup *cgroup;
    struct host host;
    char directory[1024];

    snprintf(directory, sizeof(directory), "%s%s", host_init(&host, host_name), mount);
    ck_assert_int_eq(cgroup_new(&cgroup, version, directory, path), 0);
    ck_assert_int_eq(cgroup_read(cgroup, stat_below, NULL, ret), 0);
    ck_assert_ptr_null(cgroup_free(cgroup));
}

START_TEST(test_read_v1) {
    struct cgroup_look got;

    look("v1", 1, "/sys/fs/cgroup/memory", "/jobs/worker", 64 * MIB, &got);
    ck_assert_uint_eq(got.limit, 256 * MIB);
    ck_assert_uint_eq(got.high, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.usage, 254 * MIB);
    ck_assert(got.stat_read);
    ck_assert_uint_eq(got.headroom, 2 * MIB + 389120 + 1536000 / 2);

    look("v1", 1, "/sys/fs/cgroup/memory", "/jobs/worker", 2 * MIB, &got); /* not under it */
    ck_assert(!got.stat_read);
    ck_assert_uint_eq(got.headroom, 2 * MIB);

    look("v1", 1, "/sys/fs/cgroup/memory", "/jobs/swapped", 64 * MIB, &got);
    ck_assert_uint_eq(got.limit, 256 * MIB);
    ck_assert_uint_eq(got.limit_swap, 256 * MIB);
    ck_assert_uint_eq(got.usage, 100 * MIB);
    ck_assert(got.stat_read);
    ck_assert_uint_eq(got.headroom, 2 * MIB + 389120 + 1536000 / 2); /* 154 MiB of it are in the swap */

    look("v1", 1, "/sys/fs/cgroup/memory", "/", UINT64_MAX, &got);
    ck_assert_uint_eq(got.limit, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.headroom, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.headroom_high, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.usage, 315977728);
    ck_assert(!got.stat_read);
}
END_TEST

START_TEST(test_read_v2) {
    struct cgroup_look got;

    look("v2", 2, "/sys/fs/cgroup", "/system.slice/cache.service", 64 * MIB, &got);
    ck_assert_uint_eq(got.limit, 256 * MIB);
    ck_assert_uint_eq(got.high, 240 * MIB);
    ck_assert_uint_eq(got.usage, 248 * MIB);
    ck_assert(got.stat_read);
    ck_assert_uint_eq(got.headroom, 8 * MIB + 144 * MIB + 25 * MIB + 3 * MIB);
    /* Over high by 8 MiB, which reclaim takes off first. */
    ck_assert_uint_eq(got.headroom_high, 144 * MIB + 25 * MIB + 3 * MIB - 8 * MIB);

    look("v2", 2, "/sys/fs/cgroup", "/system.slice", 64 * MIB, &got);
    ck_assert_uint_eq(got.limit, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.usage, 900000000);

    look("v2", 2, "/sys/fs/cgroup", "/", 64 * MIB, &got);
    ck_assert_uint_eq(got.limit, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.high, CGROUP_NO_LIMIT);
    ck_assert_uint_eq(got.usage, 0);
    ck_assert_uint_eq(got.headroom, CGROUP_NO_LIMIT);

    look("nested", 2, "/sys/fs/cgroup", "/", 0, &got); /* the root of a container's mount has files */
    ck_assert_uint_eq(got.limit, 128 * MIB);
    ck_assert_uint_eq(got.headroom, 128 * MIB - 120000000);
}
END_TEST

START_TEST(test_new_fails) {
    struct cgroup *cgroup = (struct cgroup *)&places;
    struct host host;
    char directory[1024];

    snprintf(directory, sizeof(directory), "%s/sys/fs/cgroup", host_init(&host, "v2"));
    ck_assert_int_eq(cgroup_new(&cgroup, 2, directory, "/gone"), -ENOENT);
    ck_assert_int_eq(cgroup_new(&cgroup, 2, directory, "/system.slice/cache.service/worker"), -ENOENT);
    ck_assert_int_eq(cgroup_new(&cgroup, 3, directory, "/"), -EINVAL);
    ck_assert_ptr_eq(cgroup, &places);
    ck_assert_ptr_null(cgroup_free(NULL));
}
END_TEST

/* A real one, removed while it is open. */
START_TEST(test_removed) {
    struct cgroup_place place;
    struct cgroup_look got;
    struct cgroup *cgroup;
    char child[1024];
    int r;

    if (cgroup_locate(&cgroup_real_roots, getpid(), &place) < 0) {
        printf("test_removed: no memory control groups here, left out\n");
        return;
    }
    snprintf(child, sizeof(child), "%s%s/droppable-test-%d", place.mount, place.path, (int)getpid());
    if (mkdir(child, 0755) < 0) {
        printf("test_removed: may not make a control group, left out\n");
        cgroup_place_deinit(&place);
        return;
    }
    r = cgroup_new(&cgroup, place.version, child, "");
    if (r == 0) {
        ck_assert_int_eq(cgroup_read(cgroup, UINT64_MAX, NULL, &got), 0);
        ck_assert(!cgroup_is_gone(cgroup));
        ck_assert(!cgroup_is_root(cgroup));
        ck_assert_int_eq(rmdir(child), 0);
        ck_assert(cgroup_is_gone(cgroup));
        ck_assert_int_eq(cgroup_read(cgroup, UINT64_MAX, NULL, &got), -ENODEV);
        cgroup_free(cgroup);
        ck_assert_int_eq(cgroup_new(&cgroup, place.version, child, ""), -ENOENT);
    } else {
        ck_assert_int_eq(rmdir(child), 0);
        ck_assert_int_eq(r, -ENOENT); /* v2: the controller is not passed on to children here */
    }
    cgroup_place_deinit(&place);
}
END_TEST

/* ---- parsers ---- */

START_TEST(test_parse_value) {
    static const struct {
        const char *text;
        int result;
        uint64_t value;
    } rows[] = {
        {"0\n", 0, 0},
        {"4096", 0, 4096},
        {"max\n", 0, CGROUP_NO_LIMIT},
        {"max", 0, CGROUP_NO_LIMIT},
        {"9223372036854771712\n", 0, CGROUP_NO_LIMIT}, /* PAGE_COUNTER_MAX, pages of 4 KiB */
        {"9223372036854710272\n", 0, CGROUP_NO_LIMIT}, /* the same of 64 KiB */
        {"9223372036854775807\n", 0, CGROUP_NO_LIMIT},
        {"18446744073709551615\n", 0, CGROUP_NO_LIMIT},
        {"9223372036854644735\n", 0, UINT64_C(9223372036854644735)},
        {"18446744073709551616\n", -EBADMSG, 0},
        {"", -EBADMSG, 0},
        {"\n", -EBADMSG, 0},
        {"-1\n", -EBADMSG, 0},
        {" 1\n", -EBADMSG, 0},
        {"1 \n", -EBADMSG, 0},
        {"1\n\n", -EBADMSG, 0},
        {"ma\n", -EBADMSG, 0},
        {"maximum\n", -EBADMSG, 0},
        {"0x10\n", -EBADMSG, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t value = 42;

        ck_assert_msg(cgroup_parse_value(rows[i].text, strlen(rows[i].text), &value) == rows[i].result, "row %zu", i);
        ck_assert_uint_eq(value, rows[i].result < 0 ? 42 : rows[i].value);
    }
}
END_TEST

/*
 * Reads a text at every length, in a block that ends where the text ends (so that a sanitizer sees each byte too far).
 */
static void each_prefix(const char *text, void (*check)(const char *text, size_t size)) {
    for (size_t size = 0; size <= strlen(text); size++) {
        char *copy = malloc(size ? size : 1);

        memcpy(copy, text, size);
        check(copy, size);
        free(copy);
    }
}

static const char stat_text[] = "anon 1\nfile 5\ninactive_file 4096\nactive_file 81920\nslab_reclaimable 12345\nx 1\n"
                                "inactive_file 7\n";

static void check_stat_prefix(const char *text, size_t size) {
    struct cgroup_stat stat = {.inactive_file = 1};
    int r = cgroup_parse_stat(text, size, 2, &stat);

    /* Complete once the line of active_file is, with its newline; and never a number that was cut. */
    ck_assert_int_eq(r, size >= (size_t)(strstr(stat_text, "slab_") - stat_text) ? 0 : -EBADMSG);
    ck_assert_uint_eq(stat.inactive_file, r < 0 ? 1 : 4096);
    ck_assert_uint_eq(stat.active_file, r < 0 ? 0 : 81920);
    ck_assert(stat.slab_reclaimable == 0 || stat.slab_reclaimable == 12345);
}

START_TEST(test_parse_stat) {
    static const char *const bad[] = {
        "inactive_file x\nactive_file 1\n",
        "inactive_file 1\nactive_file\n",
        "inactive_file 1\nactive_file \n",
        "inactive_file -1\nactive_file 1\n",
        "inactive_file 99999999999999999999\nactive_file 1\n",
        "xinactive_file 1\nactive_file 1\n",
        "inactive_filex 1\nactive_file 1\n",
    };
    static const char v1[] = "inactive_file 1\nactive_file 2\ntotal_inactive_file 3\ntotal_active_file 4\n";
    struct cgroup_stat stat;

    each_prefix(stat_text, check_stat_prefix);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_int_eq(cgroup_parse_stat(bad[i], strlen(bad[i]), 2, &stat), -EBADMSG);
    ck_assert_int_eq(cgroup_parse_stat(v1, strlen(v1), 1, &stat), 0);
    ck_assert_uint_eq(stat.inactive_file, 3);
    ck_assert_uint_eq(stat.active_file, 4);
    ck_assert_int_eq(cgroup_parse_stat(v1, strlen(v1), 2, &stat), 0);
    ck_assert_uint_eq(stat.inactive_file, 1);
}
END_TEST

static const char events_text[] = "low 0\nhigh 12\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n";

static void check_events_prefix(const char *text, size_t size) {
    struct cgroup_events events = {.high = 42};
    int r = cgroup_parse_events(text, size, &events);

    ck_assert_int_eq(r, size >= (size_t)(strstr(events_text, "oom_kill") - events_text) ? 0 : -EBADMSG);
    ck_assert_uint_eq(events.high, r < 0 ? 42 : 12);
    ck_assert(r < 0 || (events.max == 3 && events.oom == 2 && events.oom_kill <= 1));
}

START_TEST(test_parse_events) {
    struct cgroup_events events;

    each_prefix(events_text, check_events_prefix);
    ck_assert_int_eq(cgroup_parse_events(events_text, strlen(events_text), &events), 0);
    ck_assert_uint_eq(events.oom_kill, 1);
    ck_assert_int_eq(cgroup_parse_events("high -1\nmax 0\noom 0\n", 21, &events), -EBADMSG);
}
END_TEST

START_TEST(test_headroom) {
    struct cgroup_stat none = {0};
    struct cgroup_stat some = {.inactive_file = 100, .active_file = 51, .slab_reclaimable = 10};
    struct cgroup_stat absurd = {UINT64_MAX, UINT64_MAX, UINT64_MAX};

    ck_assert_uint_eq(cgroup_headroom(1000, 900, &none), 100);
    ck_assert_uint_eq(cgroup_headroom(1000, 900, &some), 235);
    ck_assert_uint_eq(cgroup_headroom(1000, 1000, &none), 0);
    ck_assert_uint_eq(cgroup_headroom(1000, 1100, &none), 0);
    ck_assert_uint_eq(cgroup_headroom(1000, 1100, &some), 35); /* the excess has to go first */
    ck_assert_uint_eq(cgroup_headroom(1000, 2000, &some), 0);
    ck_assert_uint_eq(cgroup_headroom(1000, 10, &some), 1000);
    ck_assert_uint_eq(cgroup_headroom(1000, 0, &absurd), 1000);
    ck_assert_uint_eq(cgroup_headroom(CGROUP_NO_LIMIT, 5, &some), CGROUP_NO_LIMIT);
    ck_assert_uint_eq(cgroup_headroom(0, 0, &some), 0);
}
END_TEST

static const char meminfo_text[] =
    "MemTotal:       24684092 kB\nMemFree:  24531484 kB\nMemAvailable:   24444352 kB\nX: 1 kB\nCommitLimit: 12342044 kB\n"
    "Committed_AS: 342044 kB\n";

static void check_meminfo_prefix(const char *text, size_t size) {
    struct meminfo_look look = {.total = 1, .available = 1};
    int r = meminfo_parse(text, size, &look);

    ck_assert_int_eq(r, size >= (size_t)(strstr(meminfo_text, "X:") - meminfo_text) ? 0 : -EBADMSG);
    ck_assert_uint_eq(look.total, r < 0 ? 1 : 24684092 * KIB);
    ck_assert_uint_eq(look.available, r < 0 ? 1 : 24444352 * KIB);
    if (size == strlen(meminfo_text))
        ck_assert_uint_eq(look.committable, 12000000 * KIB);
}

START_TEST(test_meminfo) {
    static const char overflow[] = "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n";
    static const char over[] = "MemTotal: 4 kB\nMemAvailable: 1 kB\nCommitLimit: 1 kB\nCommitted_AS: 2 kB\n";
    struct meminfo meminfo;
    struct meminfo_look look;
    struct host host;

    each_prefix(meminfo_text, check_meminfo_prefix);
    ck_assert_int_eq(meminfo_parse(overflow, strlen(overflow), &look), -EBADMSG);
    ck_assert_int_eq(meminfo_parse(over, strlen(over), &look), 0);
    ck_assert_uint_eq(look.committable, 0);

    host_init(&host, "v1");
    ck_assert_int_eq(meminfo_init(&meminfo, &host.roots), 0);
    ck_assert_int_eq(meminfo_read(&meminfo, &look), 0);
    ck_assert_uint_eq(look.total, 24684092 * KIB);
    ck_assert_uint_eq(look.committable, UINT64_MAX);
    meminfo_deinit(&meminfo);

    ck_assert_int_eq(meminfo_init(&meminfo, &cgroup_real_roots), 0);
    for (unsigned i = 0; i < 2; i++) { /* again from the start */
        ck_assert_int_eq(meminfo_read(&meminfo, &look), 0);
        ck_assert_uint_gt(look.available, 0);
        ck_assert_uint_le(look.available, look.total);
    }
    meminfo_deinit(&meminfo);
    host_init(&host, "missing");
    ck_assert_int_eq(meminfo_init(&meminfo, &host.roots), -ENOENT);
}
END_TEST

int main(void) {
    const TTest *tests[] = {test_escapes,    test_garbage_files, test_parent_path, test_read_v1,
                            test_read_v2,    test_new_fails,     test_removed,     test_parse_value,
                            test_parse_stat, test_parse_events,  test_headroom,    test_meminfo};
    Suite *suite = suite_create("cgroup");
    TCase *tcase = tcase_create("cgroup");

    tcase_add_loop_test(tcase, test_locate, 0, (int)(sizeof(places) / sizeof(places[0])));
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
