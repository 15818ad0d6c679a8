/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_SOAK_CLIENT_H
#define DROPPABLE_TESTS_SOAK_CLIENT_H

/*
 * A client that makes regions of any kind, uses them and frees them, by chance, and checks each page. Run by child_start(); data: unsigned, the seed.
 * Told 'p' it answers 'p'; told 'e' it frees everything, looks for what leaked, and ends.
 */
void soak_client_run(int socket, void *data);

/*
 * Drops of a memory of its own, as told; no pressure, no other client meanwhile. Tells what was freed in all: the service's counters must have grown by just
 * that. data: unsigned, the seed. Writes a uint64_t to the socket, and waits to be ended.
 */
void soak_client_count(int socket, void *data);

#endif
