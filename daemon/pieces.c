/* SPDX-License-Identifier: MIT */
/*
 * The pieces of mappings: what the client says that it has mapped, and is about to unmap.
 *
 * A span has one state in a mapping, however many pieces lie in it. So a new piece joins the state of each span that it touches: MISSING where
 * the span is armed, the kernel's where it is not, if the gate lets its pages be promised; else the span is armed for it. Its offsets may have had
 * another owner: what was known of their pages is forgotten when they go, and what was noted as gone when they come.
 *
 * A small piece that has a span for itself is born disarmed while there is plenty: who maps little is about to use it, which so costs no round trip,
 * and accesses that may not wait for anybody (/proc/PID/mem, ptrace(2)) find zeros. A large one may be for a few pages of it: its touches shall
 * be seen.
 *
 * Extents are changed by this thread only, which therefore reads them without the lock. An event that was read is noted before the next
 * command, so a piece never loses to the end of what was at its address before; but an unmapping that the client did not announce, beside a
 * mapping by another of its threads, may still be on its way: that costs the interception of that piece.
 */

#include "pieces.h"

#include "crash-point.h"
#include "gate.h"
#include "intercept.h"
#include "pager-events.h"
#include "pager.h"
#include "session.h"

#include <droppable/droppable.h>
#include <errno.h>

/* Spans in one hold of the lock. */
#define STEPS 1024
/* Born disarmed: pieces up to this size, while no more than this part of the headroom is committed. */
#define BORN_SIZE SPAN_SIZE
#define BORN_SHARE 8

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* ---- registering ---- */

enum uffd_outcome pieces_register(struct session *session, const struct extent *extent) {
    struct mapping *mapping = extent->mapping;
    uint64_t end = extent->offset + extent->length, next;
    enum uffd_outcome first = UFFD_OK;

    for (uint64_t at = extent->offset; at < end; at = next) {
        uint32_t span = (uint32_t)(at >> SPAN_SHIFT), last = span;
        uint8_t state = mapping->span_state[span];
        enum uffd_outcome outcome;

        while (span_offset(last + 1) < end && mapping->span_state[last + 1] == state)
            last++;
        next = least(span_offset(last + 1), end);
        if (state == MAPPING_UNREGISTERED)
            continue;
        outcome = uffd_register(session, extent->address + (at - extent->offset), next - at,
                                state == MAPPING_ARMED ? UFFD_MODE_MISSING : UFFD_MODE_WP);
        if (outcome == UFFD_OK)
            continue;
        if (first == UFFD_OK)
            first = outcome;
        session_lock(session);
        for (; span <= last; span++)
            if (mapping->region->spans[span].touched)
                intercept_distrust(session, mapping, span);
        session_unlock(session);
    }
    return first;
}

/* Under the lock: disarms an armed span of which this part of a new piece is all that is mapped, if that is right. */
static void bear_disarmed(struct session *session, struct mapping *mapping, uint32_t span, uint64_t bytes) {
    struct region *region = mapping->region;

    if (!session->pager.use_wp || region->options & DRP_REGION_HUGE || region->adopted ||
        region->spans[span].in_flight > 0 || mapping->disarmed_runs >= session->pager.runs_max ||
        atomic_load(&session->home.quarantined) || !gate_allows(session->domain, bytes) ||
        !gate_is_ample(session->domain, BORN_SHARE) ||
        extents_bytes(&session->extents, mapping, span_offset(span), span_offset(span + 1)) != bytes)
        return;
    intercept_bear_disarmed(session, mapping, span);
    region_touch(region, span, home_tick(&session->home));
}

/* Under the lock: nothing that was noted of this part of a span is true of its new owner. false: it has to be armed for him. */
static bool join_span(struct session *session, struct mapping *mapping, uint32_t span, uint64_t start, uint64_t end,
                      bool small) {
    struct region *region = mapping->region;
    unsigned pages = (unsigned)((end - start) >> PAGE_SHIFT), most;

    for (uint64_t chunk = start >> region->chunk_shift;
         policy_span_gone(&region->ticks[span]) > 0 && chunk << region->chunk_shift < end; chunk++)
        region_clear_gone(region, chunk, chunk);
    if (region->spans[span].touched) {
        region_set_known(region, span, 0);
        region->spans[span].fills++;
    }
    if (mapping->span_state[span] == MAPPING_ARMED && small)
        bear_disarmed(session, mapping, span, end - start);
    if (mapping->span_state[span] == MAPPING_ARMED)
        return true;
    if (!gate_allows(session->domain, (uint64_t)pages << PAGE_SHIFT))
        return false;
    most = intercept_fillable(session, mapping, span, NULL);
    pages += mapping->span_commit[span];
    session_set_commit(session, mapping, span, pages < most ? pages : most);
    return true;
}

/* The extent is entered already. */
static void join_spans(struct session *session, const struct extent *piece) {
    struct mapping *mapping = piece->mapping;
    uint64_t end = piece->offset + piece->length, next;
    unsigned steps = 0;

    session_lock(session);
    for (uint64_t at = piece->offset; at < end; at = next) {
        uint32_t span = (uint32_t)(at >> SPAN_SHIFT);
        bool joined;

        next = least(span_offset(span + 1), end);
        joined = join_span(session, mapping, span, at, next, piece->length <= BORN_SIZE);
        if (joined && ++steps % STEPS != 0)
            continue;
        session_unlock(session);
        if (!joined)
            intercept_arm(session, mapping->region, span, 1);
        session_lock(session);
    }
    session_unlock(session);
}

/*
 * A piece that the kernel does not register is filled unseen: what is then in its spans is never certain. Of many spans that is noted for the
 * whole region: a client that says so of terabytes shall not fill tables.
 */
static void give_up(struct session *session, const struct extent *piece) {
    struct region *region = piece->mapping->region;
    uint32_t span = (uint32_t)(piece->offset >> SPAN_SHIFT);

    session_lock(session);
    extents_remove(&session->extents, piece->address, piece->address + piece->length);
    region->strayed |= piece->length > STEPS * SPAN_SIZE;
    for (; !region->strayed && span_offset(span) < piece->offset + piece->length; span++)
        region->spans[span].strayed = true;
    session_unlock(session);
}

/* ---- mappings ---- */

void pieces_map_mapping(struct session *session, struct pager_command *command) {
    struct mapping *mapping = command->mapping;
    const struct extent *piece = command->pieces;
    enum uffd_outcome outcome = UFFD_OK;
    int r = 0;

    session_lock(session);
    region_add_mapping(mapping->region, mapping);
    if (mapping->region->options &
        DRP_REGION_SIGNAL) { /* the client has it on a userfaultfd of its own: swept, like all that we do not see */
        session_unlock(session);
        return;
    }
    if (piece)
        r = extents_add(&session->extents, piece);
    session_unlock(session);
    if (r < 0) {
        command->result = r;
        return;
    }
    if (piece)
        outcome = uffd_register(session, piece->address, piece->length, UFFD_MODE_MISSING);
    CRASH_POINT("map-registering");
    session_lock(session);
    if (outcome == UFFD_OK)
        mapping->intercepted = true;
    else {
        extents_forget(&session->extents, mapping);
        command->result = outcome == UFFD_BUSY ? -EBUSY : outcome == UFFD_MEMORY ? -ENOMEM : -EINVAL;
    }
    session_unlock(session);
}

void pieces_unlink_mapping(struct session *session, struct mapping *mapping) {
    atomic_fetch_sub_explicit(&session->committed, (int64_t)mapping->committed, memory_order_relaxed);
    gate_adjust(session->domain, -(int64_t)mapping->committed);
    mapping->committed = 0;
    region_remove_mapping(mapping->region, mapping);
}

/* One extent, or a part of it, ends. */
static void end_piece(struct session *session, uint64_t address, uint64_t length) {
    session_lock(session);
    extents_remove(&session->extents, address, address + length);
    session_unlock(session);
    CRASH_POINT("piece-ending");
    uffd_unregister(session, address, length); /* wakes, too; if it fails the client unmapped it before us */
    uffd_wake(session, address, length);
}

void pieces_unmap_mapping(struct session *session, struct mapping *mapping) {
    uint64_t address, length, offset;

    if (mapping->intercepted)
        for_each_piece (session, mapping, 0, UINT64_MAX, address, length, offset)
            end_piece(session, address, length);
    session_lock(session);
    pieces_unlink_mapping(session, mapping);
    session_unlock(session);
}

/* ---- pieces ---- */

/* Is that piece just as it is known? Then it is only registered again: the client may tell of it twice, once by the way of a restart. */
static bool is_known(const struct session *session, const struct extent *piece) {
    const struct extent *e = extents_find(&session->extents, piece->address);

    return e && e->mapping == piece->mapping && e->address + e->length >= piece->address + piece->length &&
           piece->offset - e->offset == piece->address - e->address;
}

static int enter_piece(struct session *session, const struct extent *piece) {
    int r;

    session_lock(session);
    r = extents_add(&session->extents, piece);
    session_unlock(session);
    return r;
}

static void leave_piece(struct session *session, const struct extent *piece) {
    session_lock(session);
    extents_remove(&session->extents, piece->address, piece->address + piece->length);
    session_unlock(session);
}

/* All or none. Those that were known already have no mapping afterwards. One in each hold of the lock: it may move as many as there are. */
static int enter_pieces(struct session *session, struct extent *pieces, size_t n) {
    int r = 0;
    size_t i;

    for (i = 0; i < n && r == 0; i++)
        if (is_known(session, &pieces[i]))
            pieces[i].mapping = NULL;
        else
            r = enter_piece(session, &pieces[i]);
    while (r < 0 && --i > 0)
        if (pieces[i - 1].mapping)
            leave_piece(session, &pieces[i - 1]);
    return r;
}

void pieces_map(struct session *session, struct pager_command *command) {
    if (!command->mapping->intercepted) {
        command->n_blind = command->n_pieces;
        return;
    }
    command->result = enter_pieces(session, command->pieces, command->n_pieces);
    for (size_t i = 0; command->result == 0 && i < command->n_pieces; i++) {
        struct extent *piece = &command->pieces[i];
        enum uffd_outcome outcome;

        if (piece->mapping)
            join_spans(session, piece);
        piece->mapping = command->mapping;
        outcome = pieces_register(session, piece);
        CRASH_POINT("piece-registered");
        if (outcome == UFFD_OK)
            continue;
        give_up(session, piece);
        command->n_blind++;
    }
}

void pieces_unmap(struct session *session, struct pager_command *command) {
    struct mapping *mapping = command->mapping;

    for (size_t i = 0; i < command->n_pieces; i++) {
        uint64_t end = command->pieces[i].address + command->pieces[i].length;
        const struct extent *e;

        for (uint64_t at = command->pieces[i].address; at < end && (e = extents_overlap(&session->extents, at, end));) {
            uint64_t first = at > e->address ? at : e->address, last = least(end, e->address + e->length);
            uint64_t offset = e->offset + (first - e->address);

            at = last;
            if (e->mapping != mapping)
                continue;
            end_piece(session, first, last - first);
            pager_forget_pages(session, mapping, offset, offset + (last - first));
        }
    }
}
