/* SPDX-License-Identifier: MIT */
/*
 * Quotas: what is over them is refused with EDQUOT, the log names the limit, and nobody else is concerned. Address space of clients, users
 * and cgroups; and pins, which the daemon counts behind the client's back.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MIB (UINT64_C(1) << 20)
#define CHUNK ((size_t)65536)
#define SIZE ((size_t)4 << 20)
#define WAIT_MS 5000

static int make_region(struct drp *d, size_t size, struct drp_region **ret) {
    return drp_region_new(ret, d, size, NULL);
}

/* ---- address space ---- */

/* Takes half of what a user may have, and holds it. */
static void hold_region(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    if (data)
        memcg_enter(data);
    child_check(drp_new(&d, NULL) == 0);
    child_check(make_region(d, SIZE, &region) == 0);
    child_say(socket, 'h');
    child_check(child_hear(socket, &word));
    region = drp_region_free(region);
    d = drp_free(d);
}

/* Of all connections of a process together. */
START_TEST(test_bytes_per_client) {
    struct drp_region *region, *more;
    struct drp *d, *second;
    struct child child;

    fixture_start("[Limits]\nBytesPerClient=8M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_new(&second, NULL), 0);
    ck_assert_int_eq(make_region(d, SIZE, &region), 0);
    ck_assert_int_eq(make_region(d, SIZE + 1, &more), -EDQUOT);
    ck_assert(service_log_has(&service, "over the quota: BytesPerClient", 0));
    ck_assert_int_eq(make_region(d, SIZE, &more), 0);
    more = drp_region_free(more);
    ck_assert_int_eq(make_region(second, SIZE + 1, &more), -EDQUOT);
    ck_assert_int_eq(make_region(second, SIZE, &more), 0);
    child_start(&child, hold_region, NULL); /* another process */
    child_expect(&child, 'h');
    child_say(child.socket, 'e');
    child_end(&child);
    more = drp_region_free(more);
    region = drp_region_free(region);
    drp_free(second);
    drp_free(d);
    fixture_teardown();
}
END_TEST

START_TEST(test_bytes_per_user) {
    struct drp_region *region;
    struct child child;
    struct drp *d;

    fixture_start("[Limits]\nBytesPerUser=8M\n");
    child_start(&child, hold_region, NULL);
    child_expect(&child, 'h');
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(make_region(d, SIZE + 1, &region), -EDQUOT);
    ck_assert(service_log_has(&service, "over the quota: BytesPerUser", 0));
    ck_assert_int_eq(make_region(d, SIZE, &region), 0);
    region = drp_region_free(region);
    drp_free(d);
    child_say(child.socket, 'e');
    child_end(&child);
    fixture_teardown();
}
END_TEST

static int make_chunked(struct drp *d, size_t size, size_t chunk, struct drp_region **ret) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = chunk};

    return drp_region_new(ret, d, size, &options);
}

/* Address space that nobody uses costs nothing, but may cost the service memory that counts for nobody else: 127 bytes for a MiB, or 1,327. */
START_TEST(test_tables_per_user) {
    struct drp_region *region, *other;
    struct drp *d, *more;

    fixture_start("[Limits]\nTablesPerUser=1M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_new(&more, NULL), 0);
    ck_assert_int_eq(make_chunked(d, UINT64_C(9) << 30, 65536, &region), -EDQUOT);
    ck_assert(service_log_has(&service, "over the quota: TablesPerUser", 0));
    ck_assert_int_eq(make_chunked(d, UINT64_C(7) << 30, 65536, &region), 0);
    ck_assert_int_eq(make_chunked(more, UINT64_C(2) << 30, 65536, &other), -EDQUOT);
    ck_assert_int_eq(make_chunked(more, UINT64_C(64) << 20, 4096, &other), 0);
    other = drp_region_free(other);
    ck_assert_int_eq(make_chunked(more, UINT64_C(512) << 20, 4096, &other), -EDQUOT);
    region = drp_region_free(region);
    ck_assert_int_eq(make_chunked(more, UINT64_C(512) << 20, 4096, &other), 0);
    other = drp_region_free(other);
    service_reload(&service, "", "TablesPerUser=: '1M' -> 'auto'");
    ck_assert_int_eq(make_chunked(d, UINT64_C(9) << 30, 65536, &region), 0);
    region = drp_region_free(region);
    drp_free(more);
    drp_free(d);
    fixture_teardown();
}
END_TEST

static void ask_for_more(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    memcg_enter(data);
    child_check(drp_new(&d, NULL) == 0);
    child_check(make_region(d, SIZE + 1, &region) == -EDQUOT);
    child_check(make_region(d, SIZE, &region) == 0);
    child_say(socket, 'd');
    child_check(child_hear(socket, &word));
    region = drp_region_free(region);
    d = drp_free(d);
}

START_TEST(test_bytes_per_cgroup) {
    struct drp_region *region;
    struct child first, second;
    const char *reason;
    struct memcg memcg;
    struct drp *d;

    if (!memcg_make(&memcg, 256 * MIB, &reason)) {
        printf("without a cgroup: %s\n", reason);
        return;
    }
    fixture_start("[Limits]\nBytesPerCgroup=8M\n");
    child_start(&first, hold_region, &memcg);
    child_expect(&first, 'h');
    child_start(&second, ask_for_more, &memcg);
    child_expect(&second, 'd');
    ck_assert(service_log_has(&service, "over the quota: BytesPerCgroup", 0));
    ck_assert_int_eq(drp_new(&d, NULL), 0); /* from outside */
    ck_assert_int_eq(make_region(d, 2 * SIZE, &region), 0);
    region = drp_region_free(region);
    drp_free(d);
    child_say(first.socket, 'e');
    child_end(&first);
    child_say(second.socket, 'e');
    child_end(&second);
    memcg_remove(&memcg);
    fixture_teardown();
}
END_TEST

/* ---- pins ---- */

/* What drp_pin() of a chunk says becomes r. The pin is not kept. */
static bool pin_becomes(struct drp_region *region, size_t chunk, int r) {
    uint64_t deadline = now_ms() + WAIT_MS;
    int got;

    while (now_ms() < deadline) {
        got = drp_pin(region, chunk * CHUNK, CHUNK, NULL);
        if (got == 0)
            ck_assert_int_eq(drp_unpin(region, chunk * CHUNK, CHUNK), 0);
        if (got == r)
            return true;
        nap_ms(1);
    }
    return false;
}

/* Does the list say of this process, and of its first region, that pins are closed? */
static void expect_listed_closed(bool closed) {
    uint64_t session = listing_number("sessions", "pid", (uint64_t)getpid(), "id");

    ck_assert_uint_eq(listing_number("sessions", "id", session, "pins_closed"), closed);
    ck_assert_uint_eq(listing_number("regions", "session", session, "pins_closed"), closed);
}

START_TEST(test_pins_of_client) {
    struct drp_region *region, *more;
    uint64_t freed, pinned;
    struct drp *d, *other;
    char *p;

    fixture_start("[Limits]\nPinnedPerClient=1M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(make_region(d, SIZE, &region), 0);
    p = drp_region_address(region);
    memset(p, 7, SIZE);
    ck_assert_int_eq(drp_pin(region, 0, MIB - 2 * CHUNK, NULL), 0);
    for (int i = 0; i < 100; i++) { /* five counts */
        ck_assert(pin_becomes(region, 40, 0));
        nap_ms(1);
    }
    ck_assert_int_eq(drp_pin(region, MIB - 2 * CHUNK, 2 * CHUNK, NULL), 0);
    ck_assert(pin_becomes(region, 40, -EDQUOT));
    ck_assert(service_log_has(&service, "the quota of pinned memory is used up: PinnedPerClient", WAIT_MS));
    ck_assert_ptr_nonnull(strstr(drp_detail(), "quota"));
    expect_listed_closed(true);

    /* Standing pins hold, a region made meanwhile is closed, too, and another client is not concerned. */
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, &pinned), 0);
    ck_assert_uint_eq(pinned, MIB);
    ck_assert_uint_eq(freed, SIZE - MIB);
    ck_assert(is_filled(p, 7, MIB));
    ck_assert_int_eq(make_region(d, SIZE, &more), 0);
    ck_assert_int_eq(drp_pin(more, 0, CHUNK, NULL), -EDQUOT);
    more = drp_region_free(more);
    ck_assert_int_eq(drp_new(&other, NULL), 0);
    ck_assert_int_eq(make_region(other, SIZE, &more), 0);
    ck_assert_int_eq(drp_pin(more, 0, CHUNK, NULL), 0);
    more = drp_region_free(more);
    drp_free(other);

    /* Open again below 7/8, not before. */
    ck_assert_int_eq(drp_unpin(region, 0, 2 * CHUNK), 0);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(drp_pin(region, 40 * CHUNK, CHUNK, NULL), -EDQUOT);
        nap_ms(1);
    }
    ck_assert_int_eq(drp_unpin(region, 2 * CHUNK, CHUNK), 0);
    ck_assert(pin_becomes(region, 40, 0));
    expect_listed_closed(false);
    ck_assert(is_filled(p + 3 * CHUNK, 7, MIB - 3 * CHUNK));
    region = drp_region_free(region);
    drp_free(d);
    fixture_teardown();
}
END_TEST

static void hold_pins(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    child_check(drp_new(&d, NULL) == 0);
    child_check(make_region(d, SIZE, &region) == 0);
    child_check(drp_pin(region, 0, MIB, NULL) == 0);
    child_say(socket, 'p');
    child_check(child_hear(socket, &word));
    region = drp_region_free(region);
    d = drp_free(d);
}

/* The other user's pins, all the while. */
static void pin_as_nobody(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(make_region(d, SIZE, &region) == 0);
    child_say(socket, 'r');
    child_check(child_hear(socket, &word));
    child_check(drp_pin(region, 0, CHUNK, NULL) == 0);
    region = drp_region_free(region);
    d = drp_free(d);
}

START_TEST(test_pins_of_user) {
    struct child holder, nobody;
    struct drp_region *region;
    struct drp *d;

    fixture_start("[Limits]\nPinnedPerUser=1M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(make_region(d, SIZE, &region), 0);
    child_start(&nobody, pin_as_nobody, NULL);
    child_expect(&nobody, 'r');
    for (int i = 0; i < 2; i++) {
        child_start(&holder, hold_pins, NULL);
        child_expect(&holder, 'p');
        ck_assert(pin_becomes(region, 0, -EDQUOT));
        if (geteuid() == 0 && i == 0) {
            child_say(nobody.socket, 'e');
            child_end(&nobody);
        }
        if (i == 0) { /* the user's other client ends */
            child_say(holder.socket, 'e');
            child_end(&holder);
            ck_assert(pin_becomes(region, 0, 0));
        }
    }
    ck_assert(service_log_has(&service, "the quota of pinned memory is used up: PinnedPerUser", WAIT_MS));
    /* The quota ends. */
    service_reload(&service, "", "PinnedPerUser=: '1M' -> 'infinity'");
    ck_assert(pin_becomes(region, 0, 0));
    child_say(holder.socket, 'e');
    child_end(&holder);
    if (geteuid() != 0)
        child_kill(&nobody);
    region = drp_region_free(region);
    drp_free(d);
    fixture_teardown();
}
END_TEST

/* ---- pins in a shared region ---- */

/* Pins up to the quota of what another made, and hears of it there and in what is its own. p: so far; e: unpins, and can pin again. */
static void pin_shared(int socket, void *data) {
    struct drp_region *region, *own;
    uid_t uid = geteuid();
    struct drp *d;
    char word;

    (void)data;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&region, d, "pinned", uid) == 0);
    child_check(make_region(d, SIZE, &own) == 0);
    child_check(drp_pin(region, 0, MIB, NULL) == 0);
    child_check(pin_becomes(region, 40, -EDQUOT));
    child_check(pin_becomes(own, 0, -EDQUOT));
    child_say(socket, 'p');
    child_check(child_hear(socket, &word));
    child_check(drp_unpin(region, 0, MIB) == 0);
    child_check(pin_becomes(region, 40, 0));
    child_check(pin_becomes(own, 0, 0));
    drp_free(d);
}

/* Who pins pays, and not whose region it is. */
START_TEST(test_pins_of_shared) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = "pinned", .mode = 0666};
    struct drp_region *region, *own;
    struct child child;
    struct drp *d;

    fixture_start(_i ? "[Limits]\nPinnedPerUser=1M\n" : "[Limits]\nPinnedPerClient=1M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    ck_assert_int_eq(make_region(d, SIZE, &own), 0);
    child_start(&child, pin_shared, NULL);
    child_expect(&child, 'p');
    if (_i == 0 || geteuid() == 0) /* else it is the same user */
        for (int i = 0; i < 100; i++) {
            ck_assert_int_eq(drp_pin(region, 0, CHUNK, NULL), 0);
            ck_assert_int_eq(drp_pin(own, 0, CHUNK, NULL), 0);
            nap_ms(1);
            ck_assert_int_eq(drp_unpin(region, 0, CHUNK), 0);
            ck_assert_int_eq(drp_unpin(own, 0, CHUNK), 0);
        }
    child_say(child.socket, 'e');
    child_end(&child);
    drp_region_free(own);
    drp_region_free(region);
    drp_free(d);
    fixture_teardown();
}
END_TEST

/* Counting fills no page of pins, and finds pins anywhere, once for each chunk. */
START_TEST(test_pins_are_only_read) {
    struct raw_region region;
    uint64_t deadline;
    struct stat st;
    int socket;

    fixture_start("[Limits]\nPinnedPerClient=64K\n");
    socket = raw_session("raw");
    raw_region_new(socket, 8192 * MIB, &region); /* 2^17 chunks of 8 bytes: 256 pages of pins */
    for (int i = 0; i < 100; i++)
        nap_ms(1);
    ck_assert_int_eq(fstat(region.pin_fd, &st), 0);
    ck_assert_int_eq(st.st_blocks, 0);
    for (unsigned i = 0; i < 3; i++) {
        size_t chunk = i == 0 ? 0 : i == 1 ? 70001 : (8192 * MIB >> 16) - 1;
        const struct drp_state_header *header = region.state;

        atomic_store(&region.cells[chunk].count, 9);
        for (deadline = now_ms() + WAIT_MS; atomic_load(&header->flags) != DRP_STATE_PINS_CLOSED; nap_ms(1))
            ck_assert_uint_lt(now_ms(), deadline);
        atomic_store(&region.cells[chunk].count, 0);
        for (deadline = now_ms() + WAIT_MS; atomic_load(&header->flags) != 0; nap_ms(1))
            ck_assert_uint_lt(now_ms(), deadline);
    }
    ck_assert_int_eq(fstat(region.pin_fd, &st), 0);
    ck_assert_int_eq(st.st_blocks, 3 * 8);
    raw_region_end(socket, &region);
    close(socket);
    fixture_teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("quotas");
    TCase *tcase = tcase_create("quotas");

    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_bytes_per_client);
    tcase_add_test(tcase, test_bytes_per_user);
    tcase_add_test(tcase, test_tables_per_user);
    tcase_add_test(tcase, test_bytes_per_cgroup);
    tcase_add_test(tcase, test_pins_of_client);
    tcase_add_test(tcase, test_pins_of_user);
    tcase_add_loop_test(tcase, test_pins_of_shared, 0, 2);
    tcase_add_test(tcase, test_pins_are_only_read);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
