/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CONFORMANCE_SAY_H
#define DROPPABLE_CONFORMANCE_SAY_H

/* What the checks are made of: words on the check's line, memory, and accesses that may fail. */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define DROPPABLE (MAP_DROPPABLE | MAP_ANONYMOUS)
#define PLAIN (MAP_PRIVATE | MAP_ANONYMOUS)
#define FILL 0x5a

struct check {
    const char *name;
    void (*run)(const struct check *check); /* in a process of its own */
    long a, b;                              /* what tells the checks of one function apart */
};

struct section {
    const char *name;
    const struct check *checks; /* ends with a check that has no name */
};

/* Words, in the line of the check that this process runs. They are out when the call returns. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "key=ok", or "key=" and the error's name; result is a system call's. */
void say_result(const char *key, long result);
/* The same for a call that tells a number. */
void say_number(const char *key, long result);
/* "key=all", or how many of them. */
void say_count(const char *key, size_t n, size_t of);
/* How often a check does what takes long: by $CONFORMANCE_PART, if there is one, less often. */
size_t often(long times);
/* "absent": this kernel cannot do that with plain memory either. Ends the check. */
void say_absent(void) __attribute__((noreturn));
/* Absent, unless this CPU has protection keys: without them memory that can be executed can be read. */
void need_keys(void);
/* Absent where memory that was only read has a page each (zero-page.h). */
void need_zero_page(void);
/* Where words go to; a program that is executed can go on with it. */
int say_descriptor(void);
void say_init(int fd);
const char *signal_name(int signal);

/* Ends the check with the error if there is no memory. */
char *droppable(size_t size);
char *plain(size_t size);
/* Droppable memory in a place with nothing but inaccessible memory around it, so that neighbours are the same everywhere. */
char *droppable_alone(size_t size);
char *place_alone(size_t size); /* the place without the memory: PROT_NONE */

void fill(char *p, size_t size);
/* What a read sees: zero, data (what fill() wrote), mixed, other, or the signal that it gets. */
const char *seen(const char *p, size_t size);
/* A write of FILL to each page: ok, or the signal. */
const char *written(char *p, size_t size);
/* A call of the code at p, which the caller wrote there: ok, or the signal. */
const char *executed(char *p);

/* Runs it in a forked child, which may say words, and waits. Says so if a signal ended the child. */
void in_child(void (*run)(void *data), void *data);
void wait_child(pid_t pid);

/* A new file without a name; -1 with errno. */
int scratch_file(int flags);

#endif
