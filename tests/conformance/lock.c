/* SPDX-License-Identifier: MIT */

/* mlock(2) and its kin. */

#include "sections.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define SIZE (64 * PAGE)

/* Of this process, in KiB; -1 where it cannot be told. */
static long locked_kib(void) {
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    long n = -1;

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmLck: %ld", &n) == 1)
            break;
    if (file)
        fclose(file);
    return n;
}

static unsigned resident(char *p, size_t size) {
    unsigned char vector[256];
    unsigned n = 0;

    if (mincore(p, size, vector) < 0)
        return 9999;
    for (size_t i = 0; i < size / PAGE; i++)
        n += vector[i] & 1U;
    return n;
}

enum { MLOCK, MLOCK2, ONFAULT, MLOCK2_BAD };

static int lock(char *p, size_t size, long how) {
    return how == MLOCK ? mlock(p, size) : mlock2(p, size, how == MLOCK2 ? 0 : how == ONFAULT ? MLOCK_ONFAULT : 8);
}

static void run_lock(const struct check *c) {
    char *p = droppable_alone(SIZE);
    long before = locked_kib();

    if (c->b)
        fill(p, SIZE);
    say_result("lock", lock(p + PAGE, 32 * PAGE, c->a));
    say("locked-kib=%ld", locked_kib() - before);
    say("resident=%u", resident(p, SIZE));
    say("read=%s", seen(p, SIZE));
    fill(p, SIZE);
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say("read=%s", seen(p, SIZE));
    say("locked-kib=%ld", locked_kib() - before);
    say_result("munlock", munlock(p, SIZE));
    say("locked-kib=%ld", locked_kib() - before);
    say_result("munmap", munmap(p, SIZE));
}

static void run_all(const struct check *c) {
    char *p = droppable_alone(SIZE), *place = place_alone(SIZE), *q;
    long before;

    say_result("mlockall", mlockall((int)c->a));
    before = locked_kib();
    say("resident=%u", resident(p, SIZE));
    munmap(place, SIZE); /* what was locked of it no longer counts */
    before -= c->a & MCL_CURRENT ? (long)(SIZE / KIB) : 0;
    q = mmap(place, SIZE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0);
    if (q == MAP_FAILED)
        say_result("mmap", -1);
    say("later-resident=%u", resident(q, SIZE));
    say("locked-kib=%ld", locked_kib() - before);
    fill(p, SIZE);
    fill(q, SIZE);
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say_result("pageout", madvise(q, SIZE, MADV_PAGEOUT));
    say("read=%s read=%s", seen(p, SIZE), seen(q, SIZE));
    say_result("munlockall", munlockall());
    say("locked-kib=%ld", locked_kib());
}

static void run_ranges(const struct check *c) {
    char *p = droppable_alone(SIZE);

    munmap(p + 8 * PAGE, PAGE);
    say_result("hole", lock(p, 16 * PAGE, c->a));
    say_result("odd-address", lock(p + 1, PAGE, c->a));
    say_result("length-0", lock(p, 0, c->a));
    say_result("length-wraps", lock(p, (size_t)-1, c->a));
    say_result("unmapped", lock(p + 8 * PAGE, PAGE, c->a));
    say_result("unlock-hole", munlock(p, 16 * PAGE));
    say_result("unlock-odd-address", munlock(p + 1, PAGE));
    say_result("unlock-unlocked", munlock(p, PAGE));
    mprotect(p, PAGE, PROT_NONE);
    say_result("inaccessible", lock(p, PAGE, c->a));
    mprotect(p, PAGE, PROT_READ);
    say_result("read-only", lock(p, PAGE, c->a));
}

/* A user who may lock nothing: there is nothing to lock. */
static void run_limit(const struct check *c) {
    const struct rlimit limit = {(rlim_t)c->b, (rlim_t)c->b};
    char *p = droppable_alone(SIZE), *q = plain(SIZE);

    say_result("setrlimit", setrlimit(RLIMIT_MEMLOCK, &limit));
    say_result("setuid", setresuid(65534, 65534, 65534));
    say_result("lock", lock(p, SIZE, c->a));
    say_result("lock-page", lock(p, PAGE, c->a));
    say_result("plain", lock(q, SIZE, c->a));
}

/* Plain memory on both sides: that part is locked. */
static void run_mixed(const struct check *c) {
    char *p = droppable_alone(SIZE);
    long before = locked_kib();

    if (mmap(p + 8 * PAGE, 8 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    say_result("lock", lock(p, SIZE, c->a));
    say("locked-kib=%ld", locked_kib() - before);
    say_result("munmap", munmap(p, SIZE));
    say("locked-kib=%ld", locked_kib() - before);
}

static void child_of_locked(void *data) {
    say("child=%s locked-kib=%ld", seen(data, SIZE), locked_kib());
}

static void run_fork(const struct check *c) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    say_result("lock", lock(p, SIZE, c->a));
    in_child(child_of_locked, p);
    say("parent=%s", seen(p, SIZE));
}

static const struct check checks[] = {
    {"mlock", run_lock, MLOCK, 0},
    {"mlock-filled", run_lock, MLOCK, 1},
    {"mlock2", run_lock, MLOCK2, 0},
    {"mlock2-onfault", run_lock, ONFAULT, 0},
    {"mlock2-onfault-filled", run_lock, ONFAULT, 1},
    {"mlock2-bad-flag", run_lock, MLOCK2_BAD, 0},
    {"mlockall-current", run_all, MCL_CURRENT, 0},
    {"mlockall-future", run_all, MCL_FUTURE, 0},
    {"mlockall-both", run_all, MCL_CURRENT | MCL_FUTURE, 0},
    {"mlockall-onfault", run_all, MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT, 0},
    {"mlock-ranges", run_ranges, MLOCK, 0},
    {"mlock2-onfault-ranges", run_ranges, ONFAULT, 0},
    {"mlock-limit-0", run_limit, MLOCK, 0},
    {"mlock-limit-small", run_limit, MLOCK, 16 * 4096},
    {"mlock-beside-plain", run_mixed, MLOCK, 0},
    {"mlock-fork", run_fork, MLOCK, 0},
    {"mlock2-onfault-fork", run_fork, ONFAULT, 0},
    {0},
};

const struct section section_lock = {"lock", checks};
