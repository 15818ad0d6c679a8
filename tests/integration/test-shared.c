/* SPDX-License-Identifier: MIT */
/*
 * Shared regions: by name and by handle, who may open them, whose pins keep what, and what a death leaves: of one that pins, of the owner, of the
 * service. What is pinned by anybody is never dropped; test-shared-storm has many at once.
 *
 * All of it once more with regions that are never swapped, whose object is another one where that can be had.
 */

#include "channel.h"
#include "child.h"
#include "connected.h"
#include "fixture.h"
#include "raw.h"
#include "service.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)32)
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 10000
#define NOBODY 65534

static struct drp *connection;
static struct drp_region *region;
static uint64_t preferred; /* DRP_REGION_*, of all that are made */

static int make(struct drp_region **ret, const char *name, mode_t mode) {
    const struct drp_region_options options = {.struct_size = sizeof(options),
                                               .required = DRP_REGION_SHARED,
                                               .preferred = preferred,
                                               .name = name,
                                               .mode = mode};

    return drp_region_new(ret, connection, SIZE, &options);
}

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(make(&region, "cache", 0), 0);
}

static void setup_unswapped(void) {
    preferred = DRP_REGION_NO_SWAP;
    setup();
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static unsigned char *at(size_t chunk) {
    return (unsigned char *)drp_region_address(region) + chunk * CHUNK;
}

/* All that can be; bytes that are pinned. */
static uint64_t drop(void) {
    uint64_t pinned = 0;

    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, &pinned), 0);
    return pinned;
}

/* Until so many bytes are left by a drop. What is pinned below it is seen at each try. */
static void drop_until(uint64_t pinned) {
    for (uint64_t deadline = now_ms() + WAIT_MS; drop() != pinned; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline);
}

/* ---- children: open the region, by the handle if there is one, say so, and do what they are told ---- */

struct guest {
    int handle; /* -1: by name */
    bool nobody;
};

static struct drp_region *child_open(const struct guest *guest) {
    struct drp_region *r = NULL;
    uid_t uid = geteuid();
    struct drp *d;

    if (guest->nobody)
        child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check((guest->handle >= 0 ? drp_region_open_handle(&r, d, guest->handle)
                                    : drp_region_open(&r, d, "cache", uid)) == 0);
    return r;
}

/* p: pins and fills chunk 3; c: checks it; u: unpins; z: it reads zeros; e: ends. */
static void run_guest(int socket, void *data) {
    struct drp_region *r = child_open(data);
    unsigned char *chunk = (unsigned char *)drp_region_address(r) + 3 * CHUNK;
    char word = 'o';

    do {
        switch (word) {
        case 'p':
            child_check(drp_pin(r, 3 * CHUNK, CHUNK, NULL) == 0);
            memset(chunk, 9, CHUNK);
            break;
        case 'c':
            child_check(is_filled(chunk, 9, CHUNK));
            break;
        case 'u':
            child_check(drp_unpin(r, 3 * CHUNK, CHUNK) == 0);
            break;
        case 'z':
            child_check(is_zero(chunk, CHUNK));
            break;
        default:
            break;
        }
        child_check(child_say(socket, word));
    } while (child_hear(socket, &word) && word != 'e');
}

static void tell(const struct child *child, char word) {
    ck_assert(child_say(child->socket, word));
    child_expect(child, word);
}

static void start(struct child *child, struct guest *guest) {
    child_start(child, run_guest, guest);
    child_expect(child, 'o');
}

START_TEST(test_pins_of_two) {
    struct guest guest = {.handle = -1};
    struct child child;

    start(&child, &guest);
    memset(at(3), 5, 1);
    tell(&child, 'p');
    ck_assert(is_filled(at(3), 9, CHUNK)); /* the same memory */
    memset(at(4), 7, CHUNK);
    ck_assert_uint_eq(drop(), CHUNK);
    ck_assert(is_zero(at(4), CHUNK));
    tell(&child, 'c');
    ck_assert_int_eq(drp_pin(region, 3 * CHUNK, CHUNK, NULL), 0);
    tell(&child, 'u');
    ck_assert_uint_eq(drop(), CHUNK); /* ours */
    ck_assert_int_eq(drp_unpin(region, 3 * CHUNK, CHUNK), 0);
    ck_assert_uint_eq(drop(), 0);
    tell(&child, 'z');
    ck_assert_uint_eq(listing_number("regions", "chunk_size", CHUNK, "shared_by"), 2);
    ck_assert(child_say(child.socket, 'e'));
    child_end(&child);
}
END_TEST

START_TEST(test_killed_pinner) {
    struct guest guest = {.handle = -1};
    struct child child;

    start(&child, &guest);
    tell(&child, 'p');
    ck_assert_uint_eq(drop(), CHUNK);
    child_kill(&child);
    drop_until(0);
    ck_assert(is_zero(at(3), CHUNK));
}
END_TEST

START_TEST(test_handle_and_owner_dies) {
    struct guest guest = {.handle = drp_region_get_handle(region), .nobody = true};
    struct child child;

    ck_assert_int_ge(guest.handle, 0);
    start(&child, &guest);
    close(guest.handle);
    tell(&child, 'p');
    region = drp_region_free(region);
    tell(&child, 'c');
    /* It is still there, under its name. */
    ck_assert_int_eq(drp_region_open(&region, connection, "cache", geteuid()), 0);
    ck_assert(is_filled(at(3), 9, CHUNK));
    ck_assert_uint_eq(drop(), CHUNK);
    ck_assert(child_say(child.socket, 'e'));
    child_end(&child);
    drop_until(0);
}
END_TEST

static void run_stranger(int socket, void *data) {
    uid_t uid = geteuid();
    struct drp_region *r;
    struct drp *d;

    (void)data;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&r, d, "cache", uid) == (uid == geteuid() ? 0 : -EACCES));
    child_check(drp_region_open(&r, d, "for-all", uid) == 0);
    child_check(child_say(socket, 'o'));
}

START_TEST(test_names) {
    struct drp_region *other, *again;
    struct child child;
    char name[65];

    ck_assert_int_eq(make(&other, "cache", 0), -EEXIST);
    ck_assert_int_eq(drp_region_open(&other, connection, "nothing", geteuid()), -ENOENT);
    ck_assert_int_eq(drp_region_open(&other, connection, "cache", geteuid() + 1), -ENOENT);
    memset(name, 'n', sizeof(name));
    name[64] = '\0';
    ck_assert_int_eq(make(&other, name, 0), -EINVAL);
    ck_assert_int_eq(make(&other, "a/b", 0), -EINVAL);
    ck_assert_int_eq(make(&other, "a b", 0), -EINVAL);
    ck_assert_int_eq(make(&other, "", 0), -EINVAL);
    ck_assert_int_eq(make(&other, "mode", 0640), -EINVAL);
    ck_assert_int_eq(make(&other, NULL, 0600), -EINVAL);
    name[63] = '\0';
    ck_assert_int_eq(make(&other, name, 0), 0);
    other = drp_region_free(other);
    ck_assert_int_eq(drp_region_open(&other, connection, name, geteuid()), -ENOENT);
    ck_assert_int_eq(make(&other, "for-all", 0666), 0);
    child_start(&child, run_stranger, NULL);
    child_expect(&child, 'o');
    child_end(&child);
    /* The same twice in one process: each has pins of its own. */
    ck_assert_int_eq(drp_region_open(&again, connection, "for-all", geteuid()), 0);
    ck_assert_int_eq(drp_pin(again, 0, CHUNK, NULL), 0);
    memset(drp_region_address(other), 1, CHUNK);
    other = drp_region_free(other);
    ck_assert(is_filled(drp_region_address(again), 1, CHUNK));
    drp_region_free(again);
}
END_TEST

/* ---- the service dies ---- */

/* And the next one has our mapping, while others are late. */
static void replace_service(void) {
    struct drp_region_info info;
    char options[64], after[64];

    listing_text("regions", "size", SIZE, "options", options, sizeof(options));
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    for (uint64_t deadline = now_ms() + WAIT_MS;; nap_ms(5)) {
        drp_region_get_info(region, &info);
        if (info.connected)
            break;
        ck_assert_uint_lt(now_ms(), deadline);
    }
    listing_text("regions", "size", SIZE, "options", after, sizeof(after));
    ck_assert_str_eq(after, options);
}

/* ---- a group's ---- */

/* An ordinary user of groups of his own: by the name a member opens it, and nobody else. */
struct member {
    gid_t gid, further; /* further: the supplementary one */
    int expected;
};

static void run_member(int socket, void *data) {
    const struct member *member = data;
    uid_t uid = geteuid();
    struct drp_region *r;
    struct drp *d;

    child_check(setgroups(1, &member->further) == 0);
    child_check(setresgid(member->gid, member->gid, member->gid) == 0);
    child_check(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0); /* a change of uid takes it away */
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&r, d, "of-group", uid) == member->expected);
    if (member->expected == 0)
        child_check(is_filled(drp_region_address(r), 9, CHUNK));
    child_check(drp_region_open(&r, d, "cache", uid) == -EACCES); /* 0600: not the group's */
    child_check(child_say(socket, 'o'));
}

static void check_members(void) {
    struct member members[] = {
        {.gid = getegid(), .further = NOBODY, .expected = 0},
        {.gid = NOBODY, .further = getegid(), .expected = 0},
        {.gid = NOBODY, .further = NOBODY, .expected = -EACCES},
    };

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        struct child child;

        child_start(&child, run_member, &members[i]);
        child_expect(&child, 'o');
        child_end(&child);
    }
}

START_TEST(test_group) {
    struct drp_region *of_group;

    if (geteuid() != 0) {
        suite_skip_part("shared regions of a group", "needs root");
        return;
    }
    ck_assert_int_eq(make(&of_group, "of-group", 0660), 0);
    memset(drp_region_address(of_group), 9, CHUNK);
    check_members();
    replace_service(); /* the next one knows whose it is */
    ck_assert(connected_becomes(of_group, true, WAIT_MS));
    check_members();
    drp_region_free(of_group);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* A mapper that is late keeps all of it, and what it has pinned stays. */
START_TEST(test_service_dies) {
    struct guest guest = {.handle = -1};
    struct child child;

    start(&child, &guest);
    tell(&child, 'p');
    memset(at(5), 5, CHUNK);
    ck_assert_int_eq(kill(child.pid, SIGSTOP), 0);
    replace_service();
    ck_assert_uint_eq(drop(), 2 * CHUNK); /* nothing goes while it is away */
    ck_assert(is_filled(at(5), 5, CHUNK));
    ck_assert_int_eq(kill(child.pid, SIGCONT), 0);
    drop_until(CHUNK);
    tell(&child, 'c');
    ck_assert(is_zero(at(5), CHUNK));
    /* And again, while one that is late dies. */
    ck_assert_int_eq(kill(child.pid, SIGSTOP), 0);
    replace_service();
    ck_assert_uint_eq(drop(), 2 * CHUNK);
    ck_assert(is_filled(at(3), 9, CHUNK));
    child_kill(&child);
    drop_until(0);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

static void wait_for_regions(uint64_t count) {
    for (uint64_t deadline = now_ms() + WAIT_MS; listing_count("regions") != count; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline);
}

/* Whoever is back is killed, and was the only one: his memory is freed, but that of who is late is not. */
START_TEST(test_killed_before_late_one) {
    struct guest guest = {.handle = -1};
    struct child early, late;

    start(&early, &guest);
    start(&late, &guest);
    tell(&late, 'p');
    region = drp_region_free(region);
    ck_assert_int_eq(kill(late.pid, SIGSTOP), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    wait_for_regions(1);
    child_kill(&early);
    wait_for_regions(0);
    ck_assert_int_eq(kill(late.pid, SIGCONT), 0);
    wait_for_regions(1);
    tell(&late, 'c');
    ck_assert_int_eq(drp_region_open(&region, connection, "cache", geteuid()), 0);
    drop_until(CHUNK);
    tell(&late, 'c');
    child_kill(&late);
    drop_until(0);
}
END_TEST

/* ---- hostile ---- */

static int raw_open(int socket, const char *name, uint32_t uid, int fd) {
    struct drp_wire_open request = {.header.type = DRP_WIRE_OPEN, .uid = uid};

    memcpy(request.name, name, strlen(name));
    return raw_call(socket, &request, sizeof(request), &fd, fd >= 0, NULL);
}

START_TEST(test_hostile) {
    int socket = raw_hello("hostile"), other = raw_hello("malformed"),
        fd = memfd_create("droppable:0:0:666:cache", MFD_ALLOW_SEALING);
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                   .size = SIZE,
                                   .chunk_total = CHUNKS,
                                   .granted = DRP_REGION_SHARED,
                                   .chunk_shift = 16};
    int fds[2] = {fd, fd}, handle = drp_region_get_handle(region);

    ck_assert_int_eq(ftruncate(fd, SIZE), 0);
    ck_assert_int_eq(raw_open(socket, "", 0, fd), DRP_WIRE_ERROR_DESCRIPTOR);
    ck_assert_int_eq(raw_open(socket, "no", 0, -1), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(raw_open(socket, "a\tb", 0, -1), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(raw_open(other, "cache", 0, fd), DRP_WIRE_ERROR_MALFORMED);
    close(other);
    ck_assert_int_eq(raw_call(socket, &adopt, sizeof(adopt), fds, 2, NULL), DRP_WIRE_ERROR_DESCRIPTOR);
    adopt.granted |= DRP_REGION_NO_SWAP;
    ck_assert_int_eq(raw_call(socket, &adopt, sizeof(adopt), fds, 2, NULL), DRP_WIRE_ERROR_DESCRIPTOR);
    /* A shared region as one's own. */
    fds[0] = handle;
    adopt.granted = 0;
    ck_assert_int_eq(raw_call(socket, &adopt, sizeof(adopt), fds, 2, NULL), DRP_WIRE_ERROR_DESCRIPTOR);
    /* Opened until a quota is met, and mapped not at all. */
    for (int i = 0, r = DRP_WIRE_OK; r == DRP_WIRE_OK; i++) {
        ck_assert_int_lt(i, 100000);
        r = raw_open(socket, "", 0, handle);
        ck_assert(r == DRP_WIRE_OK || r == DRP_WIRE_ERROR_QUOTA);
    }
    close(handle);
    close(fd);
    close(socket);
    memset(at(0), 1, CHUNK);
    ck_assert_uint_eq(drop(), 0);
    ck_assert(is_zero(at(0), CHUNK));
}
END_TEST

static void add(Suite *suite, const char *name, void (*begin)(void)) {
    TCase *tcase = tcase_create(name);

    tcase_add_checked_fixture(tcase, begin, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_pins_of_two);
    tcase_add_test(tcase, test_killed_pinner);
    tcase_add_test(tcase, test_handle_and_owner_dies);
    tcase_add_test(tcase, test_names);
    tcase_add_test(tcase, test_group);
    tcase_add_test(tcase, test_service_dies);
    tcase_add_test(tcase, test_killed_before_late_one);
    tcase_add_test(tcase, test_hostile);
    suite_add_tcase(suite, tcase);
}

int main(void) {
    Suite *suite = suite_create("shared");

    add(suite, "shared", setup);
    add(suite, "unswapped", setup_unswapped);
    return suite_run(suite);
}
