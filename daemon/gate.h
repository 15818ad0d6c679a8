/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_GATE_H
#define DROPPABLE_DAEMON_GATE_H

/*
 * The gate before every fill. Never waits: it answers, and the pager defers.
 *
 * A domain's credit is headroom - commitment - reserve as of the last look, less what was filled or committed since. A span is disarmed
 * only while the credit of the whole chain of domains covers what the kernel may then fill. The pressure thread looks again before
 * the fastest allocator could have used up the credit.
 */

#include <stdbool.h>
#include <stdint.h>

struct domain;

#define GATE_STEP (64 * 1024)
#define GATE_SPAN (2 * 1024 * 1024)

enum gate_verdict {
    GATE_FREE,  /* fill all of it; the bytes are taken off the credit */
    GATE_TIGHT, /* fill GATE_STEP at most and disarm nothing; GATE_STEP is taken off the credit */
    GATE_WAIT,  /* wait for the pressure thread, which has to be woken */
};

/*
 * May bytes be filled in the domain? waits: who is told to wait will do so; then a GATE_WAIT leaves the wish with every domain of the chain that
 * is short.
 */
enum gate_verdict gate_ask(struct domain *domain, uint64_t bytes, bool waits);
/* May a span be disarmed that the kernel can then fill with so many bytes more? If so, gate_adjust() has to follow. */
bool gate_allows(const struct domain *domain, uint64_t bytes);
/* Of every domain of the chain that is short, was it found a moment ago that nothing can be dropped? Who has to wait need not then. false: none is short. */
bool gate_is_hopeless(const struct domain *domain, uint64_t now);
/* The least credit of the chain of domains; 0 if there is none. */
uint64_t gate_room(const struct domain *domain);
/* Is at most a part of 1 / share of the headroom committed, in the whole chain? */
bool gate_is_ample(const struct domain *domain, int64_t share);
/* A commitment becomes larger (negative: smaller, or ends). Always allowed. */
void gate_adjust(struct domain *domain, int64_t bytes);

#endif
