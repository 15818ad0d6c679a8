/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_PROCESS_H
#define DROPPABLE_CLIENT_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Has the process of this number certainly ended? inode: of a pidfd of it, 0: not known. 0 and -1 are no numbers, and have not ended. Sets errno. For signal
 * handlers, too.
 */
bool process_has_ended(pid_t pid, uint64_t inode);

#endif
