/* SPDX-License-Identifier: MIT */
/* The daemon's policy, called as daemon/plan.c calls it, and what it has to be better than. */

#include "contender.h"

#include "world.h"

#include <stdlib.h>
#include <time.h>

#define VICTIMS 1024
#define SLICE (UINT64_C(16) << 20)

static uint64_t random_state;

void contender_seed(uint64_t seed) {
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 88172645463325252;
}

static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* ---- ours ---- */

static uint64_t now_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static size_t plan(struct world *world, struct policy_region *regions, size_t n, uint64_t bytes,
                   struct policy_victim *victims) {
    uint64_t began = now_ns(), planned, spent;
    size_t count = policy_plan(regions, n, bytes, world_tick(world), victims, VICTIMS, &planned);

    spent = now_ns() - began;
    world->plans++;
    world->plan_ns += spent;
    if (spent > world->plan_most)
        world->plan_most = spent;
    return count;
}

/* Slice by slice; one that finds nothing there, and learns nothing, is the last. */
static void drop_ours(struct world *world, uint64_t domain, uint64_t bytes) {
    static struct policy_victim victims[VICTIMS];
    size_t n = world->trace->n_regions, described = 0;
    struct policy_region *regions = calloc(n + 1, sizeof(*regions));
    uint32_t *of = calloc(n + 1, sizeof(*of));

    if (!regions || !of)
        abort();
    for (uint32_t i = 0; i < n; i++)
        if (world_is_in(world, &world->regions[i], domain)) {
            of[described] = i;
            regions[described++] = world->regions[i].policy;
        }
    for (bool progress = true; progress && bytes > 0;) {
        uint64_t freed = 0, cleared = world->cleared;
        size_t count = plan(world, regions, described, bytes < SLICE ? bytes : SLICE, victims);

        for (size_t i = 0; i < count; i++)
            for (uint64_t k = 0; k < victims[i].chunk_count; k++)
                freed += world_drop(world, &world->regions[of[victims[i].region]], victims[i].first_chunk + k);
        bytes -= freed < bytes ? freed : bytes;
        progress = freed > 0 || world->cleared > cleared;
    }
    free(regions);
    free(of);
}

/* ---- the others ---- */

struct candidate {
    uint64_t key;
    struct world_region *region;
    uint64_t chunk;
};

static uint64_t key_seen(const struct world_chunk *chunk) {
    return chunk->seen;
}

static uint64_t key_since(const struct world_chunk *chunk) {
    return chunk->since;
}

static uint64_t key_random(const struct world_chunk *chunk) {
    (void)chunk;
    return random_next();
}

static uint64_t key_used(const struct world_chunk *chunk) {
    return chunk->used;
}

/* Zeros first, which nobody can miss a second time, then what is missed last. */
static uint64_t key_next(const struct world_chunk *chunk) {
    return chunk->valid ? UINT64_MAX - chunk->next : 0;
}

static int compare_candidates(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->region != y->region)
        return x->region < y->region ? -1 : 1;
    return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

/* The lowest keys first. */
static void drop_lowest(struct world *world, uint64_t domain, uint64_t bytes,
                        uint64_t (*key)(const struct world_chunk *chunk)) {
    struct candidate *candidates;
    size_t n = 0, total = 0;

    for (size_t i = 0; i < world->trace->n_regions; i++)
        total += world->regions[i].shape->chunks;
    candidates = malloc((total + 1) * sizeof(*candidates));
    if (!candidates)
        abort();
    for (size_t i = 0; i < world->trace->n_regions; i++) {
        struct world_region *region = &world->regions[i];

        if (!world_is_in(world, region, domain))
            continue;
        for (uint64_t k = 0; k < region->shape->chunks; k++)
            if (region->chunks[k].resident)
                candidates[n++] = (struct candidate){key(&region->chunks[k]), region, k};
    }
    if (n > 0)
        qsort(candidates, n, sizeof(*candidates), compare_candidates);
    for (size_t i = 0; i < n && bytes > 0; i++) {
        uint64_t freed = world_drop(world, candidates[i].region, candidates[i].chunk);

        bytes -= freed < bytes ? freed : bytes;
    }
    free(candidates);
}

static void drop_lru(struct world *world, uint64_t domain, uint64_t bytes) {
    drop_lowest(world, domain, bytes, key_seen);
}

static void drop_fifo(struct world *world, uint64_t domain, uint64_t bytes) {
    drop_lowest(world, domain, bytes, key_since);
}

static void drop_random(struct world *world, uint64_t domain, uint64_t bytes) {
    drop_lowest(world, domain, bytes, key_random);
}

static void drop_all_seeing(struct world *world, uint64_t domain, uint64_t bytes) {
    drop_lowest(world, domain, bytes, key_used);
}

static void drop_min(struct world *world, uint64_t domain, uint64_t bytes) {
    drop_lowest(world, domain, bytes, key_next);
}

const struct contender contenders[N_CONTENDERS] = {
    [CONTENDER_OURS] = {"ours", drop_ours, 1},
    [CONTENDER_LRU] = {"lru", drop_lru, 1},
    [CONTENDER_FIFO] = {"fifo", drop_fifo, 1},
    [CONTENDER_RANDOM] = {"random", drop_random, 5},
    [CONTENDER_ALL_SEEING] = {"lru+", drop_all_seeing, 1},
    [CONTENDER_MIN] = {"min", drop_min, 1},
};
