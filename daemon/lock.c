/* SPDX-License-Identifier: MIT */
/*
 * The daemon's program, kept in memory: 3 to 4 MiB, most of it shared with every other program that uses the C library.
 */

#include "lock.h"

#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* One loaded object: its executable segments. The vdso has no file behind it and is not asked to have. */
static int lock_object(struct dl_phdr_info *info, size_t size, void *data) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    int *result = data;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t start = (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr) & ~(page - 1);
        uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;

        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X &&
            mlock((const void *)start, end - start) < 0 && *result == 0)
            *result = -errno;
    }
    return 0;
}

int lock_program(void) {
    int result = 0, r = 0;

    if (mlockall(MCL_CURRENT | MCL_ONFAULT) < 0)
        r = -errno;
    dl_iterate_phdr(lock_object, &result);
    return result < 0 ? result : r;
}
