/* SPDX-License-Identifier: MIT */
/* Extents against a naive model: an array that says for each page which mapping's offset is there. */

#include "mapping.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#define PAGE UINT64_C(4096)
#define PAGES 512
#define MAPPINGS 4
/* CPU time for EXTENTS_MAX of them, where each by a move of all others takes seconds. */
#define MANY_MS 300

struct cell {
    struct mapping *mapping;
    uint64_t offset;
};

static struct mapping mappings[MAPPINGS];
static struct cell model[PAGES];
static struct extents extents;

static void setup(void) {
    ck_assert_int_eq(extents_init(&extents), 0);
    for (size_t i = 0; i < PAGES; i++)
        model[i] = (struct cell){0};
}

static void teardown(void) {
    extents_deinit(&extents);
}

/* What the other order says: each page of the mapping once, by offset. One assertion for all: Check writes to a file at each. */
static void check_places(const struct mapping *mapping) {
    uint64_t address, length, offset = 0, bytes = 0, known = 0, wrong = UINT64_MAX;

    for (; extents_next(&extents, mapping, offset, UINT64_MAX, &address, &length, &offset);
         offset += length, bytes += length)
        for (uint64_t i = 0; i < length; i += PAGE) {
            const struct cell *cell = &model[(address + i) / PAGE];

            if (cell->mapping != mapping || cell->offset != offset + i)
                wrong = address + i;
        }
    ck_assert_msg(wrong == UINT64_MAX, "by offset: another page at %#" PRIx64, wrong);
    for (size_t i = 0; i < PAGES; i++)
        known += model[i].mapping == mapping ? PAGE : 0;
    ck_assert_uint_eq(bytes, known);
    ck_assert_uint_eq(extents_bytes(&extents, mapping, 0, UINT64_MAX), known);
}

static void check_model(void) {
    size_t wrong = PAGES;

    for (size_t i = 0; i < PAGES; i++) {
        const struct extent *e = extents_find(&extents, i * PAGE + 17);

        if ((e ? e->mapping : NULL) != model[i].mapping || (e && e->offset + (i * PAGE - e->address) != model[i].offset))
            wrong = i;
    }
    ck_assert_msg(wrong == PAGES, "by address: page %zu is not where the model has it", wrong);
    for (size_t i = 0; i < MAPPINGS; i++)
        check_places(&mappings[i]);
    for (size_t i = 1; i < extents.entries.n; i++)
        ck_assert_uint_ge(extent_at(&extents.entries, i)->address,
                          extent_at(&extents.entries, i - 1)->address + extent_at(&extents.entries, i - 1)->length);
}

static void model_add(struct mapping *mapping, size_t first, size_t count, uint64_t offset) {
    for (size_t i = 0; i < count; i++)
        model[first + i] = (struct cell){mapping, offset + i * PAGE};
}

static bool model_may_add(struct mapping *mapping, size_t first, size_t count, uint64_t offset) {
    for (size_t i = 0; i < PAGES; i++)
        if ((i >= first && i < first + count && model[i].mapping) ||
            (model[i].mapping == mapping && model[i].offset >= offset && model[i].offset < offset + count * PAGE))
            return false;
    return true;
}

static int add(struct mapping *mapping, size_t first, size_t count, uint64_t offset) {
    struct extent extent = {.address = first * PAGE, .length = count * PAGE, .mapping = mapping, .offset = offset};
    int r = extents_add(&extents, &extent);

    ck_assert_int_eq(r == 0, model_may_add(mapping, first, count, offset));
    if (r == 0)
        model_add(mapping, first, count, offset);
    else
        ck_assert_int_eq(r, -EEXIST);
    return r;
}

static void cut(size_t first, size_t count) {
    extents_remove(&extents, first * PAGE, (first + count) * PAGE);
    for (size_t i = first; i < first + count; i++)
        model[i] = (struct cell){0};
}

/* mremap(2) refuses ranges that overlap, and so does this. */
static void move(size_t from, size_t to, size_t count) {
    struct cell moved[PAGES];

    extents_move(&extents, from * PAGE, to * PAGE, count * PAGE);
    for (size_t i = 0; i < count; i++) {
        moved[i] = model[from + i];
        model[from + i] = (struct cell){0};
    }
    for (size_t i = 0; i < count; i++)
        model[to + i] = moved[i];
}

START_TEST(test_overlaps_are_refused) {
    ck_assert_int_eq(add(&mappings[0], 10, 10, 0), 0);
    ck_assert_int_eq(add(&mappings[1], 19, 1, 0), -EEXIST);
    ck_assert_int_eq(add(&mappings[1], 5, 6, 0), -EEXIST);
    ck_assert_int_eq(add(&mappings[1], 0, 100, 0), -EEXIST);
    ck_assert_int_eq(add(&mappings[1], 20, 1, 0), 0);
    ck_assert_int_eq(add(&mappings[1], 9, 1, 0), -EEXIST); /* the same bytes of the same mapping */
    ck_assert_int_eq(add(&mappings[1], 9, 1, PAGE), 0);
    check_model();
}
END_TEST

START_TEST(test_neighbours_are_joined) {
    add(&mappings[0], 10, 2, 10 * PAGE);
    add(&mappings[0], 14, 2, 14 * PAGE);
    ck_assert_uint_eq(extents.entries.n, 2);
    add(&mappings[0], 12, 2, 12 * PAGE); /* both */
    ck_assert_uint_eq(extents.entries.n, 1);
    add(&mappings[0], 9, 1, 9 * PAGE);
    add(&mappings[0], 16, 1, 16 * PAGE);
    ck_assert_uint_eq(extents.entries.n, 1);
    add(&mappings[0], 17, 1, 18 * PAGE); /* the next address, not the next bytes */
    add(&mappings[1], 8, 1, 8 * PAGE);   /* another's */
    ck_assert_uint_eq(extents.entries.n, 3);
    check_model();
}
END_TEST

START_TEST(test_cut_in_the_middle) {
    add(&mappings[0], 10, 20, 0);
    cut(15, 5);
    check_model();
    ck_assert_uint_eq(extents.entries.n, 2);
    cut(0, 512);
    check_model();
    ck_assert_uint_eq(extents.entries.n, 0);
}
END_TEST

START_TEST(test_move_a_part) {
    add(&mappings[0], 10, 20, 0);
    add(&mappings[1], 100, 20, 0);
    move(15, 110, 5); /* over a part of the other */
    check_model();
    ck_assert_uint_eq(extents.entries.n, 5);
}
END_TEST

START_TEST(test_full_table_forgets_a_tail) {
    struct extent extent = {.length = PAGE, .mapping = &mappings[0]};
    struct region region = {.strayed = false};

    mappings[0].region = &region;
    for (size_t i = 0; i + 1 < EXTENTS_MAX; i++) {
        extent.address = extent.offset = 2 * i * PAGE;
        if (extents_add(&extents, &extent) != 0)
            ck_abort_msg("no room for piece %zu", i);
    }
    extent.address = extent.offset = UINT64_C(1) << 40;
    extent.length = 16 * PAGE;
    ck_assert_int_eq(extents_add(&extents, &extent), 0);
    ck_assert_int_eq(extents_add(&extents, &(struct extent){.address = UINT64_C(1) << 41,
                                                            .length = PAGE,
                                                            .mapping = &mappings[0],
                                                            .offset = UINT64_C(1) << 41}),
                     -ENOSPC);
    extents_remove(&extents, extent.address + 4 * PAGE, extent.address + 5 * PAGE);
    ck_assert_ptr_nonnull(extents_find(&extents, extent.address));
    ck_assert_ptr_null(extents_find(&extents, extent.address + 4 * PAGE));
    ck_assert_ptr_null(extents_find(&extents, extent.address + 5 * PAGE)); /* forgotten: no room for it */
    ck_assert(region.strayed);
    ck_assert_uint_eq(extents.entries.n, EXTENTS_MAX);
}
END_TEST

START_TEST(test_pieces_of_a_mapping) {
    uint64_t address, length, offset;

    add(&mappings[2], 10, 20, 0);
    ck_assert(extents_next(&extents, &mappings[2], 3 * PAGE, 8 * PAGE, &address, &length, &offset));
    ck_assert(address == 13 * PAGE && length == 5 * PAGE && offset == 3 * PAGE);
    ck_assert(!extents_next(&extents, &mappings[2], 20 * PAGE, 30 * PAGE, &address, &length, &offset));
    ck_assert(!extents_next(&extents, &mappings[1], 0, UINT64_MAX, &address, &length, &offset));

    cut(14, 2);
    ck_assert(extents_next(&extents, &mappings[2], 3 * PAGE, 8 * PAGE, &address, &length, &offset));
    ck_assert(address == 13 * PAGE && length == PAGE && offset == 3 * PAGE);
    ck_assert(extents_next(&extents, &mappings[2], 4 * PAGE, 8 * PAGE, &address, &length, &offset));
    ck_assert(address == 16 * PAGE && length == 2 * PAGE && offset == 6 * PAGE);
    ck_assert(!extents_next(&extents, &mappings[2], 4 * PAGE, 6 * PAGE, &address, &length, &offset));
    ck_assert_uint_eq(extents_bytes(&extents, &mappings[2], 3 * PAGE, 8 * PAGE), 3 * PAGE);
}
END_TEST

START_TEST(test_forgotten) {
    add(&mappings[0], 10, 2, 0);
    add(&mappings[1], 12, 2, 0);
    add(&mappings[0], 14, 2, 8 * PAGE);
    add(&mappings[2], 16, 2, 0);
    extents_forget(&extents, &mappings[0]);
    model[10] = model[11] = model[14] = model[15] = (struct cell){0};
    check_model();
    ck_assert_uint_eq(extents.entries.n, 2);
}
END_TEST

START_TEST(test_random_against_model) {
    srandom((unsigned)_i);
    for (int step = 0; step < 2000; step++) {
        size_t first = (size_t)random() % (PAGES / 2), count = 1 + (size_t)random() % 40;
        size_t to = PAGES / 2 + (size_t)random() % (PAGES / 2 - 40);

        switch (random() % 4) {
        case 0:
            add(&mappings[random() % MAPPINGS], first, count, (uint64_t)(random() % 1000) * PAGE);
            break;
        case 1:
            cut(random() % 2 ? first : to, count);
            break;
        case 2:
            move(first < PAGES / 2 - 40 ? first : 0, to, count);
            break;
        default:
            move(to, first < PAGES / 2 - 40 ? first : 0, count);
        }
        if (step % 16 == 0)
            check_model();
    }
}
END_TEST

/* ---- what many cost ---- */

static uint64_t cpu_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void fill(void) {
    struct extent extent = {.length = PAGE, .mapping = &mappings[0]};

    for (size_t i = 0; i < EXTENTS_MAX; i++) {
        extent.address = extent.offset = 2 * i * PAGE;
        if (extents_add(&extents, &extent) != 0)
            ck_abort_msg("no room for piece %zu", i);
    }
}

/* munmap(2) of all, of which one event tells where one VMA holds what the client called many pieces; or one for each, in either order. */
START_TEST(test_ends_of_many) {
    uint64_t began;

    fill();
    began = cpu_ms();
    extents_remove(&extents, 0, UINT64_MAX);
    ck_assert_uint_lt(cpu_ms() - began, MANY_MS);
    ck_assert_uint_eq(extents.entries.n, 0);

    fill();
    began = cpu_ms();
    for (size_t i = 0; i < EXTENTS_MAX; i++)
        extents_remove(&extents, 2 * i * PAGE, (2 * i + 1) * PAGE);
    ck_assert_uint_lt(cpu_ms() - began, MANY_MS);
    ck_assert_uint_eq(extents.entries.n, 0);

    fill();
    began = cpu_ms();
    for (size_t i = EXTENTS_MAX; i > 0; i--)
        extents_remove(&extents, 2 * (i - 1) * PAGE, (2 * i - 1) * PAGE);
    ck_assert_uint_lt(cpu_ms() - began, MANY_MS);
    ck_assert_uint_eq(extents.entries.n, 0);
}
END_TEST

/* The same for mremap(2), and for a mapping whose places are in another order than its addresses. */
START_TEST(test_moves_of_many) {
    struct extent extent = {.length = PAGE, .mapping = &mappings[0]};
    uint64_t began;

    fill();
    began = cpu_ms();
    extents_move(&extents, 0, 4 * EXTENTS_MAX * PAGE, 2 * EXTENTS_MAX * PAGE);
    ck_assert_uint_lt(cpu_ms() - began, MANY_MS);
    ck_assert_uint_eq(extents.entries.n, EXTENTS_MAX);
    ck_assert_uint_eq(extents_find(&extents, 4 * EXTENTS_MAX * PAGE)->offset, 0);
    extents_remove(&extents, 0, UINT64_MAX);

    for (size_t i = 0; i < EXTENTS_MAX; i++) {
        extent.address = 2 * i * PAGE;
        extent.offset = i * 12345 % EXTENTS_MAX * PAGE;
        ck_assert_int_eq(extents_add(&extents, &extent), 0);
    }
    began = cpu_ms();
    extents_remove(&extents, 0, UINT64_MAX);
    ck_assert_uint_lt(cpu_ms() - began, MANY_MS);
    ck_assert_uint_eq(extents.entries.n, 0);
}
END_TEST

/* The runs of spans that are not armed are counted as they are made and joined. */
START_TEST(test_runs_of_disarmed_spans) {
    uint8_t states[64] = {0};
    struct region region = {.span_count = 64};
    struct mapping mapping = {.region = &region, .span_state = states};

    srandom(7);
    for (int step = 0; step < 5000; step++) {
        uint32_t runs = 0;

        mapping_set_state(&mapping, (uint32_t)random() % 64, (enum mapping_span_state)(random() % 3));
        for (int i = 0; i < 64; i++)
            runs += states[i] != MAPPING_ARMED && (i == 0 || states[i - 1] == MAPPING_ARMED);
        ck_assert_uint_eq(mapping.disarmed_runs, runs);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("extents");
    TCase *tcase = tcase_create("extents");

    tcase_set_timeout(tcase, 30); /* a tenth of a second each, on a machine that others use, too */
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_overlaps_are_refused);
    tcase_add_test(tcase, test_neighbours_are_joined);
    tcase_add_test(tcase, test_cut_in_the_middle);
    tcase_add_test(tcase, test_move_a_part);
    tcase_add_test(tcase, test_full_table_forgets_a_tail);
    tcase_add_test(tcase, test_pieces_of_a_mapping);
    tcase_add_test(tcase, test_forgotten);
    tcase_add_test(tcase, test_ends_of_many);
    tcase_add_test(tcase, test_moves_of_many);
    tcase_add_loop_test(tcase, test_random_against_model, 0, 8);
    tcase_add_test(tcase, test_runs_of_disarmed_spans);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
