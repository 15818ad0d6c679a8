/* SPDX-License-Identifier: MIT */
/* The programs of test-preload that have many mappings: one after the other, and several threads at once. */

#include "child.h"
#include "fixture.h"
#include "program.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE ((size_t)4096)
#define KIB ((size_t)1024)
#define THREADS 4
#define MANY 2000
/* The bar is for the build that is shipped; the other takes twice as long, beside another test. */
#ifdef __OPTIMIZE__
#define CREATE_NS_MAX UINT64_C(1000000000)
#else
#define CREATE_NS_MAX UINT64_C(3000000000)
#endif

static char *maps[MANY];

static void fill_all(int value) {
    for (size_t i = 0; i < MANY; i++)
        memset(maps[i], (int)i % 100 + value, 64 * KIB);
}

static bool all_are(bool zero, int value) {
    for (size_t i = 0; i < MANY; i++)
        if (zero ? !is_zero(maps[i], 64 * KIB) : !is_filled(maps[i], (int)i % 100 + value, 64 * KIB))
            return false;
    return true;
}

/* Those that are left when every other one, in that order, is unmapped. */
static bool half_is(bool zero) {
    for (size_t i = 1; i < MANY; i += 2) {
        size_t k = i * 7 % MANY;

        if (zero ? !is_zero(maps[k], 64 * KIB) : !is_filled(maps[k], (int)k % 100 + 2, 64 * KIB))
            return false;
    }
    return true;
}

static uint64_t create_and_touch(void) {
    uint64_t start = now_ns();

    for (size_t i = 0; i < MANY; i++) {
        maps[i] = program_map(64 * KIB);
        memset(maps[i], 1, 64 * KIB);
    }
    return now_ns() - start;
}

/* The best of five: on a busy machine each of them may wait for a CPU 2,000 times. */
static void create_in_time(void) {
    bool judged = !under_sanitizer() && !getenv("DROPPABLE_AS_KERNEL");
    uint64_t best = create_and_touch();

    for (unsigned i = 0; judged && i < 4 && best >= CREATE_NS_MAX; i++) {
        uint64_t ns;

        for (size_t k = 0; k < MANY; k++)
            child_check(munmap(maps[k], 64 * KIB) == 0);
        ns = create_and_touch();
        best = ns < best ? ns : best;
    }
    printf("%d mappings of 64 KiB: created and touched in %llu ms\n", MANY, (unsigned long long)(best / 1000000));
    fflush(stdout);
    child_check(!judged || best < CREATE_NS_MAX * patience());
}

/* Was it fast? */
static bool fork_once(void) {
    uint64_t start = now_ns();
    int status;
    pid_t pid = fork();

    child_check(pid >= 0);
    if (pid == 0) {
        uint64_t ns = now_ns() - start;

        printf("fork: %llu us\n", (unsigned long long)(ns / 1000));
        fflush(stdout);
        if (!all_are(true, 0))
            _exit(1);
        _exit(!under_sanitizer() && ns > 200000000 ? 2 : 0);
    }
    child_check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) != 1);
    return WEXITSTATUS(status) == 0;
}

/* The best of five, as above. */
static void fork_with_many(void) {
    unsigned slow = 0;

    while (!fork_once())
        child_check(++slow < 5);
}

void program_run_many(int socket) {
    char *first = program_map(PAGE);

    program_show(socket, 'l');
    create_in_time();
    program_show(socket, 'm'); /* all is dropped */
    child_check(all_are(true, 0));
    fill_all(1);
    fork_with_many();
    program_show(socket, 'n'); /* the service starts anew */
    child_check(all_are(false, 1));
    program_show(socket, 'o'); /* all is dropped */
    child_check(all_are(true, 0));
    fill_all(2);
    for (size_t i = 0; i < MANY; i += 2) /* in another order than they were made */
        child_check(munmap(maps[i * 7 % MANY], 64 * KIB) == 0);
    child_check(half_is(false));
    program_show(socket, 'p'); /* the service starts anew, and hears of 1,000 pieces */
    child_check(half_is(false));
    program_show(socket, 'r'); /* all is dropped */
    child_check(half_is(true));
    program_show(socket, 's');
    for (size_t i = 1; i < MANY; i += 2)
        child_check(munmap(maps[i * 7 % MANY], 64 * KIB) == 0);
    child_check(munmap(first, PAGE) == 0);
    program_show(socket, 'q');
}

#define STORM_MAPS 24
#define STORM_ROUNDS 600

/* Each byte is what was written or zero: what was dropped while it was written is torn. */
static bool is_mine(const char *p, size_t pages, int value) {
    for (size_t i = 0; i < pages * PAGE; i++) {
        char byte = __atomic_load_n(&p[i], __ATOMIC_RELAXED); /* once: it may be dropped in between */

        if (byte != 0 && byte != value)
            return false;
    }
    return true;
}

struct held {
    char *p;
    size_t pages;
    int value;
};

/* In three parts, the middle first. The hole may be another thread's at once. */
static void storm_unmap(struct held *held, unsigned *seed) {
    size_t first = (size_t)rand_r(seed) % held->pages, behind = first + 1 + (size_t)rand_r(seed) % (held->pages - first);

    child_check(is_mine(held->p, held->pages, held->value));
    child_check(munmap(held->p + first * PAGE, (behind - first) * PAGE) == 0);
    child_check(is_mine(held->p, first, held->value));
    child_check(is_mine(held->p + behind * PAGE, held->pages - behind, held->value));
    child_check(first == 0 || munmap(held->p, first * PAGE) == 0);
    child_check(behind == held->pages || munmap(held->p + behind * PAGE, (held->pages - behind) * PAGE) == 0);
}

/* To another size, where it is or elsewhere. */
static void storm_resize(struct held *held, unsigned *seed) {
    size_t pages = 1 + (size_t)rand_r(seed) % 80, kept = pages < held->pages ? pages : held->pages;

    held->p = mremap(held->p, held->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
    child_check(held->p != MAP_FAILED);
    child_check(is_mine(held->p, kept, held->value) && is_zero(held->p + kept * PAGE, (pages - kept) * PAGE));
    memset(held->p, held->value, pages * PAGE);
    held->pages = pages;
}

static void *storm(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    struct held held[STORM_MAPS] = {0};

    for (unsigned round = 0; round < STORM_ROUNDS; round++) {
        size_t i = (size_t)rand_r(&seed) % STORM_MAPS;

        if (held[i].p && rand_r(&seed) % 2) {
            storm_resize(&held[i], &seed);
            continue;
        }
        if (held[i].p)
            storm_unmap(&held[i], &seed);
        held[i].pages = 1 + (size_t)rand_r(&seed) % 80;
        held[i].value = 1 + rand_r(&seed) % 100;
        held[i].p = program_map(held[i].pages * PAGE);
        child_check(is_zero(held[i].p, held[i].pages * PAGE)); /* of whoever had it before nothing is left */
        memset(held[i].p, held[i].value, held[i].pages * PAGE);
    }
    for (size_t i = 0; i < STORM_MAPS; i++)
        if (held[i].p)
            storm_unmap(&held[i], &seed);
    return NULL;
}

void program_run_storm(int socket) {
    pthread_t threads[THREADS];

    program_show(socket, 's');
    for (uintptr_t i = 0; i < THREADS; i++)
        child_check(pthread_create(&threads[i], NULL, storm, (void *)(i + 77)) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        child_check(pthread_join(threads[i], NULL) == 0);
    program_show(socket, 't');
}
