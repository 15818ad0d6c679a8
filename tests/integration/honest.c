/* SPDX-License-Identifier: MIT */
/*
 * The honest client: writes a region, has it dropped, reads zeros, over and over. An operation is one of these: a megabyte of faults, a drop, or
 * another megabyte of faults. A pinned chunk must never change. Without a service it goes on: drops fail then, and nothing is lost.
 * Its figures are in memory that it shares with the test.
 */

#include "honest.h"

#include "fixture.h"

#include <check.h>
#include <droppable/droppable.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define SIZE ((size_t)1 << 20)
#define CHUNK ((size_t)64 << 10)
#define PROGRESS_MS 60000
#define BUCKETS 48

struct honest_figures {
    _Atomic bool stop;
    _Atomic uint64_t operations;
    _Atomic uint64_t longest_ns;
    _Atomic uint64_t wrong;
    _Atomic uint64_t reconnects;
    _Atomic uint64_t buckets[BUCKETS]; /* operations of 2^i ns and less than twice that */
};

static void note(struct honest_figures *figures, uint64_t started) {
    uint64_t took = now_ns() - started;
    unsigned bucket = took ? 63 - (unsigned)__builtin_clzll(took) : 0;

    if (took > atomic_load(&figures->longest_ns))
        atomic_store(&figures->longest_ns, took);
    atomic_fetch_add(&figures->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1], 1);
    atomic_fetch_add(&figures->operations, 1);
}

static void work(struct honest_figures *figures, struct drp *d, struct drp_region *region) {
    unsigned char *p = drp_region_address(region);
    bool away = false;

    for (uint64_t round = 1; !atomic_load(&figures->stop); round++) {
        uint64_t freed = 0, started = now_ns();
        struct drp_stats stats;
        int r;

        memset(p + CHUNK, (int)(round % 200 + 1), SIZE - CHUNK);
        note(figures, started);
        started = now_ns();
        r = drp_drop(region, 0, SIZE, &freed, NULL);
        note(figures, started);
        started = now_ns();
        if (r == 0 ? freed != SIZE - CHUNK || !is_zero(p + CHUNK, SIZE - CHUNK) : r != -ENOTCONN) {
            fprintf(stderr, "honest client: drop: %s, %llu bytes freed\n", drp_strerror(r), (unsigned long long)freed);
            atomic_fetch_add(&figures->wrong, 1);
        }
        if (!is_filled(p, 0xee, CHUNK))
            atomic_fetch_add(&figures->wrong, 1);
        note(figures, started);
        if (r < 0 || away) {
            away = r < 0;
            drp_get_stats(d, &stats);
            atomic_store(&figures->reconnects, stats.reconnects);
        }
        if (away)
            nap_ms(1);
    }
}

static void run(int socket, void *data) {
    struct drp_config config = {.struct_size = sizeof(config), .name = "honest"};
    struct drp_region *region = NULL;
    struct drp *d = NULL;

    (void)socket;
    child_check(drp_new(&d, &config) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    memset(drp_region_address(region), 0xee, CHUNK);
    child_check(drp_pin(region, 0, CHUNK, NULL) == 0);
    work(data, d, region);
    region = drp_region_free(region);
    d = drp_free(d);
}

void honest_start(struct honest *honest) {
    honest->figures = mmap(NULL, sizeof(*honest->figures), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(honest->figures, MAP_FAILED);
    child_start(&honest->child, run, honest->figures);
    honest_progress(honest, 100);
    honest_reset(honest);
}

void honest_reset(struct honest *honest) {
    atomic_store(&honest->figures->operations, 0);
    atomic_store(&honest->figures->longest_ns, 0);
    for (size_t i = 0; i < BUCKETS; i++)
        atomic_store(&honest->figures->buckets[i], 0);
}

void honest_progress(struct honest *honest, uint64_t operations) {
    uint64_t target = atomic_load(&honest->figures->operations) + operations, deadline = now_ms() + PROGRESS_MS;

    while (atomic_load(&honest->figures->operations) < target) {
        ck_assert_msg(now_ms() < deadline, "the honest client hangs: %llu operations to go",
                      (unsigned long long)(target - atomic_load(&honest->figures->operations)));
        ck_assert_uint_eq(atomic_load(&honest->figures->wrong), 0);
        nap_ms(1);
    }
}

uint64_t honest_longest_ns(const struct honest *honest) {
    return atomic_load(&honest->figures->longest_ns);
}

uint64_t honest_p99_ns(const struct honest *honest) {
    uint64_t slower = atomic_load(&honest->figures->operations) / 100, n = 0;

    for (size_t i = BUCKETS; i-- > 0;) {
        n += atomic_load(&honest->figures->buckets[i]);
        if (n > slower)
            return UINT64_C(2) << i;
    }
    return 0;
}

uint64_t honest_operations(const struct honest *honest) {
    return atomic_load(&honest->figures->operations);
}

uint64_t honest_reconnects(const struct honest *honest) {
    return atomic_load(&honest->figures->reconnects);
}

void honest_stop(struct honest *honest) {
    atomic_store(&honest->figures->stop, true);
    child_end(&honest->child);
    ck_assert_uint_eq(atomic_load(&honest->figures->wrong), 0);
    munmap(honest->figures, sizeof(*honest->figures));
}
