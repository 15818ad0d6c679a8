/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_KEEPER_H
#define DROPPABLE_CLIENT_KEEPER_H

/* Who may still punch what he has claimed of a region, after his connection has ended. All but the first: regions_lock held. */

#include "client.h"

/* Has the daemon's process ended, certainly? Without pidfds its number may be another's by now: then the answer comes late. */
bool keeper_has_ended(const struct link *link);
/*
 * Others still have drops of a shared region made, and one of ours may be under way at a daemon that lives, whoever has ended the connection: an odd
 * generation is waited for until the daemon has settled it, or has ended certainly, or another one has the region. So it is looked at again, and the daemon's
 * descriptors are kept for that, as long as there is no other one. true: such regions are left. regions_lock held.
 */
bool keeper_mark_gone(struct drp *d);
/* Nobody here will see the end of the process at d->link: whoever waits for it looks by himself. regions_lock held. */
void keeper_leave(struct drp *d);
/*
 * A daemon that lives may be about to punch what it has claimed, and the next one knows nothing of that: as long as it lives it has the region. Not
 * a shared one: others may give it to the next, which would then not know our pins.
 */
bool keeper_holds(const struct drp *d, const struct drp_region *r, const struct link *link);
/*
 * The same daemon as before says that it is itself still at work on the region, for the connection that ended: an odd generation is waited for. Another
 * one says it of its own.
 */
void keeper_is_at_work(const struct drp *d, struct drp_region *r, const struct link *link);

#endif
