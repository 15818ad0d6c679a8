/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_RAW_H
#define DROPPABLE_PRELOAD_RAW_H

/* The kernel's calls, past every library: MAP_FAILED or -1 with errno, as the functions of the same names. */

#include <stddef.h>
#include <sys/types.h>

void *raw_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int raw_munmap(void *address, size_t length);
int raw_madvise(void *address, size_t length, int advice);
int raw_mincore(void *address, size_t length, unsigned char *vector);
int raw_mprotect(void *address, size_t length, int protection);

#endif
