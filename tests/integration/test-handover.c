/* SPDX-License-Identifier: MIT */
/*
 * When regions are handed over to a new service and it does not go as it should: a mapping that is refused, a reply that does not come. Between the
 * library and the service stands a relay of the test's.
 */

#include "child.h"
#include "client.h"
#include "connected.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNK ((size_t)65536)
#define SIZE (4 * CHUNK)
#define REGIONS 6
#define WAIT_MS 30000

/*
 * A region whose mapping the new service refuses has the number of a mapping that it had before, which is another's by now. Its end must not be that
 * one's: what is pinned there would be dropped, or nothing ever again.
 */
START_TEST(test_refused_mapping) {
    struct drp_region *regions[REGIONS], *others[REGIONS], *refused;
    int page = memfd_create("wrong", MFD_CLOEXEC);
    bool taken = false;
    uint64_t before;
    struct drp *d;

    ck_assert_int_ge(page, 0);
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (int i = 0; i < REGIONS; i++) {
        char name[16];
        const struct drp_region_options options = {
            .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = name};

        snprintf(name, sizeof(name), "region%d", i);
        ck_assert_int_eq(drp_region_new(&regions[i], d, SIZE, &options), 0);
        ck_assert_int_eq(drp_region_open(&others[i], d, name, geteuid()), 0);
        ck_assert_int_eq(drp_pin(regions[i], 0, SIZE / 2, NULL), 0);
        ck_assert_int_eq(drp_pin(others[i], SIZE / 2, SIZE / 2, NULL), 0);
        memset(drp_region_address(regions[i]), i + 1, SIZE);
    }
    refused = others[REGIONS / 2];
    before = refused->mapping;
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert_int_ge(dup3(page, refused->pin_fd, O_CLOEXEC), 0);
    object_note(refused->pin_fd, &refused->pin_object); /* else the library would not offer it */
    service_restart(&service);
    for (int i = 0; i < REGIONS; i++) {
        ck_assert(connected_becomes(regions[i], true, WAIT_MS));
        ck_assert(others[i] == refused || connected_becomes(others[i], true, WAIT_MS));
        taken |= regions[i]->mapping == before || (others[i] != refused && others[i]->mapping == before);
    }
    ck_assert(!atomic_load(&refused->connected));
    ck_assert(taken);                                         /* another one has that number now */
    ck_assert_int_lt(drp_pin(refused, 0, SIZE / 2, NULL), 0); /* the service would drop it for others */
    drp_region_free(refused);
    for (int i = 0; i < REGIONS; i++) {
        size_t pinned = others[i] == refused ? SIZE / 2 : SIZE;

        ck_assert_int_eq(drp_drop(regions[i], 0, SIZE, NULL, NULL), 0);
        ck_assert(is_filled(drp_region_address(regions[i]), i + 1, pinned));
        /* Nor does the service miss a mapping whose process lives, and hold the region for it. */
        ck_assert_int_eq(drp_unpin(regions[i], 0, SIZE / 2), 0);
        ck_assert(others[i] == refused || drp_unpin(others[i], SIZE / 2, SIZE / 2) == 0);
        for (uint64_t deadline = now_ms() + WAIT_MS; !is_zero(drp_region_address(regions[i]), SIZE); nap_ms(5)) {
            ck_assert_uint_lt(now_ms(), deadline);
            ck_assert_int_eq(drp_drop(regions[i], 0, SIZE, NULL, NULL), 0);
        }
        drp_region_free(regions[i]);
        if (others[i] != refused)
            drp_region_free(others[i]);
    }
    drp_free(d);
    close(page);
    fixture_measure();
}
END_TEST

/* ---- a reply that does not come ---- */

static struct {
    char path[sizeof(service.socket) + 8];
    int listener, stop;
    _Atomic unsigned withheld;
} relay;

static void name_socket(struct sockaddr_un *ret, const char *path) {
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", path);
}

/* Passes one packet on. false: the end. */
static bool pass_on(int from, int to, bool *withhold) {
    struct channel_packet packet = {0};
    bool ok = channel_receive(from, &packet, 0) == CHANNEL_OK;

    if (ok && *withhold) {
        *withhold = false;
        atomic_fetch_add(&relay.withheld, 1);
    } else
        ok = ok && channel_send(to, &packet.message, packet.size, packet.fds, packet.n_fds, 0) == CHANNEL_OK;
    channel_packet_close(&packet);
    return ok;
}

/* One connection. Of the second one the first reply to ADOPT is withheld. */
static void relay_connection(int client, int server, unsigned n) {
    struct pollfd polls[] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
    bool withhold = false, keep = false, go_on = true;

    while (go_on && poll(polls, 2, -1) > 0) {
        if (polls[0].revents) {
            struct drp_wire_header header;
            bool has_fds;

            withhold = n == 2 && relay.withheld == 0 &&
                       channel_peek(client, &header, sizeof(header), &has_fds) == CHANNEL_OK &&
                       header.type == DRP_WIRE_ADOPT;
            go_on = pass_on(client, server, &keep);
        }
        if (go_on && polls[1].revents)
            go_on = pass_on(server, client, &withhold);
    }
}

static void *run_relay(void *data) {
    struct pollfd polls[] = {{.fd = relay.listener, .events = POLLIN}, {.fd = relay.stop, .events = POLLIN}};
    struct sockaddr_un address;

    (void)data;
    name_socket(&address, service.socket);
    for (unsigned n = 1; poll(polls, 2, -1) > 0 && !polls[1].revents; n++) {
        int client = accept4(relay.listener, NULL, NULL, SOCK_CLOEXEC);
        int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        if (connect(server, (struct sockaddr *)&address, sizeof(address)) == 0)
            relay_connection(client, server, n);
        else
            n--;
        close(client);
        close(server);
    }
    return NULL;
}

static void relay_start(pthread_t *ret) {
    struct sockaddr_un address;

    snprintf(relay.path, sizeof(relay.path), "%s.relay", service.socket);
    name_socket(&address, relay.path);
    relay.stop = eventfd(0, EFD_CLOEXEC);
    relay.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert(relay.stop >= 0 && relay.listener >= 0);
    ck_assert_int_eq(bind(relay.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(relay.listener, 4), 0);
    ck_assert_int_eq(pthread_create(ret, NULL, run_relay, NULL), 0);
}

static void relay_stop(pthread_t thread) {
    ck_assert_int_eq(eventfd_write(relay.stop, 1), 0);
    pthread_join(thread, NULL);
    close(relay.listener);
    close(relay.stop);
    unlink(relay.path);
}

/* The service took a region over, and the library does not know: it ends the connection, and hands all of it over again. */
START_TEST(test_no_reply) {
    struct drp_config config = {.struct_size = sizeof(config), .socket_path = relay.path};
    struct drp_region *regions[2];
    pthread_t thread;
    struct drp *d;

    relay_start(&thread);
    ck_assert_int_eq(drp_new(&d, &config), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(drp_region_new(&regions[i], d, SIZE, NULL), 0);
        ck_assert_int_eq(drp_pin(regions[i], 0, CHUNK, NULL), 0);
        memset(drp_region_address(regions[i]), i + 1, SIZE);
    }
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    for (int i = 0; i < 2; i++) {
        uint64_t freed = 0, pinned = 0;

        ck_assert(connected_becomes(regions[i], true, WAIT_MS));
        ck_assert_int_eq(drp_drop(regions[i], 0, SIZE, &freed, &pinned), 0);
        ck_assert(freed == SIZE - CHUNK && pinned == CHUNK);
        ck_assert(is_filled(drp_region_address(regions[i]), i + 1, CHUNK));
    }
    ck_assert_uint_eq(relay.withheld, 1);
    for (int i = 0; i < 2; i++)
        drp_region_free(regions[i]);
    drp_free(d);
    relay_stop(thread);
    fixture_measure();
}
END_TEST

/* ---- an end in the middle ---- */

static struct region_piece piece;
static _Atomic bool mapped, ended;
/* The helper thread, about to tell of pieces, waits until the test says so. */
enum { GO_ON, TO_WAIT, WAITS };
static _Atomic int telling;

ssize_t send(int fd, const void *message, size_t size, int flags) {
    const struct drp_wire_header *header = message;
    bool tells = size >= sizeof(*header) && header->type == DRP_WIRE_MAP_PIECES;
    int wanted = TO_WAIT;

    if (tells && atomic_compare_exchange_strong(&telling, &wanted, WAITS))
        for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&telling) == WAITS && now_ms() < deadline;)
            nap_ms(1);
    return syscall(SYS_sendto, fd, message, size, flags, NULL, 0);
}

static bool next_piece(const struct drp_region *r, uintptr_t from, struct region_piece *ret) {
    (void)r;
    *ret = piece;
    return atomic_load(&mapped) && from < (uintptr_t)piece.address + piece.length;
}

/* Something else is there in the end. */
static void *end_piece(void *region) {
    atomic_store(&mapped, false);
    piece_end(region, piece.address, piece.length);
    ck_assert_ptr_eq(mmap(piece.address, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     piece.address);
    atomic_store(&ended, true);
    return NULL;
}

/* A piece that ends when the new service is about to hear of it, and before anybody can tell it anything: it is not taken for one later. */
START_TEST(test_ends_meanwhile) {
    struct drp_stats before, after;
    struct drp_region *region;
    pthread_t thread;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    if (atomic_load(&d->interception) != DRP_INTERCEPTION_FULL) {
        printf("test_ends_meanwhile: no interception: nothing shows what the service takes for a piece\n");
        drp_free(d);
        return;
    }
    ck_assert_int_eq(region_new_unmapped(&region, d, SIZE, NULL, next_piece), 0);
    piece = (struct region_piece){.length = SIZE, .protection = PROT_READ | PROT_WRITE};
    ck_assert_int_eq(piece_map(region, NULL, 0, 0, SIZE, &piece.address), 0);
    atomic_store(&mapped, true);
    ck_assert_int_eq(piece_announce(region, &piece), 0);
    atomic_store(&telling, TO_WAIT);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    for (uint64_t deadline = deadline_in(WAIT_MS); atomic_load(&telling) != WAITS; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_int_eq(pthread_create(&thread, NULL, end_piece, region), 0);
    for (uint64_t deadline = now_ms() + 300; !atomic_load(&ended) && now_ms() < deadline; nap_ms(1))
        ; /* it is not to */
    atomic_store(&telling, GO_ON);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(connected_becomes(region, true, WAIT_MS));
    ck_assert_int_eq(drp_get_stats(d, &before), 0);
    memset(piece.address, 1, SIZE);
    ck_assert_int_eq(drp_get_stats(d, &after), 0);
    ck_assert_uint_eq(after.intercepted_faults, before.intercepted_faults);
    ck_assert_int_eq(munmap(piece.address, SIZE), 0);
    drp_region_free(region);
    drp_free(d);
    fixture_measure();
}
END_TEST

/* ---- no room for a descriptor ---- */

/* Of so many replies to ADOPT the descriptor does not fit. */
static _Atomic int shortages;

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    return raw_receive_short(fd, message, flags, DRP_WIRE_ADOPT, &shortages);
}

/* The service has the region, and the library no page of it: what is in it stays, and its end is told. */
START_TEST(test_short_of_descriptors) {
    struct drp_stats stats = {0};
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
    memset(drp_region_address(region), 1, SIZE);
    atomic_store(&shortages, 1);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    for (uint64_t deadline = deadline_in(WAIT_MS); stats.reconnects == 0; drp_get_stats(d, &stats))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_int_eq(atomic_load(&shortages), 0);
    ck_assert(!atomic_load(&region->connected));
    ck_assert_uint_eq(service_status(&service, "regions"), 1);
    ck_assert_int_eq(drp_pin(region, 0, SIZE, NULL), 0);
    ck_assert(is_filled(drp_region_address(region), 1, SIZE));
    drp_region_free(region);
    ck_assert(status_becomes("regions", 0, WAIT_MS));
    drp_free(d);
    fixture_measure();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("handover");
    TCase *tcase = tcase_create("handover");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 90);
    tcase_add_test(tcase, test_refused_mapping);
    tcase_add_test(tcase, test_no_reply);
    tcase_add_test(tcase, test_ends_meanwhile);
    tcase_add_test(tcase, test_short_of_descriptors);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
