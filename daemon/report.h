/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_REPORT_H
#define DROPPABLE_DAEMON_REPORT_H

/* What the daemon tells of itself: STATS, STATUS, LIST, WHY, HISTOGRAMS, and the lines in the log at its start. In the loop. */

#include "budget.h"
#include "wire.h"

#include <stdbool.h>
#include <sys/types.h>

struct domain;
struct manager;
struct session;

void report_session(struct session *session, struct drp_wire_counters *ret);
void report_status(struct manager *manager, struct drp_wire_status_reply *ret);
void report_list(struct manager *manager, uint64_t cursor, struct drp_wire_list_reply *ret);
void report_why(struct manager *manager, uint64_t cursor, struct drp_wire_why_reply *ret);
void report_histograms(struct manager *manager, struct drp_wire_histograms_reply *ret);
/* Bytes of all that limits of an object are about. */
uint64_t report_resident(struct manager *manager, const struct budget_object *object);
/* Under the manager's lock: the domain of a cgroup's path; "" or "/": the machine. NULL: no client is in it. */
struct domain *report_domain(const struct manager *manager, const char *path);
/* Is the socket's peer in the group, as its own or a supplementary one (SO_PEERGROUPS)? */
bool report_in_group(int socket, gid_t gid, gid_t wanted);

#endif
