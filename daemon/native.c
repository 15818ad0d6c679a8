/* SPDX-License-Identifier: MIT */
/*
 * Native regions: droppable memory of the kernel's own in a client, of which the daemon has no part. It counts what is resident by PAGEMAP_SCAN
 * (Linux 6.7), and drops by process_madvise(MADV_PAGEOUT), which for such memory frees the page and loses its content. To the policy they
 * are opaque regions: so many bytes, of which so many shall go. What the kernel drops by itself nobody hears of.
 *
 * The pagemap is the client's, opened by him. Both calls take his mmap lock, so they are made by the client's own dropper, in slices. A client can only name memory of his own: the calls go by
 * the pidfd of the process that made the connection. That it is droppable is read in smaps once; who maps something else there later would make us
 * count what cannot be dropped. So a slice that frees nothing has the range looked at again, and it is out if it no longer is what it was.
 *
 * Always: region->native is written by this thread alone, but for `asked`; others read.
 */

#include "native.h"

#include "crash-point.h"
#include "dropper.h"
#include "kernel.h"
#include "process.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
/* Linux 5.10. */
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

#define PAGE UINT64_C(4096)
#define SLICE (UINT64_C(16) << 20)
#define RANGES 512
/* A count goes on for so long at once, and is begun again after a hundred times what it took. */
#define MEASURE_NS UINT64_C(10000000)
#define MEASURE_STEP (UINT64_C(1) << 30)
#define MEASURE_PAUSE_NS UINT64_C(50000000)
#define MEASURE_COST 100
/* A client's regions are not gone through again for so long, if none of them was to be counted. */
#define WALK_PAUSE_NS UINT64_C(5000000)
/* What was there and could not be dropped is not offered for so long. */
#define HELD_NS UINT64_C(1000000000)
#define CHECK_NS UINT64_C(500000000)

/* Linux 6.7, <linux/fs.h>. */
struct scan_range {
    uint64_t start, end, categories;
};
struct scan {
    uint64_t size, flags, start, end, walk_end, ranges, n_ranges, max_pages;
    uint64_t inverted, mask, any_of, returned;
};
#define PAGEMAP_SCAN_REQUEST _IOWR('f', 16, struct scan)
#define SCAN_FILE (UINT64_C(1) << 2)
#define SCAN_PRESENT (UINT64_C(1) << 3)
#define SCAN_ZERO_PAGE (UINT64_C(1) << 5)

/*
 * The ranges of resident pages in [start, end), at most so many pages. Pages of zeros that were only read take no memory, and pages of files are no
 * droppable ones, whoever maps them there and how often. Returns their number; *ret_end is how far it came.
 */
static int scan(int pagemap, uint64_t start, uint64_t end, uint64_t max_pages, struct scan_range *ranges, size_t n,
                uint64_t *ret_end) {
    struct scan request = {
        .size = sizeof(request),
        .start = start,
        .end = end,
        .ranges = (uintptr_t)ranges,
        .n_ranges = n,
        .max_pages = max_pages,
        .inverted = SCAN_ZERO_PAGE | SCAN_FILE,
        .mask = SCAN_PRESENT | SCAN_ZERO_PAGE | SCAN_FILE,
        .returned = SCAN_PRESENT,
    };
    int found = ioctl(pagemap, PAGEMAP_SCAN_REQUEST, &request);

    if (found < 0)
        return -errno;
    *ret_end = request.walk_end;
    return found;
}

static uint64_t sum(const struct scan_range *ranges, int n) {
    uint64_t bytes = 0;

    for (int i = 0; i < n; i++)
        bytes += ranges[i].end - ranges[i].start;
    return bytes;
}

bool native_available(void) {
    struct scan_range range;
    uint64_t end;
    char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    int pagemap, found = 0;

    if (p == MAP_FAILED)
        return false;
    *(volatile char *)p = 1;
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap >= 0) {
        found = scan(pagemap, (uintptr_t)p, (uintptr_t)p + PAGE, 1, &range, 1, &end);
        close(pagemap);
    }
    munmap(p, PAGE);
    return found == 1;
}

static int open_client(const struct home *home, const struct region *region, const char *name) {
    return process_open(home->session->pid, region->dropper_fd, name);
}

static ssize_t advise(const struct region *region, struct iovec *ranges, size_t n, int advice) {
    return syscall(SYS_process_madvise, region->dropper_fd, ranges, n, advice, 0U);
}

static void set_resident(struct region *region, uint64_t bytes) {
    uint64_t before = atomic_exchange(&region->native.resident, bytes);

    if (region->native.counting)
        atomic_fetch_add(&region->native.counting->resident, bytes - before);
}

/* ---- checking ---- */

/* Up to where the range is covered by droppable memory; *start moves on. false: it is not. */
static bool cover(struct worker *worker, FILE *smaps, uint64_t *start, uint64_t end, uint64_t deadline) {
    uint64_t from = 0, to = 0;
    bool inside = false; /* of a line: a path may be long, and may read like anything */
    char line[512];

    while (*start < end && fgets(line, sizeof(line), smaps)) {
        bool rest = inside;

        inside = !strchr(line, '\n');
        if (rest)
            continue;
        if (strncmp(line, "VmFlags:", 8) == 0) {
            if (to <= *start)
                continue;
            if (from > *start || !strstr(line, " dp"))
                return false;
            *start = to;
        } else if (line[0] < 'A' || line[0] > 'Z') { /* the first line of a mapping: its addresses */
            if (sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to) != 2)
                return false;
            if (from >= end || kernel_thread_time() > deadline)
                return false;
            worker_call_begin(worker); /* each is one */
        }
    }
    return *start >= end;
}

void native_close(struct region *region) {
    set_resident(region, 0);
    if (region->native.pagemap >= 0)
        close(region->native.pagemap);
    if (region->handed_fd >= 0)
        close(region->handed_fd);
    region->native.pagemap = region->handed_fd = -1;
}

/*
 * Of a process that may be looked at: it has to be the client's own still, and not, say, a privileged program that runs in it by now, whose addresses are none of
 * the client's business. A file below /proc is root's where its process may not be looked at. It comes first: before
 * Linux 6.16 a scan of the pagemap of a process without memory brings the kernel down, and one without smaps is such a process.
 */
static int open_smaps(const struct region *region) {
    int fd = open_client(region->home, region, "smaps");
    struct stat st;

    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != region->home->session->uid)) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

/*
 * Is what runs in the process still the client's? It may be another's any time after, as the answer of any such question. One who has become another user
 * for a while, or who may not be looked at, has his region back when he is himself again.
 */
static bool is_still_clients(const struct region *region) {
    int fd = open_smaps(region);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/*
 * The client has opened it: who is neither he nor root may not, whatever he may look at. It is kept. Whose it is cannot be told; who hands over another
 * process's is planned for bytes that he has not, and hears what he could have read himself.
 */
static int take_pagemap(struct region *region) {
    struct scan_range range;
    uint64_t end, word;

    if (region->native.pagemap < 0) {
        region->native.pagemap = region->handed_fd;
        region->handed_fd = -1;
    }
    if (region->native.pagemap < 0)
        return -EBADF;
    /* One of a process without memory reads as empty. */
    if (pread(region->native.pagemap, &word, sizeof(word), (off_t)(region->native.address / PAGE * sizeof(word))) !=
            sizeof(word) ||
        scan(region->native.pagemap, region->native.address, region->native.address + PAGE, 1, &range, 1, &end) < 0)
        return -EINVAL;
    return 0;
}

static int check(struct region *region, uint64_t deadline) {
    struct iovec page = {(void *)(uintptr_t)region->native.address, PAGE};
    uint64_t start = region->native.address, end = start + region->size;
    FILE *smaps;
    int fd, r;

    fd = open_smaps(region);
    if (fd < 0)
        return fd;
    smaps = fdopen(fd, "r");
    if (!smaps) {
        close(fd);
        return -ENOMEM;
    }
    r = cover(&region->home->dropper.worker, smaps, &start, end, deadline) ? 0
        : kernel_thread_time() > deadline                                  ? -ETIMEDOUT
                                                                           : -EINVAL;
    fclose(smaps);
    if (r == 0)
        r = take_pagemap(region);
    if (r == 0 && advise(region, &page, 1, MADV_COLD) < 0)
        r = errno == EPERM ? -EPERM : -EINVAL;
    return r;
}

/* A client with much memory of all kinds makes this long, as often as he likes: it does not run before others. */
void native_check(struct region *region) {
    struct worker *worker = &region->home->dropper.worker;
    int r;

    dropper_set_reading(region->home, true);
    worker_call_begin(worker);
    r = check(region, kernel_thread_time() + CHECK_NS);
    worker_call_end(worker);
    dropper_set_reading(region->home, false);
    atomic_store(&region->native.valid, r == 0);
    region->native.refused = r < 0 && r != -EINVAL;
    region->adopt_error = r;
}

/* ---- dropping ---- */

/* There was something, and little of it went. */
static void look_again(struct region *region) {
    native_check(region);
    region->native.at = 0;
    atomic_store(&region->native.asked, false);
    set_resident(region, 0);
    atomic_store(&region->native.not_before, kernel_now() + HELD_NS);
}

static void note(struct home *home, struct drop_job *job, uint64_t freed, uint64_t failed) {
    struct region *region = job->region;
    uint64_t resident = atomic_load(&region->native.resident);

    set_resident(region, resident > freed ? resident - freed : 0);
    counter_add(&region->dropped_bytes, freed);
    counter_add(&home->counters.dropped_bytes, freed);
    home_lock(home);
    if (job->request) {
        counter_add(&job->request->freed, freed);
        counter_add(&job->request->unseen, freed);
        counter_add(&job->request->failed, failed);
    }
    if (job->sweep)
        job->limit = job->limit > freed + PAGE ? job->limit - freed : 0;
    home_unlock(home);
}

/* Under way with the client's memory: what is resident from an address on goes, at most so much. Returns what went, *ret_there what was there. */
static uint64_t page_out(struct region *region, int pagemap, uint64_t at, uint64_t end, uint64_t most,
                         uint64_t *ret_there, uint64_t *ret_end) {
    struct scan_range ranges[RANGES];
    struct iovec vector[RANGES];
    uint64_t left = 0, ignored;
    int n = scan(pagemap, at, end, most / PAGE, ranges, RANGES, ret_end);

    *ret_there = 0;
    if (n <= 0) {
        *ret_end = end;
        return 0;
    }
    *ret_there = sum(ranges, n);
    for (int i = 0; i < n; i++)
        vector[i] = (struct iovec){(void *)(uintptr_t)ranges[i].start, ranges[i].end - ranges[i].start};
    at = ranges[0].start;
    if (!is_still_clients(region) || advise(region, vector, (size_t)n, MADV_PAGEOUT) < 0)
        return 0;
    CRASH_POINT("native-dropped");
    n = scan(pagemap, at, *ret_end, 0, ranges, RANGES, &ignored);
    left = n > 0 ? sum(ranges, n) : 0;
    return left < *ret_there ? *ret_there - left : 0;
}

void native_drop(struct home *home, struct drop_job *job) {
    struct region *region = job->region;
    struct worker *worker = &home->dropper.worker;
    uint64_t at = region->native.address + (job->next << region->chunk_shift), stop = at, there = 0, freed = 0;
    uint64_t end = region->native.address + (job->end << region->chunk_shift);
    uint64_t most = job->limit < SLICE ? (job->limit + PAGE - 1) & ~(PAGE - 1) : SLICE;
    bool valid = atomic_load(&region->native.valid) && most > 0;

    if (end > region->native.address + region->size)
        end = region->native.address + region->size;
    worker_call_begin(worker);
    if (valid)
        freed = page_out(region, region->native.pagemap, at, end, most, &there, &stop);
    worker_call_end(worker);
    if (freed < there / 2)
        look_again(region);
    note(home, job, freed, there - freed);
    home_lock(home);
    if (!valid || stop >= end || drop_request_is_met(job->request))
        job->next = job->end;
    else if (job->next < job->end) { /* not given up meanwhile */
        uint64_t next = (stop - region->native.address) >> region->chunk_shift;

        job->next = next > job->next ? next : job->next + 1;
    }
    home_unlock(home);
}

/* ---- counting ---- */

/* true: it came to the end. */
static bool count(struct region *region, int pagemap, uint64_t deadline) {
    uint64_t end = region->native.address + region->size;
    struct scan_range ranges[RANGES];

    while (region->native.at < end && kernel_now() < deadline) {
        uint64_t until = end - region->native.at > MEASURE_STEP ? region->native.at + MEASURE_STEP : end;
        int n = scan(pagemap, region->native.at, until, 0, ranges, RANGES, &region->native.at);

        if (n < 0) /* nothing is there any more */
            return true;
        region->native.sum += sum(ranges, n);
    }
    return region->native.at >= end;
}

static void measure(struct home *home, struct region *region) {
    uint64_t began = kernel_thread_time(), now = kernel_now();
    bool done = true;

    if (region->native.refused)
        native_check(region);
    if (region->native.at == 0) {
        region->native.at = region->native.address;
        region->native.sum = region->native.spent = 0;
    }
    worker_call_begin(&home->dropper.worker);
    if (atomic_load(&region->native.valid))
        done = count(region, region->native.pagemap, now + MEASURE_NS);
    worker_call_end(&home->dropper.worker);
    now = kernel_now();
    region->native.spent += kernel_thread_time() - began;
    if (!done)
        return;
    set_resident(region, region->native.sum);
    CRASH_POINT("native-counted");
    region->native.at = 0;
    atomic_store(&region->native.not_before, now + (region->native.refused ? HELD_NS : MEASURE_PAUSE_NS));
    atomic_store(&home->counting.not_before, now + region->native.spent * MEASURE_COST);
    atomic_store(&region->native.asked, false);
}

bool native_measure(struct home *home) {
    struct region *region, *found = NULL;
    uint64_t now = kernel_now();
    bool all;

    atomic_store(&home->counting.asked, false);
    if (now < atomic_load(&home->counting.not_before))
        return false;
    all = atomic_exchange(&home->counting.all, false);
    /* Who waits longest. It lives on without the lock: its end is a job of this thread. */
    home_lock(home);
    LIST_FOREACH (region, &home->regions, link) {
        if (all)
            atomic_store(&region->native.asked, true);
        if (!region->native.address || region->dropper_fd < 0 || region->dead || !atomic_load(&region->native.asked) ||
            now < atomic_load(&region->native.not_before))
            continue;
        if (!found || atomic_load(&region->native.not_before) < atomic_load(&found->native.not_before))
            found = region;
    }
    home_unlock(home);
    if (found)
        measure(home, found);
    else
        atomic_store(&home->counting.not_before, now + WALK_PAUSE_NS);
    return found;
}
