/* SPDX-License-Identifier: MIT */

/*
 * What /proc says of the memory, as far as a program or an administrator may rely on it: kind and flags of the mapping, how
 * much of it counts as what. The flag 'dp' is the kernel's own mark of droppable memory.
 */

#include "sections.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (16 * PAGE)

struct entry {
    char permissions[8], path[128], flags[512];
    long inode;
    struct field {
        char key[32];
        long kib;
    } fields[40];
    size_t n_fields;
};

/* Of the mapping that holds p. */
static bool find(const char *p, struct entry *ret) {
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[512];
    bool inside = false, found = false;

    *ret = (struct entry){0};
    while (file && fgets(line, sizeof(line), file)) {
        unsigned long start, end;
        struct field *field = &ret->fields[ret->n_fields];

        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            inside = start <= (uintptr_t)p && (uintptr_t)p < end;
            found |= inside;
            if (inside)
                sscanf(line, "%*s %7s %*s %*s %ld %127[^\n]", ret->permissions, &ret->inode, ret->path);
        } else if (inside && strncmp(line, "VmFlags: ", 9) == 0)
            snprintf(ret->flags, sizeof(ret->flags), "%s", line + 9);
        else if (inside && ret->n_fields < 40 && sscanf(line, "%31[^:]: %ld", field->key, &field->kib) == 2)
            ret->n_fields++;
    }
    if (file)
        fclose(file);
    return found;
}

static void say_fields(const struct entry *entry) {
    static const char *const keys[] = {"Rss",           "Pss",       "Shared_Clean", "Shared_Dirty",   "Private_Clean",
                                       "Private_Dirty", "Anonymous", "LazyFree",     "ShmemPmdMapped", "Shared_Hugetlb",
                                       "Swap",          "Locked"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        for (size_t j = 0; j < entry->n_fields; j++)
            if (strcmp(entry->fields[j].key, keys[i]) == 0)
                say("%s=%ld", keys[i], entry->fields[j].kib);
}

static char *memory_in(long state) {
    char *p = droppable_alone(SIZE);

    if (state > 0)
        fill(p, SIZE / 2);
    if (state == 2)
        madvise(p, SIZE, MADV_PAGEOUT);
    if (state == 3)
        madvise(p, SIZE, MADV_FREE);
    if (state == 4) {
        need_zero_page();
        seen(p, SIZE);
    }
    return p;
}

static void run_fields(const struct check *c) {
    char *p = memory_in(c->a);
    struct entry entry;

    if (!find(p, &entry))
        say("no-entry");
    say_fields(&entry);
}

static void run_kind(const struct check *c) {
    char *p = mmap(place_alone(SIZE), SIZE, (int)c->a, DROPPABLE | MAP_FIXED, -1, 0);
    struct entry entry;

    if (!find(p, &entry))
        say("no-entry");
    say("permissions=%s inode=%s path=%s", entry.permissions, entry.inode ? "some" : "none",
        *entry.path ? "some" : "none");
}

/* The flags that tell what becomes of the memory. A child without it and a child that finds it empty are the same to the parent. */
static void run_flags(const struct check *c) {
    static const char *const flags[] = {"rd", "wr", "ex", "lo", "dd", "rr", "sr"};
    char *p = droppable_alone(SIZE);
    struct entry entry;

    if (c->b)
        say_result("madvise", madvise(p, SIZE, (int)c->b));
    if (c->a)
        say_result("mlock", mlock(p, SIZE));
    if (!find(p, &entry))
        say("no-entry");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (strstr(entry.flags, flags[i]))
            say("%s", flags[i]);
    if (strstr(entry.flags, "wf") || strstr(entry.flags, "dc"))
        say("not-inherited");
}

/* All of them, but for what depends on how the kernel was built (soft-dirty). */
static void run_all_flags(const struct check *c) {
    struct entry entry;
    char *save = NULL;

    (void)c;
    if (!find(droppable_alone(SIZE), &entry))
        say("no-entry");
    for (char *flag = strtok_r(entry.flags, " \n", &save); flag; flag = strtok_r(NULL, " \n", &save))
        if (strcmp(flag, "sd") != 0)
            say("%s", flag);
}

/* Differences to before, of what this process as a whole is said to have. */
static long status_kib(const char *key) {
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    long n = 0;

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, key, strlen(key)) == 0)
            n = atol(line + strlen(key) + 1);
    if (file)
        fclose(file);
    return n;
}

static void run_status(const struct check *c) {
    static const char *const keys[] = {"VmSize", "VmLck", "VmPin", "VmData", "VmStk", "VmExe"};
    long before[6];
    char *p;

    (void)c;
    for (unsigned i = 0; i < 6; i++)
        before[i] = status_kib(keys[i]);
    p = droppable(32 * MIB);
    fill(p, PAGE);
    /* In 16 MiB, so that what a service needs beside it does not count. */
    for (unsigned i = 0; i < 6; i++)
        say("%s=%ldx16M", keys[i], (status_kib(keys[i]) - before[i] + 1024) / 16384);
}

static void run_rss(const struct check *c) {
    static const char *const keys[] = {"RssAnon", "RssFile", "RssShmem", "VmSwap"};
    long before[4];
    char *p = droppable(64 * MIB);

    (void)c;
    for (unsigned i = 0; i < 4; i++)
        before[i] = status_kib(keys[i]);
    fill(p, 64 * MIB);
    for (unsigned i = 0; i < 4; i++)
        say("%s=%ldx16M", keys[i], (status_kib(keys[i]) - before[i] + 4096) / 16384);
    madvise(p, 64 * MIB, MADV_PAGEOUT);
    for (unsigned i = 0; i < 4; i++)
        say("%s=%ldx16M", keys[i], (status_kib(keys[i]) - before[i] + 4096) / 16384);
}

/* The number of entries in /proc/self/maps that one mapping makes, in a place alone. */
static void run_entries(const struct check *c) {
    char *p = droppable_alone(SIZE), *q, line[512];
    unsigned n = 0;
    FILE *file;

    q = mmap(p + SIZE, SIZE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0); /* like plain memory they become one */
    if (c->a)
        munmap(p + PAGE, PAGE);
    file = fopen("/proc/self/maps", "re");
    while (file && fgets(line, sizeof(line), file)) {
        unsigned long start, end;

        if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && start < (uintptr_t)q + SIZE && end > (uintptr_t)p)
            n++;
    }
    say("entries=%u", n);
}

static const struct check checks[] = {
    {"fresh", run_fields, 0, 0},
    {"filled", run_fields, 1, 0},
    {"dropped", run_fields, 2, 0},
    {"freed", run_fields, 3, 0},
    {"read", run_fields, 4, 0},
    {"kind-none", run_kind, PROT_NONE, 0},
    {"kind-r", run_kind, PROT_READ, 0},
    {"kind-rw", run_kind, READ_WRITE, 0},
    {"kind-rwx", run_kind, READ_WRITE | PROT_EXEC, 0},
    {"flags", run_flags, 0, 0},
    {"flags-all", run_all_flags, 0, 0},
    {"flags-locked", run_flags, 1, 0},
    {"flags-dontfork", run_flags, 0, MADV_DONTFORK},
    {"flags-dofork", run_flags, 0, MADV_DOFORK},
    {"flags-wipeonfork", run_flags, 0, MADV_WIPEONFORK},
    {"flags-keeponfork", run_flags, 0, MADV_KEEPONFORK},
    {"flags-dontdump", run_flags, 0, MADV_DONTDUMP},
    {"flags-dodump", run_flags, 0, MADV_DODUMP},
    {"flags-random", run_flags, 0, MADV_RANDOM},
    {"flags-sequential", run_flags, 0, MADV_SEQUENTIAL},
    {"status", run_status, 0, 0},
    {"rss", run_rss, 0, 0},
    {"entries", run_entries, 0, 0},
    {"entries-cut", run_entries, 1, 0},
    {0},
};

const struct section section_smaps = {"smaps", checks};
