/* SPDX-License-Identifier: MIT */
/*
 * The service manager. Its protocols are variables of the environment and datagrams, documented and stable; nothing here needs systemd to be
 * there.
 *
 * Not by libsystemd: its sd_notify() waits for a manager that does not read, without end, and process 1 may be held up by memory that only we can
 * free. (It was seen: a test parent that did not read stopped the loop.) Besides, all that it would load into a program that is locked in memory.
 *
 * What is passed by mistake is refused by name: with a socket of another type, or two, clients would find somebody who does not answer.
 */

#include "notify.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PASSED_FIRST 3
#define TEXT_MAX 1024

bool notify_is_heard(void) {
    const char *path = getenv("NOTIFY_SOCKET");

    return path && *path;
}

/* A number of the environment; 0 where there is none. */
static uint64_t number_of(const char *name) {
    const char *text = getenv(name);
    uint64_t value = 0;

    return text && sscanf(text, "%" SCNu64, &value) == 1 ? value : 0;
}

/* Is the variable about us, and not about who started us? */
static bool is_for_us(const char *pid_name) {
    return number_of(pid_name) == (uint64_t)getpid();
}

uint64_t notify_watchdog(void) {
    if (getenv("WATCHDOG_PID") && !is_for_us("WATCHDOG_PID"))
        return 0;
    return number_of("WATCHDOG_USEC") * 1000;
}

/* ---- messages ---- */

static void send_text(const char *text, bool wait) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t length = path ? strlen(path) : 0;
    struct pollfd room;

    if (length < 2 || length >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') /* an abstract one */
        address.sun_path[0] = '\0';
    room = (struct pollfd){.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), .events = POLLOUT};
    if (room.fd < 0)
        return;
    /* A manager that cannot be reached is left alone. */
    if (connect(room.fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) == 0 &&
        send(room.fd, text, strlen(text), MSG_NOSIGNAL) < 0 && errno == EAGAIN && wait &&
        poll(&room, 1, NOTIFY_WAIT_MS) > 0)
        (void)!send(room.fd, text, strlen(text), MSG_NOSIGNAL);
    close(room.fd);
}

__attribute__((format(printf, 1, 0))) static void send_format(const char *format, va_list args, bool wait) {
    char text[TEXT_MAX];

    vsnprintf(text, sizeof(text), format, args);
    send_text(text, wait);
}

void notify_tell(const char *format, ...) {
    va_list args;

    va_start(args, format);
    send_format(format, args, false);
    va_end(args);
}

void notify_state(const char *format, ...) {
    va_list args;

    va_start(args, format);
    send_format(format, args, true);
    va_end(args);
}

void notify_reloading(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    notify_state("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

/* ---- the socket ---- */

static bool has_option(int fd, int option, int wanted) {
    socklen_t size = sizeof(int);
    int value;

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
}

static int prepare(int fd, char **ret_path) {
    struct sockaddr_un address = {0};
    socklen_t size = sizeof(address);
    char path[sizeof(address.sun_path) + 1] = "";

    if (!has_option(fd, SO_DOMAIN, AF_UNIX) || !has_option(fd, SO_TYPE, SOCK_SEQPACKET) ||
        !has_option(fd, SO_ACCEPTCONN, 1))
        return -EPROTOTYPE;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return -errno;
    memcpy(path, address.sun_path, size - offsetof(struct sockaddr_un, sun_path));
    if (path[0] == '\0')
        path[0] = '@';
    *ret_path = strdup(path);
    return *ret_path ? 0 : -ENOMEM;
}

int notify_take_socket(int *ret_fd, char **ret_path) {
    uint64_t n = is_for_us("LISTEN_PID") ? number_of("LISTEN_FDS") : 0;
    int r;

    if (n == 0)
        return 0;
    if (n > 1) {
        log_error("%" PRIu64 " sockets were passed: one is listened on, take the others out of the socket's unit", n);
        return -E2BIG;
    }
    r = prepare(PASSED_FIRST, ret_path);
    if (r == -EPROTOTYPE)
        log_error("what was passed is not a listening unix socket of packets: "
                  "the socket's unit needs ListenSequentialPacket= and Accept=no");
    else if (r < 0)
        log_error("cannot take the socket that was passed: %s", strerror(-r));
    if (r < 0)
        return r;
    *ret_fd = PASSED_FIRST;
    return 1;
}
