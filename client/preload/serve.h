/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_SERVE_H
#define DROPPABLE_PRELOAD_SERVE_H

/* The calls that concern droppable memory of the service. Results and errno are those of the functions of mmap(2) and so on. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Before anybody else registers handlers of fork(2): has ours registered, if they are needed. */
void serve_early(void);
/* mmap(MAP_DROPPABLE | MAP_ANONYMOUS | ...). */
void *serve_mmap(void *address, size_t length, int protection, int flags, long offset);
/* mmap(2) of something else with MAP_FIXED. */
void *serve_replace(void *address, size_t length, int protection, int flags, int fd, long offset);
/* The kernel gave these addresses to something else: what we think is there was unmapped past us. */
void serve_taken(const void *address, size_t length);
int serve_munmap(void *address, size_t length);
int serve_madvise(void *address, size_t length, int advice);
int serve_mincore(void *address, size_t length, unsigned char *vector);
/* mremap(2), with all five arguments. */
void *serve_mremap(void *address, size_t had, size_t wanted, int flags, void *to);
/* mprotect(2); pkey_mprotect(2) if key is not negative. */
int serve_mprotect(void *address, size_t length, int protection, int key);
/* mlock(2); mlock2(2) if flags is not 0. */
int serve_mlock(const void *address, size_t length, int flags);
int serve_mlockall(int flags);
int serve_munlockall(void);
/* process_madvise(2), remap_file_pages(2), mseal(2), ioctl(2) of a userfaultfd. */
long serve_process_madvise(int pidfd, const struct iovec *ranges, size_t n, int advice, unsigned int flags);
int serve_remap_file_pages(void *address, size_t length, int protection, size_t page, int flags);
int serve_mseal(void *address, size_t length, unsigned long flags);
int serve_userfaultfd(int fd, unsigned long request, void *argument);

/* ---- for each other; negative errno ---- */

/* Before what may come back here, since the library allocates; and after it. -ENOMEM: it has come back. */
int serve_begin(void);
void serve_end(void);
/* mmap(2) of whole pages, which continue what is mapped before another address, if there is something. */
int serve_map(void *address, const void *behind, size_t length, int protection, int flags, void **ret);
/* May what is ours of a range end? -EPERM: some of it is sealed. */
int serve_may_end(uintptr_t start, uintptr_t end);
/* Is all of a range ours? */
bool serve_covers(uintptr_t start, uintptr_t end);
/* What is ours of a range ends, if it may; its addresses stay mapped, inaccessible. */
int serve_displace(uintptr_t start, uintptr_t end);
/* Of limit.c: the kernel counts private memory that can be written to, which this is for the program. -ENOMEM: no so many bytes more of it. */
int limit_data(size_t more);
/* Of protect.c: a new mapping is brought in, if mlockall(2) said so of what is to come. */
void protect_fill_new(uintptr_t start, uintptr_t end);

#endif
