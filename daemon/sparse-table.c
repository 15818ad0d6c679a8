/* SPDX-License-Identifier: MIT */
/*
 * Zeroed memory of which only the parts that are written cost any: a mapping of its own. A small one comes from the heap, since a mapping
 * costs a page at least, and one of the VMAs that a process may have; with a thousand clients that is most of the daemon.
 */

#include "sparse-table.h"

#include <stdlib.h>
#include <sys/mman.h>

#define SMALL 4096

void *sparse_table_new(size_t size) {
    void *p;

    if (size < SMALL)
        return calloc(1, size ? size : 1);
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, size, MADV_NOHUGEPAGE); /* EINVAL: there are none */
    return p;
}

void sparse_table_free(void *table, size_t size) {
    if (size < SMALL)
        free(table);
    else if (table)
        munmap(table, size);
}
