/* SPDX-License-Identifier: MIT */
#ifndef TESTS_NATIVE_MEMORY_H
#define TESTS_NATIVE_MEMORY_H

/* What the tests of native regions have in common: regions of 32 MiB, what of them is there, and what the service says of that. */

#include <droppable/droppable.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define SIZE (32 * MIB)
#define PAGE ((size_t)4096)
#define WAIT_MS 20000

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/*
 * MADV_PAGEOUT finds pages on the kernel's lists only: what a CPU has touched last still waits to be put there (folio batches of 31), and stays.
 */
#define BATCHES ((uint64_t)(31 * PAGE * sysconf(_SC_NPROCESSORS_ONLN)))

extern struct drp *native_context;

/* Of the calling process; drp_new()'s result. */
int native_connect(void);
/* A service, and a context. */
void native_setup(void);
void native_teardown(void);
/* A region that the service knows. */
struct drp_region *native_make(size_t size, enum drp_priority priority, uint64_t budget);
/* Such memory without the library. */
void *native_map(size_t size);
/* What the kernel says. */
size_t native_resident(void *p, size_t size);
size_t native_region_resident(struct drp_region *region);
uint64_t native_id_of(const struct drp_region *region);
/* The service's count becomes what is there. */
void native_expect_counted(uint64_t id, uint64_t bytes);
/* Tells of memory without the library, with a file in the place of the pagemap. The reply's error. */
int native_claim_with(int socket, const char *path, const void *p, size_t length, uint64_t *ret_id);
int native_claim(int socket, const void *p, size_t length, uint64_t *ret_id);
/* Skips the test program where there is no such memory, or no right to drop it. */
void native_need(void);

#endif
