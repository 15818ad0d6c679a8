/* SPDX-License-Identifier: MIT */
#include "restart-load.h"

#include "connected.h"
#include "fixture.h"
#include "page-check.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)65536)
#define STRIDE 97 /* chunks: most touches are the first ones of their 2 MiB */
#define WAIT_MS 60000
#define FILLER 0x5a

static struct {
    pthread_t thread;
    char *area;
    size_t chunks;
    _Atomic bool stop;
    _Atomic uint64_t touches, wrong;
    _Atomic uint64_t slowest; /* ns */
} toucher;

/* A word of each chunk counts. Only this thread writes there. */
static void *touch(void *data) {
    uint64_t *last = calloc(toucher.chunks, sizeof(*last));

    (void)data;
    for (uint64_t n = 1; !atomic_load(&toucher.stop); n++) {
        size_t chunk = n * STRIDE % toucher.chunks;
        volatile uint64_t *word = (volatile uint64_t *)(void *)(toucher.area + chunk * CHUNK);

        if (!touch_word(word, &last[chunk], n, &toucher.slowest))
            atomic_fetch_add(&toucher.wrong, 1);
        atomic_fetch_add(&toucher.touches, 1);
    }
    free(last);
    return NULL;
}

static uint64_t *pinned_words(const struct load *load) {
    return drp_region_address(load->pinned);
}

static void check_pinned(const struct load *load) {
    const uint64_t *words = pinned_words(load);
    size_t n = load->half / sizeof(*words), i = 0;

    while (i < n && words[i] == i + 1)
        i++;
    ck_assert_msg(i == n, "word %zu of what is pinned is %llu", i, (unsigned long long)words[i]);
    ck_assert_uint_eq(drp_generation(load->pinned, 0, load->half), load->generation);
}

void load_begin(struct load *load, size_t half, size_t busy) {
    uint64_t *words;

    *load = (struct load){.half = half};
    ck_assert_msg(drp_new(&load->d, NULL) == 0, "%s", drp_detail());
    ck_assert_int_eq(drp_region_new(&load->pinned, load->d, 2 * half, NULL), 0);
    ck_assert_int_eq(drp_region_new(&load->busy, load->d, busy, NULL), 0);
    ck_assert_int_eq(drp_pin(load->pinned, 0, half, &load->generation), 0);
    words = pinned_words(load);
    for (size_t i = 0; i < half / sizeof(*words); i++)
        words[i] = i + 1;
    toucher.area = drp_region_address(load->busy);
    toucher.chunks = busy / CHUNK;
    atomic_store(&toucher.stop, false);
    atomic_store(&toucher.touches, 0);
    atomic_store(&toucher.wrong, 0);
    atomic_store(&toucher.slowest, 0);
    ck_assert_int_eq(pthread_create(&toucher.thread, NULL, touch, NULL), 0);
}

void load_await_reconnect(const struct load *load, uint64_t n) {
    uint64_t deadline = deadline_in(WAIT_MS);
    struct drp_stats stats;

    while (drp_get_stats(load->d, &stats) < 0 || stats.reconnects < n) {
        ck_assert_msg(now_ms() < deadline, "the library does not find the service again");
        nap_ms(5);
    }
}

void load_check(const struct load *load) {
    char *rest = (char *)drp_region_address(load->pinned) + load->half;
    uint64_t touches = atomic_load(&toucher.touches), deadline = deadline_in(WAIT_MS), pinned;

    ck_assert(connected_becomes(load->pinned, true, WAIT_MS));
    ck_assert(connected_becomes(load->busy, true, WAIT_MS));
    memset(rest, FILLER, load->half);
    ck_assert_int_eq(drp_drop(load->pinned, 0, 2 * load->half, NULL, &pinned), 0);
    ck_assert_uint_eq(pinned, load->half);
    ck_assert(is_zero(rest, load->half));
    check_pinned(load);
    ck_assert_int_eq(drp_drop(load->busy, 0, drp_region_size(load->busy), NULL, NULL), 0);
    for (; atomic_load(&toucher.touches) < touches + toucher.chunks; nap_ms(1)) /* each chunk was looked at */
        ck_assert_msg(now_ms() < deadline, "no touch goes on");
    ck_assert_uint_eq(atomic_load(&toucher.wrong), 0);
}

uint64_t load_slowest(void) {
    return atomic_exchange(&toucher.slowest, 0);
}

void load_end(struct load *load) {
    atomic_store(&toucher.stop, true);
    pthread_join(toucher.thread, NULL);
    ck_assert_uint_eq(atomic_load(&toucher.wrong), 0);
    check_pinned(load);
    ck_assert_int_eq(drp_unpin(load->pinned, 0, load->half), 0);
    load->pinned = drp_region_free(load->pinned);
    load->busy = drp_region_free(load->busy);
    load->d = drp_free(load->d);
}
