/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_SERVE_H
#define DROPPABLE_PRELOAD_SERVE_H

/* The calls that concern droppable memory of the service. Results and errno are those of the functions of mmap(2) and so on. */

#include <stddef.h>

/* mmap(MAP_DROPPABLE | MAP_ANONYMOUS | ...). */
void *serve_mmap(void *address, size_t length, int protection, int flags, long offset);
/*
 * Something else is about to take these addresses: what of them is ours ends. 0, or -1 with errno: nothing may be mapped
 * there. A range that the kernel will refuse is left alone.
 */
int serve_displace(void *address, size_t length);
int serve_munmap(void *address, size_t length);
int serve_madvise(void *address, size_t length, int advice);
int serve_mincore(void *address, size_t length, unsigned char *vector);

#endif
