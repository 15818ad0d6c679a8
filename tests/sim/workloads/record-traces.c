/* SPDX-License-Identifier: MIT */
/*
 * Records the traces of tests/sim/traces: the real daemon with --record, a workload in a memory cgroup that is too small for it, and a hog that
 * comes and goes beside it.
 *
 * usage: drp-record-traces WORKLOAD FILE [SECONDS [SEED [MIB]]]. SEED is of the workload and the hog, MIB the cgroup's limit. Needs root and a memory
 * controller. Exit status: 0 fine, 1 not, 2 wrong arguments.
 */

#include "child.h"
#include "memcg.h"
#include "service.h"
#include "workloads.h"

#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define MIB (UINT64_C(1) << 20)
#define LIMIT_MIB 200
#define HOG_STEP MIB
#define HOG_MOST 130
#define SECONDS 60

struct guest {
    const struct memcg *memcg;
    const struct workload *workload;
    uint64_t ms;
    uint64_t limit; /* bytes */
    unsigned seed;
    int log;
};

static void run_workload(int socket, void *data) {
    const struct guest *own = data;

    (void)socket;
    memcg_enter(own->memcg);
    workloads_seed(own->seed);
    own->workload->run(own->ms, own->log);
}

/* Takes 50 to 130 MiB within half a second or more, keeps it for a while, gives it back, and rests. */
static void run_hog(int socket, void *data) {
    const struct guest *own = data;
    unsigned state = 12345 + own->seed;

    (void)socket;
    memcg_enter(own->memcg);
    for (;;) {
        uint64_t size, most;
        char *memory;

        state = state * 1103515245 + 12345;
        most = (50 + state / 65536 % (HOG_MOST - 50)) * MIB;
        memory = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        child_check(memory != MAP_FAILED && madvise(memory, most, MADV_NOHUGEPAGE) == 0);
        for (size = 0; size < most; size += HOG_STEP) {
            memset(memory + size, 1, HOG_STEP);
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        }
        nanosleep(&(struct timespec){.tv_nsec = 800000000}, NULL);
        munmap(memory, most);
        nanosleep(&(struct timespec){.tv_nsec = 800000000}, NULL);
    }
}

/* ---- the program's own accesses between the daemon's lines ---- */

static uint64_t read_log(FILE *log, uint64_t *first, uint64_t *count) {
    uint64_t ns;

    return fscanf(log, "%" SCNu64 " %" SCNu64 " %" SCNu64, &ns, first, count) == 3 ? ns : UINT64_MAX;
}

/* All of the log that came before ms of the trace. Returns the time of the first one that did not. */
static uint64_t copy_log(FILE *log, FILE *to, uint64_t began, uint64_t until, uint64_t region, uint64_t ns,
                         uint64_t *first, uint64_t *count) {
    while (ns != UINT64_MAX && (ns - began) / 1000000 < until) {
        fprintf(to, "t %" PRIu64 "\na %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", (ns - began) / 1000000, region, *first,
                *count);
        ns = read_log(log, first, count);
    }
    return ns;
}

static void merge(FILE *trace, FILE *log, FILE *to, const char *command) {
    uint64_t began = 0, region = 0, first, count, ns = read_log(log, &first, &count);
    char line[256];

    while (fgets(line, sizeof(line), trace)) {
        if (line[0] == 't')
            ns = copy_log(log, to, began, strtoull(line + 2, NULL, 10), region, ns, &first, &count);
        if (line[0] == 'B')
            began = strtoull(line + 2, NULL, 10);
        if (line[0] == 'R')
            region = strtoull(line + 2, NULL, 10);
        fputs(line, to);
        if (line[0] == 'B')
            fprintf(to, "# %s\n", command);
    }
    copy_log(log, to, began, UINT64_MAX, region, ns, &first, &count);
}

/* ---- what Check runs, since the tests' support speaks to it ---- */

static struct guest guest = {.log = -1};
static char raw[4096];

START_TEST(record) {
    const char *reason = "";
    struct child hog, worker;
    struct service service;
    struct memcg memcg;
    int status;

    ck_assert_msg(memcg_make(&memcg, guest.limit, &reason), "no cgroup: %s", reason);
    guest.memcg = &memcg;
    service_record(raw);
    service_start(&service, "[Pressure]\nCgroupReserve=24M\n");
    child_start(&worker, run_workload, &guest);
    child_start(&hog, run_hog, &guest);
    ck_assert_int_eq(waitpid(worker.pid, &status, 0), worker.pid);
    ck_assert_msg(status == 0, "%s ended with status %#x", guest.workload->name, (unsigned)status);
    child_kill(&hog);
    service_stop(&service);
    printf("%s: %" PRIu64 " OOM kills\n", guest.workload->name, memcg_oom_kills(&memcg));
    memcg_remove(&memcg);
}
END_TEST

static int run(void) {
    Suite *suite = suite_create("record-traces");
    TCase *tcase = tcase_create("record");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, record);
    suite_add_tcase(suite, tcase);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed;
}

int main(int argc, char *argv[]) {
    char command[256];
    FILE *trace, *to;

    guest.ms = 1000 * (argc > 3 ? strtoull(argv[3], NULL, 10) : SECONDS);
    guest.seed = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
    guest.limit = MIB * (argc > 5 ? strtoull(argv[5], NULL, 10) : LIMIT_MIB);
    for (unsigned i = 0; argc > 2 && i < N_WORKLOADS; i++)
        if (strcmp(argv[1], workloads[i].name) == 0)
            guest.workload = &workloads[i];
    if (!guest.workload) {
        fprintf(stderr, "usage: drp-record-traces WORKLOAD FILE [SECONDS [SEED [MIB]]]\n");
        for (unsigned i = 0; i < N_WORKLOADS; i++)
            fprintf(stderr, "  %-14s %s\n", workloads[i].name, workloads[i].what);
        return 2;
    }
    guest.log = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC | O_APPEND, 0600);
    snprintf(raw, sizeof(raw), "%s.raw", argv[2]);
    if (run() != 0)
        return 1;
    snprintf(command, sizeof(command), "drp-record-traces %s, %" PRIu64 " s, seed %u, %" PRIu64 " MiB",
             guest.workload->name, guest.ms / 1000, guest.seed, guest.limit / MIB);
    trace = fopen(raw, "re");
    to = fopen(argv[2], "we");
    if (!trace || !to || guest.log < 0 || lseek(guest.log, 0, SEEK_SET) < 0)
        return 1;
    merge(trace, fdopen(guest.log, "r"), to, command);
    unlink(raw);
    return fclose(to) == 0 ? 0 : 1;
}
