/* SPDX-License-Identifier: MIT */
/*
 * Each system call that the service makes for a client's life fails once, as a kernel may let it fail: the life of one client is repeated, each time
 * with one call less. What the client has pinned stays, what it did not drop is whole or told as lost, it gets an error that the protocol knows or loses its connection, and
 * nobody hangs; the same life without a failure goes well afterwards, and nothing is left of either.
 *
 * How many calls of a kind there are, the life itself tells. Of those that are made often the first, the last and some between them fail; with
 * $DROPPABLE_INJECT_ALL each of them, with each of its errors.
 */

#include "child.h"
#include "codec.h"
#include "fixture.h"
#include "inject.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#define MIB (UINT64_C(1) << 20)
#define SIZE (4 * MIB)
#define CHUNK ((size_t)65536)
#define LIFE_S 30
#define POINTS 3
/* Beside wire errors, what a life ends with. */
#define ENDED 99 /* its connection was ended */
#define STRANGE 101
#define LOST 102
#define SIGNALLED 1000
#define POINTS_ALL 40

/* ---- a life ---- */

/* In the child. What was told first instead of success: a wire error, or ENDED; 0: nothing. */
static int told;

static bool note(int r) {
    if (r != DRP_WIRE_OK && told == 0)
        told = r == RAW_ENDED ? ENDED : r;
    if (r != RAW_ENDED && (r < 0 || r > DRP_WIRE_ERROR_MAX))
        _exit(STRANGE); /* no error of the protocol's */
    return r == DRP_WIRE_OK;
}

struct life {
    int socket, data_fd, state_fd, pin_fd;
    uint64_t region, mapping;
    char *memory;
    struct drp_pin_cell *cells;
    const _Atomic uint32_t *generations;
};

static bool begin(struct life *life) {
    struct drp_wire_hello hello = {
        .header.type = DRP_WIRE_HELLO, .magic = DRP_WIRE_MAGIC, .version_min = 1, .version_max = 1, .name = "life"};
    int uffd = raw_userfaultfd();
    bool ok;

    life->socket = raw_connect();
    ok = note(raw_call(life->socket, &hello, sizeof(hello), NULL, 0, NULL)) &&
         note(raw_uffd(life->socket, uffd, uffd < 0 ? EPERM : 0, NULL));
    close(uffd); /* else it outlived the connection, and nobody answered */
    return ok;
}

static bool map(struct life *life) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = SIZE};
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP};
    struct channel_packet packet;
    void *state, *pins;
    bool sealed;

    if (!note(raw_call(life->socket, &create, sizeof(create), NULL, 0, &packet)))
        return false;
    life->region = packet.message.create_reply.region;
    life->data_fd = channel_packet_take(&packet, 0);
    life->state_fd = channel_packet_take(&packet, 1);
    life->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, life->data_fd, 0);
    state = mmap(NULL, drp_state_bytes(SIZE / CHUNK), PROT_READ, MAP_SHARED, life->state_fd, 0);
    child_check(life->memory != MAP_FAILED && state != MAP_FAILED);
    life->generations = drp_state_generations(state);
    map.region = life->region;
    map.address = (uintptr_t)life->memory;
    map.length = SIZE;
    if (!note(raw_call(life->socket, &map, sizeof(map), NULL, 0, &packet)))
        return false;
    life->mapping = packet.message.map_reply.mapping;
    life->pin_fd = channel_packet_take(&packet, 0);
    pins = mmap(NULL, drp_pin_bytes(SIZE / CHUNK), PROT_READ | PROT_WRITE, MAP_SHARED, life->pin_fd, 0);
    child_check(pins != MAP_FAILED);
    sealed = note(raw_seal_pins(life->socket, life->mapping, life->pin_fd));
    if (!sealed)
        return false;
    life->cells = drp_pin_cells(pins);
    return true;
}

/* Each chunk is as it was written, or all zero and told. */
static void check_memory(const struct life *life) {
    for (size_t i = 0; i < SIZE / CHUNK; i++) {
        uint32_t generation = atomic_load(&life->generations[i]);
        const char *chunk = life->memory + i * CHUNK;

        if (is_filled(chunk, 7, CHUNK))
            continue;
        if (i == 0 || generation == 0 || !is_zero(chunk, CHUNK)) /* pinned; not told; torn */
            _exit(LOST);
    }
}

static void use(struct life *life) {
    struct drp_wire_range range = {.header.type = DRP_WIRE_POPULATE, .region = life->region, .length = SIZE};
    const struct raw_region region = {.id = life->region};

    memset(life->memory, 7, SIZE);
    atomic_store(&life->cells[0].count, 1);
    note(raw_drop(life->socket, &region, 0, SIZE, NULL));
    check_memory(life);
    life->memory[SIZE - 1] = 7; /* a fault of a span that was dropped */
    note(raw_drop(life->socket, &region, SIZE / 2, SIZE / 2, NULL));
    note(raw_call(life->socket, &range, sizeof(range), NULL, 0, NULL));
    if (!is_filled(life->memory, 7, CHUNK))
        _exit(LOST);
}

/* Another region, in pieces; and a drop of both, which are two objects, by one request. */
static void use_two(struct life *life) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = MIB};
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP};
    struct drp_wire_control_drop drop = {
        .header.type = DRP_WIRE_CONTROL_DROP, .scope = DRP_SCOPE_PID, .id = (uint64_t)getpid()};
    struct raw_region other = {.size = MIB};
    struct channel_packet packet;

    if (!note(raw_call(life->socket, &create, sizeof(create), NULL, 0, &packet)))
        return;
    other.id = map.region = packet.message.create_reply.region;
    other.address = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, packet.fds[0], 0);
    channel_packet_close(&packet);
    child_check(other.address != MAP_FAILED);
    if (note(raw_call(life->socket, &map, sizeof(map), NULL, 0, &packet))) {
        other.mapping = packet.message.map_reply.mapping;
        channel_packet_close(&packet);
        note(raw_map_piece(life->socket, &other, other.address, MIB, 0, NULL));
        memset(other.address, 7, MIB);
        memset(life->memory, 7, SIZE);
        note(raw_call(life->socket, &drop, sizeof(drop), NULL, 0, NULL));
        other.address[0] = 7;
        note(raw_unmap_piece(life->socket, &other, other.address, MIB));
    }
    check_memory(life);
    note(raw_id(life->socket, DRP_WIRE_DESTROY, other.id));
}

/* As after the end of the connection. While the former one is being ended it is held up. */
static bool come_back(struct life *life) {
    struct drp_wire_adopt adopt = {
        .header.type = DRP_WIRE_ADOPT, .size = SIZE, .chunk_total = SIZE / CHUNK, .chunk_shift = 16};
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .address = (uintptr_t)life->memory, .length = SIZE};
    int fds[] = {life->data_fd, life->state_fd}, r;
    struct channel_packet packet;
    void *state;

    close(life->socket);
    if (!begin(life))
        return false;
    while ((r = raw_call(life->socket, &adopt, sizeof(adopt), fds, 2, &packet)) == DRP_WIRE_ERROR_QUARANTINED)
        nap_ms(1);
    if (!note(r))
        return false;
    map.region = life->region = packet.message.create_reply.region;
    state = mmap(NULL, drp_state_bytes(SIZE / CHUNK), PROT_READ, MAP_SHARED, packet.fds[0], 0);
    channel_packet_close(&packet);
    child_check(state != MAP_FAILED);
    life->generations = drp_state_generations(state);
    return note(raw_call(life->socket, &map, sizeof(map), &life->pin_fd, 1, NULL));
}

/* The kernel's own memory, where it has that. */
static void use_native(struct life *life) {
    void *p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    struct drp_wire_native native = {.header.type = DRP_WIRE_NATIVE, .address = (uintptr_t)p, .length = MIB};
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct raw_region region = {0};
    struct channel_packet packet;

    if (p == MAP_FAILED || geteuid() != 0) /* others may not read a pagemap to the end */
        return;
    memset(p, 7, MIB);
    if (note(raw_call(life->socket, &native, sizeof(native), &pagemap, 1, &packet))) {
        region.id = packet.message.id.id;
        note(raw_drop(life->socket, &region, 0, MIB, NULL));
        note(raw_id(life->socket, DRP_WIRE_DESTROY, region.id));
    }
}

/* A region that signals, shared ones, in both kinds of objects. */
static void use_others(struct life *life) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = MIB, .required = DRP_REGION_SIGNAL};
    struct drp_wire_create_shared shared = {
        .create = {.header.type = DRP_WIRE_CREATE_SHARED, .size = MIB, .required = DRP_REGION_SHARED}};
    struct channel_packet packet;

    if (note(raw_call(life->socket, &create, sizeof(create), NULL, 0, &packet))) {
        uint64_t id = packet.message.create_reply.region;

        channel_packet_close(&packet);
        note(raw_id(life->socket, DRP_WIRE_DESTROY, id));
    }
    for (int i = 0; i < 2; i++) {
        struct drp_wire_map map = {.header.type = DRP_WIRE_MAP};

        shared.create.preferred = i ? DRP_REGION_NO_SWAP : 0;
        if (!note(raw_call(life->socket, &shared, sizeof(shared), NULL, 0, &packet)))
            continue;
        map.region = packet.message.create_reply.region;
        channel_packet_close(&packet);
        note(raw_call(life->socket, &map, sizeof(map), NULL, 0, NULL));
        note(raw_id(life->socket, DRP_WIRE_DESTROY, map.region));
    }
}

/* Its exit status is what it was told. */
static int live(void) {
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct life life = {0};

        signal(SIGALRM, SIG_DFL);
        alarm(LIFE_S);
        if (begin(&life) && map(&life)) {
            use(&life);
            use_two(&life);
            use_others(&life);
            if (come_back(&life)) {
                check_memory(&life);
                note(raw_drop(life.socket, &(struct raw_region){.id = life.region}, 0, SIZE, NULL));
                check_memory(&life);
                note(raw_id(life.socket, DRP_WIRE_DESTROY, life.region));
            }
            use_native(&life);
        }
        _exit(told);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
}

/* ---- all calls ---- */

struct tally {
    unsigned points, unnoticed, errors, ended;
};

static unsigned failed;

static void complain(const struct inject_kind *kind, unsigned nth, int error, const char *what, int told_now) {
    printf("%s, call %u, %s: %s (%d)\n", kind->name, nth, strerrorname_np(error), what, told_now);
    fflush(stdout);
    failed++;
}

static void fail_once(size_t i, unsigned nth, int error, struct tally *tally) {
    const struct inject_kind *kind = &inject_kinds[i];
    int now;

    inject_arm((int)i, nth, error);
    now = live();
    if (!inject_disarm())
        return; /* there were fewer this time */
    tally->points++;
    tally->unnoticed += now == 0;
    tally->ended += now == ENDED;
    tally->errors += now > 0 && now < ENDED;
    if (now >= SIGNALLED)
        complain(kind, nth, error, "the client hangs, or dies of a signal", now - SIGNALLED);
    else if (now > ENDED)
        complain(kind, nth, error, now == LOST ? "memory is lost, and nobody told" : "no error of the protocol's", now);
    now = live(); /* with it the service makes up for spare threads that it could not start */
    if (now != 0)
        complain(kind, nth, error, "the next client's life is not as before", now);
    fixture_expect_idle();
}

static size_t n_errors(size_t i) {
    size_t n = 1;

    while (n < INJECT_ERRORS && inject_kinds[i].errors[n] != 0)
        n++;
    return n;
}

static void fail_each(size_t i, unsigned n) {
    bool all = getenv("DROPPABLE_INJECT_ALL");
    unsigned points = all ? POINTS_ALL : POINTS;
    struct tally tally = {0};

    points = n < points ? n : points;
    for (unsigned p = 0; p < points; p++) {
        unsigned nth = points == 1 ? 1 : 1 + p * (n - 1) / (points - 1);
        size_t first = all ? 0 : p % n_errors(i), end = all ? n_errors(i) : first + 1;

        for (size_t e = first; e < end; e++)
            fail_once(i, nth, inject_kinds[i].errors[e], &tally);
    }
    printf("%-20s %5u %8u %10u %7u %6u\n", inject_kinds[i].name, n, tally.points, tally.unnoticed, tally.errors,
           tally.ended);
    fflush(stdout);
}

START_TEST(test_inject) {
    const char *only = getenv("DROPPABLE_INJECT");
    size_t kinds = inject_n_kinds();
    unsigned *counts = calloc(kinds, sizeof(*counts));

    ck_assert_ptr_nonnull(counts);
    ck_assert_int_eq(live(), 0);
    inject_arm(-1, 0, 0);
    ck_assert_int_eq(live(), 0);
    fixture_expect_idle();
    for (size_t i = 0; i < kinds; i++)
        counts[i] = inject_count(i);
    printf("%-20s %5s %8s %10s %7s %6s\n", "call", "made", "failed", "unnoticed", "error", "ended");
    for (size_t i = 0; i < kinds; i++)
        if (counts[i] > 0 && (!only || strcmp(only, inject_kinds[i].name) == 0))
            fail_each(i, counts[i]);
    free(counts);
    ck_assert_uint_eq(failed, 0);
}
END_TEST

/* ---- which calls ---- */

/* What the unit allows, and is made to fail nowhere here. */
static const struct {
    const char *calls, *why;
} left_out[] = {
    {"epoll_create1 eventfd2 pipe2 socket listen getsockname inotify_init1 mlockall userfaultfd sysinfo sched_getaffinity prctl capget capset fsopen fsconfig "
     "fsmount",
     "made before there is a client"},
    {"epoll_ctl epoll_pwait ppoll", "where these fail libuv ends the program"},
    {"close shutdown inotify_rm_watch", "nobody could do anything about it"},
    {"rt_sigaction rt_sigprocmask rt_sigreturn tgkill set_robust_list rseq sched_getscheduler sched_getparam getpriority",
     "of the C library's threads"},
    {"clone access faccessat faccessat2 readlinkat fstat stat lstat dup dup2 dup3 mremap recvfrom",
     "what another C library makes of the same"},
    {"connect readv writev pwrite64", "of the log and of recordings, which may be lost"},
    {"write",
     "to eventfds, of which none is near its end; of the log; and to PSI and cgroup files, whose tests are elsewhere"},
    {"mlock shmget shmat shmctl name_to_handle_at", "locked segments, before Linux 6.4: test-noswap"},
};

static bool has_word(const char *words, const char *word) {
    size_t length = strlen(word);

    for (const char *p = words; (p = strstr(p, word)); p += length)
        if ((p == words || p[-1] == ' ') && (p[length] == ' ' || p[length] == '\0'))
            return true;
    return false;
}

static bool is_listed(const char *call) {
    for (size_t i = 0; i < inject_n_kinds(); i++)
        if (strcmp(inject_kinds[i].name, call) == 0)
            return true;
    for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
        if (has_word(left_out[i].calls, call))
            return true;
    return strcmp(call, "ioctl") == 0; /* by its requests */
}

/* A call that the service has come to make is made to fail, too, or there is a reason. */
START_TEST(test_all_calls) {
    char path[512], line[512], *rest;
    unsigned seen = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/systemd/system-calls.conf", getenv("DROPPABLE_TEST_SOURCEDIR"));
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        rest = line + strcspn(line, "=") + 1;
        if (strncmp(line, "SystemCallFilter=", 17) != 0)
            continue;
        for (char *call = strtok(rest, " \n"); call; call = strtok(NULL, " \n"), seen++)
            ck_assert_msg(call[0] == '@' || is_listed(call), "%s is not among the calls that fail in inject.c", call);
    }
    fclose(file);
    ck_assert_uint_gt(seen, 50);
}
END_TEST

static void setup(void) {
    ck_assert(inject_prepare());
    fixture_setup();
}

int main(void) {
    Suite *suite = suite_create("inject");
    TCase *inject = tcase_create("inject"), *list = tcase_create("list");

    if (!may_intercept() || !inject_prepare())
        skip_all("no userfaultfd for this user, or a kernel whose filters cannot ask (SECCOMP_RET_USER_NOTIF)");
    tcase_set_timeout(inject, 3600);
    tcase_add_checked_fixture(inject, setup, fixture_teardown);
    tcase_add_test(inject, test_inject);
    tcase_add_test(list, test_all_calls);
    suite_add_tcase(suite, list);
    suite_add_tcase(suite, inject);
    return suite_run(suite);
}
