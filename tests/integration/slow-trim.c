/* SPDX-License-Identifier: MIT */
/* Preloaded into a service: each malloc_trim(3) is kept from a CPU for a while, and told in the log. */

#include <dlfcn.h>
#include <malloc.h>
#include <poll.h>
#include <unistd.h>

#define KEPT_MS 100

int malloc_trim(size_t pad) {
    static const char told[] = "a slow trim\n";
    int (*trim)(size_t) = (int (*)(size_t))dlsym(RTLD_NEXT, "malloc_trim");

    poll(NULL, 0, KEPT_MS);
    (void)!write(STDERR_FILENO, told, sizeof(told) - 1);
    return trim ? trim(pad) : 0;
}
