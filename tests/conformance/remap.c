/* SPDX-License-Identifier: MIT */

/* mremap(2): grown, shrunk, moved; and that the moved memory still is droppable. */

#include "sections.h"

#include <string.h>

#define SIZE (16 * PAGE)
/* Linux 5.7. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static void child_looks(void *data) {
    say("child=%s", seen(data, SIZE));
    say("write=%s", written(data, SIZE));
}

/* Whether what is at p now behaves like droppable memory of SIZE, which is full of data. */
static void say_is_droppable(char *p) {
    unsigned char vector[16];
    unsigned n = 0;

    in_child(child_looks, p);
    say("read=%s", seen(p, SIZE));
    say_result("dontneed", madvise(p, PAGE, MADV_DONTNEED));
    say("first=%s second=%s", seen(p, PAGE), seen(p + PAGE, PAGE));
    fill(p, SIZE);
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say_result("mincore", mincore(p, SIZE, vector));
    for (size_t i = 0; i < sizeof(vector); i++)
        n += vector[i] & 1U;
    say("resident=%u read=%s", n, seen(p, SIZE));
    say("write=%s", written(p, SIZE));
}

static void say_moved(char *from, const char *to) {
    say_result("mremap", to == MAP_FAILED ? -1 : 0);
    if (to == MAP_FAILED)
        return;
    say("%s", to == from ? "same-address" : "moved");
}

/* With room behind it. */
static void run_grow(const struct check *c) {
    char *p = droppable_alone(SIZE), *q;

    if (c->b)
        munmap(p + SIZE, SIZE);
    fill(p, SIZE);
    q = mremap(p, SIZE, 2 * SIZE, (int)c->a);
    say_moved(p, q);
    say("old=%s", seen(p, SIZE));
    if (q == MAP_FAILED)
        return;
    say("grown=%s", seen(q + SIZE, SIZE));
    say("write=%s", written(q, 2 * SIZE));
    fill(q, 2 * SIZE);
    say_is_droppable(q);
    fill(q + SIZE, SIZE);
    say_is_droppable(q + SIZE);
    say_result("munmap", munmap(q, 2 * SIZE));
    say("read=%s read=%s", seen(q, PAGE), seen(q + SIZE, PAGE));
}

static void run_shrink(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *q;

    fill(p, 2 * SIZE);
    q = mremap(p, 2 * SIZE, SIZE, (int)c->a);
    say_moved(p, q);
    if (q == MAP_FAILED)
        return;
    say("behind=%s", seen(p + SIZE, PAGE));
    say_is_droppable(q);
}

enum { TO_FREE, TO_PLAIN, TO_DROPPABLE, TO_ITSELF, TO_ODD };

static void run_move(const struct check *c) {
    char *p = droppable_alone(SIZE), *to = place_alone(2 * SIZE), *q;

    fill(p, SIZE);
    if (c->a == TO_PLAIN || c->a == TO_DROPPABLE) {
        mmap(to, 2 * SIZE, READ_WRITE, (c->a == TO_PLAIN ? PLAIN : DROPPABLE) | MAP_FIXED, -1, 0);
        fill(to, 2 * SIZE);
    }
    if (c->a == TO_FREE)
        munmap(to, 2 * SIZE);
    to = c->a == TO_ITSELF ? p + 4 * PAGE : c->a == TO_ODD ? to + 1 : to;
    q = mremap(p, SIZE, SIZE, MREMAP_MAYMOVE | (int)c->b, to);
    say_moved(p, q);
    say("old=%s", seen(p, PAGE));
    if (q == MAP_FAILED)
        return;
    say("as-asked=%d", q == to);
    say_is_droppable(q);
    if (c->a == TO_PLAIN || c->a == TO_DROPPABLE)
        say("behind=%s", seen(q + SIZE, SIZE));
    say_result("munmap", munmap(q, SIZE));
    say("read=%s", seen(q, PAGE));
}

/* Larger and smaller on the way. */
static void run_move_resized(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *to = place_alone(4 * SIZE), *q;

    (void)c;
    fill(p, 2 * SIZE);
    q = mremap(p, SIZE, 2 * SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    say_moved(p, q);
    say("left=%s", seen(p + SIZE, SIZE));
    if (q != MAP_FAILED) {
        say("read=%s grown=%s", seen(q, SIZE), seen(q + SIZE, SIZE));
        fill(q, 2 * SIZE);
        say_is_droppable(q + SIZE);
    }
    fill(p + SIZE, SIZE);
    q = mremap(p + SIZE, SIZE, SIZE / 2, MREMAP_MAYMOVE | MREMAP_FIXED, to + 3 * SIZE);
    say_moved(p + SIZE, q);
    if (q != MAP_FAILED)
        say("read=%s", seen(q, SIZE / 2));
}

static void run_part(const struct check *c) {
    char *p = droppable_alone(4 * SIZE), *to = place_alone(SIZE), *q;

    (void)c;
    fill(p, 4 * SIZE);
    q = mremap(p + SIZE, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    say_moved(p + SIZE, q);
    say("before=%s gap=%s behind=%s", seen(p, SIZE), seen(p + SIZE, PAGE), seen(p + 2 * SIZE, 2 * SIZE));
    if (q != MAP_FAILED)
        say_is_droppable(q);
    say_result("pageout", madvise(p, 4 * SIZE, MADV_PAGEOUT));
    say("before=%s gap=%s behind=%s", seen(p, SIZE), seen(p + SIZE, PAGE), seen(p + 2 * SIZE, 2 * SIZE));
}

static void run_arguments(const struct check *c) {
    char *p = droppable_alone(SIZE), *q = place_alone(SIZE);

    (void)c;
    fill(p, SIZE);
    say_result("odd-address", mremap(p + 1, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("new-length-0", mremap(p, SIZE, 0, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("old-length-0", mremap(p, 0, SIZE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("old-length-0-fixed", mremap(p, 0, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == MAP_FAILED ? -1 : 0);
    say_result("fixed-alone", mremap(p, SIZE, SIZE, MREMAP_FIXED, q) == MAP_FAILED ? -1 : 0);
    say_result("bad-flag", mremap(p, SIZE, SIZE, 0x40) == MAP_FAILED ? -1 : 0);
    say_result("dontunmap-alone", mremap(p, SIZE, SIZE, MREMAP_DONTUNMAP) == MAP_FAILED ? -1 : 0);
    say_result("dontunmap-grow", mremap(p, SIZE, 2 * SIZE, MREMAP_DONTUNMAP | MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("too-long", mremap(p, 2 * SIZE, 3 * SIZE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("new-length-wraps", mremap(p, SIZE, (size_t)-1, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("same", mremap(p, SIZE, SIZE, 0) == MAP_FAILED ? -1 : 0);
    say("read=%s", seen(p, SIZE));
}

/* The old place stays mapped, and empty. */
static void run_dontunmap(const struct check *c) {
    char *p = droppable_alone(SIZE), *to = place_alone(SIZE), *q;

    (void)c;
    fill(p, SIZE);
    q = mremap(p, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP | (int)c->a, to);
    say_result("mremap", q == MAP_FAILED ? -1 : 0);
    if (q == MAP_FAILED)
        return;
    say("old=%s new=%s", seen(p, SIZE), seen(q, SIZE));
    say("write=%s", written(p, SIZE));
    say("new=%s", seen(q, SIZE));
    say_is_droppable(q);
    fill(p, SIZE);
    say_is_droppable(p);
}

/* Plain memory moved to where droppable memory is. */
static void run_plain_over(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *from = plain(SIZE), *q;

    (void)c;
    memset(p, 1, 2 * SIZE);
    fill(from, SIZE);
    q = mremap(from, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, p);
    say_result("mremap", q == MAP_FAILED ? -1 : 0);
    say("moved=%s rest=%s", seen(p, SIZE), seen(p + SIZE, SIZE));
    say_result("dontneed", madvise(p + SIZE, SIZE, MADV_DONTNEED));
    say("moved=%s rest=%s", seen(p, SIZE), seen(p + SIZE, SIZE));
    say_result("dodump", madvise(p, SIZE, MADV_DODUMP)); /* refused if it is taken for droppable */
    say_result("munmap", munmap(p, 2 * SIZE));
    say("moved=%s rest=%s", seen(p, PAGE), seen(p + SIZE, PAGE));
}

/* A range that begins in plain memory and goes on in droppable memory, made smaller, larger, or moved. */
static void run_mixed(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *q;

    if (mmap(p, SIZE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, 2 * SIZE);
    q = mremap(p, 2 * SIZE, (size_t)c->a * PAGE, (int)c->b);
    say_result("mremap", q == MAP_FAILED ? -1 : 0);
    say("plain=%s droppable=%s last=%s", seen(p, PAGE), seen(p + SIZE, PAGE), seen(p + 2 * SIZE - PAGE, PAGE));
}

/* The other way round. */
static void run_mixed_behind(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *q;

    if (mmap(p + SIZE, SIZE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, 2 * SIZE);
    q = mremap(p, 2 * SIZE, (size_t)c->a * PAGE, (int)c->b);
    say_moved(p, q);
    say("droppable=%s plain=%s last=%s", seen(p, PAGE), seen(p + SIZE, PAGE), seen(p + 2 * SIZE - PAGE, PAGE));
    if (q == p && c->a * PAGE >= SIZE)
        say_is_droppable(q);
}

/* Smaller on the way to where other droppable memory is. What is refused changes nothing. */
static void run_mixed_move(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *to = droppable_alone(2 * SIZE), *q;

    if (mmap(c->b ? p : p + SIZE, SIZE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, 2 * SIZE);
    memset(to, 1, 2 * SIZE);
    q = mremap(p, 2 * SIZE, (size_t)c->a * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    say_moved(p, q);
    say("first=%s second=%s last=%s", seen(p, PAGE), seen(p + SIZE, PAGE), seen(p + 2 * SIZE - PAGE, PAGE));
    say("to=%s behind=%s", seen(to, SIZE), seen(to + SIZE, SIZE));
}

/* Nothing is where it begins, or nowhere in it. */
static void run_from_hole(const struct check *c) {
    char *p = droppable_alone(2 * SIZE), *to = droppable_alone(SIZE), *q;

    munmap(p, SIZE);
    fill(p + SIZE, SIZE);
    fill(to, SIZE);
    q = mremap(p, c->b ? SIZE : 2 * SIZE, SIZE / 2, (int)c->a, to);
    say_result("mremap", q == MAP_FAILED ? -1 : 0);
    say("second=%s to=%s", seen(p + SIZE, SIZE), seen(to, SIZE));
}

static const struct check checks[] = {
    {"grow", run_grow, 0, 1},
    {"grow-no-room", run_grow, 0, 0},
    {"grow-may-move", run_grow, MREMAP_MAYMOVE, 1},
    {"grow-may-move-no-room", run_grow, MREMAP_MAYMOVE, 0},
    {"shrink", run_shrink, 0, 0},
    {"shrink-may-move", run_shrink, MREMAP_MAYMOVE, 0},
    {"move-to-free", run_move, TO_FREE, MREMAP_FIXED},
    {"move-over-plain", run_move, TO_PLAIN, MREMAP_FIXED},
    {"move-over-droppable", run_move, TO_DROPPABLE, MREMAP_FIXED},
    {"move-over-itself", run_move, TO_ITSELF, MREMAP_FIXED},
    {"move-to-odd", run_move, TO_ODD, MREMAP_FIXED},
    {"move-resized", run_move_resized, 0, 0},
    {"move-a-part", run_part, 0, 0},
    {"arguments", run_arguments, 0, 0},
    {"dontunmap", run_dontunmap, 0, 0},
    {"dontunmap-fixed", run_dontunmap, MREMAP_FIXED, 0},
    {"plain-over-droppable", run_plain_over, 0, 0},
    {"mixed-shrink", run_mixed, SIZE / PAGE + 1, 0},
    {"mixed-shrink-to-plain", run_mixed, 1, MREMAP_MAYMOVE},
    {"mixed-same", run_mixed, 2 * SIZE / PAGE, 0},
    {"mixed-grow", run_mixed, 3 * SIZE / PAGE, 0},
    {"mixed-behind-shrink", run_mixed_behind, SIZE / PAGE + 1, 0},
    {"mixed-behind-shrink-to-droppable", run_mixed_behind, 1, MREMAP_MAYMOVE},
    {"mixed-behind-cut-off", run_mixed_behind, SIZE / PAGE, 0},
    {"mixed-behind-same", run_mixed_behind, 2 * SIZE / PAGE, 0},
    {"mixed-behind-grow", run_mixed_behind, 3 * SIZE / PAGE, MREMAP_MAYMOVE},
    {"mixed-move-droppable", run_mixed_move, SIZE / PAGE, 0},
    {"mixed-move-plain", run_mixed_move, SIZE / PAGE, 1},
    {"mixed-move-both-from-droppable", run_mixed_move, SIZE / PAGE + 1, 0},
    {"mixed-move-both-from-plain", run_mixed_move, SIZE / PAGE + 1, 1},
    {"from-hole-shrink", run_from_hole, 0, 0},
    {"from-hole-move", run_from_hole, MREMAP_MAYMOVE | MREMAP_FIXED, 0},
    {"from-nothing-move", run_from_hole, MREMAP_MAYMOVE | MREMAP_FIXED, 1},
    {0},
};

const struct section section_remap = {"remap", checks};
