/* SPDX-License-Identifier: MIT */
/*
 * The machine itself runs short: in a virtual machine only, as a process of each run is killed for want of memory. Cases (CK_RUN_CASE):
 *
 *   machine  a client holds 200 MiB droppable, a hog takes all that it can get, until the OOM killer comes. How much droppable memory
 *            was left then, which might have saved it?
 *   hard     the same with more of everything: not a bar, what becomes of it is printed
 *   native   the same with the kernel's own droppable memory, where there is any
 *   high     cgroup v2's memory.high, which kills nobody, but stops who is over it: how long does a burst take?
 *
 * "Left at the kill" is read from the kernel's own report, which it writes right before it chooses whom to kill: its count of
 * shared memory, less that of before the run, and for native memory, the holder's line in the table of processes. Counters asked for
 * when the hog is gone come too late: from the kernel's choice until its memory is free the service goes on dropping. They are
 * printed beside it.
 *
 * The report is not written to the console, which is a slow serial port: the other CPU would have gone on dropping for as long.
 */

#include "memcg.h"
#include "service.h"
#include "suite.h"

#include <droppable/droppable.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define DROPPABLE (200 * MIB)
#define LEFT_MAX (10 * MIB)
#define SHMEM_AT_REST (1 * MIB)
#define RUNS 10
#define HARD_RUNS 5
#define HOGS_MAX 4
#define HOG_NAME "drp-hog"
#define HOG_BITE (64 * MIB)
#define HIGH (256 * MIB)
#define HIGH_DROPPABLE (128 * MIB)
#define HIGH_HOG (190 * MIB)
#define HIGH_RUNS 3
#define HIGH_MS 20000
#define HIGH_MS_MAX 5000
#define STEP_MS 60000

/* A process of a run, with a pipe each way. Its end of the pipes is closed when it dies. */
struct guest {
    pid_t pid;
    int to;
    int from;
};

/* What the kernel wrote when it chose a process to kill. Bytes. */
struct oom_report {
    bool found;
    bool of_hog; /* it chose a hog */
    uint64_t shmem;
    uint64_t holder; /* resident memory of the holder of droppable memory */
};

/* ---- what the guests do; they leave by _exit(), with a status that tells the step that failed ---- */

static void say(int to, uint64_t word) {
    if (write(to, &word, sizeof(word)) != sizeof(word))
        _exit(90);
}

/* 0: the test is gone, or wants this process to end. */
static uint64_t hear(int from) {
    uint64_t word;

    return read(from, &word, sizeof(word)) == sizeof(word) ? word : 0;
}

static unsigned char *plain_memory(uint64_t size) {
    unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE) < 0)
        _exit(92);
    return memory;
}

/* One byte of each page: as fast as memory can be taken. */
static void touch(unsigned char *memory, uint64_t size) {
    for (uint64_t at = 0; at < size; at += PAGE)
        ((volatile unsigned char *)memory)[at] = 0x5a;
}

static unsigned char *droppable_memory(uint64_t size) {
    struct drp_region *region;
    struct drp *d;

    if (drp_new(&d, NULL) < 0)
        _exit(93);
    if (drp_region_new(&region, d, size, NULL) < 0)
        _exit(94);
    return drp_region_address(region);
}

static uint64_t resident(unsigned char *memory, uint64_t size) {
    static unsigned char pages[DROPPABLE / PAGE];
    uint64_t count = 0;

    if (mincore(memory, size, pages) < 0)
        _exit(95);
    for (uint64_t i = 0; i < size / PAGE; i++)
        count += pages[i] & 1;
    return count * PAGE;
}

/* Tells its resident memory whenever it is asked. */
static void hold(int from, int to, unsigned char *memory, uint64_t size) {
    resident(memory, size); /* its own memory, too, is there before the run */
    touch(memory, size);
    say(to, 1);
    while (hear(from))
        say(to, resident(memory, size));
}

static void hold_service(int from, int to) {
    hold(from, to, droppable_memory(DROPPABLE), DROPPABLE);
}

static void hold_native(int from, int to) {
    unsigned char *memory = mmap(NULL, DROPPABLE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        _exit(96);
    hold(from, to, memory, DROPPABLE);
}

static void hold_in_cgroup(int from, int to) {
    hold(from, to, droppable_memory(HIGH_DROPPABLE), HIGH_DROPPABLE);
}

static void hold_plain(int from, int to) {
    hold(from, to, plain_memory(HIGH_DROPPABLE), HIGH_DROPPABLE);
}

/* A name that the kernel's report tells, and that it is to be chosen. */
static void be_a_hog(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (prctl(PR_SET_NAME, HOG_NAME) < 0 || fd < 0 || write(fd, "1000", 4) != 4)
        _exit(97);
    close(fd);
}

static void hog_all(int from, int to) {
    (void)from;
    (void)to;
    be_a_hog();
    for (;;)
        touch(plain_memory(HOG_BITE), HOG_BITE);
}

static void hog_huge(int from, int to) {
    (void)from;
    (void)to;
    be_a_hog();
    for (;;) {
        unsigned char *memory = plain_memory(HOG_BITE);

        (void)madvise(memory, HOG_BITE, MADV_HUGEPAGE);
        touch(memory, HOG_BITE);
    }
}

/* Never leaves its CPU by itself. */
static void spin(int from, int to) {
    (void)from;
    (void)to;
    for (;;)
        __asm__ volatile("" ::: "memory");
}

static void hog_some(int from, int to) {
    (void)from;
    touch(plain_memory(HIGH_HOG), HIGH_HOG);
    say(to, 1);
}

/* ---- the guests from outside ---- */

static struct guest guest_start(const struct memcg *memcg, void (*run)(int from, int to)) {
    struct guest guest;
    int to[2], from[2];

    ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(from, O_CLOEXEC), 0);
    fflush(NULL);
    guest.pid = fork();
    ck_assert_int_ge(guest.pid, 0);
    if (guest.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(to[1]);
        close(from[0]);
        if (memcg)
            memcg_enter(memcg);
        run(to[0], from[1]);
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    guest.to = to[1];
    guest.from = from[0];
    return guest;
}

/* false: it is dead, or says nothing in time. */
static bool guest_says(const struct guest *guest, uint64_t timeout_ms, uint64_t *ret_word) {
    struct pollfd fd = {.fd = guest->from, .events = POLLIN};

    return poll(&fd, 1, (int)timeout_ms) > 0 && read(guest->from, ret_word, sizeof(*ret_word)) == sizeof(*ret_word);
}

static uint64_t guest_resident(const struct guest *guest) {
    uint64_t word = 1;

    ck_assert_int_eq(write(guest->to, &word, sizeof(word)), sizeof(word));
    ck_assert_msg(guest_says(guest, STEP_MS, &word), "process %d of the run is dead or hangs", (int)guest->pid);
    return word;
}

static void guest_end(struct guest *guest, int signal) {
    int status = 0;

    close(guest->to);
    if (signal)
        kill(guest->pid, signal);
    ck_assert_int_eq(waitpid(guest->pid, &status, 0), guest->pid);
    close(guest->from);
    ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) == 0, "a step of the run failed: %d", WEXITSTATUS(status));
}

static struct guest holder_start(const struct memcg *memcg, void (*run)(int from, int to)) {
    struct guest guest = guest_start(memcg, run);
    uint64_t word;

    if (!guest_says(&guest, STEP_MS, &word)) {
        guest_end(&guest, SIGKILL);
        ck_abort_msg("the memory to be taken could not be filled");
    }
    return guest;
}

/* ---- what the kernel says ---- */

static uint64_t meminfo(const char *name) {
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            kib = strtoull(line + strlen(name) + 1, NULL, 10);
    if (file)
        fclose(file);
    return kib * 1024;
}

/* Of lines "[  pid  ]   uid  tgid total_vm      rss ...". */
static void note_process(const char *line, pid_t holder, struct oom_report *report) {
    uint64_t rss;
    int tgid;

    if (sscanf(line, "[ %*d ] %*d %d %*u %" SCNu64, &tgid, &rss) == 2 && tgid == holder)
        report->holder = rss * PAGE;
}

/* Of what was logged since log was opened, or read the last time, the first report. */
static struct oom_report read_report(int log, pid_t holder) {
    struct oom_report report = {0};
    char record[8192];
    ssize_t n;

    while ((n = read(log, record, sizeof(record) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
        const char *text, *found;

        record[n > 0 ? n : 0] = '\0';
        text = strchr(record, ';');
        if (!text || report.found)
            continue;
        text++;
        if ((found = strstr(text, " shmem:")) && strstr(text, " pagetables:"))
            if (report.shmem == 0)
                report.shmem = strtoull(found + strlen(" shmem:"), NULL, 10) * PAGE;
        note_process(text, holder, &report);
        if (strstr(text, "Killed process ")) {
            report.of_hog = strstr(text, "(" HOG_NAME ")") != NULL;
            report.found = true;
        }
    }
    return report;
}

/* From now on. */
static int open_log(void) {
    int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    ck_assert_msg(log >= 0, "/dev/kmsg: %s", strerror(errno));
    ck_assert_int_ge(lseek(log, 0, SEEK_END), 0);
    return log;
}

/* ---- the machine ---- */

static void print_mib(const char *what, uint64_t bytes) {
    printf("%s %" PRIu64 ".%" PRIu64 " MiB", what, bytes / MIB, bytes % MIB * 10 / MIB);
}

/* Shared memory without any of a client: the service frees that of the run before after its holder is gone. */
static uint64_t shmem_at_rest(void) {
    uint64_t deadline = now_ms() + STEP_MS, shmem;

    while ((shmem = meminfo("Shmem")) > SHMEM_AT_REST) {
        ck_assert_msg(now_ms() < deadline, "%" PRIu64 " MiB of shared memory do not go", shmem / MIB);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return shmem;
}

/* Page faults of the service that had to wait for a disk: its own program is memory that the kernel takes, too. */
static uint64_t major_faults(const struct service *service) {
    char path[64], line[512];
    uint64_t faults = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)service->pid);
    file = fopen(path, "re");
    if (file && fgets(line, sizeof(line), file))
        sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %" SCNu64, &faults);
    if (file)
        fclose(file);
    return faults;
}

static void start_all(struct guest *guests, unsigned n, void (*run)(int from, int to)) {
    for (unsigned i = 0; i < n; i++)
        guests[i] = guest_start(NULL, run);
}

static void end_all(struct guest *guests, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        guest_end(&guests[i], SIGKILL);
}

/* Until one of them is dead: the kernel closed its pipes. */
static void wait_for_one(const struct guest *guests, unsigned n) {
    struct pollfd ends[HOGS_MAX];

    for (unsigned i = 0; i < n; i++)
        ends[i] = (struct pollfd){.fd = guests[i].from, .events = POLLIN};
    ck_assert_msg(poll(ends, n, STEP_MS) > 0, "nobody was killed");
}

/* How often: $DROPPABLE_BAR_RUNS times where somebody wants to be sure. */
static unsigned runs_of(unsigned usually) {
    const char *text = getenv("DROPPABLE_BAR_RUNS");

    return text && *text ? (unsigned)strtoul(text, NULL, 10) : usually;
}

struct row {
    const char *what;
    void (*hold)(int from, int to);
    void (*hog)(int from, int to);
    unsigned hogs;
    unsigned spinners;
};

/* One run; true: it was as it must be. service: NULL with native memory. */
static bool run_machine(const struct row *row, unsigned run, const struct service *service) {
    uint64_t shmem = shmem_at_rest(), before, left, after, ms;
    uint64_t dropped = service ? service_status(service, "dropped_bytes") : 0;
    uint64_t faults = service ? major_faults(service) : 0;
    struct guest holder = holder_start(NULL, row->hold), hogs[HOGS_MAX], spinners[HOGS_MAX];
    struct oom_report report;
    int log = open_log();
    bool good;

    before = guest_resident(&holder);
    start_all(spinners, row->spinners, spin);
    ms = now_ms();
    start_all(hogs, row->hogs, row->hog);
    wait_for_one(hogs, row->hogs);
    after = guest_resident(&holder);
    ms = now_ms() - ms;
    end_all(hogs, row->hogs);
    end_all(spinners, row->spinners);
    report = read_report(log, holder.pid);
    left = service ? report.shmem - (report.shmem < shmem ? report.shmem : shmem) : report.holder;
    good = before == DROPPABLE && report.found && report.of_hog && left <= LEFT_MAX;
    printf("%s, run %u:", row->what, run);
    print_mib(" left at the kill", left);
    print_mib(", when the hog was gone", after);
    if (service) {
        print_mib(", dropped", service_status(service, "dropped_bytes") - dropped);
        printf(", the service's major faults %" PRIu64, major_faults(service) - faults);
    }
    printf(", %" PRIu64 " ms%s%s\n", ms, report.of_hog ? "" : ": NOT THE HOG WAS KILLED",
           before == DROPPABLE ? "" : ": DROPPED BEFORE THE RUN");
    if (!good && service) {
        static char why[65536];

        service_ctl(service, why, sizeof(why), (const char *const[]){"why", NULL});
        fputs(why, stdout);
    }
    fflush(stdout);
    close(log);
    guest_end(&holder, 0);
    return good;
}

static unsigned run_row(const struct row *row, unsigned runs, const struct service *service) {
    unsigned good = 0;

    for (unsigned run = 1; run <= runs; run++)
        good += run_machine(row, run, service);
    printf("%s: %u of %u with at most %" PRIu64 " MiB left\n", row->what, good, runs, LEFT_MAX / MIB);
    fflush(stdout);
    return good;
}

START_TEST(machine_left_at_the_kill) {
    const struct row row = {"machine", hold_service, hog_all, 1, 0};
    struct service service;
    unsigned good;

    service_start(&service, NULL);
    good = run_row(&row, runs_of(RUNS), &service);
    service_stop(&service);
    ck_assert_uint_eq(good, runs_of(RUNS));
}
END_TEST

START_TEST(native_left_at_the_kill) {
    const struct row row = {"native", hold_native, hog_all, 1, 0};
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        printf("native: skipped: this kernel has none\n");
        return;
    }
    munmap(memory, PAGE);
    ck_assert_uint_eq(run_row(&row, runs_of(RUNS), NULL), runs_of(RUNS));
}
END_TEST

static const struct row hard_rows[] = {
    {"two hogs", hold_service, hog_all, 2, 0},
    {"four hogs", hold_service, hog_all, 4, 0},
    {"a hog of huge pages", hold_service, hog_huge, 1, 0},
    {"two hogs of huge pages", hold_service, hog_huge, 2, 0},
    {"a hog and four busy processes", hold_service, hog_all, 1, 4},
};

/* Not a bar: what becomes of it is printed. */
START_TEST(hard_left_at_the_kill) {
    struct service service;

    service_start(&service, NULL);
    (void)run_row(&hard_rows[_i], runs_of(HARD_RUNS), &service);
    service_stop(&service);
}
END_TEST

/* ---- memory.high ---- */

/* memory.events */
static uint64_t high_events(const struct memcg *memcg) {
    char path[384], key[32];
    uint64_t value, events = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/memory.events", memcg->path);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fscanf(file, "%31s %" SCNu64, key, &value) == 2)
        if (strcmp(key, "high") == 0)
            events = value;
    fclose(file);
    return events;
}

/* Returns how long the burst took. */
static uint64_t run_high(const char *what, unsigned run, void (*hold_memory)(int from, int to)) {
    const char *reason = "";
    struct guest holder, hog;
    struct memcg memcg;
    uint64_t start, word;
    bool ended;

    ck_assert_msg(memcg_make(&memcg, UINT64_C(1) << 40, &reason), "no cgroup: %s", reason);
    ck_assert_int_eq(memcg.version, 2);
    ck_assert(memcg_set(&memcg, "memory.high", HIGH));
    holder = holder_start(&memcg, hold_memory);
    start = now_ms();
    hog = guest_start(&memcg, hog_some);
    ended = guest_says(&hog, HIGH_MS, &word);
    start = now_ms() - start;
    printf("%s, run %u: %s after %" PRIu64 " ms, over memory.high %" PRIu64 " times", what, run,
           ended ? "ended" : "NOT ENDED", start, high_events(&memcg));
    print_mib(", usage", memcg_usage(&memcg));
    print_mib(", still there", guest_resident(&holder));
    printf("\n");
    fflush(stdout);
    guest_end(&hog, SIGKILL);
    guest_end(&holder, 0);
    memcg_remove(&memcg);
    return ended ? start : UINT64_MAX;
}

START_TEST(high_is_no_stall) {
    struct service service;
    unsigned good = 0;

    run_high("memory.high, without droppable memory", 1, hold_plain);
    service_start(&service, NULL);
    for (unsigned run = 1; run <= HIGH_RUNS; run++)
        good += run_high("memory.high", run, hold_in_cgroup) <= HIGH_MS_MAX;
    printf("memory.high: %u of %u within %u ms\n", good, HIGH_RUNS, HIGH_MS_MAX);
    fflush(stdout);
    service_stop(&service);
    ck_assert_uint_eq(good, HIGH_RUNS);
}
END_TEST

/* Cases of their own, so that CK_RUN_CASE= can choose. */
static void add_case(Suite *suite, const char *name, const TTest *test, int end) {
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, 240);
    tcase_add_loop_test(tcase, test, 0, end);
    suite_add_tcase(suite, tcase);
}

static Suite *make_suite(void) {
    Suite *suite = suite_create("machine");

    add_case(suite, "machine", machine_left_at_the_kill, 1);
    add_case(suite, "native", native_left_at_the_kill, 1);
    add_case(suite, "hard", hard_left_at_the_kill, sizeof(hard_rows) / sizeof(hard_rows[0]));
    add_case(suite, "high", high_is_no_stall, 1);
    return suite;
}

/* ./run vm says so. Whatever a developer has open must not be ended by a test. */
static bool in_own_machine(void) {
    const char *own = getenv("DROPPABLE_TEST_OWN_MACHINE");

    return own && strcmp(own, "yes") == 0 && meminfo("MemTotal") < 1024 * MIB && meminfo("SwapTotal") == 0;
}

/* Check's macros are for tests. */
static bool quiet_console(void) {
    int console = open("/proc/sys/kernel/printk", O_WRONLY | O_CLOEXEC);
    bool quiet = console >= 0 && write(console, "1", 1) == 1;

    close(console);
    return quiet;
}

int main(void) {
    if (!in_own_machine())
        skip_all("takes all memory of the machine: only in a virtual one, by `./run vm`");
    if (!quiet_console())
        skip_all("the kernel's log would go to the console");
    return suite_run(make_suite());
}
