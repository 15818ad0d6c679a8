/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_WAITERS_H
#define DROPPABLE_DAEMON_WAITERS_H

/* Who waits at the gate, as the pressure thread looks after them. All under the manager's lock. */

struct domain;
struct manager;

/* Notes with each domain whether somebody waits for credit of it. Found anew in each turn, so that nobody who was let in, or is gone, is looked after. */
void waiters_find(struct manager *manager);
/* Who waits at the gate of a domain that has credit now asks again. */
void waiters_let_in(struct manager *manager);
/* Nothing of the domain can be dropped: what waits at its gate, and not for another domain, goes ahead, and is counted. */
void waiters_give_up(struct manager *manager, const struct domain *domain);

#endif
