/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_LOCKED_H
#define DROPPABLE_DAEMON_LOCKED_H

/* Objects that are never swapped, for kernels whose tmpfs has no noswap: locked System V segments. In the loop, but locked_end(). */

#include <stdint.h>
#include <sys/types.h>

/* Can they be made, with the capabilities that privs_drop() leaves? Raises RLIMIT_MEMLOCK if it may. 0, or negative errno. */
int locked_probe(void);

/* How many there may be: half of what the system's limits (kernel.shmmni) leave to all programs. */
unsigned locked_max(void);

/*
 * Makes one of size bytes, a multiple of a page. ret_fd: read-write, close-on-exec; ret_map: our attachment, PROT_NONE: munmap(2) of it ends
 * the lock, unless somebody else holds the segment. -ENOSPC, -EINVAL: the system's limits; negative errno.
 */
int locked_new(uint64_t size, int *ret_fd, void **ret_map);
/* Attaches an object, if it is one that a service before this one made; as locked_new(). -EINVAL: it is none; negative errno. */
int locked_take(int fd, uint64_t size, void **ret_map);
/* Lets a user attach it, so that the lock outlives this process. inode: of the descriptor, which is the segment's id. 0 or negative errno. */
int locked_lend(uint64_t inode, uid_t uid, gid_t gid);
/* Its memory is ordinary from now on, whoever holds it. Before the attachment goes. Looks at each page: not in the loop. */
void locked_end(uint64_t inode);

/* The IPC namespace in which they can be attached: the inode of /proc/self/ns/ipc. 0: not known. */
uint32_t locked_namespace(void);

#endif
