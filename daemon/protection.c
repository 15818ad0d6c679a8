/* SPDX-License-Identifier: MIT */
/*
 * Refault protection: a chunk that is touched again soon after it was dropped should not have been.
 *
 * The kernel's workingset code asks whether a page would have stayed in a somewhat larger memory (mm/workingset.c); here the time does:
 * who is back within the window was in use. His whole span then counts as younger than it is, twice as long with each mistake, and
 * less again when a touch comes late. Neighbours get the first level, since who reads here will read there.
 */

#include "policy.h"

uint32_t policy_protection(unsigned level) {
    if (level == 0)
        return 0;
    return UINT32_C(400) << ((level < POLICY_PROTECTION_MAX ? level : POLICY_PROTECTION_MAX) - 1);
}

/* Under the session's lock, as all changes of gone. */
static void set_level(struct policy_span *span, unsigned level) {
    atomic_store_explicit(&span->gone, (uint16_t)(policy_span_gone(span) | level << 12), memory_order_relaxed);
}

void policy_note_drop(struct policy_span *span, uint32_t now) {
    atomic_store_explicit(&span->last_drop, now ? now : 1, memory_order_relaxed);
}

bool policy_note_refault(struct policy_span *spans, uint32_t n_spans, uint32_t span, uint32_t now, uint32_t *ret_age) {
    uint32_t dropped = atomic_load_explicit(&spans[span].last_drop, memory_order_relaxed);
    unsigned level = policy_span_level(&spans[span]);

    if (dropped == 0)
        return false;
    atomic_store_explicit(&spans[span].last_drop, 0, memory_order_relaxed);
    *ret_age = now > dropped ? now - dropped : 0;
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
