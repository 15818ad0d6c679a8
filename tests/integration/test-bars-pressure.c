/* SPDX-License-Identifier: MIT */
/*
 * Is memory given back early enough, and no more than needed? Real clients, in a memory cgroup of 256 MiB, of which 128 MiB are
 * droppable.
 *
 * Each run has a cgroup of its own, so that its counters begin at zero; what runs in it is forked from the test, which is
 * single-threaded and stays outside, as the service does. The test looks at the cgroup every half millisecond; what was dropped,
 * the service's own counters tell, so also of a client that was killed. First a run shows that without droppable memory the
 * same load brings the OOM killer: otherwise the rest would prove nothing.
 *
 * Figures are printed, whether they pass or not.
 */

#include "memcg.h"
#include "service.h"

#include <droppable/droppable.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define LIMIT (256 * MIB)
#define DROPPABLE (128 * MIB)
#define HOG (190 * MIB)
#define FILE_SIZE (1024 * MIB)
#define FILE_BITE (1 * MIB)
#define LOSS_MAX (DROPPABLE / 20)
#define CROWD_SIZE (512 * MIB)
#define CROWD_THREADS 8
#define CROWD_MS 10000
#define RUNS 10
#define CROWD_RUNS 3
#define STEP_MS 30000

/* A process in the cgroup, with a pipe each way. Its end of the pipes is closed when it dies. */
struct guest {
    pid_t pid;
    int to;
    int from;
};

struct result {
    uint64_t dropped;
    uint64_t lowest; /* headroom */
    uint64_t kills;
    uint64_t failures;
    uint64_t ms;
    bool ended_well;
};

/* ---- what the guests do; they leave by _exit(), with a status that tells the step that failed ---- */

static void say(int to) {
    if (write(to, "", 1) != 1)
        _exit(90);
}

static void hear(int from) {
    char byte;

    if (read(from, &byte, 1) != 1)
        _exit(91);
}

/* In 4 KiB pages: with huge ones an allocation is over before anybody could react. */
static unsigned char *plain_memory(uint64_t size) {
    unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE) < 0)
        _exit(92);
    return memory;
}

static void write_blocks(unsigned char *memory, uint64_t size) {
    static unsigned char block[PAGE];

    memset(block, 0x5a, sizeof(block));
    for (uint64_t at = 0; at < size; at += PAGE)
        memcpy(memory + at, block, sizeof(block));
}

static struct drp_region *droppable_memory(uint64_t size) {
    struct drp_region *region;
    struct drp *d;

    if (drp_new(&d, NULL) < 0)
        _exit(93);
    if (drp_region_new(&region, d, size, NULL) < 0)
        _exit(94);
    return region;
}

static void hog(int from, int to, int file) {
    (void)from;
    (void)file;
    write_blocks(plain_memory(HOG), HOG);
    say(to);
}

static void hold_droppable(int from, int to, int file) {
    (void)file;
    write_blocks(drp_region_address(droppable_memory(DROPPABLE)), DROPPABLE);
    say(to);
    hear(from);
}

static void hold_pinned(int from, int to, int file) {
    unsigned char *memory = plain_memory(DROPPABLE);

    (void)file;
    write_blocks(memory, DROPPABLE);
    if (mlock(memory, DROPPABLE) < 0)
        _exit(95);
    say(to);
    hear(from);
}

static void read_file(int from, int to, int file) {
    static unsigned char buffer[FILE_BITE];

    write_blocks(drp_region_address(droppable_memory(DROPPABLE)), DROPPABLE);
    say(to);
    hear(from);
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t at = 0; at < FILE_SIZE; at += FILE_BITE)
            if (pread(file, buffer, FILE_BITE, (off_t)at) != FILE_BITE)
                _exit(96);
    say(to);
    hear(from);
}

struct toucher {
    pthread_t thread;
    volatile unsigned char *memory;
    uint64_t pages;
    uint64_t stride; /* pages; odd, so that it meets every page of a power of two */
    uint64_t touched;
};

/* Each page of its part once, as far as the time goes. */
static void *touch_part(void *data) {
    struct toucher *toucher = data;
    uint64_t deadline = now_ms() + CROWD_MS, page = 0;

    for (; toucher->touched < toucher->pages && now_ms() < deadline; toucher->touched++) {
        toucher->memory[page * PAGE] = 1;
        page = (page + toucher->stride) % toucher->pages;
    }
    return NULL;
}

static void crowd(int from, int to, uint64_t stride) {
    struct toucher touchers[CROWD_THREADS];
    unsigned char *memory = drp_region_address(droppable_memory(CROWD_SIZE));
    uint64_t touched = 0;

    (void)from;
    for (unsigned i = 0; i < CROWD_THREADS; i++) {
        touchers[i] = (struct toucher){.memory = memory + i * (CROWD_SIZE / CROWD_THREADS),
                                       .pages = CROWD_SIZE / CROWD_THREADS / PAGE,
                                       .stride = stride};
        if (pthread_create(&touchers[i].thread, NULL, touch_part, &touchers[i]) != 0)
            _exit(97);
    }
    for (unsigned i = 0; i < CROWD_THREADS; i++) {
        pthread_join(touchers[i].thread, NULL);
        touched += touchers[i].touched;
    }
    printf("8 threads touched %" PRIu64 " MiB in all\n", touched * PAGE / MIB);
    fflush(stdout);
    say(to);
}

static void crowd_in_order(int from, int to, int file) {
    (void)file;
    crowd(from, to, 1);
}

/* Never two pages of a span in a row. */
static void crowd_scattered(int from, int to, int file) {
    (void)file;
    crowd(from, to, 7919);
}

/* ---- the guests from outside ---- */

static struct guest guest_start(const struct memcg *memcg, void (*run)(int from, int to, int file), int file) {
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
        memcg_enter(memcg);
        run(to[0], from[1], file);
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    guest.to = to[1];
    guest.from = from[0];
    return guest;
}

static void note_headroom(const struct memcg *memcg, struct result *result) {
    uint64_t headroom = memcg_headroom(memcg);

    if (headroom < result->lowest)
        result->lowest = headroom;
}

/* Looks at the cgroup until the guest says something (true) or is gone. */
static bool guest_wait(const struct guest *guest, const struct memcg *memcg, struct result *result) {
    uint64_t deadline = now_ms() + STEP_MS;
    struct timespec pause = {.tv_nsec = 500000};
    struct pollfd fd = {.fd = guest->from, .events = POLLIN};
    char byte;

    for (;;) {
        note_headroom(memcg, result);
        if (poll(&fd, 1, 0) > 0)
            return read(guest->from, &byte, 1) == 1;
        ck_assert_msg(now_ms() < deadline, "process %d of the run hangs", (int)guest->pid);
        nanosleep(&pause, NULL);
    }
}

/* True: it was alive, and ended well. */
static bool guest_end(struct guest *guest) {
    int status = 0;

    /* The last hear(); a guest that is gone does not mind. */
    signal(SIGPIPE, SIG_IGN);
    (void)!write(guest->to, "", 1);
    ck_assert_int_eq(waitpid(guest->pid, &status, 0), guest->pid);
    close(guest->to);
    close(guest->from);
    ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) == 0, "a step of the run failed: %d", WEXITSTATUS(status));
    return WIFEXITED(status);
}

static struct memcg cgroup_make(void) {
    const char *reason = "";
    struct memcg memcg;

    ck_assert_msg(memcg_make(&memcg, LIMIT, &reason), "no cgroup: %s", reason);
    return memcg;
}

static void take_counters(const struct memcg *memcg, struct result *result) {
    result->kills = memcg_oom_kills(memcg);
    result->failures = memcg_failures(memcg);
}

static void print_result(const char *what, unsigned run, const struct result *result) {
    printf("%s, run %u: dropped %" PRIu64 ".%" PRIu64 " MiB, lowest headroom %" PRIu64 ".%" PRIu64
           " MiB, OOM kills %" PRIu64 ", at the limit %" PRIu64 " times, %" PRIu64 " ms%s\n",
           what, run, result->dropped / MIB, result->dropped % MIB * 10 / MIB, result->lowest / MIB,
           result->lowest % MIB * 10 / MIB, result->kills, result->failures, result->ms,
           result->ended_well ? "" : ": KILLED");
    fflush(stdout);
}

/* One process holds memory, another one takes more than is left. */
static struct result run_hog(void (*holder_run)(int from, int to, int file)) {
    struct result result = {.lowest = UINT64_MAX};
    struct memcg memcg = cgroup_make();
    struct guest holder = guest_start(&memcg, holder_run, -1), taker;
    uint64_t start;

    ck_assert_msg(guest_wait(&holder, &memcg, &result), "the memory to be taken could not be filled");
    start = now_ms();
    taker = guest_start(&memcg, hog, -1);
    result.ended_well = guest_wait(&taker, &memcg, &result);
    result.ms = now_ms() - start;
    result.ended_well &= guest_end(&taker);
    result.ended_well &= guest_end(&holder);
    take_counters(&memcg, &result);
    memcg_remove(&memcg);
    return result;
}

static void start_with_reserve(struct service *service, const char *reserve) {
    char config[64];

    snprintf(config, sizeof(config), "[Pressure]\nCgroupReserve=%s\n", reserve);
    service_start(service, config);
}

/* ---- the bars ---- */

START_TEST(oom_killer_comes_without) {
    struct result result = run_hog(hold_pinned);

    print_result("128 MiB of plain memory and a hog", 1, &result);
    ck_assert_msg(result.kills > 0 && !result.ended_well, "190 MiB beside 128 MiB fit into 256 MiB: is there swap?");
}
END_TEST

static const char *const hog_reserves[] = {"64M", "32M"};

START_TEST(pages_go_before_oom_killer) {
    const char *reserve = hog_reserves[_i];
    struct service service;
    char what[64];
    unsigned good = 0;

    snprintf(what, sizeof(what), "hog, reserve %s", reserve);
    start_with_reserve(&service, reserve);
    for (unsigned run = 1; run <= RUNS; run++) {
        uint64_t dropped = service_status(&service, "dropped_bytes");
        struct result result = run_hog(hold_droppable);

        result.dropped = service_status(&service, "dropped_bytes") - dropped;
        print_result(what, run, &result);
        good += result.kills == 0 && result.ended_well;
    }
    printf("%s: %u of %u without OOM kill\n", what, good, RUNS);
    service_stop(&service);
    ck_assert_uint_eq(good, RUNS);
}
END_TEST

/* A file on disk of which nothing is in the page cache: what a reader brings in is charged to the reader. */
static int make_file(void) {
    static unsigned char buffer[FILE_BITE];
    const char *dir = getenv("DROPPABLE_TEST_BINDIR");
    char path[4096];
    struct statfs fs;
    int file;

    snprintf(path, sizeof(path), "%s/test-bars-XXXXXX", dir ? dir : ".");
    file = mkostemp(path, O_CLOEXEC);
    ck_assert_msg(file >= 0, "%s: %s", path, strerror(errno));
    unlink(path);
    ck_assert_int_eq(fstatfs(file, &fs), 0);
    if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) {
        close(file);
        return -1;
    }
    for (uint64_t at = 0; at < FILE_SIZE; at += FILE_BITE) {
        for (size_t i = 0; i < sizeof(buffer); i += sizeof(at))
            memcpy(buffer + i, &(uint64_t){(at + i) * UINT64_C(0x9e3779b97f4a7c15)}, sizeof(at));
        ck_assert_int_eq(write(file, buffer, sizeof(buffer)), (ssize_t)sizeof(buffer));
    }
    ck_assert_int_eq(fsync(file), 0);
    return file;
}

static const char *const reader_reserves[] = {"auto", "64M"};

START_TEST(reading_costs_little) {
    const char *reserve = reader_reserves[_i];
    struct result result = {.lowest = UINT64_MAX};
    struct service service;
    struct memcg memcg;
    struct guest reader;
    uint64_t dropped, usage;
    char what[64];
    int file = make_file();

    if (file < 0) {
        printf("reading a file: skipped: the build directory is in memory\n");
        return;
    }
    ck_assert_int_eq(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    snprintf(what, sizeof(what), "reading 1 GiB twice, reserve %s", reserve);
    start_with_reserve(&service, reserve);
    dropped = service_status(&service, "dropped_bytes");
    memcg = cgroup_make();
    reader = guest_start(&memcg, read_file, file);
    ck_assert_msg(guest_wait(&reader, &memcg, &result), "the memory to be kept could not be filled");
    ck_assert_uint_eq(service_status(&service, "dropped_bytes"), dropped);
    result.ms = now_ms();
    (void)!write(reader.to, "", 1);
    result.ended_well = guest_wait(&reader, &memcg, &result);
    result.ms = now_ms() - result.ms;
    usage = memcg_usage(&memcg);
    result.dropped = service_status(&service, "dropped_bytes") - dropped;
    result.ended_well &= guest_end(&reader);
    take_counters(&memcg, &result);
    print_result(what, 1, &result);
    memcg_remove(&memcg);
    service_stop(&service);
    close(file);
    ck_assert(result.ended_well);
    ck_assert_msg(usage > LIMIT * 3 / 4, "the page cache was not charged to the reader: usage %" PRIu64, usage);
    ck_assert_uint_le(result.dropped, LOSS_MAX);
}
END_TEST

struct crowd_row {
    const char *what;
    void (*run)(int from, int to, int file);
};

static const struct crowd_row crowds[] = {
    {"8 threads touch 512 MiB in order, reserve 32M", crowd_in_order},
    {"8 threads touch 512 MiB scattered, reserve 32M", crowd_scattered},
};

/* Not a bar yet: what becomes of it is printed. */
START_TEST(crowd_of_own_threads) {
    const struct crowd_row *row = &crowds[_i];
    struct service service;
    unsigned good = 0;

    start_with_reserve(&service, "32M");
    for (unsigned run = 1; run <= CROWD_RUNS; run++) {
        struct result result = {.lowest = UINT64_MAX, .ms = now_ms()};
        uint64_t dropped = service_status(&service, "dropped_bytes");
        struct memcg memcg = cgroup_make();
        struct guest guest = guest_start(&memcg, row->run, -1);

        result.ended_well = guest_wait(&guest, &memcg, &result);
        result.ms = now_ms() - result.ms;
        result.ended_well &= guest_end(&guest);
        take_counters(&memcg, &result);
        result.dropped = service_status(&service, "dropped_bytes") - dropped;
        print_result(row->what, run, &result);
        good += result.kills == 0 && result.ended_well;
        memcg_remove(&memcg);
    }
    printf("%s: %u of %u not killed (information)\n", row->what, good, CROWD_RUNS);
    service_stop(&service);
}
END_TEST

/* Cases of their own, so that CK_RUN_CASE= can choose. */
static void add_case(Suite *suite, const char *name, const TTest *test, int end) {
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, 150);
    tcase_add_loop_test(tcase, test, 0, end);
    suite_add_tcase(suite, tcase);
}

static Suite *make_suite(void) {
    Suite *suite = suite_create("bars-pressure");

    add_case(suite, "control", oom_killer_comes_without, 1);
    add_case(suite, "hog", pages_go_before_oom_killer, 2);
    add_case(suite, "reading", reading_costs_little, 2);
    add_case(suite, "crowd", crowd_of_own_threads, 2);
    return suite;
}

int main(void) {
    const char *reason = "";
    struct memcg memcg;
    SRunner *runner;
    int failed;

    if (!memcg_make(&memcg, LIMIT, &reason))
        skip_all(reason);
    memcg_remove(&memcg);
    runner = srunner_create(make_suite());
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
