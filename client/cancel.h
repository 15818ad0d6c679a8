/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_CANCEL_H
#define DROPPABLE_CLIENT_CANCEL_H

/*
 * pthread_cancel(3) ends a thread in system calls that wait, of which the library makes many under its locks: nobody would ever get these again. And
 * munmap(2) and the like, which the preload library serves by such calls, end nobody. So from where NOT_CANCELLED; stands to the end of the block
 * nobody is ended; that is made up for at the thread's next call that is none of ours.
 */

#include <pthread.h>

static inline int cancel_off(void) {
    int before;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

static inline void cancel_restore(const int *before) {
    pthread_setcancelstate(*before, NULL);
}

#define NOT_CANCELLED int not_cancelled __attribute__((cleanup(cancel_restore), unused)) = cancel_off()

#endif
