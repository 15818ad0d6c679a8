/* SPDX-License-Identifier: MIT */
/*
 * Punches holes for the dropper: one after the other, or through its io_uring when a slice has several objects. Punches of
 * one object never run at once (its inode lock), so a ring gains nothing there, and only one of each is in it at any time.
 */

#include "punch.h"

#include "crash-point.h"
#include "gate.h"
#include "home.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <time.h>
#include <unistd.h>

/* The next run of claimed chunks at or after *chunk. */
static bool op_next_run(const struct drop_op *op, uint64_t *chunk, uint64_t *ret_end) {
    uint64_t first = *chunk;

    while (first < op->end_chunk && !op_claimed(op, first))
        first++;
    *chunk = *ret_end = first;
    while (*ret_end < op->end_chunk && op_claimed(op, *ret_end))
        (*ret_end)++;
    return *ret_end > first;
}

int punch_range(const struct region *region, off_t at, off_t size) {
    int r;

    do
        r = fallocate(region->dropper_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static void punch_plainly(struct home *home, struct drop_op *op) {
    uint64_t chunk = op->first_chunk, end;

    for (; op_next_run(op, &chunk, &end); chunk = end) {
        int r;

        worker_call_begin(&home->dropper.worker);
        r = punch_range(op->region, punch_offset(op->region, chunk), (off_t)((end - chunk) << op->region->chunk_shift));
        if (r < 0)
            op->error = r;
        worker_call_end(&home->dropper.worker);
        CRASH_POINT("drop-punched-run");
    }
}

/* An object of the batch: one punch of it is under way at any time. */
struct lane {
    uint64_t device, inode;
    unsigned op; /* whose run is under way */
    uint64_t chunk;
};

static struct lane lane_of(const struct drop_op *op, unsigned i) {
    return (struct lane){.device = op->region->device, .inode = op->region->inode, .op = i, .chunk = op->first_chunk};
}

static bool in_lane(const struct lane *lane, const struct drop_op *op) {
    return op->region->inode == lane->inode && op->region->device == lane->device;
}

/* Goes to the next run of the lane's object. false: there is none. */
static bool lane_next(const struct drop_op *ops, unsigned n, struct lane *lane, uint64_t *ret_end) {
    while (!op_next_run(&ops[lane->op], &lane->chunk, ret_end)) {
        do
            lane->op++;
        while (lane->op < n && !in_lane(lane, &ops[lane->op]));
        if (lane->op == n)
            return false;
        lane->chunk = ops[lane->op].first_chunk;
    }
    return true;
}

/* Submits the next run. false: there is none. There is always room: a lane has one at a time. */
static bool lane_submit(struct home *home, const struct drop_op *ops, unsigned n, struct lane *lane) {
    const struct region *region;
    struct io_uring_sqe *sqe;
    uint64_t end;

    if (!lane_next(ops, n, lane, &end))
        return false;
    region = ops[lane->op].region;
    sqe = io_uring_get_sqe(&home->dropper.ring);
    io_uring_prep_fallocate(sqe, region->dropper_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            punch_offset(region, lane->chunk), (off_t)((end - lane->chunk) << region->chunk_shift));
    io_uring_sqe_set_data(sqe, lane);
    lane->chunk = end;
    return true;
}

/* One lane for each object. */
static unsigned lanes_open(struct drop_op *ops, unsigned n, struct lane *lanes) {
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned k = 0;

        while (k < count && !in_lane(&lanes[k], &ops[i]))
            k++;
        if (k == count)
            lanes[count++] = lane_of(&ops[i], i);
    }
    return count;
}

/*
 * What a ring that fails has been given already must be through before its chunks are settled: else it would punch what somebody has filled since.
 * Leaving the ring does not wait for it.
 */
static void ring_drain(struct io_uring *ring, unsigned in_flight) {
    struct io_uring_cqe *cqe;

    while (in_flight > 0)
        if (io_uring_peek_cqe(ring, &cqe) == 0) {
            io_uring_cqe_seen(ring, cqe);
            in_flight--;
        } else if (io_uring_wait_cqe(ring, &cqe) < 0) /* it fails at this, too: they come all the same */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Punches every run of the ops, the objects beside each other. false: the ring is broken. */
static bool ring_punch(struct home *home, struct drop_op *ops, unsigned n) {
    struct io_uring *ring = &home->dropper.ring;
    struct lane lanes[DROPPER_BATCH];
    unsigned count = lanes_open(ops, n, lanes), pending = 0;

    for (unsigned i = 0; i < count; i++)
        pending += lane_submit(home, ops, n, &lanes[i]);
    worker_call_begin(&home->dropper.worker);
    while (pending > 0) {
        struct io_uring_cqe *cqe;
        int r = io_uring_submit_and_wait(ring, 1);

        if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY) {
            ring_drain(ring, pending - io_uring_sq_ready(ring));
            worker_call_end(&home->dropper.worker);
            return false;
        }
        CRASH_POINT("drop-punched-by-ring");
        while (io_uring_peek_cqe(ring, &cqe) == 0) {
            struct lane *lane = io_uring_cqe_get_data(cqe);

            if (cqe->res < 0)
                ops[lane->op].error = cqe->res;
            io_uring_cqe_seen(ring, cqe);
            pending--;
            pending += lane_submit(home, ops, n, lane);
            worker_call_begin(&home->dropper.worker); /* each is a call of its own */
        }
    }
    worker_call_end(&home->dropper.worker);
    return true;
}

static void punch_by_ring(struct home *home, struct drop_op *ops, unsigned n) {
    bool broken = !ring_punch(home, ops, n);

    if (broken) {
        io_uring_queue_exit(&home->dropper.ring);
        home->dropper.have_ring = false;
    }
    /* Interrupted or refused by the ring: the plain call repeats it, punching twice does no harm. */
    for (unsigned i = 0; i < n; i++)
        if (broken || ops[i].error != 0) {
            ops[i].error = 0;
            punch_plainly(home, &ops[i]);
        }
}

void punch_batch(struct home *home, struct drop_op *ops, unsigned n) {
    const struct drop_op *first = NULL;
    bool several = false;

    for (unsigned i = 0; i < n; i++) {
        if (ops[i].any && !first)
            first = &ops[i];
        several |= ops[i].any && ops[i].region->inode != first->region->inode;
    }
    if (several && home->dropper.have_ring)
        punch_by_ring(home, ops, n);
    else
        for (unsigned i = 0; i < n; i++)
            punch_plainly(home, &ops[i]);
}

void punch_all(struct home *home, const struct region *region) {
    struct worker *worker = &home->dropper.worker;
    off_t begin = (off_t)region->object_offset, end = begin + (off_t)region->size, at = begin, next;

    for (; at < end && (at = lseek(region->dropper_fd, at, SEEK_DATA)) >= 0 && at < end; at = next) {
        worker_set_nice(worker, gate_allows(home_domain(home), 0) ? worker->nice : WORKER_URGENT_NICE);
        next = (off_t)(((uint64_t)at / SPAN_SIZE + 1) * SPAN_SIZE);
        next = next < end ? next : end;
        worker_call_begin(worker);
        (void)punch_range(region, at, next - at);
        worker_let_others(worker);
    }
    worker_call_begin(worker);
    (void)punch_range(region, begin, (off_t)region->size);
}
