/* SPDX-License-Identifier: MIT */
/*
 * What all sessions share: the kernel's features, the list of sessions, the domains, the pressure thread, the clock page, and the queue by which
 * other threads leave work for the loop.
 *
 * Always: the lists change in the loop only, under the lock; the pressure thread reads them under the lock. The lock inherits
 * priority, and is never held across a call that can wait for a client. Order: the manager's lock, then a home's.
 */

#include "manager.h"

#include "native.h"
#include "region.h"

#include "cgroup-place.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void manager_init_lock(pthread_mutex_t *lock) {
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
}

static int manager_make_clock(struct manager *manager) {
    int fd, r;

    r = kernel_page_object("droppable-clock", 4096, 0400, &fd);
    if (r < 0)
        return r;
    manager->clock = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (manager->clock == MAP_FAILED) {
        manager->clock = NULL;
        r = -errno;
    } else
        r = kernel_reopen_readonly(fd, &manager->clock_fd);
    close(fd);
    if (r < 0)
        return r;
    manager->clock->magic = DRP_CLOCK_MAGIC;
    manager_advance_clock(manager);
    return 0;
}

/*
 * A region costs five VMAs here, and as many descriptors: one, and one for each mapping whose pin page is not sealed. A shared one costs three times
 * as much (tally.h). A quarter of both is kept for connections and threads.
 */
static unsigned regions_that_fit(void) {
    struct rlimit files = {.rlim_cur = 1024};
    unsigned long maps = kernel_max_map_count();
    uint64_t fit;

    getrlimit(RLIMIT_NOFILE, &files);
    fit = (files.rlim_cur < maps ? files.rlim_cur : maps) / 4 * 3 / (1 + REGION_MAPPINGS_OWN);
    return fit < 65536 ? (unsigned)fit : 65536;
}

int manager_init(struct manager *manager, struct config *config) {
    int r;

    *manager = (struct manager){.config = config, .started = kernel_now(), .next_id = 1, .wake_fd = -1, .clock_fd = -1};
    LIST_INIT(&manager->sessions);
    LIST_INIT(&manager->leaving);
    LIST_INIT(&manager->homes);
    LIST_INIT(&manager->ending_homes);
    budgets_init(manager);
    TAILQ_INIT(&manager->completions);
    manager_init_lock(&manager->lock);
    manager_init_lock(&manager->completions_lock);
    r = budgets_hold_sections(manager, config);
    if (r < 0)
        return r;
    budgets_take_sections(manager, config);
    manager->max_regions = regions_that_fit();
    manager->native = native_available();
    r = kernel_init(&manager->kernel);
    if (r < 0)
        return r;
    manager->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker_pool_init(&manager->pool, manager->wake_fd);
    r = manager->wake_fd < 0 ? -errno : manager_make_clock(manager);
    if (r >= 0)
        r = domains_init(&manager->domains, &cgroup_real_roots, manager->wake_fd, manager->kernel.fill_rate,
                         config->machine_reserve, config->cgroup_reserve);
    if (r < 0)
        manager_deinit(manager);
    return r;
}

int manager_start(struct manager *manager) {
    return pressure_start(&manager->pressure, manager);
}

void manager_deinit(struct manager *manager) {
    pressure_stop(&manager->pressure);
    if (manager->wake_fd >= 0)
        manager_dispatch(manager); /* what it gave up, and what it finished behind the loop's end */
    worker_pool_deinit(&manager->pool);
    budgets_deinit(manager);
    if (manager->domains.machine)
        domains_deinit(&manager->domains);
    if (manager->clock)
        munmap(manager->clock, 4096);
    if (manager->clock_fd >= 0)
        close(manager->clock_fd);
    if (manager->wake_fd >= 0)
        close(manager->wake_fd);
    kernel_deinit(&manager->kernel);
    pthread_mutex_destroy(&manager->completions_lock);
    pthread_mutex_destroy(&manager->lock);
}

void manager_complete(struct manager *manager, struct completion *completion) {
    pthread_mutex_lock(&manager->completions_lock);
    TAILQ_INSERT_TAIL(&manager->completions, completion, link);
    pthread_mutex_unlock(&manager->completions_lock);
    (void)!write(manager->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

void manager_dispatch(struct manager *manager) {
    struct completion *completion;

    for (;;) {
        pthread_mutex_lock(&manager->completions_lock);
        completion = TAILQ_FIRST(&manager->completions);
        if (completion)
            TAILQ_REMOVE(&manager->completions, completion, link);
        pthread_mutex_unlock(&manager->completions_lock);
        if (!completion)
            break;
        completion->run(completion);
    }
}

void manager_add_home(struct manager *manager, struct home *home) {
    LIST_INSERT_HEAD(&manager->homes, home, link);
    manager->n_homes++;
}

void manager_remove_home(struct manager *manager, struct home *home) {
    _Atomic uint64_t *sum = (_Atomic uint64_t *)&manager->ended, *own = (_Atomic uint64_t *)&home->counters;

    LIST_REMOVE(home, link);
    manager->n_homes--;
    manager->n_native -= home->n_native; /* nobody takes these out one by one any more */
    for (size_t i = 0; i < sizeof(home->counters) / sizeof(*own); i++)
        counter_add(&sum[i], atomic_load(&own[i]));
    plans_trim(&manager->pressure.plans);
}

int manager_add_session(struct manager *manager, struct session *session) {
    int r;

    pthread_mutex_lock(&manager->lock);
    r = budget_join(manager, session);
    if (r >= 0) {
        LIST_INSERT_HEAD(&manager->sessions, session, link);
        manager->n_sessions++;
        manager_add_home(manager, &session->home);
    }
    pthread_mutex_unlock(&manager->lock);
    pressure_wake(&manager->pressure); /* it may sleep without end */
    return r;
}

void manager_remove_session(struct manager *manager, struct session *session) {
    pthread_mutex_lock(&manager->lock);
    LIST_REMOVE(session, link);
    LIST_INSERT_HEAD(&manager->leaving, session, link);
    session->left = kernel_now();
    budget_leave(manager, session);
    manager->n_sessions--;
    manager->n_regions -= session->n_regions - shared_count(session); /* whose homes stay */
    manager_remove_home(manager, &session->home);
    pthread_mutex_unlock(&manager->lock);
}

void manager_forget_session(struct manager *manager, struct session *session) {
    pthread_mutex_lock(&manager->lock);
    LIST_REMOVE(session, link);
    pthread_mutex_unlock(&manager->lock);
}

static bool is_at_object(const struct home *home, const struct stat *object) {
    const struct region *region;

    if (home_stopped(home))
        return false;
    LIST_FOREACH (region, &home->regions, link)
        if (region->inode == object->st_ino && region->device == object->st_dev)
            return true;
    return false;
}

bool manager_is_at_object(const struct session *session, int fd) {
    const struct manager *manager = session->manager;
    const struct session *other;
    const struct home *home;
    struct stat object;

    if (fstat(fd, &object) < 0)
        return false;
    LIST_FOREACH (other, &manager->sessions, link)
        if (other != session && session->pid > 0 && other->pid == session->pid && is_at_object(&other->home, &object))
            return true;
    LIST_FOREACH (other, &manager->leaving, link)
        if (is_at_object(&other->home, &object))
            return true;
    LIST_FOREACH (home, &manager->ending_homes, link)
        if (is_at_object(home, &object))
            return true;
    return false;
}

uint32_t manager_advance_clock(struct manager *manager) {
    uint32_t tick = (uint32_t)(kernel_now() / (UINT64_C(1000000) * DRP_TICK_MS));

    /* Stored only when it changes: every client reads the line. */
    if (tick != atomic_load_explicit(&manager->clock->tick, memory_order_relaxed))
        atomic_store_explicit(&manager->clock->tick, tick, memory_order_relaxed);
    return tick;
}
