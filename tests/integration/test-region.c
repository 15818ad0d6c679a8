/* SPDX-License-Identifier: MIT */
/*
 * One client, one service: what a region is, what a drop does to it, what pins and generations say about it. Every figure is
 * compared with what `droppablectl` says, so that the service's accounts are tested as well.
 */

#include "again.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define CHUNK (64 * KIB)
#define PAGE (4 * KIB)

static struct drp *connection;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void teardown(void) {
    connection = drp_free(connection);
    fixture_teardown();
}

static struct drp_region *make_sized(size_t size, size_t chunk_size) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = chunk_size};
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, connection, size, &options);

    ck_assert_msg(r == 0, "%s", drp_detail());
    return region;
}

static struct drp_region *make(size_t size) {
    return make_sized(size, 0);
}

static uint64_t region_id(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.id;
}

static uint64_t resident(const struct drp_region *region) {
    return listing_number("regions", "id", region_id(region), "resident_bytes");
}

/* ---- making ---- */

START_TEST(test_sizes) {
    static const size_t sizes[] = {1, 4095, 4096, 65536, 65537, 2 << 20, (2 << 20) + 1, 3 * 1048576 + 5, 256 << 20};
    struct drp_region *regions[sizeof(sizes) / sizeof(sizes[0])];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct drp_region_info info;
        char *p;

        regions[i] = make(sizes[i]);
        drp_region_get_info(regions[i], &info);
        ck_assert_uint_eq(info.size, (sizes[i] + CHUNK - 1) / CHUNK * CHUNK);
        ck_assert_uint_eq(drp_region_size(regions[i]), info.size);
        ck_assert_ptr_eq(drp_region_address(regions[i]), info.address);
        ck_assert_uint_eq(info.chunk_size, CHUNK);
        ck_assert_uint_eq(info.granted & ~DRP_REGION_NO_SWAP, 0);
        ck_assert(info.connected);
        ck_assert_uint_eq(listing_number("regions", "id", info.id, "size"), info.size);
        ck_assert_uint_eq(resident(regions[i]), 0);
        p = info.address;
        ck_assert(is_zero(p, sizes[i] < MIB ? info.size : MIB));
        memset(p + info.size - 10, (int)i + 1, 10);
    }
    ck_assert_uint_eq(listing_count("regions"), sizeof(sizes) / sizeof(sizes[0]));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *p = drp_region_address(regions[i]);

        ck_assert(is_filled(p + drp_region_size(regions[i]) - 10, (int)i + 1, 10));
        ck_assert_ptr_null(drp_region_free(regions[i]));
    }
    ck_assert_uint_eq(listing_count("regions"), 0);
    ck_assert(status_becomes("resident_bytes", 0, 1000));
}
END_TEST

START_TEST(test_chunk_sizes) {
    uint32_t before[512], after[512];
    struct drp_region_info info;
    uint64_t freed;

    for (size_t chunk = 4096; chunk <= 2 * MIB; chunk *= 2) {
        size_t n = 4 * MIB / chunk < 512 ? 4 * MIB / chunk : 512;
        struct drp_region *region = make_sized(n * chunk, chunk);
        char *p = drp_region_address(region);

        drp_region_get_info(region, &info);
        ck_assert_uint_eq(info.chunk_size, chunk);
        ck_assert_uint_eq(info.size, n * chunk);
        memset(p, 0x5a, n * chunk);
        ck_assert_int_eq(drp_copy_generations(region, 0, n * chunk, before), (ssize_t)n);
        ck_assert_int_eq(drp_drop(region, chunk, chunk, &freed, NULL), 0);
        ck_assert_uint_eq(freed, chunk);
        ck_assert_int_eq(drp_copy_generations(region, 0, n * chunk, after), (ssize_t)n);
        for (size_t i = 0; i < n; i++)
            ck_assert_msg((after[i] != before[i]) == (i == 1) && after[i] % 2 == 0, "chunk %zu of %zu bytes", i, chunk);
        ck_assert(is_filled(p, 0x5a, chunk));
        ck_assert(is_zero(p + chunk, chunk));
        ck_assert(n <= 2 || is_filled(p + 2 * chunk, 0x5a, (n - 2) * chunk));
        drp_region_free(region);
    }
}
END_TEST

START_TEST(test_huge) {
    struct drp_region_options options = {.struct_size = sizeof(options), .preferred = DRP_REGION_HUGE};
    struct drp_region_info info;
    struct drp_region *region;
    uint64_t freed;
    char *p;

    ck_assert_int_eq(drp_region_new(&region, connection, 16 * MIB, &options), 0);
    drp_region_get_info(region, &info);
    ck_assert_int_eq((info.granted & DRP_REGION_HUGE) != 0, status_feature("huge"));
    p = info.address;
    memset(p, 7, 16 * MIB);
    if (info.granted & DRP_REGION_HUGE) {
        ck_assert_uint_eq(info.chunk_size, 2 * MIB);
        ck_assert_uint_eq(resident(region), 16 * MIB);
    }
    ck_assert_int_eq(drp_drop(region, 4 * MIB, 2 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, 2 * MIB);
    ck_assert(is_filled(p + 2 * MIB, 7, 2 * MIB));
    ck_assert(is_zero(p + 4 * MIB, 2 * MIB));
    ck_assert(is_filled(p + 6 * MIB, 7, 2 * MIB));
    memset(p + 4 * MIB, 8, 2 * MIB);
    ck_assert_int_eq(drp_drop(region, 0, 16 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, 16 * MIB);
    ck_assert(is_zero(p, 16 * MIB));
    drp_region_free(region);

    options = (struct drp_region_options){.struct_size = sizeof(options), .required = DRP_REGION_HUGE};
    ck_assert_int_eq(drp_region_new(&region, connection, 2 * MIB, &options),
                     info.granted & DRP_REGION_HUGE ? 0 : -EOPNOTSUPP);
    if (info.granted & DRP_REGION_HUGE)
        drp_region_free(region);
}
END_TEST

START_TEST(test_wrong_options) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = UINT64_C(1) << 40};
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = CHUNK};
    struct drp_region *region = NULL;
    int socket;

    ck_assert_int_eq(drp_region_new(&region, connection, CHUNK, &options), -EOPNOTSUPP);
    options = (struct drp_region_options){.struct_size = sizeof(options), .preferred = UINT64_C(1) << 40};
    ck_assert_int_eq(drp_region_new(&region, connection, CHUNK, &options), -EOPNOTSUPP);
    options = (struct drp_region_options){.struct_size = sizeof(options), .chunk_size = 12345};
    ck_assert_int_eq(drp_region_new(&region, connection, CHUNK, &options), -EINVAL);
    options = (struct drp_region_options){.struct_size = sizeof(options), .chunk_size = 4 * MIB};
    ck_assert_int_eq(drp_region_new(&region, connection, CHUNK, &options), -EINVAL);
    ck_assert_int_eq(drp_region_new(&region, connection, 0, NULL), -EINVAL);
    ck_assert_ptr_null(region);

    /* The same past the library, which would not send them. */
    socket = raw_hello("raw");
    create.required = UINT64_C(1) << 40;
    ck_assert_int_eq(raw_call(socket, &create, sizeof(create), NULL, 0, NULL), DRP_WIRE_ERROR_UNSUPPORTED);
    create.required = 0;
    create.preferred = UINT64_C(1) << 40;
    ck_assert_int_eq(raw_call(socket, &create, sizeof(create), NULL, 0, NULL), DRP_WIRE_ERROR_UNSUPPORTED);
    close(socket);
    ck_assert_uint_eq(listing_count("regions"), 0);
}
END_TEST

/* ---- limits ---- */

static void setup_limits(void) {
    fixture_start("[Limits]\nRegionsPerClient=3\nRegionBytes=1M\nBytesPerUser=2M\nConnectionsPerUser=3\n");
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

START_TEST(test_limits) {
    struct drp_region *regions[3], *more = NULL;
    struct drp *second = NULL, *third = NULL, *fourth = NULL;

    ck_assert_int_eq(drp_region_new(&more, connection, MIB + 1, NULL), -EDQUOT);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "limit"));
    for (size_t i = 0; i < 3; i++)
        regions[i] = make(CHUNK);
    ck_assert_int_eq(drp_region_new(&more, connection, CHUNK, NULL), -EDQUOT);
    regions[0] = drp_region_free(regions[0]);
    regions[0] = make(MIB); /* 1 MiB and two chunks: the rest of the user's 2 MiB is less than another one */
    ck_assert_int_eq(drp_new(&second, NULL), 0);
    ck_assert_int_eq(drp_region_new(&more, second, MIB, NULL), -EDQUOT);
    ck_assert_int_eq(drp_region_new(&more, second, MIB - 2 * CHUNK, NULL), 0);
    ck_assert_int_eq(drp_new(&third, NULL), 0);
    ck_assert_int_eq(drp_new(&fourth, NULL), -EDQUOT);
    third = drp_free(third);
    for (uint64_t deadline = now_ms() + 5000; drp_new(&fourth, NULL) < 0;) /* the place is free a moment later */
        ck_assert(now_ms() < deadline);
    fourth = drp_free(fourth);
    more = drp_region_free(more);
    second = drp_free(second);
    for (size_t i = 0; i < 3; i++)
        drp_region_free(regions[i]);
}
END_TEST

/* A process that can have only so many descriptors more does not have the region, nor does the service keep it for that process. */
START_TEST(test_short_of_descriptors) {
    struct drp_region *region = NULL;
    struct rlimit before, tight;
    int next = dup(STDERR_FILENO);

    ck_assert_int_ge(next, 0);
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int room = 0; room < 3; room++) {
        int r;

        tight = before;
        tight.rlim_cur = (rlim_t)(next + room);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &tight), 0);
        r = drp_region_new(&region, connection, MIB, NULL);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        ck_assert_int_eq(r, -EMFILE);
        ck_assert(status_becomes("regions", 0, 5000));
    }
    region = make(MIB);
    drp_region_free(region);
}
END_TEST

/* ---- touching and dropping ---- */

START_TEST(test_exactly_touched) {
    struct drp_region *region = make(32 * MIB);
    char *p = drp_region_address(region);
    uint64_t freed;

    for (size_t i = 0; i < 4; i++) /* of one span */
        p[i * 100 * PAGE] = 1;
    ck_assert_uint_eq(resident(region), 4 * PAGE);
    for (size_t i = 1; i < 5; i++) /* of several */
        p[i * 5 * MIB] = 1;
    ck_assert_uint_eq(resident(region), 8 * PAGE);
    ck_assert_uint_eq(service_status(&service, "resident_bytes"), 8 * PAGE);
    ck_assert_int_eq(drp_drop(region, 0, 32 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, 8 * PAGE);
    ck_assert_uint_eq(resident(region), 0);
    p[0] = 1; /* what was resident comes back with it: nothing else of its span was */
    ck_assert_uint_le(resident(region), 4 * PAGE);
    drp_region_free(region);
}
END_TEST

START_TEST(test_drop) {
    struct drp_region *region = make(8 * MIB);
    uint32_t before[128], after[128];
    uint64_t freed, pinned, generation = 0;
    char *p = drp_region_address(region);

    memset(p, 0x11, 8 * MIB);
    ck_assert_int_eq(drp_copy_generations(region, 0, 8 * MIB, before), 128);
    ck_assert_int_eq(drp_pin(region, 5 * CHUNK, 3 * CHUNK, &generation), 0);
    /* From the middle of chunk 2 to the middle of chunk 40: 3 to 39 lie inside. */
    ck_assert_int_eq(drp_drop(region, 2 * CHUNK + 1, 38 * CHUNK, &freed, &pinned), 0);
    ck_assert_uint_eq(pinned, 3 * CHUNK);
    ck_assert_uint_eq(freed, 34 * CHUNK);
    ck_assert_int_eq(drp_copy_generations(region, 0, 8 * MIB, after), 128);
    for (size_t i = 0; i < 128; i++) {
        bool dropped = i >= 3 && i < 40 && !(i >= 5 && i < 8);

        ck_assert_msg((before[i] != after[i]) == dropped, "chunk %zu", i);
        ck_assert_msg(dropped ? is_zero(p + i * CHUNK, CHUNK) : is_filled(p + i * CHUNK, 0x11, CHUNK), "chunk %zu", i);
    }
    ck_assert_uint_eq(drp_generation(region, 5 * CHUNK, 3 * CHUNK), generation);
    ck_assert_int_eq(drp_unpin(region, 5 * CHUNK, 3 * CHUNK), 0);
    ck_assert_int_eq(drp_drop(region, 5 * CHUNK, 3 * CHUNK, &freed, &pinned), 0);
    ck_assert_uint_eq(freed, 3 * CHUNK);
    ck_assert_uint_eq(pinned, 0);
    ck_assert_uint_ne(drp_generation(region, 5 * CHUNK, 3 * CHUNK), generation);
    ck_assert(is_zero(p + 5 * CHUNK, 3 * CHUNK));
    ck_assert_int_eq(drp_drop(region, 8 * MIB, CHUNK, NULL, NULL), -ERANGE);
    ck_assert_int_eq(drp_pin(region, 8 * MIB - 1, 2, NULL), -ERANGE);
    ck_assert_int_eq(drp_unpin(region, 0, 1), -EINVAL);
    drp_region_free(region);
}
END_TEST

/* Several objects at once, each with a pinned chunk, one with chunks of another size: the same as one after the other. */
START_TEST(test_drop_several) {
    enum { REGIONS = 5 };
    struct drp_region *regions[REGIONS];
    uint32_t before[128], after[128];
    char pid[16], out[1024];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    for (unsigned i = 0; i < REGIONS; i++) {
        regions[i] = make_sized(8 * MIB, i == 3 ? 4 * CHUNK : CHUNK);
        memset(drp_region_address(regions[i]), (int)i + 1, 8 * MIB);
        ck_assert_int_eq(drp_pin(regions[i], (i + 3) * MIB / 2, 1, NULL), 0);
    }
    drp_copy_generations(regions[1], 0, 8 * MIB, before);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", pid, NULL}), 0);
    for (unsigned i = 0; i < REGIONS; i++) {
        size_t kept = (i == 3 ? 4 : 1) * CHUNK, at = (i + 3) * MIB / 2 / kept * kept;
        char *p = drp_region_address(regions[i]);

        ck_assert_uint_eq(resident(regions[i]), kept);
        ck_assert(is_filled(p + at, (int)i + 1, kept));
        ck_assert(is_zero(p, at));
        ck_assert(is_zero(p + at + kept, 8 * MIB - at - kept));
    }
    drp_copy_generations(regions[1], 0, 8 * MIB, after);
    for (size_t c = 0; c < 128; c++)
        ck_assert_uint_eq(after[c], before[c] + (c == 2 * MIB / CHUNK ? 0 : 2));
    for (unsigned i = 0; i < REGIONS; i++)
        drp_region_free(regions[i]);
}
END_TEST

START_TEST(test_drop_untouched) {
    struct drp_region *region = make(8 * MIB);
    uint64_t generation = drp_generation(region, 0, 8 * MIB), freed;
    uint32_t generations[128];
    size_t offset, length;
    char *p = drp_region_address(region);

    ck_assert_int_eq(drp_copy_generations(region, 0, 8 * MIB, generations), 128);
    ck_assert_int_eq(drp_drop(region, 0, 8 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, 0);
    ck_assert_uint_eq(drp_generation(region, 0, 8 * MIB), generation);
    p[3 * CHUNK] = 1;
    ck_assert_int_eq(drp_drop(region, 0, 8 * MIB, &freed, NULL), 0);
    ck_assert_uint_eq(freed, PAGE);
    ck_assert_int_eq(drp_lost(region, 0, 8 * MIB, generations, &offset, &length), 1);
    ck_assert_uint_eq(offset, 3 * CHUNK);
    ck_assert_uint_eq(length, CHUNK);
    ck_assert_int_eq(drp_lost(region, 0, 3 * CHUNK, generations, &offset, &length), 0);
    drp_region_free(region);
}
END_TEST

START_TEST(test_populate) {
    struct drp_region *region = make(32 * MIB);
    struct drp_stats before, after;
    char *p = drp_region_address(region);

    p[10 * MIB] = 42;
    ck_assert_int_eq(drp_populate(region, 5 * MIB + 1, 20 * MIB), 0);
    ck_assert_uint_eq(resident(region), 20 * MIB + PAGE);
    ck_assert_int_eq(p[10 * MIB], 42);
    ck_assert_int_eq(drp_get_stats(connection, &before), 0);
    ck_assert(is_zero(p + 6 * MIB, 4 * MIB));
    memset(p + 6 * MIB, 1, MIB);
    ck_assert_int_eq(drp_get_stats(connection, &after), 0);
    ck_assert_uint_eq(after.intercepted_faults, before.intercepted_faults);
    ck_assert_int_eq(drp_drop(region, 0, 32 * MIB, NULL, NULL), 0);
    ck_assert_int_eq(drp_populate(region, 0, 32 * MIB), 0);
    ck_assert_uint_eq(resident(region), 32 * MIB);
    ck_assert(is_zero(p, 32 * MIB));
    ck_assert_int_eq(drp_populate(region, 0, 32 * MIB + 1), -ERANGE);
    drp_region_free(region);
}
END_TEST

START_TEST(test_statistics) {
    struct drp_region *region = NULL;
    struct drp_region_info info;
    struct drp_stats stats;
    uint64_t dropped = 0;
    char *p = NULL;

    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service); dropped += 8 * MIB) {
        drp_region_free(region);
        region = make(8 * MIB);
        p = drp_region_address(region);
        memset(p, 1, 8 * MIB);
        ck_assert_int_eq(drp_get_stats(connection, &stats), 0);
        ck_assert_uint_eq(stats.resident_bytes, 8 * MIB);
        ck_assert_uint_eq(stats.dropped_bytes, dropped);
        ck_assert_uint_eq(stats.refaults, 0);
        ck_assert_uint_eq(stats.reconnects, 0);
        ck_assert_int_eq(drp_drop(region, 0, 8 * MIB, NULL, NULL), 0);
        ck_assert_int_eq(drp_get_stats(connection, &stats), 0);
        ck_assert_uint_eq(stats.resident_bytes, 0);
        ck_assert_uint_eq(stats.dropped_bytes, dropped + 8 * MIB);
    }
    drp_region_get_info(region, &info);
    for (size_t span = 0; span < 4; span++)
        p[span * 2 * MIB] = 2;
    ck_assert_int_eq(drp_get_stats(connection, &stats), 0);
    if (info.interception == DRP_INTERCEPTION_FULL) {
        ck_assert_uint_eq(stats.refaults, 4);
        ck_assert_uint_ge(stats.intercepted_faults, 8); /* four spans, twice */
        ck_assert_uint_eq(listing_number("regions", "id", info.id, "refaults"), 4);
    }
    ck_assert_uint_eq(listing_number("regions", "id", info.id, "dropped_bytes"), 8 * MIB);
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)getpid(), "dropped_bytes"), dropped);
    ck_assert_uint_eq(service_status(&service, "dropped_bytes"), dropped);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
    drp_region_free(region);
}
END_TEST

START_TEST(test_optimistic_reads) {
    struct drp_region *region = make(CHUNK * 4);
    uint64_t generation, again;
    char *p = drp_region_address(region);

    memset(p, 3, 4 * CHUNK);
    ck_assert_int_eq(drp_read_begin(region, CHUNK, CHUNK, &generation), 0);
    ck_assert(!drp_read_retry(region, CHUNK, CHUNK, generation));
    ck_assert_int_eq(drp_drop(region, 0, CHUNK, NULL, NULL), 0); /* another chunk */
    ck_assert(!drp_read_retry(region, CHUNK, CHUNK, generation));
    ck_assert_int_eq(drp_drop(region, CHUNK, CHUNK, NULL, NULL), 0);
    ck_assert(drp_read_retry(region, CHUNK, CHUNK, generation));
    ck_assert_int_eq(drp_read_begin(region, CHUNK, CHUNK, &again), 0);
    ck_assert_uint_ne(again, generation);
    ck_assert_int_eq(drp_read_begin(region, 4 * CHUNK, 1, &again), -ERANGE);
    drp_region_free(region);
}
END_TEST

START_TEST(test_many_rounds) {
    struct drp_region *region = make(16 * MIB);
    uint64_t freed;
    char *p = drp_region_address(region);

    for (int round = 1; round <= 50; round++) {
        memset(p, round, 16 * MIB);
        ck_assert(is_filled(p, round, 16 * MIB));
        ck_assert_int_eq(drp_drop(region, 0, 16 * MIB, &freed, NULL), 0);
        ck_assert_uint_eq(freed, 16 * MIB);
        ck_assert_msg(is_zero(p, 16 * MIB), "round %d", round);
        /* Read pages are resident, too: the next round writes them. */
    }
    drp_region_free(region);
}
END_TEST

START_TEST(test_control_drop) {
    struct drp_region *first = make(MIB), *second = make(MIB);
    char number[32], out[4096];

    memset(drp_region_address(first), 1, MIB);
    memset(drp_region_address(second), 1, MIB);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)region_id(first));
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--region", number, NULL}),
                     0);
    ck_assert_uint_eq(resident(first), 0);
    ck_assert_uint_eq(resident(second), MIB);
    snprintf(number, sizeof(number), "%d", (int)getpid());
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", number, NULL}), 0);
    ck_assert_uint_eq(resident(second), 0);
    memset(drp_region_address(second), 1, MIB);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--all", NULL}), 0);
    ck_assert_uint_eq(service_status(&service, "resident_bytes"), 0);
    ck_assert_int_ne(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", "1", NULL}), 0);
    drp_region_free(first);
    drp_region_free(second);
}
END_TEST

/* ---- threads that are ended ---- */

static _Atomic bool returned;

/* Check's macros end it. */
static void *drop_cancelled(void *region) {
    struct drp_stats stats;
    bool ok = pthread_cancel(pthread_self()) == 0;

    ok = drp_drop(region, 0, MIB, NULL, NULL) == 0 && ok;
    ok = drp_get_stats(connection, &stats) == 0 && ok;
    atomic_store(&returned, ok);
    pthread_testcancel();
    return NULL;
}

/* Not within a call, which would keep the library's locks. */
START_TEST(test_cancelled) {
    struct drp_region *region = make(MIB);
    pthread_t thread;
    void *result;

    memset(drp_region_address(region), 1, MIB);
    ck_assert_int_eq(pthread_create(&thread, NULL, drop_cancelled, region), 0);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_eq(result, PTHREAD_CANCELED);
    ck_assert_int_eq(atomic_load(&returned), true);
    ck_assert_uint_eq(resident(region), 0);
    ck_assert_int_eq(drp_drop(region, 0, MIB, NULL, NULL), 0);
    drp_region_free(region);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("region");
    TCase *basic = tcase_create("basic"), *limits = tcase_create("limits");

    tcase_set_timeout(basic, 60);
    tcase_add_checked_fixture(basic, setup, teardown);
    tcase_add_test(basic, test_sizes);
    tcase_add_test(basic, test_chunk_sizes);
    tcase_add_test(basic, test_huge);
    tcase_add_test(basic, test_wrong_options);
    tcase_add_test(basic, test_exactly_touched);
    tcase_add_test(basic, test_drop);
    tcase_add_test(basic, test_drop_several);
    tcase_add_test(basic, test_drop_untouched);
    tcase_add_test(basic, test_populate);
    tcase_add_test(basic, test_statistics);
    tcase_add_test(basic, test_optimistic_reads);
    tcase_add_test(basic, test_many_rounds);
    tcase_add_test(basic, test_control_drop);
    tcase_add_test(basic, test_cancelled);
    suite_add_tcase(suite, basic);
    tcase_set_timeout(limits, 60);
    tcase_add_checked_fixture(limits, setup_limits, teardown);
    tcase_add_test(limits, test_limits);
    tcase_add_test(limits, test_short_of_descriptors);
    suite_add_tcase(suite, limits);
    return suite_run(suite);
}
