/* SPDX-License-Identifier: MIT */
/*
 * The programs of test-preload: plain mmap(2), munmap(2), madvise(2), mincore(2) and fork(2). They say a letter when there is something to be
 * looked at from outside, and wait for one. A failed check ends them with status 1.
 */

#include "program.h"

#include "child.h"
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Linux 5.14, 5.4, 4.17: newer than the C library's headers may be. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define PAGE ((size_t)4096)
#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define FLAGS (MAP_DROPPABLE | MAP_ANONYMOUS)
#define READ_WRITE (PROT_READ | PROT_WRITE)

static char *map_at(void *address, size_t size, int flags) {
    char *p = mmap(address, size, READ_WRITE, FLAGS | flags, -1, 0);

    child_check(p != MAP_FAILED);
    return p;
}

char *program_map(size_t size) {
    return map_at(NULL, size, 0);
}

void program_show(int socket, char word) {
    char answer;

    child_check(child_say(socket, word) && child_hear(socket, &answer));
}

/* ---- memory ---- */

static void run_memory(int socket) {
    char *p = program_map(8 * MIB), *small, *large;

    child_check(is_zero(p, 8 * MIB));
    child_check(munmap(p, 8 * MIB) == 0);
    p = program_map(8 * MIB);
    memset(p, 0x5a, 8 * MIB);
    child_check(is_filled(p, 0x5a, 8 * MIB));
    errno = 1234;
    small = program_map(3 * PAGE + 1);
    child_check(errno == 1234);
    memset(small, 1, 4 * PAGE);
    large = program_map(65 * MIB);
    program_show(socket, 'd'); /* everything is dropped now */
    child_check(is_zero(p, 8 * MIB));
    child_check(is_zero(small, 4 * PAGE));
    memset(p, 0x5b, 8 * MIB);
    child_check(is_filled(p, 0x5b, 8 * MIB));
    errno = 1234;
    child_check(munmap(p, 8 * MIB) == 0 && munmap(small, 3 * PAGE + 1) == 0);
    child_check(errno == 1234);
    child_check(is_zero(large, MIB) && munmap(large, 65 * MIB) == 0);
    program_show(socket, 'e');
}

/* ---- parts ---- */

static bool is_mapped(void *p, size_t size) {
    unsigned char vector[1024];

    child_check(size / PAGE <= sizeof(vector));
    return mincore(p, size, vector) == 0;
}

static void run_parts(int socket) {
    char *p = program_map(MIB), *q;
    int fd;

    memset(p, 1, MIB);
    program_show(socket, 'a'); /* 256 pages */
    child_check(munmap(p + 10 * PAGE, 100 * PAGE) == 0);
    program_show(socket, 'b'); /* 156 */
    child_check(!is_mapped(p + 10 * PAGE, PAGE) && is_mapped(p, 10 * PAGE));
    child_check(is_filled(p, 1, 10 * PAGE) && is_filled(p + 110 * PAGE, 1, 146 * PAGE));
    child_check(munmap(p + 10 * PAGE, 100 * PAGE) == 0); /* nothing there: fine */
    child_check(munmap(p, PAGE) == 0 && munmap(p + MIB - PAGE, 1) == 0);
    program_show(socket, 'c'); /* 154 */

    /* Other memory in its place, and a range that covers both. */
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    child_check(fd >= 0);
    q = mmap(p + 200 * PAGE, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    child_check(q == p + 200 * PAGE && memcmp(q, "\177ELF", 4) == 0);
    q = mmap(p + 20 * PAGE, 4 * PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    child_check(q == p + 20 * PAGE && is_zero(q, 4 * PAGE));
    program_show(socket, 'd'); /* 150 */
    child_check(is_filled(p + 204 * PAGE, 1, 51 * PAGE) && is_filled(p + 110 * PAGE, 1, 90 * PAGE));
    q = map_at(p + 150 * PAGE, 64 * PAGE, MAP_FIXED); /* over ours, the file, ours */
    child_check(q == p + 150 * PAGE && is_zero(q, 64 * PAGE));
    memset(q, 2, 64 * PAGE);
    program_show(socket, 'e'); /* 40 + 41 of the first, 9 before and 64 of the second */
    child_check(is_filled(p + 214 * PAGE, 1, 41 * PAGE) && is_filled(p + PAGE, 1, 9 * PAGE));
    program_show(socket, 'f'); /* the service starts anew */
    child_check(is_zero(p + PAGE, 9 * PAGE) && is_zero(p + 110 * PAGE, 145 * PAGE));
    memset(p + 23 * PAGE, 3, PAGE); /* not ours */
    program_show(socket, 'g');      /* what was read */
    child_check(munmap(p, MIB) == 0);
    child_check(!is_mapped(p + PAGE, PAGE) && !is_mapped(p + 22 * PAGE, PAGE) && !is_mapped(p + 160 * PAGE, PAGE));
    program_show(socket, 'h'); /* no region */
}

/* ---- mremap ---- */

/* The kernel's mappings that a range consists of. */
static size_t count_mappings(const char *p, size_t size) {
    FILE *file = fopen("/proc/self/maps", "re");
    unsigned long start, end;
    char line[512];
    size_t n = 0;

    child_check(file);
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && start < (uintptr_t)p + size && end > (uintptr_t)p)
            n++;
    fclose(file);
    return n;
}

/* What grows page by page gets the bytes behind: neither a chunk nor a mapping of the kernel's each time. */
static void grow_by_pages(void) {
    size_t size = PAGE;
    char *p = program_map(size);

    for (; size < 300 * PAGE; size += PAGE) {
        p = mremap(p, size, size + PAGE, MREMAP_MAYMOVE);
        child_check(p != MAP_FAILED);
        p[size] = (char)(size / PAGE);
    }
    for (size_t at = PAGE; at < size; at += PAGE)
        child_check(p[at] == (char)(at / PAGE));
    child_check(count_mappings(p, size) <= 4);
    child_check(munmap(p, size) == 0);
}

static void run_remap(int socket) {
    char *p = program_map(MIB), *wall, *q;

    grow_by_pages();
    memset(p, 1, MIB);
    wall = mmap(p + MIB, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* it cannot grow where it is */
    child_check(wall != MAP_FAILED);
    q = mremap(p, MIB, 3 * MIB, MREMAP_MAYMOVE);
    child_check(q != MAP_FAILED && is_filled(q, 1, MIB) && is_zero(q + MIB, 2 * MIB));
    memset(q, 2, 3 * MIB);
    program_show(socket, 'a'); /* 3 MiB, which are dropped */
    child_check(is_zero(q, 3 * MIB));
    memset(q, 3, 3 * MIB);
    child_check(mremap(q, 3 * MIB, MIB + PAGE, 0) == q && is_filled(q, 3, MIB + PAGE));
    program_show(socket, 'b'); /* a page more than 1 MiB; the service starts anew */
    child_check(is_filled(q, 3, MIB + PAGE));
    program_show(socket, 'c'); /* all is dropped */
    child_check(is_zero(q, MIB + PAGE));
    memset(q, 4, MIB + PAGE);
    p = mremap(q, MIB + PAGE, MIB + PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
               mmap(NULL, 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    child_check(p != MAP_FAILED && !is_mapped(q, PAGE) && is_filled(p, 4, MIB + PAGE));
    program_show(socket, 'd'); /* as before */
    child_check(munmap(p, MIB + PAGE) == 0);
    program_show(socket, 'e'); /* nothing */
}

/* ---- madvise and mincore ---- */

static size_t resident_pages(char *p, size_t size) {
    unsigned char vector[1024];
    size_t n = 0;

    child_check(size / PAGE <= sizeof(vector) && mincore(p, size, vector) == 0);
    for (size_t i = 0; i < size / PAGE; i++)
        n += vector[i] & 1;
    return n;
}

static void run_advice(int socket) {
    char *p = program_map(MIB);

    child_check(resident_pages(p, MIB) == 0);
    memset(p + 3 * PAGE, 1, 40 * PAGE);
    memset(p + 100 * PAGE, 1, PAGE);
    child_check(resident_pages(p, MIB) == 41);
    child_check(resident_pages(p + 42 * PAGE, 100 * PAGE) == 2);
    memset(p, 1, MIB);
    child_check(madvise(p + PAGE, 30 * PAGE, MADV_DONTNEED) ==
                0); /* from the middle of a chunk to the middle of another */
    child_check(resident_pages(p, MIB) == 226);
    child_check(is_filled(p, 1, PAGE) && is_zero(p + PAGE, 30 * PAGE) && is_filled(p + 31 * PAGE, 1, 225 * PAGE));
    memset(p, 2, MIB);
    program_show(socket, 'a');
    child_check(madvise(p + PAGE, 40 * PAGE, MADV_PAGEOUT) == 0);
    program_show(socket, 'b'); /* 40 pages less, of which a whole chunk was dropped */
    child_check(is_filled(p, 2, PAGE) && is_zero(p + PAGE, 40 * PAGE) && is_filled(p + 41 * PAGE, 2, 215 * PAGE));

    /* Across a hole, and other memory. */
    memset(p, 3, MIB);
    child_check(munmap(p + 16 * PAGE, 16 * PAGE) == 0);
    child_check(madvise(p, 64 * PAGE, MADV_DONTNEED) < 0 && errno == ENOMEM);
    child_check(is_zero(p, 16 * PAGE) && is_zero(p + 32 * PAGE, 32 * PAGE) && is_filled(p + 64 * PAGE, 3, 192 * PAGE));
    child_check(map_at(p + 16 * PAGE, 16 * PAGE, MAP_FIXED) == p + 16 * PAGE);
    memset(p, 4, MIB);
    child_check(mmap(p, PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
    p[0] = 1;
    errno = 1234;
    child_check(madvise(p, MIB, MADV_DONTNEED) == 0 && errno == 1234 && is_zero(p, MIB));
    /* A child must never get the parent's bytes, whatever is advised. */
    memset(p + PAGE, 5, MIB - PAGE);
    child_check(madvise(p, MIB, MADV_DOFORK) == 0);
    child_check(munmap(p, MIB) == 0);
}

/* As an ordinary user, to whom the object's mode gives nothing. */
static void run_nobody(int socket) {
    child_become_nobody();
    run_advice(socket);
}

/* ---- fork ---- */

static void child_of(char *p, char *q) {
    char *own;

    child_check(is_filled(p + 16 * PAGE, 3, 16 * PAGE)); /* not ours */
    child_check(is_zero(p, 16 * PAGE) && is_zero(p + 32 * PAGE, 32 * PAGE) && is_zero(q, MIB));
    memset(p, 7, 16 * PAGE);
    memset(q, 7, MIB);
    child_check(madvise(q, 16 * PAGE, MADV_PAGEOUT) == 0 && madvise(q + 16 * PAGE, 16 * PAGE, MADV_DONTNEED) == 0);
    child_check(is_zero(q, 32 * PAGE) && is_filled(q + 32 * PAGE, 7, PAGE));
    child_check(madvise(q, MIB, MADV_KEEPONFORK) < 0 && errno == EINVAL);
    own = program_map(MIB); /* a connection of its own */
    memset(own, 9, MIB);
    child_check(munmap(p, 64 * PAGE) == 0 && munmap(q, 10 * PAGE) == 0 && munmap(q + 10 * PAGE, MIB - 10 * PAGE) == 0);
    child_check(!is_mapped(p, PAGE) && !is_mapped(q + 20 * PAGE, PAGE) && is_filled(own, 9, MIB));
    child_check(munmap(own, MIB) == 0);
}

static void run_fork(int socket) {
    char *p = program_map(64 * PAGE), *q = program_map(MIB);
    int status;
    pid_t pid;

    memset(p, 1, 64 * PAGE);
    memset(q, 2, MIB);
    child_check(mmap(p + 16 * PAGE, 16 * PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    memset(p + 16 * PAGE, 3, 16 * PAGE);
    child_check(madvise(q, MIB, MADV_DOFORK) == 0);
    pid = fork();
    child_check(pid >= 0);
    if (pid == 0) {
        child_of(p, q);
        pid = fork(); /* a grandchild */
        if (pid == 0)
            _exit(!is_zero(program_map(MIB), MIB));
        child_check(waitpid(pid, &status, 0) == pid);
        _exit(status != 0);
    }
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    child_check(is_filled(p, 1, 16 * PAGE) && is_filled(p + 32 * PAGE, 1, 32 * PAGE) && is_filled(q, 2, MIB));
    program_show(socket, 'f');
}

/* ---- many ---- */

#define THREADS 4
#define THREAD_ROUNDS 100

static void *thread(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;

    for (unsigned i = 0; i < THREAD_ROUNDS; i++) {
        size_t pages = 1 + (size_t)rand_r(&seed) % 64, cut = (size_t)rand_r(&seed) % pages;
        char *p = program_map(pages * PAGE);

        memset(p, (int)seed | 1, pages * PAGE);
        if (cut > 0)
            child_check(munmap(p, cut * PAGE) == 0);
        child_check(is_filled(p + cut * PAGE, (int)seed | 1, (pages - cut) * PAGE));
        child_check(madvise(p + cut * PAGE, (pages - cut) * PAGE, i % 2 ? MADV_DONTNEED : MADV_FREE) == 0);
        child_check(i % 2 == 0 || is_zero(p + cut * PAGE, (pages - cut) * PAGE));
        child_check(munmap(p + cut * PAGE, (pages - cut) * PAGE) == 0);
        free(malloc(256 * KIB)); /* mmap(2) and munmap(2) that are not ours */
    }
    return NULL;
}

static void run_threads(int socket) {
    pthread_t threads[THREADS];
    int status;

    for (uintptr_t i = 0; i < THREADS; i++)
        child_check(pthread_create(&threads[i], NULL, thread, (void *)(i + 1)) == 0);
    for (unsigned i = 0; i < 10; i++) { /* children, while the locks are in use */
        pid_t pid = fork();

        child_check(pid >= 0);
        if (pid == 0) {
            char *p;

            if (under_sanitizer()) /* whose allocator's locks may be taken here for ever: it allocates nothing */
                _exit(0);
            p = program_map(PAGE);
            *p = 1;
            _exit(munmap(p, PAGE) != 0);
        }
        child_check(waitpid(pid, &status, 0) == pid && status == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        child_check(pthread_join(threads[i], NULL) == 0);
    program_show(socket, 't');
}

/* What the service refuses is no memory, and leaves nothing behind. */
static void run_limit(int socket) {
    char *p = program_map(4 * MIB), *place = p;

    child_check(munmap(p, 4 * MIB) == 0);
    child_check(mmap(NULL, 4 * MIB + PAGE, READ_WRITE, FLAGS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    child_check(mmap(place, 4 * MIB + PAGE, READ_WRITE, FLAGS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    child_check(!is_mapped(place, PAGE));
    program_show(socket, 'l');
}

/* ---- what it says ---- */

static void say_map(const char *what, void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    char *p = mmap(address, size, protection, flags, fd, offset);

    printf("mmap %s: %s\n", what, p == MAP_FAILED ? strerrorname_np(errno) : "ok");
    if (p != MAP_FAILED) {
        if (protection & PROT_READ)
            printf("  zero: %d\n", is_zero(p, size));
        if (address)
            printf("  address: %s\n", p == address ? "as asked" : "another");
        printf("  munmap: %d\n", munmap(p, size));
    }
}

/* Where nothing is mapped at this moment. */
static char *free_place(void) {
    char *p = mmap(NULL, 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    munmap(p, 2 * MIB);
    return p;
}

static void say_maps(void) {
    char *taken = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    say_map("plain", NULL, MIB, READ_WRITE, FLAGS, -1, 0);
    say_map("descriptor ignored", NULL, MIB, READ_WRITE, FLAGS, fd, 0);
    say_map("offset ignored", NULL, MIB, READ_WRITE, FLAGS, -1, 4096);
    say_map("offset odd", NULL, MIB, READ_WRITE, FLAGS, -1, 1);
    say_map("length 0", NULL, 0, READ_WRITE, FLAGS, -1, 0);
    say_map("length too much", NULL, (size_t)-PAGE, READ_WRITE, FLAGS, -1, 0);
    say_map("length wraps", NULL, (size_t)-1, READ_WRITE, FLAGS, -1, 0);
    say_map("none", NULL, MIB, PROT_NONE, FLAGS, -1, 0);
    say_map("read", NULL, MIB, PROT_READ, FLAGS, -1, 0);
    say_map("populate", NULL, MIB, READ_WRITE, FLAGS | MAP_POPULATE, -1, 0);
    say_map("populate none", NULL, MIB, PROT_NONE, FLAGS | MAP_POPULATE, -1, 0);
    say_map("noreserve", NULL, MIB, READ_WRITE, FLAGS | MAP_NORESERVE, -1, 0);
    say_map("locked", NULL, MIB, READ_WRITE, FLAGS | MAP_LOCKED, -1, 0);
    say_map("hugetlb", NULL, 2 * MIB, READ_WRITE, FLAGS | MAP_HUGETLB, -1, 0);
    say_map("growsdown", NULL, MIB, READ_WRITE, FLAGS | MAP_GROWSDOWN, -1, 0);
    say_map("shared", NULL, MIB, READ_WRITE, FLAGS | MAP_SHARED, -1, 0);
    say_map("private", NULL, MIB, READ_WRITE, FLAGS | MAP_PRIVATE, -1, 0);
    say_map("shared-validate", NULL, MIB, READ_WRITE, FLAGS | MAP_SHARED_VALIDATE, -1, 0);
    say_map("file", NULL, PAGE, PROT_READ, MAP_DROPPABLE, fd, 0);
    say_map("no file", NULL, PAGE, PROT_READ, MAP_DROPPABLE, -1, 0);
    say_map("hint", free_place(), MIB, READ_WRITE, FLAGS, -1, 0);
    say_map("hint taken", taken, MIB, READ_WRITE, FLAGS, -1, 0);
    say_map("fixed odd", free_place() + 1, MIB, READ_WRITE, FLAGS | MAP_FIXED, -1, 0);
    say_map("fixed", free_place(), MIB, READ_WRITE, FLAGS | MAP_FIXED, -1, 0);
    say_map("fixed none", free_place(), MIB, PROT_NONE, FLAGS | MAP_FIXED, -1, 0);
    say_map("fixed in nowhere", (void *)(UINTPTR_MAX / 2 & ~(PAGE - 1)), MIB, READ_WRITE, FLAGS | MAP_FIXED, -1, 0);
    say_map("noreplace odd", free_place() + 1, MIB, READ_WRITE, FLAGS | MAP_FIXED_NOREPLACE, -1, 0);
    say_map("noreplace", free_place(), MIB, READ_WRITE, FLAGS | MAP_FIXED_NOREPLACE, -1, 0);
    say_map("noreplace taken", taken, MIB, READ_WRITE, FLAGS | MAP_FIXED_NOREPLACE, -1, 0);
    say_map("noreplace and fixed, taken", taken, MIB, READ_WRITE, FLAGS | MAP_FIXED_NOREPLACE | MAP_FIXED, -1, 0);
    say_map("fixed over other memory", taken, MIB, READ_WRITE, FLAGS | MAP_FIXED, -1, 0);
#ifdef MAP_32BIT
    {
        void *p = mmap(NULL, MIB, READ_WRITE, FLAGS | MAP_32BIT, -1, 0);

        printf("mmap 32bit: %s\n", (uintptr_t)p < UINT64_C(1) << 32 ? "low" : "high");
        munmap(p, MIB);
    }
#endif
    close(fd);
}

static void say_advice(void) {
    for (int advice = 0; advice <= 25; advice++) {
        char *p = program_map(MIB);
        int r;

        memset(p, 1, MIB);
        r = madvise(p + PAGE, 32 * PAGE, advice);
        printf("madvise %d: %s, %s\n", advice, r < 0 ? strerrorname_np(errno) : "ok",
               is_filled(p + PAGE, 1, 32 * PAGE) ? "kept"
               : is_zero(p + PAGE, 32 * PAGE)    ? "zero"
                                                 : "torn");
        printf("  around it: %d\n", p[0] == 1 && is_filled(p + 33 * PAGE, 1, MIB - 33 * PAGE));
        munmap(p, MIB);
    }
}

static void say(const char *what, int r) {
    printf("%s: %s\n", what, r < 0 ? strerrorname_np(errno) : "ok");
}

static void say_ranges(void) {
    char *p = program_map(MIB), *none = mmap(NULL, MIB, PROT_NONE, FLAGS, -1, 0);
    unsigned char vector[256];

    say("madvise odd address", madvise(p + 1, PAGE, MADV_DONTNEED));
    say("madvise length 0", madvise(p, 0, MADV_DONTNEED));
    say("madvise length odd", madvise(p, 1, MADV_DONTNEED));
    say("madvise length wraps", madvise(p, (size_t)-1, MADV_DONTNEED));
    say("madvise unknown", madvise(p, PAGE, 999));
    say("madvise unknown, length 0", madvise(p, 0, 999));
    say("madvise dontneed on none", madvise(none, PAGE, MADV_DONTNEED));
    say("madvise populate on none", madvise(none, PAGE, MADV_POPULATE_READ));
    say("munmap odd address", munmap(p + 1, PAGE));
    say("munmap length 0", munmap(p, 0));
    say("munmap length wraps", munmap(p, (size_t)-1));
    say("mincore odd address", mincore(p + 1, PAGE, vector));
    say("mincore length 0", mincore(p, 0, vector));
    say("mincore bad vector", mincore(p, PAGE, (void *)1));
    say("munmap a part", munmap(p + 16 * PAGE, 16 * PAGE));
    say("madvise dontneed over a hole", madvise(p, MIB, MADV_DONTNEED));
    say("madvise free over a hole", madvise(p, MIB, MADV_FREE));
    say("madvise remove over a hole", madvise(p, MIB, MADV_REMOVE));
    say("madvise remove in a hole", madvise(p + 16 * PAGE, PAGE, MADV_REMOVE));
    say("mincore over a hole", mincore(p, MIB, vector));
    say("munmap over a hole", munmap(p, MIB));
    say("munmap again", munmap(p, MIB));
    say("mlock", mlock(none, PAGE));
    say("mprotect", mprotect(none, MIB, READ_WRITE));
    printf("  zero: %d\n", is_zero(none, MIB));
    munmap(none, MIB);
}

/* Everything that can be compared with the kernel's own, as text. */
static void run_say(int socket) {
    cpu_set_t here;

    (void)socket;
    /* MADV_PAGEOUT passes by pages that were filled on another CPU a moment ago. */
    CPU_ZERO(&here);
    CPU_SET((unsigned)sched_getcpu(), &here);
    child_check(sched_setaffinity(0, sizeof(here), &here) == 0);
    say_maps();
    say_advice();
    say_ranges();
    fflush(stdout);
}

/* Whether there is droppable memory, by the exit status: 0, or the errno. */
static void run_try(int socket) {
    char *p = mmap(NULL, MIB, READ_WRITE, FLAGS, -1, 0);

    if (p == MAP_FAILED) {
        child_check(mmap(NULL, MIB, READ_WRITE, FLAGS, -1, 0) == p);
        _exit(errno);
    }
    memset(p, 1, MIB);
    program_show(socket, 'y');
}

/* With $DROPPABLE_BACKEND=none. */
static void run_plain(int socket) {
    char *p = program_map(MIB), *fixed = program_map(MIB);
    int status;
    pid_t pid;

    (void)socket;
    memset(p, 1, MIB);
    child_check(madvise(p, MIB, MADV_DODUMP) == 0); /* the kernel's own refuses it */
    child_check(mmap(fixed, MIB, READ_WRITE, FLAGS | MAP_FIXED, -1, 0) == fixed);
    child_check(mmap(NULL, MIB, READ_WRITE, FLAGS | MAP_LOCKED, -1, 0) == MAP_FAILED && errno == EINVAL);
    pid = fork();
    if (pid == 0) {
        child_check(is_zero(p, MIB));
        memset(p, 2, MIB);
        _exit(0);
    }
    child_check(waitpid(pid, &status, 0) == pid && status == 0);
    child_check(is_filled(p, 1, MIB));
    child_check(madvise(p, MIB, MADV_DONTNEED) == 0 && is_zero(p, MIB));
    child_check(munmap(p, MIB) == 0 && munmap(fixed, MIB) == 0);
}

static const struct {
    const char *name;
    void (*run)(int socket);
} programs[] = {
    {"memory", run_memory},
    {"parts", run_parts},
    {"advice", run_advice},
    {"nobody", run_nobody},
    {"fork", run_fork},
    {"threads", run_threads},
    {"many", program_run_many},
    {"say", run_say},
    {"try", run_try},
    {"limit", run_limit},
    {"storm", program_run_storm},
    {"remap", run_remap},
    {"moving", program_run_moving},
    {"first", program_run_first},
    {"cancelled", program_run_cancelled},
    {"replaced", program_run_replaced},
    {"inherited", program_run_inherited},
    {"unhandled", program_run_unhandled},
    {"early", program_run_early},
    {"last", program_run_last},
    {"last-alone", program_run_last_alone},
    {"plain", run_plain},
    {"checked", program_run_checked},
    {"checked-pins", program_run_checked_pins},
};

void program_main(int argc, char **argv) {
    if (argc != 4 || strcmp(argv[1], "--program") != 0)
        return;
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
        if (strcmp(argv[2], programs[i].name) == 0) {
            programs[i].run(atoi(argv[3]));
            _exit(0);
        }
    _exit(126);
}
