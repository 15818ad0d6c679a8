/* SPDX-License-Identifier: MIT */
/*
 * Shared regions that signal: in every process that has one, what was dropped or never populated raises SIGBUS, always; what one of them populated
 * the others read. And so with regions that are never swapped, whose object is another one where that can be had.
 */

#include "channel.h"
#include "child.h"
#include "connected.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define PAGE ((size_t)4096)
#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)32)
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 10000
#define ROUNDS 1000
#define POPULATORS 4
#define POPULATE_ROUNDS 400
#define NAME "signals"

static struct drp *connection;
static struct drp_region *region;
static uint64_t extra; /* DRP_REGION_* that are preferred, of that one */

/* ---- the handler ---- */

static _Thread_local sigjmp_buf *volatile escape; /* where a signalled access goes on; NULL: the handler populates */
static _Thread_local void *volatile told;

static void on_sigbus(int number, siginfo_t *info, void *context) {
    struct drp_region *located;
    size_t offset;

    (void)number;
    (void)context;
    told = info->si_addr;
    if (drp_locate(info->si_addr, &located, &offset) != 0 ||
        (char *)drp_region_address(located) + offset != info->si_addr)
        _exit(90);
    if (escape)
        siglongjmp(*escape, 1);
    if (drp_populate(located, offset, 1) != 0)
        _exit(91);
}

/* Reads a byte. -1: signalled, of just this byte; it is not read again. */
static int peek(struct drp_region *r, size_t offset) {
    volatile unsigned char *byte = (volatile unsigned char *)drp_region_address(r) + offset;
    sigjmp_buf here;
    int value;

    if (sigsetjmp(here, 1)) {
        escape = NULL;
        return told == (const void *)byte ? -1 : -2;
    }
    escape = &here;
    value = *byte;
    escape = NULL;
    return value;
}

/* ---- set-up ---- */

static int make(struct drp_region **ret, const char *name, uint64_t required, uint64_t preferred) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = required, .preferred = preferred, .name = name};

    return drp_region_new(ret, connection, SIZE, &options);
}

static void setup(void) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    fixture_setup();
    ck_assert_int_eq(sigaction(SIGBUS, &action, NULL), 0);
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_msg(make(&region, NAME, DRP_REGION_SHARED | DRP_REGION_SIGNAL, extra) == 0, "%s", drp_detail());
}

static void setup_unswapped(void) {
    extra = DRP_REGION_NO_SWAP;
    setup();
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static char *at(struct drp_region *r, size_t offset) {
    return (char *)drp_region_address(r) + offset;
}

static void fill(struct drp_region *r, size_t offset, size_t length, int value) {
    ck_assert_int_eq(drp_populate(r, offset, length), 0);
    memset(at(r, offset), value, length);
}

static uint64_t granted(const struct drp_region *r) {
    struct drp_region_info info;

    drp_region_get_info(r, &info);
    return info.granted;
}

/* ---- a child that does what it is told ---- */

struct order {
    char word; /* see obey() */
    int value;
    size_t offset;
};

static void obey(int socket, struct drp_region *r, const struct order *order) {
    int value = 0;

    switch (order->word) {
    case 'r': /* reads a byte */
        value = peek(r, order->offset);
        break;
    case 'f': /* pins a chunk, populates and fills it */
        child_check(drp_pin(r, order->offset, CHUNK, NULL) == 0);
        child_check(drp_populate(r, order->offset, CHUNK) == 0);
        memset(at(r, order->offset), order->value, CHUNK);
        break;
    case 'u':
        child_check(drp_unpin(r, order->offset, CHUNK) == 0);
        break;
    case 'd': /* drops all */
        child_check(drp_drop(r, 0, SIZE, NULL, NULL) == 0);
        break;
    case 'c':
        value = is_connected(r);
        break;
    default:
        child_check(false);
    }
    child_check(write(socket, &value, sizeof(value)) == sizeof(value));
}

static void run_guest(int socket, void *data) {
    int handle = data ? *(int *)data : -1;
    uid_t uid = geteuid();
    struct drp_region *r;
    struct order order;
    struct drp *d;

    if (handle >= 0 && anybody_may_signal())
        child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check((handle >= 0 ? drp_region_open_handle(&r, d, handle) : drp_region_open(&r, d, NAME, uid)) == 0);
    child_check((granted(r) & (DRP_REGION_SHARED | DRP_REGION_SIGNAL)) == (DRP_REGION_SHARED | DRP_REGION_SIGNAL));
    child_check(child_say(socket, 'o'));
    while (read(socket, &order, sizeof(order)) == sizeof(order))
        obey(socket, r, &order);
    drp_region_free(r);
    drp_free(d);
}

static int tell(const struct child *child, char word, size_t offset, int value) {
    struct order order = {.word = word, .value = value, .offset = offset};

    ck_assert_int_eq(write(child->socket, &order, sizeof(order)), sizeof(order));
    ck_assert_int_eq(read(child->socket, &value, sizeof(value)), sizeof(value));
    return value;
}

static void finish(struct child *child) {
    ck_assert_int_eq(shutdown(child->socket, SHUT_WR), 0);
    child_end(child);
}

/* ---- tests ---- */

START_TEST(test_one_populates_all_read) {
    int handle = drp_region_get_handle(region);
    struct child by_name, by_handle;
    struct drp_region *again;

    fill(region, 0, CHUNK, 7);
    child_start(&by_name, run_guest, NULL);
    child_start(&by_handle, run_guest, &handle);
    child_expect(&by_name, 'o');
    child_expect(&by_handle, 'o');
    close(handle);
    /* What was there before they came, and nothing else. */
    ck_assert_int_eq(tell(&by_name, 'r', CHUNK - 1, 0), 7);
    ck_assert_int_eq(tell(&by_handle, 'r', 17, 0), 7);
    ck_assert_int_eq(tell(&by_name, 'r', CHUNK, 0), -1);
    ck_assert_int_eq(tell(&by_handle, 'r', SIZE - 1, 0), -1);
    /* Populated by one, read by all; a page that was not goes on signalling. */
    tell(&by_handle, 'f', 3 * CHUNK, 9);
    ck_assert_int_eq(peek(region, 3 * CHUNK + 5 * PAGE), 9);
    ck_assert_int_eq(tell(&by_name, 'r', 4 * CHUNK - 1, 0), 9);
    ck_assert_int_eq(drp_populate(region, 5 * CHUNK, PAGE), 0);
    ck_assert_int_eq(tell(&by_name, 'r', 5 * CHUNK, 0), 0);
    ck_assert_int_eq(tell(&by_name, 'r', 5 * CHUNK + PAGE, 0), -1);
    /* Populating again changes nothing of anybody's. */
    ck_assert_int_eq(drp_populate(region, 0, SIZE / 2), 0);
    ck_assert(is_filled(at(region, 0), 7, CHUNK));
    ck_assert(is_filled(at(region, 3 * CHUNK), 9, CHUNK));
    /* A pin of one keeps it for all, until it is gone. */
    tell(&by_name, 'd', 0, 0);
    ck_assert_int_eq(peek(region, 3 * CHUNK), 9);
    ck_assert_int_eq(peek(region, 0), -1);
    tell(&by_handle, 'u', 3 * CHUNK, 0);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert_int_eq(tell(&by_handle, 'r', 3 * CHUNK, 0), -1);
    ck_assert_int_eq(tell(&by_name, 'r', 3 * CHUNK, 0), -1);
    /* Twice in one process: the handler finds the one that was touched, and each signals. */
    ck_assert_int_eq(drp_region_open(&again, connection, NAME, geteuid()), 0);
    ck_assert_int_eq(peek(again, 100), -1);
    *at(again, 100) = 3; /* by the handler */
    ck_assert_int_eq(peek(region, 100), 3);
    ck_assert_int_eq(tell(&by_name, 'r', 100, 0), 3);
    drp_region_free(again);
    finish(&by_name);
    finish(&by_handle);
}
END_TEST

/* After each drop, whoever makes it, both are signalled, and each reads what the other has made. */
START_TEST(test_always) {
    unsigned signalled = 0, others = 0, read = 0;
    struct child child;

    child_start(&child, run_guest, NULL);
    child_expect(&child, 'o');
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t offset = i % CHUNKS * CHUNK, byte = offset + i * 37 % CHUNK;
        int value = 1 + (int)(i % 255);

        if (i % 2) {
            tell(&child, 'f', offset, value);
            read += peek(region, byte) == value;
            tell(&child, 'u', offset, 0);
        } else {
            ck_assert_int_eq(drp_pin(region, offset, CHUNK, NULL), 0);
            fill(region, offset, CHUNK, value);
            read += tell(&child, 'r', byte, 0) == value;
            ck_assert_int_eq(drp_unpin(region, offset, CHUNK), 0);
        }
        if (i % 3)
            ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
        else
            tell(&child, 'd', 0, 0);
        signalled += peek(region, byte) == -1;
        others += tell(&child, 'r', byte, 0) == -1;
    }
    ck_assert_uint_eq(read, ROUNDS);
    ck_assert_uint_eq(signalled, ROUNDS);
    ck_assert_uint_eq(others, ROUNDS);
    finish(&child);
}
END_TEST

/*
 * All populate the same chunk and write to places of their own in each page of it, while everything is dropped all the time: within a pin nothing that
 * somebody wrote is populated away or dropped, and without one a byte is what was written, or signals.
 */
static void run_populator(int socket, void *data) {
    size_t me = *(size_t *)data, step = PAGE / POPULATORS;
    struct drp_region *r;
    struct drp *d;

    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&r, d, NAME, geteuid()) == 0);
    child_check(child_say(socket, 'o'));
    for (unsigned i = 0; i < POPULATE_ROUNDS; i++) {
        size_t chunk = i % 2 * CHUNK;
        uint64_t generation;

        child_check(drp_pin(r, chunk, CHUNK, &generation) == 0);
        child_check(drp_populate(r, chunk, CHUNK) == 0);
        for (size_t page = chunk + me * step; page < chunk + CHUNK; page += PAGE)
            *at(r, page) = (char)(me + 1);
        child_check(drp_populate(r, chunk, CHUNK) == 0);
        for (size_t page = chunk + me * step; page < chunk + CHUNK; page += PAGE)
            child_check(peek(r, page) == (int)me + 1);
        child_check(drp_unpin(r, chunk, CHUNK) == 0);
        for (size_t page = chunk + me * step; page < chunk + CHUNK; page += PAGE) {
            int value = peek(r, page);

            /* Zero: another one has populated it since it was dropped. */
            child_check(value == (int)me + 1 || value == -1 || value == 0);
        }
        if (i % 16 == 0)
            while (drp_generation(r, chunk, CHUNK) == generation)
                sched_yield();
    }
    child_check(child_say(socket, 'e'));
}

START_TEST(test_populate_races) {
    struct child children[POPULATORS];
    size_t numbers[POPULATORS], running = POPULATORS;
    uint64_t freed = 0, bytes;

    for (size_t i = 0; i < POPULATORS; i++) {
        numbers[i] = i;
        child_start(&children[i], run_populator, &numbers[i]);
        child_expect(&children[i], 'o');
    }
    while (running > 0) {
        ck_assert_int_eq(drp_drop(region, 0, SIZE, &bytes, NULL), 0);
        freed += bytes;
        for (size_t i = 0; i < running; i++) {
            struct pollfd said = {.fd = children[i].socket, .events = POLLIN};

            if (poll(&said, 1, 0) == 0)
                continue;
            child_expect(&children[i], 'e');
            child_end(&children[i]);
            children[i] = children[--running];
        }
    }
    ck_assert_uint_gt(freed, 0);
}
END_TEST

/* ---- the service's end ---- */

START_TEST(test_service_dies) {
    struct drp_region *late;
    struct child child;

    child_start(&child, run_guest, NULL);
    child_expect(&child, 'o');
    fill(region, 0, CHUNK, 5);
    tell(&child, 'f', CHUNK, 6);
    fill(region, 2 * CHUNK, CHUNK, 7);
    ck_assert_int_eq(drp_drop(region, 2 * CHUNK, CHUNK, NULL, NULL), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert_int_eq(peek(region, 2 * CHUNK), -1);
    ck_assert_int_eq(tell(&child, 'r', 2 * CHUNK, 0), -1);
    fill(region, 2 * CHUNK, PAGE, 8); /* without anybody */
    ck_assert_int_eq(tell(&child, 'r', 2 * CHUNK, 0), 8);
    ck_assert_int_eq(tell(&child, 'r', 2 * CHUNK + PAGE, 0), -1);
    service_restart(&service);
    for (uint64_t deadline = now_ms() + WAIT_MS; !is_connected(region) || !tell(&child, 'c', 0, 0); nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_uint_ne(granted(region) & DRP_REGION_SIGNAL, 0);
    /* Who comes now is told the same, by what the object says of itself. */
    ck_assert_int_eq(drp_region_open(&late, connection, NAME, geteuid()), 0);
    ck_assert_uint_ne(granted(late) & DRP_REGION_SIGNAL, 0);
    ck_assert_int_eq(peek(late, 3 * CHUNK), -1);
    for (uint64_t deadline = now_ms() + WAIT_MS; peek(region, 0) != -1; nap_ms(5)) { /* held until all are back */
        ck_assert_uint_lt(now_ms(), deadline);
        ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    }
    ck_assert_int_eq(peek(late, 0), -1);
    ck_assert_int_eq(tell(&child, 'r', 0, 0), -1);
    ck_assert_int_eq(peek(region, CHUNK), 6); /* its pin is still there */
    drp_region_free(late);
    finish(&child);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* ---- options, children ---- */

START_TEST(test_options) {
    const uint64_t both = DRP_REGION_SHARED | DRP_REGION_SIGNAL;
    struct drp_region *other;
    char out[8192], word[8];
    const char *line;

    ck_assert_int_eq(make(&other, NULL, both | DRP_REGION_HUGE, 0), -EOPNOTSUPP);
    ck_assert_int_eq(make(&other, NULL, DRP_REGION_SHARED, DRP_REGION_SIGNAL), 0);
    ck_assert_uint_eq(granted(other) & both, both);
    ck_assert_int_eq(peek(other, 0), -1);
    drp_region_free(other);
    ck_assert_int_eq(make(&other, NULL, DRP_REGION_SHARED, 0), 0);
    ck_assert_uint_eq(granted(other) & both, DRP_REGION_SHARED);
    ck_assert_int_eq(peek(other, 0), 0);
    drp_region_free(other);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"probe", NULL}), 0);
    line = strstr(out, "\nshared-signal ");
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(sscanf(line, " shared-signal %7s", word), 1);
    ck_assert_str_eq(word, "yes");
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"list", NULL}), 0);
    ck_assert_ptr_nonnull(strstr(out, "shared,signal"));
}
END_TEST

static int raw_make(int socket, uint64_t required, int fds[2], uint64_t *ret_id) {
    struct drp_wire_create_shared create = {
        .create = {.header.type = DRP_WIRE_CREATE_SHARED, .size = SIZE, .required = required}};
    struct channel_packet packet;
    int r = raw_call(socket, &create, sizeof(create), NULL, 0, &packet);

    ck_assert_uint_eq(packet.n_fds, 2);
    fds[0] = packet.fds[0];
    fds[1] = packet.fds[1];
    *ret_id = packet.message.create_reply.region;
    return r;
}

static int raw_adopt(int socket, uint64_t granted, const int fds[2], uint64_t *ret_id) {
    struct drp_wire_adopt adopt = {
        .header.type = DRP_WIRE_ADOPT, .size = SIZE, .chunk_total = CHUNKS, .granted = granted, .chunk_shift = 16};
    uint64_t deadline = now_ms() + WAIT_MS;
    struct channel_packet packet;
    int r;

    do /* the service may still be at work on what was given up before */
        r = raw_call(socket, &adopt, sizeof(adopt), fds, 2, &packet);
    while (r == DRP_WIRE_ERROR_QUARANTINED && now_ms() < deadline);
    if (r == DRP_WIRE_OK) {
        *ret_id = packet.message.create_reply.region;
        channel_packet_close(&packet);
    }
    return r;
}

/* Whether a region signals is not for who hands it over to say, neither first nor behind another. */
START_TEST(test_hostile) {
    static const uint64_t kinds[] = {DRP_REGION_SHARED, DRP_REGION_SHARED | DRP_REGION_SIGNAL};
    int first = raw_hello("first"), second = raw_hello("second"), fds[2];
    uint64_t id;

    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(raw_make(first, kinds[i], fds, &id), DRP_WIRE_OK);
        ck_assert_int_eq(raw_adopt(second, kinds[!i], fds, &id), DRP_WIRE_ERROR_INVALID);
        ck_assert_int_eq(raw_id(first, DRP_WIRE_DESTROY, id), DRP_WIRE_OK);
        ck_assert_int_eq(raw_adopt(second, kinds[!i], fds, &id), DRP_WIRE_ERROR_INVALID);
        ck_assert_int_eq(raw_adopt(second, kinds[i], fds, &id), DRP_WIRE_OK);
        ck_assert_int_eq(raw_id(second, DRP_WIRE_DESTROY, id), DRP_WIRE_OK);
        close(fds[0]);
        close(fds[1]);
    }
    close(first);
    close(second);
}
END_TEST

/* A child has zeros there, as of any region, and one of its own when it opens it. */
static void be_child(int socket, void *data) {
    int *handle = data;
    struct drp_region *own;

    child_check(is_zero(drp_region_address(region), SIZE));
    child_check(drp_region_open_handle(&own, connection, *handle) == 0);
    child_check(peek(own, 0) == 7 && peek(own, CHUNK) == -1);
    *at(own, CHUNK) = 8;
    child_check(is_zero(drp_region_address(region), SIZE));
    child_check(child_say(socket, 'c'));
}

START_TEST(test_fork) {
    int handle = drp_region_get_handle(region);
    struct child child;

    fill(region, 0, CHUNK, 7);
    child_start(&child, be_child, &handle);
    child_expect(&child, 'c');
    child_end(&child);
    close(handle);
    ck_assert_int_eq(peek(region, CHUNK), 8);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert_int_eq(peek(region, CHUNK), -1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("shared-signal");
    TCase *tcase = tcase_create("shared-signal"), *unswapped = tcase_create("unswapped");

    if (!may_signal()) {
        puts("skipped: no userfaultfd that raises signals");
        return 77;
    }
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_one_populates_all_read);
    tcase_add_test(tcase, test_always);
    tcase_add_test(tcase, test_populate_races);
    tcase_add_test(tcase, test_service_dies);
    tcase_add_test(tcase, test_options);
    tcase_add_test(tcase, test_hostile);
    tcase_add_test(tcase, test_fork);
    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(unswapped, setup_unswapped, teardown);
    tcase_set_timeout(unswapped, 60);
    tcase_add_test(unswapped, test_one_populates_all_read);
    tcase_add_test(unswapped, test_always);
    tcase_add_test(unswapped, test_service_dies);
    suite_add_tcase(suite, unswapped);
    return suite_run(suite);
}
