/* SPDX-License-Identifier: MIT */
/*
 * Domains of a real service: what tells it that a cgroup runs short, beside its own looks; and that it knows where its clients are charged when
 * they move, and when cgroups are removed. The service's log says which source fired; /proc/self of the test stays outside.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"
#include "rest.h"
#include "suite.h"
#include "zero-page.h"

#include <check.h>
#include <droppable/droppable.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define LIMIT (64 * MIB)
#define SIZE (16 * MIB)
#define SPAN (2 * MIB)
#define WAIT_MS 5000
#define HIGH "memory.high was crossed"
#define MAX "the limit was met"
#define THRESHOLD "usage is near the limit"
#define LEVEL "reclaim has trouble"
#define UNTIL_KILLED UINT64_MAX
#define LOOKS_MOST 250 /* every 16 ms, and some for what else happens */

#define FREED (256 * MIB)
#define ROUNDS_MS 20000
#define LOOK_NS UINT64_C(3000000) /* twice as long as the looks are apart where headroom is near the reserve */

struct giver {
    char *memory;
    _Atomic bool stop;
};

static struct memcg memcg;

static void setup(void) {
    fixture_setup();
}

static void teardown(void) {
    if (memcg.version)
        memcg_remove(&memcg);
    fixture_teardown();
}

/* ---- what fires ---- */

/* A client that keeps all of its region pinned: nothing can be dropped for others. */
static void be_client(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    memcg_enter(&memcg);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    child_check(drp_pin(region, 0, SIZE, NULL) == 0);
    memset(drp_region_address(region), 1, SIZE);
    child_check(child_say(socket, 'r'));
    child_check(child_hear(socket, &word));
    drp_free(d);
}

static const struct memcg *hog_memcg = &memcg;

/* Takes memory that nobody can take back, and keeps it. */
static void be_hog(int socket, void *data) {
    uint64_t bytes = *(const uint64_t *)data;
    char word;

    memcg_enter(hog_memcg);
    for (uint64_t taken = 0; taken < bytes; taken += MIB) {
        char *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        child_check(memory != MAP_FAILED);
        memset(memory, 1, MIB);
        usleep(1000);
    }
    child_check(child_say(socket, 'r'));
    child_check(child_hear(socket, &word));
}

static void expect_source(const char *what) {
    char line[160];

    snprintf(line, sizeof(line), "domain '%s': %s\n", memcg_name(&memcg), what);
    ck_assert_msg(service_log_has(&service, line, WAIT_MS), "the log does not have: %s", line);
}

static bool make_memcg(void) {
    const char *reason = "a sanitizer's shadow takes tens of MiB where there is no page of zeros";

    if (!(under_sanitizer() && !kernel_has_zero_page()) && memcg_make(&memcg, LIMIT, &reason))
        return true;
    suite_skip_part("domains in a cgroup", reason);
    return false;
}

static uint64_t domain_of(const struct child *child) {
    return listing_number("sessions", "pid", (uint64_t)child->pid, "domain");
}

/* A client in its cgroup, for which all is watched that the test is about. */
static void start_watched_client(struct child *client) {
    child_start(client, be_client, NULL);
    child_expect(client, 'r');
    expect_watched(domain_of(client), "memory_max");
    if (memcg.version == 1)
        expect_watched(domain_of(client), "usage_threshold");
}

/* Usage comes near the limit; what is in use cannot be dropped. */
START_TEST(test_near_the_limit) {
    struct child client, hog;
    uint64_t bytes = LIMIT - SIZE - 4 * MIB;

    if (!make_memcg())
        return;
    start_watched_client(&client);
    if (memcg.version == 2)
        ck_assert(memcg_set(&memcg, "memory.high", LIMIT - 12 * MIB));
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    expect_source(memcg.version == 2 ? HIGH : THRESHOLD);
    ck_assert_uint_gt(service_status(&service, memcg.version == 2 ? "memory_high" : "usage_threshold"), 0);
    if (memcg.version == 2) { /* who crosses memory.high is made to stall, and nobody else runs there */
        expect_source("PSI: some stall");
        expect_source("PSI: full stall");
    }
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* The limit is met, and the kernel ends somebody. */
START_TEST(test_at_the_limit) {
    struct child client, hog;
    uint64_t bytes = UNTIL_KILLED;
    int status;

    if (!make_memcg())
        return;
    start_watched_client(&client);
    child_start(&hog, be_hog, &bytes);
    ck_assert_int_eq(waitpid(hog.pid, &status, 0), hog.pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(hog.socket);
    expect_source(MAX);
    ck_assert_uint_gt(service_status(&service, "memory_max"), 0);
    if (memcg.version == 1)
        expect_source(LEVEL);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* Keeps the kernel from filling for a moment, again and again: until the service has read what changed. */
static void *give_up_pages(void *data) {
    struct giver *giver = data;

    while (!atomic_load(&giver->stop))
        child_check(madvise(giver->memory, SPAN, MADV_REMOVE) == 0);
    return NULL;
}

/* All of it is pinned, and written where there is no room. */
static void be_waiter(int socket, void *data) {
    struct drp_region *region;
    struct giver giver = {0};
    pthread_t thread;
    struct drp *d;
    char word;

    (void)data;
    memcg_enter(&memcg);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    child_check(drp_pin(region, 0, SIZE, NULL) == 0);
    giver.memory = (char *)drp_region_address(region) + SIZE - SPAN;
    memset(giver.memory, 1, SPAN);
    child_check(child_say(socket, 'r'));
    child_check(child_hear(socket, &word));
    child_check(pthread_create(&thread, NULL, give_up_pages, &giver) == 0);
    memset(drp_region_address(region), 1, MIB);
    atomic_store(&giver.stop, true);
    pthread_join(thread, NULL);
    child_check(child_say(socket, 'r'));
    child_check(child_hear(socket, &word));
    drp_free(d);
}

/*
 * Who waits for room where nothing can be dropped is let in, and counted once; and then nobody waits: the domain is looked at less often,
 * though it is in need.
 */
START_TEST(test_given_up) {
    uint64_t bytes = LIMIT - 6 * MIB, waits, timeouts, looks;
    struct child client, hog;

    if (!may_intercept() || !make_memcg()) /* nobody waits at a gate */
        return;
    child_start(&client, be_waiter, NULL);
    child_expect(&client, 'r');
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    child_say(client.socket, 'g');
    child_expect(&client, 'r');
    waits = service_status(&service, "gate_waits");
    timeouts = service_status(&service, "gate_timeouts");
    looks = service_status(&service, "looks");
    nap_ms(1000);
    looks = service_status(&service, "looks") - looks;
    printf("%llu fills waited, %llu went ahead without room; then %llu looks in a second\n", (unsigned long long)waits,
           (unsigned long long)timeouts, (unsigned long long)looks);
    ck_assert_uint_gt(timeouts, 0);
    ck_assert_uint_le(timeouts, waits);
    ck_assert_uint_le(looks, LOOKS_MOST);
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* Without clients there is nothing to look after. */
START_TEST(test_without_clients) {
    unsigned tries = 0;

    while (!service_sleeps_for(&service, 1500)) /* what was watched for the last client is closed a moment later */
        ck_assert_uint_lt(tries++, 3);
}
END_TEST

static uint64_t looks_so_far(int socket) {
    struct drp_wire_header status = {.type = DRP_WIRE_STATUS};
    struct channel_packet packet;

    ck_assert_int_eq(raw_call(socket, &status, sizeof(status), NULL, 0, &packet), DRP_WIRE_OK);
    return packet.message.status_reply.looks;
}

/* A drop by hand, of chunks so small that a slice takes a while, does not keep a cgroup near its limit from being looked at meanwhile. */
START_TEST(test_looked_at_meanwhile) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = 16 * KIB};
    struct drp_wire_free request = {.header.type = DRP_WIRE_FREE, .wanted = FREED};
    uint64_t bytes = LIMIT - SIZE - LIMIT / 8 - 3 * MIB / 2, looks = 0, began, lasted = 0,
             deadline = now_ms() + ROUNDS_MS;
    struct drp_region *region;
    struct child client, hog;
    struct drp *d;
    int socket;

    if (!make_memcg())
        return;
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, FREED, &options), 0);
    child_start(&client, be_client, NULL);
    child_expect(&client, 'r');
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    socket = raw_session("hand");
    do { /* again, if the machine stood still meanwhile */
        ck_assert_msg(now_ms() < deadline, "only %llu looks in %.1f ms", (unsigned long long)looks,
                      (double)lasted / 1e6);
        memset(drp_region_address(region), 1, FREED);
        looks = looks_so_far(socket);
        began = now_ns();
        ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_OK);
        lasted = now_ns() - began;
        looks = looks_so_far(socket) - looks;
        printf("%llu looks in %.1f ms\n", (unsigned long long)looks, (double)lasted / 1e6);
    } while (looks * LOOK_NS < lasted);
    close(socket);
    drp_region_free(region);
    drp_free(d);
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* A limit that is set while the client is there is watched, too. */
START_TEST(test_limit_is_set_later) {
    struct child client, hog;
    uint64_t bytes = LIMIT / 2 - SIZE - 2 * MIB;

    if (!make_memcg() || memcg.version == 2)
        return;
    start_watched_client(&client);
    ck_assert(memcg_set(&memcg, "memory.limit_in_bytes", LIMIT / 2));
    for (uint64_t deadline = now_ms() + WAIT_MS;
         listing_number("domains", "id", domain_of(&client), "limit") > LIMIT / 2;)
        ck_assert_uint_lt(now_ms(), deadline);
    expect_watched(domain_of(&client), "usage_threshold"); /* anew */
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    expect_source(THRESHOLD);
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
}
END_TEST

/* ---- moves ---- */

/* Touches on demand: 't' what was dropped just before, 'f' half of all, 'c' what was never touched (that the kernel may then fill), 'e' ends it. */
static void be_toucher(int socket, void *data) {
    struct drp_region *region;
    volatile char *memory;
    uint64_t fresh = 0;
    struct drp *d;
    char word;

    (void)data;
    memcg_enter(&memcg);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    memory = drp_region_address(region);
    child_check(child_say(socket, 'r'));
    while (child_hear(socket, &word) && word != 'e') {
        if (word == 't') {
            child_check(drp_drop(region, 0, SPAN, NULL, NULL) == 0);
            memory[0] = 1;
        } else if (word == 'f')
            memset((char *)memory + SIZE / 2, 1, SIZE / 2);
        else
            memory[SIZE / 2 + SPAN * fresh++] = 1;
        child_check(child_say(socket, 'd'));
    }
    drp_free(d);
}

static void ask(const struct child *child, char word) {
    ck_assert(child_say(child->socket, word));
    child_expect(child, 'd');
}

static void expect_domain(const struct child *child, const struct memcg *where) {
    char path[256];

    listing_text("domains", "id", domain_of(child), "path", path, sizeof(path));
    ck_assert_str_eq(path, where ? memcg_name(where) : "");
}

/* Milliseconds that the service has run so far. */
static uint64_t service_cpu_ms(void) {
    unsigned long user = 0, kernel = 0;
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)service.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel),
                     2);
    fclose(file);
    return (user + kernel) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK);
}

/* Touches until the service has seen the move, which it does within a second. */
static void touch_until_moved(const struct child *child, uint64_t from) {
    uint64_t deadline = now_ms() + WAIT_MS;

    do {
        ck_assert(now_ms() < deadline);
        ask(child, 't');
        usleep(20000);
    } while (domain_of(child) == from);
}

/* Those of droppablectl, which is a client, too, are among them. A session's end is asynchronous. */
static void expect_domains(size_t n) {
    uint64_t deadline = now_ms() + WAIT_MS;

    while (listing_count("domains") != n) {
        ck_assert_msg(now_ms() < deadline, "%zu domains, not %zu", listing_count("domains"), n);
        usleep(10000);
    }
}

static struct memcg other;

/* What it touches is charged to the new one, so that is where it waits for room; promises go along. */
START_TEST(test_moved) {
    struct child client, hog;
    uint64_t bytes = LIMIT - 8 * MIB, from, to, promised;
    size_t at_first = listing_count("domains");
    const char *reason = "";

    if (!may_intercept() || !make_memcg())
        return;
    ck_assert(memcg_make(&other, LIMIT, &reason));
    child_start(&client, be_toucher, NULL);
    child_expect(&client, 'r');
    expect_domain(&client, &memcg);
    from = domain_of(&client);
    ask(&client, 'c');
    promised = listing_number("domains", "id", from, "commitment");
    ck_assert_uint_gt(promised, 0);

    memcg_take(&other, client.pid);
    touch_until_moved(&client, from);
    expect_domain(&client, &other);
    to = domain_of(&client);
    ck_assert_uint_ge(listing_number("domains", "id", to, "commitment"), promised);
    ck_assert_uint_eq(listing_number("domains", "id", from, "commitment"), 0); /* still there: memory is charged to it */

    ck_assert_uint_eq(service_status(&service, "gate_waits"), 0);
    hog_memcg = &other;
    child_start(&hog, be_hog, &bytes);
    child_expect(&hog, 'r');
    for (uint64_t deadline = now_ms() + WAIT_MS; service_status(&service, "gate_waits") == 0;) {
        ck_assert_uint_lt(now_ms(), deadline);
        ask(&client, 't');
    }
    child_kill(&hog);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
    expect_domains(at_first);
    memcg_remove(&other);
}
END_TEST

static void limit_cgroup(const struct memcg *where, const char *budget, uint64_t *ret_resident) {
    char out[4096];
    const char *found;

    ck_assert_int_eq(
        service_ctl(&service, out, sizeof(out),
                    (const char *const[]){"--json", "limit", "--cgroup", memcg_name(where), "--budget", budget, NULL}),
        0);
    found = strstr(out, "\"resident_bytes\":");
    ck_assert_msg(found != NULL, "%s", out);
    *ret_resident = strtoull(found + strlen("\"resident_bytes\":"), NULL, 10);
}

/* What it had before it moved counts for the budget of the cgroup that it came from, and for no other's. */
START_TEST(test_budget_of_former) {
    uint64_t from, there, deadline;
    const char *reason = "";
    struct child client;

    if (!may_intercept() || !make_memcg())
        return;
    ck_assert(memcg_make(&other, LIMIT, &reason));
    child_start(&client, be_toucher, NULL);
    child_expect(&client, 'r');
    from = domain_of(&client);
    ask(&client, 'f');
    memcg_take(&other, client.pid);
    touch_until_moved(&client, from);
    limit_cgroup(&other, "4M", &there);
    ck_assert_uint_le(there, MIB);
    limit_cgroup(&memcg, "16M", &there); /* with this none is dropped before it is read */
    ck_assert_uint_ge(there, SIZE / 2 - MIB);
    limit_cgroup(&memcg, "2M", &there);
    deadline = now_ms() + WAIT_MS;
    while (listing_number("sessions", "pid", (uint64_t)client.pid, "resident_bytes") > 3 * MIB)
        ck_assert(now_ms() < deadline);
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
    memcg_remove(&other);
}
END_TEST

/* Nobody sees what it touches: the service looks when it maps. */
static void be_raw(int socket, void *data) {
    struct raw_region region;
    int service_socket;
    char word;

    (void)data;
    memcg_enter(&memcg);
    service_socket = raw_hello("raw");
    child_check(child_say(socket, 'r'));
    while (child_hear(socket, &word) && word != 'e') {
        raw_region_new(service_socket, SIZE, &region);
        if (word == 'm')
            raw_region_end(service_socket, &region);
        child_check(child_say(socket, 'd'));
    }
    close(service_socket);
}

/* Not before three seconds are over, unless it asks for something that concerns memory. */
static void await_domain(const struct child *client, const struct memcg *where) {
    uint64_t before = domain_of(client), deadline = now_ms() + 3 * WAIT_MS;

    memcg_take(where, client->pid);
    for (; domain_of(client) == before; usleep(10000))
        ck_assert_uint_lt(now_ms(), deadline);
    expect_domain(client, where);
}

/* What they touch there nobody sees, without interception or where the kernel may fill, and they ask for nothing. */
START_TEST(test_followed) {
    const char *reason = "";
    struct child client;

    if ((_i && !may_intercept()) || !make_memcg())
        return;
    ck_assert(memcg_make(&other, LIMIT, &reason));
    child_start(&client, _i ? be_toucher : be_raw, NULL);
    child_expect(&client, 'r');
    ask(&client, _i ? 'c' : 'k');
    expect_domain(&client, &memcg);
    await_domain(&client, &other);
    if (!_i) {
        memcg_take(&memcg, client.pid);
        ask(&client, 'm');
        expect_domain(&client, &memcg);
    }
    ck_assert(child_say(client.socket, 'e'));
    child_end(&client);
    memcg_remove(&other);
}
END_TEST

/* Another cgroup under the name of one that was removed: its limit counts, and the first is forgotten with its last client. */
START_TEST(test_made_again) {
    size_t at_first = listing_count("domains");
    const char *reason = "";
    struct child first, second;
    struct memcg removed;
    uint64_t old, before;

    if (!may_intercept() || !make_memcg())
        return;
    ck_assert(memcg_make(&other, LIMIT, &reason));
    child_start(&first, be_toucher, NULL);
    child_expect(&first, 'r');
    ask(&first, 't');
    old = domain_of(&first);
    memcg_take(&other, first.pid); /* and touches nothing: the service does not know yet */
    removed = memcg;
    memcg_remove(&removed);
    before = service_cpu_ms();
    usleep(500000);
    ck_assert_uint_lt(service_cpu_ms() - before, 100); /* what watched it is ready for ever */
    memcg.limit = LIMIT / 2;
    memcg_make_again(&memcg);
    child_start(&second, be_toucher, NULL);
    child_expect(&second, 'r');
    expect_domain(&second, &memcg);
    ck_assert_uint_ne(domain_of(&second), old);
    ck_assert_uint_eq(listing_number("domains", "id", domain_of(&second), "limit"), LIMIT / 2);

    touch_until_moved(&first, old);
    expect_domain(&first, &other);
    expect_domains(at_first + 2);
    ck_assert(child_say(first.socket, 'e'));
    ck_assert(child_say(second.socket, 'e'));
    child_end(&first);
    child_end(&second);
    memcg_remove(&other);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("domains");
    TCase *sources = tcase_create("sources"), *moves = tcase_create("moves"), *gate = tcase_create("gate");

    tcase_set_timeout(sources, 60);
    tcase_add_checked_fixture(sources, setup, teardown);
    tcase_add_test(sources, test_near_the_limit);
    tcase_add_test(sources, test_at_the_limit);
    tcase_add_test(sources, test_limit_is_set_later);
    tcase_add_test(sources, test_without_clients);
    tcase_set_timeout(moves, 60);
    tcase_add_checked_fixture(moves, setup, teardown);
    tcase_add_test(moves, test_moved);
    tcase_add_test(moves, test_budget_of_former);
    tcase_add_loop_test(moves, test_followed, 0, 2);
    tcase_add_test(moves, test_made_again);
    tcase_set_timeout(gate, 60);
    tcase_add_checked_fixture(gate, setup, teardown);
    tcase_add_test(gate, test_given_up);
    tcase_add_test(gate, test_looked_at_meanwhile);
    suite_add_tcase(suite, gate);
    suite_add_tcase(suite, moves);
    suite_add_tcase(suite, sources);
    return suite_run(suite);
}
