/* SPDX-License-Identifier: MIT */
/*
 * PSI triggers. A trigger fires once a window at most, as soon as tasks have stalled for longer than its threshold; without stall it
 * costs nothing.
 *
 * Early is 10 % of some stall: systemd's default for services that give memory back (200 ms in 2 s). Severe is 7 % of full stall, at
 * which Android's lmkd ends processes (70 ms in 1 s). The window is the shortest that the kernel takes, 500 ms, since memory that is short stays
 * so for long, measured by how fast it is filled; without CAP_SYS_RESOURCE only multiples of 2 s are taken.
 */

#include "psi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define WINDOW_SHORT_US 500000U
#define WINDOW_LONG_US 2000000U

int psi_open(int directory, const char *path, enum psi_level level, bool *ret_short) {
    static const unsigned windows[] = {WINDOW_SHORT_US, WINDOW_LONG_US};
    const char *name = level == PSI_SOME ? "some" : "full";
    unsigned percent = level == PSI_SOME ? 10 : 7;
    char text[64];
    int fd, r = -EINVAL;

    fd = openat(directory, path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; r == -EINVAL && i < sizeof(windows) / sizeof(windows[0]); i++) {
        int n = snprintf(text, sizeof(text), "%s %u %u", name, windows[i] / 100 * percent, windows[i]);

        /* The kernel cuts the last byte of what is written, expecting the NUL. */
        r = write(fd, text, (size_t)n + 1) < 0 ? -errno : 0;
        if (r == 0)
            *ret_short = windows[i] < WINDOW_LONG_US;
    }
    if (r == 0)
        return fd;
    close(fd);
    return r;
}
