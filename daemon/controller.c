/* SPDX-License-Identifier: MIT */
/*
 * How much to drop.
 *
 * Two kinds of answers. A deficit has a number, so it is answered with that number, slice by slice, until it is gone: who waits may be about
 * to be killed. A stall has none, and may have nothing to do with us (somebody reads files, somebody else's cgroup is small); the
 * classic mistake is to give everything up at its edge. It is answered with a share, and only where memory is short at all; if it goes
 * on, with more; if it stops for a while, that begins anew. What is dropped for nothing comes back as refaults, and halves the share.
 */

#include "controller.h"

/* A wake-up under load, and the time in which a slice is punched (four times as fast as memory is filled, or better). */
#define WAKEUP_NS UINT64_C(2000000)
#define PUNCH_NS UINT64_C(4000000)
#define SLICE (UINT64_C(16) << 20)
#define SLICE_MOST (UINT64_C(1024) << 20)
#define MARGIN (UINT64_C(2) << 20)
#define CALM_NS UINT64_C(100000000)
#define SHORTEST_NS UINT64_C(1000000)
/* A turn costs 25 us, most of it the wake-up. With half a reserve beyond the reserve, half a millisecond is no risk. */
#define SHORT_NS UINT64_C(1500000)
#define LONGEST_NS UINT64_C(1000000000)
#define RESERVE_LEAST (UINT64_C(4) << 20)
#define MACHINE_LEAST (UINT64_C(64) << 20)
/* Stalls: the windows of the kernel's triggers are 0.5 to 2 s long. */
#define STALL_CALM_NS UINT64_C(10000000000)
#define SHARE_FIRST 16 /* a 64th */
#define SHARE_MOST 51  /* a twentieth, of a stall in all */
#define BACKOFF_MOST 4
/* Without a deficit a stall is heard while the headroom is under so many reserves. */
#define STALL_NEAR 2

void controller_init(struct controller *controller, uint64_t fill_rate) {
    *controller = (struct controller){.limits = {.slice = SLICE, .margin = MARGIN, .fill_rate = fill_rate}};
}

static uint64_t add_saturating(uint64_t a, uint64_t b) {
    uint64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t minimum(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* a * b / c, saturating. c is not 0. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c) {
    unsigned __int128 value = (unsigned __int128)a * b / c;

    return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

uint64_t controller_slice(const struct controller_limits *limits, uint64_t missing) {
    return missing < limits->slice ? limits->slice : minimum(missing, SLICE_MOST);
}

uint64_t controller_auto_reserve(uint64_t fill_rate, uint64_t limit) {
    uint64_t reserve = scale(fill_rate, WAKEUP_NS + PUNCH_NS, UINT64_C(1000000000));

    return minimum(reserve < RESERVE_LEAST ? RESERVE_LEAST : reserve, limit / 8);
}

uint64_t controller_machine_reserve(uint64_t fill_rate, uint64_t total) {
    uint64_t reserve = controller_auto_reserve(fill_rate, total), least = minimum(total / 32, MACHINE_LEAST);

    return reserve > least ? reserve : least;
}

/* ---- deficits ---- */

/* The margin grows while the headroom stays under the reserve, and is small again a moment after it was. */
static void note_deficit(struct controller *controller, bool deficit, uint64_t now) {
    uint64_t margin = MARGIN;

    if (deficit) {
        controller->deficits += controller->deficits < 16;
        controller->last_deficit = now;
    } else if (now - controller->last_deficit > CALM_NS)
        controller->deficits = 0;
    for (unsigned i = 0; i < controller->deficits && margin < controller->limits.slice; i++)
        margin *= 2;
    controller->limits.margin = minimum(margin, controller->limits.slice);
}

static uint64_t demand_for(const struct controller_limits *limits, uint64_t reserve, uint64_t headroom) {
    if (headroom >= reserve)
        return 0;
    return minimum(add_saturating(reserve - headroom, limits->margin),
                   reserve - headroom < limits->slice ? limits->slice : SLICE_MOST);
}

/* A fill that waits at the gate needs room, and some more so that the next need not wait. */
static uint64_t demand_of_waiters(const struct controller *controller, const struct controller_view *view) {
    uint64_t wanted = view->wanted, least = UINT64_C(64) << 10;

    if (wanted == 0 || view->credit >= (int64_t)(wanted > least ? wanted : least))
        return 0;
    wanted = add_saturating(wanted, controller->limits.margin + (view->credit < 0 ? (uint64_t)-view->credit : 0));
    return minimum(wanted, controller->limits.slice);
}

/*
 * What waits for room that is only promised to others gets it by taking promises back, not by a drop; unless that was tried, and still
 * somebody waits.
 */
static bool relies_on_taking_back(struct controller *controller, int64_t commitment, uint64_t wanted) {
    controller->took_back = !controller->took_back && commitment > (int64_t)wanted;
    return controller->took_back;
}

/* ---- stalls ---- */

/* Does somebody stall, where memory is short? */
static bool is_stalled(const struct controller *controller, const struct controller_view *view) {
    uint64_t reserve = controller->limits.reserve;
    uint32_t stalls = DEMAND_EDGE(DEMAND_PSI_SOME) | DEMAND_EDGE(DEMAND_PSI_FULL) | DEMAND_EDGE(DEMAND_LEVEL) |
                      DEMAND_EDGE(DEMAND_MAX);

    return (view->edges & stalls && view->headroom / STALL_NEAR < reserve) ||
           (view->edges & (stalls | DEMAND_EDGE(DEMAND_HIGH)) && view->headroom_high < reserve);
}

static unsigned stall_share(struct controller *controller, const struct controller_view *view) {
    unsigned share = SHARE_FIRST;

    if (controller->last_stall == 0 || view->now - controller->last_stall > STALL_CALM_NS) {
        controller->stalls = 0;
        controller->backoff = 0;
        controller->given = 0;
        controller->due = 0;
    } else if (view->refaults > controller->refaults)
        controller->backoff += controller->backoff < BACKOFF_MOST;
    else {
        controller->backoff -= controller->backoff > 0;
        controller->stalls += controller->stalls < 8;
    }
    controller->last_stall = view->now;
    controller->refaults = view->refaults;
    for (unsigned i = 0; i < controller->stalls && share < SHARE_MOST; i++)
        share *= 2;
    share >>= controller->backoff;
    share = share > 0 ? share : 1;
    /* In all, until it is calm again: what a twentieth does not help, more will not. */
    share = share < SHARE_MOST - controller->given ? share : SHARE_MOST - controller->given;
    controller->given += share;
    return share;
}

uint64_t controller_due(struct controller *controller, unsigned share, uint64_t droppable, uint64_t chunk) {
    int64_t most = (int64_t)controller->limits.slice;

    controller->due += (int64_t)(droppable / CONTROLLER_SHARE_WHOLE * share);
    controller->due = controller->due < most ? controller->due : most;
    return controller->due > 0 ? (uint64_t)controller->due / chunk * chunk : 0;
}

void controller_note_given(struct controller *controller, uint64_t bytes) {
    controller->due -= (int64_t)bytes;
}

/* ---- the look ---- */

/* Whose word it was: what fired beside the sampler, the gravest first. */
static enum demand_source source_of(uint32_t edges) {
    static const enum demand_source order[] = {DEMAND_MAX,      DEMAND_PSI_FULL,  DEMAND_HIGH,
                                               DEMAND_PSI_SOME, DEMAND_THRESHOLD, DEMAND_LEVEL};

    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (edges & DEMAND_EDGE(order[i]))
            return order[i];
    return DEMAND_SAMPLER;
}

/*
 * The latest moment at which the fastest allocation could not yet have used it up, and as much of the reserve as it takes in the shortest time
 * between two looks: that much it can take anyway, by starting right after a look that finds just the reserve.
 */
static uint64_t next_look(const struct controller_limits *limits, uint64_t headroom, uint64_t reserve,
                          int64_t commitment) {
    uint64_t taken = add_saturating(commitment > 0 ? (uint64_t)commitment : 0, reserve), next;

    if (headroom <= taken)
        return SHORTEST_NS;
    next = limits->fill_rate ? scale(headroom - taken, UINT64_C(1000000000), limits->fill_rate) : LONGEST_NS;
    next = add_saturating(next, SHORTEST_NS);
    if (next < SHORT_NS && headroom - taken >= reserve / 2)
        return SHORT_NS;
    return minimum(next, LONGEST_NS);
}

static uint64_t deficit(uint64_t reserve, uint64_t headroom) {
    return headroom < reserve ? reserve - headroom : 0;
}

struct controller_answer controller_look(struct controller *controller, const struct controller_view *view) {
    const struct controller_limits *limits = &controller->limits;
    uint64_t reserve_high = limits->reserve / CONTROLLER_HIGH_PART, waiters, high;
    struct controller_answer answer = {.urgency = URGENCY_STALL};

    note_deficit(controller, view->headroom < limits->reserve || view->headroom_high < reserve_high, view->now);
    waiters = demand_of_waiters(controller, view);
    answer.missing = larger(deficit(limits->reserve, view->headroom), deficit(reserve_high, view->headroom_high));
    answer.enough = larger(deficit(add_saturating(limits->reserve, limits->margin), view->headroom),
                           deficit(add_saturating(reserve_high, limits->margin), view->headroom_high));
    answer.enough = larger(answer.enough, waiters);
    answer.demand = demand_for(limits, limits->reserve, view->headroom);
    high = demand_for(limits, reserve_high, view->headroom_high);
    answer.demand = larger(answer.demand, high);
    answer.total = larger(answer.demand, answer.missing);
    answer.source = source_of(view->edges);
    if (waiters <= answer.demand)
        controller->took_back = false;
    else if (!relies_on_taking_back(controller, view->commitment, waiters)) {
        answer.demand = waiters;
        answer.total = larger(waiters, answer.total);
        answer.missing = larger(waiters, answer.missing);
        answer.source = DEMAND_GATE;
    }
    /* More than half of the headroom is promised: some of it back, before anybody has to wait for it. */
    if (view->commitment > 0 && view->credit < view->commitment)
        answer.take_back = (uint64_t)(view->commitment - view->credit) / 2;
    if (view->headroom < limits->reserve / 2)
        answer.urgency = URGENCY_LIFE;
    if (answer.demand == 0 && is_stalled(controller, view))
        answer.share = stall_share(controller, view);
    answer.next = minimum(next_look(limits, view->headroom, limits->reserve, view->commitment),
                          next_look(limits, view->headroom_high, reserve_high, view->commitment));
    return answer;
}
