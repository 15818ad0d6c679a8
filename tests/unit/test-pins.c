/* SPDX-License-Identifier: MIT */

/*
 * The pin protocol with both its halves: client/pin.c against daemon/generation.h, on anonymous shared pages.
 *
 * A dropper claims and settles chunks as fast as it can; its punch writes zeros over the chunk's words. Users pin
 * chunks and look whether the dropper is at work there; readers read without pins. First as threads of one process with
 * one pin page, then as processes with a pin page each. What must hold:
 *
 *   - no chunk is punched while it is pinned, and its generation stands still
 *   - an unchanged generation under a pin means that every word is as it was written
 *   - a read that drp_read_retry() lets pass has seen every word as it was written at that generation
 *
 * A chunk is written by one user only, once a generation, with words that are a function of the generation. All words
 * are atomics, so that ThreadSanitizer has nothing to say about the test itself.
 *
 * DROPPABLE_TEST_ROUNDS scales the number of pins (10,000,000).
 */

#include "generation.h"
#include "pin.h"

#include <check.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHIFT 12
#define CHUNK ((size_t)1 << SHIFT)
#define CHUNKS 8
#define WORDS 16
#define USERS 2
#define STATE_BYTES (DRP_PAGES_ARRAY_OFFSET + 4096)
#define PIN_BYTES (DRP_PAGES_ARRAY_OFFSET + 4096)

/* ThreadSanitizer gets them all: that is what the test is for. */
#if defined(__SANITIZE_ADDRESS__)
#define SLOWDOWN 4
#else
#define SLOWDOWN 1
#endif

/* All of it in one shared mapping, so that processes can have it as well as threads. */
struct world {
    _Alignas(4096) char state[STATE_BYTES];
    _Alignas(4096) char pins[USERS][PIN_BYTES];
    _Alignas(4096) struct drp_clock_page clock;
    _Alignas(64) _Atomic uint64_t words[CHUNKS][WORDS];
    _Atomic uint64_t filled[CHUNKS]; /* generation at which the words were written; odd: never */
    _Atomic bool punching[CHUNKS];
    _Atomic bool stop;
    _Atomic uint64_t violations, drops, skips, hits, refills, reads;
};

struct user {
    struct world *world;
    struct pins pins;
    unsigned number;
    uint64_t rounds;
};

static uint64_t rounds(void) {
    const char *text = getenv("DROPPABLE_TEST_ROUNDS");

    return (text ? strtoull(text, NULL, 10) : 10000000) / SLOWDOWN;
}

static struct world *world_new(void) {
    struct world *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(w, MAP_FAILED);
    for (unsigned i = 0; i < CHUNKS; i++)
        atomic_store(&w->filled[i], 1);
    return w;
}

static void world_free(struct world *w) {
    munmap(w, sizeof(*w));
}

static struct pins world_pins(struct world *w, unsigned page) {
    return (struct pins){
        .generations = drp_state_generations(w->state),
        .cells = drp_pin_cells(w->pins[page]),
        .state = (struct drp_state_header *)w->state,
        .header = (struct drp_pin_header *)w->pins[page],
        .clock = &w->clock,
        .size = CHUNKS * CHUNK,
        .chunk_shift = SHIFT,
    };
}

static uint64_t word_at(uint64_t generation, unsigned i) {
    return (generation + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

static void check(struct world *w, bool ok) {
    if (!ok)
        atomic_fetch_add(&w->violations, 1);
}

/* ---- the two sides ---- */

static void wake(struct world *w, _Atomic uint32_t *generation) {
    for (unsigned page = 0; page < USERS; page++)
        if (generation_has_waiters((struct drp_pin_header *)w->pins[page])) {
            syscall(SYS_futex, generation, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
            return;
        }
}

static void *dropper(void *argument) {
    struct world *w = argument;
    _Atomic uint32_t *generations = drp_state_generations(w->state);
    struct drp_pin_cell *cells[USERS];

    for (unsigned page = 0; page < USERS; page++)
        cells[page] = drp_pin_cells(w->pins[page]);
    for (uint64_t round = 0; !atomic_load_explicit(&w->stop, memory_order_relaxed); round++) {
        unsigned chunk = round % CHUNKS;

        if (generation_claim(&generations[chunk], cells, USERS, chunk)) {
            atomic_store_explicit(&w->punching[chunk], true, memory_order_relaxed);
            /* Release, as a hole cannot be seen before the generation that announces it. */
            for (unsigned i = 0; i < WORDS; i++)
                atomic_store_explicit(&w->words[chunk][i], 0, memory_order_release);
            atomic_store_explicit(&w->punching[chunk], false, memory_order_relaxed);
            generation_settle(&generations[chunk]);
            atomic_fetch_add_explicit(&w->drops, 1, memory_order_relaxed);
        } else {
            atomic_fetch_add_explicit(&w->skips, 1, memory_order_relaxed);
        }
        wake(w, &generations[chunk]);
        atomic_store_explicit(&w->clock.tick, (uint32_t)(round / 1000), memory_order_relaxed);
    }
    return NULL;
}

/* The chunk's writer, with the chunk pinned. */
static void use_own(struct world *w, unsigned chunk, uint64_t now) {
    bool hit = atomic_load_explicit(&w->filled[chunk], memory_order_relaxed) == now;

    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t word = atomic_load_explicit(&w->words[chunk][i], memory_order_relaxed);

        check(w, word == (hit ? word_at(now, i) : 0));
        atomic_store_explicit(&w->words[chunk][i], word_at(now, i), memory_order_relaxed);
    }
    atomic_store_explicit(&w->filled[chunk], now, memory_order_release);
    for (unsigned i = 0; i < WORDS; i++)
        check(w, atomic_load_explicit(&w->words[chunk][i], memory_order_relaxed) == word_at(now, i));
    atomic_fetch_add_explicit(hit ? &w->hits : &w->refills, 1, memory_order_relaxed);
}

static void *user(void *argument) {
    struct user *u = argument;
    struct world *w = u->world;
    unsigned seed = u->number;

    for (uint64_t round = 0; round < u->rounds; round++) {
        unsigned chunk = (unsigned)rand_r(&seed) % CHUNKS;
        size_t offset = chunk * CHUNK;
        uint64_t now = 0;

        if (pins_pin(&u->pins, offset, CHUNK, &now) != 0) {
            check(w, false);
            break;
        }
        check(w, !atomic_load_explicit(&w->punching[chunk], memory_order_relaxed));
        check(w, (now & 1) == 0);
        if (chunk % USERS == u->number)
            use_own(w, chunk, now);
        check(w, !atomic_load_explicit(&w->punching[chunk], memory_order_relaxed));
        /* The dropper may be looking at it, which is odd for a moment, and then puts the old value back. */
        check(w, (pins_generation(&u->pins, offset, CHUNK) & ~UINT64_C(1)) == now);
        check(w, pins_unpin(&u->pins, offset, CHUNK) == 0);
    }
    return NULL;
}

static void *reader(void *argument) {
    struct user *u = argument;
    struct world *w = u->world;
    uint64_t words[WORDS];

    for (uint64_t round = 0; !atomic_load_explicit(&w->stop, memory_order_relaxed); round++) {
        unsigned chunk = round % CHUNKS;
        uint64_t filled = atomic_load_explicit(&w->filled[chunk], memory_order_acquire);
        uint64_t now;

        if (pins_read_begin(&u->pins, chunk * CHUNK, CHUNK, &now) < 0 || now != filled)
            continue;
        for (unsigned i = 0; i < WORDS; i++)
            words[i] = atomic_load_explicit(&w->words[chunk][i], memory_order_relaxed);
        if (pins_read_retry(&u->pins, chunk * CHUNK, CHUNK, now))
            continue;
        for (unsigned i = 0; i < WORDS; i++)
            check(w, words[i] == word_at(now, i));
        atomic_fetch_add_explicit(&w->reads, 1, memory_order_relaxed);
    }
    return NULL;
}

static void check_world(struct world *w) {
    printf("drops %llu, skips %llu, hits %llu, refills %llu, reads %llu\n", (unsigned long long)w->drops,
           (unsigned long long)w->skips, (unsigned long long)w->hits, (unsigned long long)w->refills,
           (unsigned long long)w->reads);
    ck_assert_uint_eq(w->violations, 0);
    /* Otherwise nothing was tried. */
    ck_assert_uint_gt(w->drops, 0);
    ck_assert_uint_gt(w->refills, CHUNKS);
    for (unsigned page = 0; page < USERS; page++) {
        ck_assert_uint_eq(((struct drp_pin_header *)w->pins[page])->waiters, 0);
        for (unsigned chunk = 0; chunk < CHUNKS; chunk++)
            ck_assert_uint_eq(drp_pin_cells(w->pins[page])[chunk].count, 0);
    }
}

START_TEST(threads) {
    struct world *w = world_new();
    struct user users[USERS + 1];
    pthread_t dropping, reading, using[USERS];

    for (unsigned i = 0; i <= USERS; i++)
        users[i] = (struct user){.world = w, .pins = world_pins(w, 0), .number = i, .rounds = rounds() / USERS};
    ck_assert_int_eq(pthread_create(&dropping, NULL, dropper, w), 0);
    ck_assert_int_eq(pthread_create(&reading, NULL, reader, &users[USERS]), 0);
    for (unsigned i = 0; i < USERS; i++)
        ck_assert_int_eq(pthread_create(&using[i], NULL, user, &users[i]), 0);
    for (unsigned i = 0; i < USERS; i++)
        pthread_join(using[i], NULL);
    atomic_store(&w->stop, true);
    pthread_join(dropping, NULL);
    pthread_join(reading, NULL);
    check_world(w);
    world_free(w);
}
END_TEST

static pid_t start(void *(*side)(void *), void *argument) {
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        side(argument);
        _exit(0);
    }
    return pid;
}

static void finish(pid_t pid) {
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

START_TEST(processes) {
    struct world *w = world_new();
    struct user users[USERS + 1];
    pid_t dropping, reading, using[USERS];

    for (unsigned i = 0; i <= USERS; i++)
        users[i] = (struct user){.world = w, .pins = world_pins(w, i % USERS), .number = i, .rounds = rounds() / USERS};
    dropping = start(dropper, w);
    reading = start(reader, &users[USERS]);
    for (unsigned i = 0; i < USERS; i++)
        using[i] = start(user, &users[i]);
    for (unsigned i = 0; i < USERS; i++)
        finish(using[i]);
    atomic_store(&w->stop, true);
    finish(dropping);
    finish(reading);
    check_world(w);
    world_free(w);
}
END_TEST

/* ---- one thread: values and errors ---- */

static struct world *w;
static struct pins pins;
static struct drp_pin_cell *cells;
static _Atomic uint32_t *generations;

static void setup(void) {
    w = world_new();
    pins = world_pins(w, 0);
    cells = pins.cells;
    generations = pins.generations;
}

static void teardown(void) {
    world_free(w);
}

START_TEST(ranges) {
    uint64_t generation = 7;
    uint32_t copy[CHUNKS];
    size_t offset, length;

    ck_assert_int_eq(pins_pin(&pins, 0, 0, &generation), -ERANGE);
    ck_assert_int_eq(pins_pin(&pins, CHUNKS * CHUNK, 1, &generation), -ERANGE);
    ck_assert_int_eq(pins_pin(&pins, 1, CHUNKS * CHUNK, &generation), -ERANGE);
    ck_assert_int_eq(pins_pin(&pins, SIZE_MAX, 2, &generation), -ERANGE);
    ck_assert_int_eq(pins_pin(&pins, 2, SIZE_MAX, &generation), -ERANGE);
    ck_assert_int_eq(pins_unpin(&pins, 2, SIZE_MAX), -ERANGE);
    ck_assert_int_eq(pins_read_begin(&pins, 2, SIZE_MAX, &generation), -ERANGE);
    ck_assert_int_eq(pins_copy_generations(&pins, 0, 0, copy), -ERANGE);
    ck_assert_int_eq(pins_lost(&pins, 0, 0, copy, &offset, &length), -ERANGE);
    ck_assert_uint_eq(pins_generation(&pins, CHUNKS * CHUNK, 1), 0);
    ck_assert_uint_eq(generation, 7);
    ck_assert_int_eq(pins_pin(&pins, CHUNK - 1, 2, NULL), 0);
    ck_assert_uint_eq(cells[0].count, 1);
    ck_assert_uint_eq(cells[1].count, 1);
    ck_assert_uint_eq(cells[2].count, 0);
    ck_assert_int_eq(pins_unpin(&pins, CHUNK - 1, 2), 0);
    ck_assert_int_eq(pins_pin(&pins, 0, CHUNKS * CHUNK, NULL), 0);
    ck_assert_uint_eq(cells[CHUNKS - 1].count, 1);
}
END_TEST

START_TEST(refusals) {
    ck_assert_int_eq(pins_unpin(&pins, 0, 1), -EINVAL);
    ck_assert_uint_eq(cells[0].count, 0);

    /* Of a range that is pinned in part, nothing is unpinned. */
    ck_assert_int_eq(pins_pin(&pins, 0, CHUNK, NULL), 0);
    ck_assert_int_eq(pins_unpin(&pins, 0, 2 * CHUNK), -EINVAL);
    ck_assert_uint_eq(cells[0].count, 1);

    atomic_store(&cells[2].count, DRP_PIN_MAX);
    ck_assert_int_eq(pins_pin(&pins, 0, 3 * CHUNK, NULL), -EOVERFLOW);
    ck_assert_uint_eq(cells[0].count, 1);
    ck_assert_uint_eq(cells[1].count, 0);
    ck_assert_uint_eq(cells[2].count, DRP_PIN_MAX);

    atomic_store(&pins.state->flags, DRP_STATE_PINS_CLOSED);
    ck_assert_int_eq(pins_pin(&pins, 0, CHUNK, NULL), -EDQUOT);
    ck_assert_uint_eq(cells[0].count, 1);
    ck_assert_int_eq(pins_unpin(&pins, 0, CHUNK), 0);
}
END_TEST

START_TEST(sums) {
    uint32_t copy[CHUNKS];
    uint64_t generation;
    size_t offset = 0, length = 0;

    atomic_store(&generations[1], 2);
    atomic_store(&generations[2], UINT32_MAX - 1);
    ck_assert_int_eq(pins_pin(&pins, 0, 3 * CHUNK, &generation), 0);
    ck_assert_uint_eq(generation, UINT64_C(0x100000000));
    ck_assert_uint_eq(pins_generation(&pins, 0, 3 * CHUNK), generation);
    ck_assert_int_eq(pins_copy_generations(&pins, CHUNK, CHUNKS * CHUNK - CHUNK, copy), CHUNKS - 1);
    ck_assert_int_eq(pins_lost(&pins, CHUNK, CHUNKS * CHUNK - CHUNK, copy, &offset, &length), 0);
    atomic_fetch_add(&generations[3], 2);
    atomic_fetch_add(&generations[4], 1);
    atomic_fetch_add(&generations[6], 2);
    ck_assert_int_eq(pins_lost(&pins, CHUNK, CHUNKS * CHUNK - CHUNK, copy, &offset, &length), 1);
    ck_assert_uint_eq(offset, 3 * CHUNK);
    ck_assert_uint_eq(length, 2 * CHUNK);
    ck_assert(!pins_read_retry(&pins, 0, 3 * CHUNK, generation));
    ck_assert(pins_read_retry(&pins, 0, 4 * CHUNK, generation));
    ck_assert_int_eq(pins_read_begin(&pins, 4 * CHUNK, CHUNK, &generation), -EAGAIN);
}
END_TEST

/* Nobody will settle an odd generation of a daemon that is gone: it is lost, and all functions agree on its value. */
START_TEST(gone) {
    uint32_t copy[CHUNKS];
    uint64_t generation = 0;

    atomic_store(&generations[0], 5);
    atomic_store(&pins.gone, true);
    ck_assert_int_eq(pins_pin(&pins, 0, 1, &generation), 0);
    ck_assert_uint_eq(generation, 6);
    ck_assert_uint_eq(pins_generation(&pins, 0, 1), 6);
    ck_assert_int_eq(pins_copy_generations(&pins, 0, 1, copy), 1);
    ck_assert_uint_eq(copy[0], 6);
    ck_assert_int_eq(pins_read_begin(&pins, 0, 1, &generation), 0);
    ck_assert_uint_eq(generation, 6);
    ck_assert(!pins_read_retry(&pins, 0, 1, 6));
}
END_TEST

/* The same of one that is not watched: his parent need not have waited for him. */
START_TEST(keeper_unreaped) {
    bool seen = close((int)syscall(SYS_pidfd_open, getpid(), 0)) == 0; /* not before Linux 5.3 */
    uint64_t generation = 0;
    siginfo_t info;
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | (seen ? WNOWAIT : 0)), 0);
    atomic_store(&generations[0], 5);
    atomic_store(&pins.keeper, getpid());
    ck_assert_int_eq(pins_read_begin(&pins, 0, 1, &generation), -EAGAIN);
    atomic_store(&pins.keeper, pid);
    ck_assert_int_eq(pins_read_begin(&pins, 0, 1, &generation), 0);
    ck_assert_int_eq(pins_pin(&pins, 0, 1, &generation), 0);
    ck_assert_uint_eq(generation, 6);
    ck_assert(!seen || waitpid(pid, NULL, 0) == pid);
}
END_TEST

START_TEST(ticks) {
    atomic_store(&w->clock.tick, 9);
    ck_assert_int_eq(pins_pin(&pins, 0, 1, NULL), 0);
    ck_assert_uint_eq(cells[0].tick, 9);
    ck_assert_int_eq(pins_unpin(&pins, 0, 1), 0);
    ck_assert_uint_eq(cells[0].tick, 9);
}
END_TEST

/* A touch is what a pin does to the tick, and nothing else of it. */
START_TEST(touches) {
    atomic_store(&w->clock.tick, 9);
    ck_assert_int_eq(pins_touch(&pins, CHUNK - 1, CHUNK + 2), 0);
    for (size_t i = 0; i < CHUNKS; i++) {
        ck_assert_uint_eq(cells[i].tick, i < 3 ? 9 : 0);
        ck_assert_uint_eq(cells[i].count, 0);
    }
    atomic_store(&generations[0], 1); /* being dropped: nobody is waited for */
    atomic_store(&w->clock.tick, 10);
    ck_assert_int_eq(pins_touch(&pins, 0, 1), 0);
    ck_assert_uint_eq(cells[0].tick, 10);
    ck_assert_uint_eq(cells[1].tick, 9);
    ck_assert_int_eq(pins_touch(&pins, CHUNKS * CHUNK - 1, 2), -ERANGE);
    ck_assert_int_eq(pins_touch(&pins, CHUNKS * CHUNK, 1), -ERANGE);
    ck_assert_int_eq(pins_touch(&pins, 0, 0), -ERANGE);
    ck_assert_uint_eq(cells[CHUNKS - 1].tick, 0);
}
END_TEST

static void *settle_later(void *argument) {
    (void)argument;
    while (!generation_has_waiters(pins.header))
        usleep(1000);
    generation_settle(&generations[0]);
    return NULL;
}

/* The daemon dies without a wake, or wakes too early: the waiter looks again by itself. */
START_TEST(waits) {
    uint64_t generation = 0;
    pthread_t thread;

    atomic_store(&generations[0], 1);
    ck_assert_int_eq(pthread_create(&thread, NULL, settle_later, NULL), 0);
    ck_assert_int_eq(pins_pin(&pins, 0, 1, &generation), 0);
    ck_assert_uint_eq(generation, 2);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(pins.header->waiters, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pins");
    TCase *values = tcase_create("values");
    TCase *races = tcase_create("races");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(values, setup, teardown);
    tcase_add_test(values, ranges);
    tcase_add_test(values, refusals);
    tcase_add_test(values, sums);
    tcase_add_test(values, gone);
    tcase_add_test(values, keeper_unreaped);
    tcase_add_test(values, ticks);
    tcase_add_test(values, touches);
    tcase_add_test(values, waits);
    suite_add_tcase(suite, values);
    tcase_set_timeout(races, 0); /* ctest has one */
    tcase_add_test(races, threads);
    tcase_add_test(races, processes);
    suite_add_tcase(suite, races);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
