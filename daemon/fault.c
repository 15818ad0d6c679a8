/* SPDX-License-Identifier: MIT */
/*
 * The answer to a missing page: intercept one fault of a span, not each of its pages.
 *
 * A span that is armed sends its next missing page here. What is filled: after a drop, the pages that were resident then; never touched before,
 * just the page (or the whole span, where the one before it is full: somebody streams); of huge pages nothing, the kernel does that at
 * once. Then the span is disarmed, if the gate allows what the kernel may fill in it: that is a commitment until it is armed again.
 *
 * The session's lock is held while deciding and while noting, never during an ioctl. Only this thread fills and changes span states, so
 * what was decided still holds after the ioctl, but for drops: in_flight and fills tell dropper and pager of each other.
 */

#include "fault.h"

#include "domain.h"
#include "gate.h"
#include "kernel.h"
#include "session.h"
#include "uffd.h"

#include <droppable/droppable.h>
#include <errno.h>

#define WINDOW_PAGES (GATE_STEP >> PAGE_SHIFT)
/* Spans measured when the gate does not say yes at once; mincore(2) of one costs about 6 us. */
#define REFRESH_INTERVAL_NS UINT64_C(1000000)
#define REFRESH_TIGHT 8
#define REFRESH_WAIT 64

struct fault {
    struct session *session;
    struct mapping *mapping;
    struct region *region;
    uint32_t span;
    unsigned page;         /* in the span */
    uint64_t start;        /* page address of the fault */
    struct page_set pages; /* to fill */
    bool disarm;
};

static uint64_t span_offset(uint32_t span) {
    return (uint64_t)span << SPAN_SHIFT;
}

static unsigned span_pages(const struct region *region, uint32_t span) {
    return (unsigned)(region_span_bytes(region, span) >> PAGE_SHIFT);
}

/* Calls for each piece of a span that a mapping has in the client's address space now. Takes the lock for each step. */
#define for_each_piece(session, mapping_, first, last, address, length, offset) \
    for (size_t cursor_ = 0;                                                    \
         fault_next_piece(session, mapping_, first, last, &cursor_, &(address), &(length), &(offset));)

static bool fault_next_piece(struct session *session, const struct mapping *mapping, uint64_t first, uint64_t last,
                             size_t *cursor, uint64_t *address, uint64_t *length, uint64_t *offset) {
    bool more;

    session_lock(session);
    more = extents_next(&session->extents, mapping, first, last, cursor, address, length, offset);
    session_unlock(session);
    return more;
}

/* Under the lock: a span's commitment becomes pages. */
static void set_commit(struct session *session, struct mapping *mapping, uint32_t span, unsigned pages) {
    int64_t change = ((int64_t)pages - mapping->span_commit[span]) * (INT64_C(1) << PAGE_SHIFT);

    if (change == 0)
        return;
    mapping->span_commit[span] = (uint16_t)pages;
    mapping->committed = (uint64_t)((int64_t)mapping->committed + change);
    gate_adjust(session->domain, change);
}

static void wake_span(struct session *session, const struct mapping *mapping, uint32_t span) {
    uint64_t address, length, offset;

    for_each_piece (session, mapping, span_offset(span), span_offset(span + 1), address, length, offset)
        uffd_wake(session, address, length);
}

/* Answers as the kernel would where no armed mapping of ours is known: one zero page. */
static enum fault_answer answer_unknown(struct session *session, uint64_t address) {
    uint64_t filled = 0;

    if (uffd_zero(session, address, UINT64_C(1) << PAGE_SHIFT, &filled) == UFFD_EVENTS)
        return FAULT_DROPPING;
    uffd_wake(session, address, UINT64_C(1) << PAGE_SHIFT);
    return FAULT_DONE;
}

/* Under the lock: was the chunk of this page dropped and not brought back? */
static bool is_refault(const struct region *region, uint32_t span, unsigned page) {
    uint64_t chunk = (span_offset(span) + ((uint64_t)page << PAGE_SHIFT)) >> region->chunk_shift;

    return (atomic_load_explicit(&region->chunk_flags[chunk], memory_order_relaxed) & POLICY_CHUNK_GONE) ||
           page_set_has(&region->spans[span].history, page);
}

static bool is_streaming(const struct fault *fault) {
    struct page_set resident;

    return fault->span > 0 && fault->mapping->span_state[fault->span - 1] == MAPPING_DISARMED &&
           region_resident(fault->region, fault->span - 1, &resident) == (int)SPAN_PAGES;
}

/* Under the lock: which pages to fill. */
static void choose_pages(struct fault *fault) {
    const struct span *span = &fault->region->spans[fault->span];

    if (fault->region->options & DRP_REGION_HUGE)
        return; /* the kernel fills a huge page at once */
    fault->pages = span->history;
    if (page_set_count(&fault->pages) == 0 && !span->touched && is_streaming(fault))
        page_set_add_range(&fault->pages, 0, span_pages(fault->region, fault->span));
    page_set_add(&fault->pages, fault->page);
}

/* The window of 64 KiB around the page, and nothing outside it. */
static void narrow_pages(struct fault *fault) {
    unsigned first = fault->page / WINDOW_PAGES * WINDOW_PAGES;
    struct page_set window = {0};

    page_set_add_range(&window, first, WINDOW_PAGES);
    for (size_t i = 0; i < SPAN_PAGES / 64; i++)
        fault->pages.bits[i] &= window.bits[i];
    page_set_add(&fault->pages, fault->page);
}

static enum uffd_outcome fill_pages(const struct fault *fault, uint64_t *filled) {
    enum uffd_outcome outcome = UFFD_OK;
    unsigned first = 0, count;

    for (; outcome == UFFD_OK && page_set_next_run(&fault->pages, &first, &count); first += count) {
        uint64_t start = span_offset(fault->span) + ((uint64_t)first << PAGE_SHIFT), address, length, offset;

        for_each_piece (fault->session, fault->mapping, start, start + ((uint64_t)count << PAGE_SHIFT), address, length,
                        offset) {
            outcome = uffd_zero(fault->session, address, length, filled);
            if (outcome != UFFD_OK)
                break;
        }
    }
    return outcome;
}

/* Under the lock: these pages are back. */
static void note_filled(const struct fault *fault) {
    struct region *region = fault->region;
    struct span *span = &region->spans[fault->span];
    unsigned shift = region->chunk_shift - PAGE_SHIFT, first = 0, count;

    for (; page_set_next_run(&fault->pages, &first, &count); first += count) {
        uint64_t chunk = (span_offset(fault->span) >> region->chunk_shift) + (first >> shift);
        uint64_t last = (span_offset(fault->span) >> region->chunk_shift) + ((first + count - 1) >> shift);

        page_set_remove_range(&span->history, first, count);
        for (; chunk <= last && chunk < region->chunk_count; chunk++)
            atomic_fetch_and_explicit(&region->chunk_flags[chunk], (uint8_t)~POLICY_CHUNK_GONE, memory_order_relaxed);
    }
    span->fills++;
}

/* Under the lock: nothing of the span is known to be gone any more, the kernel may fill any of it. */
static void forget_gone(struct region *region, uint32_t span) {
    uint64_t chunk = (uint64_t)span << (SPAN_SHIFT - region->chunk_shift);

    for (uint64_t i = 0; i < region_chunks_per_span(region) && chunk + i < region->chunk_count; i++)
        atomic_fetch_and_explicit(&region->chunk_flags[chunk + i], (uint8_t)~POLICY_CHUNK_GONE, memory_order_relaxed);
    region->spans[span].history = (struct page_set){0};
    region->spans[span].fills++;
}

/* Under the lock: may the span be disarmed? Then it counts as disarmed, and its commitment is made. */
static bool commit_disarm(struct fault *fault) {
    struct session *session = fault->session;
    struct page_set resident;
    unsigned total = span_pages(fault->region, fault->span), missing;
    int n;

    if (fault->region->spans[fault->span].in_flight || fault->mapping->disarmed_runs >= session->pager.runs_max)
        return false;
    n = region_resident(fault->region, fault->span, &resident);
    missing = n < 0 ? total : total - (unsigned)n;
    if (!gate_commit(session->domain, (uint64_t)missing << PAGE_SHIFT))
        return false;
    fault->mapping->span_commit[fault->span] = (uint16_t)missing;
    fault->mapping->committed += (uint64_t)missing << PAGE_SHIFT;
    return true;
}

/* Makes the kernel fill the span from now on. Waiters still have to be woken. */
static bool disarm(struct fault *fault) {
    struct session *session = fault->session;
    bool wp = session->pager.use_wp && !(fault->region->options & DRP_REGION_HUGE);
    uint64_t address, length, offset;
    enum uffd_outcome outcome = UFFD_OK;

    for_each_piece (session, fault->mapping, span_offset(fault->span), span_offset(fault->span + 1), address, length,
                    offset) {
        outcome = wp ? uffd_register(session, address, length, UFFD_MODE_WP) : uffd_unregister(session, address, length);
        if (outcome != UFFD_OK)
            break;
    }
    session_lock(session);
    if (outcome == UFFD_OK) {
        mapping_set_state(fault->mapping, fault->span, wp ? MAPPING_DISARMED : MAPPING_UNREGISTERED);
        forget_gone(fault->region, fault->span);
    } else /* ENOMEM at max_map_count, or something moved: it stays armed */
        set_commit(session, fault->mapping, fault->span, 0);
    session_unlock(session);
    return outcome == UFFD_OK;
}

/* Under the lock. */
static enum gate_verdict ask_gate(struct fault *fault, bool forced) {
    struct session *session = fault->session;
    uint64_t bytes = fault->region->options & DRP_REGION_HUGE ? region_span_bytes(fault->region, fault->span)
                                                              : (uint64_t)page_set_count(&fault->pages) << PAGE_SHIFT;
    enum gate_verdict verdict = gate_ask(session->domain, bytes);

    if (verdict != GATE_FREE && !forced && kernel_now() - session->pager.last_refresh > REFRESH_INTERVAL_NS) {
        bool wait = verdict == GATE_WAIT;

        session->pager.last_refresh = kernel_now();
        session_unlock(session);
        if (fault_refresh_commitments(session, wait ? REFRESH_WAIT : REFRESH_TIGHT, false, SPAN_SIZE) > 0 && wait) {
            session_lock(session);
            return gate_ask(session->domain, bytes);
        }
        session_lock(session);
    }
    if (verdict == GATE_WAIT && forced) {
        counter_add(&session->counters.gate_timeouts, 1);
        return GATE_TIGHT;
    }
    return verdict;
}

static enum fault_answer fill_and_disarm(struct fault *fault, enum gate_verdict verdict, bool forced) {
    struct session *session = fault->session;
    enum uffd_outcome outcome;
    uint64_t filled = 0;

    outcome = fill_pages(fault, &filled);
    counter_add(&session->counters.filled_bytes, filled);
    if (outcome == UFFD_CHANGED) { /* the VMA is split inside the range: the page alone will do */
        fault->pages = (struct page_set){0};
        page_set_add(&fault->pages, fault->page);
        outcome = uffd_zero(session, fault->start, UINT64_C(1) << PAGE_SHIFT, &filled);
    }
    /* Not woken: it would fault anew, and faults are read before events. With many threads the event were never read. */
    if (outcome == UFFD_EVENTS)
        return FAULT_DROPPING;
    if (outcome == UFFD_MEMORY && !forced)
        return FAULT_GATED;

    session_lock(session);
    note_filled(fault);
    fault->disarm = outcome == UFFD_OK && verdict == GATE_FREE && commit_disarm(fault);
    session_unlock(session);

    /* Without memory even after the wait, the kernel shall do as its own policy says. */
    if (fault->disarm || outcome == UFFD_MEMORY)
        fault->disarm = disarm(fault);
    if (!fault->disarm && (fault->region->options & DRP_REGION_HUGE)) /* nobody else will fill it: a small page then */
        uffd_zero(session, fault->start, UINT64_C(1) << PAGE_SHIFT, &filled);
    wake_span(session, fault->mapping, fault->span);
    return FAULT_DONE;
}

/* Under the lock: finds out what faults. false: no armed span of ours. */
static bool fault_begin(struct fault *fault, uint64_t address) {
    const struct extent *extent;
    uint64_t offset;

    fault->start = address & ~((UINT64_C(1) << PAGE_SHIFT) - 1);
    extent = extents_find(&fault->session->extents, fault->start);
    if (!extent)
        return false;
    offset = extent->offset + (fault->start - extent->address);
    fault->mapping = extent->mapping;
    fault->region = extent->mapping->region;
    fault->span = (uint32_t)(offset >> SPAN_SHIFT);
    fault->page = (unsigned)((offset & (SPAN_SIZE - 1)) >> PAGE_SHIFT);
    return fault->mapping->span_state[fault->span] == MAPPING_ARMED; /* else it raced with the disarming */
}

enum fault_answer fault_answer(struct session *session, uint64_t address, bool forced) {
    struct fault fault = {.session = session};
    enum gate_verdict verdict;

    session_lock(session);
    if (!fault_begin(&fault, address)) {
        session_unlock(session);
        return answer_unknown(session, fault.start);
    }
    if (atomic_load(&session->quarantined)) { /* no new fills: the kernel does it */
        session_unlock(session);
        disarm(&fault);
        wake_span(session, fault.mapping, fault.span);
        return FAULT_DONE;
    }
    if (fault.region->spans[fault.span].in_flight && !forced) {
        session_unlock(session);
        return FAULT_DROPPING;
    }
    choose_pages(&fault);
    verdict = ask_gate(&fault, forced);
    if (verdict == GATE_WAIT) {
        session_unlock(session);
        return FAULT_GATED;
    }
    if (verdict == GATE_TIGHT || forced) {
        narrow_pages(&fault);
        verdict = GATE_TIGHT;
    }
    if (is_refault(fault.region, fault.span, fault.page)) {
        counter_add(&session->counters.refaults, 1);
        counter_add(&fault.region->refaults, 1);
    }
    counter_add(&fault.region->faults, 1);
    region_touch(fault.region, fault.span, session_tick(session));
    session_unlock(session);
    return fill_and_disarm(&fault, verdict, forced);
}

/* ---- populate ---- */

enum fault_answer fault_populate(struct session *session, struct pager_command *command) {
    struct region *region = command->region;
    struct fault fault = {.session = session, .region = region};
    uint64_t now = kernel_now(), end, filled = 0;
    enum gate_verdict verdict;
    enum uffd_outcome outcome;

    if (command->offset >= command->end || region->dead || region->n_mappings == 0)
        return FAULT_DONE;
    fault.mapping = region->mappings[0];
    fault.span = (uint32_t)(command->offset >> SPAN_SHIFT);
    fault.page = (unsigned)((command->offset & (SPAN_SIZE - 1)) >> PAGE_SHIFT);
    end = span_offset(fault.span + 1) < command->end ? span_offset(fault.span + 1) : command->end;

    session_lock(session);
    page_set_add_range(&fault.pages, fault.page, (unsigned)((end - command->offset) >> PAGE_SHIFT));
    verdict = ask_gate(&fault, false);
    if (verdict == GATE_WAIT) {
        session_unlock(session);
        if (command->deadline != 0 && now >= command->deadline) {
            command->result = -ENOMEM;
            return FAULT_DONE;
        }
        return FAULT_GATED;
    }
    if (verdict == GATE_TIGHT) {
        end = (command->offset & ~(uint64_t)(GATE_STEP - 1)) + GATE_STEP < end
                  ? (command->offset & ~(uint64_t)(GATE_STEP - 1)) + GATE_STEP
                  : end;
        fault.pages = (struct page_set){0};
        page_set_add_range(&fault.pages, fault.page, (unsigned)((end - command->offset) >> PAGE_SHIFT));
    }
    region_touch(region, fault.span, session_tick(session));
    session_unlock(session);

    outcome = fill_pages(&fault, &filled);
    counter_add(&session->counters.filled_bytes, filled);
    command->filled += filled;
    session_lock(session);
    note_filled(&fault);
    session_unlock(session);
    wake_span(session, fault.mapping, fault.span);
    if (outcome == UFFD_EVENTS)
        return FAULT_DROPPING; /* read them, then the same step again */
    if (outcome != UFFD_OK) {
        command->result = outcome == UFFD_MEMORY ? -ENOMEM : outcome == UFFD_GONE ? -ESRCH : -EOPNOTSUPP;
        return FAULT_DONE;
    }
    command->offset = end;
    command->deadline = 0;
    return command->offset >= command->end ? FAULT_DONE : FAULT_DROPPING;
}

/* ---- arming ---- */

static enum uffd_outcome arm_mapping(struct session *session, struct mapping *mapping, uint32_t span) {
    enum uffd_outcome outcome = UFFD_OK;
    uint64_t address, length, offset;

    for_each_piece (session, mapping, span_offset(span), span_offset(span + 1), address, length, offset) {
        int mapped = mapping->span_state[span] != MAPPING_UNREGISTERED
                         ? 1
                         : pager_still_mapped(session, mapping, address, length, offset);

        if (mapped < 0)
            return UFFD_FAILED;
        if (mapped == 0) {
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

uint64_t fault_arm(struct session *session, struct region *region, uint32_t span) {
    uint64_t back = 0;

    for (unsigned i = 0; i < region->n_mappings; i++) {
        struct mapping *mapping = region->mappings[i];

        if (!mapping->intercepted || mapping->span_state[span] == MAPPING_ARMED ||
            mapping->disarmed_runs >= session->pager.runs_max)
            continue;
        if (arm_mapping(session, mapping, span) != UFFD_OK)
            continue;
        session_lock(session);
        mapping_set_state(mapping, span, MAPPING_ARMED);
        back += (uint64_t)mapping->span_commit[span] << PAGE_SHIFT;
        set_commit(session, mapping, span, 0);
        session_unlock(session);
    }
    return back;
}

/* ---- commitments ---- */

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

uint64_t fault_refresh_commitments(struct session *session, unsigned max, bool rearm, uint64_t wanted) {
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
            back += fault_arm(session, refresh.regions[i], refresh.spans[i]);
        max -= batch;
        if (refresh.n < batch || left == 0)
            break;
    }
    return back;
}
