/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_LIMIT_H
#define DROPPABLE_DAEMON_LIMIT_H

/*
 * What a region, a client, a user or a cgroup may have: pure, and all zeros at the start. Each limit has four sources: the config, for all of a kind, and
 * for this one; an administrator, who takes the config's place in both directions; and the owner, who may go below these and never above.
 */

#include <stdbool.h>
#include <stdint.h>

#define LIMIT_INFINITE UINT64_MAX
#define LIMIT_SHARE_DEFAULT 100

enum limit_kind {
    LIMIT_BUDGET = 0,   /* resident bytes; what is beyond is dropped */
    LIMIT_QUOTA = 1,    /* address space of regions, bytes; what is beyond is refused with EDQUOT */
    LIMIT_SHARE = 2,    /* 1..10000: who has more loses less of what is equally cold */
    LIMIT_PRIORITY = 3, /* 1..3 */
};
#define LIMIT_KINDS 4
#define LIMIT_BIT(kind) (UINT32_C(1) << (kind))

/* 0: not set. */
struct limit {
    uint64_t given;      /* by an administrator */
    uint64_t of_section; /* by the config, for this one alone */
    uint64_t own;        /* by the owner */
};

/* How a group stood when its budget was last looked at. */
struct limit_standing {
    uint64_t resident, dropped; /* bytes, sums of the look under way */
    uint64_t over;              /* bytes that it is to give, as of that look, less what plans have taken of it since */
    uint64_t dropped_before;    /* dropped, when it was last found to be over */
    uint64_t asked;             /* ns: when it last had its turn; 0: never */
    uint64_t resident_asked;    /* bytes it had then, or the least since */
    uint64_t not_before;        /* ns: until then nothing is asked of it if it has no more than it had */
    unsigned barren; /* times in a row that it was found over, and nothing was dropped since the time before */
};

struct limits {
    struct limit of[LIMIT_KINDS];
    struct limit_standing standing;
};

/* For one call: those of the mask's LIMIT_BIT()s. 0: back to what it is without. */
struct limit_values {
    uint32_t mask;
    uint64_t of[LIMIT_KINDS];
};

/* What an owner may have at most, where the config (or the default) says so much of all. */
static inline uint64_t limit_ceiling(const struct limit *limit, uint64_t configured) {
    return limit->given ? limit->given : limit->of_section ? limit->of_section : configured;
}
/* What holds. */
static inline uint64_t limit_value(const struct limit *limit, uint64_t configured) {
    uint64_t value = limit_ceiling(limit, configured);

    return limit->own && limit->own < value ? limit->own : value;
}
static inline bool limit_is_set(const struct limit *limit) {
    return limit->given || limit->of_section || limit->own;
}

/* Any of them. */
bool limits_are_set(const struct limits *limits);
/* May these be set? -ERANGE: a value is out of range; -EPERM: above what an owner may have. */
int limits_check(const struct limits *limits, const uint64_t *configured, const struct limit_values *values,
                 bool administrator);
/* Sets them. An administrator's value ends the owner's, who may then lower it again. */
void limits_apply(struct limits *limits, const struct limit_values *values, bool administrator);

/*
 * Bytes by which a group is over, its standing being summed up: down to the budget less a margin, so that one page more is no new excess. 0: nothing is to be
 * asked of it now; *ret_wait is ns until a look makes sense. A group of which nothing could be dropped (all is pinned) is asked less and less often.
 */
uint64_t limit_excess(struct limit_standing *standing, uint64_t budget, uint64_t fill_rate, uint64_t now,
                      uint64_t *ret_wait);
/* This group's excess was handed out. */
void limit_asked(struct limit_standing *standing, uint64_t now);

#endif
