/* SPDX-License-Identifier: MIT */
/* What a region is given of what was asked for, and what planning reads of a pin page: pure. */

#include "policy.h"
#include "region.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <sys/mman.h>

#define MIB (UINT64_C(1) << 20)

struct choice {
    struct region_means means;
    uint64_t required, preferred, size;
    uint32_t shift;   /* asked for; 0: not */
    uint64_t options; /* given */
    uint32_t given;
};

#define HUGE DRP_REGION_HUGE
#define NO_SWAP DRP_REGION_NO_SWAP
#define SIGNAL DRP_REGION_SIGNAL

/* huge pages, huge by default, no swap in small pages, no swap in huge ones */
#define MEANS(...) \
    { __VA_ARGS__ }
#define SMALL MEANS(false, false, false, false)
#define NONE MEANS(true, false, false, false)
#define BY_DEFAULT MEANS(true, true, false, false)
#define TMPFS MEANS(true, true, true, true)   /* with noswap */
#define LOCKED MEANS(true, true, true, false) /* segments, without huge pages */

static const struct choice choices[] = {
    /* Nothing asked: the default. */
    {NONE, 0, 0, 64 * MIB, 0, 0, 16},
    {BY_DEFAULT, 0, 0, 64 * MIB, 0, HUGE, 21},
    {BY_DEFAULT, 0, 0, MIB, 0, 0, 16},
    /* A chunk asked: no huge pages unless it is as large as they are. */
    {BY_DEFAULT, 0, 0, 64 * MIB, 16, 0, 16},
    {BY_DEFAULT, 0, 0, 64 * MIB, 21, 0, 21},
    {NONE, 0, HUGE, 64 * MIB, 12, 0, 12},
    {NONE, 0, HUGE, 64 * MIB, 21, HUGE, 21},
    /* Huge pages asked. */
    {NONE, HUGE, 0, 64 * MIB, 0, HUGE, 21},
    {NONE, 0, HUGE, MIB, 0, HUGE, 21},
    {SMALL, 0, HUGE, 64 * MIB, 0, 0, 16},
    {SMALL, HUGE, 0, 64 * MIB, 0, 0, 16}, /* which is refused */
    /* Signals: of small pages. */
    {BY_DEFAULT, 0, SIGNAL, 64 * MIB, 0, SIGNAL, 16},
    {BY_DEFAULT, 0, SIGNAL | HUGE, 64 * MIB, 0, SIGNAL, 16},
    {NONE, SIGNAL, HUGE, 64 * MIB, 21, SIGNAL, 21},
    {NONE, HUGE, SIGNAL, 64 * MIB, 0, HUGE, 21},
    {LOCKED, SIGNAL, 0, 64 * MIB, 0, SIGNAL | NO_SWAP, 16},
    /* No swap: whoever can have it, has it; asking for it costs no huge pages where both can be had. */
    {NONE, NO_SWAP, 0, 64 * MIB, 0, 0, 16},
    {TMPFS, 0, 0, 64 * MIB, 0, HUGE | NO_SWAP, 21},
    {TMPFS, NO_SWAP, 0, 64 * MIB, 0, HUGE | NO_SWAP, 21},
    {TMPFS, 0, 0, 64 * MIB, 12, NO_SWAP, 12},
    /* Where they cannot: huge pages for who asks for them and not for the other. */
    {LOCKED, 0, 0, 64 * MIB, 0, NO_SWAP, 16},
    {LOCKED, 0, HUGE, 64 * MIB, 0, HUGE, 21},
    {LOCKED, HUGE, NO_SWAP, 64 * MIB, 0, HUGE, 21},
    {LOCKED, HUGE | NO_SWAP, 0, 64 * MIB, 0, HUGE, 21},
    {LOCKED, NO_SWAP, HUGE, 64 * MIB, 0, NO_SWAP, 16},
    {LOCKED, 0, HUGE | NO_SWAP, 64 * MIB, 0, NO_SWAP, 16},
};

START_TEST(test_choices) {
    const struct choice *c = &choices[_i];
    uint32_t shift = c->shift;
    uint64_t options = region_choose_options(&c->means, c->required, c->preferred, c->size, &shift);

    ck_assert_uint_eq(options, c->options);
    ck_assert_uint_eq(shift, c->given);
}
END_TEST

/* A pin page of three pages, the middle one of which must not be read: it is not there. */
START_TEST(test_absent_pins_are_not_read) {
    enum { CHUNKS = 96 * 16 }; /* 32 a span; a page has the cells of 16 spans */
    static _Atomic uint32_t touched[CHUNKS / 32];
    static struct policy_span spans[CHUNKS / 32];
    static _Atomic uint8_t flags[CHUNKS];
    uint8_t present[3] = {1, 0, 1};
    struct policy_victim victims[CHUNKS];
    char *pins = mmap(NULL, sizeof(present) * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct policy_region region = {
        .priority = 2,
        .chunk_shift = 16,
        .chunk_count = CHUNKS,
        .touched = touched,
        .touched_count = CHUNKS / 32,
        .spans = spans,
        .chunk_flags = flags,
        .pins = {(struct drp_pin_cell *)pins},
        .pins_present = {present},
        .n_pins = 1,
    };
    uint64_t bytes;

    ck_assert_ptr_ne(pins, MAP_FAILED);
    for (unsigned i = 0; i < CHUNKS / 32; i++)
        touched[i] = i;
    region.pins[0][5].count = 1;          /* on the first page */
    region.pins[0][CHUNKS - 1].count = 1; /* on the last */
    ck_assert_int_eq(mprotect(pins + 4096, 4096, PROT_NONE), 0);
    policy_plan(&region, 1, UINT64_MAX, 1, victims, CHUNKS, &bytes);
    ck_assert_uint_eq(bytes, (uint64_t)(CHUNKS - 2) << 16);

    /* The same where the cells do not begin at a page: shifted by half of one, every page has spans of its neighbour. */
    mprotect(pins + 4096, 4096, PROT_READ | PROT_WRITE);
    region.pins[0] = (struct drp_pin_cell *)(pins + 2048);
    region.pins_offset[0] = 2048;
    region.chunk_count = CHUNKS - 256;
    region.touched_count = CHUNKS / 32 - 8;
    region.pins[0][256].count = 1; /* the first of the middle page */
    policy_plan(&region, 1, UINT64_MAX, 1, victims, CHUNKS, &bytes);
    present[1] = 1;
    ck_assert_uint_eq(bytes, (uint64_t)(CHUNKS - 256 - 1) << 16); /* the middle page is not read: as unpinned */
    policy_plan(&region, 1, UINT64_MAX, 1, victims, CHUNKS, &bytes);
    ck_assert_uint_eq(bytes, (uint64_t)(CHUNKS - 256 - 2) << 16);
    munmap(pins, sizeof(present) * 4096);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("options");
    TCase *tcase = tcase_create("options");

    tcase_add_loop_test(tcase, test_choices, 0, (int)(sizeof(choices) / sizeof(choices[0])));
    tcase_add_test(tcase, test_absent_pins_are_not_read);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
