/* SPDX-License-Identifier: MIT */

/* mprotect(2): every protection, what an access then gets, and that the bytes stay. */

#include "sections.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (16 * PAGE)
#define INSIDE (4 * PAGE)

static void say_access(char *p) {
    say("read=%s", seen(p, INSIDE));
    say("write=%s", written(p, INSIDE));
}

static void run_protect(const struct check *c) {
    char *p = droppable_alone(SIZE);

    if (c->a == PROT_EXEC)
        need_keys();
    fill(p, SIZE);
    say_result("mprotect", mprotect(p + PAGE, INSIDE, (int)c->a));
    say_access(p + PAGE);
    say("before=%s behind=%s", written(p, PAGE), written(p + PAGE + INSIDE, SIZE - INSIDE - PAGE));
    say_result("back", mprotect(p + PAGE, INSIDE, READ_WRITE));
    say_access(p + PAGE);
    say("all=%s", seen(p, SIZE));
}

static void run_execute(const struct check *c) {
    char *p = droppable_alone(SIZE);

    *p = (char)0xc3;
    say_result("mprotect", mprotect(p, PAGE, (int)c->a));
    say("execute=%s", executed(p));
}

static void run_untouched(const struct check *c) {
    char *p = droppable_alone(SIZE);

    say_result("mprotect", mprotect(p, SIZE, (int)c->a));
    say_access(p);
    say_result("back", mprotect(p, SIZE, READ_WRITE));
    say_access(p);
}

/* Created with one, given another. */
static void run_created(const struct check *c) {
    char *p = mmap(place_alone(SIZE), SIZE, (int)c->a, DROPPABLE | MAP_FIXED, -1, 0);

    say_access(p);
    say_result("mprotect", mprotect(p, SIZE, (int)c->b));
    say_access(p);
}

static void run_ranges(const struct check *c) {
    char *p = droppable_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    say_result("odd-address", mprotect(p + 1, PAGE, PROT_NONE));
    say_result("length-0", mprotect(p, 0, PROT_NONE));
    say_result("length-wraps", mprotect(p, (size_t)-1, PROT_NONE));
    say("read=%s", seen(p, SIZE));
    say_result("odd-length", mprotect(p, PAGE + 1, PROT_NONE));
    say("second=%s third=%s", seen(p + PAGE, PAGE), seen(p + 2 * PAGE, PAGE));
    munmap(p + 8 * PAGE, PAGE);
    say_result("over-a-hole", mprotect(p + 6 * PAGE, 4 * PAGE, PROT_READ));
    say("before-hole=%s behind-hole=%s", written(p + 6 * PAGE, PAGE), written(p + 9 * PAGE, PAGE));
    say_result("unmapped", mprotect(p + 8 * PAGE, PAGE, PROT_READ));
}

/* Advice and system calls do not care about protection, or do. */
static void run_dropped(const struct check *c) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    say_result("mprotect", mprotect(p, SIZE, (int)c->a));
    say_result("madvise", madvise(p, SIZE, (int)c->b));
    say_result("back", mprotect(p, SIZE, READ_WRITE));
    say("read=%s", seen(p, SIZE));
}

static void child_of_protected(void *data) {
    char *p = data;

    say("child:");
    say_access(p + PAGE);
    say("before=%s", written(p, PAGE));
    say_result("mprotect", mprotect(p, SIZE, READ_WRITE));
    say_access(p + PAGE);
    say_result("mprotect", mprotect(p, SIZE, PROT_READ));
    say_access(p + PAGE);
}

static void run_fork(const struct check *c) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    say_result("mprotect", mprotect(p + PAGE, INSIDE, (int)c->a));
    in_child(child_of_protected, p);
    say("parent:");
    say_access(p + PAGE);
}

static void run_key(const struct check *c) {
    char *p = droppable_alone(SIZE);
    int key;

    (void)c;
    need_keys();
    key = pkey_alloc(0, PKEY_DISABLE_WRITE);
    fill(p, SIZE);
    say_result("pkey_mprotect", pkey_mprotect(p, SIZE, READ_WRITE, key));
    say_access(p);
    say_result("pkey_set", pkey_set(key, 0));
    say_access(p);
}

/* A piece of plain memory in the middle. */
static void run_mixed(const struct check *c) {
    char *p = droppable_alone(SIZE);

    if (mmap(p + 4 * PAGE, 4 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, SIZE);
    say_result("mprotect", mprotect(p, SIZE, (int)c->a));
    say("read=%s", seen(p, SIZE));
    say("write=%s", written(p, SIZE));
    say_result("back", mprotect(p, SIZE, READ_WRITE));
    say("read=%s", seen(p, SIZE));
    say("write=%s", written(p, SIZE));
}

static const struct check checks[] = {
    {"none", run_protect, PROT_NONE, 0},
    {"r", run_protect, PROT_READ, 0},
    {"w", run_protect, PROT_WRITE, 0},
    {"x", run_protect, PROT_EXEC, 0},
    {"rw", run_protect, READ_WRITE, 0},
    {"rx", run_protect, PROT_READ | PROT_EXEC, 0},
    {"wx", run_protect, PROT_WRITE | PROT_EXEC, 0},
    {"rwx", run_protect, READ_WRITE | PROT_EXEC, 0},
    {"sem", run_protect, READ_WRITE | 8, 0},
    {"bit-6", run_protect, READ_WRITE | 0x40, 0},
    {"growsdown", run_protect, PROT_READ | PROT_GROWSDOWN, 0},
    {"growsup", run_protect, PROT_READ | PROT_GROWSUP, 0},
    {"growsboth", run_protect, PROT_READ | PROT_GROWSUP | PROT_GROWSDOWN, 0},
    {"execute-none", run_execute, PROT_NONE, 0},
    {"execute-r", run_execute, PROT_READ, 0},
    {"execute-x", run_execute, PROT_EXEC, 0},
    {"execute-rw", run_execute, READ_WRITE, 0},
    {"execute-rx", run_execute, PROT_READ | PROT_EXEC, 0},
    {"execute-rwx", run_execute, READ_WRITE | PROT_EXEC, 0},
    {"untouched-none", run_untouched, PROT_NONE, 0},
    {"untouched-r", run_untouched, PROT_READ, 0},
    {"created-none-rw", run_created, PROT_NONE, READ_WRITE},
    {"created-none-r", run_created, PROT_NONE, PROT_READ},
    {"created-r-rw", run_created, PROT_READ, READ_WRITE},
    {"created-rw-none", run_created, READ_WRITE, PROT_NONE},
    {"ranges", run_ranges, 0, 0},
    {"none-dontneed", run_dropped, PROT_NONE, MADV_DONTNEED},
    {"none-pageout", run_dropped, PROT_NONE, MADV_PAGEOUT},
    {"none-free", run_dropped, PROT_NONE, MADV_FREE},
    {"r-dontneed", run_dropped, PROT_READ, MADV_DONTNEED},
    {"r-pageout", run_dropped, PROT_READ, MADV_PAGEOUT},
    {"fork-none", run_fork, PROT_NONE, 0},
    {"fork-r", run_fork, PROT_READ, 0},
    {"fork-rx", run_fork, PROT_READ | PROT_EXEC, 0},
    {"fork-rw", run_fork, READ_WRITE, 0},
    {"key", run_key, 0, 0},
    {"beside-plain-none", run_mixed, PROT_NONE, 0},
    {"beside-plain-r", run_mixed, PROT_READ, 0},
    {0},
};

const struct section section_protect = {"protect", checks};
