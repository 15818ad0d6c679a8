/* SPDX-License-Identifier: MIT */

/*
 * Does it matter how many there are, if they do no more all together? Each has a region of one span, which it touches when its turn
 * comes and then drops. Turns are spread evenly. The service's CPU time is thus that of a fault and a drop.
 *
 * The processes are what costs most here, not what they do; so the kernel's own memory is beside it, in as many of them.
 */

#include "clients.h"

#include "crew.h"
#include "memory.h"
#include "pace.h"
#include "service.h"
#include "team.h"

#include <droppable/droppable.h>

#include <errno.h>
#include <unistd.h>

#define FAULTS_PER_S 500
#define LEAD_NS 50000000 /* from the word to the first fault */
#define JOINS 20

static unsigned faults_of_each(const struct task *task) {
    unsigned all = (unsigned)task_scaled(task, 1000, 300, 10);

    return all > task->row->count ? all / task->row->count : 1;
}

static int take_turns(struct member *member) {
    unsigned count = member->task.row->count;
    struct pace pace = {
        .interval_ns = UINT64_C(1000000000) * count / FAULTS_PER_S,
        .faults = faults_of_each(&member->task),
    };
    struct memory memory;
    int r;

    r = memory_open(&memory, &member->task, SPAN, false);
    if (r < 0)
        return r;
    r = pace_prepare(&memory, &member->task);
    if (r < 0)
        return r;
    pace.start_ns = member_ready(member) + pace.interval_ns * member->number / count;
    return pace_faults(&memory, &member->task, &pace, member->values);
}

static void note_service(struct task *task, struct sample *ret, uint64_t cpu_ns, unsigned faults) {
    uint64_t rss, pss;

    if (task->contender != CONTENDER_LIBRARY)
        return;
    ret->extra[EXTRA_SERVICE_US_PER_FAULT] = (double)(service_cpu_ns(task->service) - cpu_ns) / 1000 / faults;
    ret->extra[EXTRA_SERVICE_THREADS] = service_threads(task->service);
    if (service_memory(task->service, &rss, &pss) == 0) {
        ret->extra[EXTRA_SERVICE_RSS] = (double)rss;
        ret->extra[EXTRA_SERVICE_PSS] = (double)pss;
    }
}

int clients_fault(struct task *task, struct sample *ret) {
    unsigned faults = task->row->count * faults_of_each(task);
    struct crew *crew;
    uint64_t cpu_ns;
    int r;

    r = crew_new(&crew, task, task->row->count, faults_of_each(task), take_turns, NULL);
    if (r < 0)
        return r;
    service_settle(task->service, 0);
    cpu_ns = service_cpu_ns(task->service);
    crew_start(crew, now_ns() + LEAD_NS);
    r = crew_wait(crew, task);
    if (r == 0) {
        note_service(task, ret, cpu_ns, faults);
        sample_set_distribution(ret, crew_values(crew), faults);
        ret->value = ret->extra[EXTRA_P99];
    }
    crew_free(crew);
    return r;
}

static int sit(struct member *member) {
    struct memory memory;
    int r;

    r = memory_open(&memory, &member->task, SPAN, false);
    if (r == 0)
        r = pace_prepare(&memory, &member->task);
    if (r == 0)
        member_ready(member);
    return r;
}

static int join_once(struct task *task, double *ret_us) {
    uint64_t start = now_ns();
    struct drp_region *region;
    struct drp *d;
    int r;

    r = drp_new(&d, NULL);
    if (r < 0)
        return task_fail(task, r, "drp_new: %s", drp_detail());
    r = drp_region_new(&region, d, SPAN, NULL);
    *ret_us = (double)(now_ns() - start) / 1000;
    if (r < 0)
        task_fail(task, r, "drp_region_new: %s", drp_detail());
    drp_free(d);
    return r;
}

int clients_join(struct task *task, struct sample *ret) {
    struct crew *crew;
    double us[JOINS];
    int r;

    r = crew_new(&crew, task, task->row->count, 0, sit, NULL);
    if (r < 0)
        return r;
    service_settle(task->service, 0);
    for (unsigned i = 0; i < JOINS && r == 0; i++) {
        r = join_once(task, &us[i]);
        usleep(2000); /* what ended must not be in the next one's way */
    }
    if (r == 0)
        sample_set_distribution(ret, us, JOINS);
    crew_free(crew);
    return r;
}
