/* SPDX-License-Identifier: MIT */
/*
 * What the calls about losses, volatile memory and budgets say of shared regions: each process keeps its own account of the same memory.
 */

#include "channel.h"
#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MIB (UINT64_C(1) << 20)
#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)128)
#define SIZE (CHUNKS * CHUNK)
#define BUDGET (SIZE / 2)
#define WAIT_MS 10000
#define NAME "losses"

static struct drp *connection;
static struct drp_region *region;

static void make(uint64_t budget, enum drp_priority priority) {
    const struct drp_region_options options = {.struct_size = sizeof(options),
                                               .required = DRP_REGION_SHARED,
                                               .priority = priority,
                                               .budget = budget,
                                               .name = NAME,
                                               .mode = 0666};

    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, &options), 0);
}

static void connect_service(void) {
    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
}

static void setup(void) {
    connect_service();
    make(0, DRP_PRIORITY_NORMAL);
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static void fill(size_t chunk, size_t n) {
    memset((char *)drp_region_address(region) + chunk * CHUNK, 7, n * CHUNK);
}

static void drop(size_t chunk, size_t n, size_t expected) {
    uint64_t freed = 0;

    ck_assert_int_eq(drp_drop(region, chunk * CHUNK, n * CHUNK, &freed, NULL), 0);
    ck_assert_uint_eq(freed, expected * CHUNK);
}

/* ---- the other process ---- */

struct order {
    char word; /* see obey() */
    size_t chunk, n;
};

/* A run of chunks; n is 0 if there was none. Or one number. */
struct answer {
    int64_t number;
    size_t chunk, n;
};

static struct answer obey(struct drp *d, struct drp_region *r, const struct order *order) {
    size_t offset = order->chunk * CHUNK, length = order->n * CHUNK;
    struct answer answer = {0};
    bool lost = false;

    switch (order->word) {
    case 'k': /* keeps: was it lost? */
        child_check(drp_set_nonvolatile(r, offset, length, &lost) == 0);
        answer.number = lost;
        break;
    case 'l': /* lets go */
        child_check(drp_set_volatile(r, offset, length) == 0);
        break;
    case 'f':
        memset((char *)drp_region_address(r) + offset, 9, length);
        break;
    case 'd':
        child_check(drp_drop(r, offset, length, NULL, NULL) == 0);
        break;
    case 'e': /* waits for an event */
        child_check(event_comes(drp_region_get_lost_fd(r), WAIT_MS));
        break;
    case 't': /* takes a run */
        if (drp_region_take_lost(r, &offset, &length) == 1)
            answer = (struct answer){.chunk = offset / CHUNK, .n = length / CHUNK};
        break;
    case 'b': /* sets the region's budget */
        answer.number = drp_region_set_budget(r, length);
        break;
    case 'B': /* its own */
        answer.number = drp_set_budget(d, length);
        break;
    default:
        child_check(false);
    }
    return answer;
}

static void run_guest(int socket, void *data) {
    uid_t uid = geteuid();
    struct answer answer;
    struct drp_region *r;
    struct order order;
    struct drp *d;

    if (data)
        child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&r, d, NAME, uid) == 0);
    child_check(child_say(socket, 'o'));
    while (read(socket, &order, sizeof(order)) == sizeof(order)) {
        answer = obey(d, r, &order);
        child_check(write(socket, &answer, sizeof(answer)) == sizeof(answer));
    }
    drp_region_free(r);
    drp_free(d);
}

static void start(struct child *child, bool nobody) {
    child_start(child, run_guest, nobody ? child : NULL);
    child_expect(child, 'o');
}

static struct answer tell(const struct child *child, char word, size_t chunk, size_t n) {
    struct order order = {.word = word, .chunk = chunk, .n = n};
    struct answer answer;

    ck_assert_int_eq(write(child->socket, &order, sizeof(order)), sizeof(order));
    ck_assert_int_eq(read(child->socket, &answer, sizeof(answer)), sizeof(answer));
    return answer;
}

static void finish(struct child *child) {
    ck_assert_int_eq(shutdown(child->socket, SHUT_WR), 0);
    child_end(child);
}

/* ---- volatile ---- */

static bool keep(size_t chunk, size_t n) {
    bool lost;

    ck_assert_int_eq(drp_set_nonvolatile(region, chunk * CHUNK, n * CHUNK, &lost), 0);
    return lost;
}

static void let_go(size_t chunk, size_t n) {
    ck_assert_int_eq(drp_set_volatile(region, chunk * CHUNK, n * CHUNK), 0);
}

/* It stays as long as anybody keeps it; each is told once that it was lost. */
START_TEST(test_volatile) {
    struct child child;

    start(&child, false);
    ck_assert(!keep(0, 4));
    ck_assert_int_eq(tell(&child, 'k', 2, 4).number, 0);
    fill(0, CHUNKS);
    drop(0, CHUNKS, CHUNKS - 6);
    let_go(0, 4);
    drop(0, CHUNKS, 2);
    ck_assert(!keep(2, 2)); /* the other one kept it */
    ck_assert(keep(0, 2));
    ck_assert(!keep(0, 2)); /* it was told */
    let_go(0, 4);
    tell(&child, 'l', 2, 1);
    fill(0, 2);
    drop(0, CHUNKS, 3);
    ck_assert(keep(0, 3));
    ck_assert_int_eq(tell(&child, 'k', 2, 1).number, 1);
    ck_assert_int_eq(tell(&child, 'k', 2, 1).number, 0);
    ck_assert_int_eq(tell(&child, 'k', 3, 1).number, 0);
    let_go(0, 3);
    /* What it kept goes with it. */
    fill(0, 8);
    drop(0, 8, 4);
    child_kill(&child);
    for (uint64_t deadline = now_ms() + WAIT_MS, freed = 0, sum = 0; sum < 4 * CHUNK; nap_ms(5)) {
        ck_assert_uint_lt(now_ms(), deadline);
        ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
        sum += freed;
    }
    ck_assert(keep(2, 4));
}
END_TEST

/* ---- told ---- */

static void expect_run(size_t chunk, size_t n) {
    size_t offset = 0, length = 0;

    ck_assert_int_eq(drp_region_take_lost(region, &offset, &length), n > 0);
    ck_assert_uint_eq(offset / CHUNK, chunk);
    ck_assert_uint_eq(length / CHUNK, n);
}

static void expect_told(const struct child *child, size_t chunk, size_t n) {
    struct answer answer = tell(child, 't', 0, 0);

    ck_assert_uint_eq(answer.chunk, chunk);
    ck_assert_uint_eq(answer.n, n);
}

/* All that have it hear of each drop, whoever had it made, each once. */
START_TEST(test_told) {
    int fd = drp_region_get_lost_fd(region), all = drp_get_lost_fd(connection);
    struct child first, late;

    ck_assert_int_ge(fd, 0);
    start(&first, false);
    fill(0, CHUNKS);
    drop(3, 2, 2);
    tell(&first, 'e', 0, 0);
    expect_told(&first, 3, 2);
    expect_told(&first, 0, 0);
    ck_assert(event_comes(fd, WAIT_MS));
    ck_assert(event_comes(all, WAIT_MS));
    expect_run(3, 2);
    expect_run(0, 0);

    tell(&first, 'd', 10, 1);
    tell(&first, 'd', 20, 1);
    ck_assert(event_comes(fd, WAIT_MS));
    ck_assert(event_comes(all, WAIT_MS));
    for (uint64_t deadline = now_ms() + WAIT_MS; drp_generation(region, 20 * CHUNK, CHUNK) == 0;)
        ck_assert_uint_lt(now_ms(), deadline);
    expect_run(10, 1);
    expect_run(20, 1);
    expect_run(0, 0);
    expect_told(&first, 10, 1);
    expect_told(&first, 20, 1);
    expect_told(&first, 0, 0);

    /* Who comes now knows nothing of the memory: it is told of all that was ever dropped, at once. */
    start(&late, true);
    tell(&late, 'e', 0, 0);
    expect_told(&late, 3, 2);
    expect_told(&late, 10, 1);
    expect_told(&late, 20, 1);
    expect_told(&late, 0, 0);

    finish(&first);
    finish(&late);
}
END_TEST

/* A new service, which drops for all when all are back. */
START_TEST(test_told_after_restart) {
    int fd = drp_region_get_lost_fd(region);
    struct child first, late;

    ck_assert_int_ge(fd, 0);
    start(&first, false);
    start(&late, true);
    fill(0, CHUNKS);
    drop(3, 1, 1);
    expect_run(3, 1);
    expect_told(&first, 3, 1);
    expect_told(&late, 3, 1);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    fill(0, CHUNKS);
    for (uint64_t deadline = now_ms() + WAIT_MS, freed = 0; freed != 2 * CHUNK; nap_ms(5)) {
        ck_assert_uint_lt(now_ms(), deadline);
        if (drp_drop(region, 40 * CHUNK, 2 * CHUNK, &freed, NULL) < 0)
            freed = 0;
    }
    tell(&first, 'e', 0, 0);
    tell(&late, 'e', 0, 0);
    ck_assert(event_comes(fd, WAIT_MS));
    expect_run(40, 2);
    expect_run(0, 0);
    expect_told(&first, 40, 2);
    expect_told(&first, 0, 0);
    expect_told(&late, 40, 2);
    expect_told(&late, 0, 0);
    finish(&first);
    finish(&late);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* ---- budgets ---- */

static uint64_t resident(void) {
    static unsigned char pages[SIZE / 4096];
    uint64_t bytes = 0;

    ck_assert_int_eq(mincore(drp_region_address(region), SIZE, pages), 0);
    for (size_t i = 0; i < sizeof(pages); i++)
        bytes += pages[i] & 1 ? 4096 : 0;
    return bytes;
}

static void comes_under(uint64_t budget) {
    for (uint64_t deadline = now_ms() + WAIT_MS; resident() > budget; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline);
}

/* The region's, whoever fills it; its user alone says what it is. */
START_TEST(test_budget_of_region) {
    struct child stranger, fellow;

    make(BUDGET, DRP_PRIORITY_NORMAL);
    start(&stranger, true);
    start(&fellow, false);
    ck_assert_int_eq(tell(&stranger, 'b', 0, CHUNKS).number, geteuid() == 0 ? -EPERM : 0);
    tell(&stranger, 'f', 0, CHUNKS);
    comes_under(BUDGET);
    ck_assert_int_eq(tell(&fellow, 'b', 0, CHUNKS / 4).number, 0);
    comes_under(BUDGET / 2);
    fill(0, CHUNKS);
    comes_under(BUDGET / 2);
    finish(&stranger);
    finish(&fellow);
}
END_TEST

/* Each that has it has all of it: his own budget brings it down for all. */
START_TEST(test_budget_of_client) {
    struct child child;

    make(0, DRP_PRIORITY_NORMAL);
    start(&child, true);
    fill(0, CHUNKS);
    ck_assert_uint_eq(resident(), SIZE);
    ck_assert_int_eq(tell(&child, 'B', 0, CHUNKS / 4).number, 0);
    comes_under(SIZE / 4);
    /* What is kept by anybody is not dropped for it. */
    ck_assert_int_eq(drp_set_nonvolatile(region, 0, SIZE / 2, NULL), 0);
    fill(0, CHUNKS / 2);
    ck_assert_int_eq(tell(&child, 'B', 0, 1).number, 0);
    comes_under(SIZE / 2);
    ck_assert(is_filled(drp_region_address(region), 7, SIZE / 2));
    finish(&child);
}
END_TEST

/* A new service hears of budget and priority from whoever set them, and not from who has only opened it, who comes first here. */
static void run_maker(int socket, void *data) {
    char word;

    (void)data;
    child_check(drp_new(&connection, NULL) == 0);
    make(BUDGET, DRP_PRIORITY_HIGH);
    child_check(child_say(socket, 'o'));
    child_hear(socket, &word);
    drp_region_free(region);
    drp_free(connection);
}

/* Says of a region of another user's that it is worth nothing. */
static void run_slanderer(int socket, void *data) {
    struct drp_wire_open open_request = {.header.type = DRP_WIRE_OPEN, .uid = geteuid(), .name = NAME};
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                   .size = SIZE,
                                   .chunk_total = CHUNKS,
                                   .granted = DRP_REGION_SHARED,
                                   .budget = 4096,
                                   .share = 1,
                                   .chunk_shift = 16,
                                   .priority = DRP_PRIORITY_LOW};
    struct channel_packet packet;
    int fds[2], connection_fd;

    (void)data;
    child_become_nobody();
    connection_fd = raw_hello("slanderer");
    child_check(raw_call(connection_fd, &open_request, sizeof(open_request), NULL, 0, &packet) == DRP_WIRE_OK);
    memcpy(fds, packet.fds, sizeof(fds));
    child_check(raw_call(connection_fd, &adopt, sizeof(adopt), fds, 2, &packet) == DRP_WIRE_OK);
    child_check(child_say(socket, 'o'));
}

static void expect_priority(const char *wanted) {
    char text[16] = "";

    for (uint64_t deadline = now_ms() + WAIT_MS; strcmp(text, wanted) != 0; nap_ms(5)) {
        ck_assert_uint_lt(now_ms(), deadline);
        listing_text("regions", "size", SIZE, "priority", text, sizeof(text));
    }
}

START_TEST(test_budget_after_restart) {
    struct drp_region_info info;
    struct child maker, slanderer;

    child_start(&maker, run_maker, NULL);
    child_expect(&maker, 'o');
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    ck_assert_int_eq(drp_region_open(&region, connection, NAME, geteuid()), 0);
    if (geteuid() == 0) {
        child_start(&slanderer, run_slanderer, NULL);
        child_expect(&slanderer, 'o');
        child_end(&slanderer);
    }
    expect_priority("high");
    ck_assert_uint_eq(listing_number("regions", "size", SIZE, "share"), 100);
    ck_assert_int_eq(kill(maker.pid, SIGSTOP), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    for (uint64_t deadline = now_ms() + WAIT_MS; drp_region_get_info(region, &info), !info.connected; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline);
    expect_priority("normal");
    ck_assert_int_eq(kill(maker.pid, SIGCONT), 0);
    expect_priority("high");
    fill(0, CHUNKS);
    comes_under(BUDGET);
    finish(&maker);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("shared-lost");
    TCase *tcase = tcase_create("losses");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_volatile);
    tcase_add_test(tcase, test_told);
    tcase_add_test(tcase, test_told_after_restart);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("budgets");
    tcase_add_checked_fixture(tcase, connect_service, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_budget_of_region);
    tcase_add_test(tcase, test_budget_of_client);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("restart");
    tcase_add_checked_fixture(tcase, fixture_setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_budget_after_restart);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
