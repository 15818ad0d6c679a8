/* SPDX-License-Identifier: MIT */

/* Much memory, many mappings, and limits on both. */

#include "sections.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void run_sparse(const struct check *c) {
    size_t size = (size_t)c->a * GIB, step = (size_t)c->b;
    char *p = mmap(NULL, size, READ_WRITE, DROPPABLE, -1, 0);
    size_t zero = 0, data = 0, n = 0;

    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED)
        return;
    for (size_t i = 0; i < size; i += step, n++) {
        zero += strcmp(seen(p + i, PAGE), "zero") == 0;
        fill(p + i, PAGE);
    }
    for (size_t i = 0; i < size; i += step)
        data += strcmp(seen(p + i, PAGE), "data") == 0;
    say("zero=%d data=%d", zero == n, data == n);
    say_result("pageout", madvise(p, size, MADV_PAGEOUT));
    data = 0;
    for (size_t i = 0; i < size; i += step)
        data += strcmp(seen(p + i, PAGE), "zero") == 0;
    say("zero=%d", data == n);
    say_result("munmap", munmap(p, size));
}

static void run_many(const struct check *c) {
    size_t n = often(c->a), size = (size_t)c->b, made = 0, zero = 0, data = 0;
    char **maps = calloc(n, sizeof(*maps));

    for (; made < n; made++) {
        maps[made] = mmap(NULL, size, READ_WRITE, DROPPABLE, -1, 0);
        if (maps[made] == MAP_FAILED) {
            say_result("mmap", -1);
            break;
        }
        zero += strcmp(seen(maps[made], size), "zero") == 0;
        fill(maps[made], size);
    }
    say_count("made", made, n);
    say("zero=%d", zero == made);
    for (size_t i = 0; i < made; i++)
        data += strcmp(seen(maps[i], size), "data") == 0;
    say("data=%d", data == made);
    data = 0;
    for (size_t i = 0; i < made; i++)
        data += munmap(maps[i], size) == 0;
    say("unmapped=%d", data == made);
    free(maps);
}

/* One at a time. */
static void run_churn(const struct check *c) {
    size_t n = often(c->a), good = 0, size = (size_t)c->b;

    for (size_t i = 0; i < n; i++) {
        char *p = mmap(NULL, size, READ_WRITE, DROPPABLE, -1, 0);

        if (p == MAP_FAILED)
            break;
        good += strcmp(seen(p, size), "zero") == 0;
        fill(p, size);
        munmap(p, size);
    }
    say_count("good", good, n);
}

/* A page of each kind in turn, so that nothing can be merged. */
static void run_alternate(const struct check *c) {
    size_t n = often(c->a);
    char *p = place_alone(n * PAGE);
    size_t made = 0;

    for (size_t i = 0; i < n; i++)
        made += mmap(p + i * PAGE, PAGE, READ_WRITE, (i % 2 ? PLAIN : DROPPABLE) | MAP_FIXED, -1, 0) == p + i * PAGE;
    say_count("made", made, n);
    say("read=%s", seen(p, n * PAGE));
    say("write=%s", written(p, n * PAGE));
    say_result("dontneed", madvise(p, n * PAGE, MADV_DONTNEED));
    say("read=%s", seen(p, n * PAGE));
    say_result("munmap", munmap(p, n * PAGE));
}

/* resource a: none more than MiB b for 16 MiB. */
static void run_limit(const struct check *c) {
    const struct rlimit limit = {(rlim_t)c->b, (rlim_t)c->b};
    char *p, *q;

    say_result("setrlimit", setrlimit((int)c->a, &limit));
    p = mmap(NULL, 16 * MIB, READ_WRITE, DROPPABLE, -1, 0);
    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p != MAP_FAILED) {
        say("read=%s", seen(p, PAGE));
        say("write=%s", written(p, 16 * MIB));
        say_result("dontneed", madvise(p, 16 * MIB, MADV_DONTNEED));
        say_result("populate", madvise(p, 16 * MIB, MADV_POPULATE_WRITE));
        say_result("pageout", madvise(p, 16 * MIB, MADV_PAGEOUT));
        say("read=%s", seen(p, 16 * MIB));
    }
    q = mmap(NULL, GIB, PROT_READ, DROPPABLE, -1, 0);
    say_result("mmap-1g-read-only", q == MAP_FAILED ? -1 : 0);
    if (q != MAP_FAILED)
        say_result("mprotect", mprotect(q, GIB, READ_WRITE));
    say_result("mmap-populate", mmap(NULL, MIB, READ_WRITE, DROPPABLE | MAP_POPULATE, -1, 0) == MAP_FAILED ? -1 : 0);
}

/* What takes the place of other memory is no more of it. */
static void run_limit_replaced(const struct check *c) {
    char *p = droppable_alone(16 * MIB);
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    FILE *file = fopen("/proc/self/statm", "re");
    size_t pages = 0;

    (void)c;
    if (!file || fscanf(file, "%zu", &pages) != 1)
        say_result("statm", -1);
    limit.rlim_cur = pages * PAGE + 4 * MIB;
    fill(p, 16 * MIB);
    say_result("setrlimit", setrlimit(RLIMIT_AS, &limit));
    say_result("mmap", mmap(NULL, 16 * MIB, READ_WRITE, PLAIN, -1, 0) == MAP_FAILED ? -1 : 0);
    say_result("mmap-over", mmap(p, 16 * MIB, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    say("read=%s", seen(p, 16 * MIB));
}

static const struct check checks[] = {
    {"sparse-1g", run_sparse, 1, (long)(16 * MIB)},
    {"sparse-64g", run_sparse, 64, (long)GIB},
    {"sparse-64g-finer", run_sparse, 64, (long)(16 * MIB)},
    {"sparse-1t", run_sparse, 1024, (long)(16 * GIB)},
    {"many-100", run_many, 100, (long)PAGE},
    {"many-1000", run_many, 1000, (long)PAGE},
    {"many-10000", run_many, 10000, (long)PAGE},
    {"many-1000-64k", run_many, 1000, (long)(64 * KIB)},
    {"many-1000-68k", run_many, 1000, (long)(68 * KIB)},
    {"churn-5000", run_churn, 5000, (long)PAGE},
    {"churn-1000-256k", run_churn, 1000, (long)(256 * KIB)},
    {"alternate-200", run_alternate, 200, 0},
    {"alternate-2000", run_alternate, 2000, 0},
    {"limit-address-space", run_limit, RLIMIT_AS, (long)(512 * MIB)},
    {"limit-address-space-small", run_limit, RLIMIT_AS, (long)(12 * MIB)},
    {"limit-address-space-replaced", run_limit_replaced, 0, 0},
    {"limit-data", run_limit, RLIMIT_DATA, (long)(8 * MIB)},
    {"limit-data-large", run_limit, RLIMIT_DATA, (long)(512 * MIB)},
    {"limit-file-size", run_limit, RLIMIT_FSIZE, 0},
    {"limit-descriptors", run_limit, RLIMIT_NOFILE, 8},
    {"limit-descriptors-0", run_limit, RLIMIT_NOFILE, 0},
    {"limit-memlock", run_limit, RLIMIT_MEMLOCK, 0},
    {"limit-processes", run_limit, RLIMIT_NPROC, 0},
    {0},
};

const struct section section_size = {"size", checks};
