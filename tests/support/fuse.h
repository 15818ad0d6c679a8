/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_FUSE_H
#define DROPPABLE_TESTS_FUSE_H

/* A FUSE file system of a test's own with one file. It answers until something is to be written or the file is to be looked at. */

#include <sys/types.h>

struct fuse_system {
    pid_t server;
    char folder[32];
};

/* In a mount namespace of this thread's and what it starts. 0, or -1 where this user may not mount. */
int fuse_start(struct fuse_system *fuse);
/* Its file for reading and writing. */
int fuse_open(const struct fuse_system *fuse);
/* From here on whoever closes the file, or lets go of the last descriptor of an open one, waits for the server. */
void fuse_soil(int fd);
/* No more of it by its path. What is open stays. */
void fuse_detach(const struct fuse_system *fuse);
/* Nobody waits any more. It ends with the process that started it as well. */
void fuse_end(struct fuse_system *fuse);

#endif
