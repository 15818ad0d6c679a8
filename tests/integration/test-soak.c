/* SPDX-License-Identifier: MIT */
/*
 * Everything at once, by chance, for long: clients of every kind that come, are stopped, killed or told to end, in a cgroup in which another program takes
 * and gives back memory; drops by hand, new settings; for a part of the time the service dies, too. The clients check each page (page-check.c).
 *
 * Quiet points come in between: all clients end, and the service must be as it was, with counters that have grown by just what was dropped. Its size
 * and its descriptors are written down at each, and once a second ($DROPPABLE_SOAK_OUT/samples.tsv), and must not have grown at the end.
 *
 * usage: test-soak [MINUTES [SEED]]
 */

#include "child.h"
#include "crash-load.h"
#include "fixture.h"
#include "memcg.h"
#include "program.h"
#include "soak-client.h"
#include "suite.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MIB ((uint64_t)1 << 20)
#define LIMIT (256 * MIB)
#define HOG_BYTES (140 * MIB)
#define HOG_HOLDS_MS 200
#define SLOTS 6
#define COUNTERS 2
#define WAIT_MS 60000
#define STOPPED_MS 500
#define SILENT_MS 15000
#define QUIET_MAX 256
/* Of anonymous memory, between a life's second quiet point and its last: what an allocator may still need for itself. */
#define GROWTH_MAX MIB

static double minutes = 0.2;
static unsigned seed = 1;

static void run_checked(int socket, void *data) {
    (void)data;
    program_become("checked", "daemon", NULL, socket);
}

static const struct kind {
    const char *name;
    void (*run)(int socket, void *data);
    char ready, end; /* what it says at first, and is told at last */
    unsigned most;
} kinds[] = {
    {"random", soak_client_run, 'r', 'e', SLOTS},
    {"load", crash_load_run, 'r', 'e', 2},
    {"guest", crash_load_guest, 'r', 'e', 1}, /* it has chunks of its own in the shared region */
    {"checked", run_checked, 'a', '.', 1},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct slot {
    struct child child;
    const struct kind *kind; /* NULL: empty */
    unsigned seed;
    bool ready;
    uint64_t heard, stopped; /* ms; 0: not stopped */
} slots[SLOTS];

static struct {
    uint64_t began, end, next_sample, next_quiet, quiet_ms;
    FILE *samples; /* NULL: nobody wants them */
    struct memcg memcg;
    bool have_memcg;
    struct child hog;
    bool hogging;
    unsigned life, hogs, reloads, starts, kills, ends, deaths, checks;
    bool measured; /* what this life is without clients */
    size_t n_quiet;
    struct {
        unsigned life;
        uint64_t anonymous;
    } quiet[QUIET_MAX];
} soak;

static unsigned chance(unsigned n) {
    return (unsigned)rand_r(&seed) % n;
}

/* The service dies in the fourth sixth of the time only, so that lives are long enough to grow; once at least. */
static bool may_die(void) {
    uint64_t part = (now_ms() - soak.began) * 6 / (soak.end - soak.began);

    return part == 3 || (part > 3 && soak.deaths == 0);
}

/* ---- figures ---- */

/* KiB of a line of /proc/PID/status. */
static uint64_t status_kib(const char *key) {
    char path[64], line[128];
    uint64_t kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)service.pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoull(line + strlen(key), NULL, 10);
    if (file)
        fclose(file);
    return kib;
}

static unsigned clients(void) {
    unsigned n = 0;

    for (size_t i = 0; i < SLOTS; i++)
        n += slots[i].kind != NULL;
    return n;
}

static void sample(bool quiet) {
    if (!soak.samples)
        return;
    fprintf(soak.samples, "%.1f\t%u\t%u\t%llu\t%llu\t%zu\t%zu\t%.1f\t%d\n", (double)(now_ms() - soak.began) / 1000,
            soak.life, clients(), (unsigned long long)status_kib("VmRSS:"), (unsigned long long)status_kib("RssAnon:"),
            service_descriptors(&service), service_threads(&service),
            soak.have_memcg ? (double)memcg_usage(&soak.memcg) / (double)MIB : 0.0, quiet);
    fflush(soak.samples);
}

/* ---- clients ---- */

static void start_client(struct slot *slot) {
    const struct kind *kind = &kinds[chance(KINDS)];
    unsigned n = 0;

    for (size_t i = 0; i < SLOTS; i++)
        n += slots[i].kind == kind;
    if (n >= kind->most || (kind->run == run_checked && may_die()))
        return;
    *slot = (struct slot){.kind = kind, .seed = (unsigned)rand_r(&seed), .heard = now_ms()};
    child_start(&slot->child, kind->run, &slot->seed);
    if (soak.have_memcg)
        memcg_take(&soak.memcg, slot->child.pid);
    soak.starts++;
}

static void kill_client(struct slot *slot) {
    child_kill(&slot->child);
    slot->kind = NULL;
    soak.kills++;
}

static void stop_client(struct slot *slot) {
    kill(slot->child.pid, slot->stopped ? SIGCONT : SIGSTOP);
    slot->stopped = slot->stopped ? 0 : now_ms();
}

static void wait_until_ready(struct slot *slot) {
    if (slot->stopped)
        stop_client(slot);
    if (!slot->ready)
        child_expect(&slot->child, slot->kind->ready);
    slot->ready = true;
}

static void end_client(struct slot *slot) {
    wait_until_ready(slot);
    ck_assert(child_say(slot->child.socket, slot->kind->end));
    child_end(&slot->child);
    slot->kind = NULL;
    soak.ends++;
}

/* Does it still do all it does? */
static void ask_client(struct slot *slot) {
    wait_until_ready(slot);
    ck_assert(child_say(slot->child.socket, 'p'));
    child_expect(&slot->child, 'p');
    slot->heard = now_ms();
    soak.checks++;
}

static void look_after_clients(void) {
    for (size_t i = 0; i < SLOTS; i++) {
        siginfo_t info = {0};

        if (!slots[i].kind)
            continue;
        if (slots[i].stopped && now_ms() - slots[i].stopped > STOPPED_MS)
            stop_client(&slots[i]);
        if (now_ms() - slots[i].heard > SILENT_MS)
            ask_client(&slots[i]);
        ck_assert_int_eq(waitid(P_PID, (id_t)slots[i].child.pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
        ck_assert_msg(info.si_pid == 0, "%s (%d) ended: status %d, OOM kills: %llu", slots[i].kind->name,
                      (int)slots[i].child.pid, info.si_status,
                      soak.have_memcg ? (unsigned long long)memcg_oom_kills(&soak.memcg) : 0);
    }
}

/* ---- pressure ---- */

/* For a moment each time: what does not fit for good would only be slow. */
static void run_hog(int socket, void *data) {
    char word;

    (void)data;
    while (read(socket, &word, 1) == 1 && word != 'e') {
        char *memory = mmap(NULL, HOG_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        child_check(memory != MAP_FAILED);
        for (size_t at = 0; at < HOG_BYTES; at += 4096)
            *(volatile char *)(memory + at) = 1;
        nap_ms(HOG_HOLDS_MS);
        munmap(memory, HOG_BYTES);
        child_check(child_say(socket, word));
    }
}

static void wait_for_hog(void) {
    if (soak.hogging)
        child_expect(&soak.hog, 'u');
    soak.hogging = false;
}

static void let_hog(void) {
    if (!soak.have_memcg)
        return;
    wait_for_hog();
    soak.hogging = true;
    soak.hogs++;
    ck_assert(child_say(soak.hog.socket, 'u'));
}

/* ---- the service ---- */

/* The number of connections changes each time, which the log says. */
static void set(const char *settings) {
    char text[256];

    snprintf(text, sizeof(text), "%s[Limits]\nConnections=%u\n", settings, 4000 - ++soak.reloads % 100);
    service_reload(&service, text, "Connections=: ");
}

/* Budgets are such that the programs that go through all of their memory lose some of it, and not each page at once. */
static void reload(void) {
    char text[128];

    snprintf(text, sizeof(text), "[Budgets]\nRegion=%uM\nCgroup=%uM\n[Pressure]\nCgroupReserve=%uM\n", 40 + chance(60),
             120 + chance(200), 8 + chance(56));
    set(text);
}

static void ask_service(void) {
    static const char *const calls[][4] = {{"drop", "--all"}, {"free", "16M"}, {"list"}, {"--json", "why"}, {"status"}};

    ck_assert_int_eq(service_ctl(&service, NULL, 0, calls[chance(sizeof(calls) / sizeof(calls[0]))]), 0);
}

static void replace_service(void) {
    int status;

    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].kind && slots[i].kind->run == run_checked)
            wait_until_ready(&slots[i]); /* mmap(2) fails without a service, and it knows no better */
    if (chance(2))
        ck_assert(service_kill(&service, WAIT_MS));
    else {
        kill(service.pid, SIGTERM);
        ck_assert(service_wait(&service, WAIT_MS, &status));
        ck_assert_int_eq(status, 0);
    }
    service_restart(&service);
    soak.life++;
    soak.deaths++;
    soak.measured = false;
}

static void live_and_die(void) {
    struct child child;

    child_start(&child, crash_load_mortal, NULL);
    child_end(&child);
}

/* ---- quiet points ---- */

/* What is dropped by hand is what the counters say. */
static void expect_counters(void) {
    uint64_t before = service_status(&service, "dropped_bytes"), sum = 0;
    struct child children[COUNTERS];
    unsigned seeds[COUNTERS];

    for (unsigned i = 0; i < COUNTERS; i++) {
        seeds[i] = (unsigned)rand_r(&seed);
        child_start(&children[i], soak_client_count, &seeds[i]);
    }
    for (unsigned i = 0; i < COUNTERS; i++) {
        uint64_t freed;

        ck_assert_int_eq(read(children[i].socket, &freed, sizeof(freed)), sizeof(freed));
        sum += freed;
    }
    ck_assert_uint_eq(service_status(&service, "dropped_bytes") - before, sum);
    for (unsigned i = 0; i < COUNTERS; i++) {
        ck_assert(child_say(children[i].socket, 'e'));
        child_end(&children[i]);
    }
    ck_assert_uint_eq(service_status(&service, "dropped_bytes") - before, sum);
}

static void be_quiet(void) {
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].kind)
            end_client(&slots[i]);
    wait_for_hog();
    set("");
    ck_assert(status_becomes("sessions", 1, WAIT_MS));
    ck_assert(status_becomes("regions", 0, WAIT_MS));
    ck_assert_uint_eq(service_status(&service, "resident_bytes"), 0);
    expect_counters();
    if (soak.measured)
        fixture_expect_idle();
    else
        fixture_measure();
    soak.measured = true;
    sample(true);
    ck_assert_uint_lt(soak.n_quiet, QUIET_MAX);
    soak.quiet[soak.n_quiet].life = soak.life;
    soak.quiet[soak.n_quiet++].anonymous = status_kib("RssAnon:") * 1024;
}

/* What sanitizers keep of freed memory grows. */
static void expect_no_growth(void) {
    size_t first = 0;

    if (under_sanitizer())
        return;
    for (size_t i = 1; i < soak.n_quiet; i++) {
        if (soak.quiet[i].life != soak.quiet[first].life)
            first = i;
        else if (i > first + 1)
            ck_assert_msg(soak.quiet[i].anonymous <= soak.quiet[first + 1].anonymous + GROWTH_MAX,
                          "life %u has grown from %llu to %llu bytes without clients", soak.life,
                          (unsigned long long)soak.quiet[first + 1].anonymous,
                          (unsigned long long)soak.quiet[i].anonymous);
    }
}

/* ---- all of it ---- */

static void act(void) {
    struct slot *slot = &slots[chance(SLOTS)];
    unsigned what = chance(100);

    if (soak.deaths == 0 && may_die())
        replace_service();
    else if (!slot->kind)
        start_client(slot);
    else if (what < 8)
        kill_client(slot);
    else if (what < 12)
        end_client(slot);
    else if (what < 20 || slot->stopped)
        stop_client(slot);
    else if (what < 40)
        ask_client(slot);
    else if (what < 45)
        live_and_die();
    else if (what < 50)
        reload();
    else if (what < 65)
        ask_service();
    else if (what < 75)
        let_hog();
    else if (what < 85 && may_die())
        replace_service();
}

static void begin(void) {
    const char *folder = getenv("DROPPABLE_SOAK_OUT"), *reason = "memory of sanitizers does not fit into a cgroup";
    char path[512];

    printf("%.1f minutes, seed %u\n", minutes, seed);
    soak.began = now_ms();
    soak.end = soak.began + (uint64_t)(minutes * 60000);
    soak.quiet_ms = (soak.end - soak.began) / 30 > 20000 ? (soak.end - soak.began) / 30 : 20000;
    soak.next_quiet = soak.began + soak.quiet_ms;
    snprintf(path, sizeof(path), "%s/samples.tsv", folder ? folder : "");
    soak.samples = folder ? fopen(path, "we") : NULL;
    if (soak.samples)
        fprintf(soak.samples,
                "seconds\tlife\tclients\trss_kib\tanonymous_kib\tdescriptors\tthreads\tcgroup_mib\tquiet\n");
    soak.have_memcg = !under_sanitizer() && memcg_make(&soak.memcg, LIMIT, &reason);
    if (!soak.have_memcg)
        printf("no pressure: %s\n", reason);
    child_start(&soak.hog, run_hog, NULL);
    if (soak.have_memcg)
        memcg_take(&soak.memcg, soak.hog.pid);
}

static void finish(void) {
    uint64_t kills = soak.have_memcg ? memcg_oom_kills(&soak.memcg) : 0;

    ck_assert(child_say(soak.hog.socket, 'e'));
    child_end(&soak.hog);
    if (soak.samples)
        fclose(soak.samples);
    printf(
        "{\"seconds\": %llu, \"clients\": %u, \"killed\": %u, \"ended\": %u, \"asked\": %u, \"reloads\": %u, \"hogs\": %u, \"services_replaced\": %u, "
        "\"quiet_points\": %zu, \"oom_kills\": %llu, \"unexpected_errors\": %llu, \"rss_kib\": %llu, \"anonymous_kib_first\": %llu, "
        "\"anonymous_kib_last\": %llu, \"descriptors\": %zu}\n",
        (unsigned long long)(now_ms() - soak.began) / 1000, soak.starts, soak.kills, soak.ends, soak.checks,
        soak.reloads, soak.hogs, soak.deaths, soak.n_quiet, (unsigned long long)kills,
        (unsigned long long)service_status(&service, "unexpected_errors"), (unsigned long long)status_kib("VmRSS:"),
        (unsigned long long)soak.quiet[1 % soak.n_quiet].anonymous / 1024,
        (unsigned long long)soak.quiet[soak.n_quiet - 1].anonymous / 1024, service_descriptors(&service));
    ck_assert_uint_eq(kills, 0);
    expect_no_growth();
    if (soak.have_memcg)
        memcg_remove(&soak.memcg);
}

START_TEST(test_soak) {
    begin();
    be_quiet();
    while (now_ms() < soak.end || soak.deaths == 0) {
        act();
        look_after_clients();
        nap_ms(chance(60));
        if (now_ms() >= soak.next_sample) {
            sample(false);
            soak.next_sample = now_ms() + 1000;
        }
        if (now_ms() >= soak.next_quiet) {
            be_quiet();
            soak.next_quiet = now_ms() + soak.quiet_ms;
        }
    }
    be_quiet();
    finish();
}
END_TEST

static void setup(void) {
    fixture_start(NULL);
    soak.measured = true;
}

int main(int argc, char *argv[]) {
    Suite *suite = suite_create("soak");
    TCase *tcase = tcase_create("soak");

    program_main(argc, argv);
    if (argc > 1)
        minutes = atof(argv[1]);
    if (argc > 2)
        seed = (unsigned)strtoul(argv[2], NULL, 10);
    tcase_set_timeout(tcase, minutes * 60 + 300);
    tcase_add_checked_fixture(tcase, setup, fixture_teardown);
    tcase_add_test(tcase, test_soak);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
