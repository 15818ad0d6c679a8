/* SPDX-License-Identifier: MIT */

/* mmap(2): where; droppable memory put over other memory, and other memory over it. */

#include "sections.h"

#include <fcntl.h>
#include <string.h>

#define SIZE (64 * KIB)
/* Linux 4.17. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

enum where { FREE, TAKEN, NOWHERE, KERNEL, NULL_PAGE, LOW, ODD };

static char *address_of(enum where where) {
    char *p = place_alone(SIZE);

    switch (where) {
    case FREE:
        munmap(p, SIZE);
        return p;
    case ODD:
        munmap(p, 2 * SIZE);
        return p + 1;
    case TAKEN:
        return p;
    case NOWHERE: /* whether page tables have four levels or five */
        return (char *)(UINT64_C(1) << 56);
    case KERNEL:
        return (char *)~(UINTPTR_MAX >> 2);
    case NULL_PAGE:
        return NULL;
    case LOW:
        return (char *)(4 * PAGE);
    }
    return NULL;
}

static void run_address(const struct check *c) {
    char *wanted = address_of((enum where)c->a);
    char *p = mmap(wanted, SIZE, READ_WRITE, DROPPABLE | (int)c->b, -1, 0);

    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED)
        return;
    say("as-asked=%d", p == wanted);
    say("low=%d", (uintptr_t)p < UINT64_C(1) << 32);
    say("read=%s", seen(p, SIZE));
    say("write=%s", written(p, SIZE));
    say_result("munmap", munmap(p, SIZE));
}

/* The middle two pages of four; what is told is each quarter. */
static void say_quarters(const char *p) {
    say("head=%s", seen(p, PAGE));
    say("middle=%s", seen(p + PAGE, 2 * PAGE));
    say("tail=%s", seen(p + 3 * PAGE, PAGE));
}

enum { IS_PLAIN, IS_DROPPABLE, IS_SHARED, IS_FILE, IS_NOTHING };

static char *make(char *at, size_t size, long kind, int more) {
    int fd = kind == IS_FILE ? open("/proc/self/exe", O_RDONLY | O_CLOEXEC) : -1;
    int flags = kind == IS_PLAIN       ? PLAIN
                : kind == IS_DROPPABLE ? DROPPABLE
                : kind == IS_SHARED    ? MAP_SHARED | MAP_ANONYMOUS
                                       : MAP_PRIVATE;

    if (kind == IS_NOTHING) {
        munmap(at, size);
        return at;
    }
    return mmap(at, size, READ_WRITE, flags | more, fd, 0);
}

/* a is put over b. */
static void run_over(const struct check *c) {
    char *p = make(place_alone(4 * PAGE), 4 * PAGE, c->b, MAP_FIXED), *q;

    if (c->b != IS_NOTHING)
        fill(p, 4 * PAGE);
    q = make(p + PAGE, 2 * PAGE, c->a, MAP_FIXED);
    say_result("mmap", q == MAP_FAILED ? -1 : 0);
    say("as-asked=%d", q == p + PAGE);
    say_quarters(p);
    say("write=%s", written(p + PAGE, 2 * PAGE));
    say_result("dontneed", madvise(p, 4 * PAGE, MADV_DONTNEED));
    say_quarters(p);
    written(p + PAGE, 2 * PAGE);
    say_result("pageout", madvise(p + PAGE, 2 * PAGE, MADV_PAGEOUT));
    say("middle=%s", seen(p + PAGE, 2 * PAGE));
    say_result("munmap", munmap(p, 4 * PAGE));
    say_quarters(p);
}

static void run_noreplace(const struct check *c) {
    char *p = make(place_alone(4 * PAGE), 4 * PAGE, c->b, MAP_FIXED), *q;

    fill(p, 4 * PAGE);
    q = make(p + PAGE, 2 * PAGE, c->a, MAP_FIXED_NOREPLACE);
    say_result("mmap", q == MAP_FAILED ? -1 : 0);
    say_quarters(p);
}

/* What is refused must leave alone what is there. */
static void run_refused_over(const struct check *c) {
    char *p = make(place_alone(4 * PAGE), 4 * PAGE, c->b, MAP_FIXED), *q;

    fill(p, 4 * PAGE);
    q = mmap(p + PAGE, 2 * PAGE, READ_WRITE, DROPPABLE | MAP_FIXED | (int)c->a, -1, 0);
    say_result("mmap", q == MAP_FAILED ? -1 : 0);
    say_quarters(p);
    q = mmap(p + PAGE, 2 * PAGE, READ_WRITE, MAP_DROPPABLE | MAP_FIXED, -1, 0);
    say_result("no-file", q == MAP_FAILED ? -1 : 0);
    say_quarters(p);
    q = mmap(p + PAGE, 2 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 1);
    say_result("plain-odd-offset", q == MAP_FAILED ? -1 : 0);
    say_quarters(p);
    q = mmap(p + PAGE, 2 * PAGE, READ_WRITE, MAP_PRIVATE | MAP_FIXED, 99, 0);
    say_result("plain-bad-file", q == MAP_FAILED ? -1 : 0);
    say_quarters(p);
}

/* Droppable, plain, a gap, droppable: one mapping over all of it, from the middle of the first to the middle of the last. */
static void run_straddle(const struct check *c) {
    char *p = place_alone(16 * PAGE), *q;

    make(p, 4 * PAGE, IS_DROPPABLE, MAP_FIXED);
    make(p + 4 * PAGE, 4 * PAGE, IS_PLAIN, MAP_FIXED);
    make(p + 8 * PAGE, 4 * PAGE, IS_NOTHING, 0);
    make(p + 12 * PAGE, 4 * PAGE, IS_DROPPABLE, MAP_FIXED);
    fill(p, 8 * PAGE);
    fill(p + 12 * PAGE, 4 * PAGE);
    q = make(p + 2 * PAGE, 12 * PAGE, c->a, MAP_FIXED);
    say_result("mmap", q == MAP_FAILED ? -1 : 0);
    say("first=%s over=%s last=%s", seen(p, 2 * PAGE), seen(p + 2 * PAGE, 12 * PAGE), seen(p + 14 * PAGE, 2 * PAGE));
    say("write=%s", written(p, 16 * PAGE));
    if (c->a != IS_NOTHING)
        fill(p, 16 * PAGE);
    say_result("pageout", madvise(p, 16 * PAGE, MADV_PAGEOUT));
    say("first=%s over=%s last=%s", seen(p, 2 * PAGE), seen(p + 2 * PAGE, 12 * PAGE), seen(p + 14 * PAGE, 2 * PAGE));
}

static void run_again(const struct check *c) {
    char *p = droppable_alone(4 * PAGE), *q = p;
    unsigned good = 0;

    for (unsigned i = 0; i < (unsigned)c->a; i++) {
        fill(p, 4 * PAGE);
        q = make(p + i % 4 * PAGE, PAGE, i % 3 == 2 ? IS_PLAIN : IS_DROPPABLE, MAP_FIXED);
        if (q == p + i % 4 * PAGE && strcmp(seen(q, PAGE), "zero") == 0 &&
            strcmp(seen(p + (i + 1) % 4 * PAGE, PAGE), "data") == 0)
            good++;
    }
    say("good=%u", good);
    say_quarters(p);
}

/* Two mappings side by side, which one call covers. */
static void run_adjacent(const struct check *c) {
    char *p = place_alone(8 * PAGE), *first, *second;

    (void)c;
    first = make(p, 4 * PAGE, IS_DROPPABLE, MAP_FIXED);
    second = make(p + 4 * PAGE, 4 * PAGE, IS_DROPPABLE, MAP_FIXED);
    say("adjacent=%d", second == first + 4 * PAGE);
    fill(p, 8 * PAGE);
    say_result("dontneed", madvise(p + 2 * PAGE, 4 * PAGE, MADV_DONTNEED));
    say("head=%s middle=%s tail=%s", seen(p, 2 * PAGE), seen(p + 2 * PAGE, 4 * PAGE), seen(p + 6 * PAGE, 2 * PAGE));
    say_result("mprotect", mprotect(p + 2 * PAGE, 4 * PAGE, PROT_READ));
    say("write-head=%s", written(p, 2 * PAGE));
    say("write-middle=%s", written(p + 2 * PAGE, 4 * PAGE));
    say_result("munmap", munmap(p + 2 * PAGE, 4 * PAGE));
    say("head=%s middle=%s tail=%s", seen(p, 2 * PAGE), seen(p + 2 * PAGE, 4 * PAGE), seen(p + 6 * PAGE, 2 * PAGE));
}

static const struct check checks[] = {
    {"hint-free", run_address, FREE, 0},
    {"hint-taken", run_address, TAKEN, 0},
    {"hint-odd", run_address, ODD, 0},
    {"hint-nowhere", run_address, NOWHERE, 0},
    {"hint-kernel", run_address, KERNEL, 0},
    {"hint-low", run_address, LOW, 0},
    {"fixed-free", run_address, FREE, MAP_FIXED},
    {"fixed-odd", run_address, ODD, MAP_FIXED},
    {"fixed-nowhere", run_address, NOWHERE, MAP_FIXED},
    {"fixed-kernel", run_address, KERNEL, MAP_FIXED},
    {"fixed-null", run_address, NULL_PAGE, MAP_FIXED},
    {"fixed-low", run_address, LOW, MAP_FIXED},
    {"fixed-none", run_address, FREE, MAP_FIXED | MAP_NORESERVE},
    {"noreplace-free", run_address, FREE, MAP_FIXED_NOREPLACE},
    {"noreplace-taken", run_address, TAKEN, MAP_FIXED_NOREPLACE},
    {"noreplace-odd", run_address, ODD, MAP_FIXED_NOREPLACE},
    {"noreplace-nowhere", run_address, NOWHERE, MAP_FIXED_NOREPLACE},
    {"noreplace-null", run_address, NULL_PAGE, MAP_FIXED_NOREPLACE},
    {"noreplace-low", run_address, LOW, MAP_FIXED_NOREPLACE},
    {"noreplace-fixed-free", run_address, FREE, MAP_FIXED | MAP_FIXED_NOREPLACE},
    {"noreplace-fixed-taken", run_address, TAKEN, MAP_FIXED | MAP_FIXED_NOREPLACE},
    {"32bit", run_address, NULL_PAGE, MAP_32BIT},
    {"32bit-hint-high", run_address, FREE, MAP_32BIT},
    {"droppable-over-nothing", run_over, IS_DROPPABLE, IS_NOTHING},
    {"droppable-over-plain", run_over, IS_DROPPABLE, IS_PLAIN},
    {"droppable-over-shared", run_over, IS_DROPPABLE, IS_SHARED},
    {"droppable-over-file", run_over, IS_DROPPABLE, IS_FILE},
    {"droppable-over-droppable", run_over, IS_DROPPABLE, IS_DROPPABLE},
    {"plain-over-droppable", run_over, IS_PLAIN, IS_DROPPABLE},
    {"shared-over-droppable", run_over, IS_SHARED, IS_DROPPABLE},
    {"file-over-droppable", run_over, IS_FILE, IS_DROPPABLE},
    {"nothing-over-droppable", run_over, IS_NOTHING, IS_DROPPABLE},
    {"noreplace-over-plain", run_noreplace, IS_DROPPABLE, IS_PLAIN},
    {"noreplace-over-droppable", run_noreplace, IS_DROPPABLE, IS_DROPPABLE},
    {"noreplace-plain-over-droppable", run_noreplace, IS_PLAIN, IS_DROPPABLE},
    {"refused-over-plain-locked", run_refused_over, MAP_LOCKED, IS_PLAIN},
    {"refused-over-plain-hugetlb", run_refused_over, MAP_HUGETLB, IS_PLAIN},
    {"refused-over-plain-growsdown", run_refused_over, MAP_GROWSDOWN, IS_PLAIN},
    {"refused-over-droppable-locked", run_refused_over, MAP_LOCKED, IS_DROPPABLE},
    {"refused-over-droppable-hugetlb", run_refused_over, MAP_HUGETLB, IS_DROPPABLE},
    {"refused-over-droppable-growsdown", run_refused_over, MAP_GROWSDOWN, IS_DROPPABLE},
    {"straddle-droppable", run_straddle, IS_DROPPABLE, 0},
    {"straddle-plain", run_straddle, IS_PLAIN, 0},
    {"straddle-nothing", run_straddle, IS_NOTHING, 0},
    {"over-and-over", run_again, 100, 0},
    {"adjacent", run_adjacent, 0, 0},
    {0},
};

const struct section section_place = {"place", checks};
