/* SPDX-License-Identifier: MIT */
/*
 * Budget, share, priority and chunk size that a region is to be made with: required, it has them or is not made; preferred, it says whether it has them;
 * and what holds of them is told, whoever has its memory.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1 << 20)
#define SIZE (4 * MIB)
#define CONFIG "[Budgets]\nRegion=1M\n"

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/* A field, and what comes of it in a region of the service: of nobody's, where Region=1M. */
static const struct field {
    uint64_t bit;
    const char *name;
    struct drp_region_options asked;
    struct drp_region_limits holds; /* 0: what was not asked */
    bool exactly;
} fields[] = {
    {DRP_REGION_BUDGET, "DRP_REGION_BUDGET", {.budget = 512 * KIB}, {.budget = 512 * KIB}, true},
    {DRP_REGION_BUDGET, "DRP_REGION_BUDGET", {.budget = 2 * MIB}, {.budget = MIB}, false},
    {DRP_REGION_SHARE, "DRP_REGION_SHARE", {.share = 50}, {.share = 50}, true},
    {DRP_REGION_SHARE, "DRP_REGION_SHARE", {.share = 101}, {.share = 100}, false},
    {DRP_REGION_PRIORITY, "DRP_REGION_PRIORITY", {.priority = DRP_PRIORITY_HIGH}, {.priority = DRP_PRIORITY_HIGH}, true},
};

#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

static bool kernel_has_it(void) {
    void *p = mmap(NULL, 4096, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p != MAP_FAILED)
        munmap(p, 4096);
    return p != MAP_FAILED;
}

static void setup(void) {
    fixture_start(CONFIG);
}

static int connect_to(struct drp **ret, enum drp_backend backend) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = backend};

    return drp_new(ret, &config);
}

static int make(struct drp_region **ret, struct drp *d, struct drp_region_options o, uint64_t required,
                uint64_t preferred) {
    o.struct_size = sizeof(o);
    o.required = required;
    o.preferred = preferred;
    *ret = NULL;
    return drp_region_new(ret, d, SIZE, &o);
}

static struct drp_region_info info_of(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info;
}

static bool has(const struct drp_region *region, uint64_t bit) {
    return info_of(region).granted & bit;
}

static struct drp_region_limits limits_of(struct drp_region *region) {
    struct drp_region_limits limits = {.struct_size = sizeof(limits)};
    int error = drp_region_get_limits(region, &limits);

    child_check(error == 0);
    return limits;
}

/* ---- by the service ---- */

static bool holds(struct drp_region *region, const struct field *f) {
    struct drp_region_limits limits = limits_of(region);

    return (!f->holds.budget || limits.budget == f->holds.budget) &&
           (!f->holds.share || limits.share == f->holds.share) &&
           (!f->holds.priority || limits.priority == f->holds.priority);
}

static void ask_service(struct drp *d, const struct field *f, uint64_t besides) {
    struct drp_region *region;

    child_check(make(&region, d, f->asked, besides | f->bit, 0) == (f->exactly ? 0 : -EOPNOTSUPP));
    child_check(region ? has(region, f->bit) && holds(region, f) : strstr(drp_detail(), f->name) != NULL);
    region = drp_region_free(region);
    child_check(make(&region, d, f->asked, besides, f->bit) == 0);
    child_check(has(region, f->bit) == f->exactly && holds(region, f));
    region = drp_region_free(region);
    child_check(make(&region, d, f->asked, besides, 0) == 0);
    child_check(!has(region, f->bit) && holds(region, f));
    region = drp_region_free(region);
}

static const struct kind {
    enum drp_backend backend;
    uint64_t besides;
} kinds[] = {{DRP_BACKEND_DAEMON, 0}, {DRP_BACKEND_DAEMON, DRP_REGION_SHARED}, {DRP_BACKEND_NATIVE, 0}};

static void be_client(int socket, void *data) {
    const struct kind *kind = data;
    struct drp *d;

    (void)socket;
    child_become_nobody();
    child_check(connect_to(&d, kind->backend) == 0);
    for (size_t i = 0; i < N_FIELDS; i++)
        ask_service(d, &fields[i], kind->besides);
    drp_free(d);
}

START_TEST(test_served) {
    struct kind kind = kinds[_i];
    struct child child;

    if (kind.backend == DRP_BACKEND_NATIVE && !kernel_has_it())
        return;
    child_start(&child, be_client, &kind);
    child_end(&child);
    ck_assert_uint_eq(listing_count("regions"), 0); /* nor what was refused */
}
END_TEST

/* What an administrator says of a process is what its regions have. */
static void be_low(int socket, void *data) {
    const struct drp_region_options normal = {.priority = DRP_PRIORITY_NORMAL}, low = {.priority = DRP_PRIORITY_LOW};
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    child_check(connect_to(&d, DRP_BACKEND_DAEMON) == 0);
    child_check(child_say(socket, 'c') && child_hear(socket, &word));
    child_check(make(&region, d, normal, DRP_REGION_PRIORITY, 0) == -EOPNOTSUPP);
    child_check(make(&region, d, normal, 0, DRP_REGION_PRIORITY) == 0);
    child_check(!has(region, DRP_REGION_PRIORITY) && limits_of(region).priority == DRP_PRIORITY_LOW);
    region = drp_region_free(region);
    child_check(make(&region, d, low, DRP_REGION_PRIORITY, 0) == 0);
    drp_region_free(region);
    drp_free(d);
}

START_TEST(test_of_process) {
    struct child child;
    char pid[16];

    child_start(&child, be_low, NULL);
    child_expect(&child, 'c');
    snprintf(pid, sizeof(pid), "%d", (int)child.pid);
    ck_assert_int_eq(
        service_ctl(&service, NULL, 0, (const char *const[]){"limit", "--pid", pid, "--priority", "low", NULL}), 0);
    ck_assert(child_say(child.socket, 'l'));
    child_end(&child);
}
END_TEST

/* Whoever does not pin has the kernel's memory where that has all the fields as they were asked for. */
static void be_either(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;

    (void)socket, (void)data;
    child_become_nobody();
    child_check(connect_to(&d, DRP_BACKEND_AUTO) == 0);
    for (size_t i = 0; i < N_FIELDS; i++) {
        child_check(make(&region, d, fields[i].asked, 0, DRP_REGION_NO_PINS | fields[i].bit) == 0);
        child_check(drp_region_get_backend(region) == (fields[i].exactly ? DRP_BACKEND_NATIVE : DRP_BACKEND_DAEMON));
        child_check(has(region, fields[i].bit) == fields[i].exactly);
        region = drp_region_free(region);
    }
    child_check(make(&region, d, (struct drp_region_options){.chunk_size = 64 * KIB}, 0,
                     DRP_REGION_NO_PINS | DRP_REGION_CHUNK_SIZE) == 0);
    child_check(drp_region_get_backend(region) == DRP_BACKEND_DAEMON && has(region, DRP_REGION_CHUNK_SIZE));
    drp_region_free(region);
    drp_free(d);
}

START_TEST(test_auto) {
    struct child child;

    if (!kernel_has_it())
        return;
    child_start(&child, be_either, NULL);
    child_end(&child);
}
END_TEST

/* ---- by nobody ---- */

static const enum drp_backend unserved[] = {DRP_BACKEND_NATIVE, DRP_BACKEND_NONE};

static void expect_no_limits(struct drp_region *region) {
    struct drp_region_limits limits = limits_of(region);

    ck_assert(limits.budget == UINT64_MAX && limits.share == 0 && (int)limits.priority == 0 && limits.resident == 0);
    memset(drp_region_address(region), 1, SIZE);
    ck_assert_uint_eq(limits_of(region).resident, SIZE);
    ck_assert_int_eq(drp_region_set_budget(region, MIB), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_set_share(region, 50), -EOPNOTSUPP);
    ck_assert_int_eq(drp_region_set_priority(region, DRP_PRIORITY_LOW), -EOPNOTSUPP);
}

START_TEST(test_unserved) {
    struct drp_region *region;
    struct drp *d;

    if (unserved[_i] == DRP_BACKEND_NATIVE && !kernel_has_it())
        return;
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "/nowhere/socket", 1), 0);
    ck_assert_int_eq(connect_to(&d, unserved[_i]), 0);
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct field *f = &fields[i];

        ck_assert_int_eq(make(&region, d, f->asked, f->bit, 0), -EOPNOTSUPP);
        ck_assert_int_eq(make(&region, d, f->asked, 0, f->bit), 0);
        ck_assert(!has(region, f->bit));
        expect_no_limits(region);
        region = drp_region_free(region);
        /* Without a word on it a budget has to be kept, as ever; the others are not asked for. */
        ck_assert_int_eq(make(&region, d, f->asked, 0, 0), f->asked.budget ? -EOPNOTSUPP : 0);
        region = drp_region_free(region);
    }
    drp_free(d);
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", service.socket, 1), 0);
}
END_TEST

/* The budget that nobody could keep at first is for the service that comes. */
START_TEST(test_late_service) {
    const struct drp_region_options budget = {.budget = 512 * KIB}, none = {0};
    struct drp_region *early, *late;
    struct drp *d;

    if (!kernel_has_it() || geteuid() != 0)
        return;
    ck_assert(service_kill(&service, 10000));
    ck_assert_int_eq(connect_to(&d, DRP_BACKEND_NATIVE), 0);
    ck_assert_int_eq(make(&early, d, budget, 0, DRP_REGION_BUDGET), 0);
    ck_assert(!has(early, DRP_REGION_BUDGET) && !info_of(early).connected);
    service_restart(&service);
    fixture_measure();
    ck_assert_int_eq(make(&late, d, none, 0, 0), 0);
    ck_assert(info_of(early).connected);
    ck_assert_uint_eq(limits_of(early).budget, 512 * KIB);
    drp_region_free(early);
    drp_region_free(late);
    drp_free(d);
}
END_TEST

/* ---- chunks ---- */

static const struct {
    enum drp_backend backend;
    size_t asked, size;
} chunks[] = {
    {DRP_BACKEND_DAEMON, 16 * KIB, 16 * KIB}, {DRP_BACKEND_DAEMON, 4 * KIB, 4 * KIB},
    {DRP_BACKEND_NONE, 16 * KIB, 16 * KIB},   {DRP_BACKEND_NONE, 2 * MIB, 2 * MIB},
    {DRP_BACKEND_NATIVE, 4 * KIB, 4 * KIB},   {DRP_BACKEND_NATIVE, 64 * KIB, 4 * KIB},
    {DRP_BACKEND_NATIVE, 2 * MIB, 4 * KIB}, /* also in huge pages */
};

#define N_CHUNKS (int)(sizeof(chunks) / sizeof(chunks[0]))

START_TEST(test_chunks) {
    const struct drp_region_options asked = {.chunk_size = chunks[_i].asked};
    bool exactly = chunks[_i].asked == chunks[_i].size;
    struct drp_region *region;
    struct drp *d;

    if (chunks[_i].backend == DRP_BACKEND_NATIVE && !kernel_has_it())
        return;
    ck_assert_int_eq(connect_to(&d, chunks[_i].backend), 0);
    ck_assert_int_eq(make(&region, d, asked, DRP_REGION_CHUNK_SIZE, 0), exactly ? 0 : -EOPNOTSUPP);
    ck_assert(exactly || strstr(drp_detail(), "single pages"));
    region = drp_region_free(region);
    for (int bit = 0; bit < 2; bit++) {
        uint64_t preferred = DRP_REGION_HUGE | (bit ? DRP_REGION_CHUNK_SIZE : 0);

        ck_assert_int_eq(make(&region, d, asked, 0, preferred), 0);
        ck_assert_uint_eq(info_of(region).chunk_size, chunks[_i].size);
        ck_assert(has(region, DRP_REGION_CHUNK_SIZE) == (exactly && bit));
        /* A part of a huge page is not dropped by itself, but by the kernel. */
        ck_assert(!has(region, DRP_REGION_HUGE) || chunks[_i].size == 2 * MIB ||
                  chunks[_i].backend == DRP_BACKEND_NATIVE);
        region = drp_region_free(region);
    }
    drp_free(d);
}
END_TEST

/* ---- nonsense ---- */

START_TEST(test_nonsense) {
    static const uint64_t bits[] = {DRP_REGION_BUDGET, DRP_REGION_SHARE, DRP_REGION_PRIORITY, DRP_REGION_CHUNK_SIZE};
    const struct drp_region_options nothing = {0};
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(connect_to(&d, DRP_BACKEND_DAEMON), 0);
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        ck_assert_int_eq(make(&region, d, nothing, bits[i], 0), -EINVAL);
        ck_assert_int_eq(make(&region, d, nothing, 0, bits[i]), -EINVAL);
        ck_assert_ptr_nonnull(strstr(drp_detail(), "which is 0"));
    }
    ck_assert_int_eq(make(&region, d, nothing, 0, 0), 0);
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        ck_assert_int_eq(drp_region_set_options(region, bits[i], bits[i]), -EOPNOTSUPP);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("asked");
    TCase *tcase = tcase_create("asked");

    tcase_add_checked_fixture(tcase, setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    if (geteuid() == 0) { /* else each is the service's administrator, who may have all */
        tcase_add_loop_test(tcase, test_served, 0, sizeof(kinds) / sizeof(kinds[0]));
        tcase_add_test(tcase, test_auto);
    }
    tcase_add_test(tcase, test_of_process);
    tcase_add_loop_test(tcase, test_unserved, 0, sizeof(unserved) / sizeof(unserved[0]));
    tcase_add_test(tcase, test_late_service);
    tcase_add_loop_test(tcase, test_chunks, 0, N_CHUNKS);
    tcase_add_test(tcase, test_nonsense);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
