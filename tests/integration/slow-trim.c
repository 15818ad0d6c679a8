/* SPDX-License-Identifier: MIT */
/* Preloaded into a service: each malloc_trim(3) is kept from a CPU for a while, and told in the log, by its number. */

#include <dlfcn.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define KEPT_MS 100

int malloc_trim(size_t pad) {
    static unsigned n; /* one thread trims */
    int (*trim)(size_t) = (int (*)(size_t))dlsym(RTLD_NEXT, "malloc_trim");

    poll(NULL, 0, KEPT_MS);
    dprintf(STDERR_FILENO, "slow trim %u\n", ++n);
    return trim ? trim(pad) : 0;
}
