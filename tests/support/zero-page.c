/* SPDX-License-Identifier: MIT */
#include "zero-page.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define PAGEMAP_EXCLUSIVE (UINT64_C(1) << 56)

bool kernel_has_zero_page(void) {
    volatile char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t word = 0;
    bool known = false;

    if (p != MAP_FAILED) {
        (void)*p;
        known = fd >= 0 && pread(fd, &word, sizeof(word), (off_t)((uintptr_t)p / PAGE * sizeof(word))) == sizeof(word);
        munmap((void *)p, PAGE);
    }
    if (fd >= 0)
        close(fd);
    return !known || !(word & PAGEMAP_EXCLUSIVE);
}
