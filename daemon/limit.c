/* SPDX-License-Identifier: MIT */
/* What a group may have, from the three that have a say in it; and when somebody over the budget is to be asked again. Pure. */

#include "limit.h"

#include <errno.h>

#define MARGIN_LEAST (UINT64_C(64) * 1024) /* whole chunks are dropped, so larger ones make a margin by themselves */
#define WAIT_LEAST UINT64_C(20000000)
#define WAIT_MOST UINT64_C(1000000000)
#define BARREN_MOST 6

static const struct {
    uint64_t least, most;
    bool infinite; /* may be LIMIT_INFINITE, too */
} ranges[LIMIT_KINDS] = {
    [LIMIT_BUDGET] = {4096, UINT64_C(1) << 50, true},
    [LIMIT_QUOTA] = {4096, UINT64_C(1) << 50, true},
    [LIMIT_SHARE] = {1, 10000, false},
    [LIMIT_PRIORITY] = {1, 3, false},
};

int limits_check(const struct limits *limits, const uint64_t *configured, const struct limit_values *values,
                 bool administrator) {
    for (int i = 0; i < LIMIT_KINDS; i++) {
        uint64_t value = values->of[i], ceiling = limit_ceiling(&limits->of[i], configured[i]);

        if (!(values->mask & LIMIT_BIT(i)) || value == 0)
            continue;
        if ((value < ranges[i].least || value > ranges[i].most) && !(ranges[i].infinite && value == LIMIT_INFINITE))
            return -ERANGE;
        if (!administrator && value > ceiling)
            return -EPERM;
    }
    return 0;
}

void limits_apply(struct limits *limits, const struct limit_values *values, bool administrator) {
    for (int i = 0; i < LIMIT_KINDS; i++) {
        if (!(values->mask & LIMIT_BIT(i)))
            continue;
        if (administrator)
            limits->of[i].given = values->of[i];
        limits->of[i].own = administrator ? 0 : values->of[i];
    }
    limits->standing.not_before = 0;
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most) {
    return value < least ? least : value > most ? most : value;
}

static uint64_t margin_of(uint64_t budget) {
    return budget / 64 > MARGIN_LEAST ? budget / 64 : MARGIN_LEAST;
}

/* Was it found to have nothing to give, and is that so still? What has come since may be what it can give. */
static bool rests(const struct limit_standing *standing, uint64_t budget, uint64_t now) {
    return now < standing->not_before && standing->dropped == standing->dropped_before &&
           standing->resident <= standing->resident_asked + margin_of(budget);
}

bool limits_are_set(const struct limits *limits) {
    bool any = false;

    for (int i = 0; i < LIMIT_KINDS; i++)
        any |= limit_is_set(&limits->of[i]);
    return any;
}

/* How long it takes at least to fill so much, within what is worth waking for. */
static uint64_t wait_for(uint64_t bytes, uint64_t fill_rate) {
    double seconds = (double)bytes / (double)(fill_rate ? fill_rate : 1);

    return seconds < 1 ? clamp((uint64_t)(seconds * 1e9), WAIT_LEAST, WAIT_MOST) : WAIT_MOST;
}

uint64_t limit_excess(struct limit_standing *standing, uint64_t budget, uint64_t fill_rate, uint64_t now,
                      uint64_t *ret_wait) {
    uint64_t resident = standing->resident, margin = margin_of(budget);

    if (budget == LIMIT_INFINITE) {
        *ret_wait = UINT64_MAX;
        return 0;
    }
    if (resident < standing->resident_asked)
        standing->resident_asked = resident;
    if (resident <= budget) {
        *ret_wait = wait_for(budget - resident, fill_rate);
        return 0;
    }
    if (rests(standing, budget, now)) {
        uint64_t growth = wait_for(standing->resident_asked + margin - resident, fill_rate);

        *ret_wait = standing->not_before - now;
        *ret_wait = *ret_wait < growth ? *ret_wait : growth;
        return 0;
    }
    *ret_wait = 0;
    return resident - budget + (margin < budget ? margin : budget);
}

void limit_asked(struct limit_standing *standing, uint64_t now) {
    if (standing->dropped != standing->dropped_before)
        standing->barren = 0;
    else if (standing->barren < BARREN_MOST)
        standing->barren++;
    standing->dropped_before = standing->dropped;
    standing->resident_asked = standing->resident;
    /* The first time is free: nothing can have been dropped for it yet. */
    standing->not_before =
        standing->barren > 1 ? now + clamp((WAIT_LEAST / 2) << standing->barren, WAIT_LEAST, WAIT_MOST) : 0;
}
