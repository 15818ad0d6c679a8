/* SPDX-License-Identifier: MIT */
/* What regions can be: what the kernel can, as far as there is some left. */

#include "means.h"

#include "config.h"
#include "manager.h"
#include "tally.h"

#include <droppable/droppable.h>

uint64_t means_options(const struct kernel *kernel) {
    bool no_swap = kernel_keeps_from_swap(kernel, false) || kernel_keeps_from_swap(kernel, true);

    return (kernel->huge ? DRP_REGION_HUGE : 0) | DRP_REGION_SIGNAL | DRP_REGION_SHARED |
           (no_swap ? DRP_REGION_NO_SWAP : 0);
}

static bool is_locked_left(const struct manager *manager, const struct session *own) {
    struct tally all, of_uid;

    tally_take(manager, own->uid, &all, &of_uid);
    return all.locked < manager->kernel.locked_max && of_uid.locked < manager->kernel.locked_max / 2;
}

struct region_means means_for(const struct manager *manager, const struct session *session) {
    const struct kernel *kernel = &manager->kernel;
    bool left = kernel->noswap || is_locked_left(manager, session);

    return (struct region_means){
        .huge = kernel->huge,
        .huge_by_default = kernel->thp_always && kernel->mount_huge >= 0 && manager->config->system_huge_pages,
        .no_swap = left && kernel_keeps_from_swap(kernel, false),
        .no_swap_huge = left && kernel_keeps_from_swap(kernel, true),
    };
}
