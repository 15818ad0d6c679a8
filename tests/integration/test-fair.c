/* SPDX-License-Identifier: MIT */
/*
 * One who asks for what takes long, again and again, does not take the loop from the others: neither from other users nor from other
 * clients of his own; and who is refused again and again does not fill the log.
 */

#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define REGIONS 1400 /* of one user, with 20,000 descriptors */
#define CALLS 500
#define CALLS_LIMIT 60 /* of each kind */
#define PAUSE_MS 3     /* an honest client has something else to do, too */
#define FLOODERS_MAX 8
#define ATTEMPTS 100
#define FILE_MOST (UINT64_C(1) << 30)
#define NOWHERE UINT64_C(4096)

/* Shared with the flooders. */
struct flood {
    uint16_t type; /* what it asks for */
    bool nobody;   /* as another user */
    bool all;      /* LIMIT of all that its user has, not of itself */
    unsigned regions;
    _Atomic bool stop;
    _Atomic uint64_t calls, fastest; /* ns */
};

static void create_regions(int socket, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = 4096};

        child_check(raw_call(socket, &create, sizeof(create), NULL, 0, NULL) == DRP_WIRE_OK);
    }
}

static uint64_t call(int socket, uint16_t type, bool all) {
    union {
        struct drp_wire_header header;
        struct drp_wire_limit limit;
        struct drp_wire_list list;
    } request = {.header.type = type};
    size_t size = type == DRP_WIRE_LIST    ? sizeof(request.list)
                  : type == DRP_WIRE_LIMIT ? sizeof(request.limit)
                                           : sizeof(request.header);
    uint64_t start = now_ns();

    if (type == DRP_WIRE_LIMIT)
        request.limit.scope = all ? DRP_LIMIT_USER : DRP_LIMIT_CLIENT;
    if (type == DRP_WIRE_LIMIT && all)
        request.limit.id = geteuid();
    child_check(raw_call(socket, &request, size, NULL, 0, NULL) == DRP_WIRE_OK);
    return now_ns() - start;
}

static void flooder(int socket, void *data) {
    struct flood *flood = data;
    int connection;
    char word;

    if (flood->nobody)
        child_become_nobody();
    connection = raw_session("flooder");
    create_regions(connection, flood->regions);
    child_check(child_say(socket, 'r') && child_hear(socket, &word));
    while (!atomic_load(&flood->stop)) {
        uint64_t took = call(connection, flood->type, flood->all);

        if (took < atomic_load(&flood->fastest))
            atomic_store(&flood->fastest, took);
        atomic_fetch_add(&flood->calls, 1);
    }
    close(connection);
}

/* CPU time of the service's loop, ns. */
static uint64_t loop_time(void) {
    unsigned long long user = 0, system = 0;
    char path[64], line[512] = "", *fields;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)service.pid, (int)service.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
    fclose(file);
    fields = strrchr(line, ')');
    ck_assert_ptr_nonnull(fields);
    ck_assert_int_eq(sscanf(fields, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system), 2);
    return (user + system) * 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static int compare(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* How long an honest client's STATS take meanwhile: the median and one in a hundred. */
static void measure(int connection, uint64_t *ret_median, uint64_t *ret_worst) {
    static uint64_t times[CALLS];
    size_t n = 0;

    for (; n < CALLS; n++) {
        nap_ms(PAUSE_MS);
        times[n] = call(connection, DRP_WIRE_STATS, false);
    }
    qsort(times, n, sizeof(times[0]), compare);
    *ret_median = times[n / 2];
    *ret_worst = times[n - 1 - n / 100];
}

static const struct {
    const char *name;
    uint16_t type;
    bool nobody;
    unsigned flooders;
} floods[] = {
    {"STATS of its own", DRP_WIRE_STATS, false, 1}, {"STATS, another user", DRP_WIRE_STATS, true, 1},
    {"STATUS", DRP_WIRE_STATUS, false, 1},          {"STATUS, four of another user", DRP_WIRE_STATUS, true, 4},
    {"LIST, four", DRP_WIRE_LIST, false, 4},        {"LIMIT, one", DRP_WIRE_LIMIT, false, 1},
};

START_TEST(test_flood) {
    struct flood *flood = mmap(NULL, sizeof(*flood), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child children[FLOODERS_MAX];
    uint64_t median, worst, began, lasted, spent;
    int honest = raw_session("honest");

    ck_assert_ptr_ne(flood, MAP_FAILED);
    *flood = (struct flood){.type = floods[_i].type, .nobody = floods[_i].nobody};
    atomic_store(&flood->fastest, UINT64_MAX);
    for (unsigned i = 0; i < floods[_i].flooders; i++) {
        flood->regions = i == 0 ? REGIONS : 1;
        child_start(&children[i], flooder, flood);
        child_expect(&children[i], 'r');
    }
    began = now_ns();
    spent = loop_time();
    for (unsigned i = 0; i < floods[_i].flooders; i++)
        child_say(children[i].socket, 'g');
    measure(honest, &median, &worst);
    atomic_store(&flood->stop, true);
    lasted = now_ns() - began;
    spent = loop_time() - spent;
    for (unsigned i = 0; i < floods[_i].flooders; i++)
        child_end(&children[i]);
    printf("%s: %" PRIu64 " calls in %" PRIu64 " ms, the fastest %.2f ms, took %.0f %% of the loop; honest STATS: median "
           "%.3f ms, p99 %.3f ms\n",
           floods[_i].name, atomic_load(&flood->calls), lasted / 1000000, (double)atomic_load(&flood->fastest) / 1e6,
           100 * (double)spent / (double)lasted, (double)median / 1e6, (double)worst / 1e6);
    ck_assert_uint_le(spent, lasted / 4); /* a tenth, and what is honest */
    close(honest);
}
END_TEST

/* What a program sets for itself, while another one of its user floods with what is about all. */
static const struct {
    const char *name;
    uint16_t type;
    unsigned flooders;
} siblings[] = {
    {"STATUS, one", DRP_WIRE_STATUS, 1},
    {"STATUS, four", DRP_WIRE_STATUS, 4},
    {"LIST, four", DRP_WIRE_LIST, 4},
    {"LIMIT of a user, four", DRP_WIRE_LIMIT, 4},
};

static uint64_t set_limit(int socket, uint32_t scope, uint64_t id) {
    struct drp_wire_limit request = {.header.type = DRP_WIRE_LIMIT,
                                     .scope = scope,
                                     .mask = DRP_LIMIT_BUDGET,
                                     .id = id,
                                     .values.budget = UINT64_C(1) << 30};
    uint64_t start = now_ns();

    ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_OK);
    return now_ns() - start;
}

/* The median of what each takes. */
static void measure_limits(int connection, uint64_t region, uint64_t *ret_client, uint64_t *ret_region) {
    static uint64_t clients[CALLS_LIMIT], regions[CALLS_LIMIT];

    for (size_t i = 0; i < CALLS_LIMIT; i++) {
        nap_ms(PAUSE_MS);
        clients[i] = set_limit(connection, DRP_LIMIT_CLIENT, 0);
        nap_ms(PAUSE_MS);
        regions[i] = set_limit(connection, DRP_LIMIT_REGION, region);
    }
    qsort(clients, CALLS_LIMIT, sizeof(clients[0]), compare);
    qsort(regions, CALLS_LIMIT, sizeof(regions[0]), compare);
    *ret_client = clients[CALLS_LIMIT / 2];
    *ret_region = regions[CALLS_LIMIT / 2];
}

START_TEST(test_own_limit) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = 4096};
    struct flood *flood = mmap(NULL, sizeof(*flood), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t of_client, of_region, rest, longest;
    struct child children[FLOODERS_MAX];
    struct channel_packet packet;
    int honest = raw_session("honest");

    ck_assert_ptr_ne(flood, MAP_FAILED);
    ck_assert_int_eq(raw_call(honest, &create, sizeof(create), NULL, 0, &packet), DRP_WIRE_OK);
    *flood = (struct flood){.type = siblings[_i].type, .all = true};
    atomic_store(&flood->fastest, UINT64_MAX);
    for (unsigned i = 0; i < siblings[_i].flooders; i++) {
        flood->regions = i == 0 ? REGIONS : 1;
        child_start(&children[i], flooder, flood);
        child_expect(&children[i], 'r');
    }
    for (unsigned i = 0; i < siblings[_i].flooders; i++)
        child_say(children[i].socket, 'g');
    measure_limits(honest, packet.message.create_reply.region, &of_client, &of_region);
    atomic_store(&flood->stop, true);
    for (unsigned i = 0; i < siblings[_i].flooders; i++)
        child_end(&children[i]);
    rest = atomic_load(&flood->fastest) * 10; /* what one of the flooders' requests owes */
    longest = of_client > of_region ? of_client : of_region;
    printf("%s: a rest is %.1f ms; LIMIT of its own: median %.3f ms, of its region %.3f ms\n", siblings[_i].name,
           (double)rest / 1e6, (double)of_client / 1e6, (double)of_region / 1e6);
    ck_assert_uint_lt(longest, rest / 4);
    channel_packet_close(&packet);
    close(honest);
}
END_TEST

/* ---- the log ---- */

static unsigned log_lines(const char *text) {
    FILE *file = fopen(service.log, "re");
    char line[1200];
    unsigned n = 0;

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file))
        n += strstr(line, text) != NULL;
    fclose(file);
    return n;
}

/* Who connects again and again, though he has too many connections, or sends what is none of the protocol, does not fill the log. */
START_TEST(test_log) {
    struct drp_wire_header nothing = {.type = 0x7fff};
    int kept[2];

    for (unsigned i = 0; i < 2; i++)
        kept[i] = raw_connect();
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        int socket = raw_connect();

        close(socket);
    }
    for (unsigned i = 0; i < 2; i++)
        close(kept[i]);
    ck_assert(service_log_has(&service, "refused", 5000));
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        int socket = raw_connect();

        channel_send(socket, &nothing, sizeof(nothing), NULL, 0, 0);
        ck_assert(raw_wait_end(socket, 5000));
        close(socket);
    }
    ck_assert(service_log_has(&service, "malformed", 5000));
    ck_assert_uint_le(log_lines("refused"), ATTEMPTS / 2);
    ck_assert_uint_le(log_lines("ending its connection"), ATTEMPTS / 2);
}
END_TEST

/* As if he had memory at the address. He has not, so it cannot be intercepted. */
static void map_nothing(int socket, uint64_t region) {
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .region = region, .address = NOWHERE, .length = 65536};
    struct channel_packet packet;
    uint64_t mapping;

    ck_assert_int_eq(raw_call(socket, &map, sizeof(map), NULL, 0, &packet), DRP_WIRE_OK);
    ck_assert_uint_eq(packet.message.map_reply.interception, DRP_WIRE_INTERCEPTION_NONE);
    mapping = packet.message.map_reply.mapping;
    channel_packet_close(&packet);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_UNMAP, mapping), DRP_WIRE_OK);
}

static void map_often(void) {
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = 65536};
    struct channel_packet packet;
    int socket = raw_session("maps");

    ck_assert_int_eq(raw_call(socket, &create, sizeof(create), NULL, 0, &packet), DRP_WIRE_OK);
    channel_packet_close(&packet);
    for (unsigned i = 0; i < ATTEMPTS; i++)
        map_nothing(socket, packet.message.create_reply.region);
    close(socket);
}

/* Neither does who asks for what the service says no to. */
START_TEST(test_log_requests) {
    static const char *const lines[] = {"accesses are not intercepted", "cannot make a region", "is over the quota",
                                        "a mapping is not intercepted"};
    struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE};

    for (unsigned i = 0; i < ATTEMPTS; i++) {
        int socket = raw_hello("asks");

        ck_assert_int_eq(raw_uffd(socket, -1, EPERM, NULL), DRP_WIRE_OK);
        create.size = 2 * FILE_MOST;
        ck_assert_int_ne(raw_call(socket, &create, sizeof(create), NULL, 0, NULL), DRP_WIRE_OK);
        create.size = 8 * FILE_MOST;
        ck_assert_int_eq(raw_call(socket, &create, sizeof(create), NULL, 0, NULL), DRP_WIRE_ERROR_QUOTA);
        close(socket);
    }
    if (may_intercept())
        map_often();
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        ck_assert_msg((i == 3 && !may_intercept()) || service_log_has(&service, lines[i], 5000), "not in the log: %s",
                      lines[i]);
        ck_assert_msg(log_lines(lines[i]) <= ATTEMPTS / 2, "%u times: %s", log_lines(lines[i]), lines[i]);
    }
}
END_TEST

/* A service that can make regions of so many bytes and no more. */
static void setup_small(void) {
    struct rlimit kept, few;

    signal(SIGXFSZ, SIG_IGN); /* it inherits that, too */
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &kept), 0);
    few = (struct rlimit){.rlim_cur = FILE_MOST, .rlim_max = kept.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &few), 0);
    fixture_start("[Limits]\nRegionBytes=4G\n");
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &kept), 0);
}

static void setup(void) {
    fixture_start("[Limits]\nRegionsPerClient=1400\n");
}

static void setup_few(void) {
    fixture_start("[Limits]\nConnectionsPerUser=2\n");
}

int main(void) {
    Suite *suite = suite_create("fair");
    TCase *tcase = tcase_create("flood"), *log = tcase_create("log"), *requests = tcase_create("requests");

    tcase_add_checked_fixture(tcase, setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_flood, 0, sizeof(floods) / sizeof(floods[0]));
    tcase_add_loop_test(tcase, test_own_limit, 0, sizeof(siblings) / sizeof(siblings[0]));
    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(log, setup_few, fixture_teardown);
    tcase_set_timeout(log, 60);
    tcase_add_test(log, test_log);
    suite_add_tcase(suite, log);
    tcase_add_checked_fixture(requests, setup_small, fixture_teardown);
    tcase_set_timeout(requests, 60);
    tcase_add_test(requests, test_log_requests);
    suite_add_tcase(suite, requests);
    return suite_run(suite);
}
