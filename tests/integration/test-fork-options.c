/* SPDX-License-Identifier: MIT */
/*
 * A region that a child has from its parent (DRP_REGION_FORK_SHARED): the child joins it by its handle, and is then somebody who has it, with pins of his
 * own, who outlives his parent. And what `droppablectl list` shows of what children and core dumps have of a region.
 */

#include "child.h"
#include "connected.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)8)
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 10000
#define NAME "family"

static struct drp *connection;
static struct drp_region *region;

static struct drp_region *make(uint64_t required, const char *name) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = required, .name = name};
    struct drp_region *r = NULL;

    ck_assert_msg(drp_region_new(&r, connection, SIZE, &options) == 0, "%s", drp_detail());
    return r;
}

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static char *at(const struct drp_region *r, size_t chunk) {
    return (char *)drp_region_address(r) + chunk * CHUNK;
}

static uint64_t drop(struct drp_region *r) {
    uint64_t freed = 0;

    ck_assert_int_eq(drp_drop(r, 0, SIZE, &freed, NULL), 0);
    return freed;
}

static bool json_has(const char *wanted) {
    char out[16384];

    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"--json", "list", NULL}), 0);
    return strstr(out, wanted);
}

/* ---- joining ---- */

static struct drp_region *joined;

/* p: pins chunk 2; c: it is there; d: drops all that it may; e: ends. */
static void be_child(int socket, void *data) {
    int handle = *(int *)data;
    char word;

    /* The same memory already, but nothing that this process could hold on to. */
    child_check(*at(region, 1) == 7);
    child_check(drp_pin(region, 0, CHUNK, NULL) == -ENOTCONN);
    child_check(drp_region_open_handle(&joined, connection, handle) == 0);
    child_check(close(handle) == 0);
    child_check(*at(joined, 1) == 7);
    *at(joined, 3) = 8;
    child_check(*at(region, 3) == 8);
    child_check(drp_pin(joined, 2 * CHUNK, CHUNK, NULL) == 0);
    memset(at(joined, 2), 9, CHUNK);
    child_check(child_say(socket, 'j'));
    while (child_hear(socket, &word) && word != 'e') {
        uint64_t freed, pinned;

        if (word == 'c')
            child_check(is_filled(at(joined, 2), 9, CHUNK) && is_filled(at(region, 2), 9, CHUNK));
        if (word == 'd') {
            memset(at(joined, 0), 1, CHUNK);
            child_check(drp_drop(joined, 0, SIZE, &freed, &pinned) == 0 && pinned == CHUNK && freed > 0);
            child_check(is_zero(at(joined, 0), CHUNK) && is_zero(at(region, 0), CHUNK));
        }
        child_check(child_say(socket, word));
    }
    drp_region_free(joined);
    child_check(*at(region, 2) == 9); /* the mapping from before fork(2) is a mapping all the same */
    drp_region_free(region);
    drp_free(connection);
}

static void tell(const struct child *child, char word) {
    ck_assert(child_say(child->socket, word));
    child_expect(child, word);
}

START_TEST(test_child_joins) {
    struct child child;
    int handle;

    region = make(DRP_REGION_SHARED | DRP_REGION_FORK_SHARED, NULL);
    handle = drp_region_get_handle(region);
    ck_assert_int_ge(handle, 0);
    memset(at(region, 1), 7, CHUNK);
    child_start(&child, be_child, &handle);
    child_expect(&child, 'j');
    close(handle);
    ck_assert_int_eq(*at(region, 3), 8);
    ck_assert_uint_eq(drop(region), CHUNK + 4096); /* chunk 1, the page of 3; the child has pinned 2 */
    tell(&child, 'c');
    tell(&child, 'd');
    /* After its parent it is the child's alone, is dropped from as ever, and its pin holds. */
    region = drp_region_free(region);
    tell(&child, 'd');
    tell(&child, 'c');
    ck_assert(child_say(child.socket, 'e'));
    child_end(&child);
}
END_TEST

/* The parent dies, without a word; the child's child joins by name. */
static void be_grandchild(int socket, void *data) {
    struct drp_region *own;

    (void)data;
    child_check(*at(region, 1) == 7);
    child_check(drp_region_open(&own, connection, NAME, geteuid()) == 0);
    child_check(is_filled(at(own, 1), 7, CHUNK));
    child_check(drp_pin(own, CHUNK, CHUNK, NULL) == 0);
    child_check(drp_drop(own, 0, SIZE, NULL, NULL) == 0);
    child_check(is_filled(at(own, 1), 7, CHUNK));
    child_check(child_say(socket, 'g'));
}

static void be_parent(int socket, void *data) {
    struct child grandchild;
    char word;

    (void)data;
    child_check(drp_new(&connection, NULL) == 0);
    region = make(DRP_REGION_SHARED | DRP_REGION_FORK_SHARED, NAME);
    memset(at(region, 1), 7, CHUNK);
    child_start(&grandchild, be_grandchild, NULL);
    child_check(child_hear(grandchild.socket, &word) && word == 'g');
    child_check(child_say(socket, 'g'));
    child_hear(socket, &word);
}

START_TEST(test_parent_dies) {
    struct child parent;

    child_start(&parent, be_parent, NULL);
    child_expect(&parent, 'g');
    child_kill(&parent);
}
END_TEST

/* ---- the end of the parent of a child that did not join ---- */

struct legacy {
    uint64_t options;
    bool taken_back; /* children made later have no part in it */
    bool restarted;  /* the service, meanwhile */
};

/* c: says whether all is as it was. */
static void be_heir(int socket) {
    char word;

    child_check(child_say(socket, 'h'));
    while (child_hear(socket, &word) && word == 'c') {
        child_check(is_filled(at(region, 0), 7, SIZE));
        child_check(child_say(socket, 'c'));
    }
}

static void leave_legacy(int socket, void *data) {
    const struct legacy *legacy = data;
    pid_t pid;

    child_check(drp_new(&connection, NULL) == 0);
    region = make(legacy->options, NULL);
    memset(at(region, 0), 7, SIZE);
    pid = fork();
    child_check(pid >= 0);
    if (pid == 0) {
        be_heir(socket);
        _exit(0);
    }
    if (legacy->taken_back)
        child_check(drp_region_set_options(region, DRP_REGION_FORK_SHARED | DRP_REGION_DUMP, DRP_REGION_DUMP) == 0);
    else
        child_check(drp_region_set_options(region, DRP_REGION_DUMP, DRP_REGION_DUMP) == 0);
    child_check(child_say(socket, 'd'));
    for (;;)
        pause();
}

static const struct legacy legacies[] = {
    {DRP_REGION_FORK_SHARED, false, false},
    {DRP_REGION_FORK_SHARED, true, false},
    {DRP_REGION_FORK_SHARED | DRP_REGION_SHARED, false, false},
    {DRP_REGION_FORK_SHARED | DRP_REGION_SHARED, true, false},
    {DRP_REGION_FORK_SHARED, false, true},
    {DRP_REGION_FORK_SHARED, true, true},
    {DRP_REGION_FORK_SHARED | DRP_REGION_SHARED, true, true},
};

/* The child says 'h', its parent 'd', in any order. */
static void expect_both(const struct child *child) {
    char first, second;

    ck_assert(child_hear(child->socket, &first) && child_hear(child->socket, &second));
    ck_assert_int_eq(first + second, 'h' + 'd');
}

/* It has no pins and no generations: nobody may take its memory away while it runs. */
START_TEST(test_parent_leaves) {
    struct legacy legacy = legacies[_i];
    struct child parent;

    connection = drp_free(connection);
    child_start(&parent, leave_legacy, &legacy);
    expect_both(&parent);
    if (legacy.restarted) {
        ck_assert(service_kill(&service, WAIT_MS));
        service_restart(&service);
        for (uint64_t deadline = now_ms() + WAIT_MS; !json_has("\"dump\"");)
            ck_assert_uint_lt(now_ms(), deadline);
    }
    ck_assert_int_eq(kill(parent.pid, SIGKILL), 0);
    ck_assert(process_ends(parent.pid, WAIT_MS));
    ck_assert(status_becomes("regions", 0, WAIT_MS));
    if (legacy.restarted)
        fixture_measure(); /* idle is what it is without a client; waits for that */
    else
        fixture_expect_idle(); /* nobody of the service is at it any more */
    tell(&parent, 'c');
    child_kill(&parent); /* and closes the socket, which ends the child */
}
END_TEST

/* An ordinary region cannot be joined: it says so before the child is made. */
START_TEST(test_not_shared) {
    region = make(DRP_REGION_FORK_SHARED, NULL);
    ck_assert_int_eq(drp_region_get_handle(region), -EINVAL);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_SHARED"));
}
END_TEST

/* ---- list ---- */

/* The line of the region whose id it is, of the table. */
static bool list_has(uint64_t id, const char *wanted) {
    char out[16384], start[32], *line, *end;

    snprintf(start, sizeof(start), "\n%-8llu ", (unsigned long long)id);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"list", NULL}), 0);
    line = strstr(out, "\nREGION");
    ck_assert_ptr_nonnull(line);
    line = strstr(line, start);
    ck_assert_ptr_nonnull(line);
    end = strchr(line + 1, '\n');
    if (end)
        *end = '\0';
    return strstr(line, wanted);
}

static uint64_t id_of(const struct drp_region *r) {
    struct drp_region_info info;

    drp_region_get_info(r, &info);
    return info.id;
}

START_TEST(test_list) {
    const uint64_t mask = DRP_REGION_FORK_SHARED | DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP;
    struct drp_region *shared, *again;

    region = make(DRP_REGION_FORK_ABSENT, NULL);
    shared = make(DRP_REGION_SHARED | DRP_REGION_DUMP, NAME);
    ck_assert(list_has(id_of(region), "fork-absent"));
    ck_assert(!list_has(id_of(region), "dump"));
    ck_assert(list_has(id_of(shared), "dump"));
    ck_assert(json_has("\"fork-absent\"") && json_has("\"dump\"") && !json_has("\"fork-shared\""));
    ck_assert_int_eq(drp_region_set_options(region, mask, DRP_REGION_FORK_SHARED), 0);
    ck_assert(list_has(id_of(region), "fork-shared"));
    ck_assert(!list_has(id_of(region), "fork-absent"));
    ck_assert_int_eq(drp_region_set_options(shared, mask, 0), 0);
    ck_assert(!list_has(id_of(shared), "dump"));
    ck_assert_int_eq(drp_region_open(&again, connection, NAME, geteuid()), 0);
    ck_assert_int_eq(drp_region_set_options(again, mask, DRP_REGION_FORK_SHARED | DRP_REGION_DUMP), 0);
    ck_assert(list_has(id_of(again), "fork-shared,dump"));
    drp_region_free(again);

    /* A new service hears of it, and of what was changed meanwhile. */
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert_int_eq(drp_region_set_options(shared, mask, DRP_REGION_DUMP), 0);
    service_restart(&service);
    ck_assert(connected_becomes(region, true, WAIT_MS) && connected_becomes(shared, true, WAIT_MS));
    for (uint64_t deadline = now_ms() + WAIT_MS;
         !list_has(id_of(region), "fork-shared") || !list_has(id_of(shared), "dump");)
        ck_assert_uint_lt(now_ms(), deadline);
    drp_region_free(shared);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* While somebody who had it is not back, it is held, and the list says so. */
static void run_late(int socket, void *data) {
    struct drp_region *r;
    struct drp *d;
    char word;

    (void)data;
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&r, d, NAME, geteuid()) == 0);
    child_check(child_say(socket, 'o'));
    child_hear(socket, &word);
}

START_TEST(test_held) {
    struct child late;

    region = make(DRP_REGION_SHARED, NAME);
    child_start(&late, run_late, NULL);
    child_expect(&late, 'o');
    ck_assert_uint_eq(listing_number("regions", "size", SIZE, "held"), 0);
    ck_assert_int_eq(kill(late.pid, SIGSTOP), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    ck_assert_uint_eq(listing_number("regions", "size", SIZE, "held"), 1);
    child_kill(&late);
    for (uint64_t deadline = now_ms() + WAIT_MS; listing_number("regions", "size", SIZE, "held") != 0;)
        ck_assert_uint_lt(now_ms(), deadline);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* ---- hostile ---- */

START_TEST(test_hostile) {
    int socket = raw_session("teller"), other = raw_session("other");
    struct drp_wire_options request = {.header.type = DRP_WIRE_TELL_OPTIONS};
    struct raw_region own;

    raw_region_new(socket, SIZE, &own);
    request.region = own.id;
    request.options = DRP_REGION_DUMP;
    ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_OK);
    ck_assert(list_has(own.id, "dump"));
    request.options = 0;
    ck_assert_int_eq(raw_call(other, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert(list_has(own.id, "dump"));
    request.options = DRP_REGION_FORK_SHARED | DRP_REGION_FORK_ABSENT;
    ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
    request.options = DRP_REGION_NO_PINS; /* which would make a native one of it */
    ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
    request.options = DRP_REGION_SHARED;
    ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
    request.options = 0;
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, own.id), DRP_WIRE_OK);
    ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_NOT_FOUND);
    raw_region_end(-1, &own);
    close(socket);
    close(other);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fork-options");
    TCase *tcase = tcase_create("fork-options");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_child_joins);
    tcase_add_test(tcase, test_parent_dies);
    tcase_add_loop_test(tcase, test_parent_leaves, 0, sizeof(legacies) / sizeof(legacies[0]));
    tcase_add_test(tcase, test_not_shared);
    tcase_add_test(tcase, test_list);
    tcase_add_test(tcase, test_held);
    tcase_add_test(tcase, test_hostile);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
