/* SPDX-License-Identifier: MIT */

/*
 * What the service uses. CPU time is that of its process clock: nanoseconds, and with the threads that have ended, where
 * /proc/PID/stat has ticks of 10 ms, and schedstat only threads that live. The rest is read from /proc.
 */

#include "service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Busy is 5 % of a processor: the looks at the headroom are less. */
#define SETTLE_US 10000
#define SETTLE_CPU_NS 500000
#define SETTLE_LOOKS 500

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
    struct timespec t;
    clockid_t clock;

    if (clock_getcpuclockid(service, &clock) != 0 || clock_gettime(clock, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

unsigned service_threads(pid_t service) {
    char path[64], line[256];
    unsigned threads = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)service);
    file = fopen(path, "re");
    while (file && threads == 0 && fgets(line, sizeof(line), file))
        (void)sscanf(line, "Threads: %u", &threads);
    if (file)
        fclose(file);
    return threads;
}

void service_settle(pid_t service, unsigned threads) {
    uint64_t before = service_cpu_ns(service);

    for (unsigned i = 0; i < SETTLE_LOOKS; i++) {
        uint64_t now;

        usleep(SETTLE_US);
        now = service_cpu_ns(service);
        if (now - before < SETTLE_CPU_NS && (threads == 0 || service_threads(service) <= threads))
            return;
        before = now;
    }
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
