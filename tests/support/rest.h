/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_REST_H
#define DROPPABLE_TESTS_REST_H

/* The service at rest: nothing that it has begun is under way. */

#include "service.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * Waits for a moment in which all of its threads sleep, and takes what it has then: what it opens or closes by itself, in threads of libuv, is through. With
 * clients it is their last request that is through, not what they do next. Fails the test after timeout_ms.
 */
void service_at_rest(const struct service *service, int timeout_ms, size_t *ret_descriptors, size_t *ret_threads);
/* Does no thread of it run for so many ms? */
bool service_sleeps_for(const struct service *service, unsigned ms);
/* Memory of its own, KiB: not files, and not what it shares with clients. */
long service_memory_kb(const struct service *service);

#endif
