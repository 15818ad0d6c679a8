/* SPDX-License-Identifier: MIT */

/*
 * poll(2), also for programs that have given up descriptors: it refuses more of them than RLIMIT_NOFILE allows, of old ones, too. Then
 * select(2) does it, which has no such limit. That tells nothing of a peer that has hung up while there is something to read; it is looked for in turns.
 */

#include "client.h"

#include <errno.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

#define TURN_MS 100

int64_t wait_now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Into the sets. false: too high a number, which is left out. */
static bool enter(const struct pollfd *p, fd_set *in, fd_set *out) {
    if (p->fd < 0 || p->fd >= FD_SETSIZE)
        return false;
    if (p->events & POLLIN)
        FD_SET(p->fd, in);
    if (p->events & POLLOUT)
        FD_SET(p->fd, out);
    return true;
}

static short result_of(const struct pollfd *p, const fd_set *in, const fd_set *out) {
    short events = 0;
    char byte;

    if (p->fd < 0 || p->fd >= FD_SETSIZE)
        return 0;
    if (FD_ISSET(p->fd, in))
        events |= POLLIN;
    if (FD_ISSET(p->fd, out))
        events |= POLLOUT;
    if (p->events & POLLRDHUP && recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        events |= POLLRDHUP;
    return events;
}

/* One turn. */
static int by_select(struct pollfd *polls, unsigned n, int timeout_ms) {
    struct timeval timeout = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
    fd_set in, out;
    int top = -1, ready = 0;

    FD_ZERO(&in);
    FD_ZERO(&out);
    for (unsigned i = 0; i < n; i++)
        if (enter(&polls[i], &in, &out) && polls[i].fd > top)
            top = polls[i].fd;
    if (select(top + 1, &in, &out, NULL, &timeout) < 0)
        return -1;
    for (unsigned i = 0; i < n; i++) {
        polls[i].revents = result_of(&polls[i], &in, &out);
        ready += polls[i].revents != 0;
    }
    return ready;
}

int wait_poll(struct pollfd *polls, unsigned n, int timeout_ms) {
    int r = poll(polls, n, timeout_ms), left = timeout_ms;

    if (r >= 0 || errno != EINVAL)
        return r;
    for (;;) {
        int turn = left < 0 || left > TURN_MS ? TURN_MS : left;

        r = by_select(polls, n, turn);
        left -= left < 0 ? 0 : turn;
        if (r != 0 || left == 0)
            return r;
    }
}
