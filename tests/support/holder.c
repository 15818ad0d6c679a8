/* SPDX-License-Identifier: MIT */
/*
 * write(2) to the file from memory behind a userfaultfd that nobody answers: the kernel takes the inode's lock, then reads the memory. When that
 * userfaultfd has an event, the lock is held.
 */

#include "holder.h"

#include "raw.h"

#include <check.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define WAIT_MS 60000

static void *write_from_armed(void *data) {
    struct holder *holder = data;

    if (pwrite(holder->fd, holder->source, PAGE, 0) < 0)
        perror("pwrite");
    return NULL;
}

void holder_begin(struct holder *holder, int fd) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range.len = PAGE, .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct pollfd event = {.events = POLLIN};

    holder->fd = fd;
    event.fd = holder->uffd = raw_userfaultfd();
    holder->source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(holder->uffd >= 0 && holder->source != MAP_FAILED);
    ck_assert_int_eq(ioctl(holder->uffd, UFFDIO_API, &api), 0);
    range.range.start = (uintptr_t)holder->source;
    ck_assert_int_eq(ioctl(holder->uffd, UFFDIO_REGISTER, &range), 0);
    ck_assert_int_eq(pthread_create(&holder->thread, NULL, write_from_armed, holder), 0);
    ck_assert_int_eq(poll(&event, 1, WAIT_MS), 1);
}

void holder_end(struct holder *holder) {
    struct uffdio_zeropage zero = {.range = {.start = (uintptr_t)holder->source, .len = PAGE}};

    ck_assert_int_eq(ioctl(holder->uffd, UFFDIO_ZEROPAGE, &zero), 0);
    ck_assert_int_eq(pthread_join(holder->thread, NULL), 0);
    munmap(holder->source, PAGE);
    close(holder->uffd);
}
