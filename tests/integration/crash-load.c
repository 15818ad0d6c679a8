/* SPDX-License-Identifier: MIT */
/*
 * What a client may rely on, however often the service dies: a call does what it should or says that nobody is there; what is pinned stays; a page
 * is as it was or zeros, never a mixture; no access waits long.
 *
 * Three threads: one touches single words, so that most of its accesses are intercepted; one pins whole chunks, and is what drops have to wait
 * for; the main one makes requests.
 */

#include "crash-load.h"

#include "child.h"
#include "client.h"
#include "connected.h"
#include "crash-kinds.h"
#include "fixture.h"
#include "page-check.h"

#include <droppable/droppable.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define CHUNK PAGE_CHECK_CHUNK
#define MIB ((size_t)1 << 20)
#define BUSY_SIZE (8 * MIB)
#define BUSY_BUDGET (2 * MIB)
#define KEPT_CHUNKS 4
#define PINNED_CHUNKS 32
#define SHARED_CHUNKS 16
#define PIECES_SIZE (4 * MIB)
#define PROBE_ROUNDS 3

static struct {
    struct drp *d;
    struct drp_region *busy, *kept, *shared, *pieces;
    _Atomic bool stop;
    _Atomic uint64_t pins, touches, slowest; /* ns */
} load;

/* ---- the thread that touches ---- */

static void *touch(void *data) {
    const size_t pages = BUSY_SIZE / PAGE;
    char *area = drp_region_address(load.busy);
    uint64_t *last = calloc(pages, sizeof(*last));

    (void)data;
    child_check(last != NULL);
    for (uint64_t n = 1; !atomic_load(&load.stop); n++) {
        size_t page = n * 67 % pages;
        volatile uint64_t *word = (volatile uint64_t *)(void *)(area + page * PAGE + page % 512 * 8);

        child_check(touch_word(word, &last[page], n, &load.slowest));
        atomic_fetch_add(&load.touches, 1);
    }
    free(last);
    return NULL;
}

/* ---- the thread that pins ---- */

static void *pin(void *data) {
    static struct chunk_note notes[PINNED_CHUNKS];

    (void)data;
    for (uint64_t n = 1; !atomic_load(&load.stop); n++) {
        chunk_pin_once(load.kept, KEPT_CHUNKS + n % PINNED_CHUNKS, &notes[n % PINNED_CHUNKS], n);
        atomic_fetch_add(&load.pins, 1);
    }
    return NULL;
}

/* ---- pieces ---- */

static pthread_mutex_t piece_lock = PTHREAD_MUTEX_INITIALIZER;
static struct region_piece piece; /* the one that there is; length 0: none */

static bool next_piece(const struct drp_region *region, uintptr_t from, struct region_piece *ret) {
    bool found;

    (void)region;
    pthread_mutex_lock(&piece_lock);
    found = piece.length > 0 && (uintptr_t)piece.address >= from;
    if (found)
        *ret = piece;
    pthread_mutex_unlock(&piece_lock);
    return found;
}

static void set_piece(void *address, size_t offset, size_t length) {
    pthread_mutex_lock(&piece_lock);
    piece = (struct region_piece){.address = address, .offset = offset, .length = length};
    pthread_mutex_unlock(&piece_lock);
}

/* Maps a piece, gives some of it back by hand, moves it, and unmaps it: announced, or by surprise. */
static void use_piece(uint64_t round) {
    size_t offset = round % 4 * MIB, length = MIB;
    void *p, *place;

    child_check(piece_map(load.pieces, NULL, 0, offset, length, &p) == 0);
    set_piece(p, offset, length);
    MAY_BE_AWAY(piece_announce(load.pieces, &piece));
    child_check(mprotect(p, length, PROT_READ | PROT_WRITE) == 0);
    for (size_t at = 0; at < length; at += PAGE) /* the pages of others that had these offsets may be here still */
        *(volatile uint64_t *)(void *)((char *)p + at) = round;
    child_check(madvise(p, length, MADV_REMOVE) == 0);
    child_check(is_zero(p, length));
    place = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(place != MAP_FAILED);
    set_piece(NULL, 0, 0);
    child_check(mremap(p, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
    set_piece(place, offset, length);
    MAY_BE_AWAY(piece_announce(load.pieces, &piece));
    *(volatile uint64_t *)place = round;
    if (round % 2)
        piece_end(load.pieces, place, length);
    set_piece(NULL, 0, 0);
    child_check(munmap(place, length) == 0);
}

/* ---- requests ---- */

static void use_region(uint64_t round) {
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, load.d, MIB, NULL);

    MAY_BE_AWAY(r);
    if (r < 0)
        return;
    MAY_BE_AWAY(populate(region, MIB / 2));
    child_check(drp_pin(region, MIB / 2, MIB / 2, NULL) == 0);
    memset(drp_region_address(region), (int)(round % 255) + 1, MIB);
    MAY_BE_AWAY(drp_drop(region, 0, MIB, NULL, NULL));
    child_check(is_filled((char *)drp_region_address(region) + MIB / 2, (int)(round % 255) + 1, MIB / 2));
    drp_region_free(region);
}

static void work(uint64_t round) {
    struct drp_stats stats;

    MAY_BE_AWAY(drp_drop(load.busy, 0, BUSY_SIZE, NULL, NULL));
    MAY_BE_AWAY(drp_drop(load.kept, 0, (KEPT_CHUNKS + PINNED_CHUNKS) * CHUNK, NULL, NULL));
    MAY_BE_AWAY(drp_drop(load.shared, 0, SHARED_CHUNKS * CHUNK, NULL, NULL));
    MAY_BE_AWAY(drp_get_stats(load.d, &stats));
    MAY_BE_AWAY(drp_region_set_budget(load.busy, BUSY_BUDGET + round % 2 * MIB));
    MAY_BE_AWAY(drp_set_budget(load.d, 64 * MIB));
    MAY_BE_AWAY(drp_region_set_options(load.kept, DRP_REGION_DUMP, round % 2 ? DRP_REGION_DUMP : 0));
    use_region(round);
    use_piece(round);
    crash_kinds_use(load.d, round);
    for (int chunk = 0; chunk < KEPT_CHUNKS; chunk++)
        child_check(is_filled((char *)drp_region_address(load.kept) + (size_t)chunk * CHUNK, 0xa0 + chunk, CHUNK));
    child_check(is_filled(drp_region_address(load.shared), 0xb0, CHUNK));
}

/* ---- life ---- */

static int make_shared(struct drp_region **ret, struct drp *d) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = "crash"};
    int r = drp_region_new(ret, d, SHARED_CHUNKS * CHUNK, &options);

    return r == -EEXIST ? drp_region_open(ret, d, "crash", geteuid()) : r;
}

/* Told to end? A probe is answered when its rounds are done. */
static bool hear(int socket, uint64_t *probe) {
    struct pollfd input = {.fd = socket, .events = POLLIN};
    char word;

    if (poll(&input, 1, 0) == 0)
        return true;
    child_check(read(socket, &word, 1) == 1);
    if (word == 'p')
        *probe = PROBE_ROUNDS;
    return word == 'p';
}

static void prepare(void) {
    const struct drp_region_options small = {.struct_size = sizeof(small), .chunk_size = CHUNK};

    UNTIL_DONE(drp_new(&load.d, NULL));
    child_check(drp_get_lost_fd(load.d) >= 0); /* has the service tell of drops */
    UNTIL_DONE(drp_region_new(&load.busy, load.d, BUSY_SIZE, NULL));
    UNTIL_DONE(drp_region_new(&load.kept, load.d, (KEPT_CHUNKS + PINNED_CHUNKS) * CHUNK, NULL));
    UNTIL_DONE(make_shared(&load.shared, load.d));
    /* With chunks that huge pages cannot have: no event would tell of the moves of their pieces. */
    UNTIL_DONE(region_new_unmapped(&load.pieces, load.d, PIECES_SIZE, &small, next_piece));
    child_check(drp_pin(load.kept, 0, KEPT_CHUNKS * CHUNK, NULL) == 0);
    for (int chunk = 0; chunk < KEPT_CHUNKS; chunk++)
        memset((char *)drp_region_address(load.kept) + (size_t)chunk * CHUNK, 0xa0 + chunk, CHUNK);
    child_check(drp_pin(load.shared, 0, CHUNK, NULL) == 0);
    memset(drp_region_address(load.shared), 0xb0, CHUNK);
    crash_kinds_prepare(load.d);
}

static void finish(void) {
    child_check(drp_unpin(load.kept, 0, KEPT_CHUNKS * CHUNK) == 0);
    child_check(drp_unpin(load.shared, 0, CHUNK) == 0);
    drp_region_free(load.busy);
    drp_region_free(load.kept);
    drp_region_free(load.shared);
    drp_region_free(load.pieces);
    crash_kinds_finish();
    drp_free(load.d);
}

void crash_load_run(int socket, void *data) {
    size_t descriptors = own_descriptors();
    pthread_t threads[2];
    uint64_t probe = 0;

    (void)data;
    prepare();
    child_check(pthread_create(&threads[0], NULL, touch, NULL) == 0);
    child_check(pthread_create(&threads[1], NULL, pin, NULL) == 0);
    child_check(child_say(socket, 'r'));
    for (uint64_t round = 1; hear(socket, &probe); round++) {
        work(round);
        if (probe > 0 && is_connected(load.busy) && is_connected(load.kept) && is_connected(load.shared) &&
            is_connected(load.pieces) && crash_kinds_are_connected() && --probe == 0)
            child_check(child_say(socket, 'p'));
    }
    atomic_store(&load.stop, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    child_check(load.pins > 0 && load.touches > 0);
    if (load.slowest >= PAGE_CHECK_HANG_NS)
        fprintf(stderr, "the slowest access took %llu ms\n", (unsigned long long)(load.slowest / 1000000));
    child_check(load.slowest < PAGE_CHECK_HANG_NS);
    finish();
    child_check(own_descriptors() == descriptors);
}

void crash_load_guest(int socket, void *data) {
    struct chunk_note notes[SHARED_CHUNKS] = {0};
    size_t descriptors = own_descriptors();
    struct drp_region *region = NULL;
    uint64_t probe = 0;
    struct drp *d;

    (void)data;
    UNTIL_DONE(drp_new(&d, NULL));
    UNTIL_DONE(make_shared(&region, d));
    child_check(child_say(socket, 'r'));
    for (uint64_t n = 1; hear(socket, &probe); n++) {
        /* The first is the other process's, the second is of those who die. */
        chunk_pin_once(region, 2 + n % (SHARED_CHUNKS - 2), &notes[2 + n % (SHARED_CHUNKS - 2)], n);
        if (n % 64 == 0)
            MAY_BE_AWAY(drp_drop(region, 0, SHARED_CHUNKS * CHUNK, NULL, NULL));
        if (probe > 0 && is_connected(region) && --probe == 0)
            child_check(child_say(socket, 'p'));
    }
    drp_region_free(region);
    drp_free(d);
    child_check(own_descriptors() == descriptors);
}

void crash_load_mortal(int socket, void *data) {
    struct drp_region *region = NULL, *shared = NULL;
    struct drp *d;

    (void)socket;
    (void)data;
    if (drp_new(&d, NULL) < 0)
        _exit(0);
    if (drp_region_new(&region, d, MIB, NULL) == 0) {
        child_check(drp_pin(region, 0, CHUNK, NULL) == 0);
        memset(drp_region_address(region), 1, MIB);
    }
    if (drp_region_open(&shared, d, "crash", geteuid()) == 0) {
        child_check(drp_pin(shared, CHUNK, CHUNK, NULL) == 0);
        memset((char *)drp_region_address(shared) + CHUNK, 2, CHUNK);
    }
    _exit(0);
}
