/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_HOLDER_H
#define DROPPABLE_TESTS_HOLDER_H

/* Holds the lock of a file's inode for as long as a test likes: whoever punches the file waits. Needs a userfaultfd (may_intercept()). */

#include <pthread.h>

struct holder {
    int fd;   /* the file's, borrowed */
    int uffd; /* nobody answers it */
    void *source;
    pthread_t thread;
};

/* The lock is held when it returns. */
void holder_begin(struct holder *holder, int fd);
/* Lets go. The file's first page has zeros. */
void holder_end(struct holder *holder);

#endif
