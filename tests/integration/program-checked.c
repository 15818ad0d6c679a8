/* SPDX-License-Identifier: MIT */
/*
 * A program of test-preload that uses its memory all the time, and knows of each page what it has to find there: what it wrote last, or zeros.
 *
 * Threads go through their pages in turns. A page's words tell which page it is and how often it was filled, so that one that is torn, stale or somebody
 * else's is known from one that was dropped. A drop may come in the middle of a look, or of the filling of a page, as the kernel's own would:
 * the look sees the old bytes and then zeros, of a page that is zeros from then on; the filling is done again.
 */

#include "child.h"
#include "page-check.h"
#include "program.h"

#include <droppable/droppable.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>

#define PAGE ((size_t)4096)
#define WORDS (PAGE / sizeof(uint64_t))
#define THREADS 4
#define PAGES 4096 /* of each thread: 16 MiB */

static struct checker {
    pthread_t thread;
    uint64_t *memory;
    size_t first;           /* in the region, bytes */
    uint32_t filled[PAGES]; /* how often; 0: never yet */
    bool holds[PAGES];      /* what was written was seen there whole */
    _Atomic uint64_t rounds, lost;
} checkers[THREADS];

static struct drp_region *region; /* NULL: plain mmap(2) */
static _Atomic bool stop;

static uint64_t word_of(const struct checker *c, size_t page) {
    return ((uint64_t)(c - checkers) + 1) << 56 | (uint64_t)page << 32 | c->filled[page];
}

static void check_page(struct checker *c, size_t page) {
    uint64_t *memory = c->memory + page * WORDS;
    size_t offset = c->first + page * PAGE;

    if (region)
        child_check(drp_pin(region, offset, PAGE, NULL) == 0);
    if (c->holds[page] && !page_holds(memory, word_of(c, page))) {
        atomic_fetch_add(&c->lost, 1);
        c->holds[page] = false;
    }
    while (!c->holds[page]) {
        c->filled[page]++;
        c->holds[page] = page_fill(memory, word_of(c, page));
        child_check(c->holds[page] || !region); /* nothing is taken of what is pinned */
    }
    if (region) {
        child_check(page_holds(memory, word_of(c, page)));
        child_check(drp_unpin(region, offset, PAGE) == 0);
    }
}

static void *check(void *argument) {
    struct checker *c = argument;

    while (!atomic_load(&stop)) {
        for (size_t i = 0; i < PAGES; i++)
            check_page(c, i * 1021 % PAGES); /* 1021 is odd: each of them once, none beside the one before */
        atomic_fetch_add(&c->rounds, 1);
    }
    return NULL;
}

/* One that hangs goes no rounds; one whose memory was spared loses nothing. */
static void tell_all(unsigned rounds, bool losses, const uint64_t *lost) {
    for (size_t i = 0; i < THREADS; i++)
        fprintf(stderr,
                "thread %zu: %" PRIu64 " rounds, lost %" PRIu64 ", before %" PRIu64 "; expected are %u rounds%s\n", i,
                atomic_load(&checkers[i].rounds), atomic_load(&checkers[i].lost), lost[i], rounds,
                losses ? " and losses" : "");
}

/* Until each of them has gone so many rounds, and has lost something that it had not lost yet. */
static void wait_for(unsigned rounds, bool losses, const uint64_t *lost) {
    uint64_t deadline = deadline_in(CHILD_WAIT_MS / 2); /* before the test, which knows less of it, gives up */

    for (size_t i = 0; i < THREADS; i++) {
        uint64_t until = atomic_load(&checkers[i].rounds) + rounds;

        while (atomic_load(&checkers[i].rounds) < until || (losses && atomic_load(&checkers[i].lost) == lost[i])) {
            if (now_ms() > deadline) {
                tell_all(rounds, losses, lost);
                child_check(false);
            }
            usleep(1000);
        }
    }
}

/* The test says 'l': something was dropped, 'p': nothing has to have happened, and hears it again when all of them have seen that. */
static void serve(int socket) {
    uint64_t lost[THREADS] = {0};
    char word;

    for (size_t i = 0; i < THREADS; i++)
        child_check(pthread_create(&checkers[i].thread, NULL, check, &checkers[i]) == 0);
    wait_for(2, false, lost);
    child_check(child_say(socket, 'a'));
    while (child_hear(socket, &word) && word != '.') {
        wait_for(0, word == 'l', lost);
        wait_for(2, false, lost); /* the drop's last pages are found, and filled again */
        for (size_t i = 0; i < THREADS; i++)
            lost[i] = atomic_load(&checkers[i].lost);
        child_check(child_say(socket, word));
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < THREADS; i++)
        child_check(pthread_join(checkers[i].thread, NULL) == 0);
}

static void divide(char *memory) {
    for (size_t i = 0; i < THREADS; i++) {
        checkers[i].first = i * PAGES * PAGE;
        checkers[i].memory = (uint64_t *)(void *)(memory + checkers[i].first);
    }
}

void program_run_checked(int socket) {
    divide(program_map(THREADS * PAGES * PAGE));
    serve(socket);
}

void program_run_checked_pins(int socket) {
    struct drp *d;

    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, THREADS * PAGES * PAGE, NULL) == 0);
    divide(drp_region_address(region));
    serve(socket);
    drp_region_free(region);
    drp_free(d);
}
