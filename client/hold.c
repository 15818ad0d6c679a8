/* SPDX-License-Identifier: MIT */

/*
 * Holding the lock of a region's object.
 *
 * Where tmpfs cannot keep out of swap (before Linux 6.4), the object is a locked System V segment, and its memory can be swapped once nobody is
 * attached to it any more. The daemon is; so that this also holds when it dies, one inaccessible page of the segment stays attached here: a mapping
 * of the object's descriptor does not count. A segment has its name in its IPC namespace only: in a container of our own there is nothing to attach.
 */

#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>

#define HOLD_SIZE ((size_t)4096)

static bool is_same_namespace(uint32_t ipc_namespace) {
    struct stat st;

    return stat("/proc/self/ns/ipc", &st) == 0 && st.st_ino == ipc_namespace;
}

/* Fork lock held. */
static int attach(struct drp_region *r, int id) {
    struct shmid_ds segment;
    char *p;

    /* Its size decides how much is unmapped: not ours to guess. */
    if (shmctl(id, IPC_STAT, &segment) < 0)
        return -errno;
    if (segment.shm_segsz < HOLD_SIZE)
        return -EPROTO;
    p = shmat(id, NULL, SHM_RDONLY);
    if (p == (void *)-1)
        return -errno;
    r->hold = p;
    if (segment.shm_segsz > HOLD_SIZE && munmap(p + HOLD_SIZE, segment.shm_segsz - HOLD_SIZE) < 0)
        return -errno;
    /* A core dump would have the page, inaccessible or not. */
    if (mprotect(p, HOLD_SIZE, PROT_NONE) < 0 || madvise(p, HOLD_SIZE, MADV_DONTFORK) < 0 ||
        madvise(p, HOLD_SIZE, MADV_DONTDUMP) < 0)
        return -errno;
    return 0;
}

int hold_take(struct drp_region *r, uint32_t ipc_namespace, uint64_t required) {
    struct stat object;
    int error = -EXDEV;

    if (ipc_namespace == 0)
        return 0;
    if (fstat(r->data_fd, &object) < 0)
        return error_detail(-errno, "cannot look at the region's object: %s", strerror(errno));
    if (is_same_namespace(ipc_namespace)) {
        fork_lock();
        error = attach(r, (int)object.st_ino); /* the inode of a segment is its id */
        fork_unlock();
    }
    if (error == 0)
        return 0;
    if (error == -EINVAL || error == -EIDRM) /* a segment is gone as soon as nobody is attached */
        return error_detail(-ENOTCONN, "the service ended before this process could attach the region's segment");
    r->granted &= ~DRP_REGION_NO_SWAP;
    atomic_fetch_and(&r->options, ~DRP_REGION_NO_SWAP);
    if (!(required & DRP_REGION_NO_SWAP))
        return 0;
    return error_detail(
        -EOPNOTSUPP,
        "DRP_REGION_NO_SWAP cannot be given to this process (%s): before Linux 6.4 it takes the service's IPC "
        "namespace",
        strerror(-error));
}

void hold_free(struct drp_region *r) {
    if (r->hold)
        munmap(r->hold, HOLD_SIZE);
    r->hold = NULL;
}
