/* SPDX-License-Identifier: MIT */
#include "clock.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

uint64_t now_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t now_ms(void) {
    return now_ns() / 1000000;
}

unsigned patience(void) {
    const char *text = getenv("CK_TIMEOUT_MULTIPLIER");
    int value = text ? atoi(text) : 1;

    return value > 1 ? (unsigned)value : 1;
}

uint64_t deadline_in(uint64_t ms) {
    return now_ms() + ms * patience();
}

void nap_ms(unsigned ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

bool event_comes(int fd, int timeout_ms) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    eventfd_t count;

    return poll(&readable, 1, timeout_ms) == 1 && eventfd_read(fd, &count) == 0;
}
