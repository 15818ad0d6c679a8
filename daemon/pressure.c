/* SPDX-License-Identifier: MIT */
/*
 * The pressure thread: looks at every domain at the latest moment at which the fastest allocation could not yet have used up its
 * headroom, and has the coldest chunks of the one that suffers most dropped, slice by slice, looking again after each.
 *
 * It sleeps while there is no region. It runs SCHED_FIFO where it may, since it has to run just when others keep the CPUs busy; so it never
 * waits for a client: it reads files of /proc and /sys, takes the manager's and sessions' locks, and leaves punches to the droppers.
 * Also the watchdog of the workers (a call overdue by 1 s quarantines its session), and the hand of the clock page.
 */

#include "pressure.h"

#include "container.h"
#include "gate.h"
#include "manager.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PRESSURE_IDLE_NS UINT64_C(1000000000)
/* A slice takes 3 ms. Who is slower is left alone with it, while the others are looked at again. */
#define PRESSURE_SLICE_WAIT_NS UINT64_C(8000000)
/* A thousand sessions take 20 us, and each that joins kicks. */
#define PRESSURE_WATCH_NS UINT64_C(50000000)
#define PRESSURE_OVERDUE_NS UINT64_C(1000000000)
#define PRESSURE_SLICES_AT_ONCE 16
/* Looks at pages of pins in one plan, 0.3 us each: somebody with 16 TiB must not hold up the others' plans. */
#define PRESSURE_PIN_LOOKS 1024
#define PRESSURE_BARREN_MAX 5 /* looks at a domain with nothing to drop come every 1 ms << this at last */

/* What a look at a domain says. */
struct outlook {
    uint64_t demand;
    bool urgent;
    uint64_t next; /* ns until the next look */
};

/* Sleeps until a kick that came after kicks was read, or ns are over. */
static void futex_sleep(_Atomic uint32_t *word, uint32_t value, uint64_t ns) {
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ns == UINT64_MAX ? NULL : &timeout, NULL, 0);
}

void pressure_kick(struct pressure *pressure) {
    atomic_fetch_add(&pressure->kicks, 1);
    syscall(SYS_futex, &pressure->kicks, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pressure_psi(struct pressure *pressure) {
    atomic_store(&pressure->psi_edge, true);
    pressure_kick(pressure);
}

void pressure_edge(struct pressure *pressure, struct domain *domain, enum demand_source source) {
    atomic_fetch_or(&domain->edges, DEMAND_EDGE(source));
    pressure_kick(pressure);
}

void pressure_ask(struct pressure *pressure, struct pressure_hand *hand) {
    LIST_INSERT_HEAD(&pressure->hands, hand, link);
    pressure_kick(pressure);
}

/* ---- looking ---- */

/* Spans that the kernel fills are armed again, so that what they may still take is free for others. */
static void take_back_commitments(struct manager *manager, const struct domain *domain, uint64_t bytes) {
    struct session *session;

    LIST_FOREACH (session, &manager->sessions, link)
        if (atomic_load(&session->committed) > 0 && domain_is_within(session->domain, domain)) {
            atomic_store(&session->pager.rearm_bytes, bytes);
            worker_kick(&session->pager.worker);
        }
}

static uint64_t droppable_bytes(struct manager *manager, const struct domain *domain) {
    struct session *session;
    struct region *region;
    uint64_t bytes = 0;

    LIST_FOREACH (session, &manager->sessions, link)
        if (domain_is_within(session->domain, domain))
            LIST_FOREACH (region, &session->regions, link)
                bytes += region_resident_bytes(region);
    return bytes;
}

/* A fill that waits at the gate needs room, and some more so that the next need not wait. */
static uint64_t demand_of_waiters(struct domain *domain) {
    uint64_t wanted = atomic_exchange(&domain->wanted, 0);
    int64_t credit = atomic_load(&domain->credit);

    if (wanted == 0 || credit >= (int64_t)(wanted > GATE_STEP ? wanted : GATE_STEP))
        return 0;
    wanted += domain->limits.margin + (credit < 0 ? (uint64_t)-credit : 0);
    return wanted < domain->limits.slice ? wanted : domain->limits.slice;
}

/*
 * What waits for room that is only promised to others gets it by taking promises back, not by a drop; unless that was tried, and still
 * somebody waits.
 */
static bool relies_on_taking_back(struct domain *domain, int64_t commitment, uint64_t wanted) {
    domain->took_back = !domain->took_back && commitment > (int64_t)wanted;
    return domain->took_back;
}

static struct outlook look_at(struct manager *manager, struct domain *domain, bool psi) {
    const struct policy_limits *limits = &domain->limits;
    struct outlook outlook;
    uint64_t headroom, waiters;
    int64_t commitment, credit;

    domain_take_look(&manager->domains, domain);
    atomic_fetch_add(&manager->pressure.looks, 1);
    headroom = domain_headroom(domain);
    commitment = atomic_load(&domain->commitment);
    credit = atomic_load(&domain->credit);
    waiters = demand_of_waiters(domain);
    domain_note_deficit(domain, manager->pressure.now);
    outlook.demand = policy_demand(limits, headroom);
    if (waiters <= outlook.demand)
        domain->took_back = false;
    else if (!relies_on_taking_back(domain, commitment, waiters))
        outlook.demand = waiters;
    /* More than half of the headroom is promised: some of it back, before anybody has to wait for it. */
    if (commitment > 0 && credit < commitment)
        take_back_commitments(manager, domain, (uint64_t)(commitment - credit) / 2 + GATE_SPAN);
    if (outlook.demand == 0 && psi && headroom < 2 * limits->reserve)
        outlook.demand = policy_stall_share(limits, headroom, droppable_bytes(manager, domain));
    outlook.next = policy_next_look(limits, headroom, commitment > 0 ? (uint64_t)commitment : 0);
    outlook.urgent = headroom < limits->reserve / 2;
    return outlook;
}

/* Who waits at the gate of a domain that has credit now asks again. */
static void open_gates(struct manager *manager) {
    struct session *session;
    struct domain *domain;

    LIST_FOREACH (domain, &manager->domains.list, link)
        if (atomic_load(&domain->waiters) && atomic_load(&domain->credit) >= GATE_STEP)
            atomic_store(&domain->waiters, false);
    LIST_FOREACH (session, &manager->sessions, link)
        if (atomic_load(&session->pager.waits_at_gate)) {
            bool open = true;

            for (const struct domain *d = session->domain; d; d = d->parent)
                open &= atomic_load(&d->credit) >= GATE_STEP;
            if (open && atomic_exchange(&session->pager.waits_at_gate, false))
                worker_kick(&session->pager.worker);
        }
}

static void watch_workers(struct manager *manager) {
    uint64_t now = kernel_now();
    struct session *session;
    bool changed = false;

    if (now - manager->pressure.watched < PRESSURE_WATCH_NS)
        return;
    manager->pressure.watched = now;
    LIST_FOREACH (session, &manager->sessions, link) {
        bool overdue = worker_overdue(&session->pager.worker, now, PRESSURE_OVERDUE_NS) ||
                       worker_overdue(&session->dropper.worker, now, PRESSURE_OVERDUE_NS);

        if (atomic_exchange(&session->quarantined, overdue) != overdue)
            changed = true;
    }
    if (!changed)
        return;
    atomic_store(&manager->pressure.quarantines, true);
    (void)!write(manager->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

/* ---- dropping ---- */

static void describe_region(struct region *region, struct policy_region *ret, unsigned *pin_looks) {
    *ret = (struct policy_region){
        .priority = region->priority,
        .chunk_shift = region->chunk_shift,
        .chunk_count = region->chunk_count,
        .touched = region->touched,
        .touched_count = atomic_load_explicit(&region->touched_count, memory_order_acquire),
        .spans = region->ticks,
        .chunk_flags = region->chunk_flags,
        .opaque = region_is_opaque(region),
        .last_scan = atomic_load(&region->last_scan),
        .n_pins = region->n_mappings,
    };
    for (unsigned i = 0; i < region->n_mappings; i++) {
        struct mapping *mapping = region->mappings[i];

        mapping_look_at_pins(mapping, pin_looks);
        ret->pins[i] = mapping->cells;
        ret->pins_present[i] = mapping->pins_present;
        ret->pins_offset[i] = (uint64_t)((char *)mapping->cells - (char *)mapping->pins);
    }
    if (ret->opaque)
        ret->resident = region_resident_bytes(region);
}

/* Under the session's lock: is it still busy with an earlier slice? */
static bool has_slice(const struct session *session) {
    const struct drop_job *job;

    TAILQ_FOREACH (job, &session->dropper.jobs, link)
        if (job->pooled)
            return true;
    return false;
}

/* Every region of a domain that can be dropped from. Under the manager's lock, and it takes each session's. */
static size_t describe_domain(struct pressure *pressure, const struct domain *domain) {
    struct manager *manager = pressure->manager;
    struct session *session;
    struct region *region;
    unsigned pin_looks = PRESSURE_PIN_LOOKS;
    size_t n = 0;

    LIST_FOREACH (session, &manager->sessions, link) {
        if (atomic_load(&session->quarantined) || !domain_is_within(session->domain, domain))
            continue;
        session_lock(session);
        if (has_slice(session)) {
            session_unlock(session);
            continue;
        }
        LIST_FOREACH (region, &session->regions, link) {
            if (region->dead || region->n_mappings == 0 || n == pressure->regions_max)
                continue;
            pressure->region_of[n] = region;
            describe_region(region, &pressure->regions[n++], &pin_looks);
        }
        session_unlock(session);
    }
    return n;
}

static struct drop_job *free_job(struct pressure *pressure) {
    for (size_t i = 0; i < PRESSURE_JOBS; i++) {
        struct drop_job *job = &pressure->jobs[pressure->next_job++ % PRESSURE_JOBS];

        if (!atomic_load(&job->in_use))
            return job;
    }
    return NULL;
}

static void submit_victim(struct pressure *pressure, const struct policy_victim *victim, struct drop_request *request,
                          bool urgent, uint32_t now) {
    struct region *region = pressure->region_of[victim->region];
    uint64_t first = victim->first_chunk, end = victim->first_chunk + victim->chunk_count;
    struct drop_job *job = free_job(pressure);

    if (!job || session_need_dropper(region->session) < 0)
        return;
    if (victim->limit != UINT64_MAX) {
        uint64_t cursor = atomic_load(&region->cursor);

        first = cursor < end ? cursor : 0;
        atomic_store(&region->last_scan, now);
        region->sweep = false;
    }
    dropper_submit(region->session, region, first, end, victim->limit, urgent, request, job);
}

static void slice_done(struct drop_request *request) {
    struct pressure *pressure = request->data;
    struct pressure_slice *slice = container_of(request, struct pressure_slice, request);

    atomic_store(&slice->in_use, false);
    /* Not a kick: that would keep the thread from sleeping after slices that freed nothing. */
    atomic_fetch_add(&pressure->slices_done, 1);
    syscall(SYS_futex, &pressure->slices_done, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static struct pressure_slice *free_slice(struct pressure *pressure) {
    for (size_t i = 0; i < PRESSURE_SLICES; i++)
        if (!atomic_load(&pressure->slices[i].in_use))
            return &pressure->slices[i];
    return NULL;
}

/* Tables that know of nothing, though memory is there (a client wrote through its descriptor): sweep next time. */
static void sweep_domain(struct pressure *pressure, size_t n) {
    for (size_t i = 0; i < n; i++)
        pressure->region_of[i]->sweep = region_resident_bytes(pressure->region_of[i]) > 0;
}

/* Under the manager's lock: plans for the domain and hands the plan out. NULL: nothing to drop was found. */
static struct pressure_slice *plan_drops(struct pressure *pressure, const struct domain *domain,
                                         const struct outlook *outlook, uint32_t now) {
    size_t n = describe_domain(pressure, domain), victims;
    struct pressure_slice *slice = free_slice(pressure);
    uint64_t planned = 0;

    if (!slice)
        return NULL;
    victims = policy_plan(pressure->regions, n, outlook->demand, now, pressure->victims, PRESSURE_VICTIMS, &planned);
    if (victims == 0) {
        sweep_domain(pressure, n);
        return NULL;
    }
    atomic_fetch_add(&pressure->plans, 1);
    drop_request_init(&slice->request, slice_done, pressure);
    atomic_store(&slice->in_use, true);
    for (size_t i = 0; i < victims; i++)
        submit_victim(pressure, &pressure->victims[i], &slice->request, outlook->urgent, now);
    drop_request_seal(&slice->request);
    return slice;
}

/* Waits until the slices are done, or somebody in them is too slow. */
static void wait_for_slices(struct pressure *pressure, struct pressure_slice *const *slices, size_t n) {
    uint64_t deadline = kernel_now() + PRESSURE_SLICE_WAIT_NS, now;

    for (size_t i = 0; i < n; i++)
        for (;;) {
            uint32_t done = atomic_load(&pressure->slices_done);

            now = kernel_now();
            if (!atomic_load(&slices[i]->in_use) || now >= deadline || atomic_load(&pressure->stop))
                break;
            futex_sleep(&pressure->slices_done, done, deadline - now);
        }
}

/* Nothing of the domain can be dropped: what waits at its gate goes ahead, and is counted. */
static void give_up_gate(struct manager *manager, const struct domain *domain) {
    struct session *session;

    LIST_FOREACH (session, &manager->sessions, link)
        if (domain_is_within(session->domain, domain) && atomic_exchange(&session->pager.waits_at_gate, false)) {
            atomic_store(&session->pager.gate_hopeless, true);
            worker_kick(&session->pager.worker);
        }
}

/* ---- the thread ---- */

/* A domain in need in which the last plan got nothing done: it is looked at less often, 1 ms to 16 ms, the others as ever. */
static void note_barren(struct domain *domain, uint64_t now) {
    if (domain->barren < PRESSURE_BARREN_MAX)
        domain->barren++;
    domain->not_before = now + (UINT64_C(500000) << domain->barren);
}

/* Looks at one domain, and hands a slice out if it is in need. Returns ns until its next look. */
static uint64_t look_and_plan(struct pressure *pressure, struct domain *domain, bool psi, uint32_t now,
                              struct pressure_slice **ret) {
    struct outlook outlook;

    *ret = NULL;
    /* Who waits at the gate is looked after at once. */
    if (pressure->now < domain->not_before && !atomic_load(&domain->waiters))
        return domain->not_before - pressure->now;
    outlook = look_at(pressure->manager, domain, psi);
    if (outlook.demand == 0) {
        domain->barren = 0;
        return outlook.next;
    }
    *ret = plan_drops(pressure, domain, &outlook, now);
    if (!*ret)
        note_barren(domain, pressure->now);
    if (domain->barren > 0)
        give_up_gate(pressure->manager, domain);
    return outlook.next;
}

/* Under the manager's lock. */
static size_t look_at_all(struct pressure *pressure, uint32_t now, struct pressure_slice **slices, struct domain **of,
                          uint64_t *next) {
    bool psi = atomic_exchange(&pressure->psi_edge, false);
    struct pressure_slice *slice;
    struct domain *domain;
    size_t n = 0, position = 0;

    /* Children come before their parents: what they free, their parents need not take from others. */
    LIST_FOREACH (domain, &pressure->manager->domains.list, link) {
        uint64_t wait;

        if (position++ < pressure->first)
            continue;
        if (n == PRESSURE_SLICES_AT_ONCE) { /* the rest has its turn right after these */
            pressure->first = position - 1;
            *next = 0;
            return n;
        }
        wait = look_and_plan(pressure, domain, psi, now, &slice);
        if (wait < *next)
            *next = wait;
        if (slice) {
            of[n] = domain;
            slices[n++] = slice;
        }
    }
    if (pressure->first > 0)
        *next = 0;
    pressure->first = 0;
    return n;
}

/* One look at everything. Returns the ns to sleep; 0: look again at once. */
static uint64_t pressure_cycle(struct pressure *pressure) {
    struct pressure_slice *slices[PRESSURE_SLICES_AT_ONCE];
    struct domain *of[PRESSURE_SLICES_AT_ONCE];
    struct manager *manager = pressure->manager;
    uint64_t next = PRESSURE_IDLE_NS, pins;
    bool progress = false;
    uint32_t now;
    size_t n;

    pressure->now = kernel_now();
    pthread_mutex_lock(&manager->lock);
    now = manager_advance_clock(manager);
    watch_workers(manager);
    if (manager->n_regions == 0) {
        next = manager->n_sessions == 0 ? UINT64_MAX : PRESSURE_IDLE_NS;
        pthread_mutex_unlock(&manager->lock);
        return next;
    }
    n = look_at_all(pressure, now, slices, of, &next);
    pins = budget_count_pins(manager, pressure->now);
    next = pins < next ? pins : next;
    for (size_t i = 0; i < n; i++)
        of[i]->refs++; /* they may lose their last session while we wait */
    open_gates(manager);
    pthread_mutex_unlock(&manager->lock);
    if (n == 0)
        return next;

    wait_for_slices(pressure, slices, n);
    pthread_mutex_lock(&manager->lock);
    for (size_t i = 0; i < n; i++) {
        /* What turned out to be gone already is progress, too: the next plan does not name it. */
        if (atomic_load(&slices[i]->request.freed) > 0 || atomic_load(&slices[i]->request.cleared) > 0) {
            of[i]->barren = 0;
            progress = true;
        } else
            note_barren(of[i], pressure->now);
        domain_unref(of[i]);
    }
    pthread_mutex_unlock(&manager->lock);
    return progress ? 0 : next > UINT64_C(1000000) ? UINT64_C(1000000) : next;
}

static void *pressure_main(void *data) {
    struct pressure *pressure = data;

    while (!atomic_load(&pressure->stop)) {
        uint32_t kicks = atomic_load(&pressure->kicks);
        uint64_t sleep_ns = pressure_cycle(pressure);

        if (sleep_ns > 0)
            futex_sleep(&pressure->kicks, kicks, sleep_ns);
    }
    return NULL;
}

int pressure_start(struct pressure *pressure, struct manager *manager) {
    struct sched_param param = {.sched_priority = 1};
    int r;

    pressure->manager = manager;
    r = pthread_create(&pressure->thread, NULL, pressure_main, pressure);
    if (r != 0)
        return -r;
    pthread_setname_np(pressure->thread, "drp-pressure");
    /* Threads that it starts are ordinary ones. */
    pressure->realtime = pthread_setschedparam(pressure->thread, SCHED_FIFO | SCHED_RESET_ON_FORK, &param) == 0;
    pressure->started = true;
    return 0;
}

void pressure_stop(struct pressure *pressure) {
    if (pressure->started) {
        atomic_store(&pressure->stop, true);
        pressure_kick(pressure);
        pthread_join(pressure->thread, NULL);
        pressure->started = false;
    }
    free(pressure->regions);
    free(pressure->region_of);
    pressure->regions = NULL;
    pressure->region_of = NULL;
}

int pressure_reserve(struct pressure *pressure, size_t regions) {
    size_t max = pressure->regions_max ? pressure->regions_max : 16;
    struct policy_region *described;
    struct region **of;

    if (regions <= pressure->regions_max)
        return 0;
    while (max < regions)
        max *= 2;
    described = realloc(pressure->regions, max * sizeof(*described));
    if (!described)
        return -ENOMEM;
    pressure->regions = described;
    of = realloc(pressure->region_of, max * sizeof(*of));
    if (!of)
        return -ENOMEM;
    pressure->region_of = of;
    pressure->regions_max = max;
    return 0;
}
