/* SPDX-License-Identifier: MIT */
/* The preload library's table against a naive model: an array that says for each page what is there. */

#include "table.h"

#include "client.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((uintptr_t)4096)
#define PAGES 256
#define ARENAS 8
#define BASE ((uintptr_t)1 << 30)

struct cell {
    struct arena *arena;
    size_t offset;
    int flags;
};

static struct arena arenas[ARENAS];
static struct cell model[PAGES];

static uintptr_t at(size_t page) {
    return BASE + page * PAGE;
}

static struct drp_region *region_of(size_t i) {
    return (struct drp_region *)&arenas[i]; /* only compared */
}

static void setup(void) {
    ck_assert(!table_any());
    for (size_t i = 0; i < ARENAS; i++)
        arenas[i] = (struct arena){.region = region_of(i)};
}

static void add(struct arena *arena, size_t first, size_t end, size_t offset, int flags) {
    struct piece piece = {.start = at(first), .end = at(end), .offset = offset * PAGE, .arena = arena, .flags = flags};

    ck_assert_int_eq(table_add(&piece), 0);
    for (size_t i = first; i < end; i++)
        model[i] = (struct cell){arena, (offset + i - first) * PAGE, flags};
}

static void expect_piece(const struct piece *piece) {
    for (uintptr_t i = piece->start; i < piece->end; i += PAGE) {
        const struct cell *cell = &model[(i - BASE) / PAGE];

        ck_assert_ptr_eq(cell->arena, piece->arena);
        ck_assert_uint_eq(cell->offset, piece->offset + (i - piece->start));
        ck_assert_int_eq(cell->flags, piece->flags);
    }
}

/* Cuts all of a range out. */
static void cut(size_t first, size_t end) {
    struct piece piece;

    while (table_cut(at(first), at(end), &piece) > 0) {
        ck_assert(piece.start >= at(first) && piece.start < piece.end && piece.end <= at(end));
        expect_piece(&piece);
        for (size_t i = (piece.start - BASE) / PAGE; i < (piece.end - BASE) / PAGE; i++)
            model[i].arena = NULL;
        if (table_is_last(piece.arena))
            for (size_t i = 0; i < PAGES; i++)
                ck_assert_ptr_ne(model[i].arena, piece.arena);
        piece.arena->references--;
    }
    for (size_t i = first; i < end; i++)
        ck_assert_ptr_null(model[i].arena);
}

static void set_flags(size_t first, size_t end, int mask, int flags) {
    ck_assert_int_eq(table_set_flags(at(first), at(end), mask, flags), 0);
    for (size_t i = first; i < end; i++)
        model[i].flags = (model[i].flags & ~mask) | flags;
}

static bool begins_piece(size_t i) {
    return model[i].arena && (i == 0 || model[i - 1].arena != model[i].arena ||
                              model[i - 1].offset + PAGE != model[i].offset || model[i - 1].flags != model[i].flags);
}

/* As few entries as there can be, each with its reference. */
static void check_model(void) {
    size_t references[ARENAS] = {0}, pieces = 0;
    struct piece piece;

    for (size_t i = 0; i < PAGES; i++) {
        bool found = table_find(at(i) + 1, at(i + 1), &piece);

        ck_assert(found == (model[i].arena != NULL));
        if (!found)
            continue;
        ck_assert(piece.start == at(i) + 1 && piece.end == at(i + 1));
        ck_assert_ptr_eq(piece.arena, model[i].arena);
        ck_assert_uint_eq(piece.offset, model[i].offset + 1);
        ck_assert_int_eq(piece.flags, model[i].flags);
        piece.arena->references--;
        if (begins_piece(i)) {
            references[piece.arena - arenas]++;
            pieces++;
        }
    }
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), pieces);
    for (size_t i = 0; i < ARENAS; i++)
        ck_assert_uint_eq(arenas[i].references, references[i]);
}

START_TEST(test_edges) {
    struct piece piece;

    add(&arenas[0], 10, 20, 100, 3);
    ck_assert(!table_find(at(20), at(30), &piece));
    ck_assert(!table_find(at(5), at(10), &piece));
    ck_assert(!table_find(at(15), at(15), &piece)); /* an empty range, inside */
    ck_assert_int_eq(table_cut(at(15), at(15), &piece), 0);
    ck_assert(table_find(at(5), at(11), &piece));
    ck_assert(piece.start == at(10) && piece.end == at(11) && piece.offset == 100 * PAGE);
    ck_assert(!table_is_last(&arenas[0]));
    arenas[0].references--;
    check_model();
    cut(0, PAGES);
    check_model();
}
END_TEST

/* Mapped downwards, as the kernel does, and as the offsets are given. */
START_TEST(test_neighbours_are_joined) {
    add(&arenas[0], 20, 24, 40, 3);
    add(&arenas[0], 16, 20, 36, 3);
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), 1);
    add(&arenas[0], 8, 12, 28, 3);
    add(&arenas[0], 12, 16, 32, 3); /* both */
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), 1);
    add(&arenas[0], 24, 28, 44, 1); /* another protection */
    add(&arenas[0], 4, 8, 20, 3);   /* other bytes */
    add(&arenas[1], 0, 4, 16, 3);   /* of another */
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), 4);
    check_model();
    set_flags(24, 28, PIECE_PROTECTION, 3);
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), 3);
    cut(0, PAGES);
}
END_TEST

START_TEST(test_flags) {
    add(&arenas[0], 10, 30, 10, 3);
    add(&arenas[1], 40, 50, 0, 3);
    set_flags(12, 14, PIECE_PROTECTION, 0);
    set_flags(13, 20, PIECE_NO_FORK, PIECE_NO_FORK);
    check_model();
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), 6);
    set_flags(0, PAGES, PIECE_PROTECTION | PIECE_NO_FORK, 1);
    ck_assert_uint_eq(atomic_load(&fork_note.pieces), 2);
    for (size_t i = 0; i < PAGES; i++)
        if (!model[i].arena)
            model[i].flags = 0;
    check_model();
    cut(0, PAGES);
}
END_TEST

START_TEST(test_pieces_of_a_region) {
    struct region_piece piece;

    add(&arenas[0], 10, 30, 50, 3);
    cut(14, 20);
    add(&arenas[1], 15, 18, 0, 3); /* in the hole of the other */
    ck_assert(table_next_piece(region_of(0), 0, &piece));
    ck_assert(piece.address == (void *)at(10) && piece.length == 4 * PAGE && piece.offset == 50 * PAGE);
    ck_assert_int_eq(piece.protection, 3);
    ck_assert(table_next_piece(region_of(0), at(12), &piece));
    ck_assert(piece.address == (void *)at(12) && piece.length == 2 * PAGE && piece.offset == 52 * PAGE);
    ck_assert(table_next_piece(region_of(0), at(14), &piece) && piece.address == (void *)at(20));
    ck_assert(!table_next_piece(region_of(0), at(30), &piece));
    ck_assert(!table_next_piece(region_of(2), 0, &piece));
    cut(0, PAGES);
    check_model();
}
END_TEST

START_TEST(test_full) {
    static struct arena whole;
    struct piece piece = {.start = BASE, .end = BASE + ((uintptr_t)1 << 32), .arena = &whole};
    size_t n;

    ck_assert_int_eq(table_add(&piece), 0);
    for (n = 1; table_cut(BASE + 2 * n * PAGE, BASE + (2 * n + 1) * PAGE, &piece) > 0; n++)
        whole.references--;
    ck_assert_uint_ge(n, 10000);
    ck_assert_int_eq(table_cut(BASE + 2 * n * PAGE, BASE + (2 * n + 1) * PAGE, &piece), -ENOMEM);
    ck_assert_int_eq(table_set_flags(BASE + 2 * n * PAGE, BASE + (2 * n + 1) * PAGE, 1, 1), -ENOMEM);
    piece = (struct piece){.start = PAGE, .end = 2 * PAGE, .arena = &arenas[0]};
    ck_assert_int_eq(table_add(&piece), -ENOMEM);
    ck_assert_uint_eq(whole.references, n);
    /* What makes no new piece works still. The last one is taken first: the others have not to be moved then. */
    while (n-- > 0) {
        ck_assert_int_eq(table_cut(BASE + 2 * n * PAGE, UINTPTR_MAX, &piece), 1);
        ck_assert(table_is_last(&whole) == (n == 0));
        whole.references--;
    }
    ck_assert_int_eq(table_cut(BASE, BASE + PAGE, &piece), 0);
}
END_TEST

/* In a child nobody else refers to anything, some of it is not there, and nobody has the lock: its page was wiped. */
START_TEST(test_fork) {
    struct piece piece;

    arenas[0].next = &arenas[1];
    add(&arenas[0], 10, 20, 0, 3);
    add(&arenas[1], 30, 40, 0, 3 | PIECE_NO_FORK);
    cut(12, 14);
    ck_assert(table_find(at(0), at(PAGES), &piece));
    ck_assert_uint_eq(arenas[0].references, 3);
    table_fork_child(&arenas[0]);
    for (size_t i = 30; i < 40; i++)
        model[i].arena = NULL;
    check_model();
    ck_assert_uint_eq(arenas[0].references, 2);
    cut(0, PAGES);
    check_model();
}
END_TEST

/* What is on its way is nowhere but in a child, which finds it where it was, unless that is another's by now, or none of it is a child's. */
START_TEST(test_move) {
    struct move first, second, third, fourth;
    struct piece piece;

    arenas[0].next = &arenas[1];
    add(&arenas[0], 10, 20, 0, 3);
    add(&arenas[0], 30, 40, 50, 3);
    add(&arenas[1], 50, 60, 0, 3 | PIECE_NO_FORK);
    ck_assert_int_eq(table_begin_move(at(25), at(30), &first), 0);
    ck_assert_int_eq(table_begin_move(at(12), at(30), &first), 1);
    ck_assert(first.piece.start == at(12) && first.piece.end == at(20) && first.piece.offset == 2 * PAGE);
    ck_assert_int_eq(table_begin_move(at(30), at(34), &second), 1);
    ck_assert_int_eq(table_begin_move(at(36), at(38), &third), 1);
    ck_assert_int_eq(table_begin_move(at(50), at(52), &fourth), 1);
    ck_assert(!table_find(at(12), at(30), &piece));
    add(&arenas[1], 33, 34, 20, 3);
    table_end_move(&third);
    third.piece.arena->references--;
    memset(&third, 0xff, sizeof(third));
    table_fork_child(&arenas[0]);
    for (size_t i = 0; i < PAGES; i++)
        if ((i >= 30 && i < 33) || i == 36 || i == 37 || i >= 50)
            model[i].arena = NULL;
    check_model();
    table_fork_child(&arenas[0]); /* they have ended */
    check_model();
    cut(0, PAGES);
    check_model();
}
END_TEST

/* ---- who comes in between ---- */

static volatile sig_atomic_t handled;

static void look_at_other(int number) {
    struct piece piece;

    (void)number;
    ck_assert(!table_find(at(40), at(50), &piece));
    ck_assert(table_find(at(12), at(14), &piece));
    piece.arena->references--;
    handled++;
}

/* A handler that looks must not have interrupted the lock's holder. */
START_TEST(test_signal) {
    int status;
    pid_t pid;

    ck_assert_int_eq(table_init(), 0);
    add(&arenas[0], 10, 20, 0, 3);
    ck_assert(signal(SIGUSR1, look_at_other) != SIG_ERR);
    table_lock();
    raise(SIGUSR1);
    ck_assert_int_eq(handled, 0);
    table_unlock();
    ck_assert_int_eq(handled, 1);
    ck_assert(table_try_lock());
    pid = fork();
    ck_assert_int_ge(pid, 0);
    raise(SIGUSR1);
    ck_assert_int_eq(handled, 1);
    if (pid == 0) {
        struct piece piece;

        table_fork_child(&arenas[0]);
        ck_assert(table_find(at(12), at(14), &piece));
        piece.arena->references--;
        ck_assert_int_eq(handled, 1); /* the memory is still to come, also after the lock was had again */
        table_fork_child_end();
    } else
        table_unlock();
    ck_assert_int_eq(handled, 2);
    if (pid == 0)
        _exit(0);
    ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
    raise(SIGUSR1); /* none is blocked any more */
    ck_assert_int_eq(handled, 3);
    check_model();
    cut(0, PAGES);
}
END_TEST

static void *look(void *data) {
    struct piece piece;

    return table_find(at(40), at(50), &piece) ? data : NULL;
}

/* Calls about other memory wait for nobody. */
START_TEST(test_other_memory) {
    struct timespec until;
    pthread_t thread;
    void *found;

    add(&arenas[0], 10, 20, 0, 3);
    table_lock();
    ck_assert_int_eq(pthread_create(&thread, NULL, look, arenas), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    ck_assert_int_eq(pthread_timedjoin_np(thread, &found, &until), 0);
    ck_assert_ptr_null(found);
    table_unlock();
    cut(0, PAGES);
}
END_TEST

#define ROUNDS 2000

static _Atomic bool looking_ends;

/* What is always there is always seen, and what never is never. */
static void *look_all_the_time(void *data) {
    while (!atomic_load(&looking_ends))
        if (!table_has(at(200), at(201)) || table_has(at(100), at(200)))
            return data;
    return NULL;
}

START_TEST(test_looks_beside_changes) {
    struct piece piece = {.start = at(0), .end = at(100), .arena = &arenas[1]};
    pthread_t thread;
    void *wrong;

    add(&arenas[0], 200, 210, 0, 3);
    ck_assert_int_eq(pthread_create(&thread, NULL, look_all_the_time, arenas), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        ck_assert_int_eq(table_add(&piece), 0);
        set_flags(204, 205, PIECE_PROTECTION, i % 2 * 3);
        ck_assert_int_eq(table_cut(piece.start, piece.end, &piece), 1);
        piece.arena->references--;
    }
    atomic_store(&looking_ends, true);
    ck_assert_int_eq(pthread_join(thread, &wrong), 0);
    ck_assert_ptr_null(wrong);
    cut(0, PAGES);
}
END_TEST

START_TEST(test_random_against_model) {
    unsigned seed = (unsigned)_i + 1;

    for (unsigned round = 0; round < 4000; round++) {
        size_t first = (size_t)rand_r(&seed) % PAGES;
        size_t end = first + 1 + (size_t)rand_r(&seed) % 24;

        if (end > PAGES)
            end = PAGES;
        if (rand_r(&seed) % 4 == 0) {
            set_flags(first, end, PIECE_PROTECTION, rand_r(&seed) % 8);
        } else {
            cut(first, end);
            if (rand_r(&seed) % 2) /* the same bytes at the same place, often: neighbours meet again */
                add(&arenas[(size_t)rand_r(&seed) % 2], first, end, first + 64 * ((size_t)rand_r(&seed) % 2), 3);
        }
        if (round % 16 == 0)
            check_model();
    }
    cut(0, PAGES);
    check_model();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("table");
    TCase *tcase = tcase_create("table");

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, test_edges);
    tcase_add_test(tcase, test_neighbours_are_joined);
    tcase_add_test(tcase, test_flags);
    tcase_add_test(tcase, test_pieces_of_a_region);
    tcase_add_test(tcase, test_full);
    tcase_add_test(tcase, test_fork);
    tcase_add_test(tcase, test_move);
    tcase_add_test(tcase, test_signal);
    tcase_add_test(tcase, test_other_memory);
    tcase_add_test(tcase, test_looks_beside_changes);
    tcase_add_loop_test(tcase, test_random_against_model, 0, 8);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
