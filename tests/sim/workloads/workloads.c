/* SPDX-License-Identifier: MIT */
/*
 * Programs that are worth recording: caches of objects, each a run of chunks that remembers the generation at which it was filled, as
 * examples/cache.c does; and one that never pins. Each leaves with a status that is not 0 when something fails.
 */

#include "workloads.h"

#include "service.h"

#include <droppable/droppable.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK ((size_t)65536)
#define MIB ((size_t)1 << 20)
#define OBJECTS_MAX 4096

struct cache {
    struct drp *d;
    struct drp_region *region;
    size_t object; /* bytes */
    unsigned n;
    uint64_t generations[OBJECTS_MAX];
    bool filled[OBJECTS_MAX];
};

static uint64_t random_state = 88172645463325252;

static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 11;
}

void workloads_seed(uint64_t seed) {
    random_state += seed * UINT64_C(0x9e3779b97f4a7c15);
}

static unsigned random_below(unsigned n) {
    return (unsigned)(random_next() % n);
}

/* Zipf with exponent 1, near enough: rank n^u, spread as a hash would. */
static unsigned zipf(unsigned n) {
    double part = (double)random_next() / (double)(UINT64_C(1) << 53);
    unsigned rank = (unsigned)pow((double)n, part);

    return (unsigned)((rank >= n ? n - 1 : rank) * UINT64_C(2654435761) % n);
}

/* Sleeps until a moment; whoever is late does not try to catch up. */
static void pace(uint64_t *next_ns, uint64_t ns) {
    uint64_t now = now_ns();

    *next_ns += ns;
    if (*next_ns < now)
        *next_ns = now;
    else
        nanosleep(&(struct timespec){.tv_nsec = (long)(*next_ns - now)}, NULL);
}

static void cache_init(struct cache *cache, unsigned n, size_t object) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = CHUNK};

    *cache = (struct cache){.object = object, .n = n};
    if (n > OBJECTS_MAX || drp_new(&cache->d, NULL) < 0)
        _exit(80);
    if (drp_region_new(&cache->region, cache->d, n * object, &options) < 0)
        _exit(81);
}

/* Pins an object, makes it if it is not there, and reads it. */
static void cache_use(struct cache *cache, unsigned i) {
    volatile unsigned char *data = (unsigned char *)drp_region_address(cache->region) + i * cache->object;
    uint64_t now;

    if (drp_pin(cache->region, i * cache->object, cache->object, &now) < 0)
        _exit(82);
    if (!cache->filled[i] || cache->generations[i] != now)
        memset((void *)data, (int)(i % 255 + 1), cache->object);
    cache->filled[i] = true;
    cache->generations[i] = now;
    for (size_t at = 0; at < cache->object; at += 4096)
        if (data[at] != i % 255 + 1)
            _exit(83);
    if (drp_unpin(cache->region, i * cache->object, cache->object) < 0)
        _exit(84);
}

static void cache_discard(struct cache *cache, unsigned i) {
    if (drp_drop(cache->region, i * cache->object, cache->object, NULL, NULL) < 0)
        _exit(85);
    cache->filled[i] = false;
}

static void cache_deinit(struct cache *cache) {
    drp_region_free(cache->region);
    drp_free(cache->d);
}

/* A page cache: popular objects, and every 15 s somebody reads a third of it once. */
static void run_page_cache(uint64_t ms, int log) {
    uint64_t end = now_ms() + ms, next = now_ns(), scan = now_ms() + 12000;
    static struct cache cache;
    unsigned at = 0;

    (void)log;
    cache_init(&cache, 800, 4 * CHUNK);
    while (now_ms() < end) {
        if (now_ms() > scan) {
            for (unsigned i = 0; i < cache.n / 3; i++, pace(&next, 3000000))
                cache_use(&cache, at++ % cache.n);
            scan = now_ms() + 15000;
        }
        cache_use(&cache, zipf(cache.n));
        pace(&next, 6000000);
    }
    cache_deinit(&cache);
}

/* Decoded images: the one that is looked at and its neighbours, forwards and backwards, now and then somewhere else. */
static void run_image_viewer(uint64_t ms, int log) {
    uint64_t end = now_ms() + ms, next = now_ns();
    static struct cache cache;
    unsigned position = 0, left = 0;
    int step = 1;

    (void)log;
    cache_init(&cache, 300, MIB);
    while (now_ms() < end) {
        if (left-- == 0) { /* turn back, or jump */
            step = -step;
            left = 20 + random_below(100);
            if (random_below(4) == 0)
                position = random_below(cache.n);
        }
        position = (position + cache.n + (unsigned)step) % cache.n;
        cache_use(&cache, position);
        cache_use(&cache, (position + cache.n + (unsigned)step) % cache.n);
        pace(&next, 40000000);
    }
    cache_deinit(&cache);
}

/* A compile cache: results are written once; headers' are read again and again, others a few times soon after, most never. */
static void run_compile_cache(uint64_t ms, int log) {
    uint64_t end = now_ms() + ms, next = now_ns();
    static struct cache cache;
    unsigned written = 0;

    (void)log;
    cache_init(&cache, 1600, 2 * CHUNK);
    while (now_ms() < end) {
        if (written >= cache.n) /* what was there is not wanted any more */
            cache_discard(&cache, written % cache.n);
        cache_use(&cache, written++ % cache.n);
        for (unsigned i = 0; i < 3; i++) {
            unsigned known = written < cache.n ? written : cache.n;

            cache_use(&cache,
                      i < 2 ? zipf(known) / 16 * 16 : (written - 1 - random_below(known < 64 ? known : 64)) % cache.n);
            pace(&next, 5000000);
        }
    }
    cache_deinit(&cache);
}

static void touch(const struct cache *cache, unsigned i, int log) {
    volatile unsigned char *data = (unsigned char *)drp_region_address(cache->region) + i * cache->object;
    size_t chunks = cache->object / CHUNK;

    dprintf(log, "%llu %zu %zu\n", (unsigned long long)now_ns(), i * chunks, chunks);
    for (size_t at = 0; at < cache->object; at += 4096)
        data[at]++;
}

/* Tables that are used as plain memory: a few all the time, others in turns, each 2 MiB or a half of it. */
static void run_never_pins(uint64_t ms, int log) {
    uint64_t end = now_ms() + ms, next = now_ns();
    static struct cache cache;
    unsigned turn = 0;

    cache_init(&cache, 200, MIB);
    for (unsigned i = 0; now_ms() < end; i++) {
        touch(&cache, zipf(cache.n), log);
        if (i % 8 == 0)
            touch(&cache, turn++ % cache.n, log);
        pace(&next, 20000000);
    }
    cache_deinit(&cache);
}

/* The working set moves on every 15 s; a part of it stays. */
static void run_phases(uint64_t ms, int log) {
    uint64_t began = now_ms(), next = now_ns();
    static struct cache cache;

    (void)log;
    cache_init(&cache, 900, 4 * CHUNK);
    while (now_ms() - began < ms) {
        unsigned phase = (unsigned)((now_ms() - began) / 15000) % 3, third = cache.n / 3;

        if (random_below(4) == 0)
            cache_use(&cache, random_below(90) * 10); /* in all phases */
        else
            cache_use(&cache, phase * third + zipf(third));
        pace(&next, 6000000);
    }
    cache_deinit(&cache);
}

const struct workload workloads[N_WORKLOADS] = {
    {"page-cache", "popular objects and scans, pinned", run_page_cache},
    {"image-viewer", "a window that moves back and forth, pinned", run_image_viewer},
    {"compile-cache", "written once, some of it read often, pinned", run_compile_cache},
    {"phases", "a working set that changes, pinned", run_phases},
    {"never-pins", "plain accesses", run_never_pins},
};
