/* SPDX-License-Identifier: MIT */
/*
 * One batch of the dropper, in its thread.
 *
 * The order for each span: arm; which pages are there; generation odd; pins; punch; generation even; wake. A chunk without pages is
 * left alone: nothing is lost, so nothing changes. Freed is what was resident when its chunk was claimed. The whole batch is armed at
 * once, since that is a round trip to the pager, and then punched in slices, so that nobody waits long for a pin or a fault.
 *
 * Always: in_flight is up from before the first look at a span until after its settling.
 */

#include "drop-batch.h"

#include "crash-point.h"
#include "generation.h"
#include "intercept.h"
#include "pager.h"
#include "punch.h"
#include "record.h"
#include "session.h"
#include "sweep.h"

#include <droppable/droppable.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Arming takes 5 us a span unless the client's mmap_lock is held, or the pager has no CPU. Without it drops are blind: worth a moment even in
 * need. Where nobody needs it, it is worth more: in a virtual machine on a busy host 10 ms were too short for most spans.
 */
#define DROPPER_ARM_WAIT_NS UINT64_C(100000000)
#define DROPPER_ARM_STALL_NS UINT64_C(2000000)
#define DROPPER_ARM_LIFE_NS UINT64_C(500000)
/* The weight of a slice. A span of 4 KiB pages takes 100 us, a huge page 6 us, but one may turn out to be small pages. */
#define DROPPER_SLICE 16
#define DROPPER_WEIGHT_SMALL 2
#define DROPPER_WEIGHT_HUGE 1

static unsigned chunk_pages(const struct region *region) {
    return 1U << (region->chunk_shift - PAGE_SHIFT);
}

/* The first page of a chunk, in the span. */
static unsigned op_first_page(const struct drop_op *op, uint64_t chunk) {
    return (unsigned)(chunk - op_first_of_span(op)) * chunk_pages(op->region);
}

static void wake_waiters(const struct drop_op *op, uint64_t chunk) {
    const struct region *region = op->region;

    for (unsigned i = 0; i < region->n_mappings; i++)
        if (region->cells[i] && generation_has_waiters(region->mappings[i]->pin_header)) {
            CRASH_POINT("pin-wait");
            syscall(SYS_futex, &region->generations[chunk], FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
            return;
        }
}

/* Under the home's lock: turns the generations of what is resident and unpinned odd. */
static void op_claim(struct home *home, struct drop_op *op) {
    struct region *region = op->region;
    bool unknown = region->n_mappings == 0 || region->held;
    bool sweeps = op->job->sweep;
    unsigned pages = chunk_pages(region);
    uint64_t pinned = 0, claimed = 0;

    for (uint64_t chunk = op->first_chunk; chunk < op->end_chunk; chunk++) {
        uint64_t i = chunk - op_first_of_span(op);
        unsigned resident = page_set_count_range(&op->resident, op_first_page(op, chunk), pages);

        if (sweeps && claimed >= op->job->limit) {
            sweep_stop_at(op, chunk);
            break;
        }

        /* Odd: of another job in this slice. Were it claimed twice, it would be even while it is punched. */
        if (resident == 0 || atomic_load_explicit(&region->generations[chunk], memory_order_relaxed) & 1)
            continue;
        if (sweeps && sweep_passes_over(op->job, chunk))
            continue;
        /* A region that is being handed over, not all of its pins are known yet. */
        if (unknown || !generation_claim(&region->generations[chunk], region->cells, region->n_mappings, chunk)) {
            if (!unknown) {
                CRASH_POINT("drop-pinned");
                wake_waiters(op, chunk);
            }
            pinned += (uint64_t)resident << PAGE_SHIFT;
            counter_add(&home->counters.pinned_skips, 1);
            continue;
        }
        claimed += (uint64_t)resident << PAGE_SHIFT;
        op->claimed[i / 64] |= UINT64_C(1) << (i % 64);
        op->any = true;
        CRASH_POINT("drop-claimed");
    }
    if (op->job->request)
        counter_add(&op->job->request->pinned, pinned);
}

/* Under the home's lock: would the next missing page of the span reach the pager, in every mapping? */
static bool op_is_armed(const struct drop_op *op) {
    for (unsigned i = 0; i < op->region->n_mappings; i++)
        if (!mapping_is_armed(op->region->mappings[i], op->span))
            return false;
    return op->region->n_mappings > 0;
}

/*
 * Under the home's lock: pages were punched out of a span that the kernel fills, so that much more may come back unseen. Also true of
 * spans that the pager arms a moment later: arming gives the commitment back.
 */
static void op_commit_unarmed(struct home *home, const struct drop_op *op, uint64_t freed) {
    counter_add(&home->counters.unarmed_drops, 1);
    for (unsigned i = 0; i < op->region->n_mappings; i++) {
        struct mapping *mapping = op->region->mappings[i];
        uint64_t pages = mapping->span_commit[op->span] + (freed >> PAGE_SHIFT);
        unsigned most;

        if (!mapping->intercepted || mapping_is_armed(mapping, op->span))
            continue;
        most = intercept_fillable(mapping->session, mapping, op->span, NULL);
        session_set_commit(mapping->session, mapping, op->span, pages < most ? (unsigned)pages : most);
    }
}

/* The plans to come pass it over until it is touched. */
static void op_note_gone(const struct drop_op *op, uint64_t chunk) {
    if (region_set_gone(op->region, chunk) && op->job->request)
        counter_add(&op->job->request->cleared, 1);
}

/* Nothing there, and nobody will tell when something is: the next plans shall name others first. */
static void op_note_empty(const struct home *home, const struct drop_op *op) {
    struct region *region = op->region;
    uint32_t before =
        atomic_exchange_explicit(&region->ticks[op->span].last_fault, home_tick(home), memory_order_relaxed);

    if (before != home_tick(home) && op->job->request)
        counter_add(&op->job->request->noted, 1);
    for (uint64_t chunk = op->first_chunk; chunk < op->end_chunk; chunk++)
        atomic_fetch_or_explicit(&region->chunk_flags[chunk], POLICY_CHUNK_EMPTY, memory_order_relaxed);
}

/* Under the home's lock: settles the claimed chunks, and notes which are gone. Returns the pages claimed. */
static void settle_chunks(struct drop_op *op, bool unseen, struct page_set *ret_claimed) {
    unsigned pages = chunk_pages(op->region);

    for (uint64_t chunk = op->first_chunk; chunk < op->end_chunk; chunk++) {
        unsigned first = op_first_page(op, chunk);

        if (op_claimed(op, chunk)) {
            generation_settle(&op->region->generations[chunk]);
            CRASH_POINT("drop-settled");
            wake_waiters(op, chunk);
            page_set_add_range(ret_claimed, first, pages);
            if (unseen && op->error == 0)
                op_note_gone(op, chunk);
        } else if (unseen && op->error == 0 && page_set_count_range(&op->resident, first, pages) == 0)
            op_note_gone(op, chunk);
    }
}

/* Under the home's lock: what was dropped from an armed span may be brought back, and what is left is known. */
static void note_dropped(struct drop_op *op, const struct page_set *claimed, unsigned dropped, bool unseen) {
    struct span *span = &op->region->spans[op->span];

    if (op->armed && dropped > 0 && op->error == 0) {
        page_set_add_common(&op->region->history[op->span], &op->resident, claimed);
        span->has_history = true;
    }
    /* The only drop in the span since it was looked at: of several in a slice each counted what the others took. */
    if (unseen && op->error == 0 && span->in_flight == 1 && span->drops == op->drops)
        region_set_known(op->region, op->span, (uint16_t)(POLICY_SPAN_KNOWN | (op->n_resident - dropped)));
    else
        region_set_known(op->region, op->span, 0);
}

/* Under the home's lock: even again, waiters woken; what was dropped is noted. */
static void op_settle(struct home *home, struct drop_op *op) {
    struct region *region = op->region;
    struct page_set claimed = {0}, dropped = {0};
    uint64_t bytes;
    bool unseen;

    op->job->under_way -= op->end_chunk - op->first_chunk;
    op->armed &= op_is_armed(op); /* the pager may have been about to disarm it */
    /* Nothing can have come since without the pager's knowing. */
    unseen =
        op->armed && !region->strayed && !region->spans[op->span].strayed && region->spans[op->span].fills == op->fills;
    settle_chunks(op, unseen, &claimed);
    page_set_add_common(&dropped, &op->resident, &claimed);
    bytes = (uint64_t)page_set_count(&dropped) << PAGE_SHIFT;
    note_dropped(op, &claimed, (unsigned)(bytes >> PAGE_SHIFT), unseen);
    region->spans[op->span].drops++;
    if (op->job->pooled && bytes > 0 && op->error == 0 && op->armed) /* else nobody sees when it is wanted again */
        home_note_pressure_drop(home, region, op->span, op->job->needed);
    record_drop(op->job->pooled, region->id, op_first_of_span(op), op->claimed,
                (unsigned)region_chunks_per_span(region));
    if (!op->any && !op->armed && !op->job->sweep)
        op_note_empty(home, op);
    if (op->error != 0) {
        if (op->job->request)
            counter_add(&op->job->request->failed, bytes);
        bytes = 0;
    }
    counter_add(&region->dropped_bytes, bytes);
    counter_add(&home->counters.dropped_bytes, bytes);
    if (op->job->request) {
        counter_add(&op->job->request->freed, bytes);
        counter_add(&op->job->request->unseen, op->armed ? 0 : bytes);
    }
    op->job->limit = op->job->limit == UINT64_MAX || op->job->limit < bytes ? op->job->limit : op->job->limit - bytes;
    if (op->job->limit < region_chunk_size(region))
        op->job->limit = 0;
    if (op->any && !op->armed)
        op_commit_unarmed(home, op, bytes);
}

/*
 * Arms what the kernel fills, also where nothing is there: only of an armed span can that be known. What is not armed when the time is
 * up is punched all the same.
 */
static void batch_arm(struct home *home, struct drop_op *ops, unsigned n, enum demand_urgency urgency) {
    static const uint64_t waits[] = {
        [URGENCY_NONE] = DROPPER_ARM_WAIT_NS,
        [URGENCY_TRIM] = DROPPER_ARM_WAIT_NS,
        [URGENCY_STALL] = DROPPER_ARM_STALL_NS,
        [URGENCY_LIFE] = DROPPER_ARM_LIFE_NS,
    };
    struct region *regions[DROPPER_BATCH];
    uint32_t spans[DROPPER_BATCH];

    for (unsigned i = 0; i < n; i++) {
        regions[i] = ops[i].region;
        spans[i] = ops[i].span;
    }
    if (home->session && home->session->intercepted && !atomic_load(&home->quarantined))
        pager_arm_spans(home->session, regions, spans, n, waits[urgency], urgency >= URGENCY_STALL);
}

/*
 * Where nobody needs it others are let in after each slice, so that is one span then, or one of each of two objects, which the ring punches at a time.
 */
static bool slice_is_full(const struct drop_op *ops, unsigned taken, unsigned weight, bool calm) {
    if (!calm)
        return weight >= DROPPER_SLICE;
    return weight >= 2 * DROPPER_WEIGHT_SMALL ||
           (weight >= DROPPER_WEIGHT_SMALL && ops[taken].region->inode == ops[taken - 1].region->inode);
}

/* Looks at the ops from the first on, until a slice is full. Returns how many it took. in_flight is up from before the look. */
static unsigned slice_look(struct home *home, struct drop_op *ops, unsigned n) {
    unsigned taken = 0, weight = 0;
    bool calm;

    home_lock(home);
    calm = home->dropper.urgency < URGENCY_STALL;
    for (; taken < n && !slice_is_full(ops, taken, weight, calm); taken++) {
        struct drop_op *op = &ops[taken];

        weight += op->region->options & DRP_REGION_HUGE ? DROPPER_WEIGHT_HUGE : DROPPER_WEIGHT_SMALL;
        op->region->spans[op->span].in_flight++;
        op->fills = op->region->spans[op->span].fills;
        op->drops = op->region->spans[op->span].drops;
        op->armed = op_is_armed(op);
    }
    home_unlock(home);
    for (unsigned i = 0; i < taken; i++) {
        struct drop_op *op = &ops[i];
        unsigned first = op_first_page(op, op->first_chunk), n_pages = op_first_page(op, op->end_chunk) - first;
        int pages;

        worker_call_begin(&home->dropper.worker);
        pages = region_look(op->region, op->region->dropper_fd, op->span, first, n_pages, &op->resident);
        worker_call_end(&home->dropper.worker);
        if (pages < 0) { /* nothing is claimed, and nothing is known */
            counter_add(&home->counters.unexpected_errors, 1);
            op->error = pages;
        }
        op->n_resident = pages < 0 ? 0 : (unsigned)pages;
    }
    return taken;
}

static void slice_run(struct home *home, struct drop_op *ops, unsigned n) {
    home_lock(home);
    for (unsigned i = 0; i < n; i++)
        op_claim(home, &ops[i]);
    home_unlock(home);
    punch_batch(home, ops, n);
    CRASH_POINT("drop-punched");

    home_lock(home);
    for (unsigned i = 0; i < n; i++) {
        op_settle(home, &ops[i]);
        ops[i].region->spans[ops[i].span].in_flight--;
        if (ops[i].any)
            loss_note(ops[i].region);
    }
    home_unlock(home);
    CRASH_POINT("drop-noted");
    if (home->session && atomic_load(&home->session->pager.waits_for_drop))
        worker_kick_by(&home->session->pager.worker, home->dropper.pager_handle);
}

static int compare_turns(const void *a, const void *b) {
    const struct drop_op *x = a, *y = b;

    return (x->turn > y->turn) - (x->turn < y->turn);
}

/* Under the home's lock: does something of it serve pressure? */
static enum demand_urgency batch_urgency(const struct home *home, const struct drop_op *ops, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        if (ops[i].job->pooled)
            return home->dropper.pooled_urgency;
    return URGENCY_NONE;
}

/* Leaves out what nobody wants any more. Returns how many are left. */
static unsigned batch_leave_met(struct home *home, struct drop_op *ops, unsigned n) {
    unsigned kept = 0;

    home_lock(home);
    for (unsigned i = 0; i < n; i++)
        if (!drop_request_is_met(ops[i].job->request)) {
            if (kept != i)
                ops[kept] = ops[i];
            kept++;
        } else if (ops[i].job->sweep)
            sweep_stop_at(&ops[i], ops[i].first_chunk);
        else
            ops[i].job->under_way -= ops[i].end_chunk - ops[i].first_chunk;
    home_unlock(home);
    return kept;
}

void drop_batch_run(struct home *home, struct drop_op *ops, unsigned n) {
    enum demand_urgency urgency;

    /* A batch takes 3 ms. On a busy machine an ordinary thread waits as long for a CPU, and somebody fills 2 MiB in each of them. */
    home_lock(home);
    urgency = batch_urgency(home, ops, n);
    /* Of all that is queued: who waits behind a client's own drop waits for that, too. */
    dropper_set_urgency(home, home->dropper.pooled_urgency);
    home_unlock(home);
    batch_arm(home, ops, n, urgency);
    CRASH_POINT("drop-armed");
    /* Neighbours together for arming; for punching each slice has spans of several jobs, if there are several. */
    qsort(ops, n, sizeof(*ops), compare_turns);
    for (unsigned i = 0, taken; i < n; i += taken) {
        n = i + batch_leave_met(home, ops + i, n - i);
        taken = slice_look(home, ops + i, n - i);
        CRASH_POINT("drop-looked");
        slice_run(home, ops + i, taken);
        worker_let_others(&home->dropper.worker);
    }
}
