/* SPDX-License-Identifier: MIT */

/*
 * The kernel's calls. Not dlsym(RTLD_NEXT, ...): that needs a dynamic linker that is ready, and may allocate, while memory
 * allocators call mmap(2) before either.
 *
 * The client library inside of this one maps memory too, and must not be served by itself. The linker does it: with
 * --wrap=NAME each undefined reference to NAME in its objects becomes one to __wrap_NAME, which is here, whereas the
 * definition that we export keeps its name. What the C library calls inside of itself never comes to us at all. syscall() is among them where
 * we stand before it, see by-hand.c.
 */

#include "raw.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static_assert(sizeof(long) == 8, "where an address is shorter than an offset, the call is mmap2");

void *raw_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

int raw_munmap(void *address, size_t length) {
    return (int)syscall(SYS_munmap, address, length);
}

int raw_madvise(void *address, size_t length, int advice) {
    return (int)syscall(SYS_madvise, address, length, advice);
}

int raw_mincore(void *address, size_t length, unsigned char *vector) {
    return (int)syscall(SYS_mincore, address, length, vector);
}

void *raw_mremap(void *address, size_t had, size_t wanted, int flags, void *to) {
    return (void *)syscall(SYS_mremap, address, had, wanted, flags, to);
}

int raw_mprotect(void *address, size_t length, int protection) {
    return (int)syscall(SYS_mprotect, address, length, protection);
}

int raw_pkey_mprotect(void *address, size_t length, int protection, int key) {
    return (int)syscall(SYS_pkey_mprotect, address, length, protection, key);
}

int raw_mlock(const void *address, size_t length) {
    return (int)syscall(SYS_mlock, address, length);
}

int raw_mlock2(const void *address, size_t length, int flags) {
    return (int)syscall(SYS_mlock2, address, length, flags);
}

int raw_munlock(const void *address, size_t length) {
    return (int)syscall(SYS_munlock, address, length);
}

int raw_mlockall(int flags) {
    return (int)syscall(SYS_mlockall, flags);
}

int raw_munlockall(void) {
    return (int)syscall(SYS_munlockall);
}

long raw_process_madvise(int pidfd, const struct iovec *ranges, size_t n, int advice, unsigned int flags) {
    return syscall(SYS_process_madvise, pidfd, ranges, n, advice, flags);
}

int raw_remap_file_pages(void *address, size_t length, int protection, size_t page, int flags) {
    return (int)syscall(SYS_remap_file_pages, address, length, protection, page, flags);
}

int raw_mseal(void *address, size_t length, unsigned long flags) {
    return (int)syscall(SYS_mseal, address, length, flags);
}

int raw_ioctl(int fd, unsigned long request, void *argument) {
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

/* Where the call is forbidden there is only to believe the pointer. */
int raw_copy_in(void *to, const void *from, size_t size) {
    struct iovec here = {.iov_base = to, .iov_len = size}, there = {.iov_base = (void *)from, .iov_len = size};
    int saved = errno;
    ssize_t n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);

    if (n < 0 && errno != EFAULT) {
        memcpy(to, from, size);
        n = (ssize_t)size;
    }
    errno = saved;
    return n == (ssize_t)size ? 0 : -EFAULT;
}

/* ---- for the client library ---- */

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t length);
int __wrap_madvise(void *address, size_t length, int advice);
int __wrap_mincore(void *address, size_t length, unsigned char *vector);
int __wrap_mprotect(void *address, size_t length, int protection);

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return raw_mmap(address, length, protection, flags, fd, offset);
}

int __wrap_munmap(void *address, size_t length) {
    return raw_munmap(address, length);
}

int __wrap_madvise(void *address, size_t length, int advice) {
    return raw_madvise(address, length, advice);
}

int __wrap_mincore(void *address, size_t length, unsigned char *vector) {
    return raw_mincore(address, length, vector);
}

int __wrap_mprotect(void *address, size_t length, int protection) {
    return raw_mprotect(address, length, protection);
}
