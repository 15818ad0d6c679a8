/* SPDX-License-Identifier: MIT */
#include "native-memory.h"

#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <fcntl.h>
#include <sys/mman.h>

struct drp *native_context;

struct drp_region *native_make(size_t size, enum drp_priority priority, uint64_t budget) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .priority = priority, .budget = budget};
    struct drp_region_info info;
    struct drp_region *region;

    ck_assert_int_eq(drp_region_new(&region, native_context, size, &options), 0);
    drp_region_get_info(region, &info);
    ck_assert(info.connected);
    return region;
}

int native_connect(void) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = DRP_BACKEND_NATIVE};

    return drp_new(&native_context, &config);
}

void native_setup(void) {
    fixture_setup();
    ck_assert_int_eq(native_connect(), 0);
}

void native_teardown(void) {
    native_context = drp_free(native_context);
    fixture_teardown();
}

void *native_map(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(p, MAP_FAILED);
    ck_assert_int_eq(madvise(p, size, MADV_NOHUGEPAGE), 0);
    return p;
}

size_t native_resident(void *p, size_t size) {
    static unsigned char pages[SIZE / PAGE];
    size_t n = 0;

    ck_assert_int_eq(mincore(p, size, pages), 0);
    for (size_t i = 0; i < size / PAGE; i++)
        n += pages[i] & 1;
    return n * PAGE;
}

size_t native_region_resident(struct drp_region *region) {
    return native_resident(drp_region_address(region), drp_region_size(region));
}

uint64_t native_id_of(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.id;
}

void native_expect_counted(uint64_t id, uint64_t bytes) {
    uint64_t deadline = now_ms() + WAIT_MS;

    while (listing_number("regions", "id", id, "resident_bytes") != bytes)
        ck_assert(now_ms() < deadline);
}

int native_claim_with(int socket, const char *path, const void *p, size_t length, uint64_t *ret_id) {
    struct drp_wire_native request = {.header.type = DRP_WIRE_NATIVE, .address = (uintptr_t)p, .length = length};
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;
    struct channel_packet packet;

    ck_assert_int_ge(fd, 0);
    r = raw_call(socket, &request, sizeof(request), &fd, 1, &packet);
    close(fd);
    if (r == DRP_WIRE_OK && ret_id)
        *ret_id = packet.message.id.id;
    return r;
}

int native_claim(int socket, const void *p, size_t length, uint64_t *ret_id) {
    return native_claim_with(socket, "/proc/self/pagemap", p, length, ret_id);
}

void native_need(void) {
    void *p = mmap(NULL, PAGE, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        skip_all("the kernel has no MAP_DROPPABLE");
    munmap(p, PAGE);
    if (geteuid() != 0)
        skip_all("needs root: dropping another process's memory takes CAP_SYS_NICE");
}
