/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_RAW_H
#define DROPPABLE_PRELOAD_RAW_H

/* The kernel's calls, past every library: MAP_FAILED or -1 with errno, as the functions of the same names. */

#include <stddef.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Linux 6.10. */
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

void *raw_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int raw_munmap(void *address, size_t length);
int raw_madvise(void *address, size_t length, int advice);
int raw_mincore(void *address, size_t length, unsigned char *vector);
void *raw_mremap(void *address, size_t had, size_t wanted, int flags, void *to);
int raw_mprotect(void *address, size_t length, int protection);
int raw_pkey_mprotect(void *address, size_t length, int protection, int key);
int raw_mlock(const void *address, size_t length);
int raw_mlock2(const void *address, size_t length, int flags);
int raw_munlock(const void *address, size_t length);
int raw_mlockall(int flags);
int raw_munlockall(void);
long raw_process_madvise(int pidfd, const struct iovec *ranges, size_t n, int advice, unsigned int flags);
int raw_remap_file_pages(void *address, size_t length, int protection, size_t page, int flags);
int raw_mseal(void *address, size_t length, unsigned long flags);
int raw_ioctl(int fd, unsigned long request, void *argument);
/* What the kernel would be given by a pointer of the program's. -EFAULT: it cannot be read. */
int raw_copy_in(void *to, const void *from, size_t size);

#endif
