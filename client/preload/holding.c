/* SPDX-License-Identifier: MIT */

/*
 * Holdings: the region behind an mmap(2) that the service answered, kept while the table or a thread refers to it.
 *
 * Memory is freed, and looked at, through the object's descriptor and not by its address. MADV_REMOVE at an address that the
 * table is wrong about (a system call made by hand passed it by) could punch a hole into somebody's file, and mincore(2) takes
 * every page for resident in a process that could not open the object by its mode. Programs also close descriptors that they
 * do not know, and open others with the same number: each use looks first whether it still is the object.
 */

#include "holding.h"

#include "client.h"
#include "raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool holding_pages(const void *address, size_t length, uintptr_t *ret_start, uintptr_t *ret_end) {
    uintptr_t start = (uintptr_t)address;
    uintptr_t end = start + ((length + HOLDING_PAGE - 1) & ~(HOLDING_PAGE - 1));

    if (start & (HOLDING_PAGE - 1) || end <= start)
        return false;
    *ret_start = start;
    *ret_end = end;
    return true;
}

int holding_note_object(struct holding *holding) {
    struct stat st;

    if (fstat(holding->region->data_fd, &st) < 0)
        return -errno;
    holding->device = st.st_dev;
    holding->inode = st.st_ino;
    return 0;
}

static bool has_object(const struct holding *holding) {
    struct stat st;

    return !holding->inherited && fstat(holding->region->data_fd, &st) == 0 && st.st_dev == holding->device &&
           st.st_ino == holding->inode;
}

void holding_release(struct holding *holding) {
    if (!table_release(holding))
        return;
    drp_region_free(holding->region);
    free(holding);
}

size_t holding_offset(const struct piece *piece) {
    return piece->start - (uintptr_t)piece->holding->region->address;
}

int holding_discard(const struct piece *piece) {
    const struct drp_region *region = piece->holding->region;
    size_t length = piece->end - piece->start;
    int r;

    if (has_object(piece->holding))
        r = fallocate(region->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(region->object_offset + holding_offset(piece)), (off_t)length);
    else
        r = raw_madvise((void *)piece->start, length, piece->holding->inherited ? MADV_DONTNEED : MADV_REMOVE);
    return r < 0 ? -errno : 0;
}

/* The offset of the descriptor, which the service has too, means nothing to either side. */
int holding_resident(const struct piece *piece, unsigned char *vector) {
    const struct drp_region *region = piece->holding->region;
    off_t start = (off_t)(region->object_offset + holding_offset(piece));
    off_t end = start + (off_t)(piece->end - piece->start), hole;

    if (!has_object(piece->holding))
        return 0;
    memset(vector, 0, (size_t)(end - start) / HOLDING_PAGE);
    for (off_t at = start; at < end; at = hole) {
        at = lseek(region->data_fd, at, SEEK_DATA);
        if (at < 0)
            return errno == ENXIO ? 0 : -errno; /* no data from here on */
        if (at >= end)
            return 0;
        hole = lseek(region->data_fd, at, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        if (hole > end)
            hole = end;
        memset(vector + (at - start) / (off_t)HOLDING_PAGE, 1, (size_t)(hole - at) / HOLDING_PAGE);
    }
    return 0;
}
