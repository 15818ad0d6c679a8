/* SPDX-License-Identifier: MIT */
#include "replaced.h"

#include "child.h"
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILE_SIZE 64
#define FILE_AT 7

bool ours[NUMBERS];
enum put theirs[NUMBERS];
static bool without_inode[NUMBERS]; /* of the library, and one of those that share one */
static int peers[NUMBERS];          /* the other end of a connection */

void begin_looking(void) {
    memset(theirs, 0, sizeof(theirs));
    for (int fd = 0; fd < NUMBERS; fd++)
        ours[fd] = fcntl(fd, F_GETFD) >= 0;
}

int end_looking(void) {
    int n = 0;

    for (int fd = 0; fd < NUMBERS; fd++) {
        ours[fd] = !ours[fd] && fcntl(fd, F_GETFD) >= 0;
        n += ours[fd];
        without_inode[fd] = ours[fd] && is_kind(fd, "anon_inode:");
    }
    return n;
}

void put_file(int number) {
    char text[FILE_SIZE];
    int fd = memfd_create("program", MFD_CLOEXEC);

    memset(text, 'p', sizeof(text));
    child_check(fd >= 0 && write(fd, text, sizeof(text)) == FILE_SIZE && lseek(fd, FILE_AT, SEEK_SET) == FILE_AT);
    child_check(fd == number || (dup2(fd, number) == number && close(fd) == 0));
    theirs[number] = A_FILE;
}

void put_connection(int number) {
    int ends[2];

    child_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0 && send(ends[1], "x", 1, 0) == 1);
    peers[number] = fcntl(ends[1], F_DUPFD, 2 * NUMBERS);
    child_check(peers[number] >= 0 && close(ends[1]) == 0);
    child_check(ends[0] == number || (dup2(ends[0], number) == number && close(ends[0]) == 0));
    theirs[number] = A_CONNECTION;
}

void put_epoll(int number) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = number};
    int fd = epoll_create1(EPOLL_CLOEXEC), source = eventfd(1, EFD_CLOEXEC);
    int far = fcntl(source, F_DUPFD_CLOEXEC, 2 * NUMBERS);

    child_check(fd >= 0 && far >= 0 && close(source) == 0 && epoll_ctl(fd, EPOLL_CTL_ADD, far, &event) == 0);
    child_check(fd == number || (dup2(fd, number) == number && close(fd) == 0));
    theirs[number] = AN_EPOLL;
}

void close_all_but(int socket) {
    if (close_range(3, (unsigned)socket - 1, 0) == 0) {
        child_check(close_range((unsigned)socket + 1, ~0U, 0) == 0);
        return;
    }
    child_check(errno == ENOSYS); /* before Linux 5.9 */
    for (int fd = 3, end = getdtablesize(); fd < end; fd++)
        if (fd != socket)
            close(fd);
}

void put_all(void) {
    for (int fd = 0; fd < NUMBERS; fd++)
        if (ours[fd] && without_inode[fd])
            put_epoll(fd);
        else if (ours[fd] && fd % 2)
            put_file(fd);
        else if (ours[fd])
            put_connection(fd);
}

int type_of(int fd) {
    socklen_t size = sizeof(int);
    int type = -1;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ? type : -1;
}

bool is_kind(int fd, const char *kind) {
    char path[64], text[128] = "";

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return readlink(path, text, sizeof(text) - 1) >= 0 && strstr(text, kind);
}

void check_files(void) {
    char text[FILE_SIZE + 1];
    struct epoll_event event;

    for (int fd = 0; fd < NUMBERS; fd++) {
        child_check(!theirs[fd] || fcntl(fd, F_GETFD) >= 0);
        if (theirs[fd] == AN_EPOLL)
            child_check(epoll_wait(fd, &event, 1, 0) == 1 && event.data.fd == fd);
        if (theirs[fd] != A_FILE)
            continue;
        child_check(lseek(fd, 0, SEEK_CUR) == FILE_AT);
        child_check(pread(fd, text, sizeof(text), 0) == FILE_SIZE && is_filled(text, 'p', FILE_SIZE));
    }
}

void check_all(void) {
    char byte;

    check_files();
    for (int fd = 0; fd < NUMBERS; fd++)
        if (theirs[fd] == A_CONNECTION) {
            child_check(recv(fd, &byte, 1, 0) == 1 && byte == 'x');
            child_check(recv(fd, &byte, 1, 0) < 0 && errno == EAGAIN);
            child_check(recv(peers[fd], &byte, 1, MSG_DONTWAIT) < 0 &&
                        errno == EAGAIN); /* neither written to nor closed */
        }
}
