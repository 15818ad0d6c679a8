/* SPDX-License-Identifier: MIT */
/*
 * Who does not listen for a while is told once, however much was lost meanwhile: one event, and all that touches as one range. What the service has sent
 * to him by then are a few bytes.
 */

#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)128)
#define SIZE (CHUNKS * CHUNK)
#define DROPS 1000
#define MESSAGES_MAX 64
#define WAIT_MS 10000

static struct drp *connection;
static struct drp_region *region, *other;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, NULL), 0);
    ck_assert_int_eq(drp_region_new(&other, connection, SIZE, NULL), 0);
}

static void teardown(void) {
    region = drp_region_free(region);
    other = drp_region_free(other);
    connection = drp_free(connection);
    fixture_teardown();
}

static void drop_chunk(struct drp_region *r, size_t chunk) {
    uint64_t freed = 0;

    memset((char *)drp_region_address(r) + chunk * CHUNK, 7, CHUNK);
    ck_assert_int_eq(drp_drop(r, chunk * CHUNK, CHUNK, &freed, NULL), 0);
    ck_assert_uint_eq(freed, CHUNK);
}

/*
 * All events of what was dropped so far have come: the library looks at all regions each time, and a second event of the other one is of a time that
 * began when the first one was over.
 */
static void let_events_come(int fd_of_other) {
    for (unsigned i = 0; i < 2; i++) {
        drop_chunk(other, 0);
        ck_assert(event_comes(fd_of_other, WAIT_MS));
    }
}

START_TEST(test_one_event) {
    int all = drp_get_lost_fd(connection), one = drp_region_get_lost_fd(region), two = drp_region_get_lost_fd(other);
    size_t offset, length;

    ck_assert(all >= 0 && one >= 0 && two >= 0);
    for (size_t i = 0; i < DROPS; i++)
        drop_chunk(region, i * 37 % CHUNKS); /* each one many times, and none beside the last one */
    let_events_come(two);
    ck_assert(event_comes(one, 0));
    ck_assert(!event_comes(one, 0));
    ck_assert(event_comes(all, WAIT_MS));
    ck_assert_int_eq(drp_region_take_lost(region, &offset, &length), 1);
    ck_assert_uint_eq(offset, 0);
    ck_assert_uint_eq(length, SIZE);
    ck_assert_int_eq(drp_region_take_lost(region, &offset, &length), 0);

    /* What is another region's is no news of this one. */
    let_events_come(two);
    ck_assert(!event_comes(one, 0));
}
END_TEST

/* How many messages wait. */
static unsigned take_all(int ear) {
    unsigned n = 0;
    char word[8];

    while (recv(ear, word, sizeof(word), MSG_DONTWAIT) > 0)
        n++;
    ck_assert_int_eq(errno, EAGAIN);
    return n;
}

START_TEST(test_few_messages) {
    struct drp_wire_header watch = {.type = DRP_WIRE_WATCH};
    struct channel_packet packet;
    struct raw_region deaf;
    int socket = raw_session("deaf"), ear;
    unsigned n;

    raw_region_new(socket, SIZE, &deaf);
    ck_assert_int_eq(raw_call(socket, &watch, sizeof(watch), NULL, 0, &packet), DRP_WIRE_OK);
    ear = channel_packet_take(&packet, 0);
    for (unsigned i = 0; i < DROPS; i++) {
        struct drp_wire_drop_reply reply;

        deaf.address[0] = 1;
        ck_assert_int_eq(raw_drop(socket, &deaf, 0, CHUNK, &reply), DRP_WIRE_OK);
        ck_assert_uint_gt(reply.freed, 0);
    }
    n = take_all(ear);
    printf("%u messages of %d drops wait for who does not listen\n", n, DROPS);
    ck_assert_uint_ge(n, 1);
    ck_assert_uint_le(n, MESSAGES_MAX);
    close(ear);
    raw_region_end(socket, &deaf);
    close(socket);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lost-many");
    TCase *tcase = tcase_create("lost-many");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_one_event);
    tcase_add_test(tcase, test_few_messages);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
