/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_NATIVE_H
#define DROPPABLE_DAEMON_NATIVE_H

/* Regions of the kernel's own droppable memory (MAP_DROPPABLE), which are clients' private memory. All but the first in the dropper's thread. */

#include <stdbool.h>

struct drop_job;
struct home;
struct region;

/* Can this be done here: has the kernel such memory, and tells it what of another process is resident? */
bool native_available(void);
/*
 * Is the whole range droppable memory of the client, and may we drop of it? region->adopt_error is 0; -EINVAL: it is not; -EPERM: we may not; -ETIMEDOUT;
 * negative errno.
 */
void native_check(struct region *region);
/* At its end. */
void native_close(struct region *region);
/* Goes on with a job: a slice of it. What is left of it is in the job. */
void native_drop(struct home *home, struct drop_job *job);
/* Counts what is resident of the regions of which somebody wants to know. false: all of it is done. */
bool native_measure(struct home *home);

#endif
