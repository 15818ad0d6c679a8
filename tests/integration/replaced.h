/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_REPLACED_H
#define DROPPABLE_TESTS_REPLACED_H

/* What a program has put in the place of the library's descriptors, and whether somebody has touched it. In a child (child.h). */

#include <stdbool.h>

#define NUMBERS 128 /* the library's are below */

enum put { NOTHING, A_FILE, A_CONNECTION, AN_EPOLL };

extern bool ours[NUMBERS];       /* of the library */
extern enum put theirs[NUMBERS]; /* of the program, which put it there */

/* From here on new descriptors are the library's. */
void begin_looking(void);
/* How many there were. */
int end_looking(void);

void put_file(int number);
/* Something is there to be read. */
void put_connection(int number);
/* One event is there. For the kernel it is of the inode of eventfds. */
void put_epoll(int number);
/* In the place of all of the library's. Those that share an inode get one that has it, too. */
void put_all(void);
void close_all_but(int socket);

/* SOCK_*, -1: no socket. */
int type_of(int fd);
/* What the kernel calls it, "anon_inode:" and so on. */
bool is_kind(int fd, const char *kind);

/* In a child that was forked, too; not the connections, whose contents are one for all. */
void check_files(void);
void check_all(void);

#endif
