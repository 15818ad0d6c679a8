/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_CLOCK_H
#define DROPPABLE_TESTS_CLOCK_H

/* Time, and how long to wait for something. */

#include <stdbool.h>
#include <stdint.h>

/* CLOCK_MONOTONIC, milliseconds and nanoseconds. */
uint64_t now_ms(void);
uint64_t now_ns(void);
/*
 * So many times as long as on a machine of its own things may take here: $CK_TIMEOUT_MULTIPLIER, which Check's own limits go by; 1 without. What
 * waits for something to happen waits so much longer; what measures how long it takes, or sees that it does not happen, is none of its business.
 */
unsigned patience(void);
/* So long from now, with patience. */
uint64_t deadline_in(uint64_t ms);
void nap_ms(unsigned ms);
/* Is there an event of the eventfd within so many ms? Takes it. */
bool event_comes(int fd, int timeout_ms);

#endif
