/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_JOURNAL_H
#define DROPPABLE_DAEMON_JOURNAL_H

/* systemd's journal, by its native protocol: entries with fields. */

#include <stdbool.h>
#include <stddef.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/* An entry that is being put together: "NAME=value\n" for each field. All zeros: empty. */
struct journal_entry {
    char text[4096];
    size_t used;
    bool cut; /* a field had no room and is not there */
};

/* A socket for entries, non-blocking and close-on-exec, for the caller to close. Negative errno: there is no such journal. */
int journal_open(const char *path);
/* Adds a field; control characters in its value become '?'. */
void journal_add(struct journal_entry *entry, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Never waits. false: it was not taken. */
bool journal_send(int fd, const struct journal_entry *entry);

#endif
