/* SPDX-License-Identifier: MIT */
/*
 * Every attack of attack-*.c on one service, and what each costs an honest client beside it: the 99th percentile of its faults at most doubles, and a second
 * after the end the service has as many descriptors and as much memory as before.
 *
 * Who uses CPU time takes it from others whatever he does with it. So what an attack is compared with is not a quiet machine but processes that use as
 * much CPU time as it and the service for it, in as many processes, as much of it in the kernel, and as long at a time, and have nothing to do with the
 * service. All three are measured in turns, so that a machine that is busy with something else is so in all of them. On such a machine one time in a
 * hundred, or two, is a matter of chance: the bar is missed where it would be even if as many more of the times without the attack were as long as the
 * longest.
 *
 * Without $DROPPABLE_ATTACK_MS, how long each phase of a round takes, it is short, and finds only what makes the honest client wait very much longer, or what
 * stays;
 * $DROPPABLE_ATTACK is a part of the name of the attacks to run. `./run attacks` is the long form.
 */

#include "attack-probe.h"
#include "attack-use.h"
#include "attack.h"
#include "fixture.h"
#include "raw.h"
#include "rest.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define PHASE_MS 80
#define PHASE_SAMPLES 50
#define ROUNDS_MIN 2
#define ROUNDS_MAX 6
/* The bar, and how far a busy machine may be from it: there a wait for a CPU is a tick long, or none. */
#define RATIO_MAX 2
#define RATIO_MAX_SHORT 16
#define TASKS_MAX 8
/* The bar, and the short form's patience: of a machine that stands still for a while. */
#define BACK_MS 1000
#define BACK_MS_SHORT 10000
#define REST_MS 20000
#define BEGIN_MS 30000
/* Holes of the allocator's. */
#define MEMORY_KB 200

struct gang {
    const struct attack *attack;
    bool neutral;       /* does what an attack does to the CPUs, and nothing else */
    struct cpu_use use; /* of each of its processes, */
    struct cpu_use workers; /* of as many more: each client's pager and dropper wait for one another, not for other clients', */
    struct cpu_use others; /* and of one more, for the service's other threads */
    uint64_t steps;        /* a second */
    struct child child;
    uint64_t began;
};

struct outcome {
    size_t descriptors;
    long memory_kb; /* more than before, after back_ms at most */
    uint64_t back_ms;
    struct cpu_use use;
    unsigned service; /* thousandths of a CPU that the service used for it */
    uint64_t steps;   /* a second */
};

static struct probe probe;
static unsigned phase_ms = PHASE_MS;
static unsigned back_ms = BACK_MS_SHORT;
static double ratio_max = RATIO_MAX_SHORT;

/* ---- the attack's side ---- */

static int begun_fd = -1;
static uint64_t random_state;
static _Atomic uint64_t *steps; /* shared with all of them */

void attack_did(void) {
    atomic_fetch_add_explicit(steps, 1, memory_order_relaxed);
}

void attack_begun(void) {
    attack_did();
    if (begun_fd >= 0)
        child_check(write(begun_fd, "b", 1) == 1);
    begun_fd = -1;
}

void attack_await(uint64_t *next, const struct attack_pace *pace) {
    uint64_t now = now_ns();

    *next = (*next > 0 ? *next : now) + 1000000000 / pace->steps;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME,
                    &(struct timespec){.tv_sec = (time_t)(*next / 1000000000), .tv_nsec = (long)(*next % 1000000000)},
                    NULL);
}

uint64_t attack_random(uint64_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 16) % n;
}

int attack_region(const char *name, uint64_t size, struct raw_region *ret) {
    int socket = raw_session(name);

    raw_region_new(socket, size, ret);
    memset(ret->address, 1, size);
    return socket;
}

/* How many of its own can be runnable at a time. */
static unsigned attack_width(const struct attack *attack) {
    return attack->tasks * attack->threads;
}

/* Of its own; a bomb makes its own. */
static unsigned attack_processes(const struct attack *attack) {
    return attack->tasks > TASKS_MAX ? 1 : attack->tasks;
}

/* Of those that do what the service's threads do. */
static unsigned attack_workers(const struct attack *attack) {
    return attack->tasks > TASKS_MAX ? TASKS_MAX : attack->tasks;
}

/* What an attack's processes did, done by as many, or by one instead of a bomb's. */
static void run_neutral(const struct gang *gang) {
    uint64_t each = gang->steps / attack_processes(gang->attack) + 1;

    gang->attack->run_neutral(&(struct attack_pace){
        .steps = each,
        .step_us =
            gang->use.thousandths * UINT64_C(1000) * attack_width(gang->attack) / attack_processes(gang->attack) / each,
    });
}

static pid_t start_task(const struct gang *gang, unsigned i, unsigned own, unsigned workers, pid_t *group, int told) {
    pid_t pid = fork();

    child_check(pid >= 0);
    if (pid > 0) {
        setpgid(pid, *group); /* the first makes it */
        *group = *group ? *group : pid;
        return pid;
    }
    setpgid(0, *group);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    begun_fd = told;
    random_state = i + 1;
    if (!gang->neutral)
        gang->attack->run();
    if (i < own && gang->attack->run_neutral)
        run_neutral(gang);
    attack_begun();
    burn(i < own ? &gang->use : i < own + workers ? &gang->workers : &gang->others);
}

/* Who has ended by himself has not attacked. */
static void check_goes_on(pid_t pid) {
    siginfo_t info = {.si_pid = 0};

    child_check(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0);
}

/* Starts the processes, and at a word kills all that they have become; says when they are gone. What they used is then this process's children's. */
static void run_gang(int socket, void *data) {
    const struct gang *gang = data;
    bool burns = gang->neutral && !gang->attack->run_neutral;
    unsigned own = burns ? attack_width(gang->attack) : attack_processes(gang->attack);
    unsigned workers = gang->neutral ? attack_workers(gang->attack) : 0, n = own + workers + gang->neutral;
    int told[2];
    pid_t group = 0, *tasks = calloc(n, sizeof(*tasks));
    char word;

    child_leave_check();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    child_check(pipe(told) == 0);
    for (unsigned i = 0; i < n; i++)
        tasks[i] = start_task(gang, i, own, workers, &group, told[1]);
    for (unsigned i = 0; i < n; i++) {
        struct pollfd begun = {.fd = told[0], .events = POLLIN};

        child_check(poll(&begun, 1, BEGIN_MS) == 1 && read(told[0], &word, 1) == 1);
    }
    child_say(socket, 'b');
    child_hear(socket, &word);
    kill(-group, SIGSTOP); /* before one can see another's end */
    for (unsigned i = 0; i < n; i++)
        check_goes_on(tasks[i]);
    do
        kill(-group, SIGKILL);
    while (wait(NULL) > 0);
    child_say(socket, 'e');
}

static void gang_start(struct gang *gang) {
    child_start(&gang->child, run_gang, gang);
    child_expect(&gang->child, 'b');
    gang->began = now_ns();
}

static uint64_t microseconds(struct timeval time) {
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

/* What its processes have used, each of as many threads as run at a time. */
static void gang_end(struct gang *gang, struct cpu_use *ret) {
    uint64_t wall = (now_ns() - gang->began) / 1000;
    struct rusage usage;
    struct used used;

    child_say(gang->child.socket, 'e');
    child_expect(&gang->child, 'e');
    ck_assert_int_eq(wait4(gang->child.pid, NULL, 0, &usage), gang->child.pid);
    close(gang->child.socket);
    if (!ret)
        return;
    used = (struct used){.us = microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
                         .kernel_us = microseconds(usage.ru_stime),
                         .seen_us = microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
                         .sleeps = (uint64_t)usage.ru_nvcsw};
    *ret = cpu_use_of(&used, wall, attack_width(gang->attack));
}

/* ---- the service's side ---- */

/* A sanitizer keeps what is freed, and what it does takes time: there it is about what the service does wrong, no more. */
static bool memory_is_back(long kb) {
    return kb <= MEMORY_KB || under_sanitizer();
}

/* Waits until there is nothing left of the attack; back_ms at most. */
static void await_back(size_t descriptors, long memory_kb, struct outcome *outcome) {
    uint64_t start = now_ms();

    do {
        nap_ms(5);
        outcome->descriptors = service_descriptors(&service);
        outcome->memory_kb = service_memory_kb(&service) - memory_kb;
        outcome->back_ms = now_ms() - start;
    } while (outcome->back_ms < back_ms && (outcome->descriptors != descriptors || !memory_is_back(outcome->memory_kb)));
}

/* ---- measuring ---- */

/* Returns how long it took, us: on a busy machine until there are enough times. */
static uint64_t measure(enum probe_phase phase, struct service_use *ret_service) {
    uint64_t began = now_ns();
    struct service_use before;

    service_use_read(service.pid, &before);
    probe_enter(&probe, phase, PHASE_SAMPLES);
    nap_ms(phase_ms);
    probe_leave(&probe);
    service_use_read(service.pid, ret_service);
    service_use_subtract(ret_service, &before);
    return (now_ns() - began) / 1000;
}

/* What it does where nobody attacks is there beside the neutral ones, too. */
static void note_service_use(struct outcome *outcome, const struct service_use *quiet, uint64_t quiet_us,
                             const struct service_use *under, uint64_t us, struct gang *burners) {
    struct service_use own = *quiet, use = *under;

    service_use_scale(&own, us, quiet_us);
    service_use_subtract(&use, &own);
    outcome->service = (unsigned)((use.workers.us + use.others.us) * 1000 / us);
    burners->workers = cpu_use_of(&use.workers, us, attack_workers(burners->attack));
    burners->others = cpu_use_of(&use.others, us, 1);
}

static void run_round(const struct attack *attack, size_t descriptors, long memory_kb, struct outcome *outcome) {
    struct gang attackers = {.attack = attack}, burners = {.attack = attack, .neutral = true};
    struct service_use quiet, under, unused;
    uint64_t quiet_us, us;

    quiet_us = measure(PROBE_QUIET, &quiet);
    gang_start(&attackers);
    atomic_store(steps, 0);
    us = measure(PROBE_ATTACK, &under);
    outcome->steps = atomic_load(steps) * 1000000 / us;
    gang_end(&attackers, &burners.use);
    outcome->use = burners.use;
    burners.steps = outcome->steps;
    note_service_use(outcome, &quiet, quiet_us, &under, us, &burners);
    await_back(descriptors, memory_kb, outcome);
    gang_start(&burners);
    measure(PROBE_NEUTRAL, &unused);
    gang_end(&burners, NULL);
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

/* One line of the table, all rounds so far together. */
struct line {
    struct probe_figures quiet, neutral, under;
    double ratio,
        surely; /* of the 99th percentiles; and more than that, with the same number of times once more as far out */
};

static void compare(struct line *ret) {
    probe_figures(&probe, PROBE_QUIET, &ret->quiet);
    probe_figures(&probe, PROBE_NEUTRAL, &ret->neutral);
    probe_figures(&probe, PROBE_ATTACK, &ret->under);
    ret->ratio = ret->under.fault_p99 / larger(ret->neutral.fault_p99, ret->quiet.fault_p99);
    ret->surely = ret->under.fault_p99 / larger(ret->neutral.fault_p995, ret->quiet.fault_p995);
}

static bool run_attack(const struct attack *attack, size_t descriptors) {
    long memory_kb = service_memory_kb(&service);
    struct outcome outcome = {0};
    struct line line = {0};
    unsigned n = 0;
    bool ok = true;

    probe_reset(&probe);
    while (n < (under_sanitizer() ? 1 : ROUNDS_MIN) || (n < ROUNDS_MAX && line.surely > ratio_max)) {
        run_round(attack, descriptors, memory_kb, &outcome);
        ok = ok && outcome.descriptors == descriptors && memory_is_back(outcome.memory_kb);
        compare(&line);
        n++;
    }
    ok = ok && line.surely <= ratio_max;
    printf("%-31s %6llu %4u%% %4u%% %6.0f %6.0f %7.0f %7.0f %6.2f %7.0f %7.0f  %+3zd %+5ld %5llu %2u%s\n", attack->name,
           (unsigned long long)outcome.steps, outcome.use.thousandths * attack_width(attack) / 10, outcome.service / 10,
           line.quiet.fault_p50, line.quiet.fault_p99, line.neutral.fault_p99, line.under.fault_p99, line.ratio,
           line.neutral.call_p99, line.under.call_p99, (ssize_t)(outcome.descriptors - descriptors), outcome.memory_kb,
           (unsigned long long)outcome.back_ms, n, ok ? "" : "  <--");
    fflush(stdout);
    return ok;
}

START_TEST(test_attacks) {
    static const struct attack *const lists[] = {attacks_by_messages, attacks_by_memory, attacks_by_descriptors,
                                                 attacks_by_processes};
    const char *only = getenv("DROPPABLE_ATTACK"), *ms = getenv("DROPPABLE_ATTACK_MS");
    unsigned failed = 0;
    size_t descriptors, threads;

    if (under_sanitizer())
        ratio_max = INFINITY;
    else if (ms) {
        phase_ms = (unsigned)atoi(ms);
        back_ms = BACK_MS;
        ratio_max = RATIO_MAX;
    }
    steps = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(steps, MAP_FAILED);
    probe_start(&probe);
    kill(probe.child.pid, SIGSTOP);
    service_at_rest(&service, REST_MS, &descriptors, &threads);
    kill(probe.child.pid, SIGCONT);
    printf("%-31s %6s %5s %5s %6s %6s %7s %7s %6s %7s %7s  %3s %5s %5s\n", "faults and calls: us", "steps", "CPU",
           "CPU", "p50", "p99", "p99", "p99", "", "calls", "calls", "", "", "back");
    printf("%-31s %6s %5s %5s %6s %6s %7s %7s %6s %7s %7s  %3s %5s %5s\n", "", "a s", "own", "serv.", "quiet", "quiet",
           "neutral", "attack", "ratio", "neutral", "attack", "fds", "KiB", "ms");
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        for (const struct attack *attack = lists[i]; attack->name; attack++)
            if (!only || strstr(attack->name, only))
                failed += !run_attack(attack, descriptors);
    probe_stop(&probe);
    ck_assert_msg(failed == 0, "%u attacks cost more than they may", failed);
}
END_TEST

/* ---- the machine ---- */

#define CPU_FOLDER "/sys/fs/cgroup/cpu"

static bool file_write(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

/* What else runs here shall wait: this is about those who are part of it. Where there is no such controller, it does not. */
static bool enter_cpu_cgroup(char *folder, size_t size) {
    char path[128], pid[16];

    snprintf(folder, size, "%s/droppable-test-%d", CPU_FOLDER, (int)getpid());
    if (mkdir(folder, 0755) < 0)
        return false;
    snprintf(path, sizeof(path), "%s/cpu.shares", folder);
    file_write(path, "65536");
    snprintf(path, sizeof(path), "%s/cpu.rt_runtime_us", folder); /* else nothing in it can be real-time */
    file_write(path, "200000");
    snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    return file_write(path, pid);
}

static void leave_cpu_cgroup(const char *folder) {
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    file_write(CPU_FOLDER "/cgroup.procs", pid);
    for (int i = 0; rmdir(folder) < 0 && errno == EBUSY && i < 1000; i++)
        nap_ms(5); /* the service has ended, its threads a moment later */
}

int main(void) {
    Suite *suite = suite_create("attacks");
    TCase *attacks = tcase_create("attacks");
    char folder[96];
    int status;

    if (!may_intercept())
        skip_all("no userfaultfd for this user: no fault is the service's");
    /* As in the unit: what the service keeps, not its allocator. */
    setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
    tcase_set_timeout(attacks, 1800);
    tcase_add_checked_fixture(attacks, fixture_setup, fixture_teardown);
    tcase_add_test(attacks, test_attacks);
    suite_add_tcase(suite, attacks);
    if (!enter_cpu_cgroup(folder, sizeof(folder)))
        printf("whatever else runs here takes part\n");
    status = suite_run(suite);
    leave_cpu_cgroup(folder);
    return status;
}
