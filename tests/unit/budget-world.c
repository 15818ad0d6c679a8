/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE

#include "budget-world.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

struct manager manager;
struct config config;
struct domain machine, slice, cache;
struct session sessions[3];
struct region regions[3];
uint64_t now;
static struct drop_job pools[3][DROPPER_POOL];

static void make_domain(struct domain *domain, struct domain *parent, const char *path, uint64_t id) {
    *domain = (struct domain){.parent = parent, .path = (char *)(uintptr_t)path, .id = id, .refs = 1};
    LIST_INSERT_HEAD(&manager.domains.list, domain, link);
}

int open_process(pid_t pid) {
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void make_session(unsigned i, uid_t uid, struct domain *domain) {
    struct session *session = &sessions[i];
    struct region *region = &regions[i];

    *session = (struct session){.id = 10 + i, .pid = (pid_t)(100 + i), .uid = uid, .domain = domain};
    session->pidfd = open_process(getpid()); /* somebody who lives */
    home_init(&session->home, &manager, session->id, session);
    session->home.dropper.worker.started = true; /* its thread is not there: jobs wait */
    session->home.dropper.worker.tid = -1;
    session->home.dropper.pool = pools[i];
    *region = (struct region){.id = 20 + i, .home = &session->home, .priority = 2, .data_sent = true};
    region->data_fd = memfd_create("test-budget", MFD_CLOEXEC);
    ck_assert_int_ge(region->data_fd, 0);
    LIST_INSERT_HEAD(&session->home.regions, region, link);
    ck_assert_int_eq(manager_add_session(&manager, session), 0);
}

void world_setup(void) {
    config_init(&config);
    manager = (struct manager){.config = &config};
    manager.kernel.fill_rate = 1024 * MIB;
    pthread_mutex_init(&manager.lock, NULL);
    plans_init(&manager.pressure.plans, &manager);
    budgets_init(&manager);
    make_domain(&machine, NULL, "", 1);
    make_domain(&slice, &machine, "/jobs", 2);
    make_domain(&cache, &slice, "/jobs/cache", 3);
    make_session(0, ALICE, &cache);
    make_session(1, ALICE, &slice);
    make_session(2, BOB, &machine);
    now = kernel_now();
}

void world_teardown(void) {
    for (int i = 0; i < 3; i++) {
        manager_remove_session(&manager, &sessions[i]);
        close(regions[i].data_fd);
        close(sessions[i].pidfd);
    }
    budgets_deinit(&manager);
    config_deinit(&config);
}

void fill(unsigned i, uint64_t bytes) {
    ck_assert_int_eq(ftruncate(regions[i].data_fd, 0), 0);
    if (bytes > 0)
        ck_assert_int_eq(fallocate(regions[i].data_fd, 0, 0, (off_t)bytes), 0);
}

static struct budget_object object_of(enum budget_scope scope, uint64_t id) {
    struct budget_object object = {.scope = scope, .id = id, .path = "/jobs"};

    for (int i = 0; i < 3; i++) {
        if (scope == BUDGET_SESSION && sessions[i].id == id)
            object.session = &sessions[i];
        if (scope == BUDGET_REGION && regions[i].id == id)
            object.region = &regions[i];
    }
    return object;
}

int set(uid_t by, enum budget_scope scope, uint64_t id, enum limit_kind kind, uint64_t value) {
    struct limit_values values = {.mask = LIMIT_BIT(kind)}, effective;
    struct budget_object object = object_of(scope, id);

    values.of[kind] = value;
    return budget_set(&manager, by, by == ROOT, &object, &values, &effective);
}

uint64_t get(enum budget_scope scope, uint64_t id, enum limit_kind kind) {
    struct budget_object object = object_of(scope, id);
    struct limit_values effective;

    ck_assert_int_eq(budget_set(&manager, 5, false, &object, &(struct limit_values){0}, &effective), 0);
    ck_assert(effective.mask & LIMIT_BIT(kind));
    return effective.of[kind];
}

size_t look_at(struct budget_excess *ret) {
    uint64_t wait;
    size_t n;

    wait = budget_look(&manager, now, ret, &n);
    if (n == 0 && wait != UINT64_MAX) {
        now += wait;
        budget_look(&manager, now, ret, &n);
    }
    return n;
}

struct budget_excess look(void) {
    struct budget_excess list[BUDGET_AT_ONCE];

    if (look_at(list) == 0)
        return (struct budget_excess){0};
    budget_note_asked(&list[0], now, false);
    return list[0];
}
