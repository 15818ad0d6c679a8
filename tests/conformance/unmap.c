/* SPDX-License-Identifier: MIT */

/* munmap(2): of parts, and what an access then gets. */

#include "sections.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define PAGES 64
#define SIZE (PAGES * PAGE)

static void say_around(char *p, size_t start, size_t length) {
    if (start > 0)
        say("before=%s", seen(p, start));
    say("cut=%s", seen(p + start, PAGE));
    say("cut-write=%s", written(p + start + length - PAGE, PAGE));
    if (start + length < SIZE)
        say("behind=%s", seen(p + start + length, SIZE - start - length));
}

static void run_part(const struct check *c) {
    size_t start = (size_t)c->a * PAGE, length = (size_t)c->b * PAGE;
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    say_result("munmap", munmap(p + start, length));
    say_around(p, start, length);
    say_result("again", munmap(p + start, length));
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say_around(p, start, length);
    say_result("all", munmap(p, SIZE));
    say_around(p, 0, SIZE);
}

static void run_fresh(const struct check *c) {
    char *p = droppable_alone(SIZE);

    say_result("munmap", munmap(p + 8 * PAGE, 8 * PAGE));
    say_around(p, 8 * PAGE, 8 * PAGE);
    (void)c;
}

static void run_arguments(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    say_result("odd-address", munmap(p + 1, PAGE));
    say_result("length-0", munmap(p, 0));
    say_result("length-wraps", munmap(p, (size_t)-1));
    say_result("length-too-long", munmap(p, (size_t)1 << 56));
    say("read=%s", seen(p, SIZE));
    say_result("odd-length", munmap(p, PAGE + 1));
    say("second=%s third=%s", seen(p + PAGE, PAGE), seen(p + 2 * PAGE, PAGE));
}

/* Every other page: 32 mappings are left. */
static void run_comb(const struct check *c) {
    char *p = droppable_alone(SIZE);
    unsigned good = 0;

    (void)c;
    fill(p, SIZE);
    for (size_t i = 0; i < PAGES; i += 2)
        if (munmap(p + i * PAGE, PAGE) == 0)
            good++;
    say("unmapped=%u", good);
    good = 0;
    for (size_t i = 1; i < PAGES; i += 2)
        if (strcmp(seen(p + i * PAGE, PAGE), "data") == 0)
            good++;
    say("kept=%u", good);
    say_result("dontneed", madvise(p, SIZE, MADV_DONTNEED));
    good = 0;
    for (size_t i = 1; i < PAGES; i += 2)
        if (strcmp(seen(p + i * PAGE, PAGE), "zero") == 0)
            good++;
    say("zero=%u", good);
}

/* Over neighbours of other kinds. */
static void run_across(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    if (mmap(p + 16 * PAGE, 16 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED ||
        mmap(p + 48 * PAGE, 16 * PAGE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, SIZE);
    say_result("munmap", munmap(p + 8 * PAGE, 48 * PAGE));
    say_around(p, 8 * PAGE, 48 * PAGE);
}

/* What is mapped anew into the gap is fresh, whatever it is. */
static void run_reuse(const struct check *c) {
    char *p = droppable_alone(SIZE), *q;

    fill(p, SIZE);
    say_result("munmap", munmap(p + 8 * PAGE, 8 * PAGE));
    q = mmap(p + 8 * PAGE, 8 * PAGE, READ_WRITE, (int)c->a | MAP_FIXED_NOREPLACE, -1, 0);
    say_result("mmap", q == MAP_FAILED ? -1 : 0);
    say("new=%s before=%s behind=%s", seen(p + 8 * PAGE, 8 * PAGE), seen(p, 8 * PAGE), seen(p + 16 * PAGE, PAGE));
    fill(p, SIZE);
    say_result("pageout", madvise(p, 8 * PAGE, MADV_PAGEOUT));
    say("new=%s before=%s behind=%s", seen(p + 8 * PAGE, 8 * PAGE), seen(p, 8 * PAGE), seen(p + 16 * PAGE, PAGE));
}

static void child_unmaps(void *data) {
    char *p = data;

    say_result("child-munmap", munmap(p + 8 * PAGE, 8 * PAGE));
    say("before=%s cut=%s behind=%s", seen(p, PAGE), seen(p + 8 * PAGE, PAGE), seen(p + 16 * PAGE, PAGE));
    say_result("child-munmap-all", munmap(p, SIZE));
    say("cut=%s", seen(p, PAGE));
}

static void run_in_child(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    in_child(child_unmaps, p);
    say("parent=%s", seen(p, SIZE));
}

static void child_looks(void *data) {
    char *p = data;

    say("child: before=%s cut=%s behind=%s", seen(p, 8 * PAGE), seen(p + 8 * PAGE, PAGE),
        seen(p + 16 * PAGE, SIZE - 16 * PAGE));
}

static void run_then_fork(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    say_result("munmap", munmap(p + 8 * PAGE, 8 * PAGE));
    in_child(child_looks, p);
}

/* Without the C library, as runtimes of other languages do; what comes to these addresses then is as it would be anywhere. */
static void run_by_instruction(const struct check *c) {
#ifdef __x86_64__
    char *p = droppable_alone(SIZE), *q;
    long r;

    fill(p, SIZE);
    __asm__ volatile("syscall" : "=a"(r) : "a"(SYS_munmap), "D"(p), "S"(SIZE) : "rcx", "r11", "memory");
    say("munmap=%ld", r);
    say("read=%s", seen(p, PAGE));
    q = mmap(p, SIZE, READ_WRITE, (int)c->a, -1, 0); /* a hint, which is free */
    say("there=%d read=%s", q == p, seen(q, SIZE));
    fill(q, SIZE);
    say_result("dontneed", madvise(q, SIZE, MADV_DONTNEED));
    say("read=%s", seen(q, SIZE));
    fill(q, SIZE);
    say_result("dodump", madvise(q, SIZE, MADV_DODUMP)); /* of droppable memory refused */
    say_result("munmap", munmap(q, SIZE));
#else
    (void)c;
    say_absent();
#endif
}

/* A process has as many mappings as it may, and a hole in one would be one more: refused, and nothing has changed. */
static void run_at_limit(const struct check *c) {
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    char *p = droppable_alone(SIZE), *comb;
    size_t most = 0, i = 1;

    if (!file || fscanf(file, "%zu", &most) != 1 || most > 200000) /* then it takes long */
        say_absent();
    fclose(file);
    fill(p, SIZE);
    comb = mmap(NULL, 2 * most * PAGE, PROT_NONE, PLAIN | MAP_NORESERVE, -1, 0);
    while (i < 2 * most && mprotect(comb + i * PAGE, PAGE, PROT_READ) == 0)
        i += 2;
    say_result("comb", i < 2 * most ? -1 : 0);
    if (c->a)
        say_result("mmap", mmap(p + 8 * PAGE, PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    else
        say_result("munmap", munmap(p + 8 * PAGE, PAGE));
    say("read=%s", seen(p, SIZE));
    say_result("dontneed", madvise(p + 8 * PAGE, PAGE, MADV_DONTNEED)); /* and it still is what it was */
    say("cut=%s", seen(p + 8 * PAGE, PAGE));
    munmap(comb, 2 * most * PAGE);
    say_result("munmap", munmap(p + 8 * PAGE, PAGE));
    say_around(p, 8 * PAGE, PAGE);
}

static const struct check checks[] = {
    {"whole", run_part, 0, PAGES},
    {"head", run_part, 0, 8},
    {"middle", run_part, 8, 8},
    {"tail", run_part, 56, 8},
    {"first-page", run_part, 0, 1},
    {"last-page", run_part, 63, 1},
    {"one-page", run_part, 31, 1},
    {"all-but-one", run_part, 1, 63},
    {"fresh", run_fresh, 0, 0},
    {"arguments", run_arguments, 0, 0},
    {"comb", run_comb, 0, 0},
    {"across", run_across, 0, 0},
    {"at-limit", run_at_limit, 0, 0},
    {"replaced-at-limit", run_at_limit, 1, 0},
    {"reuse-plain", run_reuse, PLAIN, 0},
    {"reuse-droppable", run_reuse, DROPPABLE, 0},
    {"in-child", run_in_child, 0, 0},
    {"then-fork", run_then_fork, 0, 0},
    {"by-instruction-plain", run_by_instruction, PLAIN, 0},
    {"by-instruction-droppable", run_by_instruction, DROPPABLE, 0},
    {0},
};

const struct section section_unmap = {"unmap", checks};
