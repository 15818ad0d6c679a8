/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_INSTALLED_H
#define DROPPABLE_TESTS_INSTALLED_H

/*
 * The service as it is installed, of the system, or, for an ordinary user, of his own manager. For programs in guests.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INSTALLED_WAIT_MS 60000

/* "systemctl", or "systemctl --user". */
const char *systemctl(void);
/* The first line that a command prints. Its exit status; -1: it was ended by a signal. */
int shell(char *line, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Fails the test unless the command's status is 0. */
void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A property of droppabled.service; waiting until it holds a text (says what it is otherwise). */
void property(const char *name, char *ret, size_t size);
bool property_becomes(const char *name, const char *wanted);
/* Lines of the service's journal with a text: a basic regular expression without quotes. */
unsigned journal_count(const char *text);
/* Waits for an entry of the service's with these fields ("NAME=value NAME=value"), and tells the newest one as JSON. Fails the test if there is none. */
void journal_entry(const char *fields, char *ret, size_t size);

#endif
