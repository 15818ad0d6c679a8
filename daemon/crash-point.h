/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CRASH_POINT_H
#define DROPPABLE_DAEMON_CRASH_POINT_H

/*
 * Places at which a test has the daemon die by kill -9: the crash contract must hold at each of them. In builds with DROPPABLE_CRASH_POINTS
 * only; in others there is nothing.
 *
 * $DROPPABLE_CRASH_POINT is a name, or NAME:N for the Nth pass; "list" prints all names, one a line, and exits.
 */

#ifdef DROPPABLE_CRASH_POINTS

struct crash_point {
    const char *name;
};

/* The one to die at, or NULL. */
extern const struct crash_point *crash_point_armed;

/* Reads the environment. Before the first thread. */
void crash_points_init(void);
/* Dies, if it is the pass that was asked for. */
void crash_point_passed(void);

/* The pointers make up a section, so that no list has to be kept. */
#define CRASH_POINT(text)                                                                                          \
    do {                                                                                                           \
        static const struct crash_point point_here = {.name = (text)};                                             \
        static const struct crash_point *const entry __attribute__((section("crash_points"), used)) = &point_here; \
        if (__builtin_expect(crash_point_armed == &point_here, 0))                                                 \
            crash_point_passed();                                                                                  \
    } while (0)

#else

#define crash_points_init() ((void)0)
#define CRASH_POINT(text) ((void)0)

#endif

#endif
