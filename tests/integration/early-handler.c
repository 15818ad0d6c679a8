/* SPDX-License-Identifier: MIT */
/* Preloaded into a program: its constructor comes before that of the preload library, and has handlers of fork(2). What they do with memory is to be fine. */

#include "early-handler.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

volatile char *early_memory;

/* No lock may be held yet. */
static void prepare(void) {
    if (early_memory && madvise((void *)(early_memory + PAGE), PAGE, MADV_DONTNEED) < 0)
        _exit(2);
}

/* And the memory has to be there. */
static void child(void) {
    if (early_memory && early_memory[0] != 0)
        _exit(3);
}

static void __attribute__((constructor)) begin(void) {
    pthread_atfork(prepare, NULL, child);
}
