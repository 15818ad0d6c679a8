/* SPDX-License-Identifier: MIT */
/*
 * Nothing of a region reaches swap or a core dump. In a virtual machine with a swap file only ($DROPPABLE_SWAP_FILE), whose bytes are read:
 *
 *   swap  clients fill their memory with patterns of their own and a hog pushes everything out: with the service, after it was killed with -9, and
 *         with the next one. The service drops next to nothing, as it has a reserve of a page; what is pinned must stay, or nothing was shown.
 *         Plain private and plain shared memory are there beside it, and must be found.
 *   core  the same clients crash: their cores are searched, with all kinds of mappings in them (coredump_filter).
 *   unit  as swap, with the service that is installed ($DROPPABLE_SWAP_UNIT; its reserve has to be a page, too): it is not root, and has what its
 *         unit gives it. It is stopped, started, and killed.
 *
 * A page counts as found if an eighth of its words are the pattern: a single one may be the client's own copy of it.
 */

#include "fixture.h"
#include "installed.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define PAGE ((size_t)4096)
#define WORDS (PAGE / sizeof(uint64_t))
#define MIB ((size_t)1 << 20)
#define SIZE (64 * MIB)
#define HOG (400 * MIB)
#define STEP_MS 300000
#define CORE "/var/tmp/core"

static const char *program;

/* ---- holders, programs of their own: say a byte when their memory is full, and wait for one: 'c' is to crash ---- */

enum kind { PRIVATE, SHARED, REGION, HUGE, JOINT, PRELOAD, KINDS };
static const char *const names[KINDS] = {"private", "shared", "region", "huge", "joint", "preload"};

static uint64_t pattern(enum kind kind) {
    return UINT64_C(0x9d3f5a17c0de4b00) * (uint64_t)(kind + 1) ^ UINT64_C(0x5bd1e995a7c93f11);
}

static void *make_region(uint64_t required) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = required};
    struct drp_region *region;
    struct drp *d;

    if (drp_new(&d, NULL) < 0)
        return NULL;
    if (drp_region_new(&region, d, SIZE, &options) < 0 || drp_pin(region, 0, SIZE, NULL) < 0) {
        fprintf(stderr, "region: %s\n", drp_detail());
        return NULL;
    }
    return drp_region_address(region);
}

static void *make_memory(enum kind kind) {
    static const int flags[KINDS] = {[PRIVATE] = MAP_PRIVATE, [SHARED] = MAP_SHARED, [PRELOAD] = MAP_DROPPABLE};
    static const uint64_t required[KINDS] = {
        [REGION] = DRP_REGION_NO_SWAP, [HUGE] = DRP_REGION_NO_SWAP | DRP_REGION_HUGE, [JOINT] = DRP_REGION_NO_SWAP | DRP_REGION_SHARED};
    void *p;

    if (required[kind])
        return make_region(required[kind]);
    p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags[kind] | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int hold(enum kind kind) {
    uint64_t *words = make_memory(kind);
    char word = words ? 'f' : 'e';

    if (words)
        for (size_t i = 0; i < SIZE / sizeof(*words); i++)
            words[i] = pattern(kind);
    if (write(STDOUT_FILENO, &word, 1) != 1 || !words || read(STDIN_FILENO, &word, 1) != 1)
        return EXIT_FAILURE;
    if (word == 'c')
        abort();
    return EXIT_SUCCESS;
}

struct holder {
    pid_t pid;
    int to, from;
};

static void become_holder(enum kind kind, int in, int out) {
    struct rlimit core = {RLIM_INFINITY, RLIM_INFINITY};
    char library[256];
    int fd;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &core);
    fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0x7f", 4) != 4)
        _exit(99);
    if (kind == PRELOAD) {
        snprintf(library, sizeof(library), "%s/libdroppable-preload.so", getenv("DROPPABLE_TEST_BINDIR"));
        setenv("LD_PRELOAD", library, 1);
        setenv("DROPPABLE_BACKEND", "daemon", 1);
    }
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    execl(program, program, "hold", names[kind], (char *)NULL);
    _exit(98);
}

/* false: it could not get its memory. */
static bool holder_start(struct holder *holder, enum kind kind) {
    int to[2], from[2];
    char word = 0;

    ck_assert(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    holder->pid = fork();
    ck_assert_int_ge(holder->pid, 0);
    if (holder->pid == 0)
        become_holder(kind, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    holder->to = to[1];
    holder->from = from[0];
    ck_assert_int_eq(poll(&(struct pollfd){.fd = holder->from, .events = POLLIN}, 1, STEP_MS), 1);
    ck_assert_int_eq(read(holder->from, &word, 1), 1);
    return word == 'f';
}

/* Its status. */
static int holder_end(struct holder *holder, char word) {
    int status;

    ck_assert_int_eq(write(holder->to, &word, 1), 1);
    ck_assert_int_eq(waitpid(holder->pid, &status, 0), holder->pid);
    close(holder->to);
    close(holder->from);
    return status;
}

/* ---- searching ---- */

static void count(const uint64_t *words, size_t n_pages, size_t *found) {
    for (size_t page = 0; page < n_pages; page++, words += WORDS) {
        size_t n[KINDS] = {0};

        for (size_t i = 0; i < WORDS; i++)
            for (int kind = 0; kind < KINDS; kind++)
                n[kind] += words[i] == pattern((enum kind)kind);
        for (int kind = 0; kind < KINDS; kind++)
            found[kind] += n[kind] >= WORDS / 8;
    }
}

/* Pages of a file that hold the patterns, as they are on the disk. */
static void search(const char *path, size_t found[KINDS]) {
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    void *buffer;
    ssize_t n;

    memset(found, 0, KINDS * sizeof(*found));
    ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
    ck_assert_int_eq(posix_memalign(&buffer, PAGE, MIB), 0);
    while ((n = read(fd, buffer, MIB)) > 0)
        count(buffer, (size_t)n / PAGE, found);
    ck_assert_int_eq(n, 0);
    free(buffer);
    close(fd);
}

/* ---- swap ---- */

static void run_hog(void) {
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        for (unsigned round = 1; round <= 2; round++) {
            uint64_t *p = mmap(NULL, HOG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

            if (p == MAP_FAILED)
                _exit(1);
            for (size_t i = 0; i < HOG / sizeof(*p); i += WORDS)
                p[i] = i + round;
            munmap(p, HOG);
            if (round == 2)
                _exit(0);
        }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

static void push_out(const char *when, const bool has[KINDS]) {
    size_t found[KINDS];

    run_hog();
    search(getenv("DROPPABLE_SWAP_FILE"), found);
    printf("swap, %s: pages in the swap file of %zu each:", when, SIZE / PAGE);
    for (int kind = 0; kind < KINDS; kind++)
        if (has[kind])
            printf(" %s %zu", names[kind], found[kind]);
    printf("\n");
    fflush(stdout);
    ck_assert_uint_gt(found[PRIVATE], 1000);
    ck_assert_uint_gt(found[SHARED], 1000);
    ck_assert_uint_eq(found[REGION] + found[HUGE] + found[JOINT] + found[PRELOAD], 0);
}

/* Of the regions and the arena: what stayed, and could have been swapped. */
static void check_resident(const char *when, size_t pinned) {
    uint64_t bytes = service_status(&service, "resident_bytes");

    printf("swap, %s: %ju MiB of regions are resident, of which %zu are pinned\n", when, (uintmax_t)bytes / MIB,
           pinned / MIB);
    ck_assert_uint_ge(bytes, pinned);
}

static struct holder holders[KINDS];
static bool has[KINDS];

/* How much of it is pinned. */
static size_t start_holders(void) {
    ck_assert(status_feature("noswap"));
    for (int kind = 0; kind < KINDS; kind++)
        has[kind] = holder_start(&holders[kind], (enum kind)kind);
    ck_assert(has[PRIVATE] && has[SHARED] && has[REGION] && has[PRELOAD]);
    if (!has[HUGE])
        printf("swap: huge pages cannot be kept out of swap here, and are refused\n");
    if (!has[JOINT])
        printf("swap: shared regions cannot be kept out of swap here, and are refused\n");
    return (1 + has[HUGE] + has[JOINT]) * SIZE;
}

static void end_holders(void) {
    for (int kind = 0; kind < KINDS; kind++)
        if (has[kind])
            ck_assert_int_eq(holder_end(&holders[kind], 'e'), 0);
}

static void expect_regions(void) {
    ck_assert(status_becomes("regions", 2 + has[HUGE] + has[JOINT], 60000));
}

START_TEST(test_swap) {
    size_t pinned;

    service_start(&service, "[Pressure]\nMachineReserve=4K\n");
    pinned = start_holders();
    push_out("with the service", has);
    check_resident("with the service", pinned);
    ck_assert(service_kill(&service, 60000));
    push_out("without a service", has);
    service_restart(&service);
    expect_regions();
    push_out("with the next service", has);
    check_resident("with the next service", pinned);
    end_holders();
    service_stop(&service);
}
END_TEST

START_TEST(test_unit) {
    size_t pinned;

    snprintf(service.socket, sizeof(service.socket), "/run/droppabled.sock");
    run("systemctl restart droppabled.service");
    pinned = start_holders();
    push_out("with the installed service", has);
    check_resident("with the installed service", pinned);
    run("systemctl stop droppabled.socket droppabled.service");
    push_out("while it is stopped", has);
    run("systemctl start droppabled.socket");
    expect_regions();
    push_out("when it is started again", has);
    check_resident("when it is started again", pinned);
    run("systemctl kill -s KILL droppabled.service");
    push_out("after it was killed", has);
    expect_regions();
    check_resident("after it was killed", pinned);
    end_holders();
}
END_TEST

/* ---- core ---- */

static void set_core_pattern(void) {
    int fd = open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, CORE, strlen(CORE)), (ssize_t)strlen(CORE));
    close(fd);
}

START_TEST(test_core) {
    struct holder holder;
    size_t found[KINDS];
    int status;

    set_core_pattern();
    service_start(&service, NULL);
    for (int kind = 0; kind < KINDS; kind++) {
        if (!holder_start(&holder, (enum kind)kind))
            continue; /* as in test_swap */
        status = holder_end(&holder, 'c');
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && WCOREDUMP(status));
        search(CORE, found);
        printf("core: of %s: %zu of %zu pages\n", names[kind], found[kind], SIZE / PAGE);
        ck_assert_uint_eq(found[kind], kind == PRIVATE || kind == SHARED ? SIZE / PAGE : 0);
        ck_assert_int_eq(unlink(CORE), 0);
    }
    service_stop(&service);
}
END_TEST

int main(int argc, char *argv[]) {
    Suite *suite = suite_create("swap");
    TCase *swap = tcase_create("swap"), *core = tcase_create("core");

    program = argv[0];
    for (int kind = 0; argc == 3 && kind < KINDS; kind++)
        if (strcmp(argv[2], names[kind]) == 0)
            return hold((enum kind)kind);
    if (getenv("DROPPABLE_SWAP_UNIT")) {
        TCase *unit = tcase_create("unit");

        tcase_set_timeout(unit, 80);
        tcase_add_test(unit, test_unit);
        suite_add_tcase(suite, unit);
        return suite_run(suite);
    }
    if (!getenv("DROPPABLE_SWAP_FILE"))
        skip_all("swap: a virtual machine with a swap file is needed: tests/vm/swap.sh");
    tcase_set_timeout(swap, 60);
    tcase_add_test(swap, test_swap);
    suite_add_tcase(suite, swap);
    tcase_set_timeout(core, 60);
    tcase_add_test(core, test_core);
    suite_add_tcase(suite, core);
    return suite_run(suite);
}
