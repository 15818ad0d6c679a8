/* SPDX-License-Identifier: MIT */
/*
 * What a client does with its own memory, as userfaultfd's events tell: pages given up (MADV_REMOVE), pieces moved (mremap). In the pager's
 * thread, which alone changes extents, mappings and span states: it reads them without the lock.
 */

#include "pager-events.h"

#include "intercept.h"
#include "pieces.h"
#include "session.h"

/* Spans in one hold of the lock. */
#define FORGET_STEPS 1024

/* Under the lock: the client gave pages of a span up itself. Nothing to bring back, and more for the kernel to fill. */
static void forget_pages(struct session *session, struct mapping *mapping, uint32_t span, unsigned first,
                         unsigned count) {
    struct region *region = mapping->region;
    struct span *s = &region->spans[span];
    unsigned committed = mapping->span_commit[span] + count, most;

    if (!s->touched)
        return;
    region_set_known(region, span, 0);
    if (s->has_history) {
        page_set_remove_range(&region->history[span], first, count);
        s->has_history = !page_set_is_empty(&region->history[span]);
    }
    if (mapping->span_state[span] != MAPPING_ARMED) {
        most = intercept_fillable(session, mapping, span, NULL);
        session_set_commit(session, mapping, span, committed < most ? committed : most);
    }
}

/* Under the lock: the same for bytes [offset, end) of a mapping, from *at on in the list of touched spans. false: that was all. */
static bool forget_some(struct session *session, struct mapping *mapping, uint64_t offset, uint64_t end, uint32_t *at) {
    struct region *region = mapping->region;
    uint32_t n = atomic_load(&region->touched_count);

    for (unsigned steps = 0; *at < n && steps < FORGET_STEPS; steps++, (*at)++) {
        uint32_t span = atomic_load(&region->touched[*at]);
        uint64_t start = span_offset(span), stop = span_offset(span + 1);

        start = offset > start ? offset : start;
        stop = end < stop ? end : stop;
        if (start < stop)
            forget_pages(session, mapping, span, (unsigned)((start & (SPAN_SIZE - 1)) >> PAGE_SHIFT),
                         (unsigned)((stop - start) >> PAGE_SHIFT));
    }
    return *at < n;
}

/*
 * By the list of touched spans, since the range can be terabytes; in steps, between which others get the lock. Of a range of a few spans
 * in a region of many touched ones, by the spans.
 */
void pager_forget_pages(struct session *session, struct mapping *mapping, uint64_t offset, uint64_t end) {
    uint32_t first = (uint32_t)(offset >> SPAN_SHIFT), last = (uint32_t)((end - 1) >> SPAN_SHIFT), at = 0;
    bool more = true;

    if (last - first < FORGET_STEPS) {
        session_lock(session);
        for (uint32_t span = first; span <= last; span++) {
            uint64_t start = span == first ? offset : span_offset(span),
                     stop = span == last ? end : span_offset(span + 1);

            forget_pages(session, mapping, span, (unsigned)((start & (SPAN_SIZE - 1)) >> PAGE_SHIFT),
                         (unsigned)((stop - start) >> PAGE_SHIFT));
        }
        session_unlock(session);
        return;
    }
    while (more) {
        session_lock(session);
        more = forget_some(session, mapping, offset, end, &at);
        session_unlock(session);
    }
}

/* Extents and mappings are changed by this thread only. */
void pager_note_remove(struct session *session, uint64_t start, uint64_t end) {
    const struct extent *e;

    for (uint64_t at = start; at < end && (e = extents_overlap(&session->extents, at, end));
         at = e->address + e->length) {
        uint64_t first = at > e->address ? at : e->address;
        uint64_t last = end < e->address + e->length ? end : e->address + e->length;

        pager_forget_pages(session, e->mapping, e->offset + (first - e->address), e->offset + (last - e->address));
    }
}

void pager_note_remap(struct session *session, uint64_t from, uint64_t to, uint64_t length) {
    const struct extent *e;

    session_lock(session);
    extents_move(&session->extents, from, to, length);
    session_unlock(session);
    /* What was armed or disarmed between the move and this was so at the old address. */
    for (uint64_t at = to; at < to + length && (e = extents_overlap(&session->extents, at, to + length));
         at = e->address + e->length)
        pieces_register(session, e);
}
