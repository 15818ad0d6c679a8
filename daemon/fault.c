/* SPDX-License-Identifier: MIT */
/*
 * The answer to a missing page: intercept one fault of a span, not each of its pages, and where memory is plentiful one of many spans.
 *
 * What is filled in an armed span:
 *   never touched   just the page; the whole span, where the one before it is full: somebody streams
 *   dropped         the pages that were resident then, nothing else. Where that are few, those of the neighbours too if many are touched
 *                   again, and it all stays armed: a round trip costs as much as filling ten pages or more
 *   in crumbs       (dropped, and what was resident had many holes) just the page: the kernel is as fast with the others
 *   huge pages      nothing: the kernel does that at once
 * Then the span is disarmed, if the gate allows what the kernel may fill in it. With much room up to sixteen spans around it are disarmed
 * by the same call: of huge pages, in crumbs, or never touched where the accesses are scattered (not while somebody streams: filling
 * whole spans is twice as fast as the kernel's faults). Nothing is brought back by that; less is seen of the accesses.
 *
 * The session's lock is held while deciding and while noting, never during an ioctl.
 */

#include "fault.h"

#include "crash-point.h"
#include "domain.h"
#include "gate.h"
#include "intercept.h"
#include "kernel.h"
#include "record.h"
#include "session.h"
#include "uffd.h"

#include <droppable/droppable.h>
#include <errno.h>

#define WINDOW_PAGES (GATE_STEP >> PAGE_SHIFT)
/* Spans measured when the gate does not say yes at once; mincore(2) of one costs about 6 us. */
#define REFRESH_INTERVAL_NS UINT64_C(1000000)
#define REFRESH_TIGHT 8
#define REFRESH_WAIT 64
/* Few pages: a span is sparse, and its neighbours are refilled with it, so many runs in all at 1.5 us. */
#define SPARSE_PAGES 16
#define SPARSE_RUNS 4
#define SPARSE_GROUP 32
#define BURST_NS UINT64_C(100000000)
/* Crumbs: so many runs, and that short. A call for one run of n pages takes 0.6 + 0.9 n us, a fault by the kernel 1.7 us. */
#define CRUMBS_RUNS 8
#define CRUMBS_PAGES 4
/* Spans disarmed by one call; only while what they may take is a small part of the room. */
#define BLOCK_SPANS 16
#define BLOCK_SHARE 16
#define BLOCK_SCATTERED 4
/* Promises: with more than a quarter of the headroom committed, scattered first touches make none; beyond a half, some are taken back. */
#define AMPLE_SHARE 4
#define SCARCE_SHARE 2

enum fault_kind {
    FAULT_PLAIN,   /* as little around it as may be */
    FAULT_FRESH,   /* never touched, and accesses are scattered */
    FAULT_HUGE,    /* 2 MiB pages, filled by the kernel */
    FAULT_SPARSE,  /* few pages were resident */
    FAULT_CRUMBED, /* many short runs were */
};

struct fault {
    struct session *session;
    struct mapping *mapping;
    struct region *region;
    uint32_t span;
    unsigned page;         /* in the span */
    uint64_t start;        /* page address of the fault */
    struct page_set pages; /* to fill */
    uint16_t fills;        /* of the span, when the fill began */
    uint8_t drops;         /* the same */
    unsigned filled;       /* pages, by us */
    enum fault_kind kind;
    bool wanted; /* all of the pages, by their owner */
    bool forced; /* has waited for long enough */
};

/* Answers as the kernel would where no armed mapping of ours is known: one zero page. */
static enum fault_answer answer_unknown(struct session *session, uint64_t address) {
    uint64_t filled = 0;

    if (uffd_zero(session, address, UINT64_C(1) << PAGE_SHIFT, &filled) == UFFD_EVENTS)
        return FAULT_DROPPING;
    uffd_wake(session, address, UINT64_C(1) << PAGE_SHIFT);
    return FAULT_DONE;
}

/* ---- deciding, under the lock ---- */

static uint64_t fault_chunk(const struct fault *fault) {
    return (span_offset(fault->span) + ((uint64_t)fault->page << PAGE_SHIFT)) >> fault->region->chunk_shift;
}

/* Was the chunk of this page dropped and not brought back? */
static bool is_refault(const struct fault *fault) {
    const struct region *region = fault->region;

    return (atomic_load_explicit(&region->chunk_flags[fault_chunk(fault)], memory_order_relaxed) & POLICY_CHUNK_GONE) ||
           (region->spans[fault->span].has_history && page_set_has(&region->history[fault->span], fault->page));
}

static bool is_streaming(const struct fault *fault) {
    struct page_set resident;

    return fault->span > 0 && fault->mapping->span_state[fault->span - 1] == MAPPING_DISARMED &&
           region_has_tail(fault->region, fault->span - 1) &&
           region_resident(fault->region, fault->span - 1, &resident) == (int)SPAN_PAGES;
}

/* Does a history of few pages tell of a span that has hardly any others? */
static bool is_sparse(const struct region *region, uint32_t span) {
    return region->spans[span].has_history && region_known(region, span) == POLICY_SPAN_KNOWN &&
           page_set_count(&region->history[span]) <= SPARSE_PAGES &&
           page_set_count_runs(&region->history[span]) <= SPARSE_RUNS;
}

static bool is_crumbed(const struct region *region, uint32_t span) {
    unsigned runs;

    if (!region->spans[span].has_history)
        return false;
    runs = page_set_count_runs(&region->history[span]);
    return runs >= CRUMBS_RUNS && page_set_count(&region->history[span]) < runs * CRUMBS_PAGES;
}

static bool is_fresh(const struct region *region, uint32_t span) {
    return !region->spans[span].touched && !region->spans[span].has_history && !region->adopted;
}

/* Of a span that was never touched: all of it, or just the page. */
static void choose_fresh(struct fault *fault) {
    bool streaming = is_streaming(fault);

    fault->mapping->scattered = streaming ? 0 : fault->mapping->scattered + 1;
    if (streaming)
        page_set_add_range(&fault->pages, 0, span_pages(fault->region, fault->span));
    else if (fault->mapping->scattered > BLOCK_SCATTERED)
        fault->kind = FAULT_FRESH;
}

/* Which pages to fill. */
static void choose_pages(struct fault *fault) {
    struct region *region = fault->region;
    struct span *span = &region->spans[fault->span];

    if (region->options & DRP_REGION_HUGE) {
        fault->kind = FAULT_HUGE; /* the kernel fills a huge page at once */
        return;
    }
    if (is_fresh(region, fault->span)) {
        if (!region_is_opaque(region))
            region_set_known(region, fault->span, POLICY_SPAN_KNOWN);
        choose_fresh(fault);
    } else if (is_sparse(region, fault->span))
        fault->kind = FAULT_SPARSE;
    else if (is_crumbed(region, fault->span))
        fault->kind = FAULT_CRUMBED;
    if (span->has_history)
        fault->pages = region->history[fault->span];
    page_set_add(&fault->pages, fault->page);
}

/* The window of 64 KiB around the page, and nothing outside it. */
static void narrow_pages(struct fault *fault) {
    unsigned first = fault->page / WINDOW_PAGES * WINDOW_PAGES;
    struct page_set all = fault->pages, window = {0};

    page_set_add_range(&window, first, WINDOW_PAGES);
    fault->pages = (struct page_set){0};
    page_set_add_common(&fault->pages, &all, &window);
    page_set_add(&fault->pages, fault->page);
}

/* The bytes that the gate is asked for. */
static uint64_t wanted_bytes(const struct fault *fault) {
    return fault->kind == FAULT_HUGE ? region_span_bytes(fault->region, fault->span)
                                     : (uint64_t)page_set_count(&fault->pages) << PAGE_SHIFT;
}

static enum gate_verdict ask_gate(struct fault *fault) {
    struct session *session = fault->session;
    uint64_t bytes = wanted_bytes(fault);
    bool passes = fault->forced || (!fault->wanted && gate_is_hopeless(session->domain, kernel_now()));
    enum gate_verdict verdict = gate_ask(session->domain, bytes, !passes);
    bool scarce = verdict != GATE_FREE || !gate_is_ample(session->domain, SCARCE_SHARE);

    if (scarce && !passes && kernel_now() - session->pager.last_refresh > REFRESH_INTERVAL_NS) {
        bool wait = verdict == GATE_WAIT;

        session->pager.last_refresh = kernel_now();
        session_unlock(session);
        if (intercept_refresh(session, wait ? REFRESH_WAIT : REFRESH_TIGHT, verdict == GATE_FREE, SPAN_SIZE) > 0 &&
            wait) {
            session_lock(session);
            return gate_ask(session->domain, bytes, true);
        }
        session_lock(session);
    }
    if (verdict == GATE_WAIT && passes) {
        session->pager.passed_gate = true;
        return GATE_TIGHT;
    }
    return verdict;
}

/* ---- filling ---- */

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
    CRASH_POINT("filled");
    return outcome;
}

/* The pages around the fault first: who waits for them goes on while the rest is filled, which takes up to half a millisecond. */
static enum uffd_outcome fill_window_first(struct fault *fault, uint64_t *filled) {
    struct page_set all = fault->pages, rest = fault->pages;
    enum uffd_outcome outcome;

    narrow_pages(fault);
    outcome = fill_pages(fault, filled);
    page_set_remove(&rest, &fault->pages);
    if (outcome == UFFD_OK && !page_set_is_empty(&rest)) {
        uffd_wake(fault->session, fault->start, UINT64_C(1) << PAGE_SHIFT);
        fault->pages = rest;
        outcome = fill_pages(fault, filled);
    }
    fault->pages = all;
    return outcome;
}

/* Under the lock: the chunks of these pages may have some. One that counts as gone and is not would never be dropped again. */
static void clear_gone(const struct fault *fault) {
    struct region *region = fault->region;
    unsigned shift = region->chunk_shift - PAGE_SHIFT, first = 0, count;

    for (; page_set_next_run(&fault->pages, &first, &count); first += count) {
        uint64_t chunk = (span_offset(fault->span) >> region->chunk_shift) + (first >> shift);
        uint64_t last = (span_offset(fault->span) >> region->chunk_shift) + ((first + count - 1) >> shift);

        for (; chunk <= last && chunk < region->chunk_count; chunk++)
            region_clear_gone(region, chunk, fault->wanted ? chunk : fault_chunk(fault));
    }
}

/* Under the lock, before the fill, however far that will come: a drop that begins later must not take its pages for gone. */
static void expect_fill(struct fault *fault) {
    struct span *span = &fault->region->spans[fault->span];

    clear_gone(fault);
    fault->fills = ++span->fills;
    fault->drops = span->drops;
}

/* Under the lock: the fill did not come to its end, what is there is not known. */
static void note_broken_fill(const struct fault *fault) {
    struct span *span = &fault->region->spans[fault->span];

    clear_gone(fault); /* a drop may have come and gone meanwhile */
    region_set_known(fault->region, fault->span, 0);
    span->fills++;
}

/* Under the lock: these pages are back, and so many bytes of them by us. */
static void note_filled(const struct fault *fault, uint64_t filled) {
    struct region *region = fault->region;
    struct span *span = &region->spans[fault->span];

    clear_gone(fault);
    if (span->has_history) {
        page_set_remove(&region->history[fault->span], &fault->pages);
        span->has_history = !page_set_is_empty(&region->history[fault->span]);
    }
    /* A drop that came in between may have taken some of it along. */
    if (span->fills != fault->fills || span->drops != fault->drops || span->in_flight > 0)
        region_set_known(region, fault->span, 0);
    else if (region_known(region, fault->span) & POLICY_SPAN_KNOWN)
        region_set_known(region, fault->span, (uint16_t)(region_known(region, fault->span) + (filled >> PAGE_SHIFT)));
    span->fills++;
}

/* Under the lock: may a sparse neighbour be refilled along with the span? Then its pages are chosen. */
static bool choose_neighbour(struct fault *fault, unsigned *runs) {
    const struct span *span = &fault->region->spans[fault->span];

    if (fault->mapping->span_state[fault->span] != MAPPING_ARMED || span->in_flight > 0 ||
        !is_sparse(fault->region, fault->span))
        return false;
    fault->pages = fault->region->history[fault->span];
    *runs += page_set_count_runs(&fault->pages);
    if (*runs > SPARSE_GROUP || gate_ask(fault->session->domain, wanted_bytes(fault), false) != GATE_FREE)
        return false;
    expect_fill(fault);
    return true;
}

/* How many neighbours to look at: each touch that soon follows another doubles them, a lone one brings back its own span only. */
static uint32_t note_burst(struct fault *fault) {
    struct mapping *mapping = fault->mapping;
    uint64_t now = kernel_now();

    mapping->burst = now - mapping->burst_at > BURST_NS ? 0 : mapping->burst + 1;
    mapping->burst_at = now;
    return mapping->burst < 5 ? 1U << mapping->burst : SPARSE_GROUP;
}

/* What was resident around a sparse span comes back with it: one round trip for all. It stays armed. */
static void refill_neighbours(struct fault *of) {
    uint32_t base = of->span / SPARSE_GROUP * SPARSE_GROUP, window = note_burst(of);
    struct fault fault = *of;
    unsigned runs = page_set_count_runs(&of->pages);

    for (uint32_t i = 1; i < window && runs < SPARSE_GROUP; i++) {
        enum uffd_outcome outcome;
        uint64_t filled = 0;
        bool chosen;

        fault.span = base + (of->span - base + i) % SPARSE_GROUP;
        if (fault.span >= fault.region->span_count)
            continue;
        session_lock(fault.session);
        chosen = choose_neighbour(&fault, &runs);
        session_unlock(fault.session);
        if (!chosen)
            continue;
        outcome = fill_pages(&fault, &filled);
        counter_add(&fault.session->home.counters.filled_bytes, filled);
        session_lock(fault.session);
        if (outcome == UFFD_OK)
            note_filled(&fault, filled);
        else
            note_broken_fill(&fault);
        session_unlock(fault.session);
        if (outcome != UFFD_OK)
            return;
    }
}

/* ---- disarming ---- */

/* Under the lock: may this span be disarmed with one of the kind beside it? */
static bool is_alike(const struct fault *fault, uint32_t span) {
    if (fault->mapping->span_state[span] != MAPPING_ARMED || fault->region->spans[span].in_flight > 0 ||
        extents_bytes(&fault->session->extents, fault->mapping, span_offset(span), span_offset(span + 1)) == 0)
        return false;
    if (fault->kind == FAULT_FRESH)
        return is_fresh(fault->region, span);
    return fault->kind == FAULT_CRUMBED ? is_crumbed(fault->region, span) : fault->kind == FAULT_HUGE;
}

/* Under the lock: commits and touches a neighbour. */
static bool take_along(struct fault *fault, uint32_t span) {
    if (!is_alike(fault, span) || !intercept_commit(fault->session, fault->mapping, span, 0))
        return false;
    region_touch(fault->region, span, home_tick(&fault->session->home));
    return true;
}

/*
 * Under the lock: which spans around the fault to disarm, and their commitments. false: none. Those of a block that lies at a multiple of its size, so
 * that a walk in either direction meets few of them.
 */
static bool choose_block(struct fault *fault, uint32_t *ret_first, uint32_t *ret_count) {
    uint32_t size = BLOCK_SPANS, base, first = fault->span, end = fault->span + 1;

    if (fault->region->spans[fault->span].in_flight > 0 ||
        fault->mapping->disarmed_runs >= fault->session->pager.runs_max ||
        !intercept_commit(fault->session, fault->mapping, fault->span, fault->filled))
        return false;
    if (!gate_is_ample(fault->session->domain, AMPLE_SHARE))
        size = 1;
    while (size > 1 && gate_room(fault->session->domain) < (uint64_t)size * SPAN_SIZE * BLOCK_SHARE)
        size /= 2;
    base = fault->span / size * size;
    while (first > base && take_along(fault, first - 1))
        first--;
    while (end < base + size && end < fault->region->span_count && take_along(fault, end))
        end++;
    fault->mapping->disarming_first = first;
    fault->mapping->disarming_end = end;
    *ret_first = first;
    *ret_count = end - first;
    return true;
}

/* Nobody else will fill it, neither before nor after: a small page then. */
static enum uffd_outcome fill_page_alone(struct fault *fault) {
    enum uffd_outcome outcome;
    uint64_t filled = 0;

    page_set_add(&fault->pages, fault->page);
    session_lock(fault->session);
    expect_fill(fault);
    session_unlock(fault->session);
    outcome = uffd_zero(fault->session, fault->start, UINT64_C(1) << PAGE_SHIFT, &filled);
    session_lock(fault->session);
    if (outcome == UFFD_OK)
        note_filled(fault, filled);
    else
        note_broken_fill(fault);
    session_unlock(fault->session);
    counter_add(&fault->session->home.counters.filled_bytes, filled);
    return outcome;
}

/*
 * Under the lock: does the span stay armed after the fill? Sparse ones do until they are touched again, and so do fresh ones where accesses are
 * scattered and much is promised already: else 2 MiB of headroom were promised for each page that is touched.
 */
static bool stays_armed(const struct fault *fault) {
    return fault->kind == FAULT_SPARSE ||
           (fault->kind == FAULT_FRESH && !gate_is_ample(fault->session->domain, AMPLE_SHARE));
}

static void disarm_unasked(const struct fault *fault) {
    struct session *session = fault->session;

    session_lock(session);
    session_set_commit(session, fault->mapping, fault->span,
                       intercept_fillable(session, fault->mapping, fault->span, NULL));
    fault->mapping->disarming_first = fault->span;
    fault->mapping->disarming_end = fault->span + 1;
    session_unlock(session);
    intercept_disarm(session, fault->mapping, fault->span, 1);
}

/* After the fill: disarms, if that is right, and lets the waiters go on. */
static enum fault_answer disarm_and_wake(struct fault *fault, enum uffd_outcome outcome, enum gate_verdict verdict) {
    uint32_t first = fault->span, count = 1;
    bool disarmed = false;

    if (outcome == UFFD_OK && verdict == GATE_FREE) {
        session_lock(fault->session);
        disarmed = !stays_armed(fault) && choose_block(fault, &first, &count);
        session_unlock(fault->session);
        if (fault->kind == FAULT_SPARSE)
            refill_neighbours(fault);
    }
    if (disarmed)
        disarmed = intercept_disarm(fault->session, fault->mapping, first, count);
    if (disarmed && fault->kind == FAULT_FRESH)
        intercept_expect_little(fault->session, fault->region, first, count);
    if (!disarmed && page_set_is_empty(&fault->pages))
        outcome = fill_page_alone(fault);
    /* Not woken: it would fault anew, and faults are read before events. With many threads the event were never read. */
    if (outcome == UFFD_EVENTS)
        return FAULT_DROPPING;
    if (outcome == UFFD_MEMORY && !fault->forced)
        return FAULT_GATED;
    if (outcome == UFFD_MEMORY) /* even after the wait: the kernel shall do as its own policy says */
        disarm_unasked(fault);  /* the gate is told, not asked */
    intercept_wake(fault->session, fault->mapping, first, count);
    return FAULT_DONE;
}

static enum fault_answer fill_and_disarm(struct fault *fault, enum gate_verdict verdict) {
    struct session *session = fault->session;
    enum uffd_outcome outcome;
    uint64_t filled = 0;

    /* Nothing to fill where the kernel shall do it. */
    outcome = page_set_is_empty(&fault->pages) ? UFFD_OK : fill_window_first(fault, &filled);
    counter_add(&session->home.counters.filled_bytes, filled);
    if (outcome == UFFD_CHANGED) { /* the VMA is split inside the range: the page alone will do */
        fault->pages = (struct page_set){0};
        page_set_add(&fault->pages, fault->page);
        outcome = uffd_zero(session, fault->start, UINT64_C(1) << PAGE_SHIFT, &filled);
    }
    fault->filled = (unsigned)(filled >> PAGE_SHIFT);
    session_lock(session);
    if (outcome == UFFD_EVENTS || outcome == UFFD_MEMORY)
        note_broken_fill(fault);
    else
        note_filled(fault, filled);
    session_unlock(session);
    return disarm_and_wake(fault, outcome, verdict);
}

/* ---- the fault ---- */

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
    struct fault fault = {.session = session, .forced = forced};
    enum gate_verdict verdict;
    bool quarantined, again;

    session_lock(session);
    if (!fault_begin(&fault, address)) {
        session_unlock(session);
        return answer_unknown(session, fault.start);
    }
    /* no fills of ours, if the gate allows, and no wait for drops */
    quarantined = atomic_load(&session->home.quarantined);
    if (fault.region->spans[fault.span].in_flight && !forced && !quarantined) {
        session_unlock(session);
        return FAULT_DROPPING;
    }
    choose_pages(&fault);
    verdict = ask_gate(&fault);
    if (verdict == GATE_WAIT) {
        session_unlock(session);
        return FAULT_GATED;
    }
    if (verdict == GATE_TIGHT || forced) {
        narrow_pages(&fault);
        verdict = GATE_TIGHT;
    } else if (fault.kind == FAULT_CRUMBED || session->pager.kernel_fills || quarantined)
        fault.pages = (struct page_set){0}; /* the kernel does it, once the span is disarmed */
    again = is_refault(&fault);
    if (again)
        session_note_refault(session, fault.region, fault_chunk(&fault));
    record_fault(fault.region->id, fault_chunk(&fault), again);
    counter_add(&fault.region->faults, 1);
    region_touch(fault.region, fault.span, home_tick(&session->home));
    expect_fill(&fault);
    session_unlock(session);
    CRASH_POINT("fault-chosen");
    return fill_and_disarm(&fault, verdict);
}

/* ---- populate ---- */

enum fault_answer fault_populate(struct session *session, struct pager_command *command) {
    struct region *region = command->region;
    struct fault fault = {.session = session, .region = region, .wanted = true};
    uint64_t now = kernel_now(), end, step, filled = 0;
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
    verdict = ask_gate(&fault);
    if (verdict == GATE_WAIT) {
        session_unlock(session);
        if (command->deadline != 0 && now >= command->deadline) {
            command->result = -ENOMEM;
            return FAULT_DONE;
        }
        return FAULT_GATED;
    }
    if (verdict == GATE_TIGHT) {
        step = (command->offset | (GATE_STEP - 1)) + 1;
        end = step < end ? step : end;
        fault.pages = (struct page_set){0};
        page_set_add_range(&fault.pages, fault.page, (unsigned)((end - command->offset) >> PAGE_SHIFT));
    }
    region_touch(region, fault.span, home_tick(&session->home));
    expect_fill(&fault);
    session_unlock(session);

    outcome = fill_pages(&fault, &filled);
    counter_add(&session->home.counters.filled_bytes, filled);
    command->filled += filled;
    session_lock(session);
    note_filled(&fault, filled);
    session_unlock(session);
    intercept_wake(session, fault.mapping, fault.span, 1);
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
