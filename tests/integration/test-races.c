/* SPDX-License-Identifier: MIT */
/*
 * Clients whose timing is bad: one ends while a request of its own is under way, hundreds of threads fault while another takes the
 * mapping away, descriptors whose last close waits, memory that the client gave back behind the service's back. The model is always the
 * same: somebody (a child process) does it; the bystander, a client that only asks for its STATS, over and over, is answered in time; and
 * at the end the service has the descriptors and threads that it had before, without a word from a sanitizer.
 *
 * A part that this machine or user cannot run says "SKIP", its name and the reason, and passes.
 */

#include "again.h"
#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SPAN (2 * MIB)
#define PAGE 4096
#define WAIT_NS (UINT64_C(500000000) * (under_sanitizer() ? 4 : 1))

static void skip_part(const char *name, const char *reason) {
    printf("SKIP %s: %s\n", name, reason);
    fflush(stdout);
}

static bool have_userfaultfd(const char *name) {
    int fd = raw_userfaultfd();

    if (fd >= 0)
        return close(fd) == 0;
    skip_part(name, "no userfaultfd for this user");
    return false;
}

/* ---- the bystander ---- */

struct figures {
    _Atomic uint64_t worst_ns;
    _Atomic uint64_t calls;
};

struct bystander {
    struct child child;
    struct figures *figures; /* shared with the child */
};

static void ask_stats(int socket, void *data) {
    struct pollfd told = {.fd = socket, .events = POLLIN};
    struct figures *figures = data;
    int connection = raw_hello("bystander");

    child_say(socket, 'b');
    while (poll(&told, 1, 1) == 0) {
        uint64_t started = now_ns(), took;

        child_check(raw_stats(connection, NULL) == DRP_WIRE_OK);
        took = now_ns() - started;
        if (took > atomic_load(&figures->worst_ns))
            atomic_store(&figures->worst_ns, took);
        atomic_fetch_add(&figures->calls, 1);
    }
    close(connection);
}

static struct bystander bystander_start(void) {
    struct bystander by;

    by.figures = mmap(NULL, sizeof(*by.figures), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(by.figures, MAP_FAILED);
    child_start(&by.child, ask_stats, by.figures);
    child_expect(&by.child, 'b');
    return by;
}

/* How long the longest of its calls took, ns. */
static uint64_t bystander_end(struct bystander *by, const char *what) {
    uint64_t worst, calls;

    for (uint64_t deadline = now_ms() + 10000; atomic_load(&by->figures->calls) < 20 && now_ms() < deadline;)
        usleep(1000);
    child_say(by->child.socket, 'e');
    child_end(&by->child);
    worst = atomic_load(&by->figures->worst_ns);
    calls = atomic_load(&by->figures->calls);
    munmap(by->figures, sizeof(*by->figures));
    printf("%s: %llu STATS of a bystander\n", what, (unsigned long long)calls);
    ck_assert_uint_gt(calls, 0);
    return worst;
}

/* ---- the end while a request is under way ---- */

#define ABORTS 200

/* UNMAP or DESTROY, which the pager and the dropper work on while their session ends. */
static void ask_and_die(int socket, void *data) {
    bool unmap = *(int *)data % 2;
    struct drp_wire_id id = {.header = {.type = unmap ? DRP_WIRE_UNMAP : DRP_WIRE_DESTROY, .serial = 1}};
    int connection = raw_session("abort");
    struct raw_region region;

    (void)socket;
    raw_region_new(connection, 64 * MIB, &region);
    for (uint64_t offset = 0; offset < region.size; offset += SPAN)
        region.address[offset] = 1;
    id.id = unmap ? region.mapping : region.id;
    child_check(channel_send(connection, &id, sizeof(id), NULL, 0, 0) == CHANNEL_OK);
    _exit(0);
}

START_TEST(test_ends_in_request) {
    for (int round = 0; round < ABORTS; round++) {
        struct child child;

        child_start(&child, ask_and_die, &round);
        child_end(&child);
    }
    ck_assert(status_becomes("regions", 0, 20000));
}
END_TEST

/* ---- a storm of faults ---- */

#define STORM_SPANS UINT64_C(1600)
#define STORM_THREADS_MAX 400
#define STORM_MS (under_sanitizer() ? 30000 : 10000)

struct storm {
    struct raw_region touched, torn;
    pthread_barrier_t barrier; /* the threads and who starts them */
    unsigned n_threads;
    _Atomic unsigned next, touching;
    _Atomic uint64_t wrong;
};

/* A page of each of its spans: zeros before, its own number after. */
static void touch_spans(struct storm *storm, unsigned me) {
    for (uint64_t span = me; span < STORM_SPANS; span += storm->n_threads) {
        volatile uint64_t *word = (volatile uint64_t *)(storm->touched.address + span * SPAN);

        if (*word != 0)
            atomic_fetch_add(&storm->wrong, 1);
        *word = span + 1;
    }
    for (uint64_t span = me; span < STORM_SPANS; span += storm->n_threads) {
        const char *page = storm->touched.address + span * SPAN;

        if (*(const volatile uint64_t *)page != span + 1 || !is_zero(page + 8, PAGE - 8))
            atomic_fetch_add(&storm->wrong, 1);
    }
}

static void *storm_thread(void *data) {
    struct storm *storm = data;
    unsigned me = atomic_fetch_add(&storm->next, 1);

    for (int round = 0; round < 2; round++) {
        pthread_barrier_wait(&storm->barrier);
        touch_spans(storm, me);
        atomic_fetch_sub(&storm->touching, 1);
        pthread_barrier_wait(&storm->barrier);
    }
    return NULL;
}

/* Each munmap(2) here is an event that the pager has to read before any of the touching threads gets on. */
static uint64_t tear(struct storm *storm) {
    struct raw_region *torn = &storm->torn;
    uint64_t n = 0;

    for (; atomic_load(&storm->touching) > 0; n++) {
        uint64_t offset = n * 2 * PAGE % torn->size;

        child_check(munmap(torn->address + offset, PAGE) == 0);
        child_check(mmap(torn->address + offset, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, torn->data_fd,
                         (off_t)(torn->object_offset + offset)) != MAP_FAILED);
    }
    return n;
}

static void storm_client(int socket, void *data) {
    struct storm storm = {.n_threads = *(unsigned *)data};
    pthread_t threads[STORM_THREADS_MAX];
    int connection = raw_session("storm");

    (void)socket;
    raw_region_new(connection, STORM_SPANS * SPAN, &storm.touched);
    raw_region_new(connection, 64 * MIB, &storm.torn);
    pthread_barrier_init(&storm.barrier, NULL, storm.n_threads + 1);
    for (unsigned i = 0; i < storm.n_threads; i++)
        child_check(pthread_create(&threads[i], NULL, storm_thread, &storm) == 0);
    for (int round = 0; round < 2; round++) {
        uint64_t started = now_ms(), torn;

        atomic_store(&storm.touching, storm.n_threads);
        pthread_barrier_wait(&storm.barrier);
        torn = tear(&storm);
        pthread_barrier_wait(&storm.barrier);
        printf("storm of %u threads, %s: %llu ms, %llu times torn\n", storm.n_threads, round ? "dropped" : "fresh",
               (unsigned long long)(now_ms() - started), (unsigned long long)torn);
        if (round == 0)
            child_check(raw_drop(connection, &storm.touched, 0, storm.touched.size, NULL) == DRP_WIRE_OK);
    }
    fflush(stdout);
    for (unsigned i = 0; i < storm.n_threads; i++)
        pthread_join(threads[i], NULL);
    child_check(atomic_load(&storm.wrong) == 0);
    raw_region_end(connection, &storm.torn);
    raw_region_end(connection, &storm.touched);
}

START_TEST(test_storm) {
    unsigned n_threads = _i == 0 ? 64 : STORM_THREADS_MAX;
    uint64_t started = now_ms();
    struct child child;

    if (!have_userfaultfd("storm"))
        return;
    child_start(&child, storm_client, &n_threads);
    child_end(&child);
    ck_assert_uint_lt(now_ms() - started, (uint64_t)STORM_MS);
}
END_TEST

/* ---- descriptors whose last close waits ---- */

/* With a HELLO, which takes none. */
static int send_with_hello(int fd) {
    struct drp_wire_hello hello = {.header = {.type = DRP_WIRE_HELLO, .serial = 1},
                                   .magic = DRP_WIRE_MAGIC,
                                   .version_min = DRP_WIRE_VERSION,
                                   .version_max = DRP_WIRE_VERSION};
    int connection = raw_connect();

    ck_assert_int_eq(channel_send(connection, &hello, sizeof(hello), &fd, 1, 0), CHANNEL_OK);
    return connection;
}

/* A TCP socket whose close(2) waits for 20 s, or until the peer goes. false: no network. */
static bool make_lingering(int *ret_fd, int *ret_peer) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct linger linger = {.l_onoff = 1, .l_linger = 20};
    socklen_t size = sizeof(address);
    static const char bytes[65536];

    if (bind(listening, (struct sockaddr *)&address, size) < 0 || listen(listening, 1) < 0 ||
        getsockname(listening, (struct sockaddr *)&address, &size) < 0 ||
        connect(fd, (struct sockaddr *)&address, size) < 0) {
        close(listening);
        close(fd);
        return false;
    }
    *ret_peer = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(*ret_peer, 0);
    close(listening);
    while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    *ret_fd = fd;
    return true;
}

START_TEST(test_lingering_socket) {
    for (struct bar bar = {.what = "lingering socket", .ns = UINT64_C(1000000000)}; bar_again(&bar);) {
        struct bystander by;
        int fd, peer, connection;

        if (!make_lingering(&fd, &peer)) {
            skip_part("lingering socket", strerror(errno));
            return;
        }
        by = bystander_start();
        connection = send_with_hello(fd);
        close(fd);
        usleep(1500000);
        bar.longest_ns = bystander_end(&by, bar.what);
        close(peer);
        close(connection);
    }
}
END_TEST

#define CROWDED ((size_t)(1024 * MIB))

static void *hold_mmap_lock(void *data) {
    for (;;) {
        madvise(data, CROWDED, MADV_POPULATE_WRITE);
        madvise(data, CROWDED, MADV_DONTNEED);
    }
    return NULL;
}

/* The last close(2) of a userfaultfd waits for its process' mmap_lock. */
static void send_userfaultfds(int socket, void *data) {
    void *crowded = mmap(NULL, CROWDED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t until = now_ms() + *(uint64_t *)data;
    unsigned sent = 0;
    pthread_t thread;

    (void)socket;
    child_check(crowded != MAP_FAILED);
    madvise(crowded, CROWDED, MADV_NOHUGEPAGE);
    child_check(pthread_create(&thread, NULL, hold_mmap_lock, crowded) == 0);
    for (; now_ms() < until; sent++) {
        int fd = raw_userfaultfd(), connection = send_with_hello(fd);

        close(fd);
        raw_wait_end(connection, 2000);
        close(connection);
    }
    printf("%u userfaultfds\n", sent);
    fflush(stdout);
    _exit(0);
}

START_TEST(test_userfaultfd_closed) {
    uint64_t duration = 2500;
    struct bystander by;
    struct child child;

    if (!have_userfaultfd("userfaultfd closed"))
        return;
    for (struct bar bar = {.what = "userfaultfd closed", .ns = WAIT_NS}; bar_again(&bar);) {
        by = bystander_start();
        child_start(&child, send_userfaultfds, &duration);
        child_end(&child);
        bar.longest_ns = bystander_end(&by, bar.what);
    }
}
END_TEST

/* ---- memory that the client gave back itself ---- */

#define HOLES_LIMIT (256 * MIB)
#define HOLES (100 * MIB)
#define CACHE (120 * MIB)
#define PLAIN (180 * MIB)

struct holes {
    const struct memcg *memcg;
    bool punch; /* fallocate(2) instead of madvise(2) */
};

static void fill(char *memory, uint64_t size, useconds_t pause) {
    for (uint64_t offset = 0; offset < size; offset += PAGE) {
        ((volatile char *)memory)[offset] = 1;
        if (pause && offset % MIB == 0)
            usleep(pause);
    }
}

/* The oldest chunks, which a plan takes first, hold nothing; the younger ones have to make room for plain memory. */
static void give_back_and_take(int socket, void *data) {
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const struct holes *how = data;
    struct raw_region holes, cache;
    struct drp_wire_counters counters;
    int connection;
    char *plain;

    (void)socket;
    memcg_enter(how->memcg);
    connection = raw_session("holes");
    raw_region_new(connection, HOLES, &holes);
    fill(holes.address, HOLES, 0);
    if (how->punch)
        child_check(fallocate(holes.data_fd, mode, (off_t)holes.object_offset, (off_t)HOLES) == 0);
    else
        child_check(madvise(holes.address, HOLES, MADV_REMOVE) == 0);
    sleep(1);
    raw_region_new(connection, CACHE, &cache);
    fill(cache.address, CACHE, 0);
    plain = mmap(NULL, PLAIN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(plain != MAP_FAILED);
    madvise(plain, PLAIN, MADV_NOHUGEPAGE);
    fill(plain, PLAIN, 2000);
    child_check(raw_stats(connection, &counters) == DRP_WIRE_OK);
    printf("holes by %s: dropped %llu MiB\n", how->punch ? "fallocate" : "madvise",
           (unsigned long long)(counters.dropped_bytes / MIB));
    fflush(stdout);
    child_check(counters.dropped_bytes >= CACHE + PLAIN - HOLES_LIMIT);
}

START_TEST(test_holes) {
    struct holes how = {.punch = _i == 1};
    const char *reason = "";
    struct memcg memcg;
    struct child child;
    uint64_t kills;

    if (under_sanitizer() || !have_userfaultfd("holes"))
        return;
    if (!memcg_make(&memcg, HOLES_LIMIT, &reason)) {
        skip_part("holes", reason);
        return;
    }
    how.memcg = &memcg;
    child_start(&child, give_back_and_take, &how);
    child_end(&child);
    kills = memcg_oom_kills(&memcg);
    memcg_remove(&memcg);
    ck_assert_uint_eq(kills, 0);
}
END_TEST

/* ---- a large region handed over ---- */

#define ADOPTED (MIB << 20)
#define SHMEM_MAX (64 * MIB)

static int sparse_memfd(const char *name, uint64_t size) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return fd;
}

/* A tebibyte in chunks of a page, all of it holes: it costs the client nothing, so it may cost the service next to nothing. */
static void adopt_sparse(struct bar *bar) {
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                   .size = ADOPTED,
                                   .chunk_total = ADOPTED / PAGE,
                                   .chunk_shift = 12,
                                   .priority = 2 /* normal */};
    int fds[] = {sparse_memfd("data", ADOPTED), sparse_memfd("state", drp_state_bytes(ADOPTED / PAGE))};
    uint64_t before = shmem_bytes(), after, took, started;
    struct bystander by = bystander_start();
    int connection = raw_hello("adopter"), r;

    started = now_ms();
    r = raw_call(connection, &adopt, sizeof(adopt), fds, 2, NULL);
    took = now_ms() - started;
    bar->longest_ns = bystander_end(&by, bar->what);
    after = shmem_bytes();
    printf("adoption of 1 TiB: error %d after %llu ms, shmem %+lld KiB\n", r, (unsigned long long)took,
           (long long)(after - before) / 1024);
    ck_assert(r == DRP_WIRE_OK || r == DRP_WIRE_ERROR_QUOTA || r == DRP_WIRE_ERROR_MEMORY);
    ck_assert_uint_lt(after, before + SHMEM_MAX);
    close(connection);
    close(fds[0]);
    close(fds[1]);
}

START_TEST(test_sparse_adoption) {
    for (struct bar bar = {.what = "adoption", .ns = WAIT_NS}; bar_again(&bar);) {
        adopt_sparse(&bar);
        ck_assert(status_becomes("regions", 0, 20000));
    }
}
END_TEST

/* ---- a stuck client that hangs up ---- */

struct writer {
    int data_fd;
    char *source;
};

static void *write_from_armed(void *data) {
    const struct writer *writer = data;

    if (pwrite(writer->data_fd, writer->source, PAGE, 0) < 0)
        perror("pwrite");
    return NULL;
}

/* A page behind a userfaultfd of its own that nobody answers: when that has an event, the object's lock is held (see test-stuck). */
static void hold_and_hang_up(int socket, void *data) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range.len = PAGE, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int connection = raw_session("stuck"), fd = raw_userfaultfd();
    struct pollfd event = {.fd = fd, .events = POLLIN};
    struct raw_region region;
    struct writer writer;
    pthread_t thread;
    char word;

    raw_region_new(connection, 4 * MIB, &region);
    memset(region.address, 1, 2 * MIB);
    atomic_store((_Atomic uint64_t *)data, region.id);
    writer.data_fd = region.data_fd;
    writer.source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    child_check(writer.source != MAP_FAILED);
    range.range.start = (uintptr_t)writer.source;
    child_check(ioctl(fd, UFFDIO_API, &api) == 0);
    child_check(ioctl(fd, UFFDIO_REGISTER, &range) == 0);
    child_check(pthread_create(&thread, NULL, write_from_armed, &writer) == 0);
    child_check(poll(&event, 1, CHILD_WAIT_MS * (int)patience()) == 1);
    child_say(socket, 'l');
    child_check(child_hear(socket, &word));
    close(connection);
    child_say(socket, 'c');
    child_hear(socket, &word); /* until it is killed */
}

START_TEST(test_stuck_hangs_up) {
    _Atomic uint64_t *stuck = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* its id */
    struct drp_wire_control_drop drop = {.header = {.type = DRP_WIRE_CONTROL_DROP, .serial = 1},
                                         .scope = DRP_SCOPE_REGION};
    struct pollfd answer = {.events = POLLIN};
    struct child child;
    uint64_t started;
    int answered;

    ck_assert_ptr_ne((void *)stuck, MAP_FAILED);
    if (!have_userfaultfd("stuck client hangs up"))
        return;
    child_start(&child, hold_and_hang_up, stuck);
    child_expect(&child, 'l');
    answer.fd = raw_hello("admin");
    drop.id = atomic_load(stuck);
    ck_assert_int_eq(channel_send(answer.fd, &drop, sizeof(drop), NULL, 0, 0), CHANNEL_OK);
    ck_assert_int_eq(poll(&answer, 1, 50), 0); /* held up */
    started = now_ms();
    child_say(child.socket, 'c');
    child_expect(&child, 'c');
    answered = poll(&answer, 1, 3000);
    printf("hung up: CONTROL_DROP %s after %llu ms\n", answered == 1 ? "answered" : "not answered",
           (unsigned long long)(now_ms() - started));
    child_kill(&child);
    ck_assert_int_eq(answered, 1);
    close(answer.fd);
    munmap((void *)stuck, PAGE);
}
END_TEST

/* ---- POPULATE ---- */

START_TEST(test_populate_replies) {
    struct drp_wire_range range = {.header.type = DRP_WIRE_POPULATE, .length = 16 * MIB};
    uint64_t started = now_ms();
    struct channel_packet packet;
    struct raw_region region;
    int connection;

    if (!have_userfaultfd("populate"))
        return;
    connection = raw_session("populate");
    raw_region_new(connection, 16 * MIB, &region);
    range.region = region.id;
    ck_assert_int_eq(raw_call(connection, &range, sizeof(range), NULL, 0, &packet), DRP_WIRE_OK);
    ck_assert_uint_eq(packet.message.populate_reply.populated, 16 * MIB);
    ck_assert_uint_lt(now_ms() - started, 4000);
    ck_assert(is_zero(region.address, 16 * MIB));
    raw_region_end(connection, &region);
    close(connection);
}
END_TEST

static void setup_reserve(void) {
    fixture_start("[Pressure]\nCgroupReserve=32M\n");
}

static TCase *add_case(Suite *suite, const char *name, void (*setup)(void)) {
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, 180);
    tcase_add_checked_fixture(tcase, setup, fixture_teardown);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void) {
    Suite *suite = suite_create("races");
    TCase *races = add_case(suite, "races", fixture_setup);

    tcase_add_test(races, test_ends_in_request);
    tcase_add_loop_test(races, test_storm, 0, 2);
    tcase_add_test(races, test_lingering_socket);
    tcase_add_test(races, test_userfaultfd_closed);
    tcase_add_test(races, test_sparse_adoption);
    tcase_add_test(races, test_stuck_hangs_up);
    tcase_add_test(races, test_populate_replies);
    tcase_add_loop_test(add_case(suite, "holes", setup_reserve), test_holes, 0, 2);
    return suite_run(suite);
}
