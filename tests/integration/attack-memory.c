/* SPDX-License-Identifier: MIT */
/*
 * What a client can do with its own memory and with what was handed to it: mappings that come and go faster than they can be told of,
 * an object that changes under the service, locks that are held, pages that lie.
 *
 * An inode's lock is held by write(2) from memory behind a userfaultfd of the client's own that nobody answers: the kernel takes the lock, then reads
 * the memory.
 */

#include "attack.h"
#include "child.h"
#include "fixture.h"
#include "raw.h"

#include <droppable/droppable.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE ((size_t)4096)
#define SPAN (2 * MIB)

/* ---- mappings ---- */

/* Tells of each. */
static void run_map(void) {
    struct raw_region region;
    int socket = attack_region("maps", 16 * MIB, &region);

    attack_begun();
    for (;;) {
        attack_did();
        struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .region = region.id, .length = region.size};
        struct channel_packet packet;
        char *p =
            mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, region.data_fd, (off_t)region.object_offset);

        child_check(p != MAP_FAILED);
        map.address = (uintptr_t)p;
        if (raw_call(socket, &map, sizeof(map), NULL, 0, &packet) == DRP_WIRE_OK) {
            for (size_t i = 0; i < region.size; i += SPAN)
                p[i] = 1;
            raw_id(socket, DRP_WIRE_UNMAP, packet.message.map_reply.mapping);
            channel_packet_close(&packet);
        }
        munmap(p, region.size);
    }
}

/* Tells of none: the kernel does. */
static void run_remap(void) {
    struct raw_region region;
    char *elsewhere;

    attack_region("remaps", 16 * MIB, &region);
    elsewhere = mmap(NULL, region.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    child_check(elsewhere != MAP_FAILED);
    attack_begun();
    for (;;) {
        attack_did();
        char *before = region.address;

        region.address = mremap(before, region.size, region.size, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere);
        child_check(region.address == elsewhere);
        elsewhere = before;
        for (size_t i = 0; i < region.size; i += SPAN)
            region.address[i] = 1;
        madvise(region.address, region.size, MADV_REMOVE);
    }
}

/* A page of each span, in and out. */
static void run_holes(void) {
    struct raw_region region;

    attack_region("holes", 64 * MIB, &region);
    attack_begun();
    for (size_t i = 0;; i = (i + SPAN) % region.size) {
        attack_did();
        char *page = region.address + i;

        child_check(munmap(page, PAGE) == 0);
        page[PAGE] = 1;
        child_check(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, region.data_fd,
                         (off_t)(region.object_offset + i)) == page);
    }
}

/* Each second page of a region, told as a piece, until the kernel has no more mappings for it; then a fault here and there. */
static void run_pieces(uint64_t required) {
    struct raw_region region;
    struct drp_wire_pieces request = {.header.type = DRP_WIRE_MAP_PIECES};
    int socket = raw_session("pieces");
    bool full = false;
    char *at;

    raw_region_new_unmapped(socket, 1024 * MIB, required, &region);
    at = mmap(NULL, region.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    child_check(at != MAP_FAILED);
    request.mapping = region.mapping;
    attack_begun();
    for (uint64_t offset = 0; !full && offset < region.size;) {
        request.count = 0;
        for (; !full && request.count < DRP_WIRE_PIECES_MAX && offset < region.size; offset += 2 * PAGE) {
            char *page = mmap(at + offset, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, region.data_fd,
                              (off_t)(region.object_offset + offset));

            full = page == MAP_FAILED;
            if (!full)
                request.pieces[request.count++] = (struct drp_wire_piece){(uintptr_t)page, PAGE, offset};
        }
        if (request.count > 0 &&
            raw_call(socket, &request,
                     offsetof(struct drp_wire_pieces, pieces) + request.count * sizeof(request.pieces[0]), NULL, 0,
                     NULL) != DRP_WIRE_OK)
            break;
    }
    for (;;) {
        attack_did();
        for (uint64_t offset = 0; offset < 128 * MIB; offset += 2 * PAGE)
            (void)madvise(at + offset, PAGE, MADV_POPULATE_WRITE); /* where there is one */
        raw_drop(socket, &region, 0, region.size, NULL);
    }
}

static void run_max_map_count(void) {
    run_pieces(0);
}

/* The same of huge pages: none that the kernel fills is registered, so before it is armed the service looks whether it is there still. */
static void run_huge_pieces(void) {
    run_pieces(status_feature("huge") ? DRP_REGION_HUGE : 0);
}

/* ---- the object ---- */

static void *touch_for_ever(void *data) {
    struct raw_region *region = data;

    for (size_t i = 0;; i = (i + PAGE) % region->size)
        (void)madvise(region->address + i, PAGE,
                      MADV_POPULATE_WRITE); /* behind the object's end that is an error, no signal */
    return NULL;
}

struct busy {
    struct raw_region *region;
    uint64_t us; /* of each second of a CPU that the process may use */
};

static void *touch_for_so_long(void *data) {
    struct busy *busy = data;
    uint64_t start = now_ns();

    for (size_t i = 0;; i = (i + PAGE) % busy->region->size) {
        (void)madvise(busy->region->address + i, PAGE, MADV_POPULATE_WRITE);
        if (i % (16 * PAGE) == 0)
            while ((uint64_t)clock() > (now_ns() - start) / 1000 * busy->us / 1000000)
                usleep(100);
    }
    return NULL;
}

static void run_truncate(void) {
    struct raw_region region;
    pthread_t thread;
    int socket = attack_region("truncates", 16 * MIB, &region);

    child_check(pthread_create(&thread, NULL, touch_for_ever, &region) == 0);
    attack_begun();
    for (uint64_t i = 0;; i++) {
        attack_did();
        (void)!ftruncate(region.data_fd,
                         (off_t)(i % 2 ? region.object_offset + region.size : attack_random(region.size)));
        if (i % 4 == 0)
            raw_drop(socket, &region, 0, region.size, NULL);
    }
}

/* The same to an object that is nobody else's. */
static void run_neutral_truncate(const struct attack_pace *pace) {
    struct raw_region region = {.size = 16 * MIB, .data_fd = memfd_create("truncates", MFD_CLOEXEC)};
    struct busy busy = {.region = &region, .us = pace->steps * pace->step_us};
    uint64_t next = 0;
    pthread_t thread;

    child_check(ftruncate(region.data_fd, (off_t)region.size) == 0);
    region.address = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, region.data_fd, 0);
    child_check(region.address != MAP_FAILED);
    child_check(pthread_create(&thread, NULL, touch_for_so_long, &busy) == 0);
    attack_begun();
    for (uint64_t i = 0;; i++) {
        (void)!ftruncate(region.data_fd, (off_t)(i % 2 ? region.size : attack_random(region.size)));
        attack_await(&next, pace);
    }
}

/* Larger than it may be, and full of what nobody has asked for. */
static void run_grow(void) {
    struct raw_region region;
    int socket = attack_region("grows", 4 * MIB, &region);
    char page[4096] = {1};

    attack_begun();
    for (uint64_t i = 0;; i++) {
        attack_did();
        (void)!pwrite(region.data_fd, page, sizeof(page), (off_t)(attack_random(4096) * PAGE));
        if (i % 256 == 0)
            raw_drop(socket, &region, 0, region.size, NULL);
    }
}

static void run_punch(void) {
    struct raw_region region;
    pthread_t thread;
    int socket = attack_region("punches", 16 * MIB, &region);

    child_check(pthread_create(&thread, NULL, touch_for_ever, &region) == 0);
    attack_begun();
    for (uint64_t i = 0;; i++) {
        attack_did();
        (void)fallocate(region.data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(region.object_offset + attack_random(region.size / PAGE) * PAGE), (off_t)(64 * PAGE));
        if (i % 64 == 0)
            raw_drop(socket, &region, 0, region.size, NULL);
    }
}

/* ---- locks ---- */

struct holder {
    int fd;
    char *source; /* armed */
};

static void *write_from_armed(void *data) {
    struct holder *holder = data;

    (void)!pwrite(holder->fd, holder->source, PAGE, 0);
    return NULL;
}

static void run_inode_lock(void) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    struct pollfd event = {.events = POLLIN};
    struct raw_region region;
    struct holder holder;
    pthread_t thread;
    int socket = attack_region("inode lock", 8 * MIB, &region);

    holder.fd = region.data_fd;
    holder.source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    event.fd = raw_userfaultfd();
    child_check(holder.source != MAP_FAILED && event.fd >= 0 && ioctl(event.fd, UFFDIO_API, &api) == 0);
    range.range.start = (uintptr_t)holder.source;
    range.range.len = PAGE;
    child_check(ioctl(event.fd, UFFDIO_REGISTER, &range) == 0);
    child_check(pthread_create(&thread, NULL, write_from_armed, &holder) == 0);
    child_check(poll(&event, 1, CHILD_WAIT_MS) == 1);
    attack_begun();
    for (;;) {
        attack_did();
        raw_drop(socket, &region, 0, region.size, NULL);
    }
}

static void run_mmap_lock(void) {
    struct raw_region region;
    int socket = attack_region("mmap lock", 8 * MIB, &region);
    size_t size = 64 * MIB;

    attack_begun();
    for (;;) {
        attack_did();
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

        child_check(p != MAP_FAILED);
        munmap(p, size);
        raw_drop(socket, &region, 0, region.size, NULL);
        memset(region.address, 2, region.size);
    }
}

/* ---- pages that lie ---- */

/* Pins come and go at random, counts overflow, and the last use is in the future. */
static void run_scribble(void) {
    struct raw_region region;
    uint64_t *words;
    size_t n;
    int socket = attack_region("scribbles", 16 * MIB, &region);

    words = region.pins;
    n = drp_pin_bytes(region.chunk_total) / sizeof(*words);
    attack_begun();
    for (uint64_t i = 0;; i++) {
        attack_did();
        words[attack_random(n)] = attack_random(2) ? attack_random(UINT64_MAX) : 0;
        if (i % 4096 == 0) {
            raw_drop(socket, &region, 0, region.size, NULL);
            memset(region.address, 1, region.size);
        }
    }
}

const struct attack attacks_by_memory[] = {
    {"maps and unmaps, telling", 2, 1, run_map, NULL},
    {"remaps, not telling", 2, 1, run_remap, NULL},
    {"holes, not telling", 2, 1, run_holes, NULL},
    {"as many pieces as there can be", 2, 1, run_max_map_count, NULL},
    {"as many pieces of huge pages", 2, 1, run_huge_pieces, NULL},
    {"truncates its object", 4, 2, run_truncate, run_neutral_truncate},
    {"grows its object", 2, 1, run_grow, NULL},
    {"punches its object", 4, 2, run_punch, NULL},
    {"holds its object's lock", 1, 1, run_inode_lock, NULL},
    {"holds its mmap lock", 2, 1, run_mmap_lock, NULL},
    {"scribbles on its pin page", 2, 1, run_scribble, NULL},
    {0},
};
