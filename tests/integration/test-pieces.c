/* SPDX-License-Identifier: MIT */
/*
 * Pieces of one region, mapped and unmapped one by one (MAP_PIECES, UNMAP_PIECES): several in a span, their offsets handed on to others, and
 * what a hostile client may say of them.
 */

#include "again.h"
#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE UINT64_C(4096)
#define CHUNK (16 * PAGE)
#define MIB (UINT64_C(1) << 20)
#define SPAN (2 * MIB)
#define SIZE (16 * MIB)
/* As the daemon has it, in mapping.h. */
#define EXTENTS_MAX 32768

static int session;
static struct raw_region region;
/* Where no userfaultfd is to be had, pieces are taken and forgotten: the service drops what is in the object, and there is nothing to register. */
static bool intercepted;

static void setup(void) {
    fixture_setup();
    intercepted = may_intercept();
    session = raw_session("pieces");
    raw_region_new_unmapped(session, SIZE, 0, &region);
}

static void teardown(void) {
    raw_region_end(session, &region);
    close(session);
    fixture_teardown();
}

/* Addresses of which nothing is mapped, with room to spare around them. */
static char *free_place(uint64_t size) {
    char *p = mmap(NULL, size + 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    ck_assert_ptr_ne(p, MAP_FAILED);
    ck_assert_int_eq(munmap(p, size + 2 * MIB), 0);
    return p + MIB;
}

static char *map_object(char *address, uint64_t length, uint64_t offset) {
    char *p = mmap(address, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, region.data_fd,
                   (off_t)(region.object_offset + offset));

    ck_assert_ptr_eq(p, address);
    return p;
}

static char *map_piece(char *address, uint64_t length, uint64_t offset) {
    uint32_t interception = 9;

    map_object(address, length, offset);
    ck_assert_int_eq(raw_map_piece(session, &region, address, length, offset, &interception), DRP_WIRE_OK);
    ck_assert_uint_eq(interception, intercepted ? DRP_WIRE_INTERCEPTION_FULL : DRP_WIRE_INTERCEPTION_NONE);
    return address;
}

/* As a client should: tell, unmap, free. */
static void unmap_piece(char *address, uint64_t length, uint64_t offset) {
    ck_assert_int_eq(raw_unmap_piece(session, &region, address, length), DRP_WIRE_OK);
    ck_assert_int_eq(munmap(address, length), 0);
    ck_assert_int_eq(fallocate(region.data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               (off_t)(region.object_offset + offset), (off_t)length),
                     0);
}

static uint64_t drop(void) {
    struct drp_wire_drop_reply reply;

    ck_assert_int_eq(raw_drop(session, &region, 0, SIZE, &reply), DRP_WIRE_OK);
    ck_assert_uint_eq(reply.failed, 0);
    return reply.freed;
}

static uint64_t faults(void) {
    struct drp_wire_counters counters;

    ck_assert_int_eq(raw_stats(session, &counters), DRP_WIRE_OK);
    ck_assert_uint_eq(counters.unexpected_errors, 0);
    ck_assert(intercepted || counters.intercepted_faults == 0);
    return counters.intercepted_faults;
}

/* One access more than before, where they are seen. */
static void expect_a_fault(uint64_t before) {
    ck_assert_uint_eq(faults(), before + intercepted);
}

/* ---- several in a span ---- */

#define N 32
#define WAIT_MS 10000

/* Every other chunk of a span, at addresses in another order. */
START_TEST(test_one_span) {
    char *base = free_place(N * 2 * CHUNK), *p[N];
    uint64_t before = 0;

    for (size_t i = 0; i < N / 2; i++)
        p[i] = map_piece(base + (N - i) * 2 * CHUNK, CHUNK, i * 2 * CHUNK);
    for (int round = 1; round <= 3; round++)
        for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
            for (size_t i = 0; i < N / 2; i++) {
                ck_assert(is_zero(p[i], CHUNK));
                memset(p[i], round, CHUNK);
            }
            for (size_t i = 0; i < N / 2; i++)
                ck_assert(is_filled(p[i], round, CHUNK));
            before = faults();
            ck_assert_uint_eq(drop(), N / 2 * CHUNK);
        }
    ck_assert(is_zero(p[5], CHUNK));
    if (!intercepted)
        return; /* each page for itself, by the kernel */
    /* It was armed, and the pages of all come back with the first, which is not made to wait for the others. */
    for (uint64_t deadline = now_ms() + WAIT_MS;
         listing_number("regions", "id", region.id, "resident_bytes") < N / 2 * CHUNK; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_uint_eq(listing_number("regions", "id", region.id, "resident_bytes"), N / 2 * CHUNK);
    expect_a_fault(before);
}
END_TEST

/* A piece that comes into a span which the kernel fills is dropped and seen with the others. */
START_TEST(test_joins_a_disarmed_span) {
    char *base = free_place(SPAN), *a = map_piece(base, CHUNK, 0), *b = NULL;
    uint64_t before = 0;

    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        if (b)
            unmap_piece(b, CHUNK, CHUNK);
        memset(a, 1, CHUNK); /* disarms */
        before = faults();
        b = map_piece(base + 8 * CHUNK, CHUNK, CHUNK);
        memset(b, 2, CHUNK);
        ck_assert_uint_eq(faults(), before); /* the kernel's */
        ck_assert_uint_eq(drop(), 2 * CHUNK);
    }
    ck_assert(is_zero(b, CHUNK) && is_zero(a, CHUNK));
    expect_a_fault(before);
    ck_assert_uint_eq(service_status(&service, "commitment"), 0); /* both are full */
}
END_TEST

/* What may still be filled is what is mapped, not the span. */
START_TEST(test_promises) {
    char *base = free_place(SPAN);

    map_piece(base, CHUNK, 0)[0] = 1;
    ck_assert_uint_le(service_status(&service, "commitment"), CHUNK);
    map_piece(base + 2 * CHUNK, 2 * CHUNK, 2 * CHUNK);
    ck_assert_uint_le(service_status(&service, "commitment"), 3 * CHUNK);
    unmap_piece(base + 2 * CHUNK, 2 * CHUNK, 2 * CHUNK);
    ck_assert_uint_le(service_status(&service, "commitment"), CHUNK);
}
END_TEST

/* A small piece is the kernel's to fill from the start, as long as there is plenty; a large one's first touch is seen. */
START_TEST(test_born_disarmed) {
    char *base = free_place(SIZE), *small = NULL, *large;
    uint64_t before;

    if (!status_feature("userfaultfd_wp"))
        return; /* all are armed */
    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        if (small)
            unmap_piece(small, 2 * CHUNK, CHUNK);
        small = map_piece(base, 2 * CHUNK, CHUNK);
        before = faults();
        ck_assert(is_zero(small, CHUNK));
        memset(small, 1, CHUNK);
        ck_assert_uint_eq(faults(), before);
        ck_assert_uint_eq(service_status(&service, "commitment"), 2 * CHUNK);
        ck_assert_uint_eq(drop(), CHUNK); /* it is known, though nobody saw it */
    }
    ck_assert_uint_eq(service_status(&service, "commitment"), 0);
    ck_assert(is_zero(small, CHUNK));
    expect_a_fault(before);
    large = map_piece(base + 2 * SPAN, 2 * SPAN, 2 * SPAN);
    ck_assert_uint_le(service_status(&service, "commitment"), 2 * CHUNK);
    large[0] = 1;
    ck_assert_uint_eq(faults(), before + 2);
}
END_TEST

/* Another piece of the span waits for the service: the new one is as that. */
START_TEST(test_born_into_an_armed_span) {
    char *base = free_place(SPAN), *a = map_piece(base, CHUNK, 0), *b;
    uint64_t before;

    for (struct armed_drops drops = {0}; armed_drops_again(&drops, &service);) {
        memset(a, 1, CHUNK);
        ck_assert_uint_eq(drop(), CHUNK); /* arms */
    }
    before = faults();
    b = map_piece(base + 4 * CHUNK, CHUNK, 4 * CHUNK);
    b[0] = 1;
    expect_a_fault(before);
}
END_TEST

/* ---- who comes after ---- */

START_TEST(test_offsets_are_handed_on) {
    char *base = free_place(SPAN), *a, *b;
    uint64_t refaults;

    for (int round = 1; round <= 20; round++) {
        a = map_piece(base, CHUNK, 0);
        ck_assert(is_zero(a, CHUNK));
        memset(a, round, CHUNK);
        if (round % 2)
            ck_assert_uint_eq(drop(), CHUNK);
        unmap_piece(a, CHUNK, 0);
        drop();
        refaults = service_status(&service, "refaults");
        b = map_piece(base + (unsigned)round * CHUNK, CHUNK, 0);
        ck_assert(is_zero(b, CHUNK));
        ck_assert_uint_eq(service_status(&service, "refaults"), refaults); /* it is nobody's loss */
        memset(b, round, CHUNK);
        ck_assert_uint_eq(drop(), CHUNK);
        ck_assert(is_zero(b, CHUNK));
        unmap_piece(b, CHUNK, 0);
    }
    drop();
    ck_assert_uint_eq(listing_number("regions", "id", region.id, "resident_bytes"), 0);
}
END_TEST

/* The same address and offset, time and again, without a word of the end: the events tell. */
START_TEST(test_unmapped_without_a_word) {
    char *place = free_place(CHUNK);

    for (int round = 1; round <= 50; round++) {
        map_piece(place, CHUNK, CHUNK);
        memset(place, round, CHUNK);
        ck_assert_uint_eq(drop(), CHUNK);
        ck_assert(is_zero(place, CHUNK));
        ck_assert_int_eq(munmap(place, CHUNK), 0);
    }
    ck_assert_uint_eq(faults() > 0, intercepted);
}
END_TEST

/* ---- what a client may say ---- */

static int say(uint64_t mapping, uint32_t type, const struct drp_wire_piece *pieces, uint32_t count) {
    struct drp_wire_pieces request = {.header.type = (uint16_t)type, .mapping = mapping, .count = count};

    memcpy(request.pieces, pieces, count * sizeof(*pieces));
    return raw_call(session, &request, offsetof(struct drp_wire_pieces, pieces) + count * sizeof(*pieces), NULL, 0,
                    NULL);
}

static int say_piece(uint64_t mapping, uint32_t type, uint64_t address, uint64_t length, uint64_t offset) {
    return say(mapping, type, &(struct drp_wire_piece){address, length, offset}, 1);
}

/* Of what lies at that address, 4 chunks from offset 4 chunks on. */
static void refuse_overlaps(uint64_t at) {
    uint64_t m = region.mapping;

    /* Over a part of it, by address or by offset. */
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at + 3 * CHUNK, 2 * CHUNK, 8 * CHUNK), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at + MIB, 2 * CHUNK, 7 * CHUNK), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at, 4 * CHUNK, 5 * CHUNK), DRP_WIRE_ERROR_INVALID);
    /* Two that are in each other's way: none of them is taken. */
    ck_assert_int_eq(
        say(m, DRP_WIRE_MAP_PIECES, (struct drp_wire_piece[]){{at + MIB, CHUNK, 0}, {at + 2 * MIB, CHUNK, 0}}, 2),
        DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(
        say(m, DRP_WIRE_MAP_PIECES, (struct drp_wire_piece[]){{at + MIB, CHUNK, 0}, {at + MIB, CHUNK, CHUNK}}, 2),
        DRP_WIRE_ERROR_INVALID);
}

START_TEST(test_refused) {
    char *base = free_place(SIZE), *p = map_piece(base, 4 * CHUNK, 4 * CHUNK);
    uint64_t at = (uintptr_t)p, m = region.mapping;
    struct raw_region other;
    int stranger = raw_session("stranger");

    raw_region_new_unmapped(stranger, SIZE, 0, &other);
    memset(p, 1, 4 * CHUNK);
    ck_assert_int_eq(say_piece(m + 1000, DRP_WIRE_MAP_PIECES, at + MIB, CHUNK, 0), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(say_piece(other.mapping, DRP_WIRE_MAP_PIECES, at + MIB, CHUNK, 0), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(say_piece(other.mapping, DRP_WIRE_UNMAP_PIECES, at, CHUNK, 0), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at + MIB, CHUNK, SIZE), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at + MIB, CHUNK + PAGE, SIZE - CHUNK), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at + MIB, SIZE, PAGE), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, 0, (UINT64_C(1) << 56) - PAGE, 0), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, PAGE, UINT64_MAX - 2 * PAGE + 1, 0), DRP_WIRE_ERROR_INVALID);
    if (intercepted)
        refuse_overlaps(at);
    map_piece(base + MIB, CHUNK, 0);
    /* The same word twice is fine, and so is an end of what is not there. */
    ck_assert_int_eq(say_piece(m, DRP_WIRE_MAP_PIECES, at + CHUNK, 2 * CHUNK, 5 * CHUNK), DRP_WIRE_OK);
    ck_assert_int_eq(say_piece(m, DRP_WIRE_UNMAP_PIECES, at + 4 * MIB, SIZE, 0), DRP_WIRE_OK);
    ck_assert(is_filled(p, 1, 4 * CHUNK));
    ck_assert_uint_eq(drop(), 4 * CHUNK);
    ck_assert(is_zero(p, 4 * CHUNK));
    raw_region_end(stranger, &other);
    close(stranger);
}
END_TEST

/* Of addresses where something else is, or nothing: not intercepted, and nobody's loss. */
START_TEST(test_lies) {
    char *base = free_place(SIZE), *p = map_piece(base, CHUNK, 0);
    char *foreign =
        mmap(base + MIB, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    uint32_t interception = 9;

    ck_assert_int_eq(raw_map_piece(session, &region, base + 2 * MIB, CHUNK, MIB, &interception), DRP_WIRE_OK);
    ck_assert_uint_eq(interception, DRP_WIRE_INTERCEPTION_NONE);
    ck_assert_int_eq(raw_map_piece(session, &region, foreign, CHUNK, 2 * MIB, &interception), DRP_WIRE_OK);
    memset(foreign, 7, CHUNK);
    memset(p, 1, CHUNK);
    ck_assert_uint_eq(drop(), CHUNK);
    ck_assert(is_filled(foreign, 7, CHUNK) && is_zero(p, CHUNK));
    ck_assert_int_eq(raw_unmap_piece(session, &region, base, SIZE), DRP_WIRE_OK);
    memset(p, 2, CHUNK);
    ck_assert(is_filled(p, 2, CHUNK));
    ck_assert_uint_eq(drop(), CHUNK); /* the object's all the same */
    ck_assert(is_zero(p, CHUNK) && is_filled(foreign, 7, CHUNK));
}
END_TEST

/* Announces single pages, every other one, until it is refused. Where nothing is mapped they are taken and not intercepted: so by mappings. */
START_TEST(test_as_many_as_there_may_be) {
    const size_t batch = DRP_WIRE_PIECES_MAX;
    uint64_t length = 2 * (EXTENTS_MAX + DRP_WIRE_PIECES_MAX) * PAGE;
    struct raw_region large;
    struct drp_wire_piece pieces[DRP_WIRE_PIECES_MAX];
    char *base;
    size_t n = 0;
    int r = DRP_WIRE_OK;

    if (!intercepted)
        return; /* none is kept, so there is no end */
    raw_region_new_unmapped(session, length, 0, &large);
    base = free_place(length);
    ck_assert_ptr_eq(mmap(base, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, large.data_fd,
                          (off_t)large.object_offset),
                     base);
    while (r == DRP_WIRE_OK && n <= EXTENTS_MAX) {
        for (size_t i = 0; i < batch; i++)
            pieces[i] = (struct drp_wire_piece){(uintptr_t)base + 2 * (n + i) * PAGE, PAGE, 2 * (n + i) * PAGE};
        r = say(large.mapping, DRP_WIRE_MAP_PIECES, pieces, DRP_WIRE_PIECES_MAX);
        if (r == DRP_WIRE_OK)
            n += batch;
    }
    ck_assert_int_eq(r, DRP_WIRE_ERROR_QUOTA);
    ck_assert_uint_gt(n, EXTENTS_MAX - batch);
    ck_assert_uint_le(n, EXTENTS_MAX);
    memset(base, 1, 64 * PAGE);
    ck_assert(is_filled(base, 1, 64 * PAGE));
    ck_assert_int_eq(raw_unmap_piece(session, &large, base, length), DRP_WIRE_OK);
    memset(map_piece(free_place(CHUNK), CHUNK, 0), 1, CHUNK); /* there is room again */
    ck_assert_int_eq(munmap(base, length), 0);
    raw_region_end(session, &large);
}
END_TEST

/* Of huge pages that the kernel fills: nothing is registered there, so nobody tells of the end of a piece, or of its move, but the client before. */
START_TEST(test_huge) {
    char *first = free_place(CHUNK), *second = free_place(SPAN) + SPAN / 2;

    if (!intercepted || !status_feature("huge")) {
        printf("pieces of huge pages: skipped: none here\n");
        return;
    }
    raw_region_end(session, &region);
    raw_region_new_unmapped(session, SIZE, DRP_REGION_HUGE, &region);
    memset(map_piece(first, CHUNK, 0), 1, CHUNK);
    ck_assert_int_eq(raw_map_piece(session, &region, second, CHUNK, 0, NULL), DRP_WIRE_ERROR_INVALID); /* it is there */
    ck_assert_int_eq(raw_unmap_piece(session, &region, first, CHUNK), DRP_WIRE_OK);
    ck_assert_ptr_eq(mremap(first, CHUNK, CHUNK, MREMAP_MAYMOVE | MREMAP_FIXED, second), second);
    ck_assert_int_eq(raw_map_piece(session, &region, second, CHUNK, 0, NULL), DRP_WIRE_OK);
    ck_assert_int_eq(raw_map_piece(session, &region, second, CHUNK, 0, NULL), DRP_WIRE_OK); /* known */
    ck_assert(is_filled(second, 1, CHUNK));
    ck_assert_uint_gt(drop(), 0);
    ck_assert(is_zero(second, CHUNK));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pieces");
    TCase *tcase = tcase_create("pieces");

    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_one_span);
    tcase_add_test(tcase, test_joins_a_disarmed_span);
    tcase_add_test(tcase, test_promises);
    tcase_add_test(tcase, test_born_disarmed);
    tcase_add_test(tcase, test_born_into_an_armed_span);
    tcase_add_test(tcase, test_offsets_are_handed_on);
    tcase_add_test(tcase, test_unmapped_without_a_word);
    tcase_add_test(tcase, test_refused);
    tcase_add_test(tcase, test_lies);
    tcase_add_test(tcase, test_huge);
    tcase_add_test(tcase, test_as_many_as_there_may_be);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
