/* SPDX-License-Identifier: MIT */

/*
 * RLIMIT_DATA. The kernel holds private memory that can be written to against it, which droppable memory of its own is, and what the service
 * gives is not. So it is done here: what the kernel has counted, and what of ours it would have. Almost nobody has such a limit, and then it costs
 * one call.
 *
 * It cannot be done for what a mapping takes the place of, which counts twice for a moment; nor is it atomic with other threads.
 */

#include "client.h"
#include "serve.h"
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LABEL "\nVmData:"

/* Bytes. false: nobody tells, for want of a descriptor or of /proc. No child gets that, unless the lock's holder is who was interrupted for this. */
static bool counted(size_t *ret) {
    bool locked = fork_try_lock();
    char text[4096];
    const char *label;
    ssize_t n = -1;
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    if (locked)
        fork_unlock();
    text[n < 0 ? 0 : n] = '\0';
    label = strstr(text, LABEL);
    if (!label)
        return false;
    *ret = strtoul(label + strlen(LABEL), NULL, 10) * 1024;
    return true;
}

int limit_data(size_t more) {
    struct rlimit limit;
    size_t has;
    bool over;

    if (getrlimit(RLIMIT_DATA, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || !counted(&has))
        return 0;
    has += table_writable();
    over = limit.rlim_cur < has || limit.rlim_cur - has < more;
    return over ? -ENOMEM : 0;
}
