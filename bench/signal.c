/* SPDX-License-Identifier: MIT */

/*
 * All of a region is filled and dropped; then one page of each chunk is touched, and the next time around all of that is dropped.
 */

#include "signal.h"

#include "memory.h"
#include "window.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SIZE (16 * MIB)
#define CHUNK (64 * KIB)

static void handle(int number, siginfo_t *info, void *context) {
    struct drp_region *region;
    size_t offset;

    (void)context;
    /* Another access than ours is a bug: the default action tells of it. */
    if (drp_locate(info->si_addr, &region, &offset) < 0 || drp_populate(region, offset, 1) < 0)
        signal(number, SIG_DFL);
}

static double now_us(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int touch(struct drp_region *region, double *us) {
    for (uint64_t at = 0; at < SIZE; at += CHUNK) {
        double start = now_us();

        ((volatile unsigned char *)drp_region_address(region))[at] = 1;
        us[at / CHUNK] = now_us() - start;
    }
    return drp_drop(region, 0, SIZE, NULL, NULL);
}

int signal_retry(struct task *task, struct sample *ret) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SIGNAL};
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO}, before;
    size_t rounds = task_scaled(task, 40, 10, 1), n = SIZE / CHUNK;
    double *us = calloc(rounds * n, sizeof(*us));
    struct drp *d = memory_connection(task);
    struct drp_region *region = NULL;
    struct window window;
    int r = us ? 0 : -ENOMEM;

    if (r == 0 && !d)
        r = -ENOTCONN;
    if (r == 0 && drp_region_new(&region, d, SIZE, &options) < 0)
        r = task_fail(task, -EOPNOTSUPP, "%s", drp_detail());
    if (r == 0) {
        sigaction(SIGBUS, &action, &before);
        r = touch(region, us);
        window_open(&window, task);
        for (size_t i = 0; r == 0 && i < rounds; i++)
            r = touch(region, us + i * n);
        window_close(&window, task, ret);
        sigaction(SIGBUS, &before, NULL);
    }
    if (r == 0)
        sample_set_distribution(ret, us, rounds * n);
    drp_region_free(region);
    free(us);
    return r;
}
