/* SPDX-License-Identifier: MIT */
/*
 * Entries of the journal: datagrams of fields, a documented and stable protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
 *
 * Not by sd_journal_sendv(3), for the reasons in notify.c: it waits for a journal that does not read, which may be waiting for memory that only
 * the caller can free, and it would load libsystemd into a program that is locked in memory. What it has beyond this, values of several lines and of
 * any length, a line of the log does not need.
 */

#include "journal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int journal_open(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, r;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* The socket is the manager's, so it outlives a journal that is restarted. */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

void journal_add(struct journal_entry *entry, const char *name, const char *format, ...) {
    size_t room = sizeof(entry->text) - entry->used;
    char *at = entry->text + entry->used;
    size_t length;
    va_list args;
    int n;

    n = snprintf(at, room, "%s=", name);
    if (n < 0 || (size_t)n >= room) {
        entry->cut = true;
        return;
    }
    length = (size_t)n;
    va_start(args, format);
    n = vsnprintf(at + length, room - length, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room - length) { /* the newline takes the place of the NUL */
        entry->cut = true;
        return;
    }
    for (int i = 0; i < n; i++, length++) /* or somebody's name were a field of his own */
        if ((unsigned char)at[length] < 0x20)
            at[length] = '?';
    at[length++] = '\n';
    entry->used += length;
}

bool journal_send(int fd, const struct journal_entry *entry) {
    ssize_t n;

    do
        n = send(fd, entry->text, entry->used, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n >= 0;
}
