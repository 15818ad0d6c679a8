/* SPDX-License-Identifier: MIT */
/* The matrix of backends and features is true: each yes can be had, and each no is refused and has a reason. */

#include "filter.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1 << 20)
#define SIZE (4 * MIB)
#define N_BACKENDS 3
#define TEXT_SIZE 65536

static const enum drp_backend backends[N_BACKENDS] = {DRP_BACKEND_DAEMON, DRP_BACKEND_NATIVE, DRP_BACKEND_NONE};

static struct drp_features *features;

static void setup(void) {
    fixture_setup();
    ck_assert_int_eq(drp_features_new(&features, NULL), 0);
}

static void teardown(void) {
    features = drp_features_free(features);
    fixture_teardown();
}

/* 1, 0; fails the test where there is no such feature. */
static int given(enum drp_backend backend, const char *wanted) {
    const char *name, *reason;
    int r;

    for (unsigned i = 0; (r = drp_features_get(features, i, backend, &name, &reason)) >= 0; i++)
        if (strcmp(name, wanted) == 0) {
            ck_assert(r == (reason[0] == '\0'));
            return r;
        }
    ck_abort_msg("no feature %s", wanted);
    return r;
}

static struct drp_region *make(struct drp *d, uint64_t required) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options),
        .required = required,
        .budget = required & DRP_REGION_BUDGET ? MIB : 0,
        .share = required & DRP_REGION_SHARE ? 50 : 0,
        .priority = required & DRP_REGION_PRIORITY ? DRP_PRIORITY_LOW : 0,
        .chunk_size = required & DRP_REGION_CHUNK_SIZE ? 64 * KIB : 0,
    };
    struct drp_region *region = NULL;
    int r = drp_region_new(&region, d, SIZE, &options);

    ck_assert(r == 0 || r == -EOPNOTSUPP);
    return region;
}

static const struct {
    const char *name;
    uint64_t bit;
} options[] = {
    {"signal", DRP_REGION_SIGNAL},
    {"shared", DRP_REGION_SHARED},
    {"shared-signal", DRP_REGION_SHARED | DRP_REGION_SIGNAL},
    {"shared-no-swap", DRP_REGION_SHARED | DRP_REGION_NO_SWAP},
    {"fork-shared", DRP_REGION_FORK_SHARED},
    {"fork-absent", DRP_REGION_FORK_ABSENT},
    {"dump", DRP_REGION_DUMP},
    {"no-swap", DRP_REGION_NO_SWAP},
    {"huge", DRP_REGION_HUGE},
    {"mergeable", DRP_REGION_MERGEABLE},
    {"budget", DRP_REGION_BUDGET},
    {"share", DRP_REGION_SHARE},
    {"priority", DRP_REGION_PRIORITY},
    {"chunk-size", DRP_REGION_CHUNK_SIZE},
};

static void expect_options(struct drp *d, enum drp_backend backend) {
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        struct drp_region *region = make(d, options[i].bit);

        ck_assert_msg((region != NULL) == given(backend, options[i].name), "%d: %s", (int)backend, options[i].name);
        drp_region_free(region);
    }
}

static void expect(enum drp_backend backend, const char *name, bool yes) {
    ck_assert_msg(yes == given(backend, name), "%d: %s", (int)backend, name);
}

static void expect_calls(struct drp *d, enum drp_backend backend) {
    struct drp_region *region = make(d, 0);
    struct drp_region_info info;
    uint64_t offset;
    uint32_t generation;
    int fd;

    ck_assert_ptr_nonnull(region);
    drp_region_get_info(region, &info);
    memset(info.address, 1, SIZE);
    expect(backend, "pins", drp_pin(region, 0, 1, NULL) == 0);
    drp_unpin(region, 0, 1);
    expect(backend, "generations", drp_copy_generations(region, 0, 1, &generation) == 1);
    expect(backend, "notification", drp_get_lost_fd(d) >= 0 && drp_region_get_lost_fd(region) >= 0);
    expect(backend, "volatile", drp_set_volatile(region, 0, SIZE) == 0);
    fd = drp_region_get_object(region, &offset);
    expect(backend, "object", fd >= 0);
    if (fd >= 0)
        ck_assert_int_eq(close(fd), 0);
    expect(backend, "interception", info.interception == DRP_INTERCEPTION_FULL);
    expect(backend, "chunk-size", info.chunk_size > 4096);
    expect(backend, "budget", drp_region_set_budget(region, SIZE) == 0);
    expect(backend, "share", drp_region_set_share(region, 50) == 0);
    expect(backend, "priority", drp_region_set_priority(region, DRP_PRIORITY_LOW) == 0);
    expect(backend, "drop-by-hand", drp_drop(region, 0, SIZE, NULL, NULL) == 0);
    ck_assert(is_zero(info.address, SIZE));
    expect(backend, "populate", drp_populate(region, 0, SIZE) == 0);
    drp_region_free(region);
}

/* Does a child find zeros where the parent has something? */
static bool is_zero_for_children(const void *memory) {
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(!is_zero(memory, SIZE));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status) == 0;
}

/* Does the kernel leave it out of core dumps? */
static bool is_left_out_of_cores(const void *memory) {
    FILE *file = fopen("/proc/self/smaps", "re");
    uintptr_t from, to, at = (uintptr_t)memory;
    bool ours = false, left_out = false;
    char line[512];

    ck_assert_ptr_nonnull(file);
    while (!left_out && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            ours = from <= at && at < to;
        left_out = ours && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd ");
    }
    fclose(file);
    return left_out;
}

/* As the service takes memory back from its clients, and the kernel from a process. */
static void need(void *memory) {
    ck_assert_int_eq(service_ctl(&service, NULL, 0, (const char *const[]){"free", "4M", NULL}), 0);
    (void)madvise(memory, SIZE, MADV_PAGEOUT); /* EINVAL: before Linux 5.4, where there is no native memory */
}

/* What a region is that nothing was asked for. */
static void expect_defaults(struct drp *d, enum drp_backend backend) {
    struct drp_region *region = make(d, 0);
    void *memory = drp_region_address(region);

    memset(memory, 1, SIZE);
    expect(backend, "fork-zeros", is_zero_for_children(memory));
    expect(backend, "no-dump", is_left_out_of_cores(memory));
    ck_assert(is_filled(memory, 1, SIZE));
    need(memory);
    expect(backend, "dropped-in-need", !is_filled(memory, 1, SIZE));
    drp_region_free(region);
}

static void expect_without_service(enum drp_backend backend) {
    const struct drp_config config = {
        .struct_size = sizeof(config), .backend = backend, .socket_path = "/nowhere/socket"};
    struct drp *d = NULL;

    expect(backend, "no-service", drp_new(&d, &config) == 0);
    drp_free(d);
}

START_TEST(test_true) {
    enum drp_backend backend = backends[_i];
    const struct drp_config config = {.struct_size = sizeof(config), .backend = backend};
    struct drp *d = NULL;

    expect(backend, "available", drp_new(&d, &config) == 0);
    if (!d)
        return;
    expect_options(d, backend);
    expect_calls(d, backend);
    expect_defaults(d, backend);
    drp_free(d);
    expect_without_service(backend);
}
END_TEST

START_TEST(test_unavailable) {
    const char *name, *reason;

    drp_features_free(features);
    ck_assert_int_eq(filter_install(&filter_no_droppable, 1, NULL), 0);
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", "/nowhere/socket", 1), 0);
    ck_assert_int_eq(drp_features_new(&features, NULL), 0);
    ck_assert_int_eq(setenv("DROPPABLE_SOCKET", service.socket, 1), 0);
    for (unsigned i = 0; drp_features_get(features, i, DRP_BACKEND_NONE, &name, &reason) >= 0; i++)
        for (int b = 0; b < 2; b++) {
            ck_assert_int_eq(drp_features_get(features, i, backends[b], &name, &reason), 0);
            ck_assert_str_ne(reason, "");
        }
    ck_assert_int_eq(drp_features_get(features, 0, DRP_BACKEND_NATIVE, &name, &reason), 0);
    ck_assert_ptr_nonnull(strstr(reason, "MAP_DROPPABLE"));
    ck_assert_int_eq(drp_features_get(features, 0, DRP_BACKEND_DAEMON, &name, &reason), 0);
    ck_assert_ptr_nonnull(strstr(reason, "/nowhere/socket"));
    ck_assert_int_eq(drp_features_get(features, 0, DRP_BACKEND_NONE, &name, &reason), 1);
    ck_assert_int_eq(drp_features_get(features, 0, DRP_BACKEND_AUTO, &name, &reason), -EINVAL);
    ck_assert_int_eq(drp_features_get(features, 1000, DRP_BACKEND_NONE, &name, &reason), -ERANGE);
}
END_TEST

static const char *reason_of(enum drp_backend backend, const char *wanted) {
    const char *name, *reason;

    for (unsigned i = 0; drp_features_get(features, i, backend, &name, &reason) >= 0; i++)
        if (strcmp(name, wanted) == 0)
            return reason;
    ck_abort_msg("no feature %s", wanted);
    return NULL;
}

/* A service that may not mount has huge pages where the system has them for shared memory, and says what is missing else. */
static void without_mounts(void) {
    static const struct filter_rule no_mounts = {.call = SYS_fsopen, .error = EPERM};

    ck_assert_int_eq(filter_install(&no_mounts, 1, NULL), 0);
    setup();
}

START_TEST(test_no_mounts) {
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    region = make(d, DRP_REGION_HUGE);
    expect(DRP_BACKEND_DAEMON, "huge", region != NULL);
    ck_assert(region || strstr(reason_of(DRP_BACKEND_DAEMON, "huge"), "shmem_enabled") ||
              access("/sys/kernel/mm/transparent_hugepage/shmem_enabled", F_OK) < 0);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

/* The same, as droppablectl prints it. */
START_TEST(test_printed) {
    static const char *const names[N_BACKENDS] = {"daemon", "native", "none"};
    static char text[TEXT_SIZE];
    struct json_object *object, *matrix;
    unsigned n = 0;

    ck_assert_int_eq(service_ctl(&service, text, sizeof(text), (const char *const[]){"--json", "probe", NULL}), 0);
    object = json_tokener_parse(text);
    matrix = json_object_object_get(object, "features");
    json_object_object_foreach(matrix, name, row) {
        for (int b = 0; b < N_BACKENDS; b++) {
            struct json_object *cell = json_object_object_get(row, names[b]);
            const char *reason = json_object_get_string(json_object_object_get(cell, "reason"));

            ck_assert_int_eq(json_object_get_boolean(json_object_object_get(cell, "given")), given(backends[b], name));
            ck_assert(given(backends[b], name) == !reason);
            n++;
        }
    }
    ck_assert_uint_gt(n, 60);
    json_object_put(object);
    ck_assert_int_eq(service_ctl(&service, text, sizeof(text), (const char *const[]){"probe", NULL}), 0);
    ck_assert_ptr_nonnull(strstr(text, "feature          daemon  native  none"));
    ck_assert_ptr_nonnull(strstr(text, "none lacks dropped-in-need, "));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("probe");
    TCase *tcase = tcase_create("probe");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_true, 0, N_BACKENDS);
    tcase_add_test(tcase, test_unavailable);
    tcase_add_test(tcase, test_printed);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("no-mounts");
    tcase_add_checked_fixture(tcase, without_mounts, teardown);
    tcase_add_test(tcase, test_no_mounts);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
