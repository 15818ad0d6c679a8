/* SPDX-License-Identifier: MIT */

/*
 * Who may still punch what he has claimed: the keeper of a region is the process that writes its state page. The watcher sees the end of the one that it
 * is, or was last, connected to; of any before that its number and its pidfd's inode are left, with the region (pins.keeper), and whoever waits for an odd generation looks by
 * himself.
 */

#include "keeper.h"

#include "process.h"

#include <poll.h>

bool keeper_has_ended(const struct link *link) {
    struct pollfd process = {.fd = link->pidfd, .events = POLLIN};

    if (link_has_pidfd(link))
        return wait_poll(&process, 1, 0) > 0 && process.revents & POLLIN;
    return process_has_ended(link->pid, link->pidfd_object.inode);
}

/* The process that writes a stale region's page. own: it is of the connection that has just ended. */
static bool is_over(const struct drp_region *r, bool own) {
    pid_t keeper = atomic_load(&r->pins.keeper);

    return keeper == 0 ? own : process_has_ended(keeper, atomic_load(&r->pins.keeper_inode));
}

/* That process: its number, and its pidfd's inode; while nobody else watches it, of the connection that is, or was last. */
static pid_t keeper_of(const struct drp *d, const struct drp_region *r, uint64_t *ret_inode) {
    pid_t keeper = atomic_load(&r->pins.keeper);

    *ret_inode = keeper ? atomic_load(&r->pins.keeper_inode) : d->link.pidfd_object.inode;
    return keeper ? keeper : d->link.pid;
}

/*
 * Who hangs up begins no drop any more, but one may be under way, and its generation is settled if he lives. Of one in another pid namespace nothing certain
 * is seen: a pidfd may be that of who called listen(2). One that was killed, and does not end for another client's lock, is through with ours, which take our own
 * object's lock.
 */
static bool is_through(const struct link *link) {
    return !link->cut && !process_may_serve(link->pid, link->pidfd_object.inode);
}

bool keeper_mark_gone(struct drp *d) {
    bool ended = keeper_has_ended(&d->link), own = ended || is_through(&d->link), left = false;

    for (struct drp_region *r = d->regions; r; r = r->next) {
        if (r->phase != REGION_LIVE || !r->stale || atomic_load(&r->pins.gone))
            continue;
        if (is_over(r, r->granted & DRP_REGION_SHARED ? ended : own))
            atomic_store(&r->pins.gone, true);
        else
            left |= atomic_load(&r->pins.keeper) == 0;
    }
    return left;
}

static void note(struct drp_region *r, const struct link *link) {
    atomic_store(&r->pins.keeper_inode, link->pidfd_object.inode);
    atomic_store(&r->pins.keeper, link->pid > 0 ? link->pid : -1);
}

void keeper_leave(struct drp *d) {
    for (struct drp_region *r = d->regions; r; r = r->next)
        if (r->phase == REGION_LIVE && r->stale && atomic_load(&r->pins.keeper) == 0)
            note(r, &d->link);
}

bool keeper_holds(const struct drp *d, const struct drp_region *r, const struct link *link) {
    uint64_t inode;
    pid_t keeper = keeper_of(d, r, &inode);

    if (!r->stale || atomic_load(&r->pins.gone) || r->granted & DRP_REGION_SHARED)
        return false;
    return keeper != link->pid && process_may_serve(keeper, inode);
}

void keeper_is_at_work(const struct drp *d, struct drp_region *r, const struct link *link) {
    uint64_t inode;
    pid_t keeper = keeper_of(d, r, &inode);

    if (link->pid <= 0 || keeper != link->pid)
        return;
    if (inode && link->pidfd_object.inode && inode != link->pidfd_object.inode)
        return; /* another one, of the same number */
    note(r, link);
    atomic_store(&r->pins.gone, false);
}
