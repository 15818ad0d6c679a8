/* SPDX-License-Identifier: MIT */

/*
 * What the service uses is read from /proc: schedstat of its threads has nanoseconds, where stat has ticks of 10 ms. Time of
 * threads that have ended is in stat alone; the service's threads live as long as a session, so differences over a
 * measurement do not miss them.
 */

#include "service.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int service_find(pid_t *ret) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = secure_getenv("DROPPABLE_SOCKET");
    socklen_t size = sizeof(struct ucred);
    struct ucred peer;
    int fd, error = 0;

    if (!path || strlen(path) >= sizeof(address.sun_path))
        return -ENOENT;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        error = -errno;
    close(fd);
    if (error == 0)
        *ret = peer.pid;
    return error;
}

uint64_t service_cpu_ns(pid_t service) {
    uint64_t ns, sum = 0;
    char pattern[64];
    glob_t found;

    snprintf(pattern, sizeof(pattern), "/proc/%d/task/*/schedstat", (int)service);
    if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *file = fopen(found.gl_pathv[i], "re");

        if (!file) /* a thread that has just ended */
            continue;
        if (fscanf(file, "%" SCNu64, &ns) == 1)
            sum += ns;
        fclose(file);
    }
    globfree(&found);
    return sum;
}

int service_memory(pid_t service, uint64_t *ret_rss, uint64_t *ret_pss) {
    uint64_t rss = 0, pss = 0, kib;
    char path[64], line[256];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)service);
    file = fopen(path, "re");
    if (!file)
        return -errno;
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "Rss: %" SCNu64, &kib) == 1)
            rss = kib * 1024;
        if (sscanf(line, "Pss: %" SCNu64, &kib) == 1)
            pss = kib * 1024;
    }
    fclose(file);
    *ret_rss = rss;
    *ret_pss = pss;
    return 0;
}
