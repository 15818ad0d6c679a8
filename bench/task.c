/* SPDX-License-Identifier: MIT */

/* The reason for which a measurement could not be made: the call that failed, the errno's name, and what was asked. */

#include "task.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int task_fail(struct task *task, int error, const char *format, ...) {
    const char *name = error < 0 ? strerrorname_np(-error) : NULL;
    char text[120];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    snprintf(task->reason, sizeof(task->reason), "%s: %s", name ? name : "failed", text);
    return error;
}
