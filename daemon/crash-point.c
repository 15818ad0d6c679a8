/* SPDX-License-Identifier: MIT */
/*
 * Dying where a test says so.
 *
 * The points are found by the linker: each is an entry of the section crash_points, so a test that asks for the list cannot forget one. What
 * the environment says is read once; passing a point that is not asked for costs one comparison.
 */

#include "crash-point.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const struct crash_point *const __start_crash_points[], *const __stop_crash_points[];

const struct crash_point *crash_point_armed;
static _Atomic unsigned long passes_left;

static void list(void) {
    for (const struct crash_point *const *point = __start_crash_points; point != __stop_crash_points; point++)
        puts((*point)->name);
    exit(EXIT_SUCCESS);
}

void crash_points_init(void) {
    const char *text = getenv("DROPPABLE_CRASH_POINT");
    size_t length = text ? strcspn(text, ":") : 0;

    if (length == 0)
        return;
    if (strcmp(text, "list") == 0)
        list();
    atomic_store(&passes_left, text[length] ? strtoul(text + length + 1, NULL, 10) : 1);
    for (const struct crash_point *const *point = __start_crash_points; point != __stop_crash_points; point++)
        if (strncmp((*point)->name, text, length) == 0 && (*point)->name[length] == '\0')
            crash_point_armed = *point;
    if (!crash_point_armed) {
        fprintf(stderr, "DROPPABLE_CRASH_POINT=%s: there is no such point\n", text);
        exit(EXIT_FAILURE);
    }
}

void crash_point_passed(void) {
    if (atomic_fetch_sub(&passes_left, 1) != 1)
        return;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}
