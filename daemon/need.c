/* SPDX-License-Identifier: MIT */
/*
 * From whom, when a domain is short: who is over a budget gives first, and no more than that, then the policy's order holds.
 *
 * What then misses is seen by the next look, as with any slice. Where a life hangs on it the others give the rest at once: the dropper of who is over may be
 * slow, and he may be over by a page. (These others are all but he, who is busy with the first slice.)
 */

#include "need.h"

#include "budget.h"

size_t need_hand_out(struct plans *plans, const struct plan_demand *demand, uint32_t tick, struct plan_slice **ret,
                     size_t max) {
    uint64_t over = budget_over_in(plans->manager, demand->domain), given = 0;
    struct plan_demand part = *demand;
    size_t n = 0;

    if (over > 0) {
        part.over = true;
        part.bytes = over < demand->bytes ? over : demand->bytes;
        ret[0] = plan_hand_out(plans, &part, tick);
        n = ret[0] != NULL;
        given = n > 0 ? ret[0]->planned : 0;
        part.over = false;
    }
    if (n > 0 && (demand->urgency < URGENCY_LIFE || given >= demand->bytes || n == max))
        return n;
    part.bytes = demand->bytes - given;
    ret[n] = plan_hand_out(plans, &part, tick);
    return n + (ret[n] != NULL);
}
