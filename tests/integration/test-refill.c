/* SPDX-License-Identifier: MIT */
/*
 * How much one intercepted access brings about: what comes back with it, what is disarmed with it, and that neither is more than was
 * there, or costs memory. Counts, not times: they are what makes the times.
 *
 * Skipped where accesses are not intercepted: there the kernel fills each page by itself.
 */

#include "again.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define PAGE (4 * KIB)
#define SPAN (2 * MIB)
#define SPARSE_SPANS 256
#define CRUMBS (SPAN / (16 * PAGE))
#define LARGE_TOUCHES 20000
#define LARGE_PSS_MAX (40 * MIB)

static struct drp *connection;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void teardown(void) {
    connection = drp_free(connection);
    fixture_teardown();
}

static struct drp_region *make(size_t size, uint64_t required) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = required};
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, connection, size, &options);

    ck_assert_msg(r == 0, "%s", drp_detail());
    return region;
}

static uint64_t resident(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return listing_number("regions", "id", info.id, "resident_bytes");
}

static struct drp_stats stats(void) {
    struct drp_stats ret;

    ck_assert_int_eq(drp_get_stats(connection, &ret), 0);
    return ret;
}

/* Writes a byte every step bytes; each must have been zero. Returns the intercepted accesses. */
static uint64_t touch(struct drp_region *region, uint64_t start, uint64_t step, uint64_t n) {
    volatile unsigned char *p = drp_region_address(region);
    uint64_t before = stats().intercepted_faults;

    for (uint64_t i = 0; i < n; i++) {
        ck_assert_uint_eq(p[start + i * step], 0);
        p[start + i * step] = 0xa5;
    }
    return stats().intercepted_faults - before;
}

static void drop_all(struct drp_region *region, uint64_t expected) {
    uint64_t freed = 0;

    ck_assert_int_eq(drp_drop(region, 0, drp_region_size(region), &freed, NULL), 0);
    ck_assert_uint_eq(freed, expected);
    ck_assert_uint_eq(resident(region), 0);
}

static void touch_and_drop(struct drp_region *region, uint64_t step, uint64_t n, uint64_t expected) {
    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        touch(region, 0, step, n);
        drop_all(region, expected);
    }
}

/* After such a touch(); where it was in vain, it is touched again. */
static void drop_touched(struct drp_region *region, uint64_t start, uint64_t n, uint64_t expected) {
    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        if (drops.tries > 1)
            touch(region, start, SPAN, n);
        drop_all(region, expected);
    }
}

/* What the service fills comes from its own node: with several it leaves that to the kernel. */
static bool several_nodes(void) {
    FILE *file = fopen("/sys/devices/system/node/has_memory", "re");
    char line[64] = "";

    if (file) {
        (void)!fgets(line, sizeof(line), file);
        fclose(file);
    }
    return strpbrk(line, ",-") != NULL;
}

/* One access brings back all of its span that was there, and nothing of another. */
START_TEST(test_dense) {
    struct drp_region *region = make(8 * SPAN, 0);
    unsigned char *p = drp_region_address(region);

    touch_and_drop(region, PAGE, 8 * SPAN / PAGE, 8 * SPAN);
    ck_assert_uint_eq(touch(region, 3 * SPAN + 77 * PAGE, PAGE, 1), 1);
    ck_assert_uint_eq(touch(region, 3 * SPAN + 78 * PAGE, PAGE, 1), 0); /* waits for the fill, if it is not through yet */
    if (several_nodes())
        ck_assert_uint_eq(resident(region), 2 * PAGE);
    else
        for (uint64_t deadline = now_ms() + 5000; resident(region) != SPAN;)
            ck_assert_msg(now_ms() < deadline, "%llu bytes came back", (unsigned long long)resident(region));
    p[3 * SPAN + 77 * PAGE] = p[3 * SPAN + 78 * PAGE] = 0;
    ck_assert(is_zero(p + 3 * SPAN, SPAN));
    ck_assert_uint_eq(resident(region), SPAN);
    drp_region_free(region);
}
END_TEST

/* A burst of accesses to a page a span: few round trips, each page back, none besides, and still intercepted. */
START_TEST(test_sparse) {
    struct drp_region *region = make(SPARSE_SPANS * SPAN, 0);
    uint64_t faults, least = UINT64_MAX;

    touch(region, 5 * PAGE, SPAN, SPARSE_SPANS);
    ck_assert_uint_eq(resident(region), SPARSE_SPANS * PAGE);
    for (unsigned round = 0; round < 3; round++) {
        drop_touched(region, 5 * PAGE, SPARSE_SPANS, SPARSE_SPANS * PAGE);
        faults = touch(region, 5 * PAGE, SPAN, SPARSE_SPANS);
        printf("sparse, round %u: %" PRIu64 " accesses of %d intercepted\n", round, faults, SPARSE_SPANS);
        ck_assert_uint_ge(faults, 1);
        ck_assert_uint_eq(resident(region), SPARSE_SPANS * PAGE);
        if (faults < least)
            least = faults;
    }
    /* On a busy machine a burst may be torn. */
    ck_assert_uint_le(least, SPARSE_SPANS / 8);
    /* Another page of each span is seen, too. */
    ck_assert_uint_eq(touch(region, 300 * PAGE, SPAN, SPARSE_SPANS), SPARSE_SPANS);
    ck_assert_uint_eq(resident(region), 2 * SPARSE_SPANS * PAGE);
    drp_region_free(region);
}
END_TEST

/* A lone access brings back its own span only. */
START_TEST(test_sparse_alone) {
    struct drp_region *region = make(32 * SPAN, 0);

    touch_and_drop(region, SPAN, 32, 32 * PAGE);
    for (uint64_t i = 0; i < 3; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL); /* what follows later is no burst */
        ck_assert_uint_eq(touch(region, (i * 7 + 2) * SPAN, SPAN, 1), 1);
        ck_assert_uint_eq(resident(region), (i + 1) * PAGE);
    }
    drp_region_free(region);
}
END_TEST

/* Every sixteenth page: nothing comes back but what is touched, and the kernel fills after few round trips. */
START_TEST(test_crumbs) {
    struct drp_region *region = make(32 * SPAN, 0);
    uint64_t faults;

    touch_and_drop(region, 16 * PAGE, 32 * CRUMBS, 32 * CRUMBS * PAGE);
    ck_assert_uint_eq(touch(region, 16 * SPAN, PAGE, 1), 1);
    ck_assert_uint_eq(resident(region), PAGE);
    faults = 1 + touch(region, 0, 16 * PAGE, 16 * CRUMBS);
    faults += touch(region, 16 * SPAN + 16 * PAGE, 16 * PAGE, 16 * CRUMBS - 1);
    printf("crumbs: %" PRIu64 " accesses intercepted in 32 spans\n", faults);
    ck_assert_uint_le(faults, 32 / 4);
    ck_assert_uint_eq(resident(region), 32 * CRUMBS * PAGE);
    drop_all(region, 32 * CRUMBS * PAGE); /* all of it is known */
    drp_region_free(region);
}
END_TEST

/* Fresh spans here and there: one access in many is intercepted, and nothing is resident but what was touched. */
START_TEST(test_scattered) {
    struct drp_region *region = make(SPARSE_SPANS * SPAN, 0);
    uint64_t faults = touch(region, 9 * PAGE, SPAN, SPARSE_SPANS);

    printf("scattered first touches: %" PRIu64 " of %d intercepted\n", faults, SPARSE_SPANS);
    ck_assert_uint_le(faults, SPARSE_SPANS / 4); /* a machine of 2 GiB has no room for large blocks */
    ck_assert_uint_eq(resident(region), SPARSE_SPANS * PAGE);
    drop_all(region, SPARSE_SPANS * PAGE);
    drp_region_free(region);
}
END_TEST

START_TEST(test_huge) {
    struct drp_region *region;
    uint64_t faults;

    if (!status_feature("huge")) {
        printf("huge pages: skipped: none here\n");
        return;
    }
    region = make(64 * SPAN, DRP_REGION_HUGE);
    touch(region, 0, SPAN, 64);
    for (unsigned round = 0; round < 2; round++) {
        drop_touched(region, 0, 64, 64 * SPAN);
        faults = touch(region, 0, SPAN, 64);
        printf("huge pages: %" PRIu64 " of 64 intercepted\n", faults);
        ck_assert_uint_ge(faults, 1);
        ck_assert_uint_le(faults, 64 / 8);
        ck_assert_uint_eq(resident(region), 64 * SPAN);
    }
    drp_region_free(region);
}
END_TEST

/* Pss of the service in bytes. */
static uint64_t service_pss(void) {
    char path[64], line[256];
    uint64_t kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)service.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, "Pss:", 4) == 0)
            kib = strtoull(line + 4, NULL, 10);
    fclose(file);
    return kib * KIB;
}

/* A terabyte, touched here and there: promises to the kernel's fills must neither use up the headroom nor have memory dropped. */
START_TEST(test_large) {
    struct drp_region *region = make(1024 * GIB, 0);
    uint64_t step = (1024 * GIB / LARGE_TOUCHES) & ~(PAGE - 1), pss;

    touch(region, 0, step, LARGE_TOUCHES);
    pss = service_pss();
    printf("1 TiB, %d pages touched: service %" PRIu64 " KiB, dropped %" PRIu64 ", gate waits %" PRIu64 "\n",
           LARGE_TOUCHES, pss / KIB, stats().dropped_bytes, service_status(&service, "gate_waits"));
    ck_assert_uint_eq(stats().dropped_bytes, 0);
    ck_assert_uint_eq(resident(region), LARGE_TOUCHES * PAGE);
    if (!under_sanitizer())
        ck_assert_uint_le(pss, LARGE_PSS_MAX);
    drp_region_free(region);
}
END_TEST

static bool can_have(uint64_t required) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = required};
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, connection, 4 * MIB, &options);

    ck_assert(r == 0 || r == -EOPNOTSUPP);
    drp_region_free(region);
    return r == 0;
}

/* As the system's huge page mode says for everybody, unless the administrator keeps it out. */
START_TEST(test_default_pages) {
    char line[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    struct drp_region_info info;
    struct drp_region *region;
    bool huge;

    if (file) {
        (void)!fgets(line, sizeof(line), file);
        fclose(file);
    }
    fixture_start(_i ? "[Daemon]\nSystemHugePages=yes\n" : NULL);
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    region = make(4 * MIB, 0);
    drp_region_get_info(region, &info);
    huge = _i && strstr(line, "[always]") && status_feature("huge");
    if (huge && can_have(DRP_REGION_NO_SWAP) && !can_have(DRP_REGION_NO_SWAP | DRP_REGION_HUGE)) {
        suite_skip_part("huge pages by default", "a kernel that keeps small pages only from swap");
        huge = false;
    }
    ck_assert_uint_eq(info.granted & DRP_REGION_HUGE, huge ? DRP_REGION_HUGE : 0);
    ck_assert_uint_eq(info.chunk_size, huge ? SPAN : 64 * KIB);
    drp_region_free(region);
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("refill");
    TCase *tcase = tcase_create("refill");

    if (!may_intercept())
        skip_all("no full userfaultfd for this user");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_dense);
    tcase_add_test(tcase, test_sparse);
    tcase_add_test(tcase, test_sparse_alone);
    tcase_add_test(tcase, test_crumbs);
    tcase_add_test(tcase, test_scattered);
    tcase_add_test(tcase, test_huge);
    tcase_add_test(tcase, test_large);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("default");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_default_pages, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
