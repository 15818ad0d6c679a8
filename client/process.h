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
 * May it be a service that goes on? Not one of another name, whose number the service does not have here, nor one whose first thread has ended: it was
 * killed, and another thread of it is held up by some client's lock, for as long as he likes. Of whom nothing can be read may.
 */
bool process_may_serve(pid_t pid, uint64_t inode);

#endif
