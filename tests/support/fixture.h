/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_FIXTURE_H
#define DROPPABLE_TESTS_FIXTURE_H

/* A service of its own for each test, which must be at the end as it was at the beginning. For Check's checked fixtures. */

#include "service.h"

#include <stdbool.h>
#include <stdint.h>

extern struct service service;

/* Starts the service; config: text of an ini file, or NULL. */
void fixture_start(const char *config);
/* With the defaults. */
void fixture_setup(void);
/*
 * Waits until the service's descriptors and threads and this process's descriptors are what they were at fixture_start(), then stops
 * the service. Fails the test otherwise.
 */
void fixture_teardown(void);
/* The first half of it, in the middle of a test: nothing of a client is left. */
void fixture_expect_idle(void);
/* After service_restart(): what is idle is measured anew, in a moment without clients. */
void fixture_measure(void);

/*
 * `droppablectl --json list`: a number of the entry of "regions" or "sessions" whose key has the value; fails the test if there is no
 * such entry. true and false are 1 and 0.
 */
uint64_t listing_number(const char *array, const char *key, uint64_t value, const char *wanted);
/* The same, a text. */
void listing_text(const char *array, const char *key, uint64_t value, const char *wanted, char *ret, size_t size);
/* How many entries there are. */
size_t listing_count(const char *array);
/* Waits until a domain's "sources" are told to include it; fails the test otherwise. Its files are opened beside what its clients do. */
void expect_watched(uint64_t domain, const char *source);
/* Waits until service_status(key) is the value. */
bool status_becomes(const char *key, uint64_t value, int timeout_ms);

/* Does `droppablectl --json status` name the feature? */
bool status_feature(const char *name);

/* Shared memory of the whole machine: others' is in it. */
uint64_t shmem_bytes(void);
/* Can this user have a full userfaultfd, made as the library makes it? */
bool may_intercept(void);
/* One that raises signals? Before Linux 5.11 there is only one kind, which the system may keep for root. */
bool may_signal(void);
/* That anybody may have, since it takes no privilege? */
bool anybody_may_signal(void);

/* Is all of it zero? Safe against what gcc makes of loops over foreign memory. */
bool is_zero(const void *memory, size_t size);
/* Is every byte the value? */
bool is_filled(const void *memory, int value, size_t size);

#endif
