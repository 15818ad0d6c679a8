/* SPDX-License-Identifier: MIT */
/*
 * Clients who live, lose their connection, and come back to the same service, while a thread of it is still at work on their region: whoever holds the
 * object's lock (holder.h) lets a test say how long. What they pin in the meantime stays.
 */

#include "client.h"
#include "connected.h"
#include "fixture.h"
#include "holder.h"
#include "raw.h"
#include "rest.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)32) /* a span: of more the service would look for the next data first, under the same lock */
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 20000

/* ---- by hand ---- */

/* DROP of all, without waiting for the reply: when a generation is odd, the service is about to punch. */
static void begin_drop(int socket, const struct raw_region *region) {
    struct drp_wire_range range = {
        .header = {.type = DRP_WIRE_DROP, .serial = 1}, .region = region->id, .length = region->size};

    ck_assert_int_eq(channel_send(socket, &range, sizeof(range), NULL, 0, 0), CHANNEL_OK);
    for (uint64_t deadline = now_ms() + WAIT_MS; (atomic_load(&region->generations[1]) & 1) == 0; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
}

static int adopt(int socket, struct raw_region *region) {
    struct drp_wire_adopt request = {.header.type = DRP_WIRE_ADOPT,
                                     .size = region->size,
                                     .chunk_total = region->chunk_total,
                                     .granted = region->granted,
                                     .chunk_shift = region->chunk_shift};
    int fds[] = {region->data_fd, region->state_fd};
    struct channel_packet packet;
    int r = raw_call(socket, &request, sizeof(request), fds, 2, &packet);

    if (r != DRP_WIRE_OK)
        return r;
    region->id = packet.message.create_reply.region;
    close(region->state_fd);
    region->state_fd = packet.fds[0];
    ck_assert_ptr_eq(mmap(region->state, drp_state_bytes(region->chunk_total), PROT_READ, MAP_SHARED | MAP_FIXED,
                          region->state_fd, 0),
                     region->state);
    return r;
}

static int map(int socket, struct raw_region *region) {
    struct drp_wire_map request = {
        .header.type = DRP_WIRE_MAP, .region = region->id, .address = (uintptr_t)region->address, .length = region->size};

    return raw_call(socket, &request, sizeof(request), &region->pin_fd, 1, NULL);
}

/* As the protocol has it: count, then look. The chunk is settled by then. */
static void pin(struct raw_region *region, size_t chunk) {
    atomic_fetch_add(&region->cells[chunk].count, 1);
    ck_assert_uint_eq(atomic_load(&region->generations[chunk]) & 1, 0);
}

/* The punch under way is the old connection's; the pin is the new one's. */
START_TEST(test_pinned_meanwhile) {
    int socket = raw_session("before"), again, r;
    struct raw_region region;
    struct holder holder;
    size_t descriptors, threads;
    bool refused;

    raw_region_new(socket, SIZE, &region);
    service_at_rest(&service, WAIT_MS, &descriptors, &threads);
    memset(region.address, 1, SIZE);
    holder_begin(&holder, region.data_fd);
    begin_drop(socket, &region);
    close(socket);

    again = raw_session("after");
    r = adopt(again, &region);
    refused = r == DRP_WIRE_ERROR_QUARANTINED;
    if (refused) { /* until the punch is through */
        holder_end(&holder);
        for (uint64_t deadline = now_ms() + WAIT_MS; r == DRP_WIRE_ERROR_QUARANTINED; r = adopt(again, &region))
            ck_assert_uint_lt(now_ms(), deadline);
    }
    ck_assert_int_eq(r, DRP_WIRE_OK);
    pin(&region, 1); /* MAP has what was begun begun anew, but for that */
    memset(region.address + CHUNK, 2, CHUNK);
    ck_assert_int_eq(map(again, &region), DRP_WIRE_OK);
    if (!refused)
        holder_end(&holder);
    for (uint64_t deadline = now_ms() + WAIT_MS; service_threads(&service) != threads; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline); /* those of the old connection are gone */
    ck_assert_int_eq(raw_drop(again, &region, 0, SIZE, NULL), DRP_WIRE_OK);
    ck_assert(is_filled(region.address + CHUNK, 2, CHUNK));
    ck_assert(refused);
    raw_region_end(again, &region);
    close(again);
}
END_TEST

/* One process, two connections, of which a child may have the other one: two would drop by turns. */
START_TEST(test_two_connections) {
    int socket = raw_session("before"), again = raw_session("after"), r;
    struct raw_region region;

    raw_region_new(socket, SIZE, &region);
    ck_assert_int_eq(adopt(again, &region), DRP_WIRE_ERROR_QUARANTINED);
    ck_assert_int_eq(raw_drop(socket, &region, 0, SIZE, NULL), DRP_WIRE_OK);
    close(socket);
    for (uint64_t deadline = now_ms() + WAIT_MS; (r = adopt(again, &region)) == DRP_WIRE_ERROR_QUARANTINED;)
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_int_eq(r, DRP_WIRE_OK);
    ck_assert_int_eq(map(again, &region), DRP_WIRE_OK);
    raw_region_end(again, &region);
    close(again);
}
END_TEST

/* ---- the library ---- */

static struct drp *connection;
static struct drp_region *region;

/* The library's connection to the service ends, as if the service had ended it. */
static void hang_up(void) {
    struct sockaddr_un peer;
    unsigned found = 0;

    for (int fd = 0; fd < 1024; fd++) {
        socklen_t size = sizeof(peer);

        memset(&peer, 0, sizeof(peer));
        if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && strcmp(peer.sun_path, service.socket) == 0) {
            ck_assert_int_eq(shutdown(fd, SHUT_RDWR), 0);
            found++;
        }
    }
    ck_assert_uint_eq(found, 1);
}

static void *drop(void *data) {
    (void)data;
    (void)drp_drop(region, 0, SIZE, NULL, NULL); /* the connection ends meanwhile */
    return NULL;
}

static _Atomic bool has_pinned;

static void *keep_one(void *data) {
    (void)data;
    atomic_store(&has_pinned, drp_pin(region, CHUNK, CHUNK, NULL) == 0);
    return NULL;
}

/* It is not taken back while it is held up, and what is about to be punched cannot be pinned; one that has a home of its own is; and then it is, by itself. */
START_TEST(test_comes_back) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SHARED};
    struct drp_region *other;
    struct holder holder;
    struct drp_stats stats;
    uint64_t offset, freed, pinned;
    uint32_t generation = 0;
    pthread_t dropper, pinner;
    int object;

    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, NULL), 0);
    ck_assert_int_eq(drp_region_new(&other, connection, SIZE, &options), 0);
    memset(drp_region_address(region), 1, SIZE);
    object = drp_region_get_object(region, &offset);
    holder_begin(&holder, object);
    ck_assert_int_eq(pthread_create(&dropper, NULL, drop, NULL), 0);
    for (uint64_t deadline = now_ms() + WAIT_MS; (generation & 1) == 0; nap_ms(1)) {
        drp_copy_generations(region, CHUNK, CHUNK, &generation);
        ck_assert_uint_lt(now_ms(), deadline);
    }
    hang_up();
    ck_assert_int_eq(pthread_join(dropper, NULL), 0);
    ck_assert(connected_becomes(other, false, WAIT_MS));
    ck_assert(connected_becomes(other, true, WAIT_MS));
    ck_assert_int_eq(pthread_create(&pinner, NULL, keep_one, NULL), 0);
    nap_ms(500); /* some offers */
    ck_assert(!is_connected(region) && !atomic_load(&has_pinned));
    ck_assert_int_eq(drp_drop(other, 0, SIZE, NULL, NULL), 0);

    holder_end(&holder);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    ck_assert_int_eq(drp_get_stats(connection, &stats), 0);
    ck_assert_uint_eq(stats.reconnects, 1);
    ck_assert_int_eq(pthread_join(pinner, NULL), 0);
    ck_assert(atomic_load(&has_pinned));
    memset(drp_region_address(region), 2, SIZE);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, &pinned), 0);
    ck_assert_uint_eq(pinned, CHUNK);
    ck_assert_uint_eq(freed, SIZE - CHUNK);
    ck_assert(is_filled((char *)drp_region_address(region) + CHUNK, 2, CHUNK));
    ck_assert_int_eq(drp_unpin(region, CHUNK, CHUNK), 0);
    close(object);
    drp_region_free(other);
    region = drp_region_free(region);
    connection = drp_free(connection);
}
END_TEST

/* A chunk is about to be dropped, and the service waits for the object's lock. Nobody finds the service from here on. */
static void begin_held_drop(struct holder *holder, pthread_t *dropper, const char *away) {
    uint32_t generation = 0;
    uint64_t offset;

    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, NULL), 0);
    memset(drp_region_address(region), 1, SIZE);
    holder_begin(holder, drp_region_get_object(region, &offset));
    ck_assert_int_eq(pthread_create(dropper, NULL, drop, NULL), 0);
    for (uint64_t deadline = deadline_in(WAIT_MS); (generation & 1) == 0; nap_ms(1)) {
        drp_copy_generations(region, CHUNK, CHUNK, &generation);
        ck_assert_uint_lt(now_ms(), deadline);
    }
    ck_assert_int_eq(rename(service.socket, away), 0);
}

static void expect_looks_for_another(void) {
    for (uint64_t deadline = deadline_in(WAIT_MS); connection->notify < 0; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
}

/* One that hangs up, and is not found again, lives: it is about to punch, and says when it has. */
START_TEST(test_hung_up) {
    char away[sizeof(service.socket) + 8];
    struct holder holder;
    pthread_t dropper, pinner;
    int object;

    snprintf(away, sizeof(away), "%s.away", service.socket);
    begin_held_drop(&holder, &dropper, away);
    object = holder.fd;
    atomic_store(&has_pinned, false);
    ck_assert_int_eq(pthread_create(&pinner, NULL, keep_one, NULL), 0);
    hang_up();
    ck_assert_int_eq(pthread_join(dropper, NULL), 0);
    expect_looks_for_another();
    nap_ms(200); /* some looks */
    ck_assert(!atomic_load(&has_pinned));
    holder_end(&holder);
    ck_assert_int_eq(pthread_join(pinner, NULL), 0);
    ck_assert(atomic_load(&has_pinned));
    memset(drp_region_address(region), 2, SIZE);
    ck_assert_int_eq(rename(away, service.socket), 0);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
    ck_assert(is_filled((char *)drp_region_address(region) + CHUNK, 2, CHUNK));
    close(object);
    region = drp_region_free(region);
    connection = drp_free(connection);
}
END_TEST

/* Dies in the middle of the drop, of which it says nothing any more: whoever pins goes on. */
static void expect_pins_after_death(struct holder *holder, const char *away) {
    uint64_t before = drp_generation(region, CHUNK, CHUNK), now;
    int object = holder->fd, status;

    ck_assert_uint_eq(before & 1, 1);
    ck_assert_int_eq(kill(service.pid, SIGKILL), 0);
    holder_end(holder);
    ck_assert(service_wait(&service, WAIT_MS, &status));
    ck_assert_int_eq(drp_pin(region, CHUNK, CHUNK, &now), 0);
    ck_assert_uint_eq(now, before + 1);
    close(object);
    region = drp_region_free(region);
    connection = drp_free(connection);
    unlink(away);
    service_restart(&service);
    fixture_measure();
}

static void expect_withdrawn(void) {
    for (uint64_t deadline = deadline_in(WAIT_MS); !connection->inherited; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
}

/* One that the library has cut off may go on: it is waited for, but not after its death, however much later that is. */
START_TEST(test_cut_off_and_dead) {
    char away[sizeof(service.socket) + 8];
    struct holder holder;
    pthread_t dropper;

    snprintf(away, sizeof(away), "%s.away", service.socket);
    begin_held_drop(&holder, &dropper, away);
    link_cut(&connection->link);
    ck_assert_int_eq(pthread_join(dropper, NULL), 0);
    expect_looks_for_another();
    expect_pins_after_death(&holder, away);
}
END_TEST

/* The same of a library that has withdrawn. */
START_TEST(test_withdrawn_and_dead) {
    char away[sizeof(service.socket) + 8];
    struct holder holder;
    pthread_t dropper;

    snprintf(away, sizeof(away), "%s.away", service.socket);
    begin_held_drop(&holder, &dropper, away);
    close(connection->wake[1]); /* as a program does that closes what it does not know */
    ck_assert_int_eq(pthread_join(dropper, NULL), 0);
    expect_withdrawn();
    expect_pins_after_death(&holder, away);
}
END_TEST

/*
 * The next service does not take the region (for want of the pin page), or is not offered it, and neither its death nor its life says anything of the one
 * before, who may still punch: only that one's own death does.
 */
START_TEST(test_left_behind) {
    bool seen = close((int)syscall(SYS_pidfd_open, getpid(), 0)) ==
                0; /* also before its parent has waited for it: from Linux 5.3 on */
    char away[sizeof(service.socket) + 8];
    struct service first;
    struct holder holder;
    pthread_t dropper;
    uint64_t before, now;
    int status, object;

    snprintf(away, sizeof(away), "%s.away", service.socket);
    begin_held_drop(&holder, &dropper, away);
    object = holder.fd;
    before = drp_generation(region, CHUNK, CHUNK);
    first = service;
    if (_i == 0)
        close(region->pin_fd); /* without it no service takes the region */
    link_cut(&connection->link);
    ck_assert_int_eq(pthread_join(dropper, NULL), 0);
    for (unsigned i = 1; i <= 2; i++) {
        service_restart(&service);
        for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&connection->reconnects) < i; nap_ms(1))
            ck_assert_uint_lt(now_ms(), deadline);
        ck_assert(!is_connected(region));
        if (i == 2)
            break;
        ck_assert(service_kill(&service, WAIT_MS));
        expect_looks_for_another();
    }
    ck_assert_uint_eq(drp_generation(region, CHUNK, CHUNK), before);
    ck_assert_int_eq(kill(first.pid, SIGKILL), 0);
    holder_end(&holder);
    ck_assert(seen || service_wait(&first, WAIT_MS, &status));
    ck_assert_int_eq(drp_pin(region, CHUNK, CHUNK, &now), 0);
    ck_assert_uint_eq(now, before + 1);
    ck_assert(!seen || service_wait(&first, WAIT_MS, &status)); /* there are parents who never do */
    ck_assert(_i == 0 || connected_becomes(region, true, WAIT_MS));
    close(object);
    region = drp_region_free(region);
    connection = drp_free(connection);
    unlink(away);
    fixture_measure();
}
END_TEST

/* A region that another thread is making meanwhile will be the next service's: the one before has nothing to do with it. */
START_TEST(test_made_beside_withdrawal) {
    struct drp_region *making;

    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    making = region_alloc(connection, NULL);
    ck_assert(service_kill(&service, WAIT_MS));
    expect_looks_for_another();
    close(connection->wake[1]);
    expect_withdrawn();
    ck_assert_int_eq(atomic_load(&making->pins.keeper), 0);
    region_end(making, false);
    connection = drp_free(connection);
    service_restart(&service);
    fixture_measure();
}
END_TEST

/* Of a service that has ended nothing is kept that the connection to the next one may need. */
START_TEST(test_dead_is_closed) {
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, NULL), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    expect_looks_for_another();
    ck_assert(connection->link.socket < 0 && connection->link.pidfd < 0);
    service_restart(&service);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("comeback");
    TCase *tcase = tcase_create("comeback");

    if (!may_intercept())
        skip_all("no userfaultfd, by which the object's lock is held");
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_pinned_meanwhile);
    tcase_add_test(tcase, test_two_connections);
    tcase_add_test(tcase, test_comes_back);
    tcase_add_test(tcase, test_hung_up);
    tcase_add_test(tcase, test_cut_off_and_dead);
    tcase_add_test(tcase, test_withdrawn_and_dead);
    tcase_add_loop_test(tcase, test_left_behind, 0, 2);
    tcase_add_test(tcase, test_made_beside_withdrawal);
    tcase_add_test(tcase, test_dead_is_closed);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
