/* SPDX-License-Identifier: MIT */
/*
 * How old the memory of an opaque region is. It is known how much is resident, not where; when chunks were pinned or touched last is known of a few that were
 * looked at, and taken to be the same of all. That what was used last is there is likelier than that what was used long ago is, which
 * may have been dropped since and keeps its tick: so the resident bytes are given to what is pinned, then to the youngest, and so on. What is left
 * was never pinned, or is not where it was looked: of it is known only how old it is at most.
 */

#include "policy-age.h"
#include "policy-plan.h"

#include <string.h>

/* Of a region: what was looked at, and one for what is left. */
#define ENTRIES_MAX (POLICY_SAMPLES + 1)

static uint32_t take(uint64_t *left, uint64_t pages) {
    pages = pages < *left ? pages : *left;
    *left -= pages;
    return (uint32_t)pages;
}

/* The youngest first; there is room for one more. */
static unsigned insert(struct policy_part *entries, unsigned n, struct policy_part entry) {
    unsigned i = n;

    for (; i > 0 && entries[i - 1].last < entry.last; i--)
        entries[i] = entries[i - 1];
    entries[i] = entry;
    return n + 1;
}

static void add_part(struct policy_region *region, struct policy_part part, uint32_t now) {
    struct policy_part *last = region->n_parts > 0 ? &region->parts[region->n_parts - 1] : NULL;

    if (part.pages == 0)
        return;
    /* Where there is no more room, one that is hardly younger: what lies before it are the oldest. */
    if (last && (region->n_parts == POLICY_PARTS - 1 ||
                 policy_age_bucket(now, last->last) == policy_age_bucket(now, part.last)))
        last->pages += part.pages;
    else
        region->parts[region->n_parts++] = part;
}

void policy_leave_pinned(struct policy_region *region) {
    if (region->n_parts > 0 && region->parts[region->n_parts - 1].last == POLICY_PINNED)
        region->n_parts--;
}

void policy_describe_opaque(struct policy_region *region, const struct policy_sample *sample, uint64_t resident,
                            uint64_t stuck, uint32_t unseen, uint32_t floor, uint32_t now) {
    uint64_t each = sample->n > 0 ? (region->chunk_count << (region->chunk_shift - 12)) / sample->n : 0;
    uint64_t left = resident >> 12 < UINT32_MAX ? resident >> 12 : UINT32_MAX;
    uint32_t pinned = take(&left, sample->pinned * each > stuck >> 12 ? sample->pinned * each : stuck >> 12);
    struct policy_part entries[ENTRIES_MAX];
    unsigned n = 0;

    for (unsigned i = 0; i < sample->n_used && i < POLICY_SAMPLES; i++) {
        uint32_t last = sample->used[i] > floor ? sample->used[i] : floor;

        n = insert(entries, n, (struct policy_part){.last = last < now ? last : now});
    }
    for (unsigned i = 0; i < n; i++)
        entries[i].pages = take(&left, each);
    n = insert(entries, n, (struct policy_part){unseen < now ? unseen : now, (uint32_t)left});
    region->n_parts = 0;
    while (n > 0)
        add_part(region, entries[--n], now);
    /* Also where that was found a moment ago: some of it may be unpinned since, and nobody else has anything left by then. */
    if (pinned > 0)
        region->parts[region->n_parts++] = (struct policy_part){POLICY_PINNED, pinned};
}
