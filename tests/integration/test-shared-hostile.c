/* SPDX-License-Identifier: MIT */
/*
 * Clients that have a share in a region and mean harm: what they can cost the service, its other clients, and whoever shares with them.
 */

#include "child.h"
#include "fixture.h"
#include "holder.h"
#include "raw.h"
#include "service.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)32)
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 10000
#define LIMIT_FILES 512 /* of the service, in one test */
#define LOCKS ((off_t)200000)
#define LATER_ERAS ((off_t)1 << 62)
#define LOCKS_WATCH_MS 2000
#define LIVES 100
#define TRIM_MS 10000
#define MAPPINGS 128 /* REGION_MAPPINGS_MAX */

/* CPU time of the service's main thread. */
static uint64_t loop_cpu_ms(void) {
    char path[64];
    unsigned long long ns = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)service.pid, (int)service.pid);
    f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%llu", &ns), 1);
    fclose(f);
    return ns / 1000000;
}

/* ---- a client by hand ---- */

struct raw_shared {
    uint64_t id;
    int data_fd, state_fd;
};

/* A request whose reply tells of a region. */
static int call_for_region(int socket, void *request, size_t size, struct raw_shared *ret) {
    struct channel_packet packet;
    int r = raw_call(socket, request, size, NULL, 0, &packet);

    if (r == DRP_WIRE_OK) {
        ret->id = packet.message.create_reply.region;
        ret->data_fd = packet.fds[0];
        ret->state_fd = packet.fds[1];
    }
    return r;
}

static int raw_create_shared(int socket, const char *name, uint32_t mode, struct raw_shared *ret) {
    struct drp_wire_create_shared request = {
        .create = {.header.type = DRP_WIRE_CREATE_SHARED, .size = SIZE, .required = DRP_REGION_SHARED}, .mode = mode};

    strcpy(request.name, name);
    return call_for_region(socket, &request, sizeof(request), ret);
}

static int raw_open(int socket, const char *name, uint32_t uid, struct raw_shared *ret) {
    struct drp_wire_open request = {.header.type = DRP_WIRE_OPEN, .uid = uid};

    strcpy(request.name, name);
    return call_for_region(socket, &request, sizeof(request), ret);
}

/* While the service is still at work on what was given up before, that is its answer. */
static int raw_adopt(int socket, int data_fd, int state_fd, uint64_t *ret_id) {
    struct drp_wire_adopt request = {.header.type = DRP_WIRE_ADOPT,
                                     .size = SIZE,
                                     .chunk_total = CHUNKS,
                                     .granted = DRP_REGION_SHARED,
                                     .chunk_shift = 16};
    uint64_t deadline = now_ms() + WAIT_MS;
    struct channel_packet packet;
    int r;

    do
        r = raw_call(socket, &request, sizeof(request), (const int[]){data_fd, state_fd}, 2, &packet);
    while (r == DRP_WIRE_ERROR_QUARANTINED && now_ms() < deadline);
    if (r == DRP_WIRE_OK) {
        *ret_id = packet.message.create_reply.region;
        channel_packet_close(&packet);
    }
    return r;
}

/* Without keeping pin page and ticket. */
static int raw_map_shared(int socket, uint64_t id, uint64_t *ret_mapping) {
    struct drp_wire_map request = {.header.type = DRP_WIRE_MAP, .region = id};
    struct channel_packet packet;
    int r = raw_call(socket, &request, sizeof(request), NULL, 0, &packet);

    if (r == DRP_WIRE_OK) {
        *ret_mapping = packet.message.map_reply.mapping;
        channel_packet_close(&packet);
    }
    return r;
}

static void close_shared(const struct raw_shared *shared) {
    close(shared->data_fd);
    close(shared->state_fd);
}

static int make(struct drp *d, const char *name, struct drp_region **ret) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = name, .mode = name ? 0666 : 0};

    return drp_region_new(ret, d, SIZE, &options);
}

/* ---- quotas ---- */

/* Who comes, makes a shared region and hangs up has it for 10 s more: no longer counted, he could have any number. */
START_TEST(test_hang_up) {
    size_t before = service_threads(&service);
    struct raw_shared shared;
    bool refused = false;

    for (int i = 0; i < 200; i++) {
        struct drp_wire_hello hello = {.header.type = DRP_WIRE_HELLO,
                                       .magic = DRP_WIRE_MAGIC,
                                       .version_min = DRP_WIRE_VERSION,
                                       .version_max = DRP_WIRE_VERSION};
        int socket = raw_connect();

        if (raw_call(socket, &hello, sizeof(hello), NULL, 0, NULL) != DRP_WIRE_OK)
            refused = true;
        else if (raw_create_shared(socket, "", 0, &shared) == DRP_WIRE_OK)
            close_shared(&shared);
        close(socket);
        ck_assert_uint_lt(service_threads(&service), before + 64);
    }
    ck_assert(refused);
}
END_TEST

/* The connection goes on, and the regions: each costs the service a thread and descriptors. */
START_TEST(test_many_regions) {
    int socket = raw_hello("greedy"), r = DRP_WIRE_OK;
    struct raw_shared shared;
    unsigned n = 0;

    for (; r == DRP_WIRE_OK && n < 2000; n++) {
        r = raw_create_shared(socket, "", 0, &shared);
        if (r == DRP_WIRE_OK)
            close_shared(&shared);
    }
    ck_assert_int_eq(r, DRP_WIRE_ERROR_QUOTA);
    ck_assert_uint_le(n, LIMIT_FILES / 4 * 3 / 2 / 3 + 1); /* half of what there is for regions, three for each */
    close(socket);
}
END_TEST

/* A share that is given up takes its mapping along: else each mapping but the first is free. */
START_TEST(test_destroy_before_unmap) {
    int socket = raw_hello("greedy");
    struct raw_shared shared, again;
    uint64_t first, second;

    ck_assert_int_eq(raw_create_shared(socket, "greedy", 0600, &shared), DRP_WIRE_OK);
    ck_assert_int_eq(raw_map_shared(socket, shared.id, &first), DRP_WIRE_OK);
    ck_assert_int_eq(raw_map_shared(socket, shared.id, &second), DRP_WIRE_ERROR_QUOTA);
    ck_assert_int_eq(raw_open(socket, "greedy", geteuid(), &again), DRP_WIRE_OK);
    ck_assert_int_eq(raw_map_shared(socket, shared.id, &second), DRP_WIRE_OK);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, shared.id), DRP_WIRE_OK);
    ck_assert_int_eq((raw_id(socket, DRP_WIRE_UNMAP, first) == DRP_WIRE_OK) +
                         (raw_id(socket, DRP_WIRE_UNMAP, second) == DRP_WIRE_OK),
                     1);
    close_shared(&shared);
    close_shared(&again);
    close(socket);
}
END_TEST

/* ---- names ---- */

/* Has the region by its name, keeps what it gets, and hands it over when it is nobody's any more. */
static void run_replay(int socket, void *data) {
    uid_t uid = geteuid();
    struct raw_shared shared;
    uint64_t id;
    int connection;
    char word;

    (void)data;
    child_become_nobody();
    connection = raw_hello("replay");
    child_check(raw_open(connection, "cache", uid, &shared) == DRP_WIRE_OK);
    child_check(child_say(socket, 'o') && child_hear(socket, &word));
    child_check(raw_id(connection, DRP_WIRE_DESTROY, shared.id) == DRP_WIRE_OK);
    child_check(raw_adopt(connection, shared.data_fd, shared.state_fd, &id) == DRP_WIRE_OK);
    child_check(child_say(socket, 'a') && child_hear(socket, &word));
}

START_TEST(test_replayed_name) {
    struct drp_region *region, *other;
    struct child child;
    struct drp *d;

    if (geteuid() != 0)
        return;
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(make(d, "cache", &region), 0);
    child_start(&child, run_replay, NULL);
    child_expect(&child, 'o');
    region = drp_region_free(region);
    ck_assert(child_say(child.socket, 'a'));
    child_expect(&child, 'a');
    /* The name is the user's, and free: what opens it finds this user's region. */
    ck_assert_int_eq(drp_region_open(&other, d, "cache", geteuid()), -ENOENT);
    ck_assert_int_eq(make(d, "cache", &region), 0);
    ck_assert(child_say(child.socket, 'e'));
    child_end(&child);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

/* ---- who holds it up ---- */

static int make_state(void) {
    int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    child_check(ftruncate(fd, (off_t)drp_state_bytes(CHUNKS)) == 0);
    child_check(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    return fd;
}

static bool is_answered(int connection) {
    struct pollfd readable = {.fd = connection, .events = POLLIN};
    struct channel_packet packet;

    if (poll(&readable, 1, 200) == 0)
        return false;
    child_check(channel_receive(connection, &packet, 0) == CHANNEL_OK);
    child_check(packet.message.header.error == DRP_WIRE_ERROR_QUARANTINED);
    return true;
}

/* Hands a region over with an old state page that it does not let anybody read; and its handle to its parent, before. */
static void run_holder(int socket, void *data) {
    struct drp_wire_adopt adopt = {.header = {.type = DRP_WIRE_ADOPT, .serial = 1},
                                   .size = SIZE,
                                   .chunk_total = CHUNKS,
                                   .granted = DRP_REGION_SHARED,
                                   .chunk_shift = 16};
    struct holder holder;
    struct raw_shared shared;
    int connection = raw_hello("holder");
    char word;

    (void)data;
    child_check(raw_create_shared(connection, "", 0, &shared) == DRP_WIRE_OK);
    child_check(raw_id(connection, DRP_WIRE_DESTROY, shared.id) == DRP_WIRE_OK);
    child_check(channel_send(socket, "h", 1, &shared.data_fd, 1, 0) == CHANNEL_OK);
    holder_begin(&holder, make_state());
    do /* the region that was given up may not have ended yet: that is answered */
        child_check(channel_send(connection, &adopt, sizeof(adopt), (const int[]){shared.data_fd, holder.fd}, 2, 0) ==
                    CHANNEL_OK);
    while (is_answered(connection));
    child_check(child_say(socket, 'a'));
    child_hear(socket, &word);
}

/* Whoever opens it is told so, also who was waiting; and his other regions have nothing to do with it. */
START_TEST(test_held_up_adoption) {
    struct channel_packet packet;
    struct drp_region *region;
    struct child child;
    struct drp *d;
    int r;

    if (!may_intercept()) /* needs a userfaultfd */
        return;
    child_start(&child, run_holder, NULL);
    ck_assert_int_eq(channel_receive(child.socket, &packet, 0), CHANNEL_OK);
    ck_assert_uint_eq(packet.n_fds, 1);
    child_expect(&child, 'a');
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (uint64_t deadline = now_ms() + WAIT_MS;; nap_ms(5)) {
        r = drp_region_open_handle(&region, d, packet.fds[0]);
        ck_assert_uint_lt(now_ms(), deadline);
        if (r != -EBADF) /* it is not handed over yet */
            break;
    }
    ck_assert_int_eq(r, -ETIMEDOUT);
    ck_assert(service_log_has(&service, "its object's lock holds up a call for over 1 s: quarantined", WAIT_MS));
    ck_assert_int_eq(drp_region_open_handle(&region, d, packet.fds[0]), -ETIMEDOUT);
    ck_assert_int_eq(make(d, NULL, &region), 0);
    drp_region_free(region);
    drp_free(d);
    channel_packet_close(&packet);
    child_kill(&child);
}
END_TEST

/* Has the region, as "stuck", and holds the lock of its object. */
static void run_object_holder(int socket, void *data) {
    int connection = raw_hello("holder");
    struct raw_shared shared;
    struct holder holder;
    uint64_t mapping;
    char word;

    (void)data;
    child_check(raw_open(connection, "stuck", geteuid(), &shared) == DRP_WIRE_OK);
    child_check(raw_map_shared(connection, shared.id, &mapping) == DRP_WIRE_OK);
    holder_begin(&holder, shared.data_fd);
    child_check(child_say(socket, 'l'));
    child_hear(socket, &word);
}

/* That region is not dropped for as long; all else goes on, of those who have it, too. */
START_TEST(test_held_up_object) {
    struct drp_region *stuck, *shared, *own;
    struct child child;
    uint64_t freed;
    struct drp *d;

    if (!may_intercept())
        return;
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(make(d, "stuck", &stuck), 0);
    ck_assert_int_eq(make(d, "other", &shared), 0);
    ck_assert_int_eq(drp_region_new(&own, d, SIZE, NULL), 0);
    memset(drp_region_address(stuck), 1, SIZE);
    child_start(&child, run_object_holder, NULL);
    child_expect(&child, 'l');
    ck_assert_int_eq(drp_drop(stuck, 0, SIZE, &freed, NULL), -ETIMEDOUT); /* when it is quarantined */
    for (int i = 0; i < 20; i++) {
        uint64_t began = now_ms();

        memset(drp_region_address(shared), 1, SIZE);
        memset(drp_region_address(own), 1, SIZE);
        ck_assert_int_eq(drp_pin(shared, 0, CHUNK, NULL), 0);
        ck_assert_int_eq(drp_unpin(shared, 0, CHUNK), 0);
        ck_assert_int_eq(drp_drop(shared, 0, SIZE, &freed, NULL), 0);
        ck_assert_uint_eq(freed, SIZE);
        ck_assert_int_eq(drp_drop(own, 0, SIZE, &freed, NULL), 0);
        ck_assert_uint_eq(freed, SIZE);
        ck_assert_int_eq(drp_drop(stuck, 0, SIZE, &freed, NULL), -ETIMEDOUT); /* at once */
        ck_assert_uint_lt(now_ms() - began, WAIT_MS);
    }
    child_kill(&child);
    for (uint64_t deadline = now_ms() + WAIT_MS; drp_drop(stuck, 0, SIZE, NULL, NULL) != 0; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline);
    drp_region_free(own);
    drp_region_free(shared);
    drp_region_free(stuck);
    drp_free(d);
}
END_TEST

/* ---- what is left ---- */

/* Lines of a file of the service's. */
static size_t count_maps(void) {
    char path[64], line[512];
    size_t n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)service.pid);
    f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f))
        n++;
    fclose(f);
    return n;
}

static size_t resident_kb(void) {
    char path[64];
    size_t pages = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)service.pid);
    f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%*u %zu", &pages), 1);
    fclose(f);
    return pages * 4;
}

/* Made, opened, mapped, given up in some order, handed over and left to the end of the connection. */
static void live(unsigned round) {
    int socket = raw_hello("live");
    struct raw_shared first, second;
    uint64_t id, mapping;
    char name[16];

    snprintf(name, sizeof(name), "live-%u", round);
    ck_assert_int_eq(raw_create_shared(socket, name, 0600, &first), DRP_WIRE_OK);
    ck_assert_int_eq(raw_map_shared(socket, first.id, &mapping), DRP_WIRE_OK);
    ck_assert_int_eq(raw_open(socket, name, geteuid(), &second), DRP_WIRE_OK);
    ck_assert_int_eq(raw_map_shared(socket, second.id, &id), DRP_WIRE_OK);
    if (round % 2)
        ck_assert_int_eq(raw_id(socket, DRP_WIRE_UNMAP, mapping), DRP_WIRE_OK);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, first.id), DRP_WIRE_OK);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, first.id), DRP_WIRE_OK);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, first.id), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(raw_adopt(socket, first.data_fd, first.state_fd, &id), DRP_WIRE_OK);
    ck_assert_int_eq(raw_adopt(socket, first.data_fd, first.data_fd, &id), DRP_WIRE_ERROR_DESCRIPTOR);
    ck_assert_int_eq(raw_map_shared(socket, id, &mapping), DRP_WIRE_OK);
    if (round % 3)
        ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, id), DRP_WIRE_OK);
    close_shared(&first);
    close_shared(&second);
    close(socket);
}

static void live_in_child(int socket, void *data) {
    (void)socket;
    for (unsigned i = 0; i < *(unsigned *)data; i++)
        live(i);
}

static void run_lives(unsigned n) {
    struct child child;

    child_start(&child, live_in_child, &n);
    child_end(&child);
    fixture_expect_idle();
}

/* No address, no memory: descriptors and threads the fixture counts. */
START_TEST(test_nothing_is_left) {
    size_t maps, kb;

    run_lives(LIVES);
    maps = count_maps();
    kb = resident_kb();
    run_lives(LIVES);
    ck_assert_uint_lt(count_maps(),
                      maps + LIVES / 2); /* less than one for each: stacks of threads are kept, more or less of them */
    /* A page for each would be a leak. What is free goes back to the kernel a moment later. */
    for (uint64_t deadline = now_ms() + TRIM_MS; !under_sanitizer() && resident_kb() > kb + LIVES * 4; nap_ms(10))
        ck_assert_uint_lt(now_ms(), deadline);
}
END_TEST

/* ---- many ---- */

/* As many mappings as a region can have, each with a pin of its own. */
START_TEST(test_many_mappings) {
    struct drp_region *regions[MAPPINGS], *more;
    uint64_t pinned;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(make(d, "many", &regions[0]), 0);
    for (size_t i = 1; i < MAPPINGS; i++)
        ck_assert_int_eq(drp_region_open(&regions[i], d, "many", geteuid()), 0);
    ck_assert_int_eq(drp_region_open(&more, d, "many", geteuid()), -EDQUOT);
    memset(drp_region_address(regions[0]), 1, SIZE);
    for (size_t i = 0; i < MAPPINGS; i++)
        ck_assert_int_eq(drp_pin(regions[i], i % CHUNKS * CHUNK, CHUNK, NULL), 0);
    ck_assert_int_eq(drp_drop(regions[0], 0, SIZE, NULL, &pinned), 0);
    ck_assert_uint_eq(pinned, SIZE);
    for (size_t i = 0; i < MAPPINGS - 1; i++)
        drp_region_free(regions[i]);
    ck_assert_int_eq(drp_drop(regions[MAPPINGS - 1], 0, SIZE, NULL, &pinned), 0);
    ck_assert_uint_eq(pinned, CHUNK);
    ck_assert(is_filled((char *)drp_region_address(regions[MAPPINGS - 1]) + SIZE - CHUNK, 1, CHUNK));
    drp_region_free(regions[MAPPINGS - 1]);
    drp_free(d);
}
END_TEST

/* ---- locks ---- */

static void set_lock(int fd, short type, off_t start, off_t length) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    child_check(fcntl(fd, F_OFD_SETLK, &lock) == 0);
}

/*
 * Hands a region over for which somebody is missing for ever: the lock of the first era says so. The kernel comes to it behind those of the other
 * copy: any number of locks, which say nothing.
 */
static void run_locker(int socket, void *data) {
    int connection = raw_hello("locker"), many, one;
    struct raw_shared shared;
    char path[64], word;
    uint64_t id;

    (void)data;
    child_check(raw_create_shared(connection, "", 0, &shared) == DRP_WIRE_OK);
    child_check(raw_id(connection, DRP_WIRE_DESTROY, shared.id) == DRP_WIRE_OK);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", shared.data_fd); /* the service does not see those of its own */
    many = open(path, O_RDWR | O_CLOEXEC);
    one = open(path, O_RDWR | O_CLOEXEC);
    set_lock(many, F_RDLCK, 8, 1);
    set_lock(one, F_RDLCK, 7, 1);
    child_check(raw_adopt(connection, shared.data_fd, shared.state_fd, &id) == DRP_WIRE_OK);
    set_lock(many, F_RDLCK, LATER_ERAS, LOCKS * 16);
    for (off_t i = LOCKS - 1; i > 0; i--)
        set_lock(many, F_UNLCK, LATER_ERAS + i * 16, 1);
    set_lock(many, F_UNLCK, 8, 1);
    child_check(child_say(socket, 'a'));
    child_hear(socket, &word);
}

/* The loop does not look at them, however long somebody is waited for. */
START_TEST(test_locks) {
    struct child child;
    uint64_t before, spent;

    child_start(&child, run_locker, NULL);
    child_expect(&child, 'a');
    before = loop_cpu_ms();
    nap_ms(LOCKS_WATCH_MS);
    spent = loop_cpu_ms() - before;
    ck_assert_uint_lt(spent, LOCKS_WATCH_MS / 20);
    child_kill(&child);
}
END_TEST

static void setup_few(void) {
    fixture_start("[Limits]\nConnectionsPerUser=16\n");
}

/* The service has few descriptors. */
static void setup_small(void) {
    struct rlimit few = {LIMIT_FILES, LIMIT_FILES};

    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    fixture_setup();
}

int main(void) {
    Suite *suite = suite_create("shared-hostile");
    TCase *few = tcase_create("few connections"), *small = tcase_create("few descriptors"),
          *tcase = tcase_create("shared-hostile");

    tcase_add_checked_fixture(few, setup_few, fixture_teardown);
    tcase_set_timeout(few, 120);
    tcase_add_test(few, test_hang_up);
    suite_add_tcase(suite, few);
    tcase_add_checked_fixture(small, setup_small, fixture_teardown);
    tcase_set_timeout(small, 120);
    tcase_add_test(small, test_many_regions);
    suite_add_tcase(suite, small);
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_destroy_before_unmap);
    tcase_add_test(tcase, test_replayed_name);
    tcase_add_test(tcase, test_held_up_adoption);
    tcase_add_test(tcase, test_held_up_object);
    tcase_add_test(tcase, test_nothing_is_left);
    tcase_add_test(tcase, test_many_mappings);
    tcase_add_test(tcase, test_locks);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
