/* SPDX-License-Identifier: MIT */
/*
 * Runs of a bar: a cgroup, children in it, figures. The test's process stays outside of the cgroup, is single-threaded while it forks,
 * and asks the service for its counters before and after: what was dropped of a client that was killed counts, too.
 */

#include "bars.h"
#include "suite.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS 120000 /* an emulated guest on a busy host reads 2 GiB in a minute */
#define SETTLE_MS 300

/* ---- the test program ---- */

unsigned bars_runs(unsigned few) {
    const char *text = getenv("DROPPABLE_BAR_RUNS");
    unsigned runs = text ? (unsigned)strtoul(text, NULL, 10) : 0;

    return runs > 0 ? runs : few;
}

void bars_case(Suite *suite, const char *name, const TTest *test, size_t count, unsigned seconds) {
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, seconds * bars_runs(1));
    tcase_add_loop_test(tcase, test, 0, (int)count);
    suite_add_tcase(suite, tcase);
}

int bars_main(Suite *suite) {
    const char *reason = "";
    struct memcg memcg;

    if (!memcg_make(&memcg, 64 * MIB, &reason))
        skip_all(reason);
    memcg_remove(&memcg);
    return suite_run(suite);
}

void bars_service(const char *reserve) {
    char config[64];

    snprintf(config, sizeof(config), "[Pressure]\nCgroupReserve=%s\n", reserve);
    service_start(&service, config);
}

struct memcg bars_cgroup(uint64_t limit) {
    const char *reason = "";
    struct memcg memcg;

    ck_assert_msg(memcg_make(&memcg, limit, &reason), "no cgroup: %s", reason);
    return memcg;
}

int bars_file(uint64_t size) {
    static unsigned char buffer[MIB];
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
    for (uint64_t at = 0; at < size; at += sizeof(buffer)) {
        for (size_t i = 0; i < sizeof(buffer); i += sizeof(at))
            memcpy(buffer + i, &(uint64_t){(at + i) * UINT64_C(0x9e3779b97f4a7c15)}, sizeof(at));
        ck_assert_int_eq(write(file, buffer, sizeof(buffer)), (ssize_t)sizeof(buffer));
    }
    ck_assert_int_eq(fsync(file), 0);
    ck_assert_int_eq(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    return file;
}

/* ---- in a child ---- */

unsigned char *plain_memory(uint64_t size, bool huge) {
    uint64_t room = size + SPAN;
    unsigned char *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    child_check(memory != MAP_FAILED);
    memory += SPAN - (uintptr_t)memory % SPAN;
    child_check(madvise(memory, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0);
    return memory;
}

void write_blocks(unsigned char *memory, uint64_t size) {
    static unsigned char block[PAGE];

    memset(block, 0x5a, sizeof(block));
    for (uint64_t at = 0; at < size; at += PAGE)
        memcpy(memory + at, block, sizeof(block));
}

struct drp_region *droppable_memory(uint64_t size, const struct drp_region_options *options) {
    struct drp_region *region = NULL;
    struct drp *d = NULL;

    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, size, options) == 0);
    return region;
}

void stay(int socket) {
    char word;

    child_check(child_say(socket, 'r'));
    while (child_hear(socket, &word) && word != 'q')
        ;
}

/* ---- from outside ---- */

struct place {
    const struct memcg *memcg;
    void (*run)(int socket, void *data);
    void *data;
};

static void run_in_place(int socket, void *data) {
    const struct place *place = data;

    if (place->memcg)
        memcg_enter(place->memcg);
    place->run(socket, place->data);
}

void start_in(struct child *child, const struct memcg *memcg, void (*run)(int socket, void *data), void *data) {
    struct place place = {.memcg = memcg, .run = run, .data = data};

    child_start(child, run_in_place, &place);
}

/* Of a machine whose CPUs are another one's: no priority helps against that. */
static uint64_t stolen_ms(void) {
    uint64_t ticks = 0;
    FILE *file = fopen("/proc/stat", "re");

    if (file) {
        if (fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %" SCNu64, &ticks) != 1)
            ticks = 0;
        fclose(file);
    }
    return ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

void bars_begin(struct bars_run *run) {
    *run = (struct bars_run){.began = now_ms(), .stolen = stolen_ms(), .lowest = UINT64_MAX, .ended_well = true};
    if (service.pid > 0)
        run->dropped = service_status(&service, "dropped_bytes");
}

bool bars_wait(const struct child *child, const struct memcg *memcg, struct bars_run *run) {
    uint64_t deadline = now_ms() + STEP_MS;
    struct timespec pause = {.tv_nsec = 500000};
    struct pollfd fd = {.fd = child->socket, .events = POLLIN};
    char word;

    for (;;) {
        uint64_t headroom = memcg_headroom(memcg);

        if (headroom < run->lowest)
            run->lowest = headroom;
        if (poll(&fd, 1, 0) > 0) {
            bool said = read(child->socket, &word, 1) == 1;

            run->ended_well &= said;
            return said;
        }
        ck_assert_msg(now_ms() < deadline, "process %d of the run hangs", (int)child->pid);
        nanosleep(&pause, NULL);
    }
}

void bars_end(struct bars_run *run, const struct memcg *memcg) {
    run->ms = now_ms() - run->began;
    run->stolen = stolen_ms() - run->stolen;
    run->kills = memcg_oom_kills(memcg);
    run->failures = memcg_failures(memcg);
    run->dropped = service.pid > 0 ? service_status(&service, "dropped_bytes") - run->dropped : 0;
}

void bars_print(const char *what, unsigned number, const struct bars_run *run) {
    printf("%s, run %u: dropped %.1f MiB, lowest headroom %.1f MiB, OOM kills %" PRIu64 ", at the limit %" PRIu64
           " times, %" PRIu64 " ms, %" PRIu64 " ms stolen%s\n",
           what, number, (double)run->dropped / MIB, (double)run->lowest / MIB, run->kills, run->failures, run->ms,
           run->stolen, run->ended_well ? "" : ": KILLED");
}

bool bars_good(const struct bars_run *run) {
    return run->kills == 0 && run->ended_well;
}

uint64_t dropped_of(const struct child *child) {
    return listing_number("sessions", "pid", (uint64_t)child->pid, "dropped_bytes");
}

uint64_t demand(const struct memcg *memcg, uint64_t bytes) {
    char out[4096], size[32];
    const char *freed;

    snprintf(size, sizeof(size), "%" PRIu64, bytes);
    ck_assert_int_eq(
        service_ctl(&service, out, sizeof(out),
                    (const char *const[]){"--json", "free", size, "--cgroup", strrchr(memcg->path, '/'), NULL}),
        0);
    freed = strstr(out, "\"freed_bytes\":");
    ck_assert_msg(freed != NULL, "'free' says: %s", out);
    return strtoull(freed + strlen("\"freed_bytes\":"), NULL, 10);
}

void print_why(void) {
    static char out[65536];

    service_ctl(&service, out, sizeof(out), (const char *const[]){"why", NULL});
    fputs(out, stdout);
}

uint64_t settled_drops(void) {
    uint64_t deadline = now_ms() + STEP_MS, dropped = service_status(&service, "dropped_bytes"), since = now_ms(), now;

    while (now_ms() - since < SETTLE_MS) {
        ck_assert_msg(now_ms() < deadline, "the service does not stop dropping");
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        now = service_status(&service, "dropped_bytes");
        if (now != dropped)
            since = now_ms();
        dropped = now;
    }
    return dropped;
}
