/* SPDX-License-Identifier: MIT */
/*
 * Samples for a recording.
 *
 * Pins are no events: clients write them into memory, count and tick. So all pin pages are read once a tick, and whatever has a tick that
 * ended since the last pass goes into the trace: each use once, to 100 ms, unless the chunk was used again before the pass came to
 * it; then the later use is what counts anyway. A chunk that stays pinned is used all the time, and says so once a second.
 *
 * The pressure thread does this, as it counts pins for quotas: it has the locks, and a thread of low priority that is put aside while it has
 * a session's lock would hold up that session's faults. A part of a pass takes some 50 us at most; the next is due after a millisecond.
 */

#include "record-sample.h"

#include "budget.h"
#include "manager.h"
#include "record.h"

#define TICK_NS (UINT64_C(1000000) * DRP_TICK_MS)
#define PART_CELLS 32768
#define PART_PAUSE_NS UINT64_C(1000000)
#define HELD_TICKS 10
#define MAPPING_LOOKS 64

/* Where the pass is. Ids only: what they name may be gone at the next part. */
static struct {
    uint64_t home;   /* homes are met by falling id; 0: a pass begins */
    uint64_t region; /* the same within it */
    uint64_t chunk;
    uint32_t from, upto; /* ticks of this pass: [from, upto) */
    uint64_t due;        /* ns */
} pass;

void record_region(const struct region *region, const struct domain *domain) {
    uint64_t id = domain->id;

    if (!record_active())
        return;
    for (; domain; domain = domain->parent)
        record_event(RECORD_DOMAIN, domain->id, domain->parent ? domain->parent->id : 0, 0, 0, 0);
    record_event(RECORD_REGION, region->id, region->home->id, id, region->size,
                 (uint64_t)region->chunk_shift << 48 | (uint64_t)budget_priority(region) << 32 | budget_share(region));
}

/* The last tick within this pass at which a chunk was used; 0: it was not. */
static uint32_t used_at(const struct region *region, uint64_t chunk) {
    uint32_t last = 0;

    for (unsigned i = 0; i < region->n_mappings; i++) {
        const struct mapping *mapping = region->mappings[i];
        const struct drp_pin_cell *cell = &mapping->cells[chunk];
        uint32_t tick;

        if (!(mapping->pins_present[((uintptr_t)cell - (uintptr_t)mapping->pins) / 4096] & 1))
            continue;
        tick = atomic_load_explicit(&cell->tick, memory_order_relaxed);
        if (tick >= pass.from && tick < pass.upto && tick > last)
            last = tick;
        else if (atomic_load_explicit(&cell->count, memory_order_relaxed) > 0 && pass.upto % HELD_TICKS == 0)
            last = pass.upto - 1;
    }
    return last;
}

/* Neighbours that were used in the same tick are one event. Under the home's lock. false: the part is over. */
static bool sample_region(struct region *region, unsigned *cells) {
    unsigned looks = MAPPING_LOOKS;
    uint64_t run = 0;
    uint32_t of_run = 0;

    if (pass.chunk == 0)
        for (unsigned i = 0; i < region->n_mappings; i++)
            mapping_look_at_pins(region->mappings[i], &looks);
    for (; pass.chunk<region->chunk_count && * cells> 0; pass.chunk++, --*cells) {
        uint32_t tick = used_at(region, pass.chunk);

        if (tick != of_run && of_run != 0)
            record_event(RECORD_PINS, region->id, pass.chunk - run, run, of_run, 0);
        run = tick == of_run ? run + 1 : 1;
        of_run = tick;
    }
    if (of_run != 0)
        record_event(RECORD_PINS, region->id, pass.chunk - run, run, of_run, 0);
    return pass.chunk >= region->chunk_count;
}

/* false: the part is over. */
static bool sample_home(struct home *home, unsigned *cells) {
    struct region *region;

    LIST_FOREACH (region, &home->regions, link) {
        bool all;

        if (region->id > pass.region)
            continue;
        if (region->id < pass.region) {
            pass.region = region->id;
            pass.chunk = 0;
        }
        home_lock(home);
        all = sample_region(region, cells);
        home_unlock(home);
        if (!all)
            return false;
        pass.region--;
        pass.chunk = 0;
    }
    return true;
}

uint64_t record_sample(struct manager *manager, uint64_t now) {
    uint32_t tick = (uint32_t)(now / TICK_NS);
    unsigned cells = PART_CELLS;
    struct home *home;

    if (!record_active())
        return UINT64_MAX;
    if (now < pass.due)
        return pass.due - now;
    if (pass.home == 0) {
        pass.home = pass.region = UINT64_MAX;
        pass.from = pass.upto;
        pass.upto = tick;
    }
    /* New ones are put at the front, so ids fall along the lists. */
    LIST_FOREACH (home, &manager->homes, link) {
        if (home->id > pass.home)
            continue;
        if (home->id < pass.home) {
            pass.home = home->id;
            pass.region = UINT64_MAX;
            pass.chunk = 0;
        }
        if (!sample_home(home, &cells)) {
            pass.due = now + PART_PAUSE_NS;
            return PART_PAUSE_NS;
        }
        pass.home--;
        pass.region = UINT64_MAX;
    }
    pass.home = 0;
    pass.due = (tick + UINT64_C(1)) * TICK_NS;
    return pass.due - now;
}
