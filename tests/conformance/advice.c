/* SPDX-License-Identifier: MIT */

/*
 * madvise(2): every advice, on memory in several states, and what the memory reads afterwards; also what a child then sees.
 *
 * An advice that this kernel does not know for plain memory either is absent, so that kernels can be compared. HWPOISON and
 * SOFT_OFFLINE would damage the machine: they are asked for by a user who may not.
 */

#include "sections.h"

#include <limits.h>
#include <string.h>
#include <sys/wait.h>

#define PAGES 64
#define SIZE (PAGES * PAGE)

static const struct advice {
    const char *name;
    int value;
    bool young; /* Linux 5.14 and later: it may be absent */
} advices[] = {
    {"normal", 0, false},
    {"random", 1, false},
    {"sequential", 2, false},
    {"willneed", 3, false},
    {"dontneed", 4, false},
    {"5", 5, false},
    {"6", 6, false},
    {"7", 7, false},
    {"free", 8, false},
    {"remove", 9, false},
    {"dontfork", 10, false},
    {"dofork", 11, false},
    {"mergeable", 12, false},
    {"unmergeable", 13, false},
    {"hugepage", 14, false},
    {"nohugepage", 15, false},
    {"dontdump", 16, false},
    {"dodump", 17, false},
    {"wipeonfork", 18, false},
    {"keeponfork", 19, false},
    {"cold", 20, false},
    {"pageout", 21, false},
    {"populate-read", 22, true},
    {"populate-write", 23, true},
    {"dontneed-locked", 24, true},
    {"collapse", 25, true},
    {"26", 26, false},
    {"99", 99, false},
    {"guard-install", 102, true},
    {"guard-remove", 103, true},
    {"minus-1", -1, false},
    {"most", INT_MAX, false},
};

#define N_ADVICES (sizeof(advices) / sizeof(advices[0]))

/* Collapse fails for want of memory too, so the errno decides. */
static void skip_absent(const struct advice *advice) {
    char *p;

    if (!advice->young)
        return;
    p = plain(SIZE);
    if (madvise(p, PAGE, advice->value) < 0 && errno == EINVAL && madvise(p, 0, advice->value) < 0)
        say_absent();
    munmap(p, SIZE);
}

static void say_after(char *p) {
    say("before=%s inside=%s behind=%s", seen(p, PAGE), seen(p + PAGE, 32 * PAGE),
        seen(p + 33 * PAGE, SIZE - 33 * PAGE));
    say("write=%s", written(p + PAGE, 32 * PAGE));
}

static void advise(char *p, const struct advice *advice) {
    say_result("madvise", madvise(p + PAGE, 32 * PAGE, advice->value));
}

static void run_filled(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    fill(p, SIZE);
    advise(p, advice);
    say_after(p);
}

static void run_untouched(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    advise(p, advice);
    say_after(p);
}

static void run_protected(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    fill(p, SIZE);
    mprotect(p, SIZE, (int)c->b);
    advise(p, advice);
    mprotect(p, SIZE, READ_WRITE);
    say_after(p);
}

static void run_locked(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    fill(p, SIZE);
    say_result("mlock", mlock(p, SIZE));
    advise(p, advice);
    say_after(p);
}

/* Two holes: one inside, one at the end. */
static void run_holes(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    fill(p, SIZE);
    munmap(p + 8 * PAGE, PAGE);
    munmap(p + 32 * PAGE, PAGE);
    advise(p, advice);
    say("to-hole=%s from-hole=%s behind=%s", seen(p + PAGE, 7 * PAGE), seen(p + 9 * PAGE, 23 * PAGE),
        seen(p + 33 * PAGE, SIZE - 33 * PAGE));
}

/* Plain memory in the middle of droppable memory. */
static void run_mixed(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    if (mmap(p + 8 * PAGE, 8 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, SIZE);
    advise(p, advice);
    say("before=%s", seen(p, PAGE));
    if (advice->value != MADV_FREE && advice->value != MADV_PAGEOUT) /* of plain memory, the kernel's to choose */
        say("plain=%s", seen(p + 8 * PAGE, 8 * PAGE));
    say("inside=%s inside=%s", seen(p + PAGE, 7 * PAGE), seen(p + 16 * PAGE, 17 * PAGE));
    say("behind=%s", seen(p + 33 * PAGE, SIZE - 33 * PAGE));
}

static void child_of_advised(void *data) {
    char *p = data;

    say("child: before=%s", seen(p, PAGE));
    say("inside=%s", seen(p + PAGE, 32 * PAGE));
    say("write=%s", written(p, SIZE));
}

static void run_forked(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);

    skip_absent(advice);
    fill(p, SIZE);
    advise(p, advice);
    in_child(child_of_advised, p);
    say("parent:");
    say_after(p);
}

/* In whole huge pages. */
static void run_large(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(8 * MIB);

    skip_absent(advice);
    fill(p, 8 * MIB);
    say_result("madvise", madvise(p + 2 * MIB, 4 * MIB, advice->value));
    say("before=%s inside=%s behind=%s", seen(p, 2 * MIB), seen(p + 2 * MIB, 4 * MIB), seen(p + 6 * MIB, 2 * MIB));
    say("write=%s", written(p + 2 * MIB, 4 * MIB));
}

/* One after the other. */
static void run_undone(const struct check *c) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    say_result("first", madvise(p, SIZE, (int)c->a));
    say_result("second", madvise(p, SIZE, (int)c->b));
    say("read=%s", seen(p, SIZE));
    in_child(child_of_advised, p);
    say("parent=%s", seen(p, SIZE));
}

static void run_guarded(const struct check *c) {
    const struct advice install = {"guard-install", 102, true};
    char *p = droppable_alone(SIZE);

    skip_absent(&install);
    fill(p, SIZE);
    say_result("install", madvise(p + PAGE, 32 * PAGE, 102));
    say("inside=%s", seen(p + PAGE, PAGE));
    if (c->a) {
        say_result("dontneed", madvise(p + PAGE, 32 * PAGE, MADV_DONTNEED));
        say("inside=%s", seen(p + PAGE, PAGE));
    }
    in_child(child_of_advised, p);
    say_result("remove", madvise(p + PAGE, 32 * PAGE, 103));
    say_after(p);
}

static void run_damage(const struct check *c) {
    char *p = droppable(PAGE);

    fill(p, PAGE);
    say_result("setuid", setresuid(65534, 65534, 65534));
    say_result("madvise", madvise(p, PAGE, (int)c->a));
    say("read=%s", seen(p, PAGE));
}

static void run_range(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable_alone(SIZE);
    int v = advice->value;

    skip_absent(advice);
    fill(p, SIZE);
    say_result("odd-address", madvise(p + 1, PAGE, v));
    say_result("length-0", madvise(p, 0, v));
    say_result("odd-address-length-0", madvise(p + 1, 0, v));
    say_result("length-wraps", madvise(p, (size_t)-1, v));
    say_result("length-too-long", madvise(p, (size_t) - (uintptr_t)p, v));
    say("read=%s", seen(p, PAGE));
    say_result("odd-length", madvise(p, PAGE + 1, v));
    say("first=%s second=%s third=%s", seen(p, PAGE), seen(p + PAGE, PAGE), seen(p + 2 * PAGE, PAGE));
}

/* Of what is gone. */
static void run_unmapped(const struct check *c) {
    const struct advice *advice = &advices[c->a];
    char *p = droppable(SIZE);

    skip_absent(advice);
    fill(p, SIZE);
    munmap(p, SIZE);
    advise(p, advice);
}

static const struct check single[] = {
    {"guarded", run_guarded, 1, 0},
    {"guarded-only", run_guarded, 0, 0},
    {"hwpoison", run_damage, 100, 0},
    {"soft-offline", run_damage, 101, 0},
    {"wipe-then-keep", run_undone, MADV_WIPEONFORK, MADV_KEEPONFORK},
    {"dontfork-then-dofork", run_undone, MADV_DONTFORK, MADV_DOFORK},
    {"dofork-twice", run_undone, MADV_DOFORK, MADV_DOFORK},
    {"dontdump-then-dodump", run_undone, MADV_DONTDUMP, MADV_DODUMP},
    {"free-then-pageout", run_undone, MADV_FREE, MADV_PAGEOUT},
    {"cold-then-pageout", run_undone, MADV_COLD, MADV_PAGEOUT},
    {"free-then-dontneed", run_undone, MADV_FREE, MADV_DONTNEED},
    {"random-then-normal", run_undone, MADV_RANDOM, MADV_NORMAL},
};

/* The table: each advice in each state. */
static const struct state {
    const char *name;
    void (*run)(const struct check *check);
    long b;
} states[] = {
    {"filled", run_filled, 0},      {"untouched", run_untouched, 0}, {"read-only", run_protected, PROT_READ},
    {"none", run_protected, 0},     {"locked", run_locked, 0},       {"holes", run_holes, 0},
    {"beside-plain", run_mixed, 0}, {"forked", run_forked, 0},       {"large", run_large, 0},
    {"range", run_range, 0},        {"unmapped", run_unmapped, 0},
};

#define N_STATES (sizeof(states) / sizeof(states[0]))
#define N_SINGLE (sizeof(single) / sizeof(single[0]))

static struct check checks[N_STATES * N_ADVICES + N_SINGLE + 1];
static char names[N_STATES * N_ADVICES][48];

static void __attribute__((constructor)) make_table(void) {
    size_t n = 0;

    for (size_t i = 0; i < N_ADVICES; i++)
        for (size_t j = 0; j < N_STATES; j++, n++) {
            char *end = stpcpy(names[n], advices[i].name);

            *end++ = '-';
            strcpy(end, states[j].name);
            checks[n] = (struct check){names[n], states[j].run, (long)i, states[j].b};
        }
    memcpy(checks + n, single, sizeof(single));
}

const struct section section_advice = {"advice", checks};
