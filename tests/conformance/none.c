/* SPDX-License-Identifier: MIT */

/* The backend 'none', a preload library that gives plain memory: whoever compares it with anything droppable has to see a difference. */

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    if ((flags & (MAP_TYPE | MAP_ANONYMOUS)) == (MAP_DROPPABLE | MAP_ANONYMOUS))
        flags = (flags & ~MAP_TYPE) | MAP_PRIVATE;
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}
