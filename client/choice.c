/* SPDX-License-Identifier: MIT */

/*
 * Which backend: of a context, once, when it is made; of a region, when that is made. Found by trying, never by a version number.
 *
 * The program's word counts before the user's ($DROPPABLE_BACKEND), as with the socket's path. Whatever was named is taken, or an error; only what
 * was left open is chosen.
 */

#include "choice.h"

#include "client.h"
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ENOTSUPP_KERNEL 524 /* the kernel's own, which must not reach programs and does */
#define TRY_BYTES 4096

static const char *const names[] = {
    [DRP_BACKEND_AUTO] = "auto",
    [DRP_BACKEND_DAEMON] = "daemon",
    [DRP_BACKEND_NATIVE] = "native",
    [DRP_BACKEND_NONE] = "none",
};

#define N_NAMES (sizeof(names) / sizeof(names[0]))

const char *choice_name(enum drp_backend backend) {
    return names[backend];
}

int choice_native_error(void) {
    int saved = errno, error = 0;
    void *p = mmap(NULL, TRY_BYTES, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p != MAP_FAILED)
        munmap(p, TRY_BYTES);
    else
        error = errno == EINVAL || errno == ENOTSUPP_KERNEL ? -EOPNOTSUPP : -errno;
    errno = saved;
    return error;
}

int choice_of_user(enum drp_backend *ret) {
    const char *word = secure_getenv("DROPPABLE_BACKEND");

    if (!word || !*word)
        word = names[DRP_BACKEND_AUTO];
    for (unsigned i = 0; i < N_NAMES; i++)
        if (strcmp(word, names[i]) == 0) {
            *ret = (enum drp_backend)i;
            return 0;
        }
    return error_detail(-EINVAL, "DROPPABLE_BACKEND=%s: not one of auto, daemon, native, none", word);
}

int choice_of_context(enum drp_backend asked, enum drp_backend *ret) {
    enum drp_backend backend = asked;
    int error = 0;

    if ((unsigned)asked >= N_NAMES)
        return error_detail(-EINVAL, "drp_config.backend is %d: not one of DRP_BACKEND_*", (int)asked);
    if (asked == DRP_BACKEND_AUTO)
        error = choice_of_user(&backend);
    if (error == 0 && backend == DRP_BACKEND_NATIVE) {
        error = choice_native_error();
        if (error < 0)
            error_detail(
                error,
                "%s: the kernel has no MAP_DROPPABLE (%s), which came with Linux 6.11. The backend 'daemon' is the "
                "service's memory, 'none' plain memory",
                asked == DRP_BACKEND_AUTO ? "DROPPABLE_BACKEND=native" : "DRP_BACKEND_NATIVE", strerror(-error));
    }
    if (error == 0)
        *ret = backend;
    return error;
}

enum drp_backend choice_of_region(enum drp_backend backend, const struct drp_region_options *options) {
    uint64_t asked = options->required | options->preferred;

    if (backend != DRP_BACKEND_AUTO)
        return backend;
    if ((asked & DRP_REGION_NO_PINS) && options_can(DRP_BACKEND_NATIVE, asked) == asked && choice_native_error() == 0)
        return DRP_BACKEND_NATIVE;
    return DRP_BACKEND_DAEMON;
}
