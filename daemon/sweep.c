/* SPDX-License-Identifier: MIT */
/*
 * The clock hand of a region, and what is known of its chunks.
 *
 * The hand says how old at most is what was never pinned: where it passed in this round nothing is left from before the round, and elsewhere nothing from
 * before the round before. (What was never pinned is dropped wherever it is met: were it left for its youth, it would be taken for younger still from then
 * on.) So giving a slice does not make the rest young. A sweep that was everywhere and did not find enough leaves a floor: nothing is older than
 * what it passed over. Else a client whose pins say that they are old, of chunks that are long gone, had each plan look here first and find nothing.
 * Floor and hand are never ahead of the clock, so a tick that is makes nothing young for longer than it is written there.
 *
 * What stays where a sweep passes over nothing is pinned, or is no data: for a second it comes after all else. Else a region of low priority that holds
 * nothing but that, and looks otherwise by its sample, would be named first each time.
 */

#include "sweep.h"

#include "dropper.h"
#include "home.h"
#include "mapping.h"

/* Cells, under the lock, 10 us. */
#define SKIP_AT_ONCE 4096
/* So many of one job, 3 ms, are read before everybody else has a CPU. A client may have any number of them. */
#define SKIP_IN_HASTE (1u << 20)
#define STUCK_TICKS (1000 / DRP_TICK_MS)
/* Samples lie evenly, by the golden ratio, whatever the pattern of use. */
#define SAMPLE_STRIDE UINT32_C(0x9e3779b9)

void sweep_init(struct region *region, uint32_t now) {
    region->hand.round = region->hand.round_before = now;
    region->hand.floor = region->adopted ? 0 : now;
}

/* ---- the hand ---- */

void sweep_begin(struct drop_job *job, uint32_t before, uint32_t now) {
    job->next = job->began = job->region->hand.at;
    job->end = job->region->chunk_count;
    job->before = before;
    job->tick = job->passed = now;
    atomic_store(&job->region->sweep, false);
}

bool sweep_go_round(struct drop_job *job) {
    struct home *home = job->region->home;
    bool goes;

    if (!job->sweep)
        return false;
    home_lock(home);
    goes = job->request && !drop_request_is_met(job->request); /* else it was given up, or need not */
    if (goes && (job->round || job->began == 0)) {
        job->everywhere = true;
        goes = false;
    } else if (goes) {
        job->round = true;
        job->next = 0;
        job->end = job->began;
    }
    home_unlock(home);
    return goes;
}

/* A page of pins that no client wrote must not be read for nothing: that would fill it. */
static bool is_known(const struct mapping *mapping, uint64_t chunk) {
    return mapping->pins_present[((uintptr_t)&mapping->cells[chunk] - (uintptr_t)mapping->pins) / 4096] & 1;
}

/* known: only by pins in pages that are known to be there. The others can only make it younger. */
static bool passes_over(struct drop_job *job, uint64_t chunk, bool known) {
    const struct region *region = job->region;
    uint32_t last = 0;

    for (unsigned i = 0; i < region->n_mappings; i++) {
        uint32_t tick = 0;

        if (region->cells[i] && (!known || is_known(region->mappings[i], chunk)))
            tick = atomic_load_explicit(&region->cells[i][chunk].tick, memory_order_relaxed);
        last = tick > last ? tick : last;
    }
    if (last == 0 || job->before == UINT32_MAX || last < job->before)
        return false;
    job->passed = last < job->passed ? last : job->passed;
    return true;
}

bool sweep_passes_over(struct drop_job *job, uint64_t chunk) {
    return passes_over(job, chunk, false);
}

void sweep_skip(struct drop_job *job) {
    struct home *home = job->region->home;
    bool goes_on, calm = false;
    uint64_t until;

    do {
        uint64_t from = job->next;

        home_lock(home);
        for (until = job->next + 1 + SKIP_AT_ONCE / (job->region->n_mappings + 1);
             job->next < until && job->next < job->end; job->next++)
            if (!passes_over(job, job->next, true))
                break;
        goes_on = job->request && !drop_request_is_met(job->request) && job->next == until;
        home_unlock(home);
        job->skipped += (job->next - from) * (job->region->n_mappings + 1);
        if (goes_on && !calm && job->skipped >= SKIP_IN_HASTE) {
            dropper_set_reading(home, true);
            calm = true;
        }
        worker_let_others(&home->dropper.worker);
    } while (goes_on && !worker_stopping(&home->dropper.worker));
    if (calm)
        dropper_set_reading(home, false);
}

void sweep_stop_at(struct drop_op *op, uint64_t chunk) {
    struct drop_job *job = op->job;

    job->under_way -= op->end_chunk - chunk;
    if (job->request && job->next == op->end_chunk) /* else it was given up */
        job->next = chunk;
    op->end_chunk = chunk;
}

void sweep_end(struct drop_job *job) {
    struct region *region = job->region;

    if (!job->request) /* given up: where it came to is not known */
        return;
    if (job->everywhere) {
        if (job->passed > region->hand.floor || job->tick > region->hand.round_before)
            counter_add(&job->request->noted, 1);
        region->hand.floor = job->passed > region->hand.floor ? job->passed : region->hand.floor;
        region->hand.round = region->hand.round_before = job->tick;
        if (job->before == UINT32_MAX) {
            region->hand.stayed = true;
            region->hand.stayed_at = job->tick;
            region->hand.stuck = UINT64_MAX;
        }
    } else if (job->next != job->began || job->round) {
        if (job->round || job->began == 0) {
            region->hand.round_before = region->hand.round;
            region->hand.round = job->tick;
        }
        region->hand.at = job->next < region->chunk_count ? job->next : 0;
    }
}

uint64_t sweep_stuck(struct region *region, uint64_t resident, uint32_t now) {
    if (!region->hand.stayed || now > region->hand.stayed_at + STUCK_TICKS)
        return 0;
    region->hand.stuck = resident < region->hand.stuck ? resident : region->hand.stuck;
    return region->hand.stuck;
}

/* ---- what is known of chunks ---- */

/*
 * Has a client written to the page with a chunk's cell? What was looked at stays known. *looked: up to this page all are, since the last look is one at
 * several. false: no, or it may not be looked at.
 */
static bool is_written(struct mapping *mapping, uint64_t chunk, uint64_t *looked, struct sweep_budget *budget) {
    uint64_t page = ((uintptr_t)&mapping->cells[chunk] - (uintptr_t)mapping->pins) / 4096;

    if (!mapping->sealed)
        return false;
    if (!(mapping->pins_present[page] & 1) && page >= *looked)
        *looked = mapping_look_at_pin_pages(mapping, page, &budget->looks);
    return mapping->pins_present[page] & 1;
}

/* When a chunk was used last, and whether it is pinned now, by one mapping. */
static void look_at_cell(const struct mapping *mapping, uint64_t chunk, uint32_t *last, bool *pinned) {
    const struct drp_pin_cell *cell = &mapping->cells[chunk];
    uint32_t tick = atomic_load_explicit(&cell->tick, memory_order_relaxed);

    *pinned |= atomic_load_explicit(&cell->count, memory_order_relaxed) != 0;
    *last = tick > *last ? tick : *last;
}

/* Mapping by mapping, since the pages of each are looked at in their order. */
static void sample_take(struct region *region, unsigned n, struct sweep_budget *budget) {
    uint64_t step = region->chunk_count / n, offset = (uint64_t)region->sample_offset * step >> 32;
    struct policy_sample *sample = &region->sample;
    uint32_t last[POLICY_SAMPLES] = {0};
    bool pinned[POLICY_SAMPLES] = {false};

    for (unsigned m = 0; m < region->n_mappings; m++) {
        uint64_t looked = 0;

        for (unsigned i = 0; i < n; i++) {
            uint64_t chunk = i * region->chunk_count / n + offset;

            if (is_written(region->mappings[m], chunk, &looked, budget))
                look_at_cell(region->mappings[m], chunk, &last[i], &pinned[i]);
        }
    }
    *sample = (struct policy_sample){.n = n};
    for (unsigned i = 0; i < n; i++) {
        sample->pinned += pinned[i];
        if (!pinned[i] && last[i] != 0)
            sample->used[sample->n_used++] = last[i];
    }
    region->sample_offset += SAMPLE_STRIDE;
}

/* What a region may take of the budget is there; or all of it, where one takes more. */
static bool may_sample(const struct region *region, unsigned n, const struct sweep_budget *budget) {
    uint64_t looks = drp_pin_bytes(region->chunk_total) / 4096 / MAPPING_PINS_AT_ONCE + 2;

    looks = looks < n ? looks : n;
    return n * region->n_mappings <= budget->cells &&
           (looks * region->n_mappings <= budget->looks || budget->looks == SWEEP_LOOKS);
}

void sweep_sample(struct region *region, uint64_t round, uint32_t now, struct sweep_budget *budget) {
    unsigned n = region->chunk_count < POLICY_SAMPLES ? (unsigned)region->chunk_count : POLICY_SAMPLES;

    if (n == 0 || region->sampled_round == round)
        return;
    if (region->sampled_at != now || region->sample.n == 0) {
        if (!may_sample(region, n, budget)) {
            budget->short_of = true;
            return;
        }
        budget->cells -= n * region->n_mappings;
        sample_take(region, n, budget);
        region->sampled_at = now;
    }
    region->sampled_round = round;
}
