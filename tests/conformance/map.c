/* SPDX-License-Identifier: MIT */

/* mmap(2): flags, protections, lengths, offsets, descriptors. */

#include "sections.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>

#define SIZE (64 * KIB)

/* What a new mapping is like. */
static void say_mapping(char *p, size_t size, int protection) {
    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED)
        return;
    say("read=%s", seen(p, size));
    say("write=%s", written(p, size));
    if (protection & PROT_WRITE) {
        *p = (char)0xc3;
        say("execute=%s", executed(p));
    }
    say_result("munmap", munmap(p, size));
}

static void run_flags(const struct check *c) {
    size_t size = c->b ? (size_t)c->b : SIZE;

    say_mapping(mmap(NULL, size, READ_WRITE, DROPPABLE | (int)c->a, -1, 0), size, READ_WRITE);
}

/* All of the type's four bits. */
static void run_type(const struct check *c) {
    char *p = mmap(NULL, SIZE, READ_WRITE, MAP_ANONYMOUS | (int)c->a, -1, 0);

    say_result("mmap", p == MAP_FAILED ? -1 : 0);
}

static void run_protection(const struct check *c) {
    if (c->a == PROT_EXEC)
        need_keys();
    say_mapping(mmap(NULL, SIZE, (int)c->a, DROPPABLE, -1, 0), SIZE, (int)c->a);
}

/* Between inaccessible pages: rounded up to whole pages, and no more. */
static void run_length(const struct check *c) {
    size_t length = (size_t)c->a, rounded = (length + PAGE - 1) & ~(PAGE - 1);
    char *p = mmap(place_alone(4 * MIB), length, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0);

    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED)
        return;
    say("last=%s", written(p + rounded - PAGE, PAGE));
    say("behind=%s before=%s", seen(p + rounded, 1), seen(p - 1, 1));
    say("first=%s", written(p, PAGE));
    say_result("munmap", munmap(p, length));
    say("read=%s", seen(p, PAGE));
}

static void run_long_length(const struct check *c) {
    char *p = mmap(NULL, (size_t)c->a, READ_WRITE, DROPPABLE | (int)c->b, -1, 0);

    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED)
        return;
    say("last=%s", written(p + ((size_t)c->a - PAGE) / PAGE * PAGE, PAGE));
    say_result("munmap", munmap(p, (size_t)c->a));
}

static void run_offset(const struct check *c) {
    say_mapping(mmap(NULL, SIZE, READ_WRITE, DROPPABLE, -1, c->a), SIZE, READ_WRITE);
}

static void run_file(const struct check *c) {
    static const char *const paths[] = {"/proc/self/exe", "/dev/zero", "/dev/null", "/", NULL, NULL};
    int fd = paths[c->a] ? open(paths[c->a], O_RDONLY | O_CLOEXEC) : c->a == 4 ? memfd_create("x", 0) : 99;

    if (c->a == 4 && ftruncate(fd, (off_t)SIZE) < 0)
        say_result("ftruncate", -1);
    say_mapping(mmap(NULL, PAGE, PROT_READ, MAP_DROPPABLE | (int)c->b, fd, 0), PAGE, PROT_READ);
}

static void run_no_file(const struct check *c) {
    say_mapping(mmap(NULL, PAGE, PROT_READ, MAP_DROPPABLE | (int)c->a, -1, 0), PAGE, PROT_READ);
}

/* By the system call itself, as programs without a C library make it. */
static void run_system_call(const struct check *c) {
    char *p = (char *)syscall(SYS_mmap, NULL, SIZE, READ_WRITE, DROPPABLE | (int)c->a, -1, 0);

    say_mapping(p, SIZE, READ_WRITE);
}

static void run_errno(const struct check *c) {
    char *p;

    (void)c;
    errno = 1234;
    p = mmap(NULL, SIZE, READ_WRITE, DROPPABLE, -1, 0);
    say("kept=%d", errno == 1234);
    madvise(p, SIZE, MADV_DONTNEED);
    madvise(p, SIZE, MADV_PAGEOUT);
    say("kept=%d", errno == 1234);
    munmap(p, SIZE);
    say("kept=%d", errno == 1234);
}

static void run_populate(const struct check *c) {
    unsigned char vector[256];
    char *p = mmap(NULL, MIB, (int)c->b, DROPPABLE | (int)c->a, -1, 0);
    unsigned n = 0;

    say_result("mmap", p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED)
        return;
    say_result("mincore", mincore(p, MIB, vector));
    for (size_t i = 0; i < sizeof(vector); i++)
        n += vector[i] & 1U;
    say("resident=%u", n);
}

static const struct check checks[] = {
    {"plain", run_flags, 0, 0},
    {"errno", run_errno, 0, 0},
    {"system-call", run_system_call, 0, 0},
    {"private", run_flags, MAP_PRIVATE, 0},
    {"shared", run_flags, MAP_SHARED, 0},
    {"shared-validate", run_flags, MAP_SHARED_VALIDATE, 0},
    {"type-0", run_type, 0, 0},
    {"type-1", run_type, 1, 0},
    {"type-2", run_type, 2, 0},
    {"type-3", run_type, 3, 0},
    {"type-4", run_type, 4, 0},
    {"type-5", run_type, 5, 0},
    {"type-6", run_type, 6, 0},
    {"type-7", run_type, 7, 0},
    {"type-8", run_type, 8, 0},
    {"type-9", run_type, 9, 0},
    {"type-10", run_type, 10, 0},
    {"type-11", run_type, 11, 0},
    {"type-12", run_type, 12, 0},
    {"type-13", run_type, 13, 0},
    {"type-14", run_type, 14, 0},
    {"type-15", run_type, 15, 0},
    {"bit-6", run_flags, 1 << 6, 0},
    {"bit-7", run_flags, 1 << 7, 0},
    {"growsdown", run_flags, MAP_GROWSDOWN, 0},
    {"bit-9", run_flags, 1 << 9, 0},
    {"bit-10", run_flags, 1 << 10, 0},
    {"denywrite", run_flags, MAP_DENYWRITE, 0},
    {"executable", run_flags, MAP_EXECUTABLE, 0},
    {"locked", run_flags, MAP_LOCKED, 0},
    {"noreserve", run_flags, MAP_NORESERVE, 0},
    {"nonblock", run_flags, MAP_NONBLOCK, 0},
    {"stack", run_flags, MAP_STACK, 0},
    {"hugetlb", run_flags, MAP_HUGETLB, (long)(2 * MIB)},
    {"hugetlb-1g", run_flags, MAP_HUGETLB | (30 << 26), (long)GIB},
    {"sync", run_flags, MAP_SYNC, 0},
    {"bit-21", run_flags, 1 << 21, 0},
    {"bit-22", run_flags, 1 << 22, 0},
    {"bit-23", run_flags, 1 << 23, 0},
    {"bit-24", run_flags, 1 << 24, 0},
    {"bit-25", run_flags, 1 << 25, 0},
    {"uninitialized", run_flags, 1 << 26, 0},
    {"bit-27", run_flags, 1 << 27, 0},
    {"bit-28", run_flags, 1 << 28, 0},
    {"bit-29", run_flags, 1 << 29, 0},
    {"bit-30", run_flags, 1 << 30, 0},
    {"locked-populate", run_flags, MAP_LOCKED | MAP_POPULATE, 0},
    {"populate", run_populate, MAP_POPULATE, READ_WRITE},
    {"populate-read", run_populate, MAP_POPULATE, PROT_READ},
    {"populate-none", run_populate, MAP_POPULATE, PROT_NONE},
    {"populate-nonblock", run_populate, MAP_POPULATE | MAP_NONBLOCK, READ_WRITE},
    {"populate-noreserve", run_populate, MAP_POPULATE | MAP_NORESERVE, READ_WRITE},
    {"protect-none", run_protection, PROT_NONE, 0},
    {"protect-r", run_protection, PROT_READ, 0},
    {"protect-w", run_protection, PROT_WRITE, 0},
    {"protect-x", run_protection, PROT_EXEC, 0},
    {"protect-rw", run_protection, READ_WRITE, 0},
    {"protect-rx", run_protection, PROT_READ | PROT_EXEC, 0},
    {"protect-wx", run_protection, PROT_WRITE | PROT_EXEC, 0},
    {"protect-rwx", run_protection, READ_WRITE | PROT_EXEC, 0},
    {"protect-sem", run_protection, READ_WRITE | 8, 0},
    {"protect-growsdown", run_protection, READ_WRITE | PROT_GROWSDOWN, 0},
    {"protect-bit-6", run_protection, READ_WRITE | 0x40, 0},
    {"length-0", run_length, 0, 0},
    {"length-1", run_length, 1, 0},
    {"length-4095", run_length, 4095, 0},
    {"length-4096", run_length, 4096, 0},
    {"length-4097", run_length, 4097, 0},
    {"length-12k", run_length, 12 * 1024, 0},
    {"length-64k+1", run_length, 64 * 1024 + 1, 0},
    {"length-2m+4k", run_length, 2 * 1024 * 1024 + 4096, 0},
    {"length-1g", run_long_length, 1L << 30, 0},
    {"length-64g", run_long_length, 1L << 36, 0},
    {"length-1t", run_long_length, 1L << 40, 0},
    {"length-1t-noreserve", run_long_length, 1L << 40, MAP_NORESERVE},
    {"length-64t", run_long_length, 1L << 46, 0},
    {"length-128t", run_long_length, 1L << 47, 0},
    {"length-2^62", run_long_length, 1L << 62, 0},
    {"length-2^63", run_long_length, (long)(1UL << 63), 0},
    {"length-wraps", run_long_length, -1, 0},
    {"length-most", run_long_length, -4096, 0},
    {"offset-1", run_offset, 1, 0},
    {"offset-4k", run_offset, 4096, 0},
    {"offset-far", run_offset, (1L << 62), 0},
    {"offset-end", run_offset, -4096, 0},
    {"anonymous-file", run_file, 0, MAP_ANONYMOUS},
    {"anonymous-memfd", run_file, 4, MAP_ANONYMOUS},
    {"anonymous-bad-file", run_file, 5, MAP_ANONYMOUS},
    {"file", run_file, 0, 0},
    {"file-zero", run_file, 1, 0},
    {"file-null", run_file, 2, 0},
    {"file-folder", run_file, 3, 0},
    {"file-memfd", run_file, 4, 0},
    {"file-bad", run_file, 5, 0},
    {"file-private", run_file, 0, MAP_PRIVATE},
    {"file-none", run_no_file, 0, 0},
    {"file-none-private", run_no_file, MAP_PRIVATE, 0},
    {"file-none-shared", run_no_file, MAP_SHARED, 0},
    {0},
};

const struct section section_map = {"map", checks};
