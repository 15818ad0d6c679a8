/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_LOCK_H
#define DROPPABLE_DAEMON_LOCK_H

/*
 * Keeps the daemon's program in memory. Where memory is short the kernel evicts pages of programs first, swap or not, and just then
 * the daemon would have to read its own code from disk before it could free anything.
 *
 * Locks all code that is loaded now, and of the rest what is or will be used (MLOCK_ONFAULT). What is mapped later is not locked, as clients choose its
 * size. Called once, at start, while privileges last. 0; or negative errno, with whatever could be locked: RLIMIT_MEMLOCK without CAP_IPC_LOCK.
 */
int lock_program(void);

#endif
