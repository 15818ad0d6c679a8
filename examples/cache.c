/* SPDX-License-Identifier: MIT */

/*
 * A cache in droppable memory. Each slot is one chunk and remembers the generation at which it was filled: pinned, and
 * the same generation still, it is a hit; else it is computed. Exit status: 0 fine, 1 wrong, 77 no service.
 */

#include <droppable/droppable.h>
#include <stdio.h>

#define SLOTS 256
#define SLOT_SIZE 65536

struct cache {
    struct drp_region *region;
    uint64_t generations[SLOTS];
    bool filled[SLOTS];
    unsigned hits, lost;
};

/* Stands for a decoded image, a glyph, an index block. */
static void compute(unsigned key, unsigned char *data) {
    for (size_t i = 0; i < SLOT_SIZE; i++)
        data[i] = (unsigned char)(key * 31 + i + 1);
}

/* Pins the object of a key, computing it if need be. NULL: an error. The caller unpins it. */
static const unsigned char *cache_get(struct cache *cache, unsigned key) {
    size_t offset = (size_t)key * SLOT_SIZE;
    unsigned char *data = (unsigned char *)drp_region_address(cache->region) + offset;
    uint64_t now;

    if (drp_pin(cache->region, offset, SLOT_SIZE, &now) < 0)
        return NULL;
    if (cache->filled[key] && cache->generations[key] == now) {
        cache->hits++;
        return data;
    }
    cache->lost += cache->filled[key];
    compute(key, data);
    cache->generations[key] = now;
    cache->filled[key] = true;
    return data;
}

/* Reads every object. Number of wrong ones. */
static unsigned read_all(struct cache *cache) {
    unsigned wrong = 0;

    for (unsigned key = 0; key < SLOTS; key++) {
        const unsigned char *data = cache_get(cache, key);

        wrong += !data || data[0] != (unsigned char)(key * 31 + 1);
        if (data)
            drp_unpin(cache->region, (size_t)key * SLOT_SIZE, SLOT_SIZE);
    }
    return wrong;
}

int main(void) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = SLOT_SIZE};
    static struct cache cache;
    struct drp *d;
    unsigned wrong;
    int r;

    r = drp_new(&d, NULL);
    if (r < 0)
        return fprintf(stderr, "skipped: %s %s\n", drp_strerror(r), drp_detail()), 77;
    r = drp_region_new(&cache.region, d, (size_t)SLOTS * SLOT_SIZE, &options);
    wrong = r < 0 ? SLOTS : read_all(&cache); /* fills */
    if (r == 0)
        r = drp_drop(cache.region, 0, (size_t)SLOTS / 2 * SLOT_SIZE, NULL, NULL);
    if (r < 0)
        return fprintf(stderr, "%s %s\n", drp_strerror(r), drp_detail()), 1;
    wrong += read_all(&cache); /* one half is there, the other is computed again */
    printf("hits %u, lost %u, wrong %u\n", cache.hits, cache.lost, wrong);
    drp_free(d);
    return wrong == 0 && cache.hits + cache.lost == SLOTS && cache.lost >= SLOTS / 2 ? 0 : 1;
}
