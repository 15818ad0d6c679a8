/* SPDX-License-Identifier: MIT */
/*
 * The region is one span, so that each drop arms it and the next touch is one fault that the service answers. Times go into a table that
 * is shared with the test, which says what phase they are of; one writer, and the test reads after the phase.
 */

#include "attack-probe.h"

#include "fixture.h"

#include <check.h>
#include <droppable/droppable.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define SIZE ((size_t)2 << 20)
#define NAP_NS 100000
#define SAMPLES 65536
#define NO_PHASE ((enum probe_phase)PROBE_PHASES)
#define HANGS_MS 20000

struct samples {
    _Atomic size_t n;
    uint32_t fault_ns[SAMPLES], call_ns[SAMPLES];
};

struct probe_table {
    _Atomic bool stop;
    _Atomic unsigned phase;
    _Atomic uint64_t rounds;
    uint64_t wanted; /* rounds */
    struct samples phases[PROBE_PHASES];
};

static uint32_t since(uint64_t start) {
    uint64_t took = now_ns() - start;

    return took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
}

static void note(struct probe_table *table, unsigned phase, uint32_t fault_ns, uint32_t call_ns) {
    struct samples *samples;
    size_t n;

    if (phase != NO_PHASE && phase == atomic_load(&table->phase)) {
        samples = &table->phases[phase];
        n = atomic_load(&samples->n);
        if (n < SAMPLES) {
            samples->fault_ns[n] = fault_ns;
            samples->call_ns[n] = call_ns;
            atomic_store(&samples->n, n + 1);
        }
    }
    atomic_fetch_add(&table->rounds, 1);
}

static void work(struct probe_table *table, struct drp_region *region) {
    unsigned char *p = drp_region_address(region);

    for (uint64_t round = 1; !atomic_load(&table->stop); round++) {
        unsigned phase = atomic_load(&table->phase);
        uint64_t start, freed = 0;
        uint32_t fault_ns, call_ns;

        start = now_ns();
        child_check(*(volatile unsigned char *)p == 0);
        fault_ns = since(start);
        memset(p, (int)(round % 255) + 1, 65536);
        child_check(is_filled(p, (int)(round % 255) + 1, 65536));
        start = now_ns();
        child_check(drp_drop(region, 0, SIZE, &freed, NULL) == 0);
        call_ns = since(start);
        child_check(freed > 0);
        note(table, phase, fault_ns, call_ns);
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

static void run(int socket, void *data) {
    struct drp_config config = {.struct_size = sizeof(config), .name = "honest"};
    struct probe_table *table = data;
    struct drp_region *region;
    struct drp_stats stats;
    struct drp *d;

    (void)socket;
    child_check(drp_new(&d, &config) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    memset(drp_region_address(region), 1, SIZE);
    child_check(drp_drop(region, 0, SIZE, NULL, NULL) == 0);
    work(table, region);
    child_check(drp_get_stats(d, &stats) == 0);
    child_check(stats.reconnects == 0);
    /* An arming that had to wait too long lets a fault pass by; that is seldom. */
    child_check(stats.intercepted_faults > atomic_load(&table->rounds) / 10 * 9);
    drp_region_free(region);
    drp_free(d);
}

void probe_start(struct probe *probe) {
    probe->table = mmap(NULL, sizeof(*probe->table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(probe->table, MAP_FAILED);
    probe_enter(probe, NO_PHASE, 10);
    child_start(&probe->child, run, probe->table);
    probe_leave(probe);
}

void probe_stop(struct probe *probe) {
    atomic_store(&probe->table->stop, true);
    child_end(&probe->child);
    munmap(probe->table, sizeof(*probe->table));
}

void probe_reset(struct probe *probe) {
    for (size_t i = 0; i < PROBE_PHASES; i++)
        atomic_store(&probe->table->phases[i].n, 0);
}

void probe_enter(struct probe *probe, enum probe_phase phase, size_t wanted) {
    probe->table->wanted = atomic_load(&probe->table->rounds) + wanted + 1; /* one began before */
    atomic_store(&probe->table->phase, phase);
}

void probe_leave(struct probe *probe) {
    uint64_t deadline = now_ms() + HANGS_MS;

    while (atomic_load(&probe->table->rounds) < probe->table->wanted) {
        ck_assert_msg(now_ms() < deadline, "the honest client hangs");
        nap_ms(1);
    }
    atomic_store(&probe->table->phase, NO_PHASE);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

void probe_figures(const struct probe *probe, enum probe_phase phase, struct probe_figures *ret) {
    struct samples *samples = &probe->table->phases[phase];
    size_t n = atomic_load(&samples->n);

    ck_assert_uint_ge(n, 1);
    qsort(samples->fault_ns, n, sizeof(uint32_t), compare);
    qsort(samples->call_ns, n, sizeof(uint32_t), compare);
    *ret = (struct probe_figures){.fault_p50 = samples->fault_ns[n / 2] / 1e3,
                                  .fault_p99 = samples->fault_ns[n * 99 / 100] / 1e3,
                                  .fault_p995 = samples->fault_ns[n * 199 / 200] / 1e3,
                                  .call_p99 = samples->call_ns[n * 99 / 100] / 1e3};
}
