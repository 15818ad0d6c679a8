/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_CRASH_LOAD_H
#define DROPPABLE_TESTS_CRASH_LOAD_H

/*
 * Clients that do all that clients can, and check each byte of it, while the service comes and goes. Run by child_start(); data is not used.
 *
 * They say 'r' when they have what they need. Told 'p' they answer 'p' when a service has their regions and some more rounds are done;
 * told 'e' they free everything, look for what leaked, and end.
 */

/* Pins, touches, drops, makes and frees regions, moves pieces of one; has the shared region "crash", and regions of all kinds (crash-kinds.c). */
void crash_load_run(int socket, void *data);
/* Another process with that shared region, which pins in it. */
void crash_load_guest(int socket, void *data);
/* Makes a region, has the shared one, if it is there, and dies without a word. Says nothing. */
void crash_load_mortal(int socket, void *data);

#endif
