/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_MEANS_H
#define DROPPABLE_DAEMON_MEANS_H

/* What regions can be given here, and to one session now. In the loop. */

#include "region.h"

struct config;
struct kernel;
struct manager;
struct session;

/* DRP_REGION_* that this system can give at all: what HELLO's reply says. */
uint64_t means_options(const struct kernel *kernel);
/* For a region of a session. Locked segments are few: half of those that there may be are for one user. */
struct region_means means_for(const struct manager *manager, const struct session *session);

#endif
