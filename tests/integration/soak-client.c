/* SPDX-License-Identifier: MIT */
/*
 * Each value that is written is written once: the client's seed is in its upper half. So a page that is stale, or another's, is known.
 *
 * Per region, one chunk may be kept: pinned, or non-volatile, for many steps, with drops in between. It must be found as it was left, each time.
 */

#include "soak-client.h"

#include "fixture.h"
#include "page-check.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define CHUNK PAGE_CHECK_CHUNK
#define REGIONS 6
#define CHUNKS_MAX 32
#define KEPT_STEPS 64

enum kind { PLAIN, VOLATILE, SIGNAL, NATIVE, KINDS };

struct soaked {
    struct drp_region *region; /* NULL: there is none */
    enum kind kind;
    size_t chunks;
    struct chunk_note notes[CHUNKS_MAX];
    size_t kept; /* chunk; CHUNKS_MAX: none */
};

static struct client {
    unsigned seed;
    uint64_t value;
    struct drp *d, *native; /* NULL: the kernel has none */
    struct soaked regions[REGIONS];
} client;

static unsigned chance(unsigned n) {
    return (unsigned)rand_r(&client.seed) % n;
}

static char *chunk_at(const struct soaked *s, size_t chunk) {
    return (char *)drp_region_address(s->region) + chunk * CHUNK;
}

/* ---- chunks ---- */

static void expect_chunk(const struct soaked *s, size_t chunk, bool may_be_lost) {
    for (size_t page = 0; page < CHUNK; page += PAGE)
        child_check(page_holds(chunk_at(s, chunk) + page, s->notes[chunk].value) || may_be_lost);
}

static void fill_chunk(struct soaked *s, size_t chunk) {
    uint64_t value = ++client.value;

    for (size_t page = 0; page < CHUNK; page += PAGE)
        while (!page_fill(chunk_at(s, chunk) + page, value))
            child_check(s->kind == NATIVE); /* nothing is taken of what is kept */
    s->notes[chunk].value = value;
    s->notes[chunk].known = true;
}

/* It stays now; lost: it may be gone. */
static void keep(struct soaked *s, size_t chunk) {
    struct chunk_note *note = &s->notes[chunk];
    uint64_t generation = 0;
    bool lost = false;

    if (s->kind == VOLATILE)
        child_check(drp_set_nonvolatile(s->region, chunk * CHUNK, CHUNK, &lost) == 0);
    else
        child_check(drp_pin(s->region, chunk * CHUNK, CHUNK, &generation) == 0);
    if (s->kind == SIGNAL)
        UNTIL_DONE(drp_populate(s->region, chunk * CHUNK, CHUNK)); /* zeros where something is gone */
    if (note->known)
        expect_chunk(s, chunk, s->kind == VOLATILE ? lost : generation != note->generation);
    fill_chunk(s, chunk);
    note->generation = generation;
    expect_chunk(s, chunk, false);
}

static void let_go(struct soaked *s, size_t chunk) {
    expect_chunk(s, chunk, false);
    if (s->kind == VOLATILE)
        child_check(drp_set_volatile(s->region, chunk * CHUNK, CHUNK) == 0);
    else
        child_check(drp_unpin(s->region, chunk * CHUNK, CHUNK) == 0);
}

static void use_chunk(struct soaked *s) {
    size_t chunk = chance((unsigned)s->chunks);

    if (s->kind == NATIVE) { /* nothing of it can be kept */
        if (s->notes[chunk].known)
            expect_chunk(s, chunk, true);
        fill_chunk(s, chunk);
    } else if (chunk == s->kept)
        expect_chunk(s, chunk, false);
    else {
        keep(s, chunk);
        if (s->kept == CHUNKS_MAX && chance(4) == 0)
            s->kept = chunk;
        else
            let_go(s, chunk);
    }
    if (s->kept < CHUNKS_MAX && chance(KEPT_STEPS) == 0) {
        let_go(s, s->kept);
        s->kept = CHUNKS_MAX;
    }
}

/* Whole pages are zeros or as they were: a look without a pin. */
static void look(struct soaked *s) {
    size_t chunk = chance((unsigned)s->chunks);

    if (s->kind != SIGNAL && s->notes[chunk].known)
        expect_chunk(s, chunk, chunk != s->kept);
}

/* ---- regions ---- */

static void make(struct soaked *s) {
    struct drp_region_options options = {.struct_size = sizeof(options)};
    enum kind kind = chance(KINDS);
    int r;

    if (kind == NATIVE && !client.native)
        kind = PLAIN;
    options.required = kind == SIGNAL ? DRP_REGION_SIGNAL : 0;
    options.chunk_size = CHUNK;
    options.priority = (enum drp_priority)(1 + chance(3));
    options.share = 1 + chance(1000);
    *s = (struct soaked){.kind = kind, .chunks = 1 + chance(CHUNKS_MAX), .kept = CHUNKS_MAX};
    r = drp_region_new(&s->region, kind == NATIVE ? client.native : client.d, s->chunks * CHUNK, &options);
    if (r == -EOPNOTSUPP && kind == SIGNAL)
        r = -ENOTCONN; /* a kernel without */
    MAY_BE_AWAY(r);
}

static void end(struct soaked *s) {
    if (s->kept < CHUNKS_MAX && chance(2))
        let_go(s, s->kept);
    s->region = drp_region_free(s->region);
}

static void drop(struct soaked *s) {
    size_t first = chance((unsigned)s->chunks), n = 1 + chance((unsigned)(s->chunks - first));
    uint64_t freed = 0;

    MAY_BE_AWAY(drp_drop(s->region, first * CHUNK, n * CHUNK, &freed, NULL));
    child_check(freed <= n * CHUNK);
    if (s->kept < CHUNKS_MAX)
        expect_chunk(s, s->kept, false);
}

static void set(struct soaked *s) {
    if (s->kind != NATIVE && chance(2))
        MAY_BE_AWAY(drp_region_set_budget(s->region, chance(3) ? UINT64_MAX : (1 + chance(64)) * CHUNK));
    else if (chance(2))
        MAY_BE_AWAY(populate(s->region, s->chunks * CHUNK));
    else
        drp_touch(s->region, chance((unsigned)s->chunks) * CHUNK, CHUNK);
}

static void step(void) {
    struct soaked *s = &client.regions[chance(REGIONS)];
    unsigned what = chance(32);

    if (!s->region)
        make(s);
    else if (what == 0)
        end(s);
    else if (what < 3)
        drop(s);
    else if (what < 5)
        set(s);
    else if (what < 12)
        look(s);
    else
        use_chunk(s);
}

/* false: told to end. */
static bool hear(int socket) {
    struct pollfd input = {.fd = socket, .events = POLLIN};
    char word;

    if (poll(&input, 1, (int)chance(3)) == 0)
        return true;
    child_check(read(socket, &word, 1) == 1);
    return word == 'p' && child_say(socket, 'p');
}

void soak_client_run(int socket, void *data) {
    struct drp_config native = {.struct_size = sizeof(native), .name = "soak-native", .backend = DRP_BACKEND_NATIVE};
    size_t descriptors = own_descriptors();

    client.seed = *(unsigned *)data;
    client.value = (uint64_t)client.seed << 32;
    UNTIL_DONE(drp_new(&client.d, NULL));
    (void)drp_new(&client.native, &native);
    child_check(child_say(socket, 'r'));
    while (hear(socket))
        step();
    for (size_t i = 0; i < REGIONS; i++)
        if (client.regions[i].region)
            end(&client.regions[i]);
    client.native = drp_free(client.native);
    client.d = drp_free(client.d);
    child_check(own_descriptors() == descriptors);
}

void soak_client_count(int socket, void *data) {
    struct drp_region *region;
    uint64_t freed, sum = 0;
    struct drp *d;
    char word;

    client.seed = *(unsigned *)data;
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, CHUNKS_MAX * CHUNK, NULL) == 0);
    for (unsigned i = 0; i < 100; i++) {
        size_t first = chance(CHUNKS_MAX), n = 1 + chance((unsigned)(CHUNKS_MAX - first));

        memset((char *)drp_region_address(region) + first * CHUNK, 1, n * CHUNK);
        first = chance(CHUNKS_MAX), n = 1 + chance((unsigned)(CHUNKS_MAX - first));
        child_check(drp_drop(region, first * CHUNK, n * CHUNK, &freed, NULL) == 0);
        sum += freed;
    }
    child_check(write(socket, &sum, sizeof(sum)) == (ssize_t)sizeof(sum));
    child_hear(socket, &word);
    drp_region_free(region);
    drp_free(d);
}
