/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_PROGRAM_H
#define DROPPABLE_TESTS_PROGRAM_H

/* What test-preload runs as programs of their own, which know nothing of droppable but mmap(2). */

/*
 * If the command line asks for it (--program NAME FD), runs that program with its end of a socket pair (see child.h) and does not
 * return.
 */
void program_main(int argc, char **argv);

#endif
