/* SPDX-License-Identifier: MIT */

/*
 * Regions without the service: private memory of this process.
 *
 * native: MAP_DROPPABLE. The kernel drops a page whenever it likes, and a page that was dropped and touched again is like one that never was there. So
 * there are neither pins nor generations, and the region has no pages for them: its struct pins has a size of 0, which sends every call to its
 * slow path, and that to local_refuse(). Tried on 6.18, and found wanting: mlock(2) says 0 and locks nothing; userfaultfd refuses the memory; mincore(2)
 * sees what is gone now and not what was gone meanwhile; a page that the kernel holds for somebody (a pipe by vmsplice(2), a registered buffer of io_uring) stays,
 * but then for system calls on each pin, and out of a limit that the service would not have.
 *
 * none: plain memory, with a state page and a pin page of our own, on which all of pin.c works. Only drp_drop() ever drops, by the daemon's half of the
 * protocol of pages.h: odd, look at the pins, free, next even. Several threads may, so a chunk is claimed by a compare-exchange.
 *
 * All of it is wiped by the kernel in a child after fork(2), whoever makes it.
 */

#include "local.h"

#include "choice.h"
#include "client.h"
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define SHIFT_PAGE 12
#define SHIFT_DEFAULT 16
#define SHIFT_HUGE 21
#define BLOCK ((size_t)512) /* pages looked at at once */

/* /proc/PID/pagemap: present, swapped. */
#define PAGEMAP_THERE (UINT64_C(3) << 62)

/* Linux 4.17. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Nobody drops by age here. */
static struct drp_clock_page clock_page = {.magic = DRP_CLOCK_MAGIC};

int local_refuse(void) {
    return error_detail(
        -EOPNOTSUPP,
        "the region's backend is 'native': the kernel keeps nothing for a pin and does not tell what it drops; the "
        "backend 'daemon' does");
}

int local_refuse_limit(const struct drp_region *r) {
    return error_detail(-EOPNOTSUPP,
                        r->backend == DRP_BACKEND_NONE
                            ? "the region's backend is 'none', which never drops: it has no budget, share and priority"
                            : "no service has this native region: the kernel alone decides what it drops of it");
}

/* ---- making ---- */

bool local_has_huge(void) {
    char text[64] = "";
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    if (read(fd, text, sizeof(text) - 1) < 0)
        text[0] = '\0';
    close(fd);
    return text[0] != '\0' && !strstr(text, "[never]");
}

bool local_has_merging(void) {
    return access("/sys/kernel/mm/ksm/run", F_OK) == 0;
}

/* What of the wishes can be had on this system. */
static int find_given(struct drp_region *r, const struct drp_region_options *o, uint64_t *ret) {
    uint64_t required = o->required & ~OPTIONS_VALUES, given = required | (o->preferred & ~OPTIONS_VALUES);
    /* A part of a huge page is not dropped by itself, but by the kernel. */
    bool small = r->backend == DRP_BACKEND_NONE && o->chunk_size && o->chunk_size < (size_t)1 << SHIFT_HUGE;
    char text[OPTIONS_TEXT_SIZE];
    int error;

    if ((given & DRP_REGION_HUGE) && (small || !local_has_huge()))
        given &= ~DRP_REGION_HUGE;
    if ((given & DRP_REGION_MERGEABLE) && !local_has_merging())
        given &= ~DRP_REGION_MERGEABLE;
    error = signal_ask(r, o, &given);
    if (error < 0)
        return error;
    if (given & DRP_REGION_SIGNAL)
        given &= ~DRP_REGION_HUGE;
    if (required & ~given)
        return error_detail(
            -EOPNOTSUPP, "the kernel here does not give %s (see 'droppablectl probe'): make it preferred to go without",
            options_text(required & ~given, text));
    *ret = given;
    return 0;
}

/* The kernel drops page by page, whatever was asked for, and decides which of them are huge, too. */
static unsigned choose_shift(const struct drp_region *r, const struct drp_region_options *o) {
    if (r->backend == DRP_BACKEND_NATIVE)
        return SHIFT_PAGE;
    if (r->granted & DRP_REGION_HUGE)
        return SHIFT_HUGE;
    return o->chunk_size ? (unsigned)__builtin_ctzll(o->chunk_size) : SHIFT_DEFAULT;
}

/* Of which nothing is said of whether it is required: somebody has to keep it. */
static bool is_plain_budget(const struct drp_region_options *o) {
    return o->budget && !((o->required | o->preferred) & DRP_REGION_BUDGET);
}

/* Fork lock held. */
static int map_data(struct drp_region *r) {
    int type = r->backend == DRP_BACKEND_NATIVE ? MAP_DROPPABLE : MAP_PRIVATE, error;
    void *p = NULL;

    error = region_reserve(r->size, 0, &p);
    if (error < 0)
        return error;
    r->address = p;
    if (mmap(p, r->size, PROT_READ | PROT_WRITE, type | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return error_detail(-errno, "cannot map the region: %s", strerror(errno));
    error = options_apply(r, atomic_load(&r->options));
    return error == 0 && r->granted & DRP_REGION_SIGNAL ? signal_register(r) : error;
}

/* Fork lock held. */
static int make_page(size_t size, void **ret) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return error_detail(-errno, "no memory for the pins of a region: %s", strerror(errno));
    *ret = p;
    madvise(p, size, MADV_DONTDUMP);
    return madvise(p, size, MADV_WIPEONFORK) < 0
               ? error_detail(-errno, "cannot keep the region's pins out of child processes: %s", strerror(errno))
               : 0;
}

/* Fork lock held. */
static int make_pages(struct drp_region *r) {
    int error = make_page(drp_state_bytes(r->chunk_total), &r->state);

    if (error == 0)
        error = make_page(drp_pin_bytes(r->chunk_total), &r->pin);
    if (error < 0)
        return error;
    pins_set_state(&r->pins, r->state, 0);
    pins_set_pins(&r->pins, r->pin, 0);
    r->pins.clock = &clock_page;
    atomic_store(&r->pins.size, r->size);
    return 0;
}

static int make(struct drp_region *r, size_t size, const struct drp_region_options *o) {
    size_t unit;
    int error = find_given(r, o, &r->granted);

    if (error < 0)
        return error;
    if (r->backend == DRP_BACKEND_NONE && is_plain_budget(o))
        return local_refuse_limit(r);
    r->budget = o->budget;
    r->share = o->share;
    r->priority = (uint8_t)o->priority;
    if (r->backend == DRP_BACKEND_NATIVE)
        r->granted |= DRP_REGION_NO_PINS | DRP_REGION_NO_SWAP;
    r->pins.chunk_shift = choose_shift(r, o);
    r->pins.native = r->backend == DRP_BACKEND_NATIVE;
    unit = (size_t)1 << (r->granted & DRP_REGION_HUGE ? SHIFT_HUGE : r->pins.chunk_shift);
    r->size = (size + unit - 1) & ~(unit - 1);
    r->chunk_total = r->size >> r->pins.chunk_shift;
    atomic_store(&r->options, r->granted);
    fork_lock();
    error = map_data(r);
    if (error == 0 && r->backend == DRP_BACKEND_NONE)
        error = make_pages(r);
    if (error == 0)
        error = locate_add(r);
    fork_unlock();
    return error;
}

/*
 * If there is a service, it is told of the region, later where that cannot be now; but a limit that must be kept is from now on, or not at all. What it
 * allows is in *ret, which is left as it is where nobody says.
 */
static int tell(struct drp_region *r, const struct drp_region_options *o, struct drp_region_limits *ret) {
    int error = native_tell(r);

    if (error < 0 && (is_plain_budget(o) || (o->required & OPTIONS_LIMITS)))
        return -EOPNOTSUPP;
    if (error_is_shortage(error))
        watcher_offer(r);
    if (error == 0 && ((o->required | o->preferred) & OPTIONS_LIMITS))
        (void)limits_get(r, ret);
    return 0;
}

int local_new(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options,
              enum drp_backend backend) {
    struct drp_region_limits limits = {.budget = UINT64_MAX}; /* nobody's */
    struct drp_region *r = region_alloc(d, NULL);
    int error;

    if (!r)
        return error_detail(-ENOMEM, "no memory for a region");
    r->backend = backend;
    if (backend == DRP_BACKEND_NATIVE)
        context_look_again(d);
    error = make(r, size, options);
    if (error == 0) {
        pthread_mutex_lock(&d->regions_lock);
        r->phase = REGION_LIVE;
        pthread_mutex_unlock(&d->regions_lock);
        if (backend == DRP_BACKEND_NATIVE)
            error = tell(r, options, &limits);
    }
    if (error == 0)
        error = options_judge(r, options, &limits);
    if (error < 0) {
        region_end(r, true);
        return error;
    }
    (void)options_tell(r);
    *ret = r;
    return 0;
}

bool local_fork_child(const struct drp_region *r) {
    void *p;

    if (r->phase == REGION_INHERITED || !r->address || !(atomic_load(&r->options) & DRP_REGION_FORK_ABSENT))
        return true;
    p = mmap(r->address, r->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != MAP_FAILED && p != r->address)
        munmap(p, r->size);
    return p == r->address;
}

/* ---- dropping ---- */

struct dropping {
    struct drp_region *r;
    uint64_t freed, pinned;
};

/* With a descriptor that no child gets: it would show it the parent's memory. */
static ssize_t read_pagemap(uint64_t *words, size_t size, const char *at) {
    off_t offset = (off_t)((uintptr_t)at / PAGE * sizeof(*words));
    ssize_t got = -1;
    int fd;

    fork_lock();
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        got = pread(fd, words, size, offset);
        close(fd);
    }
    fork_unlock();
    return got;
}

/* Of n pages from an address on, at most BLOCK: how many are there, in memory or in swap? Where nobody tells all count as resident. */
static size_t count_pages(const char *at, size_t n) {
    uint64_t words[BLOCK];
    ssize_t got = read_pagemap(words, n * sizeof(words[0]), at);
    size_t there = 0;

    if (got != (ssize_t)(n * sizeof(words[0])))
        return n;
    for (size_t i = 0; i < n; i++)
        there += (words[i] & PAGEMAP_THERE) != 0;
    return there;
}

static size_t count_there(const struct drp_region *r, size_t start, size_t length) {
    const char *at = (const char *)r->address + start;
    size_t there = 0;

    for (size_t done = 0; done < length; done += BLOCK * PAGE)
        there += count_pages(at + done, (length - done < BLOCK * PAGE ? length - done : BLOCK * PAGE) / PAGE);
    return there;
}

/* The chunk's generation is odd from here on, and ours to settle. Returns what it was. */
static uint32_t claim(struct pins *p, size_t chunk) {
    uint32_t was = atomic_load(&p->generations[chunk]);

    while ((was & 1) || !atomic_compare_exchange_weak(&p->generations[chunk], &was, was + 1)) {
        if (was & 1)
            pins_wait_settled(p, chunk << p->chunk_shift, 1);
        was = atomic_load(&p->generations[chunk]);
    }
    return was;
}

static void settle(struct pins *p, size_t chunk, uint32_t generation) {
    atomic_store(&p->generations[chunk], generation);
    if (atomic_load(&p->header->waiters) > 0)
        syscall(SYS_futex, &p->generations[chunk], FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* A chunk in which nothing is there is not dropped: nothing is lost. */
static int drop_chunk(struct dropping *d, size_t chunk) {
    struct pins *p = &d->r->pins;
    size_t start = chunk << p->chunk_shift, length = (size_t)1 << p->chunk_shift;
    size_t there = count_there(d->r, start, length);
    uint32_t was;
    int error = 0;

    if (there == 0)
        return 0;
    if (atomic_load(&p->cells[chunk].count) > 0) {
        d->pinned += there * PAGE;
        return 0;
    }
    was = claim(p, chunk);
    if (atomic_load(&p->cells[chunk].count) > 0) { /* meanwhile */
        settle(p, chunk, was);
        d->pinned += there * PAGE;
        return 0;
    }
    if (madvise((char *)d->r->address + start, length, MADV_DONTNEED) < 0)
        error = error_detail(-errno, "the kernel does not free the memory of the region: %s", strerror(errno));
    settle(p, chunk, was + 2); /* an advice that fails may have done a part */
    atomic_fetch_add(&p->state->drops, 1);
    d->freed += there * PAGE;
    return error;
}

static int drop_plain(struct dropping *d, size_t start, size_t end) {
    unsigned shift = d->r->pins.chunk_shift;
    int error = 0;

    for (size_t chunk = start >> shift; chunk < end >> shift && error == 0; chunk++)
        error = drop_chunk(d, chunk);
    if (d->freed > 0)
        lost_tell(d->r->context);
    return error;
}

/* MADV_PAGEOUT would leave pages that were only read. */
static int drop_native(struct dropping *d, size_t start, size_t end) {
    d->freed = count_there(d->r, start, end - start) * PAGE;
    return madvise((char *)d->r->address + start, end - start, MADV_DONTNEED) < 0
               ? error_detail(-errno, "the kernel does not free the memory of the region: %s", strerror(errno))
               : 0;
}

int local_drop(struct drp_region *r, size_t start, size_t end, uint64_t *ret_freed, uint64_t *ret_pinned) {
    struct dropping d = {.r = r};
    int error = 0;

    if (start < end)
        error = r->backend == DRP_BACKEND_NATIVE ? drop_native(&d, start, end) : drop_plain(&d, start, end);
    if (error < 0)
        return error;
    if (ret_freed)
        *ret_freed = d.freed;
    if (ret_pinned)
        *ret_pinned = d.pinned;
    return 0;
}

/* ---- limits ---- */

void local_get_limits(const struct drp_region *r, struct drp_region_limits *ret) {
    *ret = (struct drp_region_limits){.budget = UINT64_MAX, .resident = count_there(r, 0, r->size) * PAGE};
}
