/* SPDX-License-Identifier: MIT */
/*
 * The kernel's own droppable memory, of which the service is told: it counts it, drops from it in the policy's order and down to budgets, and
 * takes nobody's word for what it is.
 */

#include "child.h"
#include "connected.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define SIZE (32 * MIB)
#define PAGE ((size_t)4096)
#define WAIT_MS 20000

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

static struct drp *connection;

static struct drp_region *make(size_t size, enum drp_priority priority, uint64_t budget) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .priority = priority, .budget = budget};
    struct drp_region_info info;
    struct drp_region *region;

    ck_assert_int_eq(drp_region_new(&region, connection, size, &options), 0);
    drp_region_get_info(region, &info);
    ck_assert(info.connected);
    return region;
}

static int connect_native(void) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = DRP_BACKEND_NATIVE};

    return drp_new(&connection, &config);
}

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(connect_native(), 0);
}

static void teardown(void) {
    connection = drp_free(connection);
    fixture_teardown();
}

static void *map_native(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(p, MAP_FAILED);
    ck_assert_int_eq(madvise(p, size, MADV_NOHUGEPAGE), 0);
    return p;
}

/* What the kernel says. */
static size_t resident(void *p, size_t size) {
    static unsigned char pages[SIZE / PAGE];
    size_t n = 0;

    ck_assert_int_eq(mincore(p, size, pages), 0);
    for (size_t i = 0; i < size / PAGE; i++)
        n += pages[i] & 1;
    return n * PAGE;
}

static size_t region_resident(struct drp_region *region) {
    return resident(drp_region_address(region), drp_region_size(region));
}

static uint64_t id_of(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.id;
}

/* The service's count becomes what is there. */
static void expect_counted(uint64_t id, uint64_t bytes) {
    uint64_t deadline = now_ms() + WAIT_MS;

    while (listing_number("regions", "id", id, "resident_bytes") != bytes)
        ck_assert(now_ms() < deadline);
}

START_TEST(test_counted) {
    struct drp_region *region = make(SIZE, 0, 0);
    uint64_t id = id_of(region);
    char backend[16];

    ck_assert_uint_eq(listing_number("regions", "id", id, "size"), SIZE);
    listing_text("regions", "id", id, "backend", backend, sizeof(backend));
    ck_assert_str_eq(backend, "native");
    memset(drp_region_address(region), 1, 8 * MIB);
    expect_counted(id, 8 * MIB);
    memset((char *)drp_region_address(region) + 16 * MIB, 1, 3 * PAGE);
    expect_counted(id, 8 * MIB + 3 * PAGE);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    expect_counted(id, 0);
    drp_region_free(region);
    ck_assert_uint_eq(listing_count("regions"), 0);
}
END_TEST

/*
 * MADV_PAGEOUT finds pages on the kernel's lists only: what a CPU has touched last still waits to be put there (folio batches of 31), and stays.
 */
#define BATCHES ((uint64_t)(31 * PAGE * sysconf(_SC_NPROCESSORS_ONLN)))

START_TEST(test_dropped_by_hand) {
    struct drp_region *region = make(SIZE, 0, 0);
    char *p = drp_region_address(region), pid[16];
    uint64_t left;

    memset(p, 1, SIZE);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--pid", pid, NULL}), 0);
    left = region_resident(region);
    ck_assert_uint_le(left, BATCHES);
    ck_assert_uint_eq(service_status(&service, "dropped_bytes"), SIZE - left);
    for (uint64_t at = 0; at < SIZE; at += PAGE)
        if (p[at])
            left -= PAGE;
        else
            ck_assert(is_zero(p + at, PAGE));
    ck_assert_uint_eq(left, 0);
    drp_region_free(region);
}
END_TEST

START_TEST(test_budget) {
    struct drp_region *region = make(SIZE, 0, 8 * MIB);
    uint64_t deadline = now_ms() + WAIT_MS;

    memset(drp_region_address(region), 1, SIZE);
    while (region_resident(region) > 8 * MIB)
        ck_assert(now_ms() < deadline);
    ck_assert_int_eq(drp_region_set_budget(region, 2 * MIB), 0);
    while (region_resident(region) > 2 * MIB)
        ck_assert(now_ms() < deadline);
    ck_assert_uint_ge(region_resident(region), MIB); /* no more than needed */
    drp_region_free(region);
}
END_TEST

START_TEST(test_priority) {
    struct drp_region *low = make(SIZE, DRP_PRIORITY_LOW, 0), *high = make(SIZE, DRP_PRIORITY_HIGH, 0);

    memset(drp_region_address(low), 1, SIZE);
    memset(drp_region_address(high), 1, SIZE);
    expect_counted(id_of(low), SIZE);
    expect_counted(id_of(high), SIZE);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"free", "24M", NULL}), 0);
    ck_assert_uint_eq(region_resident(high), SIZE);
    ck_assert_uint_le(region_resident(low), 8 * MIB);
    ck_assert_uint_ge(region_resident(low), 7 * MIB);
    ck_assert_int_eq(drp_region_set_priority(high, DRP_PRIORITY_NORMAL), 0);
    drp_region_free(low);
    drp_region_free(high);
}
END_TEST

/* A new service is told. */
START_TEST(test_restart) {
    struct drp_region *region = make(SIZE, 0, 8 * MIB);
    uint64_t deadline = now_ms() + WAIT_MS;

    memset(drp_region_address(region), 1, 4 * MIB);
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    while (drp_region_set_share(region, 50) < 0)
        ck_assert(now_ms() < deadline);
    expect_counted(id_of(region), 4 * MIB);
    memset(drp_region_address(region), 1, SIZE);
    while (region_resident(region) > 8 * MIB)
        ck_assert(now_ms() < deadline);
    drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* So often the pagemap cannot be opened. */
static _Atomic int shortages;

int open(const char *path, int flags, ...) {
    va_list arguments;
    mode_t mode = 0;

    if (strcmp(path, "/proc/self/pagemap") == 0 && atomic_load(&shortages) > 0) {
        atomic_fetch_sub(&shortages, 1);
        errno = EMFILE;
        return -1;
    }
    if (flags & O_CREAT) {
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* When the service is back it is short of descriptors for a while. */
START_TEST(test_shortage) {
    struct drp_region *region = make(SIZE, 0, 0);

    ck_assert(service_kill(&service, 10000));
    atomic_store(&shortages, 2);
    service_restart(&service);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    ck_assert_int_eq(atomic_load(&shortages), 0);
    memset(drp_region_address(region), 1, SIZE);
    expect_counted(id_of(region), SIZE);
    drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* A child has the memory, empty, and is not the one that the service knows. */
START_TEST(test_fork) {
    struct drp_region *region = make(SIZE, 0, 0);
    int status;
    pid_t pid;

    memset(drp_region_address(region), 1, SIZE);
    pid = fork();
    if (pid == 0) {
        child_check(is_zero(drp_region_address(region), SIZE));
        memset(drp_region_address(region), 2, SIZE);
        child_check(drp_region_set_budget(region, MIB) == -EOPNOTSUPP);
        child_check(drp_drop(region, 0, SIZE, NULL, NULL) == 0 && is_zero(drp_region_address(region), SIZE));
        drp_region_free(region);
        drp_free(connection);
        _exit(0);
    }
    ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
    ck_assert(is_filled(drp_region_address(region), 1, SIZE));
    expect_counted(id_of(region), SIZE);
    drp_region_free(region);
}
END_TEST

/* Another user's process: the service may open none of what is his alone. */
static void be_nobody(int socket, void *data) {
    struct drp_region *region;
    char word;

    (void)data;
    child_become_nobody();
    child_check(connect_native() == 0);
    child_check(drp_region_new(&region, connection, SIZE, NULL) == 0);
    memset(drp_region_address(region), 1, SIZE);
    child_check(drp_region_set_budget(region, SIZE) == 0);
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
    child_check(region_resident(region) <= BATCHES);
    drp_region_free(region);
    drp_free(connection);
}

START_TEST(test_nobody) {
    struct child child;
    uint64_t session;
    char pid[16];

    child_start(&child, be_nobody, NULL);
    child_expect(&child, 'f');
    session = listing_number("sessions", "pid", (uint64_t)child.pid, "id");
    expect_counted(listing_number("regions", "session", session, "id"), SIZE);
    snprintf(pid, sizeof(pid), "--pid=%d", (int)child.pid);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"drop", pid, NULL}), 0);
    ck_assert(child_say(child.socket, 'g'));
    child_end(&child);
}
END_TEST

/* ---- in need ---- */

#define LIMIT (96 * MIB)

static void fill_much(int socket, void *data) {
    struct drp_region *region;
    char *p, *more, word;

    memcg_enter(data);
    child_check(connect_native() == 0);
    child_check(drp_region_new(&region, connection, SIZE, NULL) == 0);
    p = drp_region_address(region);
    memset(p, 1, SIZE);
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
    more = mmap(NULL, LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(more != MAP_FAILED);
    for (size_t at = 0; at < LIMIT - 24 * MIB; at += PAGE)
        more[at] = 1;
    child_check(child_say(socket, 'm'));
}

/* A cgroup runs short: its native memory goes, and nobody is killed. */
START_TEST(test_pressure) {
    struct child child;
    struct memcg memcg;
    const char *reason;
    uint64_t session;

    if (!memcg_make(&memcg, LIMIT, &reason))
        return;
    child_start(&child, fill_much, &memcg);
    child_expect(&child, 'f');
    session = listing_number("sessions", "pid", (uint64_t)child.pid, "id");
    expect_counted(listing_number("regions", "session", session, "id"), SIZE); /* or the kernel may be first */
    ck_assert(child_say(child.socket, 'g'));
    child_expect(&child, 'm');
    child_end(&child);
    ck_assert_uint_eq(memcg_oom_kills(&memcg), 0);
    ck_assert_uint_ge(service_status(&service, "dropped_bytes"), 4 * MIB); /* before the kernel had to */
    memcg_remove(&memcg);
}
END_TEST

/* ---- by hand ---- */

/* With a file in the place of the pagemap. */
static int tell_with(int socket, const char *path, const void *p, size_t length, uint64_t *ret_id) {
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

static int tell(int socket, const void *p, size_t length, uint64_t *ret_id) {
    return tell_with(socket, "/proc/self/pagemap", p, length, ret_id);
}

/* Nothing but droppable memory, all of it, once. */
START_TEST(test_lies) {
    int socket = raw_hello("liar");
    char *p = map_native(SIZE), *plain = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t id;

    ck_assert_int_eq(tell(socket, plain, MIB, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(tell(socket, (void *)0x1000, PAGE, NULL), DRP_WIRE_ERROR_INVALID); /* nothing is there */
    ck_assert_int_eq(tell(socket, (void *)((UINT64_C(1) << 56) - 2 * PAGE), PAGE, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(tell(socket, p - MIB, 2 * MIB, NULL), DRP_WIRE_ERROR_INVALID); /* its end alone */
    ck_assert_int_eq(munmap(p + 8 * MIB, PAGE), 0);
    ck_assert_int_eq(tell(socket, p, SIZE, NULL), DRP_WIRE_ERROR_INVALID); /* a hole */
    ck_assert_int_eq(tell(socket, p, UINT64_C(1) << 45, NULL), DRP_WIRE_ERROR_QUOTA);
    ck_assert_int_eq(tell(socket, p, 8 * MIB, &id), DRP_WIRE_OK);
    ck_assert_int_eq(tell(socket, p, 8 * MIB, NULL), DRP_WIRE_ERROR_EXISTS);
    ck_assert_int_eq(tell(socket, p + 7 * MIB, MIB, NULL), DRP_WIRE_ERROR_EXISTS);
    ck_assert_uint_eq(listing_count("regions"), 1);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_END_NATIVE, id + 1), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_END_NATIVE, id), DRP_WIRE_OK);
    ck_assert_int_eq(tell(socket, p, 8 * MIB, &id), DRP_WIRE_OK);
    close(socket);
    munmap(plain, MIB);
    ck_assert(status_becomes("regions", 0, WAIT_MS));
    socket = raw_hello("liar");
    ck_assert_int_eq(tell_with(socket, "/proc/self/maps", p, PAGE, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(tell_with(socket, "/dev/null", p, PAGE, NULL), RAW_ENDED);
    close(socket);
    ck_assert_uint_eq(listing_count("regions"), 0);
    munmap(p, SIZE);
}
END_TEST

/* What else a region can be asked for is refused, and the connection goes on. */
START_TEST(test_not_for_it) {
    int socket = raw_session("native");
    char *p = map_native(SIZE);
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .address = (uintptr_t)p, .length = MIB};
    struct drp_wire_range range = {.header.type = DRP_WIRE_POPULATE, .length = MIB};
    struct drp_wire_limit limit = {.header.type = DRP_WIRE_LIMIT, .scope = DRP_LIMIT_REGION};
    struct raw_region other;

    ck_assert_int_eq(tell(socket, p, SIZE, &map.region), DRP_WIRE_OK);
    range.region = limit.id = map.region;
    ck_assert_int_eq(raw_call(socket, &map, sizeof(map), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(raw_call(socket, &range, sizeof(range), NULL, 0, NULL), DRP_WIRE_ERROR_NOT_INTERCEPTED);
    ck_assert_int_eq(raw_call(socket, &limit, sizeof(limit), NULL, 0, NULL), DRP_WIRE_OK);
    memset(p, 1, SIZE);
    range.header.type = DRP_WIRE_DROP;
    ck_assert_int_eq(raw_call(socket, &range, sizeof(range), NULL, 0, NULL), DRP_WIRE_OK);
    ck_assert_uint_ge(resident(p, SIZE), SIZE - MIB);
    ck_assert_uint_le(resident(p, SIZE), SIZE - MIB + BATCHES);
    raw_region_new(socket, MIB, &other);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_END_NATIVE, other.id), DRP_WIRE_ERROR_NOT_FOUND);
    raw_region_end(socket, &other);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, map.region), DRP_WIRE_OK);
    close(socket);
    munmap(p, SIZE);
}
END_TEST

/* Other memory comes where it was: that is kept, is found out, and keeps nobody else's from going. */
START_TEST(test_exchanged) {
    int socket = raw_hello("exchanger");
    struct drp_region *honest = make(SIZE, DRP_PRIORITY_HIGH, 0);
    char *p = map_native(SIZE);
    uint64_t id;

    ck_assert_int_eq(tell(socket, p, SIZE, &id), DRP_WIRE_OK);
    ck_assert_ptr_eq(mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), p);
    memset(p, 1, SIZE);
    memset(drp_region_address(honest), 1, SIZE);
    expect_counted(id, SIZE);
    expect_counted(id_of(honest), SIZE);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"free", "16M", NULL}), 0);
    ck_assert(is_filled(p, 1, SIZE));
    ck_assert_uint_le(region_resident(honest), 16 * MIB);
    expect_counted(id, 0); /* it counts no more */
    close(socket);
    munmap(p, SIZE);
    drp_region_free(honest);
}
END_TEST

static void give_up(int socket, void *data) {
    char *p = map_native(SIZE);
    int session = raw_hello("short");

    (void)data;
    memset(p, 1, SIZE);
    child_check(tell(session, p, SIZE, NULL) == DRP_WIRE_OK);
    child_check(child_say(socket, 'r'));
    for (;;)
        pause();
}

/* It is forgotten with its client, while it is dropped from, too. */
START_TEST(test_killed) {
    struct child child;

    for (int i = 0; i < 5; i++) {
        child_start(&child, give_up, NULL);
        child_expect(&child, 'r');
        if (i % 2)
            service_ctl(&service, NULL, 0, (const char *const[]){"free", "8M", NULL});
        child_kill(&child);
        ck_assert(status_becomes("regions", 0, WAIT_MS));
    }
}
END_TEST

static void drop_on(int socket, void *data) {
    char pid[16];

    (void)data;
    snprintf(pid, sizeof(pid), "%d", (int)getppid());
    child_check(child_say(socket, 'r'));
    for (;;)
        service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--pid", pid, NULL});
}

/* A region's end waits for the drop that is in the middle of it: that is several slices. */
START_TEST(test_ended_under_way) {
    struct child child;

    child_start(&child, drop_on, NULL);
    child_expect(&child, 'r');
    for (int i = 0; i < 20; i++) {
        struct drp_region *regions[2] = {make(4 * SIZE, 0, 0), make(4 * SIZE, 0, 0)};

        memset(drp_region_address(regions[0]), 1, 4 * SIZE);
        memset(drp_region_address(regions[1]), 1, 4 * SIZE);
        drp_region_free(regions[1]);
        drp_region_free(regions[0]);
    }
    child_kill(&child);
    ck_assert(status_becomes("regions", 0, WAIT_MS));
}
END_TEST

/* ---- what a context finds ---- */

/* Who does not pin gets the kernel's memory, with a budget as well: the service enforces it. */
START_TEST(test_auto_budget) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .preferred = DRP_REGION_NO_PINS, .budget = SIZE / 2};
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    ck_assert_int_eq(drp_region_get_backend(region), DRP_BACKEND_NATIVE);
    ck_assert(is_connected(region));
    memset(drp_region_address(region), 1, SIZE);
    for (uint64_t deadline = now_ms() + WAIT_MS; region_resident(region) > SIZE / 2; nap_ms(10))
        ck_assert_uint_lt(now_ms(), deadline);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

/* It has no service at first, and finds the one that comes; what was made before is told then. */
START_TEST(test_late_service) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = DRP_BACKEND_NATIVE};
    struct drp_region *early, *late;
    struct drp *d;

    connection = drp_free(connection);
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert_int_eq(drp_new(&d, &config), 0);
    ck_assert_int_eq(drp_region_new(&early, d, SIZE, NULL), 0);
    ck_assert(!is_connected(early));
    service_restart(&service);
    fixture_measure();
    ck_assert_int_eq(drp_region_new(&late, d, SIZE, NULL), 0);
    ck_assert(is_connected(late));
    ck_assert(is_connected(early));
    memset(drp_region_address(early), 1, SIZE);
    expect_counted(id_of(early), SIZE);
    ck_assert_int_eq(drp_region_set_budget(early, SIZE / 2), 0);
    for (uint64_t deadline = now_ms() + WAIT_MS; region_resident(early) > SIZE / 2; nap_ms(10))
        ck_assert_uint_lt(now_ms(), deadline);
    drp_region_free(early);
    drp_region_free(late);
    drp_free(d);
}
END_TEST

/* ---- another program ---- */

#define HOLD "hold"

/* As the program that a client runs: has memory of the same kind at the same address, and the connection that he has left open. */
static int hold(const char *address, const char *socket) {
    void *at = (void *)(uintptr_t)strtoull(address, NULL, 16); /* NOLINT(performance-no-int-to-ptr) */
    int fd = atoi(socket);
    char word;

    if (mmap(at, SIZE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
        return 1;
    memset(at, 1, SIZE);
    return child_say(fd, 'h') && child_hear(fd, &word) && is_filled(at, 1, SIZE) && child_say(fd, 'f') ? 0 : 1;
}

static void run_program(int socket, void *data) {
    char address[32], fd[16];
    void *p = map_native(SIZE);
    int session = raw_hello("runner");

    memset(p, 1, SIZE);
    child_check(tell(session, p, SIZE, data) == DRP_WIRE_OK);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)p);
    snprintf(fd, sizeof(fd), "%d", socket);
    child_check(fcntl(session, F_SETFD, 0) == 0 && fcntl(socket, F_SETFD, 0) == 0);
    execl("/proc/self/exe", "test-native", HOLD, address, fd, (char *)NULL);
    child_check(false);
}

/* What he ran is nobody's business: it is not counted, and not dropped from, as long as the connection may last. */
START_TEST(test_executed) {
    uint64_t *id = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child child;
    char region[24];

    ck_assert_ptr_ne(id, MAP_FAILED);
    child_start(&child, run_program, id);
    child_expect(&child, 'h');
    expect_counted(*id, 0);
    snprintf(region, sizeof(region), "%llu", (unsigned long long)*id);
    service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--region", region, NULL});
    service_ctl(&service, NULL, 0, (const char *const[]){"free", "64M", NULL});
    nap_ms(200); /* several counts */
    expect_counted(*id, 0);
    ck_assert(child_say(child.socket, 'l'));
    child_expect(&child, 'f');
    child_end(&child);
    munmap(id, PAGE);
}
END_TEST

/* A program of root's, that everybody may run as root. */
struct privileged {
    void *at;
    pid_t other;
    uint64_t id;
    char program[sizeof(service.dir) + 16];
};

static void own_much(int socket, void *data) {
    const struct privileged *privileged = data;
    char word;

    child_become_nobody();
    memset(privileged->at, 1, SIZE);
    child_check(child_say(socket, 'r') && child_hear(socket, &word));
}

static void run_privileged(int socket, void *data) {
    struct privileged *privileged = data;
    char address[32], fd[16], pagemap[48];
    int session;

    child_become_nobody();
    session = raw_hello("runner");
    snprintf(pagemap, sizeof(pagemap), "/proc/%d/pagemap", (int)privileged->other);
    child_check(tell_with(session, pagemap, privileged->at, SIZE, &privileged->id) == DRP_WIRE_OK);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)privileged->at);
    snprintf(fd, sizeof(fd), "%d", socket);
    child_check(fcntl(session, F_SETFD, 0) == 0 && fcntl(socket, F_SETFD, 0) == 0);
    execl(privileged->program, "test-native", HOLD, address, fd, (char *)NULL);
    child_check(false);
}

static void copy_program(const char *path) {
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    ssize_t n;

    ck_assert(from >= 0 && to >= 0);
    while ((n = sendfile(to, from, NULL, 1 << 30)) > 0)
        ;
    ck_assert_int_eq(n, 0);
    ck_assert_int_eq(fchmod(to, 04755), 0);
    close(from);
    close(to);
}

/* Another process's pagemap says what is where; what is there in the program that he runs is not dropped for it. */
START_TEST(test_privileged) {
    struct privileged *privileged = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child other, child;
    char region[24];

    ck_assert_ptr_ne(privileged, MAP_FAILED);
    privileged->at = map_native(SIZE);
    snprintf(privileged->program, sizeof(privileged->program), "%s/privileged", service.dir);
    copy_program(privileged->program);
    child_start(&other, own_much, privileged);
    child_expect(&other, 'r');
    privileged->other = other.pid;
    child_start(&child, run_privileged, privileged);
    child_expect(&child, 'h');
    expect_counted(privileged->id, SIZE);
    snprintf(region, sizeof(region), "%llu", (unsigned long long)privileged->id);
    service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--region", region, NULL});
    expect_counted(privileged->id, 0);
    ck_assert(child_say(child.socket, 'l'));
    child_expect(&child, 'f');
    child_end(&child);
    ck_assert(child_say(other.socket, 'e'));
    child_end(&other);
    unlink(privileged->program);
    munmap(privileged->at, SIZE);
    munmap(privileged, PAGE);
}
END_TEST

int main(int argc, char **argv) {
    Suite *suite;
    TCase *tcase;
    void *p;

    if (argc == 4 && strcmp(argv[1], HOLD) == 0)
        return hold(argv[2], argv[3]);
    suite = suite_create("native");
    tcase = tcase_create("native");
    p = mmap(NULL, PAGE, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        skip_all("the kernel has no MAP_DROPPABLE");
    if (geteuid() != 0)
        skip_all("needs root: dropping another process's memory takes CAP_SYS_NICE");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 180);
    tcase_add_test(tcase, test_counted);
    tcase_add_test(tcase, test_dropped_by_hand);
    tcase_add_test(tcase, test_budget);
    tcase_add_test(tcase, test_priority);
    tcase_add_test(tcase, test_restart);
    tcase_add_test(tcase, test_shortage);
    tcase_add_test(tcase, test_fork);
    tcase_add_test(tcase, test_nobody);
    tcase_add_test(tcase, test_pressure);
    tcase_add_test(tcase, test_lies);
    tcase_add_test(tcase, test_not_for_it);
    tcase_add_test(tcase, test_exchanged);
    tcase_add_test(tcase, test_killed);
    tcase_add_test(tcase, test_ended_under_way);
    tcase_add_test(tcase, test_auto_budget);
    tcase_add_test(tcase, test_late_service);
    tcase_add_test(tcase, test_executed);
    tcase_add_test(tcase, test_privileged);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
