/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_CONNECTED_H
#define DROPPABLE_TESTS_CONNECTED_H

/* Has the service a region? Inline, for not every program that is linked with this folder is linked with the library. */

#include "service.h"

#include <droppable/droppable.h>

static inline bool is_connected(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.connected;
}

/* Waits until it has it, or has it no more. false: not in time. */
static inline bool connected_becomes(const struct drp_region *region, bool wanted, int timeout_ms) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);

    while (is_connected(region) != wanted) {
        if (now_ms() >= deadline)
            return false;
        nap_ms(2);
    }
    return true;
}

#endif
