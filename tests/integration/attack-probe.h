/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_ATTACK_PROBE_H
#define DROPPABLE_TESTS_ATTACK_PROBE_H

/*
 * An honest client whose waits are measured one by one: first touches of a span that was dropped, which the service answers, and the calls that drop
 * it. It naps between them, as programs do. And processes that do nothing but use CPU time.
 */

#include "child.h"

#include <stddef.h>
#include <stdint.h>

#define PROBE_PHASES 3
enum probe_phase { PROBE_QUIET, PROBE_NEUTRAL, PROBE_ATTACK };

struct probe_table;
struct probe {
    struct child child;
    struct probe_table *table; /* shared with the child */
};

/* Of one phase: percentiles, us. */
struct probe_figures {
    double fault_p50, fault_p99, fault_p995, call_p99;
};

void probe_start(struct probe *probe);
/* Fails the test if a byte was wrong, or a fault was none of the service's. */
void probe_stop(struct probe *probe);
/* Forgets the times of all phases. */
void probe_reset(struct probe *probe);
/* From now on times are of that phase, which is to have so many more at least. */
void probe_enter(struct probe *probe, enum probe_phase phase, size_t wanted);
/* Waits for these; from now on times are of no phase. Fails the test if the client hangs. */
void probe_leave(struct probe *probe);
void probe_figures(const struct probe *probe, enum probe_phase phase, struct probe_figures *ret);

#endif
