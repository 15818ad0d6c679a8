/* SPDX-License-Identifier: MIT */

/* What is resident: mincore(2) and /proc/self/pagemap. */

#include "sections.h"

#include <fcntl.h>
#include <string.h>

#define PAGES 64
#define SIZE (PAGES * PAGE)

/* A sign for each page. */
static void say_resident(char *p) {
    unsigned char vector[PAGES];
    char text[PAGES + 1];

    if (mincore(p, SIZE, vector) < 0) {
        say_result("mincore", -1);
        return;
    }
    for (size_t i = 0; i < PAGES; i++)
        text[i] = (vector[i] & 1U) ? '#' : '.';
    text[PAGES] = '\0';
    say("%s", text);
}

static void run_fresh(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    say_resident(p);
}

static void run_read(const struct check *c) {
    char *p = droppable_alone(SIZE);

    seen(p + (size_t)c->a * PAGE, (size_t)c->b * PAGE);
    say_resident(p);
}

static void run_written(const struct check *c) {
    char *p = droppable_alone(SIZE);

    written(p + (size_t)c->a * PAGE, (size_t)c->b * PAGE);
    say_resident(p);
}

static void run_advised(const struct check *c) {
    char *p = droppable_alone(SIZE);

    if (c->b)
        fill(p, SIZE);
    say_result("madvise", madvise(p + 3 * PAGE, 40 * PAGE, (int)c->a));
    say_resident(p);
}

static void run_refault(const struct check *c) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    say_result("madvise", madvise(p, SIZE, (int)c->a));
    say_resident(p);
    if (c->b)
        written(p + 20 * PAGE, 1);
    else
        seen(p + 20 * PAGE, 1);
    say_resident(p);
}

static void run_cut(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    munmap(p + 8 * PAGE, 8 * PAGE);
    say_resident(p);
    if (mmap(p + 8 * PAGE, 8 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    written(p + 9 * PAGE, PAGE);
    say_resident(p);
}

static void run_protected(const struct check *c) {
    char *p = droppable_alone(SIZE);

    fill(p, 8 * PAGE);
    mprotect(p, SIZE, (int)c->a);
    say_resident(p);
}

static void run_arguments(const struct check *c) {
    unsigned char vector[PAGES];
    char *p = droppable_alone(SIZE);

    (void)c;
    say_result("odd-address", mincore(p + 1, PAGE, vector));
    say_result("length-0", mincore(p, 0, vector));
    say_result("odd-length", mincore(p, 1, vector));
    say_result("length-wraps", mincore(p, (size_t)-1, vector));
    say_result("bad-vector", mincore(p, SIZE, (unsigned char *)1));
    say_result("bad-vector-odd-address", mincore(p + 1, SIZE, (unsigned char *)1));
    say_result("vector-in-it", mincore(p, SIZE, (unsigned char *)p));
    munmap(p, SIZE);
    say_result("unmapped", mincore(p, SIZE, vector));
}

static void child_of_filled(void *data) {
    say("child:");
    say_resident(data);
    written((char *)data + 3 * PAGE, PAGE);
    say_resident(data);
}

static void run_fork(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    in_child(child_of_filled, p);
    say("parent:");
    say_resident(p);
}

/* Present, and whether the kernel calls it a page of a file. */
static void run_pagemap(const struct check *c) {
    char *p = droppable_alone(SIZE), text[9] = "";
    uint64_t entries[8] = {0};
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    (void)c;
    written(p, 2 * PAGE);
    written(p + 4 * PAGE, PAGE);
    say_number("read", pread(fd, entries, sizeof(entries), (off_t)((uintptr_t)p / PAGE * 8)));
    for (size_t i = 0; i < 8; i++)
        text[i] = !(entries[i] >> 63) ? '.' : (entries[i] >> 61 & 1) ? 'f' : 'a';
    say("%s", text);
    close(fd);
}

static const struct check checks[] = {
    {"fresh", run_fresh, 0, 0},
    {"read-one", run_read, 20, 1},
    {"read-some", run_read, 10, 30},
    {"read-all", run_read, 0, PAGES},
    {"write-one", run_written, 20, 1},
    {"write-some", run_written, 10, 30},
    {"write-all", run_written, 0, PAGES},
    {"dontneed", run_advised, MADV_DONTNEED, 1},
    {"pageout", run_advised, MADV_PAGEOUT, 1},
    {"free", run_advised, MADV_FREE, 1},
    {"cold", run_advised, MADV_COLD, 1},
    {"willneed", run_advised, MADV_WILLNEED, 0},
    {"populate-read", run_advised, MADV_POPULATE_READ, 0},
    {"populate-write", run_advised, MADV_POPULATE_WRITE, 0},
    {"dontneed-read-again", run_refault, MADV_DONTNEED, 0},
    {"dontneed-write-again", run_refault, MADV_DONTNEED, 1},
    {"pageout-read-again", run_refault, MADV_PAGEOUT, 0},
    {"pageout-write-again", run_refault, MADV_PAGEOUT, 1},
    {"cut", run_cut, 0, 0},
    {"protected-none", run_protected, PROT_NONE, 0},
    {"protected-r", run_protected, PROT_READ, 0},
    {"arguments", run_arguments, 0, 0},
    {"fork", run_fork, 0, 0},
    {"pagemap", run_pagemap, 0, 0},
    {0},
};

const struct section section_resident = {"resident", checks};
