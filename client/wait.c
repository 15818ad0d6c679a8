/* SPDX-License-Identifier: MIT */

/*
 * poll(2), also for programs that have given up descriptors: it refuses more of them than RLIMIT_NOFILE allows, of old ones, too. Then
 * select(2) does it, which has no such limit, nor, with sets of our own, one of numbers. That tells nothing of a peer that has hung up while there is
 * something to read; it is looked for in turns.
 *
 * Nothing is allocated by malloc(3): who frees memory of an allocator may come here (preload/).
 */

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

#define TURN_MS 100
#define WORD_BITS (8 * (int)sizeof(unsigned long))

/* What select(2) takes, for as many numbers as there are. */
struct sets {
    unsigned long *in, *out;
    int numbers;
    size_t mapped; /* bytes; 0: few */
    unsigned long few[2 * FD_SETSIZE / WORD_BITS];
};

int64_t wait_now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool has(const unsigned long *set, int fd) {
    return set[fd / WORD_BITS] >> (fd % WORD_BITS) & 1;
}

static void add(unsigned long *set, int fd) {
    set[fd / WORD_BITS] |= 1UL << (fd % WORD_BITS);
}

/* Without memory for more than few numbers, higher ones are left out. */
static void sets_init(struct sets *sets, int top) {
    size_t words = (size_t)top / WORD_BITS + 1;
    void *p = MAP_FAILED;

    *sets = (struct sets){.in = sets->few, .out = sets->few + FD_SETSIZE / WORD_BITS, .numbers = FD_SETSIZE};
    if (top < FD_SETSIZE)
        return;
    p = mmap(NULL, 2 * words * sizeof(long), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return;
    sets->in = p;
    sets->out = sets->in + words;
    sets->numbers = (int)words * WORD_BITS;
    sets->mapped = 2 * words * sizeof(long);
}

static void sets_deinit(struct sets *sets) {
    if (sets->mapped > 0)
        munmap(sets->in, sets->mapped);
}

static short result_of(const struct sets *sets, const struct pollfd *p) {
    short events = 0;
    ssize_t n;
    char byte;

    if (p->fd < 0 || p->fd >= sets->numbers)
        return 0;
    if (has(sets->in, p->fd))
        events |= POLLIN;
    if (has(sets->out, p->fd))
        events |= POLLOUT;
    if (p->events & POLLRDHUP) {
        n = recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n == 0)
            events |= POLLRDHUP;
        else if (n < 0 && errno == EBADF) /* it was in no set */
            return POLLNVAL;
    }
    return events;
}

/* select(2) refuses all for one that is closed, and does not tell which. */
static int find_closed(struct pollfd *polls, unsigned n) {
    int closed = 0;

    for (unsigned i = 0; i < n; i++) {
        polls[i].revents = polls[i].fd >= 0 && fcntl(polls[i].fd, F_GETFD) < 0 && errno == EBADF ? POLLNVAL : 0;
        closed += polls[i].revents != 0;
    }
    return closed;
}

/* One turn. */
static int by_select(struct pollfd *polls, unsigned n, int timeout_ms) {
    struct timeval timeout = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
    int top = -1, ready;
    struct sets sets;

    for (unsigned i = 0; i < n; i++)
        if (polls[i].fd > top)
            top = polls[i].fd;
    sets_init(&sets, top);
    for (unsigned i = 0; i < n; i++) {
        if (polls[i].fd >= 0 && polls[i].fd < sets.numbers && polls[i].events & POLLIN)
            add(sets.in, polls[i].fd);
        if (polls[i].fd >= 0 && polls[i].fd < sets.numbers && polls[i].events & POLLOUT)
            add(sets.out, polls[i].fd);
    }
    ready = select(top < sets.numbers ? top + 1 : sets.numbers, (void *)sets.in, (void *)sets.out, NULL, &timeout);
    if (ready < 0 && errno == EBADF)
        ready = find_closed(polls, n);
    else if (ready >= 0) {
        ready = 0;
        for (unsigned i = 0; i < n; i++) {
            polls[i].revents = result_of(&sets, &polls[i]);
            ready += polls[i].revents != 0;
        }
    }
    sets_deinit(&sets);
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
