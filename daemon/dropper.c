/* SPDX-License-Identifier: MIT */
/*
 * The dropper: a thread per home that punches chunks out of its objects, one span at a time. It starts with the home's first region, and takes
 * the memory down at the end, since both wait for the object's inode lock, which the client can hold.
 *
 * Owns the queue of jobs and the descriptors of the objects; drop-batch.c does the work, punch.c the punches.
 * Always: only this thread writes generations.
 */

#include "dropper.h"

#include "container.h"
#include "crash-point.h"
#include "drop-batch.h"
#include "gate.h"
#include "native.h"
#include "punch.h"
#include "session.h"
#include "sparse-table.h"
#include "sweep.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DROPPER_RING_SIZE 64
/* Beside a region's address, sent with a descriptor: its old state page or its pagemap, not its object. */
#define DROPPER_HANDED ((uintptr_t)1)
/* Jobs that share a batch at least; the more there are, the more arming is in pieces. */
#define DROPPER_SHARES 4
#define DROPPER_GIVEN_UP 64

/* ---- requests ---- */

void drop_request_init(struct drop_request *request, void (*done)(struct drop_request *request), void *data) {
    *request = (struct drop_request){.wanted = UINT64_MAX, .done = done, .data = data};
    atomic_store(&request->pending, 1);
}

static void drop_request_finish(struct drop_request *request) {
    if (request && atomic_fetch_sub(&request->pending, 1) == 1)
        request->done(request);
}

void drop_request_seal(struct drop_request *request) {
    drop_request_finish(request);
}

/* ---- jobs ---- */

/* NULL: all are in use, which no plan comes to. The last to be freed is the first to be taken: the pool costs memory as far as it is used. */
static struct drop_job *pool_take(struct home *home) {
    struct dropper *dropper = &home->dropper;
    struct drop_job *job;

    home_lock(home);
    job = TAILQ_FIRST(&dropper->pool_free);
    if (job)
        TAILQ_REMOVE(&dropper->pool_free, job, link);
    else if (dropper->pool && dropper->n_pool < DROPPER_POOL)
        job = &dropper->pool[dropper->n_pool++];
    home_unlock(home);
    return job;
}

static void job_free(struct home *home, struct drop_job *job) {
    if (!job->pooled) {
        free(job);
        return;
    }
    home_lock(home);
    TAILQ_INSERT_HEAD(&home->dropper.pool_free, job, link);
    home_unlock(home);
}

/* Under the home's lock: the dropper must have the object before it gets a job for it. */
static int dropper_send_object(struct home *home, struct region *region) {
    int r;

    if (region->data_sent)
        return 0;
    r = worker_send_fd(&home->dropper.worker, region->data_fd, region);
    if (r >= 0)
        region->data_sent = true;
    return r;
}

void dropper_set_urgency(struct home *home, enum demand_urgency urgency) {
    struct dropper *dropper = &home->dropper;
    bool realtime = urgency >= URGENCY_STALL;

    dropper->urgency_wanted = urgency;
    if (dropper->reading)
        return;
    if (realtime != (dropper->urgency >= URGENCY_STALL))
        worker_set_realtime(&dropper->worker, realtime);
    dropper->urgency = urgency;
}

/*
 * Under the home's lock, so that who queues behind others' jobs may count on their having woken it. A plan of a thousand jobs wakes it once; where
 * there is no memory even for that, the next who comes tries again.
 */
static void wake(struct dropper *dropper) {
    if (dropper->asleep && worker_kick(&dropper->worker))
        dropper->asleep = false;
}

bool dropper_hurry(struct home *home, enum demand_urgency urgency) {
    struct dropper *dropper = &home->dropper;

    if (dropper->n_pooled == 0)
        return false;
    if (urgency > dropper->pooled_urgency)
        dropper->pooled_urgency = urgency;
    /* Not of one that ends, which gives its jobs up and may then take long. */
    if (!worker_stopping(&dropper->worker) && urgency > dropper->urgency_wanted)
        dropper_set_urgency(home, urgency);
    wake(dropper);
    return true;
}

void dropper_set_reading(struct home *home, bool reading) {
    enum demand_urgency wanted;

    home_lock(home);
    wanted = home->dropper.urgency_wanted;
    if (reading)
        dropper_set_urgency(home, URGENCY_NONE);
    home->dropper.reading = reading;
    dropper_set_urgency(home, wanted);
    home_unlock(home);
}

/* Under the home's lock, as the next two. */
static int may_enqueue(struct home *home, const struct drop_job *job) {
    struct region *region = job->region;

    if (worker_stopping(&home->dropper.worker) || !home->dropper.worker.started)
        return -ESHUTDOWN;
    if (job->by_hand &&
        region->by_hand >= (job->request->limited ? DROPPER_BY_OWNER : DROPPER_BY_HAND + region->n_mappings))
        return -EBUSY;
    return dropper_send_object(home, region);
}

static void link_job(struct dropper *dropper, struct drop_job *job) {
    TAILQ_INSERT_TAIL(&dropper->jobs, job, link);
    if (job->request)
        atomic_fetch_add(&job->request->pending, 1);
    /* Who waits for an adoption, and has nothing of his own to hand over, need not wait for its end either. */
    job->asked = job->request || (job->adopt && !job->handed && !job->work);
    if (job->asked)
        TAILQ_INSERT_TAIL(&dropper->asked, job, of_asked);
    dropper->n_pooled += job->pooled;
    job->region->by_hand += job->by_hand;
}

static void unlink_job(struct dropper *dropper, struct drop_job *job) {
    TAILQ_REMOVE(&dropper->jobs, job, link);
    if (job->asked)
        TAILQ_REMOVE(&dropper->asked, job, of_asked);
    job->asked = false;
    dropper->n_pooled -= job->pooled;
    if (dropper->n_pooled == 0)
        dropper->pooled_urgency = URGENCY_NONE;
    job->region->by_hand -= job->by_hand;
}

static int dropper_enqueue(struct home *home, struct drop_job *job, enum demand_urgency urgency) {
    struct dropper *dropper = &home->dropper;
    int r;

    home_lock(home);
    r = may_enqueue(home, job);
    if (r >= 0) {
        /* Before it is woken: on a busy machine it would wait for a CPU. */
        if (urgency > dropper->urgency_wanted)
            dropper_set_urgency(home, urgency);
        if (job->pooled && urgency > dropper->pooled_urgency)
            dropper->pooled_urgency = urgency;
        link_job(dropper, job);
        wake(dropper);
    }
    home_unlock(home);
    if (r < 0)
        job_free(home, job);
    return r;
}

int dropper_submit(struct home *home, struct region *region, uint64_t first, uint64_t end, enum demand_urgency urgency,
                   struct drop_request *request, bool pressure) {
    struct drop_job *job = pressure ? pool_take(home) : malloc(sizeof(*job));

    if (!job)
        return -ENOMEM;
    *job = (struct drop_job){.region = region,
                             .next = first,
                             .end = end,
                             .limit = UINT64_MAX,
                             .request = request,
                             .pooled = pressure,
                             .needed = request && request->needed};
    job->by_hand = request && !pressure;
    return dropper_enqueue(home, job, urgency);
}

int dropper_submit_sweep(struct home *home, struct region *region, uint64_t limit, uint32_t before, uint32_t now,
                         enum demand_urgency urgency, struct drop_request *request) {
    struct drop_job *job = pool_take(home);

    if (!job)
        return -ENOMEM;
    *job = (struct drop_job){.region = region,
                             .sweep = true,
                             .limit = limit,
                             .request = request,
                             .pooled = true,
                             .needed = request && request->needed};
    home_lock(home);
    sweep_begin(job, before, now);
    home_unlock(home);
    return dropper_enqueue(home, job, urgency);
}

int dropper_submit_destroy(struct home *home, struct region *region, void (*destroyed)(void *data), void *data) {
    struct drop_job *job = calloc(1, sizeof(*job));

    if (!job)
        return -ENOMEM;
    job->region = region;
    job->destroy = true;
    atomic_store(&region->native.ending, true);
    job->done = destroyed;
    job->data = data;
    return dropper_enqueue(home, job, URGENCY_NONE);
}

int dropper_submit_adopt(struct home *home, struct region *region, int handed_fd, void (*work)(struct region *region),
                         void (*adopted)(void *data), void *data) {
    struct drop_job *job = calloc(1, sizeof(*job));
    int r;

    if (!job)
        return -ENOMEM;
    r = handed_fd < 0 ? 0
                      : worker_send_fd(&home->dropper.worker, handed_fd, (void *)((uintptr_t)region | DROPPER_HANDED));
    if (r < 0) {
        free(job);
        return r;
    }
    job->region = region;
    job->adopt = true;
    job->handed = handed_fd >= 0;
    job->work = work;
    job->done = adopted;
    job->data = data;
    return dropper_enqueue(home, job, URGENCY_NONE);
}

static uint64_t job_left(const struct drop_job *job) {
    return (job->under_way + (job->next < job->end ? job->end - job->next : 0)) << job->region->chunk_shift;
}

/* Under the home's lock. Returns the request, which is to be finished without it; NULL: there is none. */
static struct drop_request *give_up_job(struct dropper *dropper, struct drop_job *job) {
    struct drop_request *request = job->request;

    TAILQ_REMOVE(&dropper->asked, job, of_asked);
    job->asked = false;
    if (request) {
        atomic_fetch_add(&request->failed, job_left(job));
        job->request = NULL;
        job->next = job->end; /* what is not begun is not done later either */
    } else {
        job->done(job->data);
        job->done = NULL;
    }
    return request;
}

/* A part of them at a time: others wait for the lock. */
void dropper_give_up(struct home *home) {
    struct dropper *dropper = &home->dropper;
    struct drop_request *given_up[DROPPER_GIVEN_UP];
    bool left;

    do {
        struct drop_job *job;
        size_t n;

        home_lock(home);
        for (n = 0; n < DROPPER_GIVEN_UP && (job = TAILQ_FIRST(&dropper->asked)); n++)
            given_up[n] = give_up_job(dropper, job);
        left = !TAILQ_EMPTY(&dropper->asked);
        home_unlock(home);
        for (size_t i = 0; i < n; i++)
            drop_request_finish(given_up[i]);
    } while (left);
}

/* ---- the queue ---- */

/* With the second object, not in the emergency; for one alone it would be 8 KiB and of no use. */
static void dropper_count_object(struct dropper *dropper) {
    if (++dropper->n_objects == 2)
        dropper->have_ring = io_uring_queue_init(DROPPER_RING_SIZE, &dropper->ring, 0) == 0;
}

static void dropper_receive(struct home *home) {
    void *data;
    int fd;

    while (worker_receive(&home->dropper.worker, &fd, &data) > 0) {
        if ((uintptr_t)data & DROPPER_HANDED)
            ((struct region *)((uintptr_t)data & ~DROPPER_HANDED))->handed_fd = fd;
        else {
            ((struct region *)data)->dropper_fd = fd;
            dropper_count_object(&home->dropper);
        }
    }
}

/* Moves a job to its next resident byte; false: up to its end there is none. */
static bool job_seek_data(struct home *home, struct drop_job *job) {
    struct region *region = job->region;
    uint64_t from;
    off_t at;

    do {
        if (job->sweep) /* what it passes over costs no call */
            sweep_skip(job);
        from = job->next;
        if (from >= job->end)
            return false;
        worker_call_begin(&home->dropper.worker);
        at = lseek(region->dropper_fd, punch_offset(region, from), SEEK_DATA);
        worker_call_end(&home->dropper.worker);
        if (at < 0) /* ENXIO: holes up to the end */
            return false;
        if ((uint64_t)at > region->object_offset + (from << region->chunk_shift))
            job->next = ((uint64_t)at - region->object_offset) >> region->chunk_shift;
    } while (job->sweep && job->next != from);
    return job->next < job->end;
}

/* The same; false: nothing is left of it. */
static bool job_seek(struct home *home, struct drop_job *job) {
    struct region *region = job->region;

    if (region->dropper_fd < 0) /* sent before the job was queued, maybe after the last look */
        dropper_receive(home);
    if (job->limit == 0 || region->dropper_fd < 0)
        return false;
    /* A plan's run is looked at also where it holds nothing: that is to be noted, or the next plan names it again. */
    if (!job->sweep && job->next < job->end && job->end - job->next <= region_chunks_per_span(region))
        return true;
    do
        if (job_seek_data(home, job))
            return true;
    while (sweep_go_round(job));
    return false;
}

/* Under the home's lock: takes the next span of a job into an op. false: the job was given up meanwhile, or others freed enough. */
static bool job_take_span(struct drop_job *job, struct drop_op *op) {
    uint32_t span = region_span_of_chunk(job->region, job->next);
    uint64_t end = ((uint64_t)span + 1) << (SPAN_SHIFT - job->region->chunk_shift);

    if (job->next >= job->end || drop_request_is_met(job->request))
        return false;
    memset(op, 0, sizeof(*op));
    op->job = job;
    op->region = job->region;
    op->span = span;
    op->first_chunk = job->next;
    op->end_chunk = end < job->end ? end : job->end;
    job->next = op->end_chunk;
    job->under_way += op->end_chunk - op->first_chunk;
    return true;
}

/* Reads the old state page: in this thread, since it may be large, and its lock is the client's. */
static void job_adopt(struct home *home, struct drop_job *job) {
    struct region *region = job->region;

    if ((job->handed && region->handed_fd < 0) || region->dropper_fd < 0)
        dropper_receive(home);
    CRASH_POINT("adopt-generations");
    worker_call_begin(&home->dropper.worker);
    if (job->handed && !region->native.address) {
        region->adopt_error = region->handed_fd < 0 ? -EBADF : region_adopt_generations(region, region->handed_fd);
        if (region->handed_fd >= 0)
            close(region->handed_fd);
        region->handed_fd = -1;
    }
    if (job->work)
        job->work(region);
    worker_call_end(&home->dropper.worker);
    CRASH_POINT("adopt-settled");
    if (job->done) /* not given up; it is no longer queued, so it will not be */
        job->done(job->data);
}

static void job_finish(struct home *home, struct drop_job *job) {
    struct region *region = job->region;
    struct drop_request *request;

    home_lock(home);
    unlink_job(&home->dropper, job);
    request = job->request;
    if (job->sweep)
        sweep_end(job);
    home_unlock(home);
    if (job->destroy) {
        if (region->dropper_fd < 0)
            dropper_receive(home);
        worker_call_begin(&home->dropper.worker);
        CRASH_POINT("destroy-behind-drops");
        region_unlock(region);
        region_release_object(region);
        native_close(region);
        if (region->dropper_fd >= 0)
            close(region->dropper_fd);
        region->dropper_fd = -1;
        worker_call_end(&home->dropper.worker);
        job->done(job->data);
    }
    if (job->adopt)
        job_adopt(home, job);
    job_free(home, job);
    drop_request_finish(request);
}

/* One slice; the queue goes on meanwhile. false: nothing is left of it. */
static bool job_go_on(struct home *home, struct drop_job *job) {
    if (job->region->dropper_fd < 0)
        dropper_receive(home);
    if (job->region->dropper_fd < 0 || job->next >= job->end || job->limit == 0 ||
        atomic_load(&job->region->native.ending))
        return false;
    native_drop(home, job);
    return job->limit > 0 && (job->next < job->end || sweep_go_round(job));
}

/* Takes at most max spans of a job. 0: nothing is left of it. */
static unsigned job_take(struct home *home, struct drop_job *job, struct drop_op *ops, unsigned max) {
    unsigned n = 0;

    if (job->sweep) /* looks again after each span: it must not overshoot by a batch */
        max = 1;
    while (n < max && job_seek(home, job)) {
        bool taken;

        home_lock(home);
        taken = job_take_span(job, &ops[n]);
        home_unlock(home);
        if (!taken)
            break;
        ops[n].turn = n;
        n++;
    }
    return n;
}

/* Under the home's lock: how many spans each job may have of a batch, so that several share it and their objects are punched at once. */
static unsigned batch_share(const struct home *home) {
    const struct drop_job *job;
    unsigned jobs = 0;

    TAILQ_FOREACH (job, &home->dropper.jobs, link)
        if (++jobs == DROPPER_SHARES)
            break;
    return jobs > 1 ? DROPPER_BATCH / jobs : DROPPER_BATCH;
}

/* Fills ops[] from the head of the queue on; ends jobs that have nothing left. */
static unsigned batch_collect(struct home *home) {
    struct dropper *dropper = &home->dropper;
    struct drop_job *job, *next;
    unsigned n = 0, share;
    bool unfinished = false; /* a job before this one, that is done by and by */

    home_lock(home);
    job = TAILQ_FIRST(&dropper->jobs);
    share = batch_share(home);
    home_unlock(home);
    for (; job && n < DROPPER_BATCH; job = next) {
        unsigned taken = 0;
        bool left = false;

        if (job->destroy && (n > 0 || unfinished))
            break; /* after what was collected before it, which refers to the region */
        if (job->region->native.address && !job->destroy && !job->adopt)
            left = job_go_on(home, job);
        else if (!job->destroy && !job->adopt)
            taken = job_take(home, job, &dropper->ops[n], share < DROPPER_BATCH - n ? share : DROPPER_BATCH - n);
        home_lock(home);
        next = TAILQ_NEXT(job, link);
        home_unlock(home);
        if (taken == 0 && !left)
            job_finish(home, job);
        unfinished |= left;
        n += taken;
    }
    return n;
}

/* The end: what the client leaves behind is freed here, not in the loop. */
static void dropper_take_down(struct home *home) {
    struct worker *worker = &home->dropper.worker;
    struct drop_job *job;
    struct region *region;

    dropper_give_up(home);
    /* What a batch before this needed says nothing of what may now take seconds; but somebody may wait for what the dead had. */
    home_lock(home);
    dropper_set_urgency(home, URGENCY_NONE);
    home_unlock(home);
    while ((job = TAILQ_FIRST(&home->dropper.jobs)))
        job_finish(home, job);
    LIST_FOREACH (region, &home->regions, link) {
        worker_call_begin(worker);
        CRASH_POINT("session-taken-down");
        /*
         * Another process may hold the object: its pages go all the same, unless it was promised them. A client who lives takes it to the next
         * service, as it is.
         */
        if (atomic_load(&home->client_dead)) {
            if (region->dropper_fd >= 0 && !region->native.address && !atomic_load(&region->inherited))
                punch_all(home, region);
            region_unlock(region);
        }
        region_release_object(region);
        native_close(region);
        if (region->dropper_fd >= 0)
            close(region->dropper_fd);
        region->dropper_fd = -1;
        worker_call_end(worker);
    }
}

static void dropper_main(struct worker *worker) {
    struct home *home = container_of(worker, struct home, dropper.worker);
    struct dropper *dropper = &home->dropper;

    home_lock(home);
    worker_calm(worker);
    if (dropper->urgency >= URGENCY_STALL) /* so soon */
        worker_set_realtime(worker, true);
    home_unlock(home);
    dropper->pager_handle = worker->keep[0];
    while (!worker_stopping(worker)) {
        struct pollfd fd = {.fd = worker->control, .events = POLLIN};
        unsigned n;

        dropper_receive(home);
        n = batch_collect(home);
        if (n > 0)
            drop_batch_run(home, dropper->ops, n);
        else {
            home_lock(home);
            n = !TAILQ_EMPTY(&dropper->jobs);
            dropper->asleep = n == 0;
            if (n == 0)
                dropper_set_urgency(home, URGENCY_NONE);
            home_unlock(home);
            if (n == 0 && !native_measure(home)) {
                poll(&fd, 1, -1);
                worker_begin_turn(worker);
            }
        }
    }
    dropper_receive(home);
    dropper_take_down(home);
    if (dropper->have_ring)
        io_uring_queue_exit(&dropper->ring);
}

int dropper_start(struct home *home, struct worker_pool *pool) {
    bool has_pager = home->session && home->session->pager.worker.started;
    int keep[1] = {has_pager ? home->session->pager.worker.handle : -1};

    if (!home->dropper.pool)
        home->dropper.pool = sparse_table_new(DROPPER_POOL * sizeof(*home->dropper.pool));
    if (!home->dropper.pool)
        return -ENOMEM;
    return worker_start(&home->dropper.worker, dropper_main, pool, keep, has_pager, "drp-dropper");
}

void dropper_deinit(struct dropper *dropper) {
    sparse_table_free(dropper->pool, DROPPER_POOL * sizeof(*dropper->pool));
    dropper->pool = NULL;
}
