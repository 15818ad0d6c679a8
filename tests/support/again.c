/* SPDX-License-Identifier: MIT */
/* Bounds on how often: a service that is wrong is so each time. */

#include "again.h"

#include "fixture.h"

#include <check.h>
#include <stdio.h>

#define ARMED_TRIES 20
#define BAR_TRIES 3

bool armed_drops_again(struct armed_drops *drops, const struct service *of) {
    uint64_t before = drops->unarmed;

    drops->unarmed = service_status(of, "unarmed_drops");
    if (drops->tries > 0 && (drops->unarmed == before || !may_intercept()))
        return false;
    ck_assert_msg(drops->tries++ < ARMED_TRIES, "no drop of twenty found its spans armed in time");
    return true;
}

bool bar_again(struct bar *bar) {
    if (bar->tries > 0) {
        printf("%s: the longest took %.1f ms\n", bar->what, (double)bar->longest_ns / 1e6);
        if (bar->longest_ns < bar->ns)
            return false;
    }
    ck_assert_msg(bar->tries++ < BAR_TRIES, "%s: took %.1f ms, each time", bar->what, (double)bar->longest_ns / 1e6);
    return true;
}
