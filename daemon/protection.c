/* SPDX-License-Identifier: MIT */
/*
 * Refault protection: a chunk that is touched again soon after it was dropped should not have been.
 *
 * The kernel's workingset code asks whether a page would have stayed in a somewhat larger memory (mm/workingset.c); here the time does:
 * who is back within the window was in use. The chunk that was missed then counts an eighth of its age, a 64th from the second time on; it
 * keeps its place among its like, so that where nearly all is in use the order is still that of use. His whole span counts as younger
 * by some seconds, since who uses a chunk uses its neighbours, and so do the spans beside it. That is short where pins tell what is
 * used; of memory that is never pinned a fault is all that is seen, so there the span is protected long, and twice as long with each
 * mistake. All of it is worn down when a touch comes late.
 */

#include "policy.h"

uint32_t policy_protection_seen(unsigned level) {
    return level > 0 ? 40 : 0;
}

uint32_t policy_protection_unseen(unsigned level) {
    if (level == 0)
        return 0;
    return UINT32_C(400) << ((level < POLICY_PROTECTION_MAX ? level : POLICY_PROTECTION_MAX) - 1);
}

/* Under the session's lock, as all changes of gone. */
static void set_level(struct policy_span *span, unsigned level) {
    atomic_store_explicit(&span->gone, (uint16_t)(policy_span_gone(span) | level << 12), memory_order_relaxed);
}

/* A plan may clear what it finds out at the same time. */
static void wear(_Atomic uint8_t *flags, bool mistake) {
    uint8_t before = atomic_load_explicit(flags, memory_order_relaxed), after;

    do {
        unsigned missed = (before & POLICY_CHUNK_MISSED) >> POLICY_MISSED_SHIFT;

        if (mistake)
            missed += missed < POLICY_MISSED_MAX;
        else
            missed -= missed > 0;
        after = (uint8_t)((before & ~POLICY_CHUNK_MISSED) | missed << POLICY_MISSED_SHIFT);
    } while (!atomic_compare_exchange_weak_explicit(flags, &before, after, memory_order_relaxed, memory_order_relaxed));
}

void policy_note_drop(struct policy_span *span, uint32_t now) {
    atomic_store_explicit(&span->last_drop, now ? now : 1, memory_order_relaxed);
}

bool policy_note_refault(struct policy_span *spans, uint32_t n_spans, uint32_t span, _Atomic uint8_t *flags,
                         uint32_t now, uint32_t *ret_age) {
    uint32_t dropped = atomic_load_explicit(&spans[span].last_drop, memory_order_relaxed);
    unsigned level = policy_span_level(&spans[span]);

    if (dropped == 0)
        return false;
    atomic_store_explicit(&spans[span].last_drop, 0, memory_order_relaxed);
    *ret_age = now > dropped ? now - dropped : 0;
    wear(flags, *ret_age <= POLICY_REFAULT_WINDOW);
    if (*ret_age > POLICY_REFAULT_WINDOW) {
        set_level(&spans[span], level > 0 ? level - 1 : 0);
        return false;
    }
    set_level(&spans[span], level < POLICY_PROTECTION_MAX ? level + 1 : level);
    if (span > 0 && policy_span_level(&spans[span - 1]) == 0)
        set_level(&spans[span - 1], 1);
    if (span + 1 < n_spans && policy_span_level(&spans[span + 1]) == 0)
        set_level(&spans[span + 1], 1);
    return true;
}
