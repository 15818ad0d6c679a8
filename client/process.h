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
/*
 * Is it certainly a service that has not ended, and does not end? Not certain is one of another name, which its number does not belong to here, and one whose first
 * thread has ended: it was killed, and one of the others is held up by some client's lock, for as long as he likes.
 */
bool process_serves(pid_t pid, uint64_t inode);

#endif
