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

#include "crash-point.h"
#include "domain.h"
#include "gate.h"
#include "session.h"
#include "uffd.h"

#include <droppable/droppable.h>

#define TRUSTED_PAGES 16

bool intercept_next_piece(struct session *session, const struct mapping *mapping, uint64_t first, uint64_t last,
                          uint64_t *cursor, uint64_t *address, uint64_t *length, uint64_t *offset) {
    bool more;

    session_lock(session);
    more = extents_next(&session->extents, mapping, first > *cursor ? first : *cursor, last, address, length, offset);
    session_unlock(session);
    if (more)
        *cursor = *offset + *length;
    return more;
}

unsigned intercept_fillable(const struct session *session, const struct mapping *mapping, uint32_t span,
                            const struct page_set *there) {
    uint64_t at = span_offset(span), end = span_offset(span + 1), address, length;
    unsigned pages = 0;

    for (; extents_next(&session->extents, mapping, at, end, &address, &length, &at); at += length) {
        unsigned first = (unsigned)((at & (SPAN_SIZE - 1)) >> PAGE_SHIFT), count = (unsigned)(length >> PAGE_SHIFT);

        pages += there ? count - page_set_count_range(there, first, count) : count;
    }
    return pages;
}

void intercept_wake(struct session *session, const struct mapping *mapping, uint32_t first, uint32_t count) {
    uint64_t address, length, offset;

    CRASH_POINT("waking");
    for_each_piece (session, mapping, span_offset(first), span_offset(first + count), address, length, offset)
        uffd_wake(session, address, length);
}

/* ---- commitments ---- */

/*
 * Under the lock: how many pages of an armed span might the kernel fill? Those that are counted may be gone, since a client can punch its object
 * without anybody being told: only a few are taken on trust, else the kernel is asked. Counted ones may also be where nothing is mapped
 * any more, but what was just filled is mapped.
 */
static unsigned missing_pages(const struct session *session, const struct mapping *mapping, uint32_t span,
                              unsigned just_filled) {
    const struct region *region = mapping->region;
    uint16_t known = region_known(region, span);
    unsigned counted = known & (uint16_t)~POLICY_SPAN_KNOWN, absent = span_pages(region, span) - counted, mapped;
    struct page_set resident = {0};

    if ((known & POLICY_SPAN_KNOWN) && counted <= just_filled + TRUSTED_PAGES) {
        mapped = intercept_fillable(session, mapping, span, NULL);
        mapped = mapped > just_filled ? mapped - just_filled : 0;
        return mapped < absent ? mapped : absent;
    }
    if (region->spans[span].touched || region->adopted)
        region_resident(region, span, &resident);
    return intercept_fillable(session, mapping, span, &resident);
}

bool intercept_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned just_filled) {
    unsigned missing = missing_pages(session, mapping, span, just_filled);

    if (!gate_allows(session->domain, (uint64_t)missing << PAGE_SHIFT))
        return false;
    session_set_commit(session, mapping, span, missing);
    return true;
}

/* ---- disarming ---- */

/* Under the lock: nothing of the span is known to be gone any more, the kernel may fill any of it. */
static void forget_gone(struct region *region, uint32_t span) {
    uint64_t chunk = (uint64_t)span << (SPAN_SHIFT - region->chunk_shift);
    struct span *s = &region->spans[span];

    for (uint64_t i = 0; policy_span_gone(&region->ticks[span]) > 0 && i < region_chunks_per_span(region); i++)
        region_clear_gone(region, chunk + i, chunk + i);
    if (s->has_history)
        region->history[span] = (struct page_set){0};
    s->has_history = false;
    region_set_known(region, span, 0);
    s->fills++;
}

void intercept_expect_little(struct session *session, struct region *region, uint32_t first, uint32_t count) {
    session_lock(session);
    for (uint32_t span = first; span < first + count; span++)
        region_expect(region, span, 1);
    session_unlock(session);
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
    return outcome;
}

/* Under the lock: the kernel fills the span from now on. certain: all of it; else some may be armed still. */
static void note_disarmed(struct session *session, struct mapping *mapping, uint32_t span, bool wp, bool certain) {
    mapping_set_state(mapping, span, wp ? MAPPING_DISARMED : MAPPING_UNREGISTERED);
    forget_gone(mapping->region, span);
    if (!certain)
        session_set_commit(session, mapping, span, intercept_fillable(session, mapping, span, NULL));
}

void intercept_distrust(struct session *session, struct mapping *mapping, uint32_t span) {
    bool wp = session->pager.use_wp && !(mapping->region->options & DRP_REGION_HUGE);

    note_disarmed(session, mapping, span, wp, false);
}

void intercept_bear_disarmed(struct session *session, struct mapping *mapping, uint32_t span) {
    note_disarmed(session, mapping, span, true, true);
}

bool intercept_disarm(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count) {
    bool wp = session->pager.use_wp && !(mapping->region->options & DRP_REGION_HUGE), all = true;
    bool at_once = disarm_run(session, mapping, first, count, wp) == UFFD_OK;

    CRASH_POINT("disarmed");
    /*
     * A call over several VMAs that fails may have done some of them: one by one it is known which. Where it fails for a
     * single span (ENOMEM at max_map_count, or something moved) it counts as disarmed, with all that may then be filled: a part that
     * is still armed is answered page by page, while the other mistake would leave pages that nobody knows of.
     */
    for (uint32_t span = first; span < first + count; span++) {
        bool certain = at_once || (count > 1 && disarm_run(session, mapping, span, 1, wp) == UFFD_OK);

        session_lock(session);
        note_disarmed(session, mapping, span, wp, certain);
        session_unlock(session);
        all &= certain;
    }
    session_lock(session);
    mapping->disarming_first = mapping->disarming_end = 0;
    session_unlock(session);
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
            mapping->region->spans[first].strayed = true;
            forget_gone(mapping->region, first);
            session_unlock(session);
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
        session_set_commit(session, mapping, span, 0);
    }
    session_unlock(session);
    return back;
}

static uint64_t arm_mapping(struct session *session, struct mapping *mapping, uint32_t first, uint32_t count) {
    uint64_t back = 0;

    /* Only what splits a run of disarmed spans makes more VMAs. */
    if (mapping->disarmed_runs >= session->pager.runs_max && first > 0 &&
        mapping->span_state[first - 1] != MAPPING_ARMED && first + count < mapping->region->span_count &&
        mapping->span_state[first + count] != MAPPING_ARMED)
        return 0;
    if (arm_run(session, mapping, first, count) == UFFD_OK) {
        CRASH_POINT("armed");
        return note_armed(session, mapping, first, count);
    }
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
/* Spans passed by in a mapping in one batch at most, and those looked at of them that have nothing committed. */
#define REFRESH_STEPS 4096
#define REFRESH_FULL 4
/* In one hold of the lock; a look takes 5 us. */
#define REFRESH_HOLD_STEPS 1024
#define REFRESH_HOLD_LOOKS 16

struct refresh {
    struct region *regions[REFRESH_BATCH];
    uint32_t spans[REFRESH_BATCH];
    unsigned n;
    uint64_t back;
    uint32_t steps; /* in this mapping */
    unsigned full;  /* likewise */
};

/* Under the lock: measures the span, and notes it if the kernel may still fill some of it. */
static void refresh_span(struct session *session, struct mapping *mapping, uint32_t span, struct refresh *refresh) {
    struct region *region = mapping->region;
    uint64_t before = mapping->committed;
    struct page_set resident;
    int pages = region_resident(region, span, &resident);

    if (pages < 0)
        return;
    session_set_commit(session, mapping, span, intercept_fillable(session, mapping, span, &resident));
    region_expect(region, span, (unsigned)pages);
    refresh->back += before > mapping->committed ? before - mapping->committed : 0;
    if (mapping->span_commit[span] == 0)
        return;
    refresh->regions[refresh->n] = region;
    refresh->spans[refresh->n++] = span;
}

/*
 * Under the lock: measures touched spans of a mapping from its cursor on, until the batch is full or the lock was held for long enough. Also full
 * ones, now and then: a client can punch its own object without anybody being told. false: that was all of the mapping's for this batch.
 */
static bool refresh_some(struct session *session, struct mapping *mapping, unsigned max, struct refresh *refresh) {
    const struct region *region = mapping->region;
    uint32_t n = atomic_load(&region->touched_count), end = refresh->steps + REFRESH_HOLD_STEPS;

    for (unsigned looks = 0; looks < REFRESH_HOLD_LOOKS && refresh->steps < end; refresh->steps++) {
        uint32_t span;

        if (refresh->steps >= n || refresh->steps >= REFRESH_STEPS || refresh->n >= max)
            return false;
        mapping->refresh = mapping->refresh + 1 < n ? mapping->refresh + 1 : 0;
        span = atomic_load(&region->touched[mapping->refresh]);
        if (mapping->span_state[span] == MAPPING_ARMED ||
            (mapping->span_commit[span] == 0 && ++refresh->full > REFRESH_FULL))
            continue;
        looks++;
        refresh_span(session, mapping, span, refresh);
    }
    return true;
}

/* Returns what the kernel may still fill of it. The lock is let go in between: whoever waits for it has it then. */
static uint64_t refresh_mapping(struct session *session, struct mapping *mapping, unsigned max, struct refresh *refresh) {
    uint64_t committed;
    bool more;

    refresh->steps = refresh->full = 0;
    do {
        session_lock(session);
        more = refresh_some(session, mapping, max, refresh);
        committed = mapping->committed;
        session_unlock(session);
    } while (more);
    return committed;
}

/* Only such as have mappings: these are freed by a command to this thread alone, so without the lock they still stand. Native ones are not. */
static struct region *next_region(struct session *session, struct region *region) {
    session_lock(session);
    do
        region = region ? LIST_NEXT(region, link) : LIST_FIRST(&session->home.regions);
    while (region && region->n_mappings == 0);
    session_unlock(session);
    return region;
}

uint64_t intercept_refresh(struct session *session, unsigned max, bool rearm, uint64_t wanted) {
    uint64_t back = 0;

    while (max > 0 && back < wanted) {
        struct refresh refresh = {0};
        unsigned batch = max < REFRESH_BATCH ? max : REFRESH_BATCH;
        struct region *region = NULL;
        uint64_t left = 0;

        while ((region = next_region(session, region)))
            for (unsigned i = 0; i < region->n_mappings; i++)
                left += refresh_mapping(session, region->mappings[i], batch, &refresh);
        back += refresh.back;
        for (unsigned i = 0; rearm && i < refresh.n && back < wanted; i++)
            back += intercept_arm(session, refresh.regions[i], refresh.spans[i], 1);
        max -= batch;
        if (refresh.n < batch || left == 0)
            break;
    }
    return back;
}
