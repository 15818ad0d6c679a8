/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_FENCE_H
#define DROPPABLE_CLIENT_FENCE_H

/* The fences of sequence locks. GCC warns that ThreadSanitizer does not model fences; here there is nothing for it to see. */

#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif

/* What was read before is read before what comes. */
static inline __attribute__((always_inline)) void fence_reads(void) {
    atomic_thread_fence(memory_order_acquire);
}

/* What was written before is seen by whoever sees what is written from here on. */
static inline __attribute__((always_inline)) void fence_writes(void) {
    atomic_thread_fence(memory_order_release);
}

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
