/* SPDX-License-Identifier: MIT */
/*
 * The daemon's pages (state page and clock page) can be read by clients and written by nobody but the daemon. A client without privileges
 * tries every way that there is, then the generations are compared, and the daemon has to do its work as before.
 *
 * The client is of another uid than the service: root may open anything. Where the test itself is an ordinary user, service and client
 * share a uid, and what the owner of a file may do (chmod it and open it again) is not tried.
 */

#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define CHUNK (64 * KIB)
#define PAGE 4096

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static const uint32_t evil = 0x666;
static sigjmp_buf segv;
static bool same_uid;

static void on_segv(int signal) {
    (void)signal;
    siglongjmp(segv, 1);
}

/* Does a plain store get through? */
static bool can_store(void *page) {
    bool stored = false;

    if (sigsetjmp(segv, 1) == 0) {
        *(volatile uint32_t *)page = evil;
        stored = true;
    }
    return stored;
}

static void try_mappings(int fd, char *page, size_t size) {
    char *own;

    child_check(mprotect(page, size, PROT_READ | PROT_WRITE) < 0);
    child_check(mprotect(page, size, PROT_WRITE) < 0);
    child_check(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    child_check(mmap(NULL, size, PROT_WRITE, MAP_SHARED_VALIDATE, fd, 0) == MAP_FAILED);
    child_check(mmap(page, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED);
    child_check(!can_store(page));
    /* A private copy may be written: it is the client's own. */
    own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    child_check(own != MAP_FAILED);
    memset(own, 0x66, size);
    munmap(own, size);
}

static void try_files(int fd, const char *page, size_t size) {
    char path[64], *map_path;
    int again;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (!same_uid)
        child_check(chmod(path, 0666) < 0 && fchmod(fd, 0666) < 0);
    child_check(open(path, O_RDWR | O_CLOEXEC) < 0);
    child_check(open(path, O_WRONLY | O_CLOEXEC) < 0);
    child_check(open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) < 0);
    child_check(truncate(path, 0) < 0);
    again = open(path, O_RDONLY | O_CLOEXEC);
    child_check(again < 0 || ftruncate(again, 0) < 0);
    if (again >= 0)
        close(again);
    child_check(asprintf(&map_path, "/proc/self/map_files/%lx-%lx", (unsigned long)page, (unsigned long)page + size) > 0);
    child_check(open(map_path, O_RDWR | O_CLOEXEC) < 0);
    free(map_path);
    child_check(write(fd, &evil, sizeof(evil)) < 0);
    child_check(pwrite(fd, &evil, sizeof(evil), PAGE) < 0);
    child_check(fcntl(fd, F_SETFL, O_RDWR) < 0 || write(fd, &evil, sizeof(evil)) < 0);
    child_check(ftruncate(fd, 0) < 0);
    child_check(ftruncate(fd, 1 << 20) < 0);
    child_check(fallocate(fd, 0, 0, 1 << 20) < 0);
    child_check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) < 0);
    child_check(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
    child_check(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
    child_check(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) < 0);
}

static void try_memory(char *page) {
    struct iovec from = {.iov_base = (void *)&evil, .iov_len = sizeof(evil)};
    struct iovec to = {.iov_base = page, .iov_len = sizeof(evil)};
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC), ends[2];

    child_check(memory >= 0);
    child_check(pwrite(memory, &evil, sizeof(evil), (off_t)(uintptr_t)page) < 0);
    close(memory);
    child_check(process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0);
    child_check(pipe2(ends, O_CLOEXEC) == 0);
    child_check(write(ends[1], &evil, sizeof(evil)) == sizeof(evil));
    child_check(read(ends[0], page, sizeof(evil)) < 0 && errno == EFAULT);
    close(ends[0]);
    close(ends[1]);
    child_check(madvise(page, PAGE, MADV_REMOVE) < 0);
    madvise(page, PAGE, MADV_DONTNEED);
}

static void try_all(int fd, void *page, size_t size) {
    signal(SIGSEGV, on_segv);
    signal(SIGBUS, on_segv);
    try_mappings(fd, page, size);
    try_files(fd, page, size);
    try_memory(page);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
}

/* ---- the two pages ---- */

static void attack_state_page(int test, void *data) {
    struct drp_wire_drop_reply reply;
    struct drp_state_header header;
    struct raw_region region;
    uint32_t before[16];
    int socket;

    (void)test;
    (void)data;
    child_become_nobody();
    socket = raw_session("attacker");
    raw_region_new(socket, MIB, &region);
    memset(region.address, 1, MIB);
    child_check(raw_drop(socket, &region, 0, CHUNK, NULL) == DRP_WIRE_OK);
    memcpy(&header, region.state, sizeof(header));
    memcpy(before, (const void *)region.generations, sizeof(before));
    child_check(before[0] == 2 && before[1] == 0);
    child_check((fcntl(region.state_fd, F_GETFL) & O_ACCMODE) == O_RDONLY);

    try_all(region.state_fd, region.state, drp_state_bytes(region.chunk_total));
    try_memory((char *)region.state + PAGE);
    child_check(memcmp(&header, region.state, sizeof(header)) == 0);
    child_check(memcmp(before, (const void *)region.generations, sizeof(before)) == 0);
    /* The daemon can still do its work. */
    child_check(raw_drop(socket, &region, 0, MIB, &reply) == DRP_WIRE_OK && reply.freed == MIB - CHUNK);
    child_check(region.generations[1] == before[1] + 2 && is_zero(region.address, MIB));
    raw_region_end(socket, &region);
    close(socket);
}

START_TEST(test_state_page) {
    struct child child;

    child_start(&child, attack_state_page, NULL);
    child_end(&child);
}
END_TEST

static void attack_clock_page(int test, void *data) {
    struct drp_wire_hello hello = {
        .header.type = DRP_WIRE_HELLO, .magic = DRP_WIRE_MAGIC, .version_min = 1, .version_max = 1};
    struct drp_clock_page *clock_page;
    struct channel_packet packet;
    uint64_t deadline;
    uint32_t tick;
    int socket;

    (void)test;
    (void)data;
    child_become_nobody();
    socket = raw_connect();
    child_check(raw_call(socket, &hello, sizeof(hello), NULL, 0, &packet) == DRP_WIRE_OK);
    child_check(packet.n_fds >= 1);
    clock_page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, packet.fds[0], 0);
    child_check(clock_page != MAP_FAILED && clock_page->magic == DRP_CLOCK_MAGIC);
    try_all(packet.fds[0], clock_page, PAGE);
    child_check(clock_page->magic == DRP_CLOCK_MAGIC);
    /* It goes on: at least once a second, and in step with the monotonic clock. */
    tick = atomic_load(&clock_page->tick);
    for (deadline = now_ms() + 5000; atomic_load(&clock_page->tick) == tick;) {
        child_check(now_ms() < deadline);
        usleep(10000);
    }
    tick = atomic_load(&clock_page->tick);
    child_check(now_ms() / DRP_TICK_MS - tick <= 2000 / DRP_TICK_MS);
    channel_packet_close(&packet);
    close(socket);
}

START_TEST(test_clock_page) {
    struct child child;

    child_start(&child, attack_clock_page, NULL);
    child_end(&child);
}
END_TEST

/* ---- the objects that the client may write ---- */

/* Has the kernel (5.1) the seal that forbids to punch what is mapped? */
static bool seals_writes(void) {
    int fd = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool has = fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0;

    close(fd);
    return has;
}

/* Who reads a page that is being punched waits for the end of that, however slowly it goes: no punching of what the daemon reads, by any way. */
static void try_punching(const struct raw_region *region) {
    size_t size = drp_pin_bytes(region->chunk_total);

    child_check(fallocate(region->pin_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) < 0);
    child_check(errno == EPERM);
    child_check(madvise(region->pins, size, MADV_REMOVE) < 0);
    child_check(fallocate(region->pin_fd, FALLOC_FL_ZERO_RANGE, 0, (off_t)size) < 0);
    child_check(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, region->pin_fd, 0) == MAP_FAILED);
}

/* Pin page and data object cannot be made smaller or unpunchable under the daemon. */
static void attack_objects(int test, void *data) {
    struct drp_wire_drop_reply reply;
    struct raw_region region;
    int socket;

    (void)test;
    (void)data;
    child_become_nobody();
    socket = raw_session("attacker");
    raw_region_new(socket, MIB, &region);
    memset(region.address, 1, MIB);
    child_check(ftruncate(region.pin_fd, 0) < 0);
    child_check(ftruncate(region.pin_fd, 1 << 30) < 0);
    child_check(fcntl(region.pin_fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
    child_check(fcntl(region.data_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
    if (seals_writes())
        try_punching(&region);
    memset(region.pins, 0xff, drp_pin_bytes(region.chunk_total)); /* everything pinned, for ever */
    child_check(raw_drop(socket, &region, 0, MIB, &reply) == DRP_WIRE_OK);
    child_check(reply.freed == 0 && reply.pinned == MIB);
    memset(region.pins, 0, drp_pin_bytes(region.chunk_total));
    child_check(raw_drop(socket, &region, 0, MIB, &reply) == DRP_WIRE_OK && reply.freed == MIB);
    /* tmpfs files cannot be sealed: the client can empty its own. The daemon must not mind. */
    memset(region.address, 1, MIB);
    if (ftruncate(region.data_fd, 0) == 0) {
        child_check(raw_drop(socket, &region, 0, MIB, &reply) == DRP_WIRE_OK && reply.freed == 0);
        child_check(ftruncate(region.data_fd, (off_t)MIB) == 0);
        child_check(is_zero(region.address, MIB));
    }
    raw_region_end(socket, &region);
    close(socket);
}

/* MAP, with the page that comes with the reply mapped, and not sealed. */
static void map_unsealed(int socket, struct raw_region *region) {
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .region = region->id};
    struct channel_packet packet;

    child_check(raw_call(socket, &map, sizeof(map), NULL, 0, &packet) == DRP_WIRE_OK && packet.n_fds == 1);
    region->mapping = packet.message.map_reply.mapping;
    region->pin_fd = packet.fds[0];
    region->pins = mmap(NULL, drp_pin_bytes(region->chunk_total), PROT_READ | PROT_WRITE, MAP_SHARED, packet.fds[0], 0);
    child_check(region->pins != MAP_FAILED);
    region->cells = drp_pin_cells(region->pins) + region->chunk_base;
}

static int hand_in_pins(int socket, const struct raw_region *region) {
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .region = region->id};

    return raw_call(socket, &map, sizeof(map), &region->pin_fd, 1, NULL);
}

/* What is not sealed may be punched: it is not read, not even for what it pins, and not taken back. */
static void attack_unsealed(int test, void *data) {
    struct drp_wire_drop_reply reply;
    struct raw_region region, second;
    int socket;

    (void)test;
    (void)data;
    child_become_nobody();
    socket = raw_session("attacker");
    raw_region_new(socket, MIB, &region);
    second = region;
    map_unsealed(socket, &second);
    child_check(fallocate(second.pin_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0);
    memset(region.address, 1, MIB);
    second.cells[1].count = 1;
    region.cells[2].count = 1;
    child_check(raw_drop(socket, &region, 0, 4 * CHUNK, &reply) == DRP_WIRE_OK);
    child_check(reply.freed == 3 * CHUNK && reply.pinned == CHUNK);
    child_check(hand_in_pins(socket, &second) == DRP_WIRE_ERROR_DESCRIPTOR);
    child_check(fcntl(second.pin_fd, F_ADD_SEALS, F_SEAL_SEAL) == 0); /* not the seal that it takes */
    child_check(hand_in_pins(socket, &second) == DRP_WIRE_ERROR_DESCRIPTOR);
    child_check(raw_id(socket, DRP_WIRE_UNMAP, second.mapping) == DRP_WIRE_OK);

    /* From the sealing on it is believed. */
    map_unsealed(socket, &second);
    second.cells[5].count = 1;
    child_check(raw_id(socket, DRP_WIRE_SEAL_PINS, second.mapping) == DRP_WIRE_ERROR_DESCRIPTOR);
    child_check(raw_id(socket, DRP_WIRE_SEAL_PINS, second.mapping + 1) == DRP_WIRE_ERROR_NOT_FOUND);
    child_check(raw_seal_pins(socket, second.mapping, second.pin_fd) == DRP_WIRE_OK);
    child_check(raw_id(socket, DRP_WIRE_SEAL_PINS, second.mapping) == DRP_WIRE_OK);
    child_check(raw_drop(socket, &region, 4 * CHUNK, 4 * CHUNK, &reply) == DRP_WIRE_OK);
    child_check(reply.freed == 3 * CHUNK && reply.pinned == CHUNK);
    child_check(hand_in_pins(socket, &second) == DRP_WIRE_OK);
    raw_region_end(socket, &region);
    close(socket);
}

START_TEST(test_unsealed) {
    struct child child;

    if (!seals_writes()) {
        printf("test_unsealed: the kernel has no F_SEAL_FUTURE_WRITE, left out\n");
        return;
    }
    child_start(&child, attack_unsealed, NULL);
    child_end(&child);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
}
END_TEST

START_TEST(test_objects) {
    struct child child;

    child_start(&child, attack_objects, NULL);
    child_end(&child);
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("state page");
    TCase *pages = tcase_create("pages");

    same_uid = geteuid() != 0;
    tcase_set_timeout(pages, 60);
    tcase_add_checked_fixture(pages, fixture_setup, fixture_teardown);
    tcase_add_test(pages, test_state_page);
    tcase_add_test(pages, test_clock_page);
    tcase_add_test(pages, test_objects);
    tcase_add_test(pages, test_unsealed);
    suite_add_tcase(suite, pages);
    return suite_run(suite);
}
