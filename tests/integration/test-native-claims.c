/* SPDX-License-Identifier: MIT */
/*
 * Who tells the service of native memory himself: it takes nobody's word for what that is, nor for whose, whatever becomes of it.
 */

#include "child.h"
#include "fixture.h"
#include "native-memory.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- by hand ---- */

/* Nothing but droppable memory, all of it, once. */
START_TEST(test_lies) {
    int socket = raw_hello("liar");
    char *p = native_map(SIZE), *plain = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t id;

    ck_assert_int_eq(native_claim(socket, plain, MIB, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(native_claim(socket, (void *)0x1000, PAGE, NULL), DRP_WIRE_ERROR_INVALID); /* nothing is there */
    ck_assert_int_eq(native_claim(socket, (void *)((UINT64_C(1) << 56) - 2 * PAGE), PAGE, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(native_claim(socket, p - MIB, 2 * MIB, NULL), DRP_WIRE_ERROR_INVALID); /* its end alone */
    ck_assert_int_eq(munmap(p + 8 * MIB, PAGE), 0);
    ck_assert_int_eq(native_claim(socket, p, SIZE, NULL), DRP_WIRE_ERROR_INVALID); /* a hole */
    ck_assert_int_eq(native_claim(socket, p, UINT64_C(1) << 45, NULL), DRP_WIRE_ERROR_QUOTA);
    ck_assert_int_eq(native_claim(socket, p, 8 * MIB, &id), DRP_WIRE_OK);
    ck_assert_int_eq(native_claim(socket, p, 8 * MIB, NULL), DRP_WIRE_ERROR_EXISTS);
    ck_assert_int_eq(native_claim(socket, p + 7 * MIB, MIB, NULL), DRP_WIRE_ERROR_EXISTS);
    ck_assert_uint_eq(listing_count("regions"), 1);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_END_NATIVE, id + 1), DRP_WIRE_ERROR_NOT_FOUND);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_END_NATIVE, id), DRP_WIRE_OK);
    ck_assert_int_eq(native_claim(socket, p, 8 * MIB, &id), DRP_WIRE_OK);
    close(socket);
    munmap(plain, MIB);
    ck_assert(status_becomes("regions", 0, WAIT_MS));
    socket = raw_hello("liar");
    ck_assert_int_eq(native_claim_with(socket, "/proc/self/maps", p, PAGE, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(native_claim_with(socket, "/dev/null", p, PAGE, NULL), RAW_ENDED);
    close(socket);
    ck_assert_uint_eq(listing_count("regions"), 0);
    munmap(p, SIZE);
}
END_TEST

/* What else a region can be asked for is refused, and the connection goes on. */
START_TEST(test_not_for_it) {
    int socket = raw_session("native");
    char *p = native_map(SIZE);
    struct drp_wire_map map = {.header.type = DRP_WIRE_MAP, .address = (uintptr_t)p, .length = MIB};
    struct drp_wire_range range = {.header.type = DRP_WIRE_POPULATE, .length = MIB};
    struct drp_wire_limit limit = {.header.type = DRP_WIRE_LIMIT, .scope = DRP_LIMIT_REGION};
    struct raw_region other;

    ck_assert_int_eq(native_claim(socket, p, SIZE, &map.region), DRP_WIRE_OK);
    range.region = limit.id = map.region;
    ck_assert_int_eq(raw_call(socket, &map, sizeof(map), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
    ck_assert_int_eq(raw_call(socket, &range, sizeof(range), NULL, 0, NULL), DRP_WIRE_ERROR_NOT_INTERCEPTED);
    ck_assert_int_eq(raw_call(socket, &limit, sizeof(limit), NULL, 0, NULL), DRP_WIRE_OK);
    memset(p, 1, SIZE);
    range.header.type = DRP_WIRE_DROP;
    ck_assert_int_eq(raw_call(socket, &range, sizeof(range), NULL, 0, NULL), DRP_WIRE_OK);
    ck_assert_uint_ge(native_resident(p, SIZE), SIZE - MIB);
    ck_assert_uint_le(native_resident(p, SIZE), SIZE - MIB + BATCHES);
    raw_region_new(socket, MIB, &other);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_END_NATIVE, other.id), DRP_WIRE_ERROR_NOT_FOUND);
    raw_region_end(socket, &other);
    ck_assert_int_eq(raw_id(socket, DRP_WIRE_DESTROY, map.region), DRP_WIRE_OK);
    close(socket);
    munmap(p, SIZE);
}
END_TEST

/* Other memory comes where it was: that is kept, is found out, and keeps nobody else's from going. */
START_TEST(test_exchanged) {
    int socket = raw_hello("exchanger");
    struct drp_region *honest = native_make(SIZE, DRP_PRIORITY_HIGH, 0);
    char *p = native_map(SIZE);
    uint64_t id;

    ck_assert_int_eq(native_claim(socket, p, SIZE, &id), DRP_WIRE_OK);
    ck_assert_ptr_eq(mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), p);
    memset(p, 1, SIZE);
    memset(drp_region_address(honest), 1, SIZE);
    native_expect_counted(id, SIZE);
    native_expect_counted(native_id_of(honest), SIZE);
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"free", "16M", NULL}), 0);
    ck_assert(is_filled(p, 1, SIZE));
    ck_assert_uint_le(native_region_resident(honest), 16 * MIB);
    native_expect_counted(id, 0); /* it counts no more */
    close(socket);
    munmap(p, SIZE);
    drp_region_free(honest);
}
END_TEST

static void give_up(int socket, void *data) {
    char *p = native_map(SIZE);
    int session = raw_hello("short");

    (void)data;
    memset(p, 1, SIZE);
    child_check(native_claim(session, p, SIZE, NULL) == DRP_WIRE_OK);
    child_check(child_say(socket, 'r'));
    for (;;)
        pause();
}

/* It is forgotten with its client, while it is dropped from, too. */
START_TEST(test_killed) {
    struct child child;

    for (int i = 0; i < 5; i++) {
        child_start(&child, give_up, NULL);
        child_expect(&child, 'r');
        if (i % 2)
            service_ctl(&service, NULL, 0, (const char *const[]){"free", "8M", NULL});
        child_kill(&child);
        ck_assert(status_becomes("regions", 0, WAIT_MS));
    }
}
END_TEST

static void drop_on(int socket, void *data) {
    char pid[16];

    (void)data;
    snprintf(pid, sizeof(pid), "%d", (int)getppid());
    child_check(child_say(socket, 'r'));
    for (;;)
        service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--pid", pid, NULL});
}

/* A region's end waits for the drop that is in the middle of it: that is several slices. */
START_TEST(test_ended_under_way) {
    struct child child;

    child_start(&child, drop_on, NULL);
    child_expect(&child, 'r');
    for (int i = 0; i < 20; i++) {
        struct drp_region *regions[2] = {native_make(4 * SIZE, 0, 0), native_make(4 * SIZE, 0, 0)};

        memset(drp_region_address(regions[0]), 1, 4 * SIZE);
        memset(drp_region_address(regions[1]), 1, 4 * SIZE);
        drp_region_free(regions[1]);
        drp_region_free(regions[0]);
    }
    child_kill(&child);
    ck_assert(status_becomes("regions", 0, WAIT_MS));
}
END_TEST

/* ---- another program ---- */

#define HOLD "hold"

/* As the program that a client runs: has memory of the same kind at the same address, and the connection that he has left open. */
static int hold(const char *address, const char *socket) {
    void *at = (void *)(uintptr_t)strtoull(address, NULL, 16); /* NOLINT(performance-no-int-to-ptr) */
    int fd = atoi(socket);
    char word;

    if (mmap(at, SIZE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
        return 1;
    memset(at, 1, SIZE);
    return child_say(fd, 'h') && child_hear(fd, &word) && is_filled(at, 1, SIZE) && child_say(fd, 'f') ? 0 : 1;
}

static void run_program(int socket, void *data) {
    char address[32], fd[16];
    void *p = native_map(SIZE);
    int session = raw_hello("runner");

    memset(p, 1, SIZE);
    child_check(native_claim(session, p, SIZE, data) == DRP_WIRE_OK);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)p);
    snprintf(fd, sizeof(fd), "%d", socket);
    child_check(fcntl(session, F_SETFD, 0) == 0 && fcntl(socket, F_SETFD, 0) == 0);
    execl("/proc/self/exe", "test-native", HOLD, address, fd, (char *)NULL);
    child_check(false);
}

/* What he ran is nobody's business: it is not counted, and not dropped from, as long as the connection may last. */
START_TEST(test_executed) {
    uint64_t *id = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child child;
    char region[24];

    ck_assert_ptr_ne(id, MAP_FAILED);
    child_start(&child, run_program, id);
    child_expect(&child, 'h');
    native_expect_counted(*id, 0);
    snprintf(region, sizeof(region), "%llu", (unsigned long long)*id);
    service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--region", region, NULL});
    service_ctl(&service, NULL, 0, (const char *const[]){"free", "64M", NULL});
    nap_ms(200); /* several counts */
    native_expect_counted(*id, 0);
    ck_assert(child_say(child.socket, 'l'));
    child_expect(&child, 'f');
    child_end(&child);
    munmap(id, PAGE);
}
END_TEST

/* A program of root's, that everybody may run as root. */
struct privileged {
    void *at;
    pid_t other;
    uint64_t id;
    char program[sizeof(service.dir) + 16];
};

static void own_much(int socket, void *data) {
    const struct privileged *privileged = data;
    char word;

    child_become_nobody();
    memset(privileged->at, 1, SIZE);
    child_check(child_say(socket, 'r') && child_hear(socket, &word));
}

static void run_privileged(int socket, void *data) {
    struct privileged *privileged = data;
    char address[32], fd[16], pagemap[48];
    int session;

    child_become_nobody();
    session = raw_hello("runner");
    snprintf(pagemap, sizeof(pagemap), "/proc/%d/pagemap", (int)privileged->other);
    child_check(native_claim_with(session, pagemap, privileged->at, SIZE, &privileged->id) == DRP_WIRE_OK);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)privileged->at);
    snprintf(fd, sizeof(fd), "%d", socket);
    child_check(fcntl(session, F_SETFD, 0) == 0 && fcntl(socket, F_SETFD, 0) == 0);
    execl(privileged->program, "test-native", HOLD, address, fd, (char *)NULL);
    child_check(false);
}

static bool may_gain_privileges(const char *path) {
    struct statvfs fs;

    ck_assert_int_eq(statvfs(path, &fs), 0);
    return !(fs.f_flag & ST_NOSUID) && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0;
}

static void copy_program(const char *path) {
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    ssize_t n;

    ck_assert(from >= 0 && to >= 0);
    while ((n = sendfile(to, from, NULL, 1 << 30)) > 0)
        ;
    ck_assert_int_eq(n, 0);
    ck_assert_int_eq(fchmod(to, 04755), 0);
    close(from);
    close(to);
}

/* Another process's pagemap says what is where; what is there in the program that he runs is not dropped for it. */
START_TEST(test_privileged) {
    struct privileged *privileged = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child other, child;
    char region[24];

    ck_assert_ptr_ne(privileged, MAP_FAILED);
    if (!may_gain_privileges(service.dir)) {
        printf("a privileged program: skipped: nobody becomes root here\n");
        return;
    }
    privileged->at = native_map(SIZE);
    snprintf(privileged->program, sizeof(privileged->program), "%s/privileged", service.dir);
    copy_program(privileged->program);
    child_start(&other, own_much, privileged);
    child_expect(&other, 'r');
    privileged->other = other.pid;
    child_start(&child, run_privileged, privileged);
    child_expect(&child, 'h');
    native_expect_counted(privileged->id, SIZE);
    snprintf(region, sizeof(region), "%llu", (unsigned long long)privileged->id);
    service_ctl(&service, NULL, 0, (const char *const[]){"drop", "--region", region, NULL});
    native_expect_counted(privileged->id, 0);
    ck_assert(child_say(child.socket, 'l'));
    child_expect(&child, 'f');
    child_end(&child);
    ck_assert(child_say(other.socket, 'e'));
    child_end(&other);
    unlink(privileged->program);
    munmap(privileged->at, SIZE);
    munmap(privileged, PAGE);
}
END_TEST

int main(int argc, char **argv) {
    Suite *suite;
    TCase *tcase;

    if (argc == 4 && strcmp(argv[1], HOLD) == 0)
        return hold(argv[2], argv[3]);
    native_need();
    suite = suite_create("native-claims");
    tcase = tcase_create("native-claims");
    tcase_add_checked_fixture(tcase, native_setup, native_teardown);
    tcase_set_timeout(tcase, 180);
    tcase_add_test(tcase, test_lies);
    tcase_add_test(tcase, test_not_for_it);
    tcase_add_test(tcase, test_exchanged);
    tcase_add_test(tcase, test_killed);
    tcase_add_test(tcase, test_ended_under_way);
    tcase_add_test(tcase, test_executed);
    tcase_add_test(tcase, test_privileged);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
