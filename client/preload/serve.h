/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_SERVE_H
#define DROPPABLE_PRELOAD_SERVE_H

/* The calls that concern droppable memory of the service. Results and errno are those of the functions of mmap(2) and so on. */

#include <stddef.h>

/* mmap(MAP_DROPPABLE | MAP_ANONYMOUS | ...). */
void *serve_mmap(void *address, size_t length, int protection, int flags, long offset);
/* mmap(2) of something else with MAP_FIXED. */
void *serve_replace(void *address, size_t length, int protection, int flags, int fd, long offset);
int serve_munmap(void *address, size_t length);
int serve_madvise(void *address, size_t length, int advice);
int serve_mincore(void *address, size_t length, unsigned char *vector);

#endif
