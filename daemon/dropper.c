/* SPDX-License-Identifier: MIT */
/*
 * The dropper: a thread per session that punches chunks out of its objects, one span at a time. It starts with the session's first drop, and takes
 * the memory down at the end, since both wait for the object's inode lock, which the client can hold.
 *
 * The order for each span: arm; which pages are there; generation odd; pins; punch; generation even; wake. A chunk without pages is
 * left alone: nothing is lost, so nothing changes. Freed is what was resident when its chunk was claimed. A whole batch is armed at
 * once, since that is a round trip to the pager, and then punched in slices, so that nobody waits long for a pin or a fault.
 *
 * Punches go through io_uring when a batch has several objects, since punches of one object never run at once anyway.
 * Always: only this thread writes generations; in_flight is up from before the first look at a span until after its settling.
 */

#include "dropper.h"

#include "container.h"
#include "domain.h"
#include "gate.h"
#include "generation.h"
#include "kernel.h"
#include "punch.h"
#include "session.h"

#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DROPPER_RING_SIZE 64
/* Beside a region's address, sent with a descriptor: its old state page, not its object. */
#define DROPPER_OLD_STATE ((uintptr_t)1)
/* Arming takes 5 us a span unless the client's mmap_lock is held. Without it drops are blind: worth a moment even in need. */
#define DROPPER_ARM_WAIT_NS UINT64_C(10000000)
#define DROPPER_ARM_URGENT_NS UINT64_C(500000)
/* The weight of a slice. A span of 4 KiB pages takes 100 us, a huge page 6 us, but one may turn out to be small pages. */
#define DROPPER_SLICE 16
#define DROPPER_WEIGHT_SMALL 2
#define DROPPER_WEIGHT_HUGE 1

/* ---- requests ---- */

void drop_request_init(struct drop_request *request, void (*done)(struct drop_request *request), void *data) {
    *request = (struct drop_request){.done = done, .data = data};
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

static void job_free(struct drop_job *job) {
    if (job->pooled)
        atomic_store(&job->in_use, false);
    else
        free(job);
}

/* Under the session's lock: the dropper must have the object before it gets a job for it. */
static int dropper_send_object(struct session *session, struct region *region) {
    int r;

    if (region->data_sent)
        return 0;
    r = worker_send_fd(&session->dropper.worker, region->data_fd, region);
    if (r >= 0)
        region->data_sent = true;
    return r;
}

static int dropper_enqueue(struct session *session, struct drop_job *job) {
    int r;

    session_lock(session);
    r = worker_stopping(&session->dropper.worker) || !session->dropper.worker.started
            ? -ESHUTDOWN
            : dropper_send_object(session, job->region);
    if (r >= 0) {
        TAILQ_INSERT_TAIL(&session->dropper.jobs, job, link);
        if (job->request)
            atomic_fetch_add(&job->request->pending, 1);
    }
    session_unlock(session);
    if (r >= 0)
        worker_kick(&session->dropper.worker);
    else
        job_free(job);
    return r;
}

int dropper_submit(struct session *session, struct region *region, uint64_t first, uint64_t end, uint64_t limit,
                   bool urgent, struct drop_request *request, struct drop_job *pooled) {
    struct drop_job *job = pooled ? pooled : malloc(sizeof(*job));

    if (!job)
        return -ENOMEM;
    memset(job, 0, sizeof(*job));
    job->region = region;
    job->next = first;
    job->end = end;
    job->limit = limit;
    job->urgent = urgent;
    job->request = request;
    job->pooled = pooled != NULL;
    atomic_store(&job->in_use, true);
    return dropper_enqueue(session, job);
}

int dropper_submit_destroy(struct session *session, struct region *region, void (*destroyed)(struct region *region)) {
    struct drop_job *job = calloc(1, sizeof(*job));

    if (!job)
        return -ENOMEM;
    job->region = region;
    job->destroy = true;
    job->done = destroyed;
    return dropper_enqueue(session, job);
}

int dropper_submit_adopt(struct session *session, struct region *region, int old_state_fd,
                         void (*adopted)(struct region *region)) {
    struct drop_job *job = calloc(1, sizeof(*job));
    int r;

    if (!job)
        return -ENOMEM;
    r = worker_send_fd(&session->dropper.worker, old_state_fd, (void *)((uintptr_t)region | DROPPER_OLD_STATE));
    if (r < 0) {
        free(job);
        return r;
    }
    job->region = region;
    job->adopt = true;
    job->done = adopted;
    return dropper_enqueue(session, job);
}

static uint64_t job_left(const struct drop_job *job) {
    return job->next < job->end ? (job->end - job->next) << job->region->chunk_shift : 0;
}

void dropper_give_up(struct session *session) {
    struct drop_request *given_up[64];
    struct drop_job *job;
    size_t n;

    do {
        n = 0;
        session_lock(session);
        TAILQ_FOREACH (job, &session->dropper.jobs, link)
            if (job->request && n < sizeof(given_up) / sizeof(given_up[0])) {
                atomic_fetch_add(&job->request->failed, job_left(job));
                given_up[n++] = job->request;
                job->request = NULL;
                job->next = job->end; /* what is not begun is not done later either */
            }
        session_unlock(session);
        for (size_t i = 0; i < n; i++)
            drop_request_finish(given_up[i]);
    } while (n > 0);
}

/* ---- one batch ---- */

static unsigned chunk_pages(const struct region *region) {
    return 1U << (region->chunk_shift - PAGE_SHIFT);
}

static void wake_waiters(const struct drop_op *op, uint64_t chunk) {
    const struct region *region = op->region;

    for (unsigned i = 0; i < region->n_mappings; i++)
        if (generation_has_waiters(region->mappings[i]->pin_header)) {
            syscall(SYS_futex, &region->generations[chunk], FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
            return;
        }
}

/* Under the session's lock: turns the generations of what is resident and unpinned odd. */
static void op_claim(struct session *session, struct drop_op *op) {
    struct region *region = op->region;
    struct drp_pin_cell *cells[REGION_MAPPINGS_MAX];
    unsigned pages = chunk_pages(region);
    uint64_t pinned = 0;

    for (unsigned i = 0; i < region->n_mappings; i++)
        cells[i] = region->mappings[i]->cells;
    for (uint64_t chunk = op->first_chunk; chunk < op->end_chunk; chunk++) {
        uint64_t i = chunk - op_first_of_span(op);
        unsigned resident = page_set_count_range(&op->resident, (unsigned)i * pages, pages);

        if (resident == 0)
            continue;
        /* Not mapped: a region that is being handed over, its pins are not known yet. */
        if (region->n_mappings == 0 || !generation_claim(&region->generations[chunk], cells, region->n_mappings, chunk)) {
            if (region->n_mappings > 0)
                wake_waiters(op, chunk);
            pinned += (uint64_t)resident << PAGE_SHIFT;
            counter_add(&session->counters.pinned_skips, 1);
            continue;
        }
        op->claimed[i / 64] |= UINT64_C(1) << (i % 64);
        op->any = true;
    }
    if (op->job->request)
        counter_add(&op->job->request->pinned, pinned);
}

/* Under the session's lock: would the next missing page of the span reach the pager, in every mapping? */
static bool op_is_armed(const struct drop_op *op) {
    for (unsigned i = 0; i < op->region->n_mappings; i++)
        if (!op->region->mappings[i]->intercepted || op->region->mappings[i]->span_state[op->span] != MAPPING_ARMED)
            return false;
    return op->region->n_mappings > 0;
}

/*
 * Under the session's lock: pages were punched out of a span that the kernel fills, so that much more may come back unseen. Also true of
 * spans that the pager arms a moment later: arming gives the commitment back.
 */
static void op_commit_unarmed(struct session *session, const struct drop_op *op, uint64_t freed) {
    counter_add(&session->counters.unarmed_drops, 1);
    for (unsigned i = 0; i < op->region->n_mappings; i++) {
        struct mapping *mapping = op->region->mappings[i];

        uint64_t room =
            region_span_bytes(op->region, op->span) - ((uint64_t)mapping->span_commit[op->span] << PAGE_SHIFT);
        uint64_t more = freed < room ? freed : room;

        if (!mapping->intercepted || mapping->span_state[op->span] == MAPPING_ARMED)
            continue;
        mapping->span_commit[op->span] = (uint16_t)(mapping->span_commit[op->span] + (more >> PAGE_SHIFT));
        mapping->committed += more;
        gate_adjust(session->domain, (int64_t)more);
    }
}

/* The plans to come pass it over until it is touched. */
static void op_note_gone(const struct drop_op *op, uint64_t chunk) {
    uint8_t before = atomic_fetch_or_explicit(&op->region->chunk_flags[chunk], POLICY_CHUNK_GONE, memory_order_relaxed);

    if (!(before & POLICY_CHUNK_GONE) && op->job->request)
        counter_add(&op->job->request->cleared, 1);
}

/* Under the session's lock: settles the claimed chunks, and notes which are gone. Returns the pages claimed. */
static void settle_chunks(struct drop_op *op, bool unseen, struct page_set *ret_claimed) {
    unsigned pages = chunk_pages(op->region);

    for (uint64_t chunk = op->first_chunk; chunk < op->end_chunk; chunk++) {
        unsigned first = (unsigned)(chunk - op_first_of_span(op)) * pages;

        if (op_claimed(op, chunk)) {
            generation_settle(&op->region->generations[chunk]);
            wake_waiters(op, chunk);
            page_set_add_range(ret_claimed, first, pages);
            if (unseen && op->error == 0)
                op_note_gone(op, chunk);
        } else if (unseen && page_set_count_range(&op->resident, first, pages) == 0)
            op_note_gone(op, chunk);
    }
}

/* Under the session's lock: what was dropped from an armed span may be brought back, and what is left is known. */
static void note_dropped(struct drop_op *op, const struct page_set *claimed, unsigned dropped, bool unseen) {
    struct span *span = &op->region->spans[op->span];

    if (op->armed && dropped > 0 && op->error == 0) {
        page_set_add_common(&op->region->history[op->span], &op->resident, claimed);
        span->has_history = true;
    }
    if (unseen && op->error == 0)
        span->resident = (uint16_t)(SPAN_KNOWN | (op->n_resident - dropped));
    else
        span->resident = 0;
}

/* Under the session's lock: even again, waiters woken; what was dropped is noted. */
static void op_settle(struct session *session, struct drop_op *op) {
    struct region *region = op->region;
    struct page_set claimed = {0}, dropped = {0};
    uint64_t bytes;
    bool unseen;

    op->armed &= op_is_armed(op); /* the pager may have been about to disarm it */
    /* Nothing can have come since without the pager's knowing. */
    unseen = op->armed && region->spans[op->span].fills == op->fills;
    settle_chunks(op, unseen, &claimed);
    page_set_add_common(&dropped, &op->resident, &claimed);
    bytes = (uint64_t)page_set_count(&dropped) << PAGE_SHIFT;
    note_dropped(op, &claimed, (unsigned)(bytes >> PAGE_SHIFT), unseen);
    /* Nothing there, and nobody will tell when something is: the next plans shall name others first. */
    if (!op->any && !op->armed)
        atomic_store_explicit(&region->ticks[op->span].last_fault, session_tick(session), memory_order_relaxed);
    if (op->error != 0) {
        if (op->job->request)
            counter_add(&op->job->request->failed, bytes);
        bytes = 0;
    }
    counter_add(&region->dropped_bytes, bytes);
    counter_add(&session->counters.dropped_bytes, bytes);
    if (op->job->request)
        counter_add(&op->job->request->freed, bytes);
    op->job->limit = op->job->limit == UINT64_MAX || op->job->limit < bytes ? op->job->limit : op->job->limit - bytes;
    if (op->job->limit < region_chunk_size(region))
        op->job->limit = 0;
    if (op->any && !op->armed)
        op_commit_unarmed(session, op, bytes);
}

/*
 * Arms what the kernel fills, also where nothing is there: only of an armed span can that be known. What is not armed when the time is
 * up is punched all the same.
 */
static void batch_arm(struct session *session, struct drop_op *ops, unsigned n) {
    struct region *regions[DROPPER_BATCH];
    uint32_t spans[DROPPER_BATCH];
    bool urgent = false;

    for (unsigned i = 0; i < n; i++) {
        urgent |= ops[i].job->urgent;
        regions[i] = ops[i].region;
        spans[i] = ops[i].span;
    }
    if (session->intercepted && !atomic_load(&session->quarantined))
        pager_arm_spans(session, regions, spans, n, urgent ? DROPPER_ARM_URGENT_NS : DROPPER_ARM_WAIT_NS);
}

/* Looks at the ops from the first on, until a slice is full. Returns how many it took. in_flight is up from before the look. */
static unsigned slice_look(struct session *session, struct drop_op *ops, unsigned n) {
    unsigned taken = 0, weight = 0;

    session_lock(session);
    for (; taken < n && weight < DROPPER_SLICE; taken++) {
        struct drop_op *op = &ops[taken];

        weight += op->region->options & DRP_REGION_HUGE ? DROPPER_WEIGHT_HUGE : DROPPER_WEIGHT_SMALL;
        op->region->spans[op->span].in_flight++;
        op->fills = op->region->spans[op->span].fills;
        op->armed = op_is_armed(op);
    }
    session_unlock(session);
    for (unsigned i = 0; i < taken; i++) {
        struct drop_op *op = &ops[i];
        int pages;

        worker_call_begin(&session->dropper.worker);
        pages = region_look(op->region, op->region->dropper_fd, op->span, &op->resident);
        worker_call_end(&session->dropper.worker);
        if (pages < 0)
            counter_add(&session->counters.unexpected_errors, 1);
        op->n_resident = pages < 0 ? 0 : (unsigned)pages;
    }
    return taken;
}

static void slice_run(struct session *session, struct drop_op *ops, unsigned n) {
    session_lock(session);
    for (unsigned i = 0; i < n; i++)
        op_claim(session, &ops[i]);
    session_unlock(session);
    punch_batch(session, ops, n);

    session_lock(session);
    for (unsigned i = 0; i < n; i++) {
        op_settle(session, &ops[i]);
        ops[i].region->spans[ops[i].span].in_flight--;
    }
    session_unlock(session);
    if (atomic_load(&session->pager.waits_for_drop))
        worker_kick(&session->pager.worker);
}

static void batch_run(struct session *session, struct drop_op *ops, unsigned n) {
    batch_arm(session, ops, n);
    for (unsigned i = 0, taken; i < n; i += taken) {
        taken = slice_look(session, ops + i, n - i);
        slice_run(session, ops + i, taken);
    }
}

/* ---- the queue ---- */

/* With the second object, not in the emergency; for one alone it would be 8 KiB and of no use. */
static void dropper_count_object(struct dropper *dropper) {
    if (++dropper->n_objects == 2)
        dropper->have_ring = io_uring_queue_init(DROPPER_RING_SIZE, &dropper->ring, 0) == 0;
}

static void dropper_receive(struct session *session) {
    void *data;
    int fd;

    while (worker_receive(&session->dropper.worker, &fd, &data) > 0) {
        if (!data) { /* the ended connection's socket, with whatever waits in it */
            worker_call_begin(&session->dropper.worker);
            close(fd);
            worker_call_end(&session->dropper.worker);
        } else if ((uintptr_t)data & DROPPER_OLD_STATE)
            ((struct region *)((uintptr_t)data & ~DROPPER_OLD_STATE))->old_state_fd = fd;
        else {
            ((struct region *)data)->dropper_fd = fd;
            dropper_count_object(&session->dropper);
        }
    }
}

/* Moves a job to its next resident byte; false: nothing is left of it. */
static bool job_seek(struct session *session, struct drop_job *job) {
    struct region *region = job->region;
    off_t at;

    if (region->dropper_fd < 0) /* sent before the job was queued, maybe after the last look */
        dropper_receive(session);
    if (job->next >= job->end || job->limit == 0 || region->dropper_fd < 0)
        return false;
    /* A plan's run is looked at also where it holds nothing: that is to be noted, or the next plan names it again. */
    if (job->limit == UINT64_MAX && job->end - job->next <= region_chunks_per_span(region))
        return true;
    worker_call_begin(&session->dropper.worker);
    at = lseek(region->dropper_fd, punch_offset(region, job->next), SEEK_DATA);
    worker_call_end(&session->dropper.worker);
    if (at < 0) /* ENXIO: holes up to the end */
        return false;
    if ((uint64_t)at > region->object_offset + (job->next << region->chunk_shift))
        job->next = ((uint64_t)at - region->object_offset) >> region->chunk_shift;
    return job->next < job->end;
}

/* Under the session's lock: takes the next span of a job into an op. false: the job was given up meanwhile. */
static bool job_take_span(struct drop_job *job, struct drop_op *op) {
    uint32_t span = region_span_of_chunk(job->region, job->next);
    uint64_t end = ((uint64_t)span + 1) << (SPAN_SHIFT - job->region->chunk_shift);

    if (job->next >= job->end)
        return false;
    memset(op, 0, sizeof(*op));
    op->job = job;
    op->region = job->region;
    op->span = span;
    op->first_chunk = job->next;
    op->end_chunk = end < job->end ? end : job->end;
    job->next = op->end_chunk;
    return true;
}

/* Reads the old state page: in this thread, since it may be large, and its lock is the client's. */
static void job_adopt(struct session *session, struct drop_job *job) {
    struct region *region = job->region;

    if (region->old_state_fd < 0)
        dropper_receive(session);
    worker_call_begin(&session->dropper.worker);
    region->adopt_error = region->old_state_fd < 0 ? -EBADF : region_adopt_generations(region, region->old_state_fd);
    if (region->old_state_fd >= 0)
        close(region->old_state_fd);
    region->old_state_fd = -1;
    worker_call_end(&session->dropper.worker);
    job->done(region);
}

static void job_finish(struct session *session, struct drop_job *job) {
    struct region *region = job->region;
    struct drop_request *request;

    session_lock(session);
    TAILQ_REMOVE(&session->dropper.jobs, job, link);
    request = job->request;
    atomic_store(&region->cursor, job->next < region->chunk_count && job->limit == 0 ? job->next : 0);
    session_unlock(session);
    if (job->destroy) {
        if (region->dropper_fd < 0)
            dropper_receive(session);
        worker_call_begin(&session->dropper.worker);
        region_release_object(region);
        if (region->dropper_fd >= 0)
            close(region->dropper_fd);
        region->dropper_fd = -1;
        worker_call_end(&session->dropper.worker);
        job->done(region);
    }
    if (job->adopt)
        job_adopt(session, job);
    job_free(job);
    drop_request_finish(request);
}

/* Fills ops[] from the head of the queue on; ends jobs that have nothing left. Several jobs share a batch, so that their objects can be punched at once. */
static unsigned batch_collect(struct session *session) {
    struct dropper *dropper = &session->dropper;
    struct drop_job *job, *next;
    unsigned n = 0;

    session_lock(session);
    job = TAILQ_FIRST(&dropper->jobs);
    session_unlock(session);
    while (job && n < DROPPER_BATCH) {
        bool taken = false;

        /* A job with a limit looks again after each span: it must not overshoot by a batch. */
        while (n < DROPPER_BATCH && !(taken && job->limit != UINT64_MAX) && !job->destroy && !job->adopt &&
               job_seek(session, job)) {
            session_lock(session);
            taken = job_take_span(job, &dropper->ops[n]);
            session_unlock(session);
            if (!taken)
                break;
            n++;
        }
        session_lock(session);
        next = TAILQ_NEXT(job, link);
        session_unlock(session);
        if (!taken && (n == 0 || !job->destroy))
            job_finish(session, job);
        else if (job->destroy)
            break; /* after what was collected before it */
        job = next;
    }
    return n;
}

/* The end: what the client leaves behind is freed here, not in the loop. */
static void dropper_take_down(struct session *session) {
    struct worker *worker = &session->dropper.worker;
    struct drop_job *job;
    struct region *region;

    dropper_give_up(session);
    while ((job = TAILQ_FIRST(&session->dropper.jobs)))
        job_finish(session, job);
    LIST_FOREACH (region, &session->regions, link) {
        worker_call_begin(worker);
        /* Another process may hold the object: its pages go all the same. */
        if (atomic_load(&session->client_dead) && region->dropper_fd >= 0)
            (void)!fallocate(region->dropper_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             (off_t)region->object_offset, (off_t)region->size);
        region_release_object(region);
        if (region->dropper_fd >= 0)
            close(region->dropper_fd);
        region->dropper_fd = -1;
        worker_call_end(worker);
    }
}

static void dropper_main(struct worker *worker) {
    struct session *session = container_of(worker, struct session, dropper.worker);
    struct dropper *dropper = &session->dropper;

    worker_set_nice(worker, WORKER_URGENT_NICE);
    while (!worker_stopping(worker)) {
        struct pollfd fd = {.fd = worker->control, .events = POLLIN};
        unsigned n;

        dropper_receive(session);
        n = batch_collect(session);
        if (n > 0)
            batch_run(session, dropper->ops, n);
        else {
            session_lock(session);
            n = !TAILQ_EMPTY(&dropper->jobs);
            session_unlock(session);
            if (n == 0)
                poll(&fd, 1, -1);
        }
    }
    dropper_receive(session);
    dropper_take_down(session);
    if (dropper->have_ring)
        io_uring_queue_exit(&dropper->ring);
}

int dropper_start(struct session *session, int wake_fd) {
    int keep[1] = {session->pager.worker.handle};

    return worker_start(&session->dropper.worker, dropper_main, wake_fd, keep, session->pager.worker.started ? 1 : 0,
                        "drp-dropper");
}
