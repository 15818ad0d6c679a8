/* SPDX-License-Identifier: MIT */
/*
 * Who fills which spans.
 *
 * Armed, a span's next missing page reaches the pager; disarmed, the kernel fills it, and what it may still fill is a commitment of the
 * session's domains. An ioctl costs 1 to 2 us for one span as for sixteen, so neighbours are done together.
 *
 * The session's lock is held while deciding and while noting, never during an ioctl. Only this thread changes span states, so what was
 * decided still holds after the ioctl, but for drops: in_flight and fills tell dropper and pager of each other.
 */

#include "intercept.h"

#include "domain.h"
#include "gate.h"
#include "session.h"
#include "uffd.h"

#include <droppable/droppable.h>

#define TRUSTED_PAGES 16

bool intercept_next_piece(struct session *session, const struct mapping *mapping, uint64_t first, uint64_t last,
                          size_t *cursor, uint64_t *address, uint64_t *length, uint64_t *offset) {
    bool more;

    session_lock(session);
    more = extents_next(&session->extents, mapping, first, last, cursor, address, length, offset);
    session_unlock(session);
    return more;
}

void intercept_wake(struct session *session, const struct mapping *mapping, uint32_t first, uint32_t count) {
    uint64_t address, length, offset;

    for_each_piece (session, mapping, span_offset(first), span_offset(first + count), address, length, offset)
        uffd_wake(session, address, length);
}

/* ---- commitments ---- */

/* Under the lock: a span's commitment becomes pages. */
static void set_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned pages) {
    int64_t change = ((int64_t)pages - mapping->span_commit[span]) * (INT64_C(1) << PAGE_SHIFT);

    if (change == 0)
        return;
    mapping->span_commit[span] = (uint16_t)pages;
    mapping->committed = (uint64_t)((int64_t)mapping->committed + change);
    gate_adjust(session->domain, change);
}

/*
 * Under the lock: how many pages of an armed span are there? Counted ones may be gone, since a client can punch its object without anybody being
 * told: only a few are taken on trust, else the kernel is asked.
 */
static unsigned resident_pages(const struct region *region, uint32_t span, unsigned just_filled) {
    const struct span *s = &region->spans[span];
    unsigned counted = s->resident & (uint16_t)~SPAN_KNOWN;
    struct page_set resident;
    int n;

    if ((s->resident & SPAN_KNOWN) && counted <= just_filled + TRUSTED_PAGES)
        return counted;
    if (!s->touched && !region->adopted)
        return 0;
    n = region_resident(region, span, &resident);
    return n < 0 ? 0 : (unsigned)n;
}

bool intercept_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned just_filled) {
    unsigned missing = span_pages(mapping->region, span) - resident_pages(mapping->region, span, just_filled);

    if (!gate_commit(session->domain, (uint64_t)missing << PAGE_SHIFT))
        return false;
    mapping->span_commit[span] = (uint16_t)missing;
    mapping->committed += (uint64_t)missing << PAGE_SHIFT;
    return true;
}

/* ---- disarming ---- */

/* Under the lock: nothing of the span is known to be gone any more, the kernel may fill any of it. */
static void forget_gone(struct region *region, uint32_t span) {
    uint64_t chunk = (uint64_t)span << (SPAN_SHIFT - region->chunk_shift);
    struct span *s = &region->spans[span];

    for (uint64_t i = 0; i < region_chunks_per_span(region) && chunk + i < region->chunk_count; i++)
        region_clear_gone(region, chunk + i);
    if (s->has_history)
        region->history[span] = (struct page_set){0};
    s->has_history = false;
    s->resident = 0;
    s->fills++;
}

static enum uffd_outcome disarm_run(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count,
                                    bool wp) {
    uint64_t address, length, offset;
    enum uffd_outcome outcome = UFFD_OK;

    for_each_piece (session, mapping, span_offset(first), span_offset(first + count), address, length, offset) {
        outcome = wp ? uffd_register(session, address, length, UFFD_MODE_WP) : uffd_unregister(session, address, length);
        if (outcome != UFFD_OK)
            break;
    }
    session_lock(session);
    for (uint32_t span = first; span < first + count && (outcome == UFFD_OK || count == 1); span++)
        if (outcome == UFFD_OK) {
            mapping_set_state(mapping, span, wp ? MAPPING_DISARMED : MAPPING_UNREGISTERED);
            forget_gone(mapping->region, span);
        } else /* ENOMEM at max_map_count, or something moved: it stays armed */
            set_commit(session, mapping, span, 0);
    session_unlock(session);
    return outcome;
}

bool intercept_disarm(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count) {
    bool wp = session->pager.use_wp && !(mapping->region->options & DRP_REGION_HUGE), all = true;

    if (disarm_run(session, mapping, first, count, wp) == UFFD_OK)
        return true;
    if (count == 1)
        return false;
    /* A call over several VMAs may have done some of them: one by one it is known which. */
    for (uint32_t i = 0; i < count; i++)
        all &= disarm_run(session, mapping, first + i, 1, wp) == UFFD_OK;
    return all;
}

/* ---- arming ---- */

static enum uffd_outcome arm_run(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count) {
    bool told = mapping->span_state[first] != MAPPING_UNREGISTERED;
    enum uffd_outcome outcome = UFFD_OK;
    uint64_t address, length, offset;

    for_each_piece (session, mapping, span_offset(first), span_offset(first + count), address, length, offset) {
        int mapped = told ? 1 : pager_still_mapped(session, mapping, address, length, offset);

        if (mapped < 0)
            return UFFD_FAILED;
        if (mapped == 0) {
            if (count > 1)
                return UFFD_CHANGED;
            /* Nothing told us when it was unmapped: forget that piece. */
            session_lock(session);
            extents_remove(&session->extents, address, address + length);
            session_unlock(session);
            cursor_ = 0;
            continue;
        }
        outcome = uffd_register(session, address, length, UFFD_MODE_MISSING);
        if (outcome != UFFD_OK)
            break;
    }
    return outcome;
}

static uint64_t note_armed(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count) {
    uint64_t back = 0;

    session_lock(session);
    for (uint32_t span = first; span < first + count; span++) {
        mapping_set_state(mapping, span, MAPPING_ARMED);
        back += (uint64_t)mapping->span_commit[span] << PAGE_SHIFT;
        set_commit(session, mapping, span, 0);
    }
    session_unlock(session);
    return back;
}

static uint64_t arm_mapping(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count) {
    uint64_t back = 0;

    if (mapping->disarmed_runs >= session->pager.runs_max)
        return 0;
    if (arm_run(session, mapping, first, count) == UFFD_OK)
        return note_armed(session, mapping, first, count);
    for (uint32_t i = 0; i < count && count > 1; i++) /* one of them was in the way */
        if (arm_run(session, mapping, first + i, 1) == UFFD_OK)
            back += note_armed(session, mapping, first + i, 1);
    return back;
}

uint64_t intercept_arm(struct session *session, struct region *region, uint32_t first, uint32_t count) {
    uint64_t back = 0;

    for (unsigned i = 0; i < region->n_mappings; i++) {
        struct mapping *mapping = region->mappings[i];
        uint32_t span = first, end;

        /* Runs of one state: what was unregistered has to be looked for first. */
        for (; mapping->intercepted && span < first + count; span = end) {
            for (end = span + 1; end < first + count && mapping->span_state[end] == mapping->span_state[span];)
                end++;
            if (mapping->span_state[span] != MAPPING_ARMED)
                back += arm_mapping(session, mapping, span, end - span);
        }
    }
    return back;
}

/* ---- taking commitments back ---- */

#define REFRESH_BATCH 16

struct refresh {
    struct region *regions[REFRESH_BATCH];
    uint32_t spans[REFRESH_BATCH];
    unsigned n;
    uint64_t back;
};

/* Under the lock: measures touched spans of a mapping from its cursor on, until the batch is full. */
static void refresh_mapping(struct session *session, struct mapping *mapping, unsigned max, struct refresh *refresh) {
    struct region *region = mapping->region;
    uint32_t n = atomic_load(&region->touched_count);

    for (uint32_t steps = 0; steps < n && refresh->n < max && mapping->committed > 0; steps++) {
        uint64_t before = mapping->committed;
        struct page_set resident;
        uint32_t span;
        int pages;

        mapping->refresh = mapping->refresh + 1 < n ? mapping->refresh + 1 : 0;
        span = atomic_load(&region->touched[mapping->refresh]);
        if (mapping->span_commit[span] == 0)
            continue;
        pages = region_resident(region, span, &resident);
        if (pages < 0)
            continue;
        set_commit(session, mapping, span, span_pages(region, span) - (unsigned)pages);
        refresh->back += before > mapping->committed ? before - mapping->committed : 0;
        refresh->regions[refresh->n] = region;
        refresh->spans[refresh->n++] = span;
    }
}

uint64_t intercept_refresh(struct session *session, unsigned max, bool rearm, uint64_t wanted) {
    uint64_t back = 0;

    while (max > 0 && back < wanted) {
        struct refresh refresh = {0};
        unsigned batch = max < REFRESH_BATCH ? max : REFRESH_BATCH;
        uint64_t left = 0;
        struct region *region;

        session_lock(session);
        LIST_FOREACH (region, &session->regions, link)
            for (unsigned i = 0; i < region->n_mappings; i++) {
                refresh_mapping(session, region->mappings[i], batch, &refresh);
                left += region->mappings[i]->committed;
            }
        session_unlock(session);
        back += refresh.back;
        /* A region is freed only by a command to this thread, so these still stand. */
        for (unsigned i = 0; rearm && i < refresh.n && back < wanted; i++)
            back += intercept_arm(session, refresh.regions[i], refresh.spans[i], 1);
        max -= batch;
        if (refresh.n < batch || left == 0)
            break;
    }
    return back;
}
